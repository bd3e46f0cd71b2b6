"""Training as people do it: random shifts, noise, and SpecAugment, and the mean of the features taken off.

The common recipes for speech commands (TensorFlow, kws_streaming, BC-ResNet, NeMo, SpeechBrain, ESPnet, AST) shift
clips, add noise and mask spectra; speaker and speech toolkits take each clip's mean over time off its features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from poscuda_fast.evaluation.fronts import cosine_basis
from poscuda_fast.evaluation.models import Model

MASK_SHARE = 0.15  # of an axis, the widest mask

Augmentation = Callable[[Tensor, torch.Generator, int, float], Tensor]  # waves, generator, sample rate, strength


class Step(Protocol):
    """Computes the loss of one batch; an attack on the training is such a step."""

    def __call__(self, model: Model, waves: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor: ...


@dataclasses.dataclass(frozen=True)
class Regime:
    """What is done to clips while a model trains on them.

    Attributes
    ----------
    share : float
        Of the clips of a batch, how many are shifted and get noise.
    shift_seconds : float
        The furthest shift, earlier or later; drawn uniformly.
    noise : float
        The highest RMS of the white noise, full scale being 1; drawn uniformly from 0.
    masks : int
        SpecAugment's: so many bands and so many stretches of time, for spectral models.
    mean_off : bool
        Whether spectral features lose their mean over each clip, in tests too.
    """

    share: float = 0.0
    shift_seconds: float = 0.0
    noise: float = 0.0
    masks: int = 0
    mean_off: bool = False

    @property
    def changes(self) -> bool:
        """Whether clips are changed at every step."""
        return self.share > 0 or self.masks > 0


PLAIN = Regime()
DEFAULT = Regime(share=0.8, shift_seconds=0.1, noise=0.01, masks=1)  # -40 dBFS
REGIMES = {"plain": PLAIN, "default": DEFAULT, "mean-off": dataclasses.replace(DEFAULT, mean_off=True)}


def step_of(regime: Regime, sample_rate: int) -> Step:
    """The training step of a regime."""

    def step(model: Model, waves: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        changed = _shifted_and_noisy(waves, generator, sample_rate, regime)
        return nn.functional.cross_entropy(masked_scores(model, changed, generator, regime.masks), labels)

    return step


def augmented(change: Augmentation, sample_rate: int, strength: float) -> Step:
    """A training step that augments the waves of every batch with new random numbers."""

    def step(model: Model, waves: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return nn.functional.cross_entropy(model(change(waves, generator, sample_rate, strength)), labels)

    return step


def shift(waves: Tensor, generator: torch.Generator, sample_rate: int, strength: float) -> Tensor:
    """Move each wave up to `strength` seconds earlier or later; zeros fill the gap."""
    most = round(strength * sample_rate)
    moves = ((2 * uniform(waves, generator, 1) - 1) * most).round().long()
    padded = nn.functional.pad(waves, (most, most))
    rows = torch.arange(len(waves), device=waves.device)[:, None]
    return padded.unfold(1, waves.shape[1], 1)[rows, most - moves][:, 0]


def uniform(waves: Tensor, generator: torch.Generator, *shape: int) -> Tensor:
    """(n, *shape) random numbers in [0, 1) for n waves, in their dtype."""
    return torch.rand((len(waves), *shape), generator=generator, device=generator.device).to(waves)


def normal(waves: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers of a normal distribution, one for each frame."""
    return torch.randn(waves.shape, generator=generator, device=generator.device).to(waves)


def masked_scores(model: Model, waves: Tensor, generator: torch.Generator, masks: int) -> Tensor:
    """A model's scores where SpecAugment (Park et al. 2019) hides `masks` bands and as many stretches of time.

    What is hidden gets the batch's mean; MFCC are turned back to log-mel for it. Waveforms are left as they are.
    """
    with torch.no_grad():
        features = model.front(waves)
        if masks and features.ndim > 2:
            basis = cosine_basis(model.front)
            mels = features if basis is None else basis @ features
            hidden = _bands(mels, 1, masks, generator)[:, :, None] | _bands(mels, 2, masks, generator)[:, None]
            mels = torch.where(hidden, mels.mean(dim=(0, 2))[:, None], mels)
            features = mels if basis is None else basis.T @ mels
    scores: Tensor = model.body(features)
    return scores


def _bands(values: Tensor, axis: int, masks: int, generator: torch.Generator) -> Tensor:
    """(n, size of the axis) bool: `masks` random stretches of each clip."""
    size = values.shape[axis]
    width = uniform(values, generator, masks, 1) * MASK_SHARE * size
    start = uniform(values, generator, masks, 1) * (size - width)
    places = torch.arange(size, device=values.device)
    return ((places >= start.floor()) & (places < (start + width).floor())).any(dim=1)


def _shifted_and_noisy(waves: Tensor, generator: torch.Generator, sample_rate: int, regime: Regime) -> Tensor:
    if not regime.share:
        return waves
    chosen = uniform(waves, generator, 1) < regime.share
    level = regime.noise * uniform(waves, generator, 1)
    moved = shift(waves, generator, sample_rate, regime.shift_seconds)
    return torch.where(chosen, moved + level * normal(waves, generator), waves)
