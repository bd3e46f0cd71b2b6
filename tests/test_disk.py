"""Files appear whole or not at all, with their modes, and stay."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poscuda_fast import disk


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def fail(number: int) -> Callable[..., Any]:
    def failing(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return failing


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What fsync is called for, by name, in order."""
    names: list[str] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        fsync(descriptor)
        names.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this system does not tell the name of an open file")
    monkeypatch.setattr(os, "fsync", noting)
    return names


# create


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400])
@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 5_000])
def test_create_writes_content_and_mode(tmp_path: Path, content: bytes, mode: int) -> None:
    path = tmp_path / "new"
    old = os.umask(0)
    try:
        disk.create(path, content, mode=mode)
    finally:
        os.umask(old)
    assert path.read_bytes() == content
    assert mode_of(path) == mode
    assert os.listdir(tmp_path) == ["new"]


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to(path.with_name("nowhere"))])
def test_create_never_overwrites(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "taken"
    make(path)
    before = os.lstat(path)
    with pytest.raises(FileExistsError):
        disk.create(path, b"new", mode=0o600)
    after = os.lstat(path)
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    assert os.listdir(tmp_path) == ["taken"]


def test_create_syncs_the_file_and_then_its_folder(tmp_path: Path, synced: list[str]) -> None:
    disk.create(tmp_path / "new", b"content", mode=0o600)
    assert synced == ["new", tmp_path.name]
    disk.create(tmp_path / "scratch", b"content", mode=0o600, durable=False)
    assert synced == ["new", tmp_path.name]


def test_create_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    disk.create(Path("new"), b"content", mode=0o600)
    assert (tmp_path / "new").read_bytes() == b"content"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_create_raises_a_failed_sync_once_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    calls = []
    failing = fail(number)
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append(descriptor) or failing())
    with pytest.raises(OSError, match=os.strerror(number)):
        disk.create(tmp_path / "new", b"content", mode=0o600)
    assert len(calls) == 1
    assert os.listdir(tmp_path) == []


