"""Attacks that change the training: toolkits' recipes, augmentation, the worst of several, adversarial training.

Each is an `Augmentation` or returns a `Step`, the loss of one batch. Random numbers come from the training's generator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from poscuda_fast.evaluation.augmenting import Augmentation, Step, masked_scores, normal, shift, uniform
from poscuda_fast.evaluation.models import Model

NOISE_RANGE = 20.0  # dB of signal-to-noise ratio above the lowest
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
    return waves + normal(waves, generator) * _level(waves) * 10 ** (-decibels / 20)


def reverb(waves: Tensor, generator: torch.Generator, sample_rate: int, strength: float) -> Tensor:
    """Put each wave into a random room: noise that falls by 60 dB in up to `strength` seconds, at most as loud."""
    frames = max(2, round(strength * sample_rate))
    times = torch.arange(frames, device=waves.device) / sample_rate
    decay = strength * uniform(waves, generator, 1).clamp(min=0.1)  # (n, 1) seconds
    tail = normal(waves[:, :1].expand(-1, frames), generator) * 10 ** (-3 * times / decay)
    tail = tail * uniform(waves, generator, 1) / tail.norm(dim=1, keepdim=True)
    tail[:, 0] += 1.0
    size = 1 << (waves.shape[1] + frames - 1).bit_length()
    wet = torch.fft.irfft(torch.fft.rfft(waves, size) * torch.fft.rfft(tail, size), size)
    return wet[:, : waves.shape[1]]


def equalise(waves: Tensor, generator: torch.Generator, sample_rate: int, strength: float) -> Tensor:
    """Send each wave through a random smooth equaliser of `strength` dB, standard deviation, at 8 knots."""
    spectrum = torch.fft.rfft(waves)
    knots = strength * torch.randn((len(waves), 1, 8), generator=generator, device=generator.device)
    decibels = nn.functional.interpolate(knots, spectrum.shape[1], mode="linear", align_corners=True)[:, 0]
    return torch.fft.irfft(spectrum * 10 ** (decibels.to(waves) / 20), waves.shape[1])


def several(waves: Tensor, generator: torch.Generator, sample_rate: int, strength: float) -> Tensor:
    """Apply `strength` augmentations, drawn for the batch, one after another at their default strengths."""
    for number in torch.randperm(len(DEFAULTS), generator=generator, device=generator.device)[: int(strength)].tolist():
        change, its_strength = DEFAULTS[number]
        waves = change(waves, generator, sample_rate, its_strength)
    return waves


DEFAULTS: tuple[tuple[Augmentation, float], ...] = (
    (shift, 0.1), (crop, 0.3), (gain, 12.0), (noise, 10.0), (reverb, 0.2), (equalise, 6.0),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Toolkit:
    """What a toolkit's usual recipe does to every clip while it trains on short words."""

    shift: float = 0.0  # seconds, the furthest
    noise: float = 0.0  # RMS of white noise, full scale being 1, the highest
    speed: float = 0.0  # the greatest change, a share
    masks: int = 0  # SpecAugment's bands, and as many stretches of time, for spectral models
    mixup: float = 0.0  # alpha; 0 for none


# Of each: the furthest settings of its published recipe for Speech Commands or for short words, on 100 % of the clips.
TOOLKITS = {
    "tensorflow": Toolkit(shift=0.1, noise=0.1),  # --time_shift_ms 100, --background_volume 0.1
    "kws_streaming": Toolkit(shift=0.1, noise=0.1, speed=0.15, masks=2),  # --resample 0.15, --use_spec_augment
    "bc-resnet": Toolkit(shift=0.1, noise=0.1, masks=2),
    "nemo": Toolkit(shift=0.005, noise=0.005, masks=2),  # white noise of -90 to -46 dB
    "speechbrain": Toolkit(noise=0.03, speed=0.05, masks=2),  # 95, 100, 105 %; AddNoise, frequencies and chunks dropped
    "espnet": Toolkit(speed=0.1, masks=2),
    "ast": Toolkit(shift=0.1, noise=0.03, masks=1, mixup=0.5),
}


def toolkit(name: str, sample_rate: int) -> Step:
    """The training step of a toolkit's recipe."""
    recipe = TOOLKITS[name]

    def step(model: Model, waves: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        if recipe.speed:
            waves = speed(waves, generator, sample_rate, recipe.speed)
        if recipe.shift:
            waves = shift(waves, generator, sample_rate, recipe.shift)
        if recipe.noise:
            waves = waves + recipe.noise * uniform(waves, generator, 1) * normal(waves, generator)
        if not recipe.mixup:
            return nn.functional.cross_entropy(masked_scores(model, waves, generator, recipe.masks), labels)
        return _mixed(model, waves, labels, generator, recipe.mixup, recipe.masks)

    return step


def speed(waves: Tensor, generator: torch.Generator, sample_rate: int, strength: float) -> Tensor:
    """Play each wave up to `strength` (a share) faster or slower about its middle, by linear interpolation."""
    frames = waves.shape[1]
    factors = 1 + strength * (2 * uniform(waves, generator, 1) - 1)  # (n, 1)
    places = torch.linspace(-1, 1, frames, device=waves.device) * factors
    grid = torch.stack([places, torch.zeros_like(places)], dim=2)[:, None]  # (n, 1, frames, 2)
    return nn.functional.grid_sample(waves[:, None, None], grid, align_corners=True)[:, 0, 0]


def mixup(alpha: float) -> Step:
    """Mixup (Zhang et al. 2018): waves and losses of random pairs mixed in shares from Beta(alpha, alpha)."""

    def step(model: Model, waves: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return _mixed(model, waves, labels, generator, alpha, 0)

    return step


def _mixed(model: Model, waves: Tensor, labels: Tensor, generator: torch.Generator, alpha: float, masks: int) -> Tensor:
    rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator, device=generator.device)))
    share = torch.from_numpy(rng.beta(alpha, alpha, len(waves)).astype(np.float32)).to(waves.device)
    other = torch.from_numpy(rng.permutation(len(waves))).to(waves.device)
    scores = masked_scores(model, share[:, None] * waves + (1 - share[:, None]) * waves[other], generator, masks)
    losses = [nn.functional.cross_entropy(scores, wanted, reduction="none") for wanted in (labels, labels[other])]
    return (share * losses[0] + (1 - share) * losses[1]).mean()


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


def _level(waves: Tensor) -> Tensor:
    """(n, 1) root mean square."""
    return waves.square().mean(dim=1, keepdim=True).sqrt()
