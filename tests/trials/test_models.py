"""The victims: their shapes, that they train, and that what they see of one clip does not depend on the others."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from poscuda_fast.evaluation.augmenting import REGIMES
from poscuda_fast.evaluation.models import MODELS, build, positions
from poscuda_fast.evaluation.names import NAMES, TITLES, TRAININGS, VICTIMS
from poscuda_fast.evaluation.pace import COSTS
from poscuda_fast.evaluation.training import Config, Part, train


def noise(n: int, frames: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(n, frames, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("name", MODELS)
def test_scores_one_row_a_clip_and_one_column_a_class(name: str, rate: int) -> None:
    model = build(name, 7, rate)
    assert model(noise(3, rate)).shape == (3, 7)


@pytest.mark.parametrize(("rate", "frames"), [(8000, 7200), (16_000, 14_400)])
@pytest.mark.parametrize("name", MODELS)
def test_one_epoch_of_training(tmp_path: Path, name: str, rate: int, frames: int) -> None:
    data = tiny.dataset(tmp_path / "data", 12, 6, frames, rate=rate)
    rows = np.arange(12)
    result = train(Config(name, 1), Part(data.clips, rows, data.labels[rows]), {}, 3, rate)
    assert math.isfinite(result.history[0]["loss"])
    assert all(weight.isfinite().all() for weight in result.model.parameters())


def test_every_model_has_a_title_and_a_cost() -> None:
    assert sorted(COSTS) == sorted(TITLES) == sorted(MODELS) == sorted((*NAMES, *VICTIMS))
    assert len(set(TITLES.values())) == len(MODELS)
    assert tuple(REGIMES) == TRAININGS


@pytest.mark.parametrize("name", MODELS)
def test_a_clip_is_scored_the_same_whatever_the_rest_of_its_batch(name: str) -> None:
    model = build(name, 5, 8000).eval()
    clips = noise(4, 8000)
    louder = torch.cat([clips[:1], 100 * clips[1:]])
    with torch.no_grad():
        assert torch.equal(model(clips)[0], model(louder)[0])


@pytest.mark.parametrize("name", MODELS)
def test_only_the_body_learns(name: str) -> None:
    model = build(name, 5, 8000)
    assert not list(model.front.parameters())
    assert all(parameter.requires_grad for parameter in model.body.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_has_a_part_in_the_scores(name: str) -> None:
    model = build(name, 5, 8000)
    torch.nn.functional.cross_entropy(model(noise(8, 8000)), torch.arange(8) % 5).backward()
    still = [label for label, weight in model.body.named_parameters() if weight.grad is None or not weight.grad.any()]
    # A bias before a batch normalisation, and the keys' bias in attention, cancel.
    assert not [label for label in still if not label.endswith("bias")]


def test_the_reference_sizes_are_the_papers() -> None:
    lstm, transformer = build("lstm", 10, 8000).body, build("transformer", 10, 8000).body
    assert (lstm.lstm.num_layers, lstm.lstm.hidden_size) == (1, 128)
    assert transformer.block.self_attn.num_heads == 8
    assert transformer.block.self_attn.embed_dim == 256


def test_m5_is_its_one_dimensional_convolutions() -> None:
    body = build("m5", 10, 8000).body.eval()
    layers: list[torch.nn.Module] = []
    for convolution, norm in zip(list(body.blocks)[0::4], list(body.blocks)[1::4], strict=True):
        flat = torch.nn.Conv1d(
            convolution.in_channels, convolution.out_channels, convolution.kernel_size[1], convolution.stride[1]
        )
        flat.load_state_dict({name: values.squeeze(2) if values.ndim == 4 else values for name, values in
                              convolution.state_dict().items()})  # fmt: skip
        flat_norm = torch.nn.BatchNorm1d(norm.num_features)
        flat_norm.load_state_dict(norm.state_dict())
        layers += [flat, flat_norm, torch.nn.ReLU(), torch.nn.MaxPool1d(4)]
    waves = noise(3, 8000)
    with torch.no_grad():
        wanted = body.scores(torch.nn.Sequential(*layers).eval()(waves[:, None]).mean(dim=2))
        torch.testing.assert_close(body(waves), wanted)


def test_positions_are_all_different_and_bounded() -> None:
    places = positions(100, 256)
    assert places.shape == (100, 256)
    assert places.abs().max() <= 1
    assert torch.cdist(places, places).fill_diagonal_(math.inf).min() > 0.1


def test_the_seed_draws_the_weights() -> None:
    def first(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return next(build("m5", 3, 8000).body.parameters()).clone()

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(ValueError, match="no model 'gru'; choose one of m5, lstm, transformer, cnn, cnn-tf"):
        build("gru", 3, 8000)
