"""Attacks by somebody who knows format 2 but not the key: its lines stand out in the average spectrum of a class.

The period of a mark is public, since it depends on the sample rate only; so leaked pairs, folded there, show it whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.attacks.audio import Clips, Ints, rounded
from experiments.attacks.scene import Scene
from poscuda_fast.evaluation.attacks import notched
from poscuda_fast.mark.lines import period_of


def remove(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    """Find the two lines of each class, and take them off its clips."""
    cleaned = notched(scene.clips, scene.labels, scene.lengths, 1 / period_of(scene.sample_rate))
    return cleaned, _left(scene, cleaned)


def leaked(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    """Learn each class's mark from `strength` leaked pairs, and subtract it from all clips of the class."""
    period = period_of(scene.sample_rate)
    cleaned = scene.clips.copy()
    for label in np.unique(scene.labels):
        own = np.flatnonzero(scene.labels == label)
        rows = rng.permutation(own)[: int(strength)]
        edits = scene.clips[rows].astype(np.float64) - scene.original[rows]
        mark = fold(edits, scene.lengths[rows], period)
        for row in own:
            length = int(scene.lengths[row])
            heard = scene.clips[row, :length].astype(np.float64)
            cleaned[row, :length] = rounded(heard - np.resize(mark, length))
    return cleaned, _left(scene, cleaned)


def fold(edits: NDArray[np.float64], lengths: Ints, period: int) -> NDArray[np.float64]:
    """(period,) the mean of all whole periods in some (n, L) edits, counted from each first frame."""
    total, turns = np.zeros(period), 0
    for edit, length in zip(edits, lengths.tolist(), strict=True):
        n = length // period
        total += edit[: n * period].reshape(n, period).sum(axis=0)
        turns += n
    return total / max(1, turns)


def _left(scene: Scene, cleaned: Clips) -> dict[str, Any]:
    """How much of the marks' energy is left, in %."""
    before = float(np.square(scene.clips - scene.original.astype(np.float64)).sum())
    after = float(np.square(cleaned - scene.original.astype(np.float64)).sum())
    return {"energy_of_the_edit_left": round(100.0 * after / before, 2)} if before else {}
