"""Attacks that find what a class's clips have in common in a linear sense, and remove it.

Orthogonal projection: a linear classifier is fitted to the protected training data. A fixed front end projects out
the directions of its weights, where a class-wise mark is easiest to learn, both in training and after it. Class
means: in training, each class's mean is moved to the mean of all. Both work on the features of a model's front end.
MFCC here are all coefficients of an orthonormal cosine transform of log-mel, so the attack is the same on either.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from experiments.attacks.audio import Clips, Ints
from poscuda_fast.evaluation.augmenting import Step
from poscuda_fast.evaluation.models import Model, build
from poscuda_fast.evaluation.padded import FULL_SCALE

MOST_FITTED = 6000  # clips that a linear classifier is fitted to
ITERATIONS = 60  # of L-BFGS
DECAY = 1e-4
BATCH = 512


def directions(values: Tensor, labels: Tensor, n_classes: int, rounds: int) -> Tensor:
    """An orthonormal basis (d, at most rounds * n_classes) of the directions that linear classifiers of (n, d) use.

    Each of the `rounds` classifiers is fitted to what the ones before it leave.
    """
    left = values - values.mean(dim=0)
    left = left / left.std().clamp(min=1e-12)
    basis = values.new_zeros((values.shape[1], 0))
    for _ in range(rounds):
        basis = torch.linalg.qr(torch.cat([basis, linear_classifier(left, labels, n_classes)[0].T], dim=1)).Q
        left = left - (left @ basis) @ basis.T
    return basis


def linear_classifier(
    values: Tensor, labels: Tensor, n_classes: int, *, decay: float = DECAY, iterations: int = ITERATIONS
) -> tuple[Tensor, Tensor]:
    """Weights (n_classes, d) and bias (n_classes,) of a logistic regression, by L-BFGS from zero."""
    weight = values.new_zeros((n_classes, values.shape[1]), requires_grad=True)
    bias = values.new_zeros(n_classes, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=iterations, line_search_fn="strong_wolfe")

    def loss() -> float:
        solver.zero_grad()
        error = nn.functional.cross_entropy(values @ weight.T + bias, labels) + decay * (weight**2).sum()
        error.backward()
        return error.item()

    solver.step(loss)
    return weight.detach(), bias.detach()


class Projection(nn.Module):
    """Removes the directions of a basis (d, k) from values, about a mean (d,)."""

    basis: Tensor
    mean: Tensor

    def __init__(self, basis: Tensor, mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("basis", basis)
        self.register_buffer("mean", mean)

    def forward(self, values: Tensor) -> Tensor:
        flat = values.flatten(1) - self.mean
        return (flat - (flat @ self.basis) @ self.basis.T + self.mean).reshape(values.shape)


def project_features(
    clips: Clips, labels: Ints, n_classes: int, sample_rate: int, model: str, rounds: int, rng: np.random.Generator
) -> nn.Module:
    """A front end that removes from features the directions of `rounds` linear classifiers fitted to them."""
    chosen = _some(len(clips), rng)
    values = _features(clips[chosen], model, n_classes, sample_rate).flatten(1)
    basis = directions(values, torch.from_numpy(labels[chosen]), n_classes, rounds)
    return nn.Sequential(build(model, n_classes, sample_rate).front, Projection(basis, values.mean(dim=0)))


def level_features(
    clips: Clips, labels: Ints, n_classes: int, sample_rate: int, model: str, share: float, rng: np.random.Generator
) -> Step:
    """A training step on features moved by `share` of the way from their class's mean to the mean of all."""
    chosen = _some(len(clips), rng)
    values = _features(clips[chosen], model, n_classes, sample_rate)
    means = values.mean(dim=0).expand(n_classes, *values.shape[1:]).clone()
    for label in np.unique(labels[chosen]):
        means[label] = values[torch.from_numpy(labels[chosen] == label)].mean(dim=0)
    moves = share * (means - values.mean(dim=0))

    def step(model: Model, waves: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            features = model.front(waves)
        return nn.functional.cross_entropy(model.body(features - moves.to(features)[labels]), labels)

    return step


@torch.no_grad()
def _features(clips: Clips, model: str, n_classes: int, sample_rate: int) -> Tensor:
    """(n, ...) the features of clips from a model's fixed front end."""
    front = build(model, n_classes, sample_rate).front
    batches = [clips[first : first + BATCH].astype(np.float32) for first in range(0, len(clips), BATCH)]
    return torch.cat([front(torch.from_numpy(batch / np.float32(FULL_SCALE))) for batch in batches])


def _some(n: int, rng: np.random.Generator) -> Ints:
    """Rows to fit to, ascending: all, or MOST_FITTED of them."""
    return np.sort(rng.permutation(n)[:MOST_FITTED])
