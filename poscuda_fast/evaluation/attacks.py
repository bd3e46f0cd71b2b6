"""Two ways to train on protected clips that somebody might try: random shifts, and folding a class's sound out."""

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
    """A training on augmented waves, drawn anew for every batch."""

    def step(model: Model, waves: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return nn.functional.cross_entropy(model(change(waves, generator, sample_rate, strength)), labels)

    return step


def shift(waves: Tensor, generator: torch.Generator, sample_rate: int, strength: float) -> Tensor:
    """Each wave up to `strength` seconds earlier or later; zeros come in."""
    most = strength * sample_rate
    moves = ((2 * uniform(waves, generator, 1) - 1) * most).round().long()
    places = torch.arange(waves.shape[1], device=waves.device) - moves  # (n, frames)
    inside = (places >= 0) & (places < waves.shape[1])
    return waves.gather(1, places.clamp(0, waves.shape[1] - 1)) * inside


def uniform(waves: Tensor, generator: torch.Generator, *shape: int) -> Tensor:
    """(n, *shape) random numbers in [0, 1) for n waves, where those are."""
    return torch.rand((len(waves), *shape), generator=generator).to(waves)


def fold(clips: NDArray[Any], lengths: Ints, period: float) -> NDArray[np.float64]:
    """The mean over all whole turns of some (n, L) clips, each from its first frame on: (period rounded up,).

    What is said averages out over the turns of a class's clips; a sound in step with them does not. A turn that is no
    whole number of frames, as in clips that were resampled, is stretched to one.
    """
    size = math.ceil(period)
    total, turns = np.zeros(size), 0
    for clip, length in zip(clips, lengths.tolist(), strict=True):
        wave = _stretched(clip[:length], period, size)
        n = len(wave) // size
        total += wave[: n * size].reshape(n, size).sum(axis=0, dtype=np.float64)
        turns += n
    return total / max(1, turns)


def subtract(clips: Clips, lengths: Ints, turn: NDArray[np.float64], period: float | None = None) -> Clips:
    """The clips without a wave that repeats turn after turn, every `period` frames if that is not the turn's length."""
    period = len(turn) if period is None else period
    turns = math.ceil(clips.shape[1] / period) + 1
    wave = _stretched(np.tile(turn, turns), len(turn), period)[: clips.shape[1]]
    inside = np.arange(clips.shape[1]) < lengths[:, None]
    cleaned: Clips = np.clip(np.rint(clips - wave * inside), -32768, 32767).astype(np.int16)
    return cleaned


def unfolded(clips: Clips, labels: Ints, lengths: Ints, period: float) -> Clips:
    """The clips, each without its class's mean turn of `period` frames, less that of all clips."""
    cleaned = clips.copy()
    common = fold(clips, lengths, period)
    for label in np.unique(labels):
        own = labels == label
        turn = fold(clips[own], lengths[own], period) - common
        cleaned[own] = subtract(clips[own], lengths[own], turn, period)
    return cleaned


def _stretched(wave: NDArray[Any], period: float, wanted: float) -> NDArray[Any]:
    """A wave in which what took `period` frames takes `wanted`."""
    if period == wanted:
        return wave
    import soxr  # noqa: PLC0415 - not needed where turns are whole

    longer: NDArray[Any] = soxr.resample(wave.astype(np.float64), period, wanted, quality="HQ")
    return longer
