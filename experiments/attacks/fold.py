"""Attacks by somebody who knows format 2 but not the key: clips folded at the patches' distance show the sound.

What is said averages out over the turns of a class's clips; a sound in step with them does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.attacks.audio import Clips, Ints, rounded
from experiments.attacks.scene import Scene

Float = NDArray[np.float64]


def fold(clips: NDArray[Any], lengths: Ints, period: int) -> Float:
    """(period,) the mean over all whole turns of some (n, L) clips, each from its first frame on."""
    total, turns = np.zeros(period), 0
    for clip, length in zip(clips, lengths.tolist(), strict=True):
        n = length // period
        total += clip[: n * period].reshape(n, period).sum(axis=0, dtype=np.float64)
        turns += n
    return total / max(1, turns)


def subtract(clips: Clips, lengths: Ints, turn: Float) -> Clips:
    """The clips without a wave that repeats turn after turn."""
    wave = np.tile(turn, -(-clips.shape[1] // len(turn)))[: clips.shape[1]]
    inside = np.arange(clips.shape[1]) < lengths[:, None]
    return rounded(clips - wave * inside)


def remove(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    """Each class's mean turn of `strength` frames, less that of all clips, is subtracted."""
    period = int(strength)
    cleaned = scene.clips.copy()
    common = fold(scene.clips, scene.lengths, period)
    for label in np.unique(scene.labels):
        own = scene.labels == label
        clips, lengths = scene.clips[own], scene.lengths[own]
        cleaned[own] = subtract(clips, lengths, fold(clips, lengths, period) - common)
    return cleaned, _left(scene, cleaned)


def leaked(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    """`strength` leaked pairs a class give its sound away; it is subtracted from the others."""
    assert scene.condition.recipe is not None
    period = int(scene.condition.recipe.every or 1)
    cleaned = scene.clips.copy()
    for label in np.unique(scene.labels):
        own = np.flatnonzero(scene.labels == label)
        rows = rng.permutation(own)[: int(strength)]
        edits = scene.clips[rows].astype(np.float64) - scene.original[rows]
        cleaned[own] = subtract(scene.clips[own], scene.lengths[own], fold(edits, scene.lengths[rows], period))
    return cleaned, _left(scene, cleaned)


def _left(scene: Scene, cleaned: Clips) -> dict[str, Any]:
    """How much of the marks' energy is still there, in %."""
    before = float(np.square(scene.clips - scene.original.astype(np.float64)).sum())
    after = float(np.square(cleaned - scene.original.astype(np.float64)).sum())
    return {"energy_of_the_edit_left": round(100.0 * after / before, 2)} if before else {}
