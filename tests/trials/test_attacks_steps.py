from __future__ import annotations

import numpy as np
import pytest
import torch
from scenes import CLASSES, RATE, speech
from torch import nn

from experiments.attacks import steps
from experiments.attacks.table import choose, made_for
from poscuda_fast.evaluation.models import build

STEPS = [chosen for chosen in choose("all") if chosen.attack.kind == "training"]


def batch(n: int = 12, frames: int = 7000) -> tuple[torch.Tensor, torch.Tensor]:
    clips, labels, _ = speech(n, frames)
    return torch.from_numpy(clips.astype(np.float32) / 32768), torch.from_numpy(labels)


@pytest.mark.parametrize("chosen", STEPS, ids=lambda chosen: chosen.name)
@pytest.mark.parametrize("name", ["m5", "lstm", "cnn-kaldi"])
def test_a_step_is_a_loss_that_trains_and_repeats(chosen, name, long_scene):
    if not chosen.applies("strong-1", name):
        return
    scene, (waves, labels) = long_scene, batch()
    given_waves = waves.clone()
    losses = []
    for _ in range(2):
        step = made_for(chosen, "training", scene, name, seed=0)
        torch.manual_seed(0)
        model = build(name, CLASSES, RATE).train()
        loss = step(model, waves, labels, torch.Generator().manual_seed(0))
        losses.append(loss.item())
    loss.backward()
    assert losses[0] == losses[1]
    assert np.isfinite(losses[0])
    assert all(one.grad is not None and one.grad.isfinite().all() for one in model.body.parameters())
    assert torch.equal(waves, given_waves)
    assert all(module.training for module in model.modules())


AUGMENTATIONS = [change for change, _ in steps.DEFAULTS]


@pytest.mark.parametrize("change", AUGMENTATIONS, ids=lambda change: change.__name__)
def test_an_augmentation_keeps_the_shape_and_differs_by_clip(change):
    waves = batch(1)[0].expand(4, -1)
    strength = dict(steps.DEFAULTS)[change]
    made = change(waves, torch.Generator().manual_seed(0), RATE, strength)
    assert made.shape == waves.shape
    assert made.dtype == torch.float32
    assert made.isfinite().all()
    assert not torch.equal(made[0], waves[0])
    assert not torch.equal(made[0], made[1])


@pytest.mark.parametrize("change", [steps.shift, steps.crop, steps.gain])
def test_an_augmentation_of_no_strength_changes_nothing(change):
    waves, _ = batch(4)
    assert torch.equal(change(waves, torch.Generator().manual_seed(0), RATE, 0.0), waves)


def test_an_equaliser_of_no_strength_changes_nothing_but_rounding():
    waves, _ = batch(4)
    made = steps.equalise(waves, torch.Generator().manual_seed(0), RATE, 0.0)
    assert (made - waves).abs().max() < 1e-5


def test_shift_moves_without_wrapping():
    waves = torch.arange(1.0, 101.0).expand(20, -1)
    for row in steps.shift(waves, torch.Generator().manual_seed(0), 100, 0.3):
        inside = row[row > 0]
        assert (inside.diff() == 1).all()
        assert len(inside) >= 70


def test_noise_is_within_its_range():
    waves = torch.randn(200, 1000, generator=torch.Generator().manual_seed(1))
    added = steps.noise(waves, torch.Generator().manual_seed(0), RATE, 10.0) - waves
    decibels = -20 * torch.log10(added.square().mean(1).sqrt() / waves.square().mean(1).sqrt())
    # 1,000 normal numbers have a level within 1 dB.
    assert 9 < decibels.min() < 12
    assert 28 < decibels.max() < 31


def test_mixup_of_tiny_alpha_is_no_mixup():
    waves, labels = batch()
    torch.manual_seed(0)
    model = build("lstm", CLASSES, RATE).eval()
    plain = nn.functional.cross_entropy(model(waves), labels)
    mixed = steps.mixup(1e-6)(model, waves, labels, torch.Generator().manual_seed(0))
    # Shares of 0 and 1: each clip is itself or its partner, which may come twice; losses of single clips.
    assert abs(mixed.item() - plain.item()) < 0.5
    half = steps.mixup(1e6)(model, waves, labels, torch.Generator().manual_seed(0))
    assert half.item() != mixed.item()


