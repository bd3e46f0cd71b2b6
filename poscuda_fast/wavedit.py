"""Editing a WAV file in place: patch bytes are read and written, every other byte stays."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import pcm
from poscuda_fast.errors import DatasetError
from poscuda_fast.kernels import Engine
from poscuda_fast.records import Outcome, Record, energy, snr_db, wet_samples

BYTES_PER_STEP = 1 << 20


def take(path: Path, record: Record) -> tuple[Record, bytes]:
    """The record with the file's checksum filled in, and the bytes of its patches."""
    with _open(path, record, writing=False) as file:
        kept = b"".join(_read_at(file, offset, n) for offset, n in _places(record))
        whole = hashlib.sha256()
        for _, part in _parts(file, record, None):
            whole.update(part)
    return dataclasses.replace(record, sha256=whole.hexdigest(), kept=len(kept)), kept


def samples(record: Record, kept: bytes) -> NDArray[Any]:
    """The original samples of a record's patches, as a dense buffer."""
    return pcm.to_samples(kept, record.coding)


def apply(path: Path, record: Record, kept: bytes, wet: NDArray[Any], *, durable: bool) -> Outcome:
    """Store the filtered patches; what is there now is not looked at. Durable once the caller has synced."""
    del durable  # whoever edits many files syncs them together
    edited = pcm.to_bytes(wet, record.coding)
    after = hashlib.sha256()
    signal = 0.0
    with _open(path, record, writing=True) as file:
        _store(file, record, edited)
        for inside, part in _parts(file, record, edited):
            after.update(part)
            signal += energy(pcm.to_samples(part, record.coding)) if inside else 0.0
    dry = samples(record, kept)
    # The patches were summed as edited: exchange them for the originals.
    signal += energy(dry) - energy(wet)
    return Outcome(record.size, after.hexdigest(), snr_db(signal, dry, wet))


def undo(path: Path, record: Record, kept: bytes, *, durable: bool) -> None:
    """Store the original patches; what is there now is not looked at."""
    del durable
    with _open(path, record, writing=True) as file:
        _store(file, record, kept)


def judge(path: Path, record: Record, kept: bytes, taps: NDArray[np.float32], engine: Engine) -> str:
    """What a file is now.

    "original", "protected", "equal" (protecting changes nothing), "torn" (half written, but only inside
    patches) or "neither".
    """
    try:
        with _open(path, record, writing=False) as file:
            now = b"".join(_read_at(file, offset, n) for offset, n in _places(record))
            whole = hashlib.sha256()
            for _, part in _parts(file, record, kept):
                whole.update(part)
    except DatasetError:
        return "neither"
    if whole.hexdigest() != record.sha256:
        return "neither"
    wet, _ = wet_samples(record, samples(record, kept), taps, engine)
    edited = pcm.to_bytes(wet, record.coding)
    return {(True, True): "equal", (True, False): "original", (False, True): "protected"}.get(
        (now == kept, now == edited), "torn"
    )


@contextlib.contextmanager
def _open(path: Path, record: Record, *, writing: bool) -> Iterator[BinaryIO]:
    """The file, if it is still the one that was listed."""
    flags = (os.O_RDWR if writing else os.O_RDONLY) | getattr(os, "O_NOFOLLOW", 0)
    flags |= getattr(os, "O_NONBLOCK", 0)  # a pipe in its place must not hang the open
    with open(os.open(path, flags), "r+b" if writing else "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size != record.size:
            raise DatasetError(
                f"{path} has {status.st_size} bytes and had {record.size}: it was exchanged or changed meanwhile. "
                f"Put the file back as it was and run the same command again."
            )
        yield file


def _places(record: Record) -> list[tuple[int, int]]:
    """(first byte, bytes) of each patch."""
    frame_bytes = record.channels * pcm.CODINGS[record.coding]
    return [
        (record.offset + start * frame_bytes, size * frame_bytes)
        for start, size in zip(record.starts, record.sizes, strict=True)
    ]


def _store(file: BinaryIO, record: Record, content: bytes) -> None:
    """Write patches, one behind the other in `content`, to their places."""
    first = 0
    for offset, n in _places(record):
        view = memoryview(content)[first : first + n]
        first += n
        file.seek(offset)
        while view:  # a write may be short; an error raises
            view = view[file.write(view) :]


def _read_at(file: BinaryIO, offset: int, n: int) -> bytes:
    file.seek(offset)
    data = bytearray()
    while len(data) < n:
        part = file.read(n - len(data))
        if not part:
            raise DatasetError(f"{file.name} ends at byte {offset + len(data)}: it was cut meanwhile.")
        data += part
    return bytes(data)


def _parts(file: BinaryIO, record: Record, patches: bytes | None) -> Iterator[tuple[bool, bytes]]:
    """The file's bytes in order as (are they samples, bytes), with `patches` in the place of its own, if given."""
    frame_bytes = record.channels * pcm.CODINGS[record.coding]
    end = record.offset + record.frames * frame_bytes
    step = max(1, BYTES_PER_STEP // frame_bytes) * frame_bytes
    position = 0
    first = 0
    cuts: list[tuple[int, int]] = [(record.offset, 0), *(_places(record) if patches is not None else []), (end, 0)]
    for offset, n in [*cuts, (record.size, 0)]:
        inside = record.offset <= position < end
        while position < offset:
            size = min(step, offset - position)
            yield inside, _read_at(file, position, size)
            position += size
        if n and patches is not None:
            yield True, patches[first : first + n]
            first += n
            position += n
