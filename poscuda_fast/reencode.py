"""Editing an encoded file: decode, filter, encode, exchange the file in one step."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import durability, pcm
from poscuda_fast.encoded import Decoded, decode, encode
from poscuda_fast.errors import AudioFileError, DatasetError
from poscuda_fast.listing import Stamp, refuse_exchanged
from poscuda_fast.records import Record
from poscuda_fast.snr import energy


class Content:
    """An encoded file's bytes, and what they decode to."""

    def __init__(self, kept: bytes, record: Record) -> None:
        self.kept = kept
        self._decoded: Decoded = decode(kept, record.name)
        self._record = record

    @property
    def now(self) -> bytes:
        """Its patches as a WAV file of the same coding would hold them."""
        audio, record = self._decoded.samples, self._record
        parts = [audio[start : start + n].reshape(-1) for start, n in zip(record.starts, record.sizes, strict=True)]
        return pcm.to_bytes(np.concatenate([*parts, np.empty(0, audio.dtype)]), record.coding)

    def energy(self) -> float:
        """Of all its samples."""
        return energy(self._decoded.samples.reshape(-1))

    def edited(self, patches: bytes) -> bytes:
        """The file with other patches; in silence its own bytes are the better encoding."""
        if patches == self.now:
            return self.kept
        self.fill(patches)
        return encode(self._decoded)

    def fill(self, patches: bytes) -> NDArray[Any]:
        """Its samples (frames, channels), with other patches from now on."""
        audio, record = self._decoded.samples, self._record
        dense = pcm.to_samples(patches, record.coding)
        for start, n in zip(record.starts, record.sizes, strict=True):
            audio[start : start + n] = dense[: n * record.channels].reshape(n, -1)
            dense = dense[n * record.channels :]
        return audio


def read(path: str, stamp: Stamp | None = None) -> bytes:
    """All bytes of a file; DatasetError if it is not a regular one, or not the one that was listed."""
    with open(os.open(path, durability.READING), "rb") as file:
        status = os.fstat(file.fileno())
        if stamp is not None:
            refuse_exchanged(path, stamp, status)
        if not stat.S_ISREG(status.st_mode):
            raise DatasetError(f"{path} is not a regular file any more; put the file back and run it again.")
        return file.read()


def undo(path: str, kept: bytes) -> None:
    """Put the original file in the place of whatever is there now."""
    durability.replace(Path(path), kept, mode=stat.S_IMODE(os.lstat(path).st_mode))


def judge(now: bytes, content: Content, wet: bytes) -> str:
    """What a file is now: "original", "protected", "equal" (protecting changes nothing) or "neither"."""
    if now == content.kept:
        return "equal" if wet == content.now else "original"
    try:
        found = decode(now, "what is there now").samples
    except AudioFileError:
        return "neither"
    expected = content.fill(wet)
    same = found.shape == expected.shape and found.tobytes() == expected.tobytes()
    return "protected" if same else "neither"


def digest(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()
