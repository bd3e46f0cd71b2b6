"""Files below a folder: no link is followed on the way, no name leaves it, and exchanged folders are noticed."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from audiofiles import untouched
from blake3 import blake3

from poscuda_fast import DatasetError, disk
from poscuda_fast.files import below
from poscuda_fast.files.below import Below


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/a/b").mkdir(parents=True)
    (tmp_path / "root/top.wav").write_bytes(b"top")
    (tmp_path / "root/a/one.wav").write_bytes(b"one")
    (tmp_path / "root/a/b/two.wav").write_bytes(b"two")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/one.wav").write_bytes(b"secret")
    return tmp_path / "root"


@pytest.fixture
def files(root: Path) -> Iterator[Below]:
    files = Below(root)
    yield files
    files.close()


def content(files: Below, name: str) -> bytes:
    with open(files.open(name, disk.READING), "rb") as file:
        return file.read()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_files_are_opened_by_their_names(files: Below) -> None:
    for _ in range(2):
        assert content(files, "top.wav") == b"top"
        assert content(files, "a/one.wav") == b"one"
        assert content(files, "a/b/two.wav") == b"two"


def test_a_file_is_made_and_replaced_in_its_folder(files: Below, root: Path) -> None:
    with open(files.open("a/b/new", disk.CREATING, 0o640), "wb") as file:
        file.write(b"new")
    assert (root / "a/b/new").stat().st_mode & 0o777 == 0o640
    with files.folder("a/b/new") as (folder, last):
        os.replace(last, "newer", src_dir_fd=folder, dst_dir_fd=folder)
    assert (root / "a/b/newer").read_bytes() == b"new"


def test_what_is_missing_is_said_as_the_system_says_it(files: Below) -> None:
    for name in ("none.wav", "a/none.wav", "none/one.wav", "a/none/one.wav"):
        with pytest.raises(FileNotFoundError):
            files.open(name, disk.READING)


@pytest.mark.parametrize("flags", [disk.READING, disk.WRITING], ids=["reading", "writing"])
@pytest.mark.parametrize(
    "name",
    [
        "../outside/one.wav", "a/../../outside/one.wav", "/etc/passwd", "/top.wav", "a//one.wav", "./top.wav",
        "a/./one.wav", "/", "..", ".", "", "a/..", "a/", "a/.",
    ],
)  # fmt: skip
def test_a_name_that_leaves_the_folder_is_refused(files: Below, name: str, flags: int, tmp_path: Path) -> None:
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"leaves the folder .*root; it is not used"):
        files.open(name, flags)


@pytest.mark.parametrize("name", ["link/one.wav", "a/link/one.wav", "link/b/two.wav"])
@pytest.mark.parametrize("target", ["outside", "root/a"])
def test_a_link_on_the_way_is_not_followed(files: Below, root: Path, tmp_path: Path, name: str, target: str) -> None:
    (root / name.partition("link")[0] / "link").symlink_to(tmp_path / target)
    with untouched(tmp_path), pytest.raises(DatasetError, match="has a link on the way; it is not followed"):
        files.open(name, disk.WRITING)


def test_a_file_that_is_a_link_is_not_followed(files: Below, root: Path, tmp_path: Path) -> None:
    (root / "a/link.wav").symlink_to(tmp_path / "outside/one.wav")
    (root / "link.wav").symlink_to("top.wav")
    for name in ("a/link.wav", "link.wav"):
        with untouched(tmp_path), pytest.raises(OSError, match="symbolic links"):
            files.open(name, disk.WRITING)


def test_what_is_no_regular_file_is_not_read(files: Below, root: Path) -> None:
    (root / "a/link.wav").symlink_to("one.wav")
    os.mkfifo(root / "a/pipe")
    before = open_descriptors()
    for name in ("a/b", "a/link.wav", "a/pipe", "a/none.wav", "none/one.wav"):
        assert files.reading(name) is None
        assert files.digest(name) is None
    assert open_descriptors() <= before + 1  # the folder
    file = files.reading("a/one.wav")
    assert file is not None
    with file:
        assert file.read() == b"one"
    assert files.digest("a/one.wav") == blake3(b"one").hexdigest()
    assert files.digest("../outside/one.wav") is None


def test_a_file_in_the_place_of_a_folder_is_refused(files: Below) -> None:
    with pytest.raises(DatasetError, match=r"top\.wav is no folder any more"):
        files.open("top.wav/one.wav", disk.READING)


def test_a_pipe_does_not_hang(files: Below, root: Path) -> None:
    os.mkfifo(root / "pipe")
    os.close(files.open("pipe", disk.READING))
    with pytest.raises(DatasetError, match="is no folder any more"):
        files.open("pipe/one.wav", disk.READING)


# What is exchanged while a run is at work


def test_a_folder_that_was_opened_stays_that_folder(files: Below, root: Path, tmp_path: Path) -> None:
    """Whoever puts a link in its place meanwhile gets nothing written elsewhere."""
    assert content(files, "a/one.wav") == b"one"
    (root / "a").rename(tmp_path / "moved")
    (root / "a").symlink_to(tmp_path / "outside")
    assert content(files, "a/one.wav") == b"one"
    with open(files.open("a/one.wav", disk.WRITING), "r+b") as file:
        file.write(b"ONE")
    assert (tmp_path / "moved/one.wav").read_bytes() == b"ONE"
    assert (tmp_path / "outside/one.wav").read_bytes() == b"secret"


def test_a_folder_that_was_not_opened_yet_is_refused_once_it_is_a_link(
    files: Below, root: Path, tmp_path: Path
) -> None:
    (root / "a").rename(tmp_path / "moved")
    (root / "a").symlink_to(tmp_path / "outside")
    with untouched(tmp_path), pytest.raises(DatasetError, match="has a link on the way"):
        files.open("a/one.wav", disk.WRITING)


def test_the_root_that_is_exchanged_stays_the_root(files: Below, root: Path, tmp_path: Path) -> None:
    root.rename(tmp_path / "moved")
    (tmp_path / "outside").rename(root)
    assert content(files, "top.wav") == b"top"
    assert content(files, "a/one.wav") == b"one"


def test_a_root_that_is_given_by_a_link_is_used(root: Path, tmp_path: Path) -> None:
    """The caller named it; names below it come from listings and sidecars."""
    (tmp_path / "link").symlink_to(root)
    files = Below(tmp_path / "link")
    assert content(files, "a/one.wav") == b"one"
    files.close()


# Descriptors


def test_only_some_folders_stay_open(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(below, "FOLDERS_OPEN", 5)
    for n in range(40):
        (root / f"{n}/deep").mkdir(parents=True)
        (root / f"{n}/deep/a.wav").write_bytes(b"%d" % n)
    before = open_descriptors()
    files = Below(root)
    for _ in range(2):
        for n in range(40):
            assert content(files, f"{n}/deep/a.wav") == b"%d" % n
        assert open_descriptors() <= before + 7  # the root and its file system too
    files.close()
    files.close()
    assert open_descriptors() == before


def test_errors_leave_nothing_open(files: Below, root: Path, tmp_path: Path) -> None:
    (root / "a/link").symlink_to(tmp_path / "outside")
    before = open_descriptors()
    for name in ("a/link/one.wav", "none/one.wav", "a/b/none/x.wav", "../x.wav", "a/b/../x.wav", "top.wav/x"):
        with pytest.raises((DatasetError, FileNotFoundError)):
            files.open(name, disk.READING)
        with pytest.raises((DatasetError, FileNotFoundError)):
            files.open(f"a/b/{name}", disk.READING)
    assert open_descriptors() <= before + 2  # folders a and a/b may stay open


def test_threads_share_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(below, "FOLDERS_OPEN", 2)
    for n in range(8):
        (root / f"{n}").mkdir()
        (root / f"{n}/a.wav").write_bytes(b"%d" % n)
    files = Below(root)
    names = [f"{n % 8}/a.wav" for n in range(400)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda name: content(files, name), names)) == [name[:1].encode() for name in names]
    files.close()


def test_a_limit_on_open_files_is_said(root: Path, files: Below) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))  # a limit on their numbers, which may have gaps
    try:
        with pytest.raises(OSError, match="Too many open files"):
            files.open("a/b/two.wav", disk.READING)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert content(files, "a/b/two.wav") == b"two"


# File systems


def synced(files: Below, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes of the folders by which file systems are synced."""
    found: list[int] = []

    def sync(descriptor: int) -> bool:
        found.append(os.fstat(descriptor).st_ino)
        return True

    monkeypatch.setattr(disk, "sync_system", sync)
    files.sync()
    return found


def test_the_file_system_that_was_met_is_synced_once(files: Below, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content(files, "a/b/two.wav")
    assert synced(files, monkeypatch) == [root.stat().st_ino]


def test_another_file_system_below_is_synced_too(files: Below, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fstat
    inner = (root / "a/b").stat().st_ino

    def fstat(descriptor: int) -> Any:
        status = real(descriptor)
        return SimpleNamespace(st_dev=12345, st_ino=inner) if status.st_ino == inner else status

    monkeypatch.setattr(os, "fstat", fstat)
    os.close(files.open("a/b/two.wav", disk.READING))
    assert synced(files, monkeypatch) == [root.stat().st_ino, inner]
