"""Putting files on the disk so that they stay there: create, replace, sync."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

FICLONE = 0x40049409  # linux/fs.h


def create(path: Path, content: bytes, *, mode: int, durable: bool = True) -> None:
    """Write a new file, durably unless told otherwise; FileExistsError if the name is taken.

    After an error nothing is left.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def replace(path: Path, content: bytes, *, mode: int, durable: bool = True) -> None:
    """Put `content` under `path` in one step: old or new, never a mixture; durably unless told otherwise."""
    part = part_of(path)
    part.unlink(missing_ok=True)
    create(part, content, mode=mode, durable=durable)
    os.replace(part, path)
    if durable:
        sync_folder(path.parent)


def copy(source: Path, target: Path) -> None:
    """Copy a file's bytes and permissions under a new name, which appears once it is whole; not synced.

    The blocks are shared or copied by the kernel where it can.
    """
    part = part_of(target)
    part.unlink(missing_ok=True)
    with open(source, "rb", buffering=0) as read, open(part, "xb", buffering=0) as write:
        status = os.fstat(read.fileno())
        if not (_clone(read.fileno(), write.fileno()) or _copy_range(read.fileno(), write.fileno(), status.st_size)):
            write.seek(0)
            shutil.copyfileobj(read, write, 1 << 20)
        if hasattr(os, "fchmod"):
            os.fchmod(write.fileno(), stat.S_IMODE(status.st_mode) | stat.S_IWUSR)
    os.replace(part, target)


def _clone(source: int, target: int) -> bool:
    """Share the blocks (reflink), where the file system can."""
    try:
        import fcntl  # noqa: PLC0415 - not on every system

        fcntl.ioctl(target, FICLONE, source)
    except (ImportError, OSError):
        return False
    return True


def _copy_range(source: int, target: int, size: int) -> bool:
    """Copy inside the kernel; False, with both files at their beginnings, if it cannot."""
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


def part_of(path: Path) -> Path:
    """The name under which a file is written before it gets its own."""
    return path.with_name(f".{path.name}.poscuda-part")


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
    """Make the content of `files`, all below `folder`, durable; OSError if any byte did not get there.

    One syncfs call covers them where the system has it: thousands of fsync calls cost seconds.
    """
    syncfs = None
    with contextlib.suppress(OSError, AttributeError, TypeError):
        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    if syncfs is None:
        for file in files:
            _fsync(file)
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
