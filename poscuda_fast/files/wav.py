"""Edits the bytes of WAV files: the patches are replaced, every other byte stays."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from poscuda_fast import disk
from poscuda_fast.disk import Stamp, refuse_exchanged
from poscuda_fast.errors import DatasetError
from poscuda_fast.files import headers
from poscuda_fast.files.records import Places, Record
from poscuda_fast.mark.snr import energy
from poscuda_fast.results import Verdict

PIECE_BYTES = 1 << 20  # at most this much of a file is in memory


class Digests(NamedTuple):
    """Digests of a file in two forms.

    Attributes
    ----------
    as_found, as_edited : str
        SHA-256 in hex: of the file as it is, and with other bytes in its patches.
    energy : float
        Energy of its samples as found; 0 unless it was asked for.
    """

    as_found: str
    as_edited: str
    energy: float


class Whole:
    """A WAV file's bytes in memory.

    With `originals`, its patches hold these, whatever the file holds now. DatasetError if it is not the file
    that was listed (`stamp`), or does not have the recorded size.
    """

    def __init__(self, path: str, record: Record, stamp: Stamp | None = None, originals: bytes | None = None) -> None:
        descriptor = _open(path, record, stamp, disk.READING)
        try:
            self.content = _read(descriptor, record.size, path)
        finally:
            os.close(descriptor)
        self._record = record
        self._places = Places(record)
        if originals is not None:
            self._places.put(self.content, originals)
        self.now = self._places.take(self.content)

    def digests(self, patches: bytes, *, listening: bool = False) -> Digests:
        """Digests as it is and with `patches`, which `content` has from then on; with `listening`, the energy too."""
        record = self._record
        signal = 0.0
        if listening:
            end = record.offset + record.frames * record.frame_bytes
            signal = energy(headers.to_samples(memoryview(self.content)[record.offset : end], record.coding))
        first = self._places.firsts[0] if self._places.firsts else record.size
        view = memoryview(self.content)
        found = hashlib.sha256(view[:first])
        edited = found.copy()  # both forms begin alike
        found.update(view[first:])
        self._places.put(self.content, patches)
        edited.update(view[first:])
        return Digests(found.hexdigest(), edited.hexdigest(), signal)

    def digest(self) -> str:
        """SHA-256 in hex."""
        return hashlib.sha256(self.content).hexdigest()


class Pieces:
    """`Whole` for a file too large for memory, read again piece by piece for every digest."""

    def __init__(self, path: str, record: Record, stamp: Stamp | None = None, originals: bytes | None = None) -> None:
        self._path = path
        self._record = record
        self._places = Places(record)
        descriptor = _open(path, record, stamp, disk.READING)
        try:
            self.now = originals or b"".join([_read(descriptor, n, path, first) for first, n in self._places])
        finally:
            os.close(descriptor)

    def digests(self, patches: bytes, *, listening: bool = False) -> Digests:
        """As `Whole.digests`, but the content stays as it is."""
        found = edited = hashlib.sha256()
        signal = 0.0
        first = self._places.firsts[0] if self._places.firsts else self._record.size
        for position, piece in self._read():
            if listening:
                signal += self._energy(position, piece)
            if edited is found and first < position + len(piece):
                edited = found.copy()
            found.update(piece)
            if edited is not found:
                self._places.put(piece, patches, position)
                edited.update(piece)
        return Digests(found.hexdigest(), edited.hexdigest(), signal)

    def digest(self) -> str:
        """SHA-256 in hex."""
        whole = hashlib.sha256()
        for _, piece in self._read():
            whole.update(piece)
        return whole.hexdigest()

    def _read(self) -> Iterator[tuple[int, bytearray]]:
        """(first byte, bytes) in order; every piece but the last ends with a whole frame."""
        record = self._record
        step = PIECE_BYTES // record.frame_bytes * record.frame_bytes
        descriptor = _open(self._path, record, None, disk.READING)
        try:
            position, end = 0, record.offset + step
            while position < record.size:
                piece = _read(descriptor, min(end, record.size) - position, self._path)
                # Hash the patches that the sidecar keeps: the file may have changed since they were read.
                self._places.put(piece, self.now, position)
                yield position, piece
                position, end = end, end + step
        finally:
            os.close(descriptor)

    def _energy(self, position: int, piece: bytearray) -> float:
        record = self._record
        first = max(record.offset - position, 0)
        end = min(record.offset + record.frames * record.frame_bytes - position, len(piece))
        return energy(headers.to_samples(memoryview(piece)[first:end], record.coding)) if first < end else 0.0


def read(path: str, record: Record, stamp: Stamp | None = None, originals: bytes | None = None) -> Whole | Pieces:
    """A file's content, in memory if it is small."""
    return (Whole if record.size <= PIECE_BYTES else Pieces)(path, record, stamp, originals)


def judge(path: str, record: Record, kept: bytes, wet: bytes) -> tuple[Verdict, str | None]:
    """The verdict on a file, and its SHA-256; None if it has another size."""
    try:
        content = read(path, record)
        seen = content.digests(kept)
    except DatasetError:
        return Verdict.NEITHER, None
    return (compare(content.now, kept, wet) if seen.as_edited == record.sha256 else Verdict.NEITHER), seen.as_found


def compare(now: bytes, kept: bytes, wet: bytes) -> Verdict:
    """The verdict on the patches of a file whose other bytes are unchanged."""
    return Verdict.of(original=now == kept, protected=now == wet, otherwise=Verdict.TORN)


def store(path: str, record: Record, patches: bytes, stamp: Stamp | None = None) -> None:
    """Write patches to their places, whatever is there now; DatasetError if it is not the file that was listed."""
    descriptor = _open(path, record, stamp, disk.WRITING)
    try:
        view = memoryview(patches)
        for first, n in Places(record):
            os.lseek(descriptor, first, os.SEEK_SET)
            disk.write_all(descriptor, view[:n])
            view = view[n:]
    finally:
        os.close(descriptor)


def _open(path: str, record: Record, stamp: Stamp | None, flags: int) -> int:
    """Open a file; DatasetError if it is no longer the one that was listed or recorded."""
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if stamp is not None:
            refuse_exchanged(path, stamp, status)
        if not stat.S_ISREG(status.st_mode) or status.st_size != record.size:
            raise DatasetError(
                f"{path} has {status.st_size} bytes and had {record.size}: it was replaced or changed meanwhile. "
                f"Put the file back as it was and run the same command again."
            )
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _read(descriptor: int, n: int, path: str, position: int | None = None) -> bytearray:
    """Exactly `n` bytes from `position`, or from the current position."""
    if position is not None:
        os.lseek(descriptor, position, os.SEEK_SET)
    data = bytearray(os.read(descriptor, n))
    while len(data) < n:
        part = os.read(descriptor, n - len(data))
        if not part:
            raise DatasetError(f"{path} ends {n - len(data)} bytes early: it was cut meanwhile.")
        data += part
    return data
