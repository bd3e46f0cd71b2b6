"""Files and folders on the disk: durable writes, locks, free space, and threads that read and write ahead."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import errno
import functools
import os
import shutil
import stat
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from poscuda_fast.errors import BusyError, DatasetError

try:
    import fcntl
except ImportError:  # not on every system
    fcntl = None  # type: ignore[assignment]

Piece = TypeVar("Piece")
Result = TypeVar("Result")

Buffer = bytes | bytearray | memoryview
PathLike = str | os.PathLike[str]
Stamp = bytes  # changes when a file is replaced or written to; its numbers as a tuple would take four times as much

PART_SUFFIX = ".poscuda-part"  # with a dot before the name
FICLONE = 0x40049409  # linux/fs.h
SYNC_FILE_RANGE_WRITE = 2  # likewise
AT_FDCWD = -100  # linux/fcntl.h
_STAMP = struct.Struct("<IQqq")  # mode, inode, size, nanoseconds of the last change
STAMP_BYTES = _STAMP.size
STAMP_OF_IDENTITY = 20
RENAME_NOREPLACE = 1  # linux/fs.h
MOST_THREADS = 8  # each holds pieces in memory and an arena of malloc, and all of them share one disk
PIECES_AHEAD = 4  # for each thread: keeps it busy while the journal commits
MOST_AHEAD = 8  # for all threads: each holds what was made of a piece

# Do not follow links, and do not hang if a pipe is found instead of a file.
_SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
READING = os.O_RDONLY | _SAFELY
WRITING = os.O_RDWR | _SAFELY
CREATING = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
Mode = int | Callable[[int], object] | None  # permissions of a new file, or what gives them to it while it is open


def create(path: Path, content: bytes | Iterable[bytes], *, mode: Mode, durable: bool = True) -> None:
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
def _new(path: Path, mode: Mode) -> Iterator[BinaryIO]:
    """A new file, removed after an error; if `mode` is given, nobody else can read it before it is complete."""
    with open(os.open(path, CREATING, 0o666 if mode is None else 0o600), "w+b") as file:
        try:
            yield file
            file.flush()
            if callable(mode):
                mode(file.fileno())
            elif mode is not None and hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), mode)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def replace(path: Path, content: bytes | Iterable[bytes], *, mode: Mode, durable: bool = True) -> None:
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
        (os.replace if replacing else give_name)(part, path)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)


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


def write_all(descriptor: int, content: Buffer) -> None:
    """Write all of `content` at the file's position, in several writes if one is short."""
    done = os.write(descriptor, content)
    view = memoryview(content)
    while done < len(view):
        done += os.write(descriptor, view[done:])


def read_into(descriptor: int, buffer: memoryview, position: int, name: str) -> None:
    """Fill a buffer from a position in a file; DatasetError if the file ends before."""
    done = 0
    while done < len(buffer):
        n = os.preadv(descriptor, [buffer[done:]], position + done)
        if n == 0:
            raise DatasetError(
                f"{name} ends {len(buffer) - done} bytes early: it was cut meanwhile. Put it back and run the same "
                f"command again."
            )
        done += n


def write_at(descriptor: int, content: Buffer, position: int) -> None:
    """Write all of `content` at a position in a file, upwards."""
    view, done = memoryview(content), 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], position + done)


def _clone(source: int, target: int) -> bool:
    """Share the blocks (reflink), where the file system can."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except (AttributeError, OSError):
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


def refuse_linked(path: Path) -> None:
    """DatasetError if an edit in place would reach other names of a file."""
    status = os.stat(path)
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        raise DatasetError(
            f"{path} has {status.st_nlink} names (hard links), so an edit in place would change them all; copy it."
        )


def overlap(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two paths are the same, or one lies inside the other, after links are resolved."""
    first, second = Path(os.path.realpath(one)), Path(os.path.realpath(other))
    return first == second or first in second.parents or second in first.parents


