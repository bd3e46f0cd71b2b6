"""The attack of somebody who knows format 2, but not the key: notches at the lines of each class."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.evaluation.padded import FULL_SCALE
from poscuda_fast.mark.lines import HIGHEST, LOWEST

CLIPS_PER_STEP = 256
NEIGHBOURS = 8  # harmonics on each side that a line is compared with

Clips = NDArray[np.int16]  # (n, frames)
Ints = NDArray[np.int64]  # (n,)


def notched(clips: Clips, labels: Ints, lengths: Ints, spacing: float) -> Clips:
    """Copies of the clips without the two lines that stand out in the average spectrum of their class.

    This is what somebody can do who knows format 2, but not the key: the labels say which clips share their lines. The
    lines of every class are found by `class_lines`, and a sine of each is fitted to every clip and taken off.

    Parameters
    ----------
    clips : (n, L) int16
    labels, lengths : (n,) int64
        The class of each clip, and its true frames.
    spacing : float
        Distance of the comb's lines, in cycles a frame: one over the period.
    """
    cleaned = clips.copy()
    for label, harmonics in class_lines(clips, labels, lengths, spacing).items():
        turns = 2 * np.pi * spacing * np.arange(clips.shape[1])[:, None] * harmonics  # (L, 2)
        waves = np.hstack([np.cos(turns), np.sin(turns)])
        for row in np.flatnonzero(labels == label):
            length = lengths[row]
            heard = clips[row, :length].astype(np.float64)
            fitted, *_ = np.linalg.lstsq(waves[:length], heard, rcond=None)
            rest = np.rint(heard - waves[:length] @ fitted)
            cleaned[row, :length] = np.clip(rest, -FULL_SCALE, FULL_SCALE - 1)
    return cleaned


def class_lines(clips: Clips, labels: Ints, lengths: Ints, spacing: float) -> dict[int, Ints]:
    """The two harmonics of each class that stand out most against the other classes, and against their neighbours."""
    harmonics = np.arange(LOWEST, min(HIGHEST, math.ceil(0.5 / spacing) - 1) + 1)
    levels = _levels(clips, lengths, spacing * harmonics)
    found = {}
    for label in np.unique(labels).tolist():
        own = labels == label
        others = levels[~own].mean(axis=0) if not own.all() else 0.0
        contrast = levels[own].mean(axis=0) - others
        around = np.lib.stride_tricks.sliding_window_view(np.pad(contrast, NEIGHBOURS, "edge"), 2 * NEIGHBOURS + 1)
        found[label] = harmonics[np.argsort(np.median(around, axis=1) - contrast)[:2]]
    return found


def _levels(clips: Clips, lengths: Ints, frequencies: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, frequencies) the natural logarithm of the energy of each clip at each frequency, in cycles a frame."""
    turns = 2 * np.pi * np.arange(clips.shape[1])[:, None] * frequencies
    waves = np.hstack([np.cos(turns), np.sin(turns)]).astype(np.float32)
    levels = np.empty((len(clips), len(frequencies)))
    for first in range(0, len(clips), CLIPS_PER_STEP):
        part = slice(first, first + CLIPS_PER_STEP)
        inside = np.arange(clips.shape[1]) < lengths[part, None]
        cosines, sines = np.hsplit(np.where(inside, clips[part], 0).astype(np.float32) @ waves, 2)
        energies = (cosines.astype(np.float64) ** 2 + sines**2) / np.maximum(1, lengths[part, None])
        levels[part] = np.log(energies + 1 / 12)  # no less than rounding to int16 gives
    return levels
