"""Faults: files that a stranger put there, sidecars in the place of outputs, and keys among the data."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from audiofiles import contents, noise, wav, write_tree

from poscuda_fast import (
    DatasetError,
    Key,
    Recipe,
    SidecarError,
    protect_array,
    protect_folder,
    restore_folder,
    verify_folder,
)
from poscuda_fast.key import holds_key
from poscuda_fast.undo.journal import SIDECAR
from poscuda_fast.undo.record import refuse_protected

LABELS = [0, 1] * 4
FILES = {f"{label}/{n}.wav": wav(noise(900 + n, seed=n)) for n, label in enumerate(("yes", "no", "yes", "no"))}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    path.symlink_to("/proc/kmsg")


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def folder(path: Path) -> None:
    path.mkdir()


def endless(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + bytes(1 << 16))


def forged(path: Path) -> None:
    path.write_bytes(b"POSCUDA\x02" + bytes(1 << 12))


STRANGE = pytest.mark.parametrize("make", [fifo, link, dangling, folder, endless, forged])


@pytest.fixture
def src(tmp_path: Path) -> Path:
    write_tree(tmp_path / "src", FILES)
    return tmp_path / "src"


@pytest.fixture
def array(tmp_path: Path) -> Path:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(0, 900, (8, 4000)).astype(np.int16))
    return tmp_path / "a.npy"


@STRANGE
def test_what_is_named_like_the_sidecar_and_is_none_is_refused(src: Path, key: Key, make) -> None:
    make(src.with_name("src.poscuda"))
    for call in (lambda: verify_folder(src, key), lambda: protect_folder(src, None, key)):
        with pytest.raises(SidecarError):
            call()
    assert contents(src) == FILES


@STRANGE
def test_what_is_named_like_the_manifest_and_is_none_is_refused(src: Path, key: Key, make) -> None:
    manifest = src.with_name("src.poscuda.json")
    make(manifest)
    with pytest.raises(DatasetError, match=r"src\.poscuda\.json"):
        protect_folder(src, None, key)
    assert os.path.lexists(manifest)
    assert not src.with_name("src.poscuda").exists()
    assert contents(src) == FILES


@pytest.mark.parametrize("partial", [False, True])
def test_the_sidecar_of_other_data_changes_nothing(tmp_path: Path, src: Path, key: Key, partial: bool) -> None:
    other = tmp_path / "other"
    write_tree(other, {name: wav(noise(900 + n, seed=9 + n)) for n, name in enumerate(FILES)})
    protect_folder(src, None, key)
    protect_folder(other, None, key)
    sidecar = src.with_name("src.poscuda")
    sidecar.replace(tmp_path / "mine")
    other.with_name("other.poscuda").replace(sidecar)
    before = contents(tmp_path)
    for call in (protect_folder, restore_folder):
        with pytest.raises(SidecarError):
            call(src, *([None] * (call is protect_folder)), key, partial=partial)
        assert contents(tmp_path) == before


@STRANGE
@pytest.mark.parametrize("where", ["src/yes/old.poscuda", "src/yes.poscuda", "../{}.poscuda"])
def test_so_is_one_above_or_below(tmp_path: Path, src: Path, key: Key, make, where: str) -> None:
    make(tmp_path / where.format(tmp_path.name))
    for dst in (None, tmp_path / "dst"):
        if make is folder and not where.startswith(".."):
            continue  # a folder below is a folder of the data
        with pytest.raises((SidecarError, DatasetError)):
            protect_folder(src, dst, key)
    assert {name: content for name, content in contents(src).items() if name.endswith("wav")} == FILES


def test_a_file_of_somebody_else_above_does_not_keep_me_from_my_data(
    src: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = src.with_name("above.poscuda")
    endless(stranger)
    with pytest.raises(SidecarError):
        refuse_protected(src, [stranger], key)
    seen = os.lstat
    fields = list(seen(stranger))
    fields[4] = 4711

    def lstat(path, **options):
        return os.stat_result(fields) if Path(path) == stranger else seen(path, **options)

    monkeypatch.setattr(os, "lstat", lstat)
    refuse_protected(src, [stranger], key)


@pytest.mark.parametrize(("first", "then"), [("src", "src/yes"), ("src/yes", "src"), ("src/yes/0.wav", "src")])
@pytest.mark.parametrize("way", ["in place", "copy"])
def test_manifests_above_and_below_tell_what_is_protected(
    tmp_path: Path, src: Path, key: Key, first: str, then: str, way: str
) -> None:
    protect_folder(tmp_path / first, None, key, recipe=Recipe.paper())
    (tmp_path / f"{first}{SIDECAR}").unlink()
    before = contents(tmp_path)
    dst = None if way == "in place" else tmp_path / "dst"
    with pytest.raises(DatasetError, match=r"0\.wav is protected already"):
        protect_folder(tmp_path / then, dst, Key(bytes(32)), recipe=Recipe.paper())
    assert contents(tmp_path) == before
    for path in src.rglob("*.wav"):
        path.write_bytes(FILES[path.relative_to(src).as_posix()])
    assert protect_folder(tmp_path / then, dst, key).state == "protected"


@pytest.mark.parametrize("make", [fifo, link, folder])
def test_a_manifest_is_read_only_if_it_is_a_file(src: Path, make) -> None:
    make(src.with_name("src.poscuda.json"))
    with pytest.raises(DatasetError):
        verify_folder(src)


@pytest.mark.parametrize("place", ["src.poscuda.json", "src/yes/0.wav", "src/new", "src", "dst/x", "dst", "gone/x"])
def test_a_sidecar_is_not_in_the_place_of_what_is_read_or_written(
    tmp_path: Path, src: Path, key: Key, place: str
) -> None:
    for dst in (None, tmp_path / "dst"):
        if dst is None and place.startswith("dst"):
            continue
        with pytest.raises((SidecarError, DatasetError)):
            protect_folder(src, dst, key, sidecar=tmp_path / place)
    assert contents(src) == FILES
    assert sorted(os.listdir(tmp_path)) == ["src"]


@pytest.mark.parametrize("place", ["a.npy", "a.npy.poscuda.json", "gone/x", "diary"])
def test_nor_is_that_of_an_array(tmp_path: Path, array: Path, key: Key, place: str) -> None:
    (tmp_path / "diary").write_text("dear diary")
    before = contents(tmp_path)
    with pytest.raises((SidecarError, DatasetError)):
        protect_array(array, LABELS, key, sidecar=tmp_path / place)
    assert contents(tmp_path) == before


def test_nor_inside_a_zarr_array(tmp_path: Path, key: Key) -> None:
    zarr = pytest.importorskip("zarr")
    made = zarr.create_array(tmp_path / "z", shape=(8, 4000), chunks=(4, 4000), dtype="int16")
    made[:] = np.random.default_rng(0).normal(0, 900, (8, 4000)).astype(np.int16)
    before = contents(tmp_path)
    with pytest.raises(SidecarError, match="lie inside"):
        protect_array(tmp_path / "z", LABELS, key, sidecar=tmp_path / "z" / "side")
    assert contents(tmp_path) == before


def test_another_sidecar_does_not_mark_an_array_twice(tmp_path: Path, array: Path, key: Key) -> None:
    recipe = Recipe.paper(patches=3)  # whose mark cannot be seen
    protect_array(array, LABELS, key, recipe=recipe)
    before = array.read_bytes()
    with pytest.raises(SidecarError, match="marked twice"):
        protect_array(array, LABELS, key, recipe=recipe, sidecar=tmp_path / "other")
    assert array.read_bytes() == before


@pytest.mark.parametrize("before", ["", "   ", "\N{NO-BREAK SPACE}", "note\N{LINE SEPARATOR}", "note\x0b", "key="])
def test_a_key_is_found_however_its_line_begins(tmp_path: Path, src: Path, key: Key, before: str) -> None:
    key.save(tmp_path / "k")
    line = (tmp_path / "k").read_text().splitlines()[-1]
    (src / "notes.txt").write_text(f"# kept\n{before}{line}")
    assert holds_key(src / "notes.txt")
    for dst in (None, tmp_path / "dst"):
        with pytest.raises(DatasetError, match="holds a key"):
            protect_folder(src, dst, key)


def test_a_pipe_holds_no_key(tmp_path: Path) -> None:
    fifo(tmp_path / "pipe")
    assert not holds_key(tmp_path / "pipe")


def test_a_key_inside_a_zarr_array_is_refused(tmp_path: Path, key: Key) -> None:
    zarr = pytest.importorskip("zarr")
    made = zarr.create_array(tmp_path / "z", shape=(8, 4000), chunks=(4, 4000), dtype="int16")
    made[:] = np.random.default_rng(0).normal(0, 900, (8, 4000)).astype(np.int16)
    key.save(tmp_path / "z" / "my.key")
    with pytest.raises(DatasetError, match="holds a key"):
        protect_array(tmp_path / "z", LABELS, key)
    protect_array(tmp_path / "z", LABELS, key, dst=tmp_path / "copy")
    assert not (tmp_path / "copy" / "my.key").exists()
