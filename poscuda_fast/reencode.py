"""Editing an encoded file: decode, filter, encode, exchange the file in one step."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import dense, durability
from poscuda_fast.encoded import decode, encode
from poscuda_fast.errors import AudioFileError
from poscuda_fast.kernels import Engine
from poscuda_fast.records import Outcome, Record, energy, snr_db, wet_samples

WHOLE = -1  # the `offset` of a record whose file is kept whole


def take(path: Path, record: Record) -> tuple[Record, bytes]:
    """The record with the file's checksum filled in, and all its bytes."""
    kept = path.read_bytes()
    return dataclasses.replace(record, sha256=hashlib.sha256(kept).hexdigest(), size=len(kept), kept=len(kept)), kept


def samples(record: Record, kept: bytes) -> NDArray[Any]:
    """The original samples of a record's patches, as a dense buffer."""
    return _cut(decode(kept, record.name).samples, record)


def apply(path: Path, record: Record, kept: bytes, wet: NDArray[Any], *, durable: bool) -> Outcome:
    """Put the file with filtered patches in the place of whatever is there now."""
    decoded = decode(kept, record.name)
    dry = _cut(decoded.samples, record)
    signal = energy(decoded.samples)
    edited = kept  # in silence the file's own bytes are the better encoding
    if wet.tobytes() != dry.tobytes():
        _paste(decoded.samples, record, wet)
        edited = encode(decoded)
    _exchange(path, edited, durable=durable)
    return Outcome(len(edited), hashlib.sha256(edited).hexdigest(), snr_db(signal, dry, wet))


def undo(path: Path, record: Record, kept: bytes, *, durable: bool) -> None:
    """Put the original file in the place of whatever is there now."""
    del record
    _exchange(path, kept, durable=durable)


def judge(path: Path, record: Record, kept: bytes, taps: NDArray[np.float32], engine: Engine) -> str:
    """What a file is now: as in `wavedit.judge`, but an exchange leaves nothing torn."""
    now = path.read_bytes()
    expected = decode(kept, record.name).samples
    dry = _cut(expected, record)
    wet, _ = wet_samples(record, dry, taps, engine)
    if now == kept:
        return "equal" if wet.tobytes() == dry.tobytes() else "original"
    _paste(expected, record, wet)
    try:
        found = decode(now, record.name).samples
    except AudioFileError:
        return "neither"
    same = found.shape == expected.shape and found.tobytes() == expected.tobytes()
    return "protected" if same else "neither"


def _exchange(path: Path, content: bytes, *, durable: bool) -> None:
    mode = stat.S_IMODE(os.lstat(path).st_mode)
    durability.replace(path, content, mode=mode, durable=durable)


def _firsts(record: Record) -> list[int]:
    """Where each patch begins in a dense buffer."""
    firsts: list[int] = dense.offsets(record.patches(), record.channels).tolist()
    return firsts


def _cut(audio: NDArray[Any], record: Record) -> NDArray[Any]:
    """The patches of decoded audio (frames, channels), as a dense buffer."""
    parts = [audio[start : start + size].reshape(-1) for start, size in zip(record.starts, record.sizes, strict=True)]
    return np.concatenate([*parts, np.empty(0, audio.dtype)])


def _paste(audio: NDArray[Any], record: Record, wet: NDArray[Any]) -> None:
    """Put a dense buffer where `_cut` took it."""
    for start, size, first in zip(record.starts, record.sizes, _firsts(record), strict=True):
        audio[start : start + size] = wet[first : first + size * record.channels].reshape(size, -1)
