"""Paths where files are read, and where edited files wait under hidden names until they are published."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

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
        """Write a file's part, with the permissions of its source unless it was converted."""
        if self._source is None:
            # A part must be on the disk before it replaces an original.
            mode = stat.S_IMODE(os.lstat(self.output(name)).st_mode)
            disk.write_part(self.part(name), content, mode, durable=True)
            return
        file = self._files[name]
        copied = None if file.lossy else stat.S_IMODE(file.stamp[0]) | stat.S_IWUSR
        disk.write_part(self.part(name), content, copied)

    def begin_copy(self, name: str) -> str:
        """Copy a file to its part, to be edited there; returns the part's path."""
        part = self.part(name)
        disk.copy_part(Path(self.input(name)), Path(part))
        return part

    def copy(self, name: str) -> None:
        """Copy a file that is not edited."""
        disk.copy_part(Path(f"{self._source}/{name}"), Path(self.part(name)))
        self.publish(name)

    def publish(self, name: str) -> None:
        """Rename a part to its final name."""
        os.replace(self._parts[name], self.output(name))
        del self._parts[name]

    def abandon(self) -> None:
        """Delete the parts that were not published."""
        for part in self._parts.values():
            with contextlib.suppress(OSError):
                os.unlink(part)
