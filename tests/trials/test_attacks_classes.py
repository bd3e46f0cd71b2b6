from __future__ import annotations

import numpy as np
import pytest
import torch
from scenes import CLASSES, RATE
from torch import nn

from experiments.attacks import classes
from experiments.attacks.table import choose, made_for
from poscuda_fast.evaluation.models import build


def test_projection_takes_away_what_a_linear_classifier_uses():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 4
    values = torch.randn(400, 50, generator=generator)
    values[:, :4] += 3 * nn.functional.one_hot(labels, 4)
    basis = classes.directions(values, labels, 4, 1)
    assert basis.shape == (50, 4)
    np.testing.assert_allclose(basis.T @ basis, np.eye(4), atol=1e-5)
    centred = values - values.mean(dim=0)
    left = centred - (centred @ basis) @ basis.T

    def right(of: torch.Tensor) -> float:
        weight, bias = classes.linear_classifier(of[:200], labels[:200], 4, decay=1e-2)
        return float(((of[200:] @ weight.T + bias).argmax(1) == labels[200:]).float().mean())

    assert right(centred) > 0.85
    assert right(left) < 0.65
    weight, _ = classes.linear_classifier(centred / centred.std(), labels, 4)
    # The classifier itself is left with nothing but float32's rounding.
    assert (left @ weight.T).abs().max() < 1e-5 * (centred @ weight.T).abs().max()
    scaled = left / centred.std()
    weight, _ = classes.linear_classifier(scaled, labels, 4)
    twice = classes.directions(values, labels, 4, 2)
    assert twice.shape == (50, 8)
    rest = scaled - (scaled @ twice) @ twice.T
    assert (rest @ weight.T).abs().max() < 1e-3 * (scaled @ weight.T).abs().max()


@pytest.mark.parametrize("name", ["lstm", "cnn"])
def test_features_are_levelled_and_projected(name, scene):
    waves, labels = torch.from_numpy(scene.clips.astype(np.float32) / 32768), torch.tensor(scene.labels)
    model = build(name, CLASSES, RATE).eval()
    seen: list[torch.Tensor] = []
    model.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    made_for(choose("level-features")[0], "training", scene, name, seed=0)(model, waves, labels, torch.Generator())
    projected = made_for(choose("project-features")[0], "front", scene, name, seed=0)(waves)
    features = model.front(waves)
    means = torch.stack([seen[0][labels == label].mean(dim=0) for label in range(CLASSES)])
    assert (means - features.mean(dim=0)).abs().max() < 1e-4 * features.abs().max()
    values = features.flatten(1)
    basis = classes.directions(values, labels, CLASSES, 1)
    left = (projected.flatten(1) - values.mean(dim=0)) @ basis
    assert left.abs().max() < 1e-3 * ((values - values.mean(dim=0)) @ basis).abs().max()


def test_no_directions_are_no_change():
    values = torch.randn(5, 3, 4)
    same = classes.Projection(torch.zeros(12, 0), torch.ones(12))(values)
    torch.testing.assert_close(same, values)
