"""Patches packed one behind the other, as they are journalled, marked and stored.

A dense buffer holds patch after patch; a patch holds frame after frame; a frame holds its channels.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels import NOT_FINITE, SILENT, Engine, Flags, Ints
from poscuda_fast.mark.marks import Marks
from poscuda_fast.mark.patches import Patches, packed_steps
from poscuda_fast.results import Tally


def offsets(patches: Patches, channels: int) -> Ints:
    """Where each patch begins in a dense buffer, in samples."""
    sizes = patches.sizes * channels
    return np.cumsum(sizes) - sizes


def mark_dense(
    dense: NDArray[Any],
    patches: Patches,
    channels: int,
    marks: Marks,
    engine: Engine,
    flags: Flags | None = None,
) -> int:
    """Mark every patch and channel of a dense buffer in place; returns what `Marks.apply` does."""
    return marks.apply(engine, dense, offsets(patches, channels), patches, packed_steps(channels), flags)


def survey_dense(dense: NDArray[Any], patches: Patches, channels: int, engine: Engine) -> Flags:
    """What each patch of a dense buffer holds, all channels together; see `reference.survey_patches`."""
    return engine.survey_patches(dense, offsets(patches, channels), patches.sizes * channels, 1)


def measure_dense(
    dense: NDArray[Any], patches: Patches, channels: int, engine: Engine
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The energy and the peak of each patch of a dense buffer, over all channels."""
    return engine.measure_patches(dense, offsets(patches, channels), patches.sizes * channels, 1)


def refuse_non_finite(flags: Flags, patches: Patches) -> None:
    """ValueError if a patch holds NaN or infinity: a filter would spread it."""
    odd = np.flatnonzero(flags & NOT_FINITE)
    if odd.size:
        refuse_clip(int(patches.clips[odd[0]]))


def refuse_clip(clip: int) -> NoReturn:
    """ValueError for a clip with NaN or infinity in a patch."""
    raise ValueError(
        f"Clip {clip} has a NaN or infinite sample where it would be marked; nothing was written. Repair the clip, "
        f"for example with numpy.nan_to_num."
    )


def mark_and_count(
    tally: Tally, dense: NDArray[Any], patches: Patches, channels: int, marks: Marks, engine: Engine
) -> None:
    """Mark a dense buffer in place, and add what was there and what was done to a tally."""
    flags = None if marks.steady else np.empty(len(patches), np.uint8)
    count_odd(tally, dense.dtype, mark_dense(dense, patches, channels, marks, engine, flags))
    count_marked(tally, patches, flags)


def count(tally: Tally, dense: NDArray[Any], patches: Patches, channels: int, marks: Marks, engine: Engine) -> None:
    """Add a batch of originals to a tally."""
    count_marked(tally, patches, None if marks.steady else survey_dense(dense, patches, channels, engine))


def count_marked(tally: Tally, patches: Patches, flags: Flags | None) -> None:
    """Add a batch of originals to a tally; `flags` are from a survey of them, and None in format 2."""
    if flags is None:
        tally.frames_changed += patches.n_frames
    else:
        count_patches(tally, patches, flags)


def count_patches(tally: Tally, patches: Patches, flags: Flags) -> None:
    """Format 1: add a batch of originals to a tally; `flags` are from a survey of them."""
    silent = (flags & SILENT).astype(np.bool_)
    tally.patches += len(patches)
    tally.silent_patches += int(silent.sum())
    tally.frames_changed += int(np.where(silent, 0, patches.sizes).sum())  # a filter leaves zeros


def count_odd(tally: Tally, dtype: np.dtype[Any], odd: int) -> None:
    """Add what `Marks.apply` returned to a tally."""
    if dtype.kind == "f":
        tally.not_finite_samples += odd
    else:
        tally.saturated_samples += odd
