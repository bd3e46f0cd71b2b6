"""Paths where files are read, and where edited files wait under hidden names until they are published."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from poscuda_fast import disk
from poscuda_fast.files.listing import AudioFile


class Staging:
    """Paths of the files below `root`: copies of those below `source`, or edited in place if that is None.

    A part is a file under a hidden name beside its final path, so that readers only see whole files. Threads may share
    this object.
    """

    def __init__(self, root: Path, source: Path | None, files: list[AudioFile]) -> None:
        self._root = root
        self._source = source
        self._files = {file.output_name: file for file in files}
        self._parts: dict[str, str] = {}
        self._growing: set[str] = set()  # parts that are written piece by piece
        self._lock = threading.Lock()
        self._folders: set[str] = set()

    @property
    def copying(self) -> bool:
        """Whether files are copied, not edited in place."""
        return self._source is not None

    def input(self, name: str) -> str:
        """The path that a file is read from."""
        return self.output(name) if self._source is None else f"{self._source}/{self._files[name].name}"

    def output(self, name: str) -> str:
        """The final path of a file."""
        return f"{self._root}/{name}"

    def part(self, name: str) -> str:
        """The path that a file is written to before it is published; creates its folder."""
        part = self.output(disk.part_name(name))
        folder = part.rpartition("/")[0]
        if folder not in self._folders:
            os.makedirs(folder, exist_ok=True)
            self._folders.add(folder)
        self._parts[name] = part
        return part

    def write(self, name: str, content: disk.Buffer) -> None:
        """Write the part of a file's copy, with the permissions of its source."""
        disk.write_part(self.part(name), content, self._mode(name))

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """The part of a file, empty, to be written and read; in place it is on the disk when the block ends."""
        mode = self._mode(name)
        with disk.new_part(self.part(name), mode) as file:
            yield file
            if self._source is None:
                file.flush()
                os.fsync(file.fileno())

    def write_at(self, name: str, begin: int, content: Iterable[disk.Buffer]) -> None:
        """Write one piece of a part that is written in pieces, in any order."""
        with self._lock:
            if name not in self._growing:
                disk.write_part(self.part(name), b"", 0o600)
                self._growing.add(name)
        descriptor = os.open(self._parts[name], disk.WRITING)
        try:
            os.lseek(descriptor, begin, os.SEEK_SET)
            for some in content:
                disk.write_all(descriptor, some)
        finally:
            os.close(descriptor)

    def copy(self, name: str) -> None:
        """Copy a file that is not edited."""
        disk.copy_part(Path(f"{self._source}/{name}"), Path(self.part(name)))
        self.publish(name)

    def publish(self, name: str) -> None:
        """Rename a part to its final name."""
        if name in self._growing:
            disk.finish_part(self._parts[name], self._mode(name) or 0o600, durable=self._source is None)
            self._growing.discard(name)
        os.replace(self._parts[name], self.output(name))
        del self._parts[name]

    def abandon(self) -> None:
        """Delete the parts that were not published."""
        for part in self._parts.values():
            with contextlib.suppress(OSError):
                os.unlink(part)

    def _mode(self, name: str) -> int | None:
        """The permissions of a file's part: those of the file; None, the usual ones, if it is converted."""
        if self._source is None:
            return stat.S_IMODE(os.lstat(self.output(name)).st_mode)
        file = self._files[name]
        return None if file.lossy else stat.S_IMODE(file.stamp[0]) | stat.S_IWUSR