def test_the_worst_of_several_is_worse_than_one():
    waves, labels = batch()
    torch.manual_seed(0)
    model = build("m5", CLASSES, RATE).eval()
    losses = [steps.worst_of(k, RATE)(model, waves, labels, torch.Generator().manual_seed(0)).item() for k in (1, 6)]
    assert losses[1] > losses[0]


class Linear(nn.Module):
    """A model whose worst perturbation is known: it has no front end and one layer."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.front, self.body = nn.Identity(), nn.Linear(frames, 2)

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        return self.body(self.front(waves))


@pytest.mark.parametrize("attack", ["waves", "features"])
def test_pgd_raises_the_loss_within_its_radius(attack):
    torch.manual_seed(0)
    model, waves = Linear(50), torch.randn(8, 50)
    labels = torch.arange(8) % 2
    step = getattr(steps, f"adversarial_{attack}")(0.1)
    plain = nn.functional.cross_entropy(model(waves), labels)
    found = step(model, waves, labels, torch.Generator().manual_seed(0)).item()
    radius = 0.1 * (waves.square().mean(1, keepdim=True).sqrt() if attack == "waves" else waves.std())
    # Of two classes the loss grows along the difference of their weights: its sign is the exact worst.
    slope = (model.body.weight[1] - model.body.weight[0]) * (1 - 2 * labels[:, None])
    worst = nn.functional.cross_entropy(model(waves + radius * slope.sign()), labels)
    assert plain.item() < found <= worst.item() + 1e-6
    assert found > plain.item() + 0.8 * (worst.item() - plain.item())


def test_adversarial_steps_leave_running_statistics_as_one_batch_does():
    waves, labels = batch()
    torch.manual_seed(0)
    model = build("lstm", CLASSES, RATE).train()
    steps.adversarial_waves(0.1)(model, waves, labels, torch.Generator().manual_seed(0))
    assert model.body.norm.num_batches_tracked == 1


@pytest.mark.parametrize("name", steps.TOOLKITS)
@pytest.mark.parametrize("model", ["m5", "cnn"])
def test_a_toolkits_recipe_changes_the_loss_and_differs_by_seed(name, model):
    waves, labels = batch()
    torch.manual_seed(0)
    victim = build(model, CLASSES, RATE).train()
    plain = nn.functional.cross_entropy(victim(waves), labels).item()
    losses = [steps.toolkit(name, RATE)(victim, waves, labels, torch.Generator().manual_seed(k)).item() for k in (0, 1)]
    assert np.isfinite(losses).all()
    assert len({plain, *losses}) == (1 if model == "m5" and is_masks_alone(steps.TOOLKITS[name]) else 3)


def is_masks_alone(recipe):
    return not (recipe.shift or recipe.noise or recipe.speed or recipe.mixup)


def test_every_toolkit_is_an_attack_of_its_own_name():
    assert {chosen.name for chosen in STEPS} > set(steps.TOOLKITS)
    assert all(vars(recipe) != vars(steps.Toolkit()) for recipe in steps.TOOLKITS.values())


def test_speed_of_no_strength_is_no_change_but_rounding_and_keeps_the_middle():
    waves = torch.randn(4, 501, generator=torch.Generator().manual_seed(0))
    still = steps.speed(waves, torch.Generator().manual_seed(0), RATE, 0.0)
    assert (still - waves).abs().max() < 1e-3  # the place of a frame is a float32 of at most 501
    faster = steps.speed(waves, torch.Generator().manual_seed(0), RATE, 0.15)
    assert (faster[:, 250] - waves[:, 250]).abs().max() < 1e-3
    assert not torch.allclose(faster, waves, atol=0.1)
