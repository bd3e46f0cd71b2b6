"""Files and folders on the disk: durable writes, locks, free space, and threads that read and write ahead."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

from poscuda_fast.errors import BusyError, DatasetError

Piece = TypeVar("Piece")
Result = TypeVar("Result")

Buffer = bytes | bytearray | memoryview
PathLike = str | os.PathLike[str]
Stamp = tuple[int, ...]  # changes when a file is replaced or written to

PART_SUFFIX = ".poscuda-part"  # with a dot before the name
FICLONE = 0x40049409  # linux/fs.h
SYNC_FILE_RANGE_WRITE = 2  # likewise
MOST_THREADS = 8  # each holds pieces in memory and an arena of malloc, and all of them share one disk
PIECES_AHEAD = 4  # for each thread: keeps it busy while the journal commits
MOST_AHEAD = 8  # for all threads: each holds what was made of a piece

# Do not follow links, and do not hang if a pipe is found instead of a file.
_SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
READING = os.O_RDONLY | _SAFELY
WRITING = os.O_RDWR | _SAFELY
_CREATING = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def create(path: Path, content: bytes | Iterable[bytes], *, mode: int | None, durable: bool = True) -> None:
    """Write a new file, durably unless told otherwise; FileExistsError if the name is taken.

    The content may come in pieces. `mode` None leaves the permissions to the process's umask. After an error no file is
    left behind.
    """
    with _new(path, mode) as file:
        file.writelines([content] if isinstance(content, bytes) else content)
        file.flush()
        if durable:
            os.fsync(file.fileno())
            sync_folder(path.parent)


@contextlib.contextmanager
def _new(path: Path, mode: int | None) -> Iterator[BinaryIO]:
    """A new file, removed after an error; if `mode` is given, nobody else can read it before it is complete."""
    with open(os.open(path, _CREATING, 0o666 if mode is None else 0o600), "w+b") as file:
        try:
            yield file
            file.flush()
            if mode is not None and hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), mode)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def replace(path: Path, content: bytes | Iterable[bytes], *, mode: int | None, durable: bool = True) -> None:
    """Replace the file at `path` in one step: old or new, never a mixture; durably unless told otherwise."""
    part = part_of(path)
    part.unlink(missing_ok=True)
    create(part, content, mode=mode, durable=durable)
    try:
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


@contextlib.contextmanager
def appearing(path: Path, *, mode: int | None, replacing: bool = False) -> Iterator[BinaryIO]:
    """A new file that appears at `path` when the block ends, complete and durable; after an error it never does.

    Until then it has a random name, so that processes that write the same file at the same time do not collide. A
    killed process leaves a hidden file that ends with `PART_SUFFIX`. FileExistsError if `path` exists by then, unless
    `replacing`.
    """
    part = path.with_name(f".{path.name}.{os.urandom(4).hex()}{PART_SUFFIX}")
    try:
        with _new(part, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        (os.replace if replacing else _give_name)(part, path)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)


def _give_name(part: Path, path: Path) -> None:
    """Rename, but not over a file that appeared meanwhile; without links in the file system that is a best effort."""
    try:
        os.link(part, path)
    except OSError:
        if os.path.lexists(path):
            raise FileExistsError(
                f"{path} appeared just now, and nothing is ever overwritten; choose another name."
            ) from None
        os.replace(part, path)  # a file system without links


def copy(source: Path, target: Path) -> None:
    """Copy a file's bytes and permissions to a new name, which appears once the copy is complete; not synced.

    Where it can, the kernel shares or copies the blocks.
    """
    part = part_of(target)
    copy_part(source, part)
    os.replace(part, target)


def copy_part(source: Path, part: Path) -> None:
    """`copy` to a name that nobody reads yet; removes what a killed run left there."""
    part.unlink(missing_ok=True)
    status = os.stat(source)
    mode = stat.S_IMODE(status.st_mode) | stat.S_IWUSR
    with open(source, "rb", buffering=0) as read, _new(part, mode) as write:
        if not (_clone(read.fileno(), write.fileno()) or _copy_range(read.fileno(), write.fileno(), status.st_size)):
            write.seek(0)
            shutil.copyfileobj(read, write, 1 << 20)


def write_part(part: str, content: Buffer, mode: int | None, *, durable: bool = False) -> None:
    """Write a file under a name that nobody reads yet; replaces what a killed run left there.

    Does the same as `create` in as few system calls as possible: it is called for every file of a copy.
    """
    asked = 0o666 if mode is None else 0o600
    try:
        descriptor = os.open(part, _CREATING, asked)
    except FileExistsError:
        os.unlink(part)
        descriptor = os.open(part, _CREATING, asked)
    try:
        write_all(descriptor, content)
        if mode is not None and hasattr(os, "fchmod"):
            os.fchmod(descriptor, mode)
        if durable:
            os.fsync(descriptor)
    except BaseException:
        os.unlink(part)
        raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_part(part: str, mode: int | None) -> Iterator[BinaryIO]:
    """`write_part` for content that comes piece by piece: an open file, which may also be read."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part)
    with _new(Path(part), mode) as file:
        yield file


def finish_part(part: str, mode: int, *, durable: bool) -> None:
    """Give a part its permissions, once all of it is written."""
    descriptor = os.open(part, WRITING)
    try:
        if hasattr(os, "fchmod"):
            os.fchmod(descriptor, mode)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: Buffer) -> None:
    """Write all of `content` at the file's position, in several writes if one is short."""
    done = os.write(descriptor, content)
    view = memoryview(content)
    while done < len(view):
        done += os.write(descriptor, view[done:])


