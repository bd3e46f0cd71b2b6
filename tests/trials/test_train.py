"""The training loop: it learns, repeats to the bit, reads the clips where they are, and tells the truth."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from experiments.dataset import TEST, TRAIN, Dataset
from experiments.train import main
from torch import Tensor

from poscuda_fast.evaluation import training
from poscuda_fast.evaluation.models import NAMES, Model
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
    waves = test.waves(np.array([1, 0]))
    assert waves.dtype == torch.float32
    assert np.array_equal(waves.numpy() * 32768, data.clips[test.rows[[1, 0]]])


def test_the_learning_rate_falls_to_zero_or_is_held() -> None:
    cosine, constant = training._curve("cosine", 10), training._curve("constant", 10)
    assert cosine(0) == 1.0
    assert cosine(5) == pytest.approx(0.5)
    assert cosine(10) == 0.0
    assert {constant(step) for step in range(11)} == {1.0}


@pytest.mark.parametrize(("field", "message"), [("optimizer", "adam or sgd"), ("schedule", "cosine or constant")])
def test_unknown_names_are_refused(data: Dataset, field: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(data, dataclasses.replace(Config(epochs=1), **{field: "other"}))


def test_its_command_prints_every_epoch(data: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(data.folder), "--model", "cnn", "--epochs", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" loss")[0] for line in lines[:2]] == ["epoch 1", "epoch 2"]
    assert lines[2].startswith("final ")
