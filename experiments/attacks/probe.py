"""Attacks with a frozen embedding from elsewhere: only a linear layer is trained on the protected clips.

An embedding is ``embedding(clips, lengths, sample_rate) -> (n, d) float32``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from experiments.attacks.audio import Clips, Ints, rounded
from experiments.attacks.classes import linear_classifier
from experiments.data.dataset import TRAIN, load
from poscuda_fast.evaluation.models import Model
from poscuda_fast.evaluation.padded import FULL_SCALE
from poscuda_fast.evaluation.training import Config, Part, accuracy, train

ROUND_ITERATIONS = (1, 3, 10, 30, 100)  # of L-BFGS: the peak is the best after any of these
OTHER_MODEL, OTHER_CLIPS, OTHER_EPOCHS = "cnn", 5000, 15
BATCH = 256

Embedding = Callable[[Clips, Ints, int], NDArray[np.float32]]


def transferred(other: Path, seed: int) -> Embedding:
    """The last hidden layer of a network that is trained here, on the clean clips of another data set.

    Those clips are resampled to the rate of the clips to embed, and cut or padded to their length.
    """
    trained: dict[tuple[int, int], Model] = {}

    def embed(clips: Clips, lengths: Ints, sample_rate: int) -> NDArray[np.float32]:
        shape = (sample_rate, clips.shape[1])
        if shape not in trained:
            trained[shape] = _train_other(other, seed, *shape)
        return hidden(trained[shape], clips)

    return embed


def _train_other(other: Path, seed: int, sample_rate: int, frames: int) -> Model:
    data = load(other)
    rows = np.sort(np.random.default_rng(seed).permutation(data.rows(TRAIN))[:OTHER_CLIPS])
    audio = np.zeros((len(rows), frames), np.int16)
    for place, row in enumerate(rows):
        wave = data.clips[row, : data.lengths[row]].astype(np.float64)
        heard = rounded(soxr.resample(wave, data.sample_rate, sample_rate)[:frames])
        audio[place, : len(heard)] = heard
    part = Part(audio, np.arange(len(rows)), data.labels[rows])
    config = Config(OTHER_MODEL, OTHER_EPOCHS, seed=seed, device="cpu")
    return train(config, part, {}, len(data.classes), sample_rate).model.eval()


@torch.no_grad()
def hidden(model: Model, clips: Clips) -> NDArray[np.float32]:
    """(n, d) the input of a model's last linear layer."""
    seen: list[torch.Tensor] = []
    scores: Any = model.body.scores
    hook = scores.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].cpu()))
    try:
        for first in range(0, len(clips), BATCH):
            batch = clips[first : first + BATCH].astype(np.float32) / np.float32(FULL_SCALE)
            model(torch.from_numpy(batch))
    finally:
        hook.remove()
    return torch.cat(seen).numpy()


def standardised(first: NDArray[np.float32], *others: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Embeddings, standardised in each dimension by the mean and standard deviation of the first ones."""
    mean, spread = first.mean(axis=0), np.maximum(first.std(axis=0), 1e-6)
    return [(part - mean) / spread for part in (first, *others)]


def probe(
    training: NDArray[np.float32], labels: Ints, test: NDArray[np.float32], test_labels: Ints, n_classes: int
) -> tuple[list[dict[str, float]], float]:
    """Fit a logistic regression to embeddings: accuracies in % after each of `ROUND_ITERATIONS`, and the seconds."""
    begun = time.perf_counter()
    values, others = (torch.from_numpy(part) for part in standardised(training, test))
    history = []
    for weight, bias in _fits(values, torch.from_numpy(labels), n_classes):
        found = [(part @ weight.T + bias).argmax(1).numpy() for part in (values, others)]
        history.append({"train": accuracy(found[0], labels), "clean": accuracy(found[1], test_labels)})
    return history, time.perf_counter() - begun


def _fits(values: torch.Tensor, labels: torch.Tensor, n_classes: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for iterations in ROUND_ITERATIONS:
        yield linear_classifier(values, labels, n_classes, decay=1e-3, iterations=iterations)
