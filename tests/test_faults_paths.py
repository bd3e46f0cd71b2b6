"""Faults: names and links in sidecars, manifests and data that lead elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from audiofiles import contents, noise, wav, write_tree

from poscuda_fast import (
    DatasetError,
    Key,
    SidecarError,
    protect_array,
    protect_folder,
    restore_array,
    restore_folder,
    verify_folder,
)
from poscuda_fast.files.batches import FileBatch

FILES = {f"{label}/{n}.wav": wav(noise(2000, seed=n)) for n, label in enumerate(("yes", "no", "yes", "no"))}
NAMES = ["../out.wav", "/etc/passwd", "yes/../../out.wav", "", ".", "yes", "a\0b.wav", "x" * 300, "/".join("d" * 3000)]


@pytest.fixture
def src(tmp_path: Path) -> Path:
    write_tree(tmp_path / "src", FILES)
    return tmp_path / "src"


def name_first(src: Path, name: str) -> None:
    """Let a manifest's first entry have another name."""
    path = src.with_name("src.poscuda.json")
    fields = json.loads(path.read_bytes())
    first = next(iter(fields["files"]))
    fields["files"][name] = fields["files"].pop(first)
    path.write_text(json.dumps(fields))


@pytest.mark.parametrize("name", [*NAMES, "\ud800.wav"])
def test_a_manifest_names_nothing_outside_its_folder(src: Path, key: Key, name: str) -> None:
    protect_folder(src, None, key)
    (src.parent / "out.wav").write_bytes((src / "no/1.wav").read_bytes())
    name_first(src, name)
    try:
        found = verify_folder(src)
    except DatasetError:
        return
    assert name in found.missing
    assert not found.ok


@pytest.mark.parametrize("name", ["link.wav", "linked/1.wav", ".hidden", "pipe.wav"])
def test_a_manifest_follows_no_link(src: Path, key: Key, tmp_path: Path, name: str) -> None:
    protect_folder(src, None, key)
    (tmp_path / "outside").mkdir()
    shutil.copy(src / "no/1.wav", tmp_path / "outside/1.wav")
    (src / "link.wav").symlink_to(tmp_path / "outside/1.wav")
    (src / "linked").symlink_to(tmp_path / "outside")
    (src / ".hidden").symlink_to("/proc/kmsg")
    os.mkfifo(src / "pipe.wav")
    name_first(src, name)
    assert name in verify_folder(src).missing


@pytest.mark.parametrize("name", NAMES)
def test_a_record_names_nothing_outside_its_folder(
    src: Path, key: Key, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was made with the key by somebody else."""
    pack = FileBatch.pack

    def misnamed(batch: FileBatch) -> bytes:
        parts = [
            part._replace(record=part.record._replace(name=name)) if part.record.name == "no/1.wav" else part
            for part in batch.parts
        ]
        return pack(FileBatch(parts, steady=batch.steady))

    with monkeypatch.context() as patched:
        patched.setattr(FileBatch, "pack", misnamed)
        protect_folder(src, None, key)
    (src.parent / "out.wav").write_bytes((src / "no/1.wav").read_bytes())
    before = contents(src.parent)
    with pytest.raises((SidecarError, DatasetError)):
        restore_folder(src, key)
    assert restore_folder(src, key, partial=True).state == "partly restored"
    restored = {f"src/{name}": content for name, content in FILES.items() if name != "no/1.wav"}
    after = contents(src.parent)
    assert {name for name in after if "poscuda" not in name and after[name] != (before | restored)[name]} == set()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_that_came_later_is_a_missing_file(src: Path, key: Key, tmp_path: Path, kind: str) -> None:
    protect_folder(src, None, key)
    moved = "no/1.wav" if kind == "file" else "no"
    shutil.move(src / moved, tmp_path / "moved")
    (src / moved).symlink_to(tmp_path / "moved")
    before = contents(tmp_path / "moved") if kind == "folder" else {"": (tmp_path / "moved").read_bytes()}
    with pytest.raises(SidecarError, match=r"no/1\.wav"):
        restore_folder(src, key)
    report = restore_folder(src, key, partial=True)
    assert report.state == "partly restored"
    after = contents(tmp_path / "moved") if kind == "folder" else {"": (tmp_path / "moved").read_bytes()}
    assert after == before
    (src / moved).unlink()
    shutil.move(tmp_path / "moved", src / moved)
    assert restore_folder(src, key).state == "restored"
    assert contents(src) == FILES


@pytest.mark.parametrize("harm", ["link to a folder", "link to a shard", "pipe", "damaged"])
@pytest.mark.parametrize("dry_run", [False, True])
def test_shards_that_would_stop_a_run_are_refused_before_it(tmp_path: Path, key: Key, harm: str, dry_run: bool) -> None:
    zarr = pytest.importorskip("zarr")
    made = zarr.create_array(tmp_path / "z", shape=(64, 4000), chunks=(1, 4000), dtype="int16")
    made[:] = np.random.default_rng(0).normal(0, 900, (64, 4000)).astype(np.int16)
    shard = tmp_path / "z/c/50/0"
    if harm.startswith("link"):
        moved = shard if "shard" in harm else shard.parent
        shutil.move(moved, tmp_path / "outside")
        moved.symlink_to(tmp_path / "outside")
    elif harm == "pipe":
        os.mkfifo(tmp_path / "z/pipe")
    else:
        shard.write_bytes(shard.read_bytes()[:99])
    before = contents(tmp_path)
    with pytest.raises(DatasetError):
        protect_array(tmp_path / "z", [0, 1] * 32, key, dry_run=dry_run)
    assert contents(tmp_path) == before
    with pytest.raises(SidecarError):
        restore_array(tmp_path / "z", key)


@pytest.mark.parametrize("left", [b"", b"POSCUDA\x02", b"x" * 500])
def test_what_another_left_in_the_place_of_a_copy_is_kept(src: Path, key: Key, tmp_path: Path, left: bytes) -> None:
    dst = tmp_path / "dst"
    write_tree(dst, {"yes/.0123456789ab-0.poscuda-part": b"another's"})
    dst.with_name("dst.poscuda").write_bytes(left)
    before = contents(tmp_path, hidden=True)
    with pytest.raises((SidecarError, DatasetError)):
        protect_folder(src, dst, key)
    assert contents(tmp_path, hidden=True) == before