def _clone(source: int, target: int) -> bool:
    """Share the blocks (reflink), where the file system can."""
    try:
        import fcntl  # noqa: PLC0415 - not on every system

        fcntl.ioctl(target, FICLONE, source)
    except (ImportError, OSError):
        return False
    return True


def _copy_range(source: int, target: int, size: int) -> bool:
    """Copy inside the kernel; False, with both files still at their start, if it cannot."""
    if not hasattr(os, "copy_file_range"):
        return False
    done = 0
    try:
        while done < size:
            n = os.copy_file_range(source, target, size - done, done, done)
            if n == 0:
                return False
            done += n
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM):
            return False
        raise
    return True


def overlap(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two paths are the same, or one lies inside the other, after links are resolved."""
    first, second = Path(os.path.realpath(one)), Path(os.path.realpath(other))
    return first == second or first in second.parents or second in first.parents


def part_of(path: Path) -> Path:
    """The path that a file is written to before it is renamed to `path`."""
    return path.with_name(part_name(path.name))


def part_name(name: str) -> str:
    """`part_of` for a path as text, with "/"."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}.{last}{PART_SUFFIX}"


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_files(folder: Path, files: Iterable[Path]) -> None:
    """Make the content of `files`, all below `folder`, durable; OSError if any of it could not be written.

    One syncfs call covers them where the system has it: thousands of fsync calls cost seconds.
    """
    syncfs = None
    with contextlib.suppress(OSError, AttributeError, TypeError):
        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    if syncfs is None:
        folders = set()
        for file in files:
            _fsync(file)
            folders.add(file.parent)
        for path in sorted(folders):
            sync_folder(path)
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def start_writing(descriptor: int, begin: int, n_bytes: int) -> None:
    """Ask the system to start writing back part of a file; a hint, which guarantees nothing."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        sync_file_range = ctypes.CDLL(None).sync_file_range
        sync_file_range(descriptor, ctypes.c_int64(begin), ctypes.c_int64(n_bytes), SYNC_FILE_RANGE_WRITE)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def stamp_of(status: os.stat_result) -> Stamp:
    """A value that changes when a file is replaced or written to."""
    return status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns


def refuse_exchanged(path: str, stamp: Stamp, status: os.stat_result | None = None) -> None:
    """DatasetError if a file is not the one that was listed; `status` is that of an open file.

    The first three fields of a stamp are one too, of a file that may be written to meanwhile.
    """
    if stamp_of(status or os.lstat(path))[: len(stamp)] != stamp:
        raise DatasetError(
            f"{path} was replaced or changed since this run began; leave the files alone and run it again."
        )


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Lock the data itself, a file or a folder, since it may have two names or be given two sidecars.

    A shared lock is for reading: it keeps writers out, but not other readers.
    """
    try:
        import fcntl  # noqa: PLC0415 - not on every system
    except ImportError:  # no such lock on this system; the sidecar's own lock remains
        yield
        return
    held = [_Folder(path) if path.is_dir() else open(path, "rb")]  # noqa: SIM115 - closed below, or with its last reference
    try:
        try:
            fcntl.flock(held[0].fileno(), (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"{path} is in use: another run is at work on it. Wait for it to end.") from None
        yield
    finally:
        held.pop().close()


class _Folder:
    """An open folder that closes with its last reference, as a file does, even if an interrupt comes in between."""

    def __init__(self, path: Path) -> None:
        self._open = [os.open(path, os.O_RDONLY)]

    def fileno(self) -> int:
        return self._open[0]

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop())

    def __del__(self) -> None:
        self.close()


def refuse_without_room(path: Path, n_bytes: int) -> None:
    """OSError unless `n_bytes`, 5 % and 1 MiB more are free on the disk of `path`."""
    if not n_bytes:
        return
    folder = path.absolute()
    while not folder.is_dir():
        folder = folder.parent
    needed = n_bytes + n_bytes // 20 + (1 << 20)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{path} needs about {needed:,} bytes and {free:,} are free there; free some space or choose another path. "
            f"Nothing was written."
        )


def ahead(begin: Callable[[Piece], Result], pieces: Iterable[Piece], most: int) -> Iterator[Result]:
    """`begin(piece)` for each piece, in order; `begin` is called for up to `most` pieces ahead."""
    waiting: collections.deque[Result] = collections.deque()
    for piece in pieces:
        waiting.append(begin(piece))
        if len(waiting) > most:
            yield waiting.popleft()
    yield from waiting


class Workers:
    """Threads that work ahead on many small pieces, until `close`; with one, the caller's own thread does the work.

    Any number of threads gives the same results in the same order.
    """

    def __init__(self, threads: int) -> None:
        self._n = min(threads, MOST_THREADS)
        self._pool = ThreadPoolExecutor(self._n) if self._n > 1 else None

    def map(self, work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Iterator[Result]:
        """The result of each piece, in order; an error is raised where its result would come."""
        if self._pool is None:
            return map(work, pieces)
        submit = self._pool.submit
        futures = ahead(lambda piece: submit(work, piece), pieces, min(self._n * PIECES_AHEAD, MOST_AHEAD))
        return (future.result() for future in futures)

    def close(self) -> None:
        """Wait for the pieces being worked on, and cancel the rest."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
