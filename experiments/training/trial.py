"""The files that a model is trained and tested on: one data set under one condition and one key."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.data.dataset import TEST, TRAIN, Dataset
from experiments.training.conditions import BATCH, Condition, exchanged, noisy
from poscuda_fast import Key
from poscuda_fast.evaluation.training import Part

SIDE_TEST_CLIPS = 400  # test clips for the keyed, mis-keyed and noise tests, at most
SPLITS = ("official", "70-30")

Ints = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Trial:
    """The clips that `lay_out` made."""

    training: Part  # marked
    clean: Part  # the test clips as they are
    side: dict[str, Part]  # "keyed", "miskeyed" and "noise", of some test clips, under a condition that marks


def rows_of(data: Dataset, split: str, seed: int, most: int | None = None) -> tuple[Ints, Ints]:
    """Training and test rows: the data set's own division, or 70 % and 30 % drawn at random.

    The paper's accuracies on FSDD are multiples of 1/900, so its test set was probably 900 of 3,000 clips. `most`
    keeps so many clips at most, evenly spaced, three of four for training: rows lie by class, and by speaker within a
    class.
    """
    if split == "official":
        train, test = data.rows(TRAIN), data.rows(TEST)
    elif split == "70-30":
        order = np.random.default_rng(seed).permutation(len(data.labels))
        n_test = round(0.3 * len(order))
        train, test = np.sort(order[n_test:]), np.sort(order[:n_test])
    else:
        raise ValueError(f"There is no split {split!r}; choose one of {', '.join(SPLITS)}.")
    if most is None:
        return train, test
    return spaced(train, most * 3 // 4), spaced(test, most // 4)


def spaced(rows: Ints, most: int) -> Ints:
    """At most so many of the rows, evenly spaced."""
    return rows if len(rows) <= most else rows[np.arange(most) * len(rows) // most]


def lay_out(
    data: Dataset, train_rows: Ints, test_rows: Ints, condition: Condition, key: Key, seed: int, folder: Path
) -> Trial:
    """Write the marked clips of rows from `rows_of` into files of an existing folder, one for each part, and map them.

    `seed` is of the noise and of the choice of side-test clips.
    """
    clean = Part(data.clips, test_rows, data.labels[test_rows])
    if condition.name == "clean":
        return Trial(Part(data.clips, train_rows, data.labels[train_rows]), clean, {})
    side = np.sort(np.random.default_rng(seed).permutation(test_rows)[:SIDE_TEST_CLIPS])
    parts = {"training": train_rows, "keyed": side, "miskeyed": side, "noise": side}
    made = {}
    for name, rows in parts.items():
        labels = data.labels[rows]
        clips = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.int16, (len(rows), data.clips.shape[1]))
        for first in range(0, len(rows), BATCH):
            part = slice(first, first + BATCH)
            batch, lengths = np.array(data.clips[rows[part]]), data.lengths[rows[part]]
            if name == "noise":
                batch = noisy(condition, batch, labels[part], lengths, key, seed)
            else:
                marks = exchanged(labels[part], len(data.classes)) if name == "miskeyed" else labels[part]
                condition.mark(batch, marks, lengths, key)
            clips[part] = batch
        made[name] = Part(clips, np.arange(len(rows)), labels)
    return Trial(made.pop("training"), clean, made)
