"""The bytes of a WAV file: patch bytes are exchanged, every other byte stays."""

from __future__ import annotations

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


class Whole:
    """A WAV file's bytes in memory.

    With `originals` its patches are taken to hold these, whatever they hold now. DatasetError if it is not
    the file that was listed (`stamp`), or is not of the recorded size.
    """

    def __init__(self, path: str, record: Record, stamp: Stamp | None = None, originals: bytes | None = None) -> None:
        descriptor = _open(path, record, stamp, durability.READING)
        try:
            self.content = _read(descriptor, record.size, path)
        finally:
            os.close(descriptor)
        self._record = record
        self._places = record.places()
        if originals is not None:
            self._fill(originals)
        self.now = b"".join([self.content[place : place + n] for place, n in self._places])

    def survey(self, patches: bytes, *, listening: bool = False) -> Survey:
        """Digests as it is and with `patches`, which it holds from then on; its samples' energy on demand."""
        record = self._record
        signal = 0.0
        if listening:
            end = record.offset + record.frames * record.frame_bytes
            signal = energy(pcm.to_samples(memoryview(self.content)[record.offset : end], record.coding))
        first = self._places[0][0] if self._places else record.size
        view = memoryview(self.content)
        found = hashlib.sha256(view[:first])
        edited = found.copy()  # both begin alike
        found.update(view[first:])
        self._fill(patches)
        edited.update(view[first:])
        return Survey(found.hexdigest(), edited.hexdigest(), signal)

    def digest(self) -> str:
        """SHA-256 in hex."""
        return hashlib.sha256(self.content).hexdigest()

    def _fill(self, patches: bytes) -> None:
        done = 0
        for place, n in self._places:
            self.content[place : place + n] = patches[done : done + n]
            done += n


class Pieces:
    """`Whole` for a file too large for memory: it is read piece by piece, each time it is looked at."""

    def __init__(self, path: str, record: Record, stamp: Stamp | None = None, originals: bytes | None = None) -> None:
        self._path = path
        self._record = record
        descriptor = _open(path, record, stamp, durability.READING)
        try:
            self.now = originals or b"".join([_read(descriptor, n, path, place) for place, n in record.places()])
        finally:
            os.close(descriptor)

    def survey(self, patches: bytes, *, listening: bool = False) -> Survey:
        """As `Whole.survey`, but the file stays as it is."""
        found = edited = hashlib.sha256()
        signal = 0.0
        fill = _Filler(self._record, patches)
        for position, piece in self._read():
            if listening:
                signal += self._energy(position, piece)
            if edited is found and fill.first_place < position + len(piece):
                edited = found.copy()
            found.update(piece)
            if edited is not found:
                fill(position, piece)
                edited.update(piece)
        return Survey(found.hexdigest(), edited.hexdigest(), signal)

    def digest(self) -> str:
        """SHA-256 in hex."""
        whole = hashlib.sha256()
        for _, piece in self._read():
            whole.update(piece)
        return whole.hexdigest()

    def _read(self) -> Iterator[tuple[int, bytearray]]:
        """(first byte, bytes) in order; a piece ends with a frame, but for the last."""
        record = self._record
        # What is kept of the file and what is hashed are the same bytes, or a digest will not fit.
        restore = _Filler(record, self.now)
        step = PIECE_BYTES // record.frame_bytes * record.frame_bytes
        descriptor = _open(self._path, record, None, durability.READING)
        try:
            position, end = 0, record.offset + step
            while position < record.size:
                piece = _read(descriptor, min(end, record.size) - position, self._path)
                restore(position, piece)
                yield position, piece
                position, end = end, end + step
        finally:
            os.close(descriptor)

    def _energy(self, position: int, piece: bytearray) -> float:
        record = self._record
        first = max(record.offset - position, 0)
        end = min(record.offset + record.frames * record.frame_bytes - position, len(piece))
        return energy(pcm.to_samples(memoryview(piece)[first:end], record.coding)) if first < end else 0.0


class _Filler:
    """Puts patches, one behind the other in `patches`, to their places in pieces of a file that come in order."""

    def __init__(self, record: Record, patches: bytes) -> None:
        self._places = record.places()
        self._patches = patches
        self._number = 0  # of the patch that is next, or that the last piece cut
        self._done = 0  # where it begins in `patches`
        self.first_place = self._places[0][0] if self._places else record.size

    def __call__(self, position: int, piece: bytearray) -> None:
        end = position + len(piece)
        while self._number < len(self._places):
            place, n = self._places[self._number]
            begin, stop = max(place, position), min(place + n, end)
            if begin < stop:
                skip = self._done + begin - place
                piece[begin - position : stop - position] = self._patches[skip : skip + stop - begin]
            if place + n > end:
                return
            self._number += 1
            self._done += n


def read(path: str, record: Record, stamp: Stamp | None = None, originals: bytes | None = None) -> Whole | Pieces:
    """A file's content, in memory if it is small."""
    return (Whole if record.size <= PIECE_BYTES else Pieces)(path, record, stamp, originals)


def judge(path: str, record: Record, kept: bytes, wet: bytes) -> tuple[str, str | None]:
    """What a file is now, and its SHA-256 if it was worked out.

    "original", "protected", "equal" (protecting changes nothing), "torn" (half written, but only inside
    patches) or "neither".
    """
    try:
        content = read(path, record)
        seen = content.survey(kept)
    except DatasetError:
        return "neither", None
    return compare(content.now, kept, wet) if seen.as_edited == record.sha256 else "neither", seen.as_found


def compare(now: bytes, kept: bytes, wet: bytes) -> str:
    """What a file's patches are, where every other byte is as it was; words as for `judge`."""
    words = {(True, True): "equal", (True, False): "original", (False, True): "protected"}
    return words.get((now == kept, now == wet), "torn")


def store(path: str, record: Record, patches: bytes, stamp: Stamp | None = None) -> None:
    """Write patches to their places; what is there now is not looked at, if it is still the file that was listed."""
    descriptor = _open(path, record, stamp, durability.WRITING)
    try:
        view = memoryview(patches)
        for place, n in record.places():
            os.lseek(descriptor, place, os.SEEK_SET)
            durability.write_all(descriptor, view[:n])
            view = view[n:]
    finally:
        os.close(descriptor)


def _open(path: str, record: Record, stamp: Stamp | None, flags: int) -> int:
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
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _read(descriptor: int, n: int, path: str, position: int | None = None) -> bytearray:
    """Exactly `n` bytes from `position`, or from where the file stands."""
    if position is not None:
        os.lseek(descriptor, position, os.SEEK_SET)
    data = bytearray(os.read(descriptor, n))
    while len(data) < n:
        part = os.read(descriptor, n - len(data))
        if not part:
            raise DatasetError(f"{path} ends {n - len(data)} bytes early: it was cut meanwhile.")
        data += part
    return data