def read_regular(path: PathLike) -> bytes:
    """The content of a file; DatasetError if it is a link, a pipe or a device."""
    try:
        descriptor = os.open(path, READING)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise DatasetError(f"{os.fspath(path)!s} is a link; it is not followed. Replace it by the file.") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DatasetError(f"{os.fspath(path)!s} is not a regular file; it is not read.")
    with open(descriptor, "rb") as file:
        return file.read()


def may_write(path: PathLike) -> bool:
    """Whether a file can be opened for writing, which permissions alone do not tell; nothing is written."""
    try:
        os.close(os.open(path, WRITING))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def dropping(part: Path) -> Iterator[None]:
    """Remove a hidden file or folder after an error; but not in a fork, whose first process goes on with it."""
    process = os.getpid()
    try:
        yield
    except BaseException:
        if os.getpid() == process:
            shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
        raise


def in_full(path: PathLike) -> Path:
    """One spelling for each path; a link in the last part is kept, so that it can be refused."""
    return Path(os.path.realpath(Path(path).absolute().parent)) / Path(path).name


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
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        done = sync_system(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None
    finally:
        os.close(descriptor)
    if not done:
        sync_each(files)


def sync_each(files: Iterable[Path]) -> None:
    """Make the content and the names of `files` durable, one by one."""
    folders = set()
    for file in files:
        _fsync(file)
        folders.add(file.parent)
    for path in sorted(folders):
        sync_folder(path)


def sync_system(descriptor: int) -> bool:
    """Make everything durable that was written to the file system of an open file or folder.

    False if the system cannot; OSError if something that was written since it was opened did not reach the disk.
    """
    syncfs = _system("syncfs")
    if syncfs is None:
        return False
    if syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return True


class Systems:
    """The file systems that are written to, each by a file or folder that was opened before; `sync` waits for them.

    A system tells an error only to those who opened something on it before.
    """

    def __init__(self) -> None:
        self._open: dict[int, int] = {}

    def meet(self, descriptor: int) -> None:
        """Remember the file system of an open file or folder."""
        device = os.fstat(descriptor).st_dev
        if device not in self._open:
            copy = os.dup(descriptor)
            if self._open.setdefault(device, copy) != copy:  # another thread was faster
                os.close(copy)

    def meet_at(self, folder: Path) -> None:
        """Remember the file system of a folder."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            self.meet(descriptor)
        finally:
            os.close(descriptor)

    def sync(self, root: Path, names: Iterable[str]) -> None:
        """Return once everything is durable; OSError if that fails. `names` are what was written below `root`."""
        done = [sync_system(descriptor) for descriptor in list(self._open.values())]
        if not all(done):
            sync_each(root / name for name in names)

    def close(self) -> None:
        """Close the folders."""
        while self._open:
            os.close(self._open.popitem()[1])


@functools.cache
def syncs_systems() -> bool:
    """Whether the system can sync a whole file system at once."""
    return _system("syncfs") is not None


def give_name(part: PathLike, name: PathLike, folder: int | None = None) -> None:
    """Rename, within an open folder if one is given, but never over what is there: FileExistsError."""
    rename, at = _system("renameat2"), AT_FDCWD if folder is None else folder
    if rename is not None:
        if rename(at, os.fsencode(part), at, os.fsencode(name), RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number == errno.EEXIST:
            raise FileExistsError(f"{os.fsdecode(name)} appeared just now, and nothing is ever overwritten.")
        if number not in (errno.EINVAL, errno.ENOSYS):  # a file system, or a kernel, that has only the plain call
            raise OSError(number, os.strerror(number), os.fsdecode(name))
    try:
        os.link(part, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        raise FileExistsError(f"{os.fsdecode(name)} appeared just now, and nothing is ever overwritten.") from None
    except OSError:  # a folder, or a file system without links
        with contextlib.suppress(FileNotFoundError):
            os.stat(name, dir_fd=folder, follow_symlinks=False)
            raise FileExistsError(f"{os.fsdecode(name)} appeared just now, and nothing is ever overwritten.") from None
        os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
    else:
        os.unlink(part, dir_fd=folder)


@functools.cache
def _system(name: str) -> Any:
    """A function of the C library; None where it has no such function."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        return getattr(ctypes.CDLL(None, use_errno=True), name)
    return None


def start_writing(descriptor: int, begin: int, n_bytes: int) -> None:
    """Ask the system to start writing back part of a file; a hint, which guarantees nothing."""
    sync_file_range = _system("sync_file_range")
    if sync_file_range is not None:
        sync_file_range(descriptor, ctypes.c_int64(begin), ctypes.c_int64(n_bytes), SYNC_FILE_RANGE_WRITE)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def stamp_of(status: os.stat_result) -> Stamp:
    """A value that changes when a file is replaced or written to."""
    return _STAMP.pack(status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns)


def size_of(stamp: Stamp) -> int:
    """The size in bytes that a stamp tells."""
    size: int = _STAMP.unpack(stamp)[2]
    return size


def mode_of(stamp: Stamp) -> int:
    """The mode that a stamp tells."""
    mode: int = _STAMP.unpack(stamp)[0]
    return mode


def time_of(stamp: Stamp) -> int:
    """The time of the last change that a stamp tells, in nanoseconds."""
    time: int = _STAMP.unpack(stamp)[3]
    return time


def refuse_exchanged(path: str, stamp: Stamp, status: os.stat_result | None = None) -> None:
    """DatasetError if a file is not the one that was listed; `status` is that of an open file.

    The first `STAMP_OF_IDENTITY` bytes of a stamp are one too, of a file that may be written to meanwhile.
    """
    if stamp_of(status or os.lstat(path))[: len(stamp)] != stamp:
        raise DatasetError(
            f"{path} was replaced or changed since this run began; leave the files alone and run it again."
        )


NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what systems without locks say


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Lock the data itself, a file or a folder, since it may have two names or be given two sidecars.

    A shared lock is for reading: it keeps writers out, but not other readers. The folders above are locked as if for
    reading, so that nobody works on them as a whole meanwhile.
    """
    if fcntl is None:  # no such lock on this system; the sidecar's own lock remains
        yield
        return
    with contextlib.ExitStack() as held:
        for folder in reversed(path.absolute().parents):
            with contextlib.suppress(PermissionError, FileNotFoundError):
                held.enter_context(contextlib.closing(_Lock(folder, path, shared=True)))
        held.enter_context(contextlib.closing(_Lock(path, path, shared=shared)))
        yield


class Descriptor:
    """An open file or folder.

    It closes with its last reference, even if an interrupt comes in between; and in a forked process, which would keep
    its lock after its parent ended.
    """

    def __init__(self, path: Path, flags: int) -> None:
        self._open: list[int] = []
        self._open.append(os.open(path, flags))
        _OPEN.add(self)

    def fileno(self) -> int:
        """Its number; -1 if it is closed."""
        return self._open[0] if self._open else -1

    def close(self) -> None:
        """Close it, once."""
        while self._open:
            os.close(self._open.pop())

    def __del__(self) -> None:
        if hasattr(self, "_open"):  # an interrupt may come before there is one
            self.close()


class _Lock(Descriptor):
    """An open, locked file or folder; `data` is for messages."""

    def __init__(self, path: Path, data: Path, *, shared: bool) -> None:
        super().__init__(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            fcntl.flock(self.fileno(), (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise BusyError(f"{data} is in use: another run is at work on {path}. Wait for it to end.") from None
        except OSError as error:  # a file system without locks; the sidecar's own lock remains
            if error.errno not in (*NO_LOCKS, errno.EBADF):
                raise


def _close_in_child() -> None:
    for one in list(_OPEN):
        one.close()


_OPEN: weakref.WeakSet[Descriptor] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def refuse_fork(process: int) -> None:
    """BusyError in any other process than the one that began: a fork has its memory, but not its threads and locks."""
    if os.getpid() != process:
        raise BusyError("This process was forked by one that is at work; only that one goes on. Nothing was written.")


def refuse_without_room(path: Path, n_bytes: int, n_files: int = 0) -> None:
    """OSError unless `n_bytes`, 5 % and 1 MiB more are free on the disk of `path`, and so many files can be made."""
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
    if n_files and hasattr(os, "statvfs"):
        system = os.statvfs(folder)
        if system.f_files and system.f_favail < n_files:  # some file systems do not count them
            raise OSError(
                f"{path} needs {n_files:,} files and its file system can make {system.f_favail:,} more; choose another "
                f"path. Nothing was written."
            )


def ahead(begin: Callable[[Piece], Result], pieces: Iterable[Piece], most: int) -> Iterator[Result]:
    """`begin(piece)` for each piece, in order; `begin` is called for up to `most` pieces ahead."""
    waiting: collections.deque[Result] = collections.deque()
    for piece in pieces:
        waiting.append(begin(piece))
        if len(waiting) > most:
            yield waiting.popleft()
    yield from waiting


class Threads:
    """Threads for pieces of work, until `close`; where none can be started, who waits for a result does the work."""

    def __init__(self, n: int) -> None:
        self._ids: list[int] = []
        self._pool = ThreadPoolExecutor(n, initializer=lambda: self._ids.append(threading.get_native_id()))
        self._process = os.getpid()

    def submit(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Begin a piece of work; what is returned waits for its result.

        BusyError, then too, in a process that was forked meanwhile, which has no such threads.
        """
        refuse_fork(self._process)
        task = _Task(work)
        try:
            self._pool.submit(task)
            begun = True
        except RuntimeError:  # no thread could be started; another one may take it from the queue all the same
            begun = False

        def wait() -> Result:
            refuse_fork(self._process)
            if not begun:
                task()
            return task.done.result()

        return wait

    def close(self) -> None:
        """Wait for the pieces being worked on, and cancel the rest."""
        if os.getpid() == self._process:
            self._pool.shutdown(wait=True, cancel_futures=True)
            _wait_for_ends(self._ids)

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _wait_for_ends(threads: Iterable[int]) -> None:
    """Wait, on Linux, until the system has ended threads that Python has joined, for a second at most.

    Until Python 3.13 a thread that is joined may still be taking its leave, with OpenSSL's locks held; a process that
    is forked at that moment waits for them for ever.
    """
    for thread in threads:
        for _ in range(1000):
            if not os.path.exists(f"/proc/self/task/{thread}"):
                break
            time.sleep(0.001)


class _Task(Generic[Result]):
    """A piece of work that is done once, by whoever calls it first."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self.done: Future[Result] = Future()
        self._work, self._taken = work, threading.Lock()

    def __call__(self) -> None:
        if self._taken.acquire(blocking=False):
            try:
                self.done.set_result(self._work())
            except BaseException as error:  # noqa: BLE001 - raised where the result is waited for
                self.done.set_exception(error)


class Workers:
    """Threads that work ahead on many small pieces, until `close`; with one, the caller's own thread does the work.

    Any number of threads gives the same results in the same order.
    """

    def __init__(self, threads: int) -> None:
        self._n = min(threads, MOST_THREADS)
        self._threads = Threads(self._n) if self._n > 1 else None

    def map(self, work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Iterator[Result]:
        """The result of each piece, in order; an error is raised where its result would come."""
        if self._threads is None:
            return map(work, pieces)
        submit = self._threads.submit
        most = min(self._n * PIECES_AHEAD, MOST_AHEAD)
        waiting = ahead(lambda piece: submit(functools.partial(work, piece)), pieces, most)
        return (result() for result in waiting)

    def close(self) -> None:
        """Wait for the pieces being worked on, and cancel the rest."""
        if self._threads is not None:
            self._threads.close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
