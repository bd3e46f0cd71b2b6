"""Attacks that change the training: augmentation, the worst of several augmentations, adversarial training.

Each is an `Augmentation` or returns a `Step`, the loss of one batch. Random numbers come from the training's generator.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from poscuda_fast.evaluation.attacks import Augmentation, shift, uniform
from poscuda_fast.evaluation.models import Model
from poscuda_fast.evaluation.training import Step

NOISE_RANGE = 20.0  # dB of signal-to-noise ratio above the lowest
MASK_SHARE = 0.15  # of an axis, the widest mask
STRONG = 3  # augmentations in a row for each candidate of `worst_of`
PGD_STEPS = 2  # a training costs about this many and one more
PGD_STRIDE = 0.75  # of the radius


def crop(waves: Tensor, generator: torch.Generator, sample_rate: int, strength: float) -> Tensor:
    """Silence each wave except for a random stretch; up to `strength`, a share, is silenced."""
    frames = waves.shape[1]
    kept = frames * (1 - strength * uniform(waves, generator, 1))
    starts = (frames - kept) * uniform(waves, generator, 1)
    places = torch.arange(frames, device=waves.device)
    return waves * ((places >= starts.floor()) & (places < (starts + kept).ceil()))


def gain(waves: Tensor, generator: torch.Generator, sample_rate: int, strength: float) -> Tensor:
    """Make each wave up to `strength` dB louder or softer."""
    return waves * 10 ** ((2 * uniform(waves, generator, 1) - 1) * strength / 20)


def noise(waves: Tensor, generator: torch.Generator, sample_rate: int, strength: float) -> Tensor:
    """Add white noise at `strength` dB, or up to `NOISE_RANGE` more, below each wave's level."""
    decibels = strength + NOISE_RANGE * uniform(waves, generator, 1)
    return waves + _normal(waves, generator) * _level(waves) * 10 ** (-decibels / 20)


def reverb(waves: Tensor, generator: torch.Generator, sample_rate: int, strength: float) -> Tensor:
    """Put each wave into a random room: noise that falls by 60 dB in up to `strength` seconds, at most as loud."""
    frames = max(2, round(strength * sample_rate))
    times = torch.arange(frames, device=waves.device) / sample_rate
    decay = strength * uniform(waves, generator, 1).clamp(min=0.1)  # (n, 1) seconds
    tail = _normal(waves[:, :1].expand(-1, frames), generator) * 10 ** (-3 * times / decay)
    tail = tail * uniform(waves, generator, 1) / tail.norm(dim=1, keepdim=True)
    tail[:, 0] += 1.0
    size = 1 << (waves.shape[1] + frames - 1).bit_length()
    wet = torch.fft.irfft(torch.fft.rfft(waves, size) * torch.fft.rfft(tail, size), size)
    return wet[:, : waves.shape[1]]


def equalise(waves: Tensor, generator: torch.Generator, sample_rate: int, strength: float) -> Tensor:
    """Send each wave through a random smooth equaliser of `strength` dB, standard deviation, at 8 knots."""
    spectrum = torch.fft.rfft(waves)
    knots = strength * torch.randn((len(waves), 1, 8), generator=generator)
    decibels = nn.functional.interpolate(knots, spectrum.shape[1], mode="linear", align_corners=True)[:, 0]
    return torch.fft.irfft(spectrum * 10 ** (decibels.to(waves) / 20), waves.shape[1])


def several(waves: Tensor, generator: torch.Generator, sample_rate: int, strength: float) -> Tensor:
    """Apply `strength` augmentations, drawn for the batch, one after another at their default strengths."""
    for number in torch.randperm(len(DEFAULTS), generator=generator)[: int(strength)].tolist():
        change, its_strength = DEFAULTS[number]
        waves = change(waves, generator, sample_rate, its_strength)
    return waves


DEFAULTS: tuple[tuple[Augmentation, float], ...] = (
    (shift, 0.1), (crop, 0.3), (gain, 12.0), (noise, 10.0), (reverb, 0.2), (equalise, 6.0),
)  # fmt: skip


