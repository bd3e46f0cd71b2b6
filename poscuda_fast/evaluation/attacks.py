"""Two attacks that somebody who trains on protected clips might try: random shifts, and folding out a class's sound."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from poscuda_fast.evaluation.models import Model
from poscuda_fast.evaluation.training import Step

Clips = NDArray[np.int16]  # (n, frames)
Ints = NDArray[np.int64]  # (n,)
Augmentation = Callable[[Tensor, torch.Generator, int, float], Tensor]  # waves, generator, sample rate, strength


def augmented(change: Augmentation, sample_rate: int, strength: float) -> Step:
    """A training step that augments the waves of every batch with new random numbers."""

    def step(model: Model, waves: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return nn.functional.cross_entropy(model(change(waves, generator, sample_rate, strength)), labels)

    return step


def shift(waves: Tensor, generator: torch.Generator, sample_rate: int, strength: float) -> Tensor:
    """Move each wave up to `strength` seconds earlier or later; zeros fill the gap."""
    most = strength * sample_rate
    moves = ((2 * uniform(waves, generator, 1) - 1) * most).round().long()
    places = torch.arange(waves.shape[1], device=waves.device) - moves  # (n, frames)
    inside = (places >= 0) & (places < waves.shape[1])
    return waves.gather(1, places.clamp(0, waves.shape[1] - 1)) * inside


def uniform(waves: Tensor, generator: torch.Generator, *shape: int) -> Tensor:
    """(n, *shape) random numbers in [0, 1) for n waves, on their device and in their dtype."""
    return torch.rand((len(waves), *shape), generator=generator).to(waves)


def fold(clips: NDArray[Any], lengths: Ints, period: int) -> NDArray[np.float64]:
    """(period,) the mean of all whole turns of `period` frames in some (n, L) clips, counted from each first frame.

    Speech averages out over the turns of a class's clips; a sound in step with them does not.
    """
    total, turns = np.zeros(period), 0
    for clip, length in zip(clips, lengths.tolist(), strict=True):
        n = length // period
        total += clip[: n * period].reshape(n, period).sum(axis=0, dtype=np.float64)
        turns += n
    return total / max(1, turns)


def subtract(clips: Clips, lengths: Ints, turn: NDArray[np.float64]) -> Clips:
    """The clips less a wave that repeats with every turn."""
    return _without(clips, lengths, _repeated(turn, clips.shape[1]))


def unfolded(clips: Clips, labels: Ints, lengths: Ints, period: float) -> Clips:
    """The clips, each less the difference between its class's mean turn of `period` frames and that of all clips."""
    cleaned = clips.copy()
    common = repeating(clips, lengths, period)
    for label in np.unique(labels):
        own = labels == label
        wave = repeating(clips[own], lengths[own], period) - common
        cleaned[own] = _without(clips[own], lengths[own], wave)
    return cleaned


def repeating(clips: NDArray[Any], lengths: Ints, period: float) -> NDArray[np.float64]:
    """(L,) the mean turn of some (n, L) clips, repeated.

    Where `period` is not a whole number of frames, as after resampling, the turn is summed from its harmonics.
    """
    frames = clips.shape[1]
    if period == round(period):
        return _repeated(fold(clips, lengths, round(period)), frames)
    inside = np.arange(frames) < lengths[:, None]
    total = np.where(inside, clips, 0).sum(axis=0, dtype=np.float64)
    repeated = np.zeros(frames)
    for order in range(math.ceil(period / 2)):  # below half the sample rate
        wave = np.exp(2j * np.pi * order / period * np.arange(frames))
        level = np.vdot(wave, total) / max(1, lengths.sum())
        repeated += (level * wave).real * (1 if order == 0 else 2)
    return repeated


def _repeated(turn: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
    return np.tile(turn, -(-frames // len(turn)))[:frames]


def _without(clips: Clips, lengths: Ints, wave: NDArray[np.float64]) -> Clips:
    """The clips less a (L,) wave, each within its own length."""
    inside = np.arange(clips.shape[1]) < lengths[:, None]
    cleaned: Clips = np.clip(np.rint(clips - wave * inside), -32768, 32767).astype(np.int16)
    return cleaned
