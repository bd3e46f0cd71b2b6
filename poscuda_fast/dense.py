"""Patches packed one behind the other: what is journalled, filtered and stored.

A dense buffer holds patch after patch; a patch holds frame after frame; a frame holds its channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels import Engine
from poscuda_fast.plan import Int64, Patches


def offsets(patches: Patches, channels: int) -> Int64:
    """Where each patch begins in a dense buffer, in samples."""
    sizes = patches.sizes * channels
    return np.cumsum(sizes) - sizes


def filter_dense(
    dense: NDArray[Any], patches: Patches, channels: int, taps: NDArray[np.float32], engine: Engine
) -> int:
    """Filter every patch and channel of a dense buffer in place; returns the saturated samples."""
    starts = (offsets(patches, channels)[:, None] + np.arange(channels)).reshape(-1)
    sizes = np.repeat(patches.sizes, channels)
    rows = np.repeat(patches.rows, channels)
    return engine.filter_patches(dense, starts, sizes, rows, taps, channels)


def is_silent(dense: NDArray[Any], patches: Patches, channels: int) -> NDArray[np.bool_]:
    """Which patches hold zeros only, so that there is nothing to filter."""
    if not len(patches) or not dense.size:
        return np.ones(len(patches), np.bool_)
    return ~np.logical_or.reduceat(dense != 0, offsets(patches, channels))


def refuse_non_finite(dense: NDArray[Any], patches: Patches, channels: int) -> None:
    """ValueError if a patch holds NaN or infinity: its filtered samples would all be NaN."""
    if dense.dtype.kind != "f" or bool(np.isfinite(dense).all()):
        return
    first = int(np.flatnonzero(~np.isfinite(dense))[0])
    clip = int(patches.clips[np.searchsorted(offsets(patches, channels), first, side="right") - 1])
    raise ValueError(
        f"Clip {clip} has a NaN or infinite sample where it would be filtered; nothing was written. "
        f"Repair the clip, for example with numpy.nan_to_num."
    )
