"""Patches packed one behind the other, as they are journalled, marked and stored.

A dense buffer holds patch after patch; a patch holds frame after frame; a frame holds its channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels import NOT_FINITE, SILENT, Engine, Ints, Marks
from poscuda_fast.mark.plan import Patches
from poscuda_fast.recipe import Recipe
from poscuda_fast.results import Tally

BATCH_BYTES = 4 << 20  # several forms of a batch are in memory at once, and must stay below 64 MiB together
BATCH_PATCHES = 1 << 16  # their places take 32 bytes each: 2 MiB at most


def offsets(patches: Patches, channels: int) -> Ints:
    """Where each patch begins in a dense buffer, in samples."""
    sizes = patches.sizes * channels
    return np.cumsum(sizes) - sizes


def mark_dense(dense: NDArray[Any], patches: Patches, channels: int, marks: Marks, engine: Engine) -> int:
    """Mark every patch and channel of a dense buffer in place; returns how many samples were saturated."""
    starts = (offsets(patches, channels)[:, None] + np.arange(channels)).reshape(-1)
    sizes = np.repeat(patches.sizes, channels)
    rows = np.repeat(patches.rows, channels)
    return engine.mark_patches(dense, starts, sizes, rows, marks, channels)


def survey_dense(dense: NDArray[Any], patches: Patches, channels: int, engine: Engine) -> NDArray[np.uint8]:
    """What each patch of a dense buffer holds, all channels together; see `reference.survey_patches`."""
    return engine.survey_patches(dense, offsets(patches, channels), patches.sizes * channels, 1)


def refuse_non_finite(flags: NDArray[np.uint8], patches: Patches) -> None:
    """ValueError if a patch holds NaN or infinity: a filter would spread it."""
    odd = np.flatnonzero(flags & NOT_FINITE)
    if odd.size:
        raise ValueError(
            f"Clip {patches.clips[odd[0]]} has a NaN or infinite sample where it would be marked; nothing was "
            f"written. Repair the clip, for example with numpy.nan_to_num."
        )


def patches_per_batch(recipe: Recipe, frame_bytes: int) -> int:
    """How many patches make a batch: about `BATCH_BYTES` and no more than `BATCH_PATCHES`."""
    return max(1, min(BATCH_PATCHES, BATCH_BYTES // (recipe.patch * max(1, frame_bytes))))


def count(tally: Tally, patches: Patches, flags: NDArray[np.uint8], marks: Marks) -> None:
    """Add a batch of original patches to a tally; `flags` are from a survey of them."""
    silent = (flags & SILENT).astype(np.bool_)
    tally.patches += len(patches)
    tally.silent_patches += int(silent.sum())
    unchanged = silent & (not marks.added)  # a filter leaves zeros
    tally.frames_changed += int(np.where(unchanged, 0, patches.sizes).sum())
