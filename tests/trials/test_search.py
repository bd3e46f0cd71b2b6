"""Families of marks do what their fields say, and the search keeps everything that it measured."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tiny

from experiments import cells, families, protection, search, sweeps
from experiments.conditions import strong, study_key
from experiments.dataset import TRAIN, Dataset
from experiments.families import Family
from poscuda_fast import Recipe, protect
from poscuda_fast.evaluation.training import Part

EVERY_FAMILY = {family.name: family for points in sweeps.SWEEPS.values() for family, _ in points}


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return tiny.dataset(tmp_path / "data")


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_a_family_marks_a_share_of_the_clip_at_its_level(name: str) -> None:
    family = dataclasses.replace(EVERY_FAMILY[name], level=0.01)
    rng = np.random.default_rng(0)
    clips = rng.integers(-3000, 3000, (4, 4000)).astype(np.int16)
    before, labels, lengths = clips.copy(), np.array([0, 1, 0, 1]), np.array([4000, 4000, 3000, 3000])
    families.condition(family).mark(clips, labels, lengths, study_key(0))
    change = clips.astype(float) - before
    assert not change[2:, 3000:].any()
    touched = (change != 0).mean(axis=1) * 4000 / lengths
    assert (touched > 0).all()
    assert (touched <= (family.share + 0.01 if not family.patches else 1.0)).all()
    energy = np.square(change / 32768).sum(axis=1)
    frames = families.frames_marked(family, lengths)
    assert energy == pytest.approx(0.01**2 * frames, rel=0.5)
    again = before.copy()
    families.condition(family).mark(again, labels, lengths, study_key(1))
    assert not np.array_equal(again, clips)


def test_the_level_gives_the_snr_that_was_asked_for(data: Dataset) -> None:
    rows = data.rows(TRAIN)
    family = Family("taps", window="none", patch=16, place="grid", period=16, differences=1)
    energies = families.energies_of(data.clips, rows, data.lengths)
    family = families.at_snr(family, energies, data.lengths[rows], 20.0)
    clips = np.array(data.clips)
    families.condition(family).mark(clips, data.labels, data.lengths, study_key(0))
    assert cells.median_snr_db(data, Part(clips, rows, data.labels[rows])) == pytest.approx(20.0, abs=0.5)


def test_the_search_keeps_every_point_once(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "FOLDER", tmp_path / "search")
    monkeypatch.setattr(search, "EPOCHS", {"cnn": 1})
    monkeypatch.setitem(search.SWEEPS, "carriers", [(Family(), 20.0), (Family("filtered"), 25.0)])
    command = [str(data.folder), "--sweeps", "carriers", "--models", "cnn"]
    search.main(command)
    paths = sorted((tmp_path / "search").glob("*.json"))
    found = [json.loads(path.read_text()) for path in paths]
    points = {(one["asked_snr_db"], one["family"]["carrier"]) for one in found}
    assert points == {(20.0, "tone"), (25.0, "filtered")}
    assert all({"clean_peak", "keyed", "snr_db", "command", "date"} <= set(one) for one in found)
    for path in paths:
        path.write_text("{}")
    search.main(command)
    assert [path.read_text() for path in paths] == ["{}", "{}"]


def test_format_2_is_the_librarys_own(data: Dataset) -> None:
    clips, wanted = np.array(data.clips), np.array(data.clips)
    strong(2.0, data.sample_rate).mark(clips, data.labels, data.lengths, study_key(0))
    recipe = Recipe.strong(2.0, sample_rate=data.sample_rate)
    protect(wanted, data.labels, study_key(0), recipe=recipe, lengths=data.lengths)
    assert np.array_equal(clips, wanted)
    assert not np.array_equal(clips, data.clips)


def test_protection_is_measured_as_table_1(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protection, "FOLDER", tmp_path / "results")
    options = ["--models", "cnn", "--seeds", "0", "--epochs", "1", "--conditions", "strong-0.5", "strong-1"]
    protection.main([str(data.folder), *options])
    found = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "results").glob("*.json")}
    assert set(found) == {"tiny-official_cnn_strong-0.5_s0", "tiny-official_cnn_strong-1_s0"}
    for cell in found.values():
        recipe = Recipe.from_dict(cell["recipe"])
        assert recipe == Recipe.strong(cell["strength"], sample_rate=tiny.RATE)
        assert cell["chosen"] == (cell["strength"] == 1.0)
        assert {"visqol", "lsd_db", "fad", "keyed", "clean_peak"} <= set(cell)
