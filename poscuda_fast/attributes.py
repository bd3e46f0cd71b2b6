"""Permissions, owner, access list, extended attributes and times of a file or folder, given to its copy.

A copy is never readable by more people than its source: where something cannot be kept, group and others lose what it
might give them.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

ACCESS_LIST = "system.posix_acl_access"
DEFAULT_LIST = "system.posix_acl_default"  # of a folder, for what is made in it
OF_USERS = "user."  # begins the names of the attributes that users give
_HAS_EXTENDED = hasattr(os, "listxattr")


class Attributes(NamedTuple):
    """What a file or folder has beside its content."""

    status: os.stat_result
    extended: dict[str, bytes]


def read(descriptor: int, status: os.stat_result | None = None) -> Attributes:
    """The attributes of an open file or folder; `status` is its own, if it is known."""
    names = _names(descriptor)
    found = {name: os.getxattr(descriptor, name) for name in names if _is_kept(name)} if names else {}
    return Attributes(status or os.fstat(descriptor), found)


def give(target: int, source: Attributes, *, times: bool = True) -> set[str]:
    """Give an open new file or folder, which nobody else can read so far, the attributes of its source.

    The owner may always write to it. Returns what could not be kept.
    """
    status = source.status
    is_folder = stat.S_ISDIR(status.st_mode)
    mode = stat.S_IMODE(status.st_mode) | 0o700 if is_folder else status.st_mode & 0o777 | 0o600
    lost: set[str] = set()
    own = os.fstat(target)
    if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
        mode = _give_owner(target, status, mode, lost)
    if _HAS_EXTENDED:
        mode = _give_extended(target, source.extended, mode, lost)
    os.fchmod(target, mode)
    if ACCESS_LIST in source.extended and "access list" not in lost:
        try:
            os.setxattr(target, ACCESS_LIST, source.extended[ACCESS_LIST])
        except OSError:
            lost.add("access list")
            os.fchmod(target, mode & 0o700)
    if times and not is_folder:
        try:
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        except OSError:
            lost.add("times")
    return lost


def give_those_of(source: Path, target: int) -> set[str]:
    """Give a new file, which is to replace another, all but the times of that one; returns what could not be kept.

    A file that its owner may not write stays so.
    """
    descriptor = os.open(source, os.O_RDONLY)
    try:
        found = read(descriptor)
    finally:
        os.close(descriptor)
    lost = give(target, found, times=False)
    os.fchmod(target, stat.S_IMODE(os.fstat(target).st_mode) & ~(0o600 & ~found.status.st_mode))
    return lost


def notes(lost: Mapping[str, int]) -> list[str]:
    """What a report says of how many files or folders did not keep what."""
    return [
        f"{'1 file or folder' if n == 1 else f'{n:,} files or folders'} did not keep their {what}"
        for what, n in sorted(lost.items())
    ]


class Readers(NamedTuple):
    """A group, and the permissions of those who may read something."""

    group: int
    mode: int


def readers_of(source: os.stat_result, modes: Iterable[int] = ()) -> Readers:
    """Those who may read a file or folder and also, by their modes, all of some files in it."""
    return Readers(source.st_gid, functools.reduce(operator.and_, modes, source.st_mode) & 0o044)


def give_readers(target: int, readers: Readers) -> None:
    """Let those read a new file who may read what it is about, as far as permissions alone tell."""
    is_own = os.fstat(target).st_gid == readers.group
    os.fchmod(target, 0o600 | (readers.mode if is_own else _of_strangers(readers.mode)))


def _give_owner(target: int, status: os.stat_result, mode: int, lost: set[str]) -> int:
    """Give a file its source's owner and group, where that is permitted; returns the permissions that are left."""
    try:
        os.fchown(target, status.st_uid, status.st_gid)
    except OSError:
        with contextlib.suppress(OSError):
            os.fchown(target, -1, status.st_gid)
    own = os.fstat(target)
    if own.st_uid != status.st_uid:
        lost.add("owner")
        mode &= 0o777
    if own.st_gid != status.st_gid:
        lost.add("group")
        mode = _of_strangers(mode)
    return mode


def _give_extended(target: int, extended: dict[str, bytes], mode: int, lost: set[str]) -> int:
    """Give users' attributes, and take inherited access lists away; returns the permissions that are left."""
    for name in _names(target):
        if name in (ACCESS_LIST, DEFAULT_LIST):
            os.removexattr(target, name)
    for name, value in extended.items():
        if name == ACCESS_LIST:  # given last
            if "group" in lost:
                lost.add("access list")
                mode &= 0o700  # with a list, the bits of the group are a limit and not its permissions
            continue
        try:
            os.setxattr(target, name, value)
        except OSError:
            lost.add("access list" if name == DEFAULT_LIST else "extended attributes")
    return mode


def _of_strangers(mode: int) -> int:
    """Permissions under another group: its members may have been in the old group, or among the others."""
    both = mode >> 3 & mode & 0o007
    return mode & 0o700 | both << 3 | both


def _is_kept(name: str) -> bool:
    return name.startswith(OF_USERS) or name in (ACCESS_LIST, DEFAULT_LIST)


def _names(descriptor: int) -> list[str]:
    """The names of a file's extended attributes; none where its file system has none."""
    if not _HAS_EXTENDED:
        return []
    try:
        return os.listxattr(descriptor)
    except OSError:
        return []
