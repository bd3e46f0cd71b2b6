"""A data set as arrays on disk: all clips in one memory-mapped file, and what is known about each.

FOLDER/clips.npy (N, L) int16, zero-padded; labels.npy, lengths.npy, speaker.npy (N,) int64; split.npy (N,)
uint8; files.txt with the file each row came from; dataset.json with the names. Made by experiments.data.
"""

from __future__ import annotations

import functools
import json
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
PER_CLIP = {"labels": np.int64, "lengths": np.int64, "split": np.uint8, "speaker": np.int64}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Clips and what is known about each.

    Attributes
    ----------
    folder : Path
        Folder of the arrays.
    name : str
        The data set's name in tables.
    clips : memmap of int16, shape (N, L)
        The clips, zero-padded to L frames; mapped read-only, so that a slice reads only its own pages.
    labels : array of int64, shape (N,)
        The index in `classes` of each clip's class.
    lengths : array of int64, shape (N,)
        The true frames of each clip, 1 to L.
    split : array of uint8, shape (N,)
        TRAIN, VALIDATION or TEST.
    speaker : array of int64, shape (N,)
        A number for each speaker; its name is in dataset.json under "speakers".
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
    """Open a prepared data set; the clips stay on disk until they are used.

    Parameters
    ----------
    folder : path
        A folder made by `experiments.data`.

    Raises
    ------
    DatasetError
        A file is missing, cut short, or of another shape or type than expected, or holds a label, length, split or
        speaker that is out of range.
    """
    folder = Path(folder)
    about = _about(folder)
    clips = _array(folder, "clips", np.int16, mapped=True)
    if clips.ndim != 2:
        raise DatasetError(f"{folder}/clips.npy has shape {clips.shape}; expected (clips, frames). Prepare it again.")
    arrays = {name: _array(folder, name, dtype) for name, dtype in PER_CLIP.items()}
    for name, values in arrays.items():
        if values.shape != clips.shape[:1]:
            raise DatasetError(
                f"{folder}/{name}.npy has shape {values.shape} for {len(clips)} clips; expected ({len(clips)},). "
                f"Prepare it again."
            )
    _refuse_outside(folder, "labels", arrays["labels"], 0, len(about["classes"]) - 1)
    _refuse_outside(folder, "lengths", arrays["lengths"], 1, clips.shape[1])
    _refuse_outside(folder, "split", arrays["split"], TRAIN, TEST)
    _refuse_outside(folder, "speaker", arrays["speaker"], 0, len(about["speakers"]) - 1)
    return Dataset(
        folder, about["name"], clips, classes=tuple(about["classes"]), sample_rate=about["sample_rate"], **arrays
    )


def _about(folder: Path) -> dict[str, Any]:
    path = folder / "dataset.json"
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError(
            f"There is no {path}; make the folder with: python -m experiments.data SRC {folder}"
        ) from None
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}. Prepare it again.") from None
    for name, kind in {"name": str, "classes": list, "speakers": list, "sample_rate": int}.items():
        if not isinstance(about, dict) or not isinstance(about.get(name), kind):
            raise DatasetError(f"{path} has no {name!r} of type {kind.__name__}. Prepare it again.")
    return about


def _array(folder: Path, name: str, dtype: type, *, mapped: bool = False) -> Any:
    path = folder / f"{name}.npy"
    try:
        values = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise DatasetError(f"There is no {path}. Prepare it again.") from None
    except (ValueError, EOFError) as error:
        raise DatasetError(f"{path} cannot be read: {error}. Prepare it again.") from None
    if values.dtype != dtype:
        raise DatasetError(f"{path} holds {values.dtype}; expected {np.dtype(dtype)}. Prepare it again.")
    return values


def _refuse_outside(folder: Path, name: str, values: NDArray[Any], lowest: int, highest: int) -> None:
    outside = np.flatnonzero((values < lowest) | (values > highest))
    if outside.size:
        raise DatasetError(
            f"{folder}/{name}.npy holds {values[outside[0]]} in row {outside[0]}; expected {lowest} to {highest}. "
            f"Prepare it again."
        )