def spec_augment(masks: int) -> Step:
    """SpecAugment (Park et al. 2019): `masks` bands of log-mel and stretches of time set to the batch's mean.

    MFCC are turned back to log-mel for it; in a waveform, bands of the spectrum and stretches of time are silenced.
    """

    def step(model: Model, waves: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            features = model.front(waves)
            if features.ndim == 2:
                spectrum = torch.fft.rfft(features)
                masked = torch.fft.irfft(spectrum * ~_bands(spectrum, 1, masks, generator), features.shape[1])
                masked = masked * ~_bands(features, 1, masks, generator)
            else:
                basis = getattr(model.front, "dct_mat", None)  # (mels, coefficients), orthonormal
                mels = features if basis is None else basis @ features
                hidden = _bands(mels, 1, masks, generator)[:, :, None] | _bands(mels, 2, masks, generator)[:, None]
                masked = torch.where(hidden, mels.mean(dim=(0, 2))[:, None], mels)
                masked = masked if basis is None else basis.T @ masked
        return nn.functional.cross_entropy(model.body(masked), labels)

    return step


def mixup(alpha: float) -> Step:
    """Mixup (Zhang et al. 2018): waves and losses of random pairs mixed in shares from Beta(alpha, alpha)."""

    def step(model: Model, waves: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        share = torch.from_numpy(rng.beta(alpha, alpha, len(waves)).astype(np.float32)).to(waves.device)
        other = torch.randperm(len(waves), generator=generator).to(waves.device)
        scores = model(share[:, None] * waves + (1 - share[:, None]) * waves[other])
        losses = [nn.functional.cross_entropy(scores, wanted, reduction="none") for wanted in (labels, labels[other])]
        return (share * losses[0] + (1 - share) * losses[1]).mean()

    return step


def worst_of(candidates: int, sample_rate: int) -> Step:
    """Train on the random augmentation of each clip, out of several, that has the greatest loss (UEraser)."""

    def step(model: Model, waves: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        with torch.no_grad(), _still(model):
            made = torch.stack([several(waves, generator, sample_rate, STRONG) for _ in range(candidates)])
            losses = torch.stack(
                [nn.functional.cross_entropy(model(one), labels, reduction="none") for one in made]
            )  # (candidates, n)
            worst = made[losses.argmax(dim=0), torch.arange(len(waves), device=waves.device)]
        return nn.functional.cross_entropy(model(worst), labels)

    return step


def adversarial_waves(radius: float) -> Step:
    """Adversarial training (Madry et al. 2018): no frame moves by more than `radius` of its wave's level."""

    def step(model: Model, waves: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return _adversarial(model, model, waves, radius * _level(waves), labels, generator)

    return step


def adversarial_features(radius: float) -> Step:
    """Adversarial training on features: none moves by more than `radius` of its channel's standard deviation."""

    def step(model: Model, waves: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            features = model.front(waves)
            spread = features.std() if features.ndim == 2 else features.std(dim=(0, 2), keepdim=True)
        return _adversarial(model, model.body, features, radius * spread, labels, generator)

    return step


def _adversarial(
    model: Model, classify: nn.Module, clean: Tensor, radius: Tensor, labels: Tensor, generator: torch.Generator
) -> Tensor:
    """The loss at the worst point that PGD finds, within `radius` of `clean` in every coordinate."""
    moved = radius * (2 * uniform(clean, generator, *clean.shape[1:]) - 1)
    with _still(model):
        for _ in range(PGD_STEPS):
            moved.requires_grad_()
            loss = nn.functional.cross_entropy(classify(clean + moved), labels)
            (slope,) = torch.autograd.grad(loss, moved)
            moved = moved.detach() + PGD_STRIDE * radius * slope.sign()
            moved = torch.minimum(torch.maximum(moved, -radius), radius)
    return nn.functional.cross_entropy(classify(clean + moved), labels)


@contextmanager
def _still(model: Model) -> Iterator[None]:
    """Freeze batch normalisation to its running statistics, and leave the rest of the model as it is."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001
    modes = [module.training for module in norms]
    for module in norms:
        module.eval()
    try:
        yield
    finally:
        for module, mode in zip(norms, modes, strict=True):
            module.train(mode)


def _bands(values: Tensor, axis: int, masks: int, generator: torch.Generator) -> Tensor:
    """(n, size of the axis) bool: `masks` random stretches of each clip."""
    size = values.shape[axis]
    hidden = torch.zeros((len(values), size), dtype=torch.bool, device=values.device)
    places = torch.arange(size, device=values.device)
    for _ in range(masks):
        width = torch.rand((len(values), 1), generator=generator).to(values.device) * MASK_SHARE * size
        start = torch.rand((len(values), 1), generator=generator).to(values.device) * (size - width)
        hidden |= (places >= start.floor()) & (places < (start + width).floor())
    return hidden


def _level(waves: Tensor) -> Tensor:
    """(n, 1) root mean square."""
    return waves.square().mean(dim=1, keepdim=True).sqrt()


def _normal(waves: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(waves.shape, generator=generator).to(waves)
