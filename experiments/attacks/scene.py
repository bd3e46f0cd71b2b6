"""What an attack is given: the training clips, and what is known about them."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from experiments.attacks.audio import Clips, Ints
from experiments.conditions import Condition, touched
from poscuda_fast import Key


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """What an attack is given.

    `original`, `condition` and `key` are for attacks that have more than the protected clips through somebody's
    mistake (leaked pairs, known places, unprotected clips), and for measuring how right an attack was.

    Attributes
    ----------
    clips : (n, L) int16
        The training clips as published.
    original : (n, L) int16
        The same before they were marked.
    labels, lengths : (n,) int64
    n_classes, sample_rate : int
    condition : Condition
    key : Key
    """

    clips: Clips
    original: Clips
    labels: Ints
    lengths: Ints
    n_classes: int
    sample_rate: int
    condition: Condition
    key: Key


def places(scene: Scene) -> NDArray[np.bool_]:
    """(n, L) the frames that the mark touches."""
    return touched(scene.condition, scene.clips.shape, scene.labels, scene.lengths, scene.key)
