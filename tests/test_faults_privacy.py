"""Faults: what only its owner could read is readable by others in a copy, or where a file was replaced."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import audiofiles
import numpy as np
import pytest
from audiofiles import noise, wav

from poscuda_fast import Key, protect_array, protect_folder, restore_folder
from poscuda_fast.attributes import ACCESS_LIST

LABELS = [0, 1] * 4
ALIKE = [(0o700, 0o600), (0o750, 0o640), (0o755, 0o644), (0o711, 0o604)]
MODES = pytest.mark.parametrize(("folder", "file"), [*ALIKE, (0o755, 0o600)])


@pytest.fixture(autouse=True)
def open_to_all() -> None:
    os.umask(0o022)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def no_wider(root: Path, folder: int, file: int) -> None:
    """Nothing below a folder, or beside it, may be read by others than its source."""
    for path in (root, *root.rglob("*"), *root.parent.glob(f"{root.name}.poscuda*")):
        assert not mode_of(path) & ~(folder if path.is_dir() else file), path


def give_modes(root: Path, folder: int, file: int) -> None:
    for path in sorted(root.rglob("*"), reverse=True):
        path.chmod(folder if path.is_dir() else file)
    root.chmod(folder)


def audio(root: Path) -> Path:
    for number, name in enumerate(("yes/0.wav", "no/1.flac", "yes/2.txt")):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".flac":
            audiofiles.encoded(path, noise(2000, seed=number), "FLAC", "PCM_16")
        else:
            path.write_bytes(wav(noise(2000)) if path.suffix == ".wav" else b"secret")
    return root


@MODES
@pytest.mark.parametrize("copying", [True, False])
def test_of_files(tmp_path: Path, key: Key, folder: int, file: int, copying: bool) -> None:
    src = audio(tmp_path / "src")
    give_modes(src, folder, file)
    target = tmp_path / "dst" if copying else src
    protect_folder(src, target if copying else None, key)
    no_wider(target, folder, file)
    if not copying:
        restore_folder(src, key)
        no_wider(src, folder, file)


@MODES
@pytest.mark.parametrize("tasks", [True, False])
def test_of_a_zarr_array(tmp_path: Path, key: Key, folder: int, file: int, tasks: bool) -> None:
    zarr = pytest.importorskip("zarr")
    made = zarr.create_array(tmp_path / "z", shape=(8, 4000), chunks=(4, 4000), dtype="int16")
    made[:] = np.random.default_rng(0).normal(0, 900, (8, 4000)).astype(np.int16)
    give_modes(tmp_path / "z", folder, file)
    if tasks:
        from poscuda_fast.adapters.zarr_tasks import shard_tasks

        key.save(tmp_path / "k")
        for task in shard_tasks(tmp_path / "z", tmp_path / "dst", LABELS, tmp_path / "k"):
            task()
    else:
        protect_array(tmp_path / "z", LABELS, key, dst=tmp_path / "dst")
    no_wider(tmp_path / "dst", folder, file)


@MODES
def test_of_a_file_of_an_array(tmp_path: Path, key: Key, folder: int, file: int) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(0, 900, (8, 4000)).astype(np.int16))
    (tmp_path / "a.npy").chmod(file)
    protect_array(tmp_path / "a.npy", LABELS, key, dst=tmp_path / "b.npy")
    no_wider(tmp_path / "b.npy", folder, file)


@pytest.mark.parametrize(("folder", "file"), ALIKE)  # the list beside shards tells nothing of what is in them
def test_of_shards(tmp_path: Path, key: Key, folder: int, file: int) -> None:
    from poscuda_fast.adapters.webdataset_shards import protect_shards

    key.save(tmp_path / "k")
    (tmp_path / "src").mkdir()
    with tarfile.open(tmp_path / "src/0.tar", "w") as tar:
        for n in range(4):
            for name, content in ((f"{n}.wav", wav(noise(3000, seed=n))), (f"{n}.cls", str(n % 2).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    give_modes(tmp_path / "src", folder, file)
    protect_shards(tmp_path / "src", tmp_path / "dst", tmp_path / "k", label="cls", workers=1)
    no_wider(tmp_path / "dst", folder, file)


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="this system has no extended attributes")
def test_a_file_that_is_replaced_keeps_attributes_and_owner(tmp_path: Path, key: Key) -> None:
    src = audio(tmp_path / "src")
    path = src / "no/1.flac"
    path.chmod(0o640)
    try:
        os.setxattr(path, "user.note", b"kept")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    owner = (4711, 4712) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(path, *owner)
    for verb in (lambda: protect_folder(src, None, key), lambda: restore_folder(src, key)):
        before = path.read_bytes()
        verb()
        status = os.stat(path)
        assert path.read_bytes() != before
        assert (status.st_uid, status.st_gid, mode_of(path)) == (*owner, 0o640)
        assert os.getxattr(path, "user.note") == b"kept"


def test_where_an_owner_cannot_be_kept_others_lose_their_rights_and_the_report_says_so(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    src = audio(tmp_path / "src")
    path = src / "no/1.flac"
    os.chown(path, 4711, 4712)
    path.chmod(0o640)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refuse)
    told = [f"1 file or folder did not keep their {what}" for what in ("group", "owner")]
    assert protect_folder(src, None, key).notes[-2:] == tuple(told)
    assert mode_of(path) == 0o600
    assert ACCESS_LIST not in os.listxattr(path)
    os.chown(path, 4711, 4712)
    assert restore_folder(src, key).notes == tuple(told)