def test_create_leaves_nothing_when_the_disk_is_full(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    script = (
        "import resource, sys; from pathlib import Path; from poscuda_fast import disk\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: disk.create(Path(sys.argv[1]), bytes(5000), mode=0o600)\n"
        "except OSError as error: sys.exit(error.errno)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(disk.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "new")], env=environment, check=False)
    assert done.returncode == errno.EFBIG
    assert os.listdir(tmp_path) == []


def test_create_reports_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        disk.create(tmp_path / "missing" / "new", b"", mode=0o600)
    assert os.listdir(tmp_path) == []


# replace


@pytest.mark.parametrize("old", [None, b"", b"old content"])
def test_replace_puts_content_and_mode(tmp_path: Path, old: bytes | None) -> None:
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
        path.chmod(0o644)
    disk.replace(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert mode_of(path) == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_replace_syncs_the_content_before_it_gets_its_name(tmp_path: Path, synced: list[str]) -> None:
    disk.replace(tmp_path / "file", b"new", mode=0o600)
    assert synced[0] == disk.part_of(tmp_path / "file").name
    assert synced[-1] == tmp_path.name
    synced.clear()
    disk.replace(tmp_path / "file", b"newer", mode=0o600, durable=False)
    assert synced == []
    assert (tmp_path / "file").read_bytes() == b"newer"


def test_replace_takes_over_what_a_killed_one_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    disk.part_of(path).write_bytes(b"half")
    disk.replace(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_replace_exchanges_a_link_and_not_its_target(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"kept")
    link.symlink_to(target)
    disk.replace(link, b"new", mode=0o600)
    assert target.read_bytes() == b"kept"
    assert not link.is_symlink()
    assert link.read_bytes() == b"new"


def test_replace_keeps_the_old_content_when_the_new_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        disk.replace(path, b"new", mode=0o600)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


# appearing


@pytest.mark.parametrize("replacing", [False, True])
def test_a_file_appears_when_it_is_whole_and_on_the_disk(tmp_path: Path, synced: list[str], replacing: bool) -> None:
    path = tmp_path / "file"
    with disk.appearing(path, mode=0o600, replacing=replacing) as file:
        file.write(b"content")
        assert not path.exists()
        (name,) = os.listdir(tmp_path)
        assert name.startswith(".file.")
        assert name.endswith(disk.PART_SUFFIX)
    assert synced == [name, tmp_path.name]
    assert path.read_bytes() == b"content"
    assert mode_of(path) == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_two_that_make_the_same_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with disk.appearing(path, mode=None, replacing=True) as one:
        one.write(b"one")
        with disk.appearing(path, mode=None, replacing=True) as other:
            other.write(b"the other")
        assert path.read_bytes() == b"the other"
        with pytest.raises(FileExistsError, match="appeared just now"), disk.appearing(path, mode=None):
            pass
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["file"]


def test_nothing_appears_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half() -> None:
        with disk.appearing(tmp_path / "file", mode=None) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), disk.appearing(tmp_path / "file", mode=None):
        pass
    assert os.listdir(tmp_path) == []


def test_a_file_appears_without_links_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", fail(errno.EPERM))
    with disk.appearing(tmp_path / "file", mode=None) as file:
        file.write(b"content")
    with pytest.raises(FileExistsError, match="appeared just now"), disk.appearing(tmp_path / "file", mode=None):
        pass
    assert (tmp_path / "file").read_bytes() == b"content"
    assert os.listdir(tmp_path) == ["file"]


def test_places_overlap_whatever_links_lead_there(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    a, b = tmp_path / "a", tmp_path / "a" / "b"
    for one, other in ((a, a), (a, b), (b, a), (tmp_path / "link", a), (tmp_path / "link" / "b" / "new", a)):
        assert disk.overlap(one, other)
    for one, other in ((a, tmp_path / "ab"), (b, tmp_path / "a" / "c"), (tmp_path / "link" / "c", b)):
        assert not disk.overlap(one, other)


# copy

CONTENTS = {
    "empty": b"",
    "one byte": b"x",
    "one page and a byte": bytes(range(256)) * 16 + b"x",
    "megabytes": np.random.default_rng(1).bytes(3 * 2**20 + 7),
}


def without_copy_file_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "copy_file_range", raising=False)


def with_a_failing_copy_file_range(number: int) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda monkeypatch: monkeypatch.setattr(os, "copy_file_range", fail(number), raising=False)


def with_a_copy_file_range_that_gives_up_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(source: int, target: int, count: int, begin: int, end: int) -> int:
        if begin:
            return 0
        os.pwrite(target, os.pread(source, count // 2, begin), end)
        return count // 2

    monkeypatch.setattr(os, "copy_file_range", half, raising=False)


def with_a_copy_file_range_in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(source: int, target: int, count: int, begin: int, end: int) -> int:
        return os.pwrite(target, os.pread(source, min(count, 100_001), begin), end)

    monkeypatch.setattr(os, "copy_file_range", step, raising=False)


def with_no_help(monkeypatch: pytest.MonkeyPatch) -> None:
    pass


HELP: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "as it is": with_no_help,
    "missing": without_copy_file_range,
    "small steps": with_a_copy_file_range_in_small_steps,
    "gives up": with_a_copy_file_range_that_gives_up_in_the_middle,
    **{
        name: with_a_failing_copy_file_range(getattr(errno, name))
        for name in ("EXDEV", "ENOSYS", "EINVAL", "EOPNOTSUPP", "EPERM")
    },
}


@pytest.mark.parametrize("prepare", HELP.values(), ids=HELP)
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_copy_preserves_every_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, prepare: Callable[[pytest.MonkeyPatch], None]
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    monkeypatch.setattr(disk, "_clone", lambda *_: False)
    prepare(monkeypatch)
    disk.copy(source, target)
    assert target.read_bytes() == content
    assert source.read_bytes() == content
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_copy_that_may_share_blocks_is_a_file_of_its_own(tmp_path: Path, content: bytes) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    disk.copy(source, target)
    assert target.read_bytes() == content
    assert not os.path.samefile(source, target)
    with open(target, "ab") as file:
        file.write(b"more")
    assert source.read_bytes() == content


def test_copy_falls_back_where_blocks_cannot_be_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "ioctl", fail(errno.EOPNOTSUPP))
    without_copy_file_range(monkeypatch)
    (tmp_path / "source").write_bytes(CONTENTS["megabytes"])
    disk.copy(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == CONTENTS["megabytes"]


@pytest.mark.parametrize("prepare", HELP.values(), ids=HELP)
def test_copy_preserves_a_sparse_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[pytest.MonkeyPatch], None]
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with open(source, "wb") as file:
        file.write(b"begin")
        file.seek(1_000_000)
        file.write(b"middle")
        file.truncate(2_500_000)
    prepare(monkeypatch)
    disk.copy(source, target)
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(("mode", "expected"), [(0o600, 0o600), (0o644, 0o644), (0o755, 0o755), (0o444, 0o644)])
def test_copy_keeps_the_mode_but_can_be_written(tmp_path: Path, mode: int, expected: int) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"content")
    source.chmod(mode)
    old = os.umask(0o077)
    try:
        disk.copy(source, target)
    finally:
        os.umask(old)
    assert mode_of(target) == expected
    assert mode_of(source) == mode


@pytest.mark.skipif(not hasattr(os, "copy_file_range"), reason="this system does not copy inside the kernel")
def test_the_copy_of_a_private_file_is_private_from_its_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"content")
    source.chmod(0o600)
    modes = []
    copy_file_range = os.copy_file_range

    def noting(read: int, write: int, *args: int) -> int:
        modes.append(stat.S_IMODE(os.fstat(write).st_mode))
        return copy_file_range(read, write, *args)

    monkeypatch.setattr(disk, "_clone", lambda *_: False)
    monkeypatch.setattr(os, "copy_file_range", noting)
    old = os.umask(0o022)
    try:
        disk.copy(source, target)
    finally:
        os.umask(old)
    assert modes
    assert [f"{mode:o}" for mode in modes if mode & 0o077] == []


def test_copy_takes_over_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"content")
    disk.part_of(tmp_path / "target").write_bytes(b"longer than the content")
    disk.copy(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"content"
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]


