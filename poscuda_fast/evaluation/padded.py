"""Checks of clips for the measures: one clip a row, zero-padded after its true frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FULL_SCALE = 32768

Clips = NDArray[np.int16]  # (clips, frames), perhaps a memory map


def checked_lengths(clips: Clips, lengths: ArrayLike) -> NDArray[np.int64]:
    """The true frames of each clip, (n,) int64.

    Raises
    ------
    TypeError
        If the clips are not int16.
    ValueError
        If they are not one a row, or `lengths` is not one number from 0 to L for each.
    """
    if clips.dtype != np.int16:
        raise TypeError(f"The clips are {clips.dtype}; give int16, with a full scale of {FULL_SCALE}.")
    if clips.ndim != 2:
        raise ValueError(f"The clips have the shape {clips.shape}; give one clip a row, (clips, frames).")
    lengths = np.asarray(lengths, dtype=np.int64)
    if lengths.shape != (len(clips),):
        raise ValueError(f"lengths has the shape {lengths.shape} for {len(clips)} clips; give one length per clip.")
    wrong = np.flatnonzero((lengths < 0) | (lengths > clips.shape[1]))
    if len(wrong):
        raise ValueError(f"Clip {wrong[0]} has the length {lengths[wrong[0]]} in a row of {clips.shape[1]} frames.")
    return lengths


def checked_rows(clips: Clips, rows: ArrayLike | None) -> NDArray[np.int64]:
    """The rows, (m,) int64; all of them if `rows` is None.

    Raises
    ------
    ValueError
        If they are not whole numbers from 0 to n - 1; a mask of booleans is refused.
    """
    if rows is None:
        return np.arange(len(clips))
    rows = np.asarray(rows)
    if rows.size == 0:
        return np.empty(0, dtype=np.int64)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise ValueError(
            f"rows is {rows.dtype} with the shape {rows.shape}; give row numbers (np.flatnonzero of a mask)."
        )
    if rows.min() < 0 or rows.max() >= len(clips):
        raise ValueError(f"rows go from {rows.min()} to {rows.max()}; there are {len(clips)} clips, counted from 0.")
    return rows.astype(np.int64)
