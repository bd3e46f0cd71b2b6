"""Listed audio files, many of them in little memory."""

from __future__ import annotations

import bisect
import dataclasses
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, overload

import numpy as np

from poscuda_fast.disk import STAMP_BYTES, Stamp, size_of
from poscuda_fast.files.containers import Uncompressed
from poscuda_fast.files.encoded import Encoding
from poscuda_fast.files.layouts import Layout
from poscuda_fast.kernels import Ints


class AudioFile(NamedTuple):
    """One audio file below a folder: its relative path with "/", and how its samples are stored.

    `output_name` is its name in a protected copy; `stamp` tells whether it is still the file that was read.
    """

    name: str
    layout: Layout
    output_name: str
    stamp: Stamp

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return size_of(self.stamp)

    @property
    def frames(self) -> int:
        """Its length in frames."""
        return self.layout.frames

    @property
    def lossy(self) -> bool:
        """Whether it is lossy, so that only a converted copy can be protected."""
        return is_lossy(self.layout)

    @property
    def coding(self) -> str:
        """Name of its samples' coding in codings.CODINGS."""
        return self.layout.coding


class Names(Sequence[str]):
    """Names in order, each in 8 bytes and its own: there may be millions."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._text, self._ends = bytearray(), array("q", [0])
        self._next = 0
        for name in names:
            self.append(name)

    def append(self, name: str) -> None:
        """Add a name; ValueError if it is not behind the last one."""
        encoded, n = name.encode("utf-8", "surrogatepass"), len(self)
        if n and encoded <= self._encoded(n - 1):
            raise ValueError(f"{name!r} does not come in the order of names; sort them.")
        self._text += encoded
        self._ends.append(len(self._text))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, n: int) -> str: ...

    @overload
    def __getitem__(self, n: slice) -> list[str]: ...

    def __getitem__(self, n: int | slice) -> str | list[str]:
        if isinstance(n, slice):
            return [self[one] for one in range(*n.indices(len(self)))]
        return self._encoded(range(len(self))[n]).decode("utf-8", "surrogatepass")

    def find(self, name: str) -> int | None:
        """The number of a name; None if it is not there."""
        encoded, n = name.encode("utf-8", "surrogatepass"), len(self)
        for number in (self._next, self._next + 1):  # usually that of the call before, or the one behind
            if number < n and self._encoded(number) == encoded:
                self._next = number
                return number
        number = bisect.bisect_left(range(n), encoded, key=self._encoded)
        if number == n or self._encoded(number) != encoded:
            return None
        self._next = number
        return number

    def _encoded(self, n: int) -> bytes:
        return bytes(self._text[self._ends[n] : self._ends[n + 1]])


class FileTable(Sequence[AudioFile]):
    """Audio files in the order of their names, each in some 50 bytes and its name.

    Each `AudioFile` is made when it is asked for.

    Attributes
    ----------
    names : Names
    layouts : list of Uncompressed or Encoding
        Those that occur, each once, with 0 frames: many files have the same.
    """

    def __init__(self, files: Iterable[AudioFile] = ()) -> None:
        self.names = Names()
        self._stamps = bytearray()
        self._frames, self._kinds = array("q"), array("i")
        self.layouts: list[Layout] = []
        self._numbers: dict[Layout, int] = {}
        self._outputs: dict[int, str] = {}  # of those that have another name in a copy
        for file in files:
            self.append(file)

    def append(self, file: AudioFile) -> None:
        """Add a file; ValueError if its name is not behind the last one."""
        self.names.append(file.name)
        if file.output_name != file.name:
            self._outputs[len(self)] = file.output_name
        self._stamps += file.stamp
        self._frames.append(file.frames)
        kind = _with_frames(file.layout, 0)
        number = self._numbers.setdefault(kind, len(self.layouts))
        if number == len(self.layouts):
            self.layouts.append(kind)
        self._kinds.append(number)

    def __len__(self) -> int:
        return len(self._kinds)

    @overload
    def __getitem__(self, n: int) -> AudioFile: ...

    @overload
    def __getitem__(self, n: slice) -> FileTable: ...

    def __getitem__(self, n: int | slice) -> AudioFile | FileTable:
        if isinstance(n, slice):
            return FileTable(self[one] for one in range(*n.indices(len(self))))
        n = range(len(self))[n]
        name = self.names[n]
        layout = _with_frames(self.layouts[self._kinds[n]], self._frames[n])
        return AudioFile(name, layout, self._outputs.get(n, name), self.stamp(n))

    @property
    def frames(self) -> Ints:
        """The length of each file in frames, int64; none can be added then."""
        return np.frombuffer(self._frames, np.int64)

    @property
    def rates(self) -> Ints:
        """The sample rate of each file in Hz, int64."""
        rates = np.array([layout.sample_rate for layout in self.layouts], np.int64)
        return rates[np.frombuffer(self._kinds, np.int32)]

    def of(self, wanted: Callable[[Layout], bool]) -> Iterator[AudioFile]:
        """The files whose layout, its length aside, is wanted."""
        numbers = {n for n, layout in enumerate(self.layouts) if wanted(layout)}
        if numbers:
            yield from (self[n] for n, kind in enumerate(self._kinds) if kind in numbers)

    def stamp(self, n: int) -> Stamp:
        """The stamp of a file."""
        return bytes(self._stamps[n * STAMP_BYTES : (n + 1) * STAMP_BYTES])

    def restamp(self, n: int, stamp: Stamp) -> None:
        """Note that a file has another stamp now; ValueError if it is none."""
        if len(stamp) != STAMP_BYTES:
            raise ValueError(f"The stamp has a length of {len(stamp)} bytes; it must have {STAMP_BYTES}.")
        self._stamps[n * STAMP_BYTES : (n + 1) * STAMP_BYTES] = stamp


def is_lossy(layout: Layout) -> bool:
    """Whether a file of this layout is lossy."""
    return isinstance(layout, Encoding) and layout.lossy


def is_encoded(layout: Layout) -> bool:
    """Whether a file of this layout is encoded again to be marked."""
    return isinstance(layout, Encoding)


def _with_frames(layout: Layout, frames: int) -> Layout:
    if isinstance(layout, Uncompressed):
        return layout._replace(frames=frames)
    return dataclasses.replace(layout, frames=frames)
