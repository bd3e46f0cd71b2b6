"""What default training does to clips: how many, how far, how loud, and what is hidden of their spectra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from poscuda_fast.evaluation import augmenting
from poscuda_fast.evaluation.augmenting import DEFAULT, MASK_SHARE, PLAIN, REGIMES, masked_scores, shift, step_of
from poscuda_fast.evaluation.fronts import MeanOff, cosine_basis
from poscuda_fast.evaluation.models import MODELS, Model, build

RATE = 8000
SPECTRAL = [name for name, kind in MODELS.items() if kind.spectral]


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int, frames: int = RATE) -> torch.Tensor:
    return 0.1 * torch.randn(n, frames, generator=drawn(5))


def naive_shift(waves: np.ndarray, moves: list[int]) -> np.ndarray:
    moved = np.zeros_like(waves)
    for row, move in enumerate(moves):
        for frame in range(waves.shape[1]):
            if 0 <= frame - move < waves.shape[1]:
                moved[row, frame] = waves[row, frame - move]
    return moved


@pytest.mark.parametrize(("n", "frames", "seconds"), [(9, 40, 0.002), (5, 1, 0.001), (4, 7, 0.01), (0, 10, 0.001)])
def test_shift_is_a_loop_over_clips_and_frames(n: int, frames: int, seconds: float) -> None:
    waves = noise(n, frames)
    most = round(seconds * RATE)
    draws = torch.rand((n, 1), generator=drawn())
    moves = ((2 * draws - 1) * most).round().long()[:, 0].tolist()
    assert n < 4 or len(set(moves)) > 1
    assert np.array_equal(shift(waves, drawn(), RATE, seconds), naive_shift(waves.numpy(), moves))


def test_no_shift_is_no_change() -> None:
    waves = noise(3, 50)
    assert torch.equal(shift(waves, drawn(), RATE, 0.0), waves)


def test_a_share_of_the_clips_is_shifted_and_noisy() -> None:
    waves = torch.zeros(400, 2000)
    waves[:, 1000] = 1.0
    made = augmenting._shifted_and_noisy(waves, drawn(), RATE, DEFAULT)
    changed = (made != waves).any(dim=1)
    assert 0.72 < changed.float().mean() < 0.88  # 0.8, by four standard deviations of 400 clips
    peaks = made[changed].argmax(dim=1) - 1000
    assert peaks.abs().max() <= 0.1 * RATE
    assert peaks.min() < -0.08 * RATE < 0.08 * RATE < peaks.max()
    levels = made[changed][:, :100].std(dim=1)  # within 30 % of what was drawn, by four standard deviations
    assert 0.008 < levels.max() < 1.3 * 0.01
    assert levels.min() < 0.001


def test_the_noise_is_drawn_anew_for_each_clip() -> None:
    made = augmenting._shifted_and_noisy(torch.zeros(30, 4000), drawn(), RATE, DEFAULT)
    levels = made.square().mean(dim=1).sqrt()
    assert levels.max() <= 0.01 * 1.05  # 4,000 normal numbers have their level to 1.1 %
    assert len(levels.unique()) > 20


def test_plain_training_is_no_step() -> None:
    assert not PLAIN.changes
    assert [name for name, regime in REGIMES.items() if not regime.changes] == ["plain"]
    assert [name for name, regime in REGIMES.items() if regime.mean_off] == ["mean-off"]
    waves, labels = noise(6), torch.arange(6) % 3
    model = build("cnn", 3, RATE).eval()
    loss = step_of(PLAIN, RATE)(model, waves, labels, drawn())
    assert torch.equal(loss, nn.functional.cross_entropy(model(waves), labels))


@pytest.mark.parametrize("name", MODELS)
def test_default_training_has_a_loss_of_its_own(name: str) -> None:
    waves, labels = noise(6), torch.arange(6) % 3
    given = waves.clone()
    model = build(name, 3, RATE).train()
    losses = [step_of(DEFAULT, RATE)(model, waves, labels, drawn(seed)).item() for seed in (0, 0, 1)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    assert torch.equal(waves, given)


def seen(model: Model, waves: torch.Tensor, masks: int) -> torch.Tensor:
    """What the body is given, as log-mel spectra or waves."""
    given: list[torch.Tensor] = []
    hook = model.body.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    masked_scores(model.eval(), waves, drawn(), masks)
    hook.remove()
    basis = cosine_basis(model.front)
    return given[0] if basis is None else basis @ given[0]


@pytest.mark.parametrize("name", MODELS)
def test_masks_are_for_spectra_alone(name: str) -> None:
    model, waves = build(name, 3, RATE), noise(6)
    same = torch.equal(seen(model, waves, 2), seen(model, waves, 0))
    assert same != MODELS[name].spectral


@pytest.mark.parametrize("mean_off", [False, True])
@pytest.mark.parametrize("name", SPECTRAL)
def test_what_is_hidden_gets_the_mean_of_the_batch(name: str, mean_off: bool) -> None:
    model, waves = build(name, 3, RATE, mean_off=mean_off), noise(8)
    plain, masked = seen(model, waves, 0), seen(model, waves, 2)
    changed = (masked - plain).abs() > 1e-3  # there and back through the cosine transform, in float32
    means = plain.mean(dim=(0, 2))[:, None].expand_as(plain)
    assert changed.any()
    torch.testing.assert_close(masked[changed], means[changed], rtol=0, atol=2e-3)
    bands, hops = (changed.float().mean(dim=axis) > 0.9 for axis in (2, 1))
    for hidden in (bands, hops):
        assert hidden.sum(dim=1).max() <= 2 * (MASK_SHARE * hidden.shape[1] + 1)
    assert bands.any()
    assert hops.any()


def test_the_mean_is_off_in_tests_too() -> None:
    model = build("cnn", 3, RATE, mean_off=True).eval()
    assert isinstance(model.front, MeanOff)
    waves = noise(3)
    with torch.no_grad():
        # A channel that is 12 dB louder in every band, and a floor far below.
        torch.testing.assert_close(model(4 * waves), model(waves), rtol=0, atol=0.02)
