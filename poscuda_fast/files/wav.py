"""Edits the bytes of WAV files piece by piece: the patches are replaced, every other byte stays."""

from __future__ import annotations

import hashlib
import os
import stat

import numpy as np

from poscuda_fast import disk
from poscuda_fast.disk import Buffer, Stamp, refuse_exchanged, stamp_of
from poscuda_fast.errors import DatasetError
from poscuda_fast.files import headers
from poscuda_fast.files.records import Places, Record
from poscuda_fast.mark import snr
from poscuda_fast.results import Verdict


def read(path: str, record: Record, stamp: Stamp | None = None, originals: Buffer | None = None) -> bytes | bytearray:
    """The bytes of a piece.

    With `originals`, its patches hold these, whatever the file holds now. DatasetError if it is not the file that was
    listed (`stamp`), or does not have the recorded size.
    """
    descriptor = _open(path, record, stamp, disk.READING)
    try:
        found = _read(descriptor, record.end - record.begin, path, record.begin)
    finally:
        os.close(descriptor)
    if originals is None:
        return found
    content = bytearray(found)
    Places(record).put(content, originals, record.begin)
    return content


def energy(record: Record, content: Buffer) -> float:
    """Energy of the samples in a piece's bytes."""
    sound = memoryview(content)[record.sound]
    step = snr.SAMPLES_PER_STEP * headers.CODINGS[record.coding]
    parts = (headers.to_samples(sound[first : first + step], record.coding) for first in range(0, len(sound), step))
    return sum(map(snr.energy, parts))


def is_same(path: str, record: Record, kept: Buffer | None) -> bool:
    """Whether a piece equals its original, once its patches are replaced by `kept` if given."""
    try:
        return digest(read(path, record, None, kept)) == record.sha256
    except (OSError, DatasetError):
        return False


def judge(path: str, record: Record, kept: Buffer, wet: Buffer, *, steady: bool) -> tuple[Verdict, str | None]:
    """The verdict on a piece, and the SHA-256 of the file if this is all of it; see `compare`."""
    try:
        content = read(path, record)
    except DatasetError:
        return Verdict.NEITHER, None
    places = Places(record)
    verdict = compare(places.take(content, record.begin), kept, wet, steady=steady)
    original = hashlib.sha256()
    for part in places.woven(content, kept, record.begin):
        original.update(part)
    if original.hexdigest() != record.sha256:
        verdict = Verdict.NEITHER
    return verdict, digest(content) if record.is_whole else None


def compare(now: Buffer, kept: Buffer, wet: Buffer, *, steady: bool) -> Verdict:
    """The verdict on the patches of a file whose other bytes are unchanged.

    `steady` marks leave no other bytes: there, what is half written may only hold bytes of the original and of the
    marked form.
    """
    verdict = Verdict.of(original=now == kept, protected=now == wet, otherwise=Verdict.TORN)
    if verdict is Verdict.TORN and steady:
        here, before, after = (np.frombuffer(form, np.uint8) for form in (now, kept, wet))
        if not ((here == before) | (here == after)).all():
            return Verdict.NEITHER
    return verdict


def store(path: str, record: Record, patches: Buffer, stamp: Stamp | None = None) -> Stamp:
    """Write patches to their places, whatever is there now; returns the file's new stamp.

    DatasetError if it is not the file that was listed.
    """
    descriptor = _open(path, record, stamp, disk.WRITING)
    try:
        view = memoryview(patches)
        for first, n in Places(record):
            os.lseek(descriptor, first, os.SEEK_SET)
            disk.write_all(descriptor, view[:n])
            view = view[n:]
        return stamp_of(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def digest(content: Buffer) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


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


def _read(descriptor: int, n: int, path: str, position: int) -> bytes:
    """Exactly `n` bytes from `position`."""
    os.lseek(descriptor, position, os.SEEK_SET)
    data = os.read(descriptor, n)
    while len(data) < n:
        part = os.read(descriptor, n - len(data))
        if not part:
            raise DatasetError(f"{path} ends {n - len(data)} bytes early: it was cut meanwhile.")
        data += part
    return data
