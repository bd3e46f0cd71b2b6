"""Where files are read, and where their edited forms wait until they may take their names."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from poscuda_fast import disk
from poscuda_fast.files.listing import AudioFile


class Staging:
    """Paths of files below `root`, which are copies of those below `source` if there is one.

    A part is a file under a hidden name beside its future place: whoever looks there meets whole files only.
    Threads may share it.
    """

    def __init__(self, root: Path, source: Path | None, files: list[AudioFile]) -> None:
        self._root = root
        self._source = source
        self._files = {file.output_name: file for file in files}
        self._parts: dict[str, str] = {}
        self._folders: set[str] = set()

    @property
    def copying(self) -> bool:
        """Whether the files stay where they are read."""
        return self._source is not None

    def input(self, name: str) -> str:
        """Where a file is read."""
        return self.output(name) if self._source is None else f"{self._source}/{self._files[name].name}"

    def output(self, name: str) -> str:
        """Where a file belongs."""
        return f"{self._root}/{name}"

    def part(self, name: str) -> str:
        """Where a file is written before it gets its name; the folder is there."""
        part = self.output(disk.part_name(name))
        folder = part.rpartition("/")[0]
        if folder not in self._folders:
            os.makedirs(folder, exist_ok=True)
            self._folders.add(folder)
        self._parts[name] = part
        return part

    def write(self, name: str, content: disk.Buffer) -> None:
        """Write a file's part, with the permissions of what was read."""
        if self._source is None:
            # Nothing may take an original's name before it is on the disk.
            mode = stat.S_IMODE(os.lstat(self.output(name)).st_mode)
            disk.write_part(self.part(name), content, mode, durable=True)
            return
        file = self._files[name]
        copied = None if file.lossy else stat.S_IMODE(file.stamp[0]) | stat.S_IWUSR
        disk.write_part(self.part(name), content, copied)

    def begin_copy(self, name: str) -> str:
        """The part of a file, a copy that is still to be edited."""
        part = self.part(name)
        disk.copy_part(Path(self.input(name)), Path(part))
        return part

    def copy(self, name: str) -> None:
        """Copy a file that is not edited."""
        disk.copy_part(Path(f"{self._source}/{name}"), Path(self.part(name)))
        self.publish(name)

    def publish(self, name: str) -> None:
        """Give a part its name."""
        os.replace(self._parts[name], self.output(name))
        del self._parts[name]

    def abandon(self) -> None:
        """Take away the parts that have no name yet."""
        for part in self._parts.values():
            with contextlib.suppress(OSError):
                os.unlink(part)