def test_copy_of_a_missing_file_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="source"):
        disk.copy(tmp_path / "source", tmp_path / "target")
    assert os.listdir(tmp_path) == []


def test_a_copy_that_fails_raises_and_the_name_stays_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").write_bytes(CONTENTS["megabytes"])
    monkeypatch.setattr(disk, "_clone", lambda *_: False)
    monkeypatch.setattr(os, "copy_file_range", fail(errno.ENOSPC), raising=False)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        disk.copy(tmp_path / "source", tmp_path / "target")
    assert not (tmp_path / "target").exists()
    assert os.listdir(tmp_path) == ["source"]


@pytest.fixture(autouse=True)
def no_function_of_the_system_is_kept() -> Iterator[None]:
    disk._system.cache_clear()
    yield
    disk._system.cache_clear()


# sync_files, sync_folder


class Unloadable:
    """A C library without syncfs."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass


def test_sync_files_syncs_each_file_and_then_its_name_where_syncfs_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: list[str]
) -> None:
    monkeypatch.setattr(disk.ctypes, "CDLL", Unloadable)
    files = [tmp_path / name for name in ("one", "two", "three")]
    for file in files:
        file.write_bytes(b"content")
    disk.sync_files(tmp_path, iter(files))
    assert synced == ["one", "two", "three", tmp_path.name]


def test_sync_files_covers_the_folder_at_once_where_it_can(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"content")
    disk.sync_files(tmp_path, [tmp_path / "one"])
    assert (tmp_path / "one").read_bytes() == b"content"


@pytest.mark.parametrize("library", [None, Unloadable])
def test_sync_files_reports_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: type | None
) -> None:
    if library is not None:
        monkeypatch.setattr(disk.ctypes, "CDLL", library)
    with pytest.raises(FileNotFoundError, match="missing"):
        disk.sync_files(tmp_path / "missing", [tmp_path / "missing" / "file"])


@pytest.mark.guards("I8")
def test_sync_files_raises_the_error_of_syncfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        @staticmethod
        def syncfs(descriptor: int) -> int:
            assert os.path.samestat(os.fstat(descriptor), os.stat(tmp_path))
            disk.ctypes.set_errno(errno.EIO)
            return -1

    monkeypatch.setattr(disk.ctypes, "CDLL", Failing)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as failure:
        disk.sync_files(tmp_path, [])
    assert failure.value.errno == errno.EIO
    assert failure.value.filename == str(tmp_path)


def test_sync_files_raises_the_error_of_fsync_and_goes_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    failing = fail(errno.EIO)
    monkeypatch.setattr(disk.ctypes, "CDLL", Unloadable)
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append(descriptor) or failing())
    files = [tmp_path / "one", tmp_path / "two"]
    for file in files:
        file.write_bytes(b"content")
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        disk.sync_files(tmp_path, files)
    assert len(calls) == 1


def test_nothing_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this system does not list open files")
    (tmp_path / "source").write_bytes(b"content")
    before = set(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patching:
        patching.setattr(os, "fsync", fail(errno.EIO))
        for call in (
            lambda: disk.create(tmp_path / "new", b"", mode=0o600),
            lambda: disk.replace(tmp_path / "source", b"", mode=0o600),
            lambda: disk.sync_folder(tmp_path),
        ):
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                call()
    disk.copy(tmp_path / "source", tmp_path / "copy")
    disk.sync_files(tmp_path, [tmp_path / "copy"])
    assert set(os.listdir("/proc/self/fd")) == before


def test_sync_folder_reports_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        disk.sync_folder(tmp_path / "missing")


@pytest.mark.parametrize("verb", [disk.create, disk.replace])
def test_a_name_that_cannot_be_synced_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: Callable[..., None]
) -> None:
    def fail(folder: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))

    monkeypatch.setattr(disk, "sync_folder", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        verb(tmp_path / "file", b"content", mode=None)
    assert list(tmp_path.iterdir()) == []
