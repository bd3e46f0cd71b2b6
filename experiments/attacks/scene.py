"""What an attack is given: the training clips, and what is known about them."""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments.attacks.audio import Clips, Ints
from experiments.data.dataset import Dataset
from experiments.training.conditions import Condition, mark_rows, study_key


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """Training clips (n, L) as published, and `original`, the same before they were marked.

    The latter are for attacks that have unprotected clips or leaked pairs, and for measuring how right an attack was.
    """

    clips: Clips
    original: Clips
    labels: Ints
    lengths: Ints
    n_classes: int
    sample_rate: int


def make_scene(data: Dataset, rows: Ints, condition: Condition, seed: int) -> Scene:
    """Some clips of a data set before and after they are marked."""
    original = np.ascontiguousarray(data.clips[rows])
    clips, labels, lengths = original.copy(), data.labels[rows], data.lengths[rows]
    mark_rows(condition, clips, np.arange(len(rows)), labels, lengths, study_key(seed))
    return Scene(clips, original, labels, lengths, len(data.classes), data.sample_rate)
