"""Files below a folder, opened without following any link on the way."""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from poscuda_fast import disk
from poscuda_fast.errors import DatasetError
from poscuda_fast.undo.manifest import PIECE_BYTES

FOLDERS_OPEN = 64
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)

_NO_NAMES = ("", ".", "..")
_OF_THE_SYSTEM = (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # errors that are no file's own


class _Folder:
    """An open folder, closed once nobody has it: so threads need no lock, which an interrupt might leave locked."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


class Below:
    """Opens files by their names below a folder, with "/"; a few folders stay open. Threads may share it.

    A link in a name, or a name that leaves the folder, is refused with DatasetError: names come from sidecars and
    listings, and what lies there may have been exchanged since.

    Attributes
    ----------
    systems : disk.Systems
        The file systems that were met.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.systems = disk.Systems()
        self._root = _Folder(os.open(root, os.O_RDONLY))
        self._opened = functools.lru_cache(FOLDERS_OPEN)(self._found)
        self.systems.meet(self._root.descriptor)

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        """A descriptor of a file; FileNotFoundError if it or its folder does not exist."""
        with self.folder(name) as (descriptor, last):
            return os.open(last, flags, mode, dir_fd=descriptor)

    def reading(self, name: str) -> BinaryIO | None:
        """An open file; None if there is no regular one, if it may not be read, or if a link lies on the way."""
        try:
            descriptor = self.open(name, disk.READING)
        except OSError as error:
            if error.errno in _OF_THE_SYSTEM:
                raise
            return None
        except ValueError:  # DatasetError, and what is no name
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        return open(descriptor, "rb")

    @contextmanager
    def folder(self, name: str) -> Iterator[tuple[int, str]]:
        """The descriptor of a file's folder, good within the block, and the file's name in it."""
        folder, slash, last = name.rpartition("/")
        if last in _NO_NAMES or (slash and not folder):
            raise self._leaving(name)
        here = self._opened(folder) if folder else self._root
        yield here.descriptor, last

    def close(self) -> None:
        """Close the folders, each as soon as no thread is within it."""
        self._opened.cache_clear()
        self._root = _Folder(-1)
        self.systems.close()

    def digest(self, name: str) -> str | None:
        """A file's BLAKE3 in hex; None if there is no regular file of that name, or only behind a link."""
        file = self.reading(name)
        if file is None:
            return None
        with file:
            whole = blake3()
            while piece := file.read(PIECE_BYTES):
                whole.update(piece)
        return str(whole.hexdigest())

    def sync(self) -> None:
        """Make everything durable on every file system that was met; OSError if it cannot be written.

        Where a system cannot do that, each file must have been synced.
        """
        self.systems.sync(self.root, ())

    def _found(self, folder: str) -> _Folder:
        here = self._root
        for part in folder.split("/"):
            if part in _NO_NAMES:
                raise self._leaving(folder)
            try:
                here = _Folder(os.open(part, _FOLDER, dir_fd=here.descriptor))
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                raise DatasetError(
                    f"{self.root / folder} is no folder any more, or has a link on the way; it is not followed."
                ) from None
        self.systems.meet(here.descriptor)
        return here

    def _leaving(self, name: str) -> DatasetError:
        return DatasetError(f"The name {name!r} leaves the folder {self.root}; it is not used.")
