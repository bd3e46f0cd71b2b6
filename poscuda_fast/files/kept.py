"""An encoded file's original as the sidecar keeps it, read piece by piece; never written to a file of its own."""

from __future__ import annotations

import bisect
import io
import threading
from collections.abc import Callable
from typing import NamedTuple

_READING = threading.Lock()  # threads may read several files from one sidecar


class KeptPiece(NamedTuple):
    """Some bytes of a file: where they begin and end, and how to read them from the sidecar."""

    begin: int
    end: int
    read: Callable[[], bytes]

    def __repr__(self) -> str:
        return f"KeptPiece({self.begin}, {self.end})"


class KeptFile(io.RawIOBase):
    """The original of an encoded file, of which the sidecar keeps several pieces; one of them is in memory."""

    def __init__(self, pieces: list[KeptPiece]) -> None:
        self._pieces = pieces
        self._begins = [piece.begin for piece in pieces]
        self._size = pieces[-1].end
        self._position = 0
        self._held: tuple[int, bytes] = (-1, b"")

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._position >= self._size:
            return 0
        number = bisect.bisect_right(self._begins, self._position) - 1
        if self._held[0] != number:
            with _READING:
                self._held = number, self._pieces[number].read()
        found = self._held[1][self._position - self._begins[number] :][: len(buffer)]
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        starts = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        if offset + starts[whence] < 0:
            raise ValueError(f"offset is {offset}, which lies before the beginning")
        self._position = offset + starts[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True
