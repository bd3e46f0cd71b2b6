"""Attacks by somebody who knows format 2 but not the key: clips folded at the patches' distance show the sound.

Speech averages out over the turns of a class's clips; a sound in step with them does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.attacks.audio import Clips
from experiments.attacks.scene import Scene
from poscuda_fast.evaluation.attacks import fold, subtract, unfolded


def remove(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    """Subtract each class's mean turn of `strength` frames, less that of all clips."""
    cleaned = unfolded(scene.clips, scene.labels, scene.lengths, int(strength))
    return cleaned, _left(scene, cleaned)


def leaked(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    """Learn each class's sound from `strength` leaked pairs, and subtract it from all clips of the class."""
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
    """How much of the marks' energy is left, in %."""
    before = float(np.square(scene.clips - scene.original.astype(np.float64)).sum())
    after = float(np.square(cleaned - scene.original.astype(np.float64)).sum())
    return {"energy_of_the_edit_left": round(100.0 * after / before, 2)} if before else {}
