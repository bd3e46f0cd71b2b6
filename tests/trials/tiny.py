"""A prepared data set small enough to train on in a second: tones of three pitches in noise, of unequal length."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from experiments.data.dataset import TEST, TRAIN, Dataset, load

RATE = 8000
FRAMES = 7200  # M5 needs 6,848 to pool four times
CLASSES = ("low", "middle", "high")
PITCHES = (300.0, 700.0, 1500.0)  # Hz


def dataset(
    folder: Path, n_train: int = 36, n_test: int = 12, frames: int = FRAMES, seed: int = 0, *, name: str = "tiny",
    rate: int = RATE,
) -> Dataset:  # fmt: skip
    """Write a data set into a new folder and open it."""
    rng = np.random.default_rng(seed)
    n = n_train + n_test
    labels = np.arange(n) % len(CLASSES)
    lengths = rng.integers(frames // 2, frames + 1, n)
    time = np.arange(frames) / rate
    clips = np.zeros((n, frames), np.int16)
    for row, (label, length) in enumerate(zip(labels, lengths, strict=True)):
        tone = np.sin(2 * np.pi * (PITCHES[label] * time[:length] + rng.uniform()))
        clips[row, :length] = np.rint(3000 * tone + rng.normal(0, 300, length))
    return write(folder, clips, labels, lengths, n_train, CLASSES, name, rate)


def write(
    folder: Path, clips: np.ndarray, labels: np.ndarray, lengths: np.ndarray, n_train: int, classes: tuple[str, ...],
    name: str, rate: int,
) -> Dataset:  # fmt: skip
    """Clips of one speaker as a data set, the first `n_train` for training."""
    folder.mkdir()
    arrays = {
        "clips": clips,
        "labels": labels.astype(np.int64),
        "lengths": lengths.astype(np.int64),
        "split": np.where(np.arange(len(clips)) < n_train, TRAIN, TEST).astype(np.uint8),
        "speaker": np.zeros(len(clips), np.int64),
    }
    for file, values in arrays.items():
        np.save(folder / f"{file}.npy", values)
    about = {"name": name, "classes": classes, "speakers": ["code"], "sample_rate": rate}
    (folder / "dataset.json").write_text(json.dumps(about))
    return load(folder)
