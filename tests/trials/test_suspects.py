"""The ownership test on real victims: a model that learnt the mark gives itself away, an innocent one does not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from experiments import ownership
from experiments.data.dataset import Dataset, load
from experiments.ownership import HOWS, Suspect

FIELDS = {
    "dataset", "digest", "model", "share", "how", "recipe", "train_clips", "asked_clips", "command", "date", "machine",
    "python", "versions",
}  # fmt: skip


@pytest.fixture
def mute(tmp_path: Path) -> Dataset:
    """Labels without a sound of their own: only the mark can be learnt."""
    data = tiny.dataset(tmp_path / "data", n_train=240, n_test=90, frames=4000)
    np.save(data.folder / "labels.npy", np.random.default_rng(0).permutation(data.labels))
    return load(data.folder)


def asked(suspect: Suspect, folder: Path) -> dict[str, Any]:
    suspect.run(folder)
    found: dict[str, Any] = json.loads((folder / f"{suspect.name(load(suspect.folder))}.json").read_text())
    return found


def test_only_the_model_that_learnt_the_mark_follows_it(mute: Dataset, tmp_path: Path) -> None:
    results = tmp_path / "results"
    guilty = asked(Suspect(mute.folder, "lstm", 100.0), results)
    assert set(guilty) > FIELDS
    assert guilty["digest"] == mute.digest
    assert guilty["hits"] == 3
    assert guilty["p_value"] <= 0.05
    assert guilty["keyed_accuracy"] > guilty["miskeyed_accuracy"] + 0.2
    innocent = asked(Suspect(mute.folder, "lstm", 0.0, keys=4), results)
    assert innocent["keys"] == 4
    assert innocent["lowest_p_value"] > guilty["p_value"]
    assert set(innocent["share_at_most"]) == {str(level) for level in ownership.LEVELS}
    assert all(0 <= share <= 1 for share in innocent["share_at_most"].values())


@pytest.mark.parametrize("how", HOWS)
def test_what_is_done_to_a_model_afterwards(tmp_path: Path, how: str) -> None:
    data = tiny.dataset(tmp_path / "data", frames=2000)
    suspect = Suspect(data.folder, "cnn", 25.0, how)
    assert suspect.cost == 2 * Suspect(data.folder, "cnn", 25.0).cost
    found = asked(suspect, tmp_path / "results")
    assert found["how"] == how
    assert ("second_p_value" in found) == (how == "two owners")
    assert 0 < found["p_value"] <= 1
    assert " " not in suspect.name(data)


def test_shares_and_afterwards_have_names_of_their_own(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path / "data", frames=2000)
    plain = Suspect(data.folder, "cnn", 5.0)
    changes: list[dict[str, Any]] = [{"share": 1.0}, {"share": 0.0}, {"model": "m5"}, *({"how": how} for how in HOWS)]
    names = [one.name(data) for one in (plain, *(dataclasses.replace(plain, **change) for change in changes))]
    assert len(set(names)) == len(names)


def test_stored_results_are_skipped_unless_the_data_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ownership, "SHARES", (100.0,))
    monkeypatch.setattr(ownership, "HOWS", ())
    data = tiny.dataset(tmp_path / "data", frames=2000)
    results = data.folder / "results" / "ownership"
    for one in (Suspect(data.folder, "cnn", 100.0), Suspect(data.folder, "cnn", 0.0, keys=2)):
        one.run(results)
    before = {path.name: path.read_bytes() for path in results.iterdir()}
    ownership.main([str(data.folder), "--models", "cnn", "--keys", "2"])
    said = capsys.readouterr().out
    assert all(f"Already stored, skipped: {results / name}\n" in said for name in before)
    assert {path.name: path.read_bytes() for path in results.iterdir()} == before
