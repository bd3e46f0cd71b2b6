"""Patches packed one behind the other: what is journalled, filtered and stored.

A dense buffer holds patch after patch; a patch holds frame after frame; a frame holds its channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels import NOT_FINITE, Engine, Marks
from poscuda_fast.plan import Int64, Patches


def offsets(patches: Patches, channels: int) -> Int64:
    """Where each patch begins in a dense buffer, in samples."""
    sizes = patches.sizes * channels
    return np.cumsum(sizes) - sizes


def mark_dense(dense: NDArray[Any], patches: Patches, channels: int, marks: Marks, engine: Engine) -> int:
    """Filter every patch and channel of a dense buffer in place; returns the saturated samples."""
    starts = (offsets(patches, channels)[:, None] + np.arange(channels)).reshape(-1)
    sizes = np.repeat(patches.sizes, channels)
    rows = np.repeat(patches.rows, channels)
    return engine.mark_patches(dense, starts, sizes, rows, marks, channels)


def survey_dense(dense: NDArray[Any], patches: Patches, channels: int, engine: Engine) -> NDArray[np.uint8]:
    """What each patch of a dense buffer holds, all channels together; see `reference.survey_patches`."""
    return engine.survey_patches(dense, offsets(patches, channels), patches.sizes * channels, 1)


def refuse_non_finite(flags: NDArray[np.uint8], patches: Patches) -> None:
    """ValueError if a patch holds NaN or infinity: its filtered samples would all be NaN."""
    odd = np.flatnonzero(flags & NOT_FINITE)
    if odd.size:
        raise ValueError(
            f"Clip {patches.clips[odd[0]]} has a NaN or infinite sample where it would be marked; nothing was "
            f"written. Repair the clip, for example with numpy.nan_to_num."
        )
