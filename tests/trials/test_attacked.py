"""Cells of the attacks: complete, known by all that changes them, and made once."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from experiments.attacks import __main__ as command
from experiments.attacks import probe
from experiments.attacks.cells import LINEAR, Attacked
from experiments.attacks.scene import make_scene
from experiments.data.dataset import TRAIN, Dataset
from experiments.training.conditions import named

FIELDS = {
    "dataset", "digest", "clips", "condition", "attack", "model", "seed", "epochs", "training", "other", "settings",
    "title", "kind", "strength", "train_clips", "test_clips", "clean_final", "clean_peak", "train", "details",
    "seconds", "command", "date", "machine", "python", "versions",
}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return tiny.dataset(tmp_path / "tiny")


def found_in(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def test_whatever_changes_a_result_changes_the_name_of_its_file(data: Dataset, tmp_path: Path) -> None:
    other = tiny.dataset(tmp_path / "other", seed=1)
    plain = Attacked(data.folder, "strong-1", "mp3-32", "cnn")
    changes: tuple[dict[str, Any], ...] = (
        {"attack": "mp3-64"}, {"attack": "none"}, {"attack": "mixup"}, {"condition": "clean"},
        {"condition": "strong-2"}, {"model": "m5"}, {"seed": 1}, {"clips": 16}, {"epochs": 1},
    )  # fmt: skip
    names = [cell.name(data) for cell in (plain, *(dataclasses.replace(plain, **change) for change in changes))]
    names.append(plain.name(other))
    probes = [Attacked(data.folder, "clean", "probe", LINEAR, other=each.folder) for each in (data, other)]
    names += [cell.name(data) for cell in probes]
    assert len(set(names)) == len(names)
    assert dataclasses.replace(plain, device="cpu", other=other.folder).name(data) == plain.name(data)


@pytest.mark.parametrize(
    ("attack", "kind", "training"),
    [("none", "audio", "default"), ("partial-20", "data", "default"), ("project-features", "front", "default"),
     ("kws_streaming", "training", "kws_streaming"), ("adversarial-features", "training", "adversarial-features")],
)  # fmt: skip
def test_a_cell_is_complete_and_its_command_finds_it(
    data: Dataset, tmp_path: Path, attack: str, kind: str, training: str, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    cell = Attacked(data.folder, "strong-1", attack, "lstm", 1, 40, 1)
    assert cell.run(results).startswith(f"{attack} on strong-1, lstm: ")
    ((name, fields),) = found_in(results).items()
    assert name == cell.name(data)
    assert set(fields) == FIELDS
    assert (fields["kind"], fields["training"], fields["epochs"]) == (kind, training, 1)
    assert (fields["train_clips"], fields["test_clips"]) == (30, 10)
    assert 0 <= fields["clean_final"] <= fields["clean_peak"] <= 100
    assert str(tmp_path) not in json.dumps(fields)
    plain = fields["settings"]["config"]["regime"]["share"] == 0
    assert plain == (kind == "training")
    assert fields["details"] == ({"unprotected": 6} if attack == "partial-20" else {})
    words = fields["command"].split()
    assert words[:4] == ["python", "-m", "experiments.attacks", "TINY"]
    command.main([str(data.folder), *words[4:], "--results", str(results)])
    assert f"Already stored, skipped: {results / name}.json" in capsys.readouterr().out


def test_a_probe_learns_from_a_network_of_another_data_set(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probe, "OTHER_EPOCHS", 2)
    other = tiny.dataset(tmp_path / "other", frames=1200, seed=1)
    results = tmp_path / "results"
    command.main([str(data.folder), "--attacks", "probe", "--results", str(results)])
    assert capsys.readouterr().out == "probe is left out: it needs --other, a prepared data set.\n"
    Attacked(data.folder, "clean", "probe", LINEAR, other=other.folder).run(results)
    ((name, fields),) = found_in(results).items()
    assert (fields["model"], fields["other"], fields["epochs"]) == ("linear", other.digest, 0)
    command.main(
        [str(data.folder), "--attacks", "probe", "--conditions", "clean", "--other", str(other.folder),
         "--results", str(results)]
    )  # fmt: skip
    assert f"skipped: {results / name}.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--attacks", "mp4"], "There is no attack 'mp4'"), (["--conditions", "strong"], "There is no condition")],
)
def test_unknown_names_are_said_before_anything_is_trained(
    data: Dataset, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main([str(data.folder), *words])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"Error: {said}")


def test_only_training_clips_are_marked(data: Dataset) -> None:
    scene = make_scene(data, data.rows(TRAIN), named("strong-1", tiny.RATE), 0)
    assert (scene.clips != scene.original).any(axis=1).all()
    np.testing.assert_array_equal(scene.original, data.clips[data.rows(TRAIN)])
