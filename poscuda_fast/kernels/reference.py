"""The arithmetic of FORMAT.md in NumPy, without tricks: specification, last fallback and baseline."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[Any]  # flat: int16, float32, or int32 that holds 24-bit PCM
Ints = NDArray[np.int64]
Table = NDArray[np.float32]  # a row for each class
Flags = NDArray[np.uint8]

SILENT, NOT_FINITE = 1, 2  # what a survey finds in a patch

# int32 holds 24-bit PCM.
FULL_SCALE = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**23, np.dtype(np.float32): 1.0}


def top_of(dtype: np.dtype[Any]) -> float:
    """Integer samples lie in [-top, top); 0.0 for floating point, which has no limit."""
    return FULL_SCALE[dtype] if dtype.kind == "i" else 0.0


def filter_patches(samples: Samples, starts: Ints, sizes: Ints, rows: Ints, taps: Table, stride: int) -> int:
    """Convolve each patch with its filter, in place.

    Patch n is ``samples[starts[n] + t * stride]`` for t in 0..sizes[n]-1; its filter is
    ``taps[rows[n]]``. Patches must not overlap. `samples` is flat: int16, float32, or int32 that
    holds 24-bit PCM. Returns how many samples were saturated.
    """
    n_taps = taps.shape[1]
    centre = (n_taps - 1) // 2
    saturated = 0
    for start, size, row in zip(starts, sizes, rows, strict=True):
        f = taps[row].astype(np.float64)
        places = start + stride * np.arange(size)
        x = samples[places].astype(np.float64)
        y = np.zeros(size)
        for i in range(size):  # ascending input sample: no backend may reorder the sum
            first, end = max(0, i - centre), min(int(size), i - centre + n_taps)
            y[first:end] += f[first + centre - i : end + centre - i] * x[i]
        wet, over = _store(y, samples.dtype)
        samples[places] = wet
        saturated += over
    return saturated


def add_patches(samples: Samples, starts: Ints, sizes: Ints, rows: Ints, sounds: Table, stride: int) -> int:
    """Add its sound to each patch, in place.

    Patches are as in `filter_patches`, none longer than the sounds; ``sounds[rows[n]]`` is a share of full scale.
    Returns how many samples were saturated.
    """
    full_scale = FULL_SCALE[samples.dtype]
    saturated = 0
    for start, size, row in zip(starts, sizes, rows, strict=True):
        places = start + stride * np.arange(size)
        y = samples[places].astype(np.float64) + full_scale * sounds[row, :size].astype(np.float64)
        samples[places], over = _store(y, samples.dtype)
        saturated += over
    return saturated


def survey_patches(samples: Samples, starts: Ints, sizes: Ints, stride: int) -> Flags:
    """What each patch holds, (n_patches,) uint8: bit 0 is set for zeros only, bit 1 for a NaN or infinity."""
    flags = np.zeros(len(starts), np.uint8)
    for n, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        patch = samples[start + stride * np.arange(size)]
        flags[n] = (not patch.any()) | (not np.isfinite(patch).all()) << 1
    return flags


def _store(y: NDArray[np.float64], dtype: np.dtype[Any]) -> tuple[NDArray[Any], int]:
    """float64 sums as samples, and how many of them were saturated."""
    top = top_of(dtype)
    if top == 0.0:
        with np.errstate(over="ignore", under="ignore"):
            return y.astype(np.float32), 0
    rounded = np.rint(y)
    limited = np.clip(rounded, -top, top - 1)
    return limited.astype(dtype), int((limited != rounded).sum())
