"""How samples are stored: 16-bit and 24-bit PCM and 32-bit float, little-endian, as bytes and as kernel samples."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Coding -> bytes per sample.
CODINGS = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}


def to_samples(data: bytes | memoryview, coding: str) -> NDArray[Any]:
    """File bytes as kernel samples: int16, int32 that holds 24 bits, or float32; a copy, native order."""
    if coding == "PCM_24":
        packed = np.frombuffer(data, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(packed), 4), np.uint8)
        wide[:, 1:] = packed
        return wide.reshape(-1).view("<i4").astype(np.int32) >> 8
    return np.frombuffer(data, "<i2" if coding == "PCM_16" else "<f4").astype(
        np.int16 if coding == "PCM_16" else np.float32
    )


def to_bytes(samples: NDArray[Any], coding: str) -> bytes:
    """The file bytes of kernel samples; the inverse of `to_samples`."""
    if coding == "PCM_24":
        return samples.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return samples.astype("<i2" if coding == "PCM_16" else "<f4").tobytes()


def as_samples(content: bytearray | memoryview, coding: str, *, packed: bool) -> NDArray[Any] | None:
    """File bytes as samples that share their memory; None if kernels cannot use them as they lie.

    Of 24-bit samples the bytes themselves, if `packed` allows that.
    """
    if coding == "PCM_24":
        return np.frombuffer(content, np.uint8) if packed else None
    if sys.byteorder != "little":
        return None
    return np.frombuffer(content, np.int16 if coding == "PCM_16" else np.float32)
