"""The files that a model is trained and tested on: one data set under one condition and one key."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.conditions import BATCH, Condition, exchanged, mark_rows, noisy
from experiments.dataset import TEST, TRAIN, Dataset
from poscuda_fast import Key
from poscuda_fast.evaluation.training import Part

SIDE_TEST_CLIPS = 400  # test clips for the keyed, mis-keyed and noise tests, at most
SPLITS = ("official", "70-30")

Ints = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Trial:
    """The clips that `lay_out` made.

    Attributes
    ----------
    training : Part
        The training clips, marked.
    tests : dict of Part
        "clean": the test clips as they are. Under a condition that marks, also "keyed", "miskeyed" and
        "noise", made from at most `SIDE_TEST_CLIPS` of them.
    """

    training: Part
    tests: dict[str, Part]


def rows_of(data: Dataset, split: str, seed: int) -> tuple[Ints, Ints]:
    """Training and test rows: the data set's own division, or 70 % and 30 % drawn at random.

    The paper's accuracies on FSDD are multiples of 1/900, so its test set was probably 900 of 3,000 clips.
    """
    if split == "official":
        return data.rows(TRAIN), data.rows(TEST)
    if split == "70-30":
        order = np.random.default_rng(seed).permutation(len(data.labels))
        n_test = round(0.3 * len(order))
        return np.sort(order[n_test:]), np.sort(order[:n_test])
    raise ValueError(f"There is no split {split!r}; choose one of {', '.join(SPLITS)}.")


def lay_out(
    data: Dataset, train_rows: Ints, test_rows: Ints, condition: Condition, key: Key, seed: int, folder: Path
) -> Trial:
    """Write the marked files into an existing folder and open them.

    Parameters
    ----------
    data : Dataset
    train_rows, test_rows : (n,) int64
        From `rows_of`.
    condition : Condition
    key : Key
    seed : int
        Of the noise and of the choice of side-test clips.
    folder : Path
        Gets clips.npy, miskeyed.npy and noise.npy, which stay mapped.
    """
    clean = Part(data.clips, test_rows, data.labels[test_rows])
    if condition.name == "clean":
        return Trial(Part(data.clips, train_rows, data.labels[train_rows]), {"clean": clean})
    side = np.sort(np.random.default_rng(seed).permutation(test_rows)[:SIDE_TEST_CLIPS])
    both = np.concatenate([train_rows, side])
    shutil.copyfile(data.folder / "clips.npy", folder / "clips.npy")
    marked = np.load(folder / "clips.npy", mmap_mode="r+")
    mark_rows(condition, marked, both, data.labels[both], data.lengths[both], key)

    labels, lengths = data.labels[side], data.lengths[side]
    miskeyed = _new(folder / "miskeyed.npy", len(side), data)
    noise = _new(folder / "noise.npy", len(side), data)
    for first in range(0, len(side), BATCH):
        part = slice(first, first + BATCH)
        batch = np.array(data.clips[side[part]])
        noise[part] = noisy(condition, batch, labels[part], lengths[part], key, seed)
        condition.mark(batch, exchanged(labels[part], len(data.classes)), lengths[part], key)
        miskeyed[part] = batch
    everything = np.arange(len(side))
    tests = {
        "clean": clean,
        "keyed": Part(marked, side, labels),
        "miskeyed": Part(miskeyed, everything, labels),
        "noise": Part(noise, everything, labels),
    }
    return Trial(Part(marked, train_rows, data.labels[train_rows]), tests)


def _new(path: Path, n_clips: int, data: Dataset) -> NDArray[np.int16]:
    shape = (n_clips, data.clips.shape[1])
    made: NDArray[np.int16] = np.lib.format.open_memmap(path, "w+", np.dtype(np.int16), shape)
    return made
