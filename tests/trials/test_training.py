"""The training loop: it learns, repeats to the bit, reads the clips where they are, and tells the truth."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor

from experiments.data.dataset import TEST, TRAIN, Dataset
from poscuda_fast.evaluation import training
from poscuda_fast.evaluation.models import Model
from poscuda_fast.evaluation.names import NAMES
from poscuda_fast.evaluation.training import Config, Part, Result, accuracy, predict, train


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return tiny.dataset(tmp_path / "data")


def part(data: Dataset, split: int) -> Part:
    return Part(data.clips, data.rows(split), data.labels[data.rows(split)])


def run(data: Dataset, config: Config, **more: object) -> Result:
    tests = {"clean": part(data, TEST), "again": part(data, TRAIN)}
    return train(config, part(data, TRAIN), tests, len(data.classes), data.sample_rate, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_every_model_learns(data: Dataset, name: str) -> None:
    result = run(data, Config(model=name, epochs=12, batch=4))
    assert result.peak("clean") >= 90
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_one_configuration_gives_one_model(data: Dataset) -> None:
    config = Config(model="lstm", epochs=2, batch=12, seed=3)
    first, second = run(data, config), run(data, config)
    assert first.history == second.history
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert run(data, dataclasses.replace(config, seed=4)).history != first.history


def test_the_history_is_of_this_model_and_these_clips(data: Dataset) -> None:
    result = run(data, Config(model="m5", epochs=4, batch=12))
    assert [epoch["epoch"] for epoch in result.history] == [1, 2, 3, 4]
    test = part(data, TEST)
    assert result.final("clean") == accuracy(predict(result.model, test), test.labels)
    # The training accuracy is taken anew at the end, without the batch's own normalisation.
    assert result.history[-1]["train"] == result.final("again")
    assert result.peak("clean") == max(epoch["clean"] for epoch in result.history)


def test_labels_are_those_of_the_rows(data: Dataset) -> None:
    backwards = data.rows(TEST)[::-1].copy()
    model = run(data, Config(model="cnn", epochs=3, batch=12)).model
    forth, back = predict(model, part(data, TEST)), predict(model, Part(data.clips, backwards, data.labels[backwards]))
    assert np.array_equal(forth, back[::-1])


def test_features_that_are_not_kept_give_the_same_training(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(model="lstm", epochs=1, batch=12)
    kept = run(data, config).history[0]["loss"]
    monkeypatch.setattr(training, "CACHE_BYTES", 0)
    # Products of other shapes are summed in another order: float32 rounding through three steps.
    assert run(data, config).history[0]["loss"] == pytest.approx(kept, rel=1e-5)


def test_a_step_sees_waveforms_and_its_loss_is_what_falls(data: Dataset) -> None:
    seen: list[tuple[int, ...]] = []

    def step(model: Model, waves: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(tuple(waves.shape))
        assert waves.abs().max() <= 1
        return torch.nn.functional.cross_entropy(model(waves), labels)

    config = Config(model="cnn", epochs=2, batch=16)
    assert run(data, config, step=step).final("clean") == run(data, config).final("clean")
    assert seen == [(16, tiny.FRAMES), (16, tiny.FRAMES), (4, tiny.FRAMES)] * 2


def test_the_front_end_stays_as_it_was(data: Dataset) -> None:
    model = run(data, Config(model="transformer", epochs=1)).model
    fresh = training.build("transformer", 3, data.sample_rate)
    for one, other in zip(model.front.buffers(), fresh.front.buffers(), strict=True):
        assert torch.equal(one, other)


def test_the_clips_are_read_where_they_are(data: Dataset) -> None:
    test = part(data, TEST)
    assert test.audio is data.clips
    assert isinstance(test.audio, np.memmap)
    waves = training._Features(training.build("m5", 3, tiny.RATE), test, torch.device("cpu")).waves(
        torch.tensor([1, 0])
    )
    assert waves.dtype == torch.float32
    assert np.array_equal(waves.numpy() * 32768, data.clips[test.rows[[1, 0]]])


def test_the_learning_rate_falls_to_zero_or_is_held() -> None:
    cosine, constant = training._curve("cosine", 10), training._curve("constant", 10)
    assert cosine(0) == 1.0
    assert cosine(5) == pytest.approx(0.5)
    assert cosine(10) == 0.0
    assert {constant(step) for step in range(11)} == {1.0}


def test_a_training_begins_with_another_models_weights_and_leaves_it_as_it_is(data: Dataset) -> None:
    start = run(data, Config(model="lstm", epochs=1)).model
    before = {name: values.clone() for name, values in start.state_dict().items()}
    still = run(data, Config(model="lstm", epochs=1, lr=0.0, seed=1), start=start).model
    for name, values in start.named_parameters():
        assert torch.equal(dict(still.named_parameters())[name], values)
    run(data, Config(model="lstm", epochs=1), start=start)
    assert all(torch.equal(values, before[name]) for name, values in start.state_dict().items())


def test_parts_at_the_end_are_tested_once_with_the_finished_model(data: Dataset) -> None:
    result = run(data, Config(model="cnn", epochs=2, batch=12), at_end={"keyed": part(data, TEST)})
    assert "keyed" not in result.history[0]
    assert result.history[1]["keyed"] == result.history[1]["clean"]


def test_training_leaves_the_callers_random_numbers_alone(data: Dataset) -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    run(data, Config(model="cnn", epochs=1))
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize(("field", "message"), [("optimizer", "adam or sgd"), ("schedule", "cosine or constant")])
def test_unknown_names_are_refused(data: Dataset, field: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(data, dataclasses.replace(Config(epochs=1), **{field: "other"}))
