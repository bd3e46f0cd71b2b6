"""A data set as arrays on disk: all clips in one memory-mapped file, and what is known about each.

FOLDER/clips.npy (N, L) int16, zero-padded; labels.npy, lengths.npy, speaker.npy (N,) int64; split.npy (N,)
uint8; files.txt with the file each row came from; dataset.json with the names. Made by experiments.data.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from poscuda_fast import DatasetError

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLITS = ("train", "validation", "test")
# Digests of the data sets of the project's tables: FSDD whole, and the subset of Speech Commands of ten words.
KNOWN = {"baacde198af91143": "fsdd", "8d99989527e8ecce": "speech_commands"}
RESULTS = Path(__file__).parents[1] / "results"
ABOUT: dict[str, Callable[[Any], Any]] = {"name": str, "classes": tuple, "sample_rate": int}  # of dataset.json
PER_CLIP = {"labels": np.int64, "lengths": np.int64, "split": np.uint8, "speaker": np.int64}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Clips and what is known about each.

    Attributes
    ----------
    folder : Path
    name : str
        The data set's name in tables.
    clips : memmap of int16, shape (N, L)
        The clips, zero-padded to L frames; mapped read-only.
    labels, lengths, speaker : array of int64, shape (N,)
        The index in `classes` of each clip's class; its true frames, 1 to L; a number for its speaker.
    split : array of uint8, shape (N,)
        TRAIN, VALIDATION or TEST.
    classes : tuple of str
        The names of the classes, sorted.
    sample_rate : int
        In Hz, of all clips.
    """

    folder: Path
    name: str
    clips: np.memmap[Any, np.dtype[np.int16]]
    labels: NDArray[np.int64]
    lengths: NDArray[np.int64]
    split: NDArray[np.uint8]
    speaker: NDArray[np.int64]
    classes: tuple[str, ...]
    sample_rate: int

    def rows(self, split: int) -> NDArray[np.int64]:
        """The indexes, ascending, of the clips in a split."""
        return np.flatnonzero(self.split == split).astype(np.int64)

    @functools.cached_property
    def digest(self) -> str:
        """BLAKE3 of clips, labels, lengths and splits: what tells this data set from another of its name."""
        whole = blake3(f"{self.clips.shape} {self.sample_rate} {self.classes}".encode())
        for array in (self.clips, self.labels, self.lengths, self.split):
            whole.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return whole.hexdigest()[:16]


def results_of(data: Dataset, kind: str) -> Path:
    """Where results of a data set go: with the project's own, or beside the data."""
    return (RESULTS if KNOWN.get(data.digest) == data.name else data.folder / "results") / kind


def load(folder: Path | str) -> Dataset:
    """Open a folder made by `experiments.data`; the clips stay on disk until they are used.

    Raises
    ------
    DatasetError
        A file is missing, cut short, of another shape or type than expected, or holds a value that is out of range.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        facts = {name: kind(about[name]) for name, kind in ABOUT.items()}
        n_speakers = len(about["speakers"])
        clips = np.load(folder / "clips.npy", mmap_mode="r", allow_pickle=False)
        arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in PER_CLIP}
    except FileNotFoundError as missing:
        raise DatasetError(
            f"There is no {missing.filename}; make the folder with: python -m experiments.data SRC {folder}"
        ) from None
    except (ValueError, EOFError, TypeError, KeyError) as error:
        raise DatasetError(f"{folder} cannot be read: {error!r}. Prepare it again.") from None
    if clips.ndim != 2 or clips.dtype != np.int16:
        raise DatasetError(f"{folder}/clips.npy is {clips.dtype} {clips.shape}; expected int16 (clips, frames).")
    allowed = {"labels": (0, len(facts["classes"]) - 1), "lengths": (1, clips.shape[1]), "split": (TRAIN, TEST),
               "speaker": (0, n_speakers - 1)}  # fmt: skip
    for name, values in arrays.items():
        low, high = allowed[name]
        if values.dtype != PER_CLIP[name] or values.shape != clips.shape[:1]:
            expected = f"{np.dtype(PER_CLIP[name])} ({len(clips)},)"
            raise DatasetError(f"{folder}/{name}.npy is {values.dtype} {values.shape}; expected {expected}.")
        if len(values) and not low <= values.min() <= values.max() <= high:
            raise DatasetError(f"{folder}/{name}.npy holds values outside {low} to {high}. Prepare it again.")
    return Dataset(folder, clips=clips, **facts, **arrays)
