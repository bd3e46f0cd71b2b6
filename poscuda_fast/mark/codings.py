"""How samples are stored: 16-bit and 24-bit PCM and 32-bit float, as bytes of a file and as kernel samples."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Coding -> bytes per sample. Those that end in _BE have the highest byte of each sample first.
CODINGS = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4, "PCM_16_BE": 2, "PCM_24_BE": 3, "FLOAT_BE": 4}
_BE = "_BE"


def is_big(coding: str) -> bool:
    """Whether the highest byte of each sample comes first."""
    return coding.endswith(_BE)


def little(coding: str) -> str:
    """The coding with the same samples, each with its lowest byte first."""
    return coding.removesuffix(_BE)


def turned(data: bytes | memoryview, coding: str) -> bytes | memoryview:
    """Samples with their bytes in the order of `little(coding)`, from that of `coding`, or the other way round."""
    if not is_big(coding):
        return data
    rows = np.frombuffer(data, np.uint8).reshape(-1, CODINGS[coding])
    return rows[:, ::-1].tobytes()


def to_samples(data: bytes | memoryview, coding: str) -> NDArray[Any]:
    """File bytes as kernel samples: int16, int32 that holds 24 bits, or float32; a copy, native order."""
    coding, data = little(coding), turned(data, coding)
    if coding == "PCM_24":
        packed = np.frombuffer(data, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(packed), 4), np.uint8)
        wide[:, 1:] = packed
        return wide.reshape(-1).view("<i4").astype(np.int32) >> 8
    return np.frombuffer(data, "<i2" if coding == "PCM_16" else "<f4").astype(
        np.int16 if coding == "PCM_16" else np.float32
    )


def to_bytes(samples: NDArray[Any], coding: str) -> bytes | memoryview:
    """The file bytes of kernel samples; the inverse of `to_samples`."""
    kind = little(coding)
    if kind == "PCM_24":
        return turned(samples.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes(), coding)
    return turned(samples.astype("<i2" if kind == "PCM_16" else "<f4").tobytes(), coding)


def as_samples(content: bytearray | memoryview, coding: str, *, packed: bool) -> NDArray[Any] | None:
    """File bytes as samples that share their memory; None if kernels cannot use them as they lie.

    Of 24-bit samples the bytes themselves, if `packed` allows that.
    """
    if is_big(coding):
        return None
    if coding == "PCM_24":
        return np.frombuffer(content, np.uint8) if packed else None
    if sys.byteorder != "little":
        return None
    return np.frombuffer(content, np.int16 if coding == "PCM_16" else np.float32)
