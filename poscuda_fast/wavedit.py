"""The bytes of a WAV file: patch bytes are exchanged, every other byte stays."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from poscuda_fast import durability, pcm
from poscuda_fast.errors import DatasetError
from poscuda_fast.listing import Stamp, refuse_exchanged
from poscuda_fast.records import Record
from poscuda_fast.snr import energy

PIECE_BYTES = 1 << 20  # no more of a file is held in memory


class Survey(NamedTuple):
    """A file seen in two ways at once.

    Attributes
    ----------
    as_found, as_edited : str
        SHA-256 in hex as it is, and with other bytes in the place of its patches.
    energy : float
        Of its samples as found; 0 if nobody asked.
    """

    as_found: str
    as_edited: str
    energy: float


class Content:
    """A WAV file's bytes: in memory if they are few, else read piece by piece whenever they are wanted.

    With `originals` its patches are taken to hold these, whatever they hold now. DatasetError if it is not
    the file that was listed (`stamp`), or is not of the recorded size.
    """

    def __init__(self, path: str, record: Record, stamp: Stamp | None = None, originals: bytes | None = None) -> None:
        self._path = path
        self._record = record
        self._originals = originals
        self._whole: bytearray | None = None
        with _opened(path, record, stamp, durability.READING) as descriptor:
            if record.size <= PIECE_BYTES:
                self._whole = _read(descriptor, 0, record.size, path)
                self.now = b"".join([self._whole[place : place + n] for place, n in record.places()])
            else:
                self.now = b"".join([_read(descriptor, place, n, path) for place, n in record.places()])
                if originals is None:
                    self._originals = self.now  # what is kept and what is hashed are the same, or a digest differs

    def survey(self, patches: bytes, *, listening: bool = False) -> Survey:
        """Digests as it is and with `patches`, where both begin alike in one pass; its samples' energy on demand."""
        found, edited = hashlib.sha256(), None
        signal = 0.0
        fill = _Filler(self._record, patches)
        for position, piece in self._pieces():
            if listening:
                signal += self._energy(position, piece)
            view = memoryview(piece)
            cut = 0
            if edited is None:
                cut = min(max(0, fill.next_place - position), len(view))
                found.update(view[:cut])
                if cut < len(view):
                    edited = found.copy()
            found.update(view[cut:])
            if edited is not None:
                fill(position, piece)
                edited.update(view[cut:])
        as_found = found.hexdigest()
        return Survey(as_found, edited.hexdigest() if edited is not None else as_found, signal)

    def digest(self) -> str:
        """SHA-256 in hex."""
        whole = hashlib.sha256()
        for _, piece in self._pieces():
            whole.update(piece)
        return whole.hexdigest()

    @property
    def whole(self) -> bytearray | None:
        """All bytes, with the patches of the last survey; None if they are too many."""
        return self._whole

    def _pieces(self) -> Iterator[tuple[int, bytearray]]:
        """(first byte, bytes) in order; a piece ends with a frame, but for the last."""
        restore = None if self._originals is None else _Filler(self._record, self._originals)
        if self._whole is not None:
            if restore is not None:
                restore(0, self._whole)
            yield 0, self._whole
            return
        unit = self._record.frame_bytes
        with _opened(self._path, self._record, None, durability.READING) as descriptor:
            position = 0
            end = self._record.offset + PIECE_BYTES // unit * unit
            while position < self._record.size:
                piece = _read(descriptor, position, min(end, self._record.size) - position, self._path)
                if restore is not None:
                    restore(position, piece)
                yield position, piece
                position, end = end, end + PIECE_BYTES // unit * unit

    def _energy(self, position: int, piece: bytearray) -> float:
        record = self._record
        first = max(record.offset - position, 0)
        end = min(record.offset + record.frames * record.frame_bytes - position, len(piece))
        return energy(pcm.to_samples(memoryview(piece)[first:end], record.coding)) if first < end else 0.0


class _Filler:
    """Puts patches, one behind the other in `content`, to their places in pieces of a file that come in order."""

    def __init__(self, record: Record, content: bytes) -> None:
        self._places = record.places()
        self._content = memoryview(content)
        self._number = 0
        self._first = 0
        self._end = record.size
        self.next_place = self._places[0][0] if self._places else self._end

    def __call__(self, position: int, piece: bytearray) -> None:
        end = position + len(piece)
        while self._number < len(self._places):
            place, n = self._places[self._number]
            if place >= end:
                return
            begin, stop = max(place, position), min(place + n, end)
            piece[begin - position : stop - position] = self._content[self._first + begin - place :][: stop - begin]
            if place + n > end:
                return
            self._first += n
            self._number += 1


def judge(path: str, record: Record, kept: bytes, wet: bytes) -> tuple[str, str | None]:
    """What a file is now, and its SHA-256 if it was worked out.

    "original", "protected", "equal" (protecting changes nothing), "torn" (half written, but only inside
    patches) or "neither".
    """
    try:
        content = Content(path, record)
        seen = content.survey(kept)
    except DatasetError:
        return "neither", None
    verdict = "neither"
    if seen.as_edited == record.sha256:
        words = {(True, True): "equal", (True, False): "original", (False, True): "protected"}
        verdict = words.get((content.now == kept, content.now == wet), "torn")
    return verdict, seen.as_found


def store(path: str, record: Record, patches: bytes, stamp: Stamp | None = None) -> None:
    """Write patches to their places; what is there now is not looked at, if it is still the file that was listed."""
    with _opened(path, record, stamp, durability.WRITING) as descriptor:
        view = memoryview(patches)
        for place, n in record.places():
            os.lseek(descriptor, place, os.SEEK_SET)
            durability.write_all(descriptor, view[:n])
            view = view[n:]


@contextlib.contextmanager
def _opened(path: str, record: Record, stamp: Stamp | None, flags: int) -> Iterator[int]:
    """The file's descriptor, if it is still the one that was listed or recorded."""
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if stamp is not None:
            refuse_exchanged(path, stamp, status)
        if not stat.S_ISREG(status.st_mode) or status.st_size != record.size:
            raise DatasetError(
                f"{path} has {status.st_size} bytes and had {record.size}: it was exchanged or changed meanwhile. "
                f"Put the file back as it was and run the same command again."
            )
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int, position: int, n: int, path: str) -> bytearray:
    """Exactly `n` bytes from `position`."""
    os.lseek(descriptor, position, os.SEEK_SET)
    data = bytearray(os.read(descriptor, n))
    while len(data) < n:
        part = os.read(descriptor, n - len(data))
        if not part:
            raise DatasetError(f"{path} ends at byte {position + len(data)}: it was cut meanwhile.")
        data += part
    return data
