"""An encoded file's original as the journal keeps it, read piece by piece."""

from __future__ import annotations

import bisect
import io
import threading
from typing import BinaryIO

from poscuda_fast.errors import SidecarError
from poscuda_fast.files.records import Record, unpack
from poscuda_fast.undo.journal import Journal

_JOURNAL = threading.Lock()  # threads may read several files from one journal


def original_of(record: Record, kept: memoryview, journal: Journal) -> BinaryIO:
    """The original of an encoded file; `record` and `kept` are its last piece."""
    return io.BytesIO(kept) if record.is_whole else io.BufferedReader(KeptFile(record, journal))


class KeptFile(io.RawIOBase):
    """The original of an encoded file that the journal keeps in several pieces; one batch of them is in memory.

    Attributes
    ----------
    error : Exception or None
        Why reading failed: libsndfile, which calls `readinto`, loses that.
    """

    def __init__(self, record: Record, journal: Journal) -> None:
        self.error: Exception | None = None
        self._record, self._journal = record, journal
        self._position = 0
        self._batches, self._begins = [record.batch], [0]  # the batches known so far, and the first byte of each
        self._pieces: list[tuple[int, memoryview]] = []  # of the batch in memory

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._position >= self._record.size:
            return 0
        try:
            begin, piece = self._piece()
        except Exception as error:
            self.error = error
            raise
        found = piece[self._position - begin :][: len(buffer)]
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        starts = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._record.size}
        self._position = offset + starts[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def _piece(self) -> tuple[int, memoryview]:
        """The piece with the byte at the present position."""
        number = bisect.bisect_right(self._begins, self._position) - 1
        while True:
            if not (self._pieces and self._pieces[0][0] == self._begins[number]):
                self._load(number)
            end = self._pieces[-1][0] + len(self._pieces[-1][1])
            if self._position < end:
                return next(one for one in reversed(self._pieces) if one[0] <= self._position)
            number += 1
            if number == len(self._begins):
                self._begins.append(end)
                self._batches.append(self._batches[-1] + 1)

    def _load(self, number: int) -> None:
        self._pieces = []
        with _JOURNAL:
            payload = self._journal.payload(self._batches[number])
        self._pieces = [(one.begin, kept) for one, kept in unpack(payload) if one.name == self._record.name]
        if not self._pieces:
            raise SidecarError(f"The sidecar {self._journal.path} has lost a part of {self._record.name}.")
