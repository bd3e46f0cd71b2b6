"""The files of one condition and key: marked rows, test rows untouched, side tests as they should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
from experiments.conditions import clean, exchanged, poscuda, study_key
from experiments.dataset import TEST, TRAIN, Dataset
from experiments.trial import Trial, lay_out, rows_of

from experiments import trial

KEY = study_key(0)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return tiny.dataset(tmp_path / "data", frames=1200)


def laid(data: Dataset, folder: Path) -> Trial:
    folder.mkdir()
    return lay_out(data, data.rows(TRAIN), data.rows(TEST), poscuda(0.3), KEY, 0, folder)


def expected(data: Dataset, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    clips = np.array(data.clips[rows])
    poscuda(0.3).mark(clips, labels, data.lengths[rows], KEY)
    return clips


def test_every_part_is_what_its_name_says(data: Dataset, tmp_path: Path) -> None:
    original = np.array(data.clips)
    found = laid(data, tmp_path / "work")
    train, test = data.rows(TRAIN), data.rows(TEST)
    assert np.array_equal(found.training.audio[found.training.rows], expected(data, train, data.labels[train]))
    assert np.array_equal(found.tests["clean"].audio[test], original[test])
    keyed, miskeyed, noise = (found.tests[name] for name in ("keyed", "miskeyed", "noise"))
    assert np.array_equal(keyed.audio[keyed.rows], expected(data, test, data.labels[test]))
    wrong = exchanged(data.labels[test], len(data.classes))
    assert np.array_equal(miskeyed.audio[miskeyed.rows], expected(data, test, wrong))
    assert (noise.audio[noise.rows] != original[test]).any(axis=1).all()
    for part in (keyed, miskeyed, noise):
        assert np.array_equal(part.labels, data.labels[test])
    assert np.array_equal(data.clips, original)


def test_side_tests_are_a_sample_in_batches(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SIDE_TEST_CLIPS", 5)
    monkeypatch.setattr(trial, "BATCH", 2)
    found = laid(data, tmp_path / "work")
    assert len(found.tests["clean"]) == len(data.rows(TEST))
    side = found.tests["keyed"].rows
    assert len(side) == len(found.tests["miskeyed"]) == len(found.tests["noise"]) == 5
    assert set(side) <= set(data.rows(TEST))
    wrong = expected(data, side, exchanged(data.labels[side], len(data.classes)))
    assert np.array_equal(found.tests["miskeyed"].audio, wrong)


def test_without_a_mark_nothing_is_copied(data: Dataset, tmp_path: Path) -> None:
    found = lay_out(data, data.rows(TRAIN), data.rows(TEST), clean(), KEY, 0, tmp_path)
    assert found.training.audio is data.clips
    assert list(found.tests) == ["clean"]


def test_the_paper_s_probable_split_is_three_tenths_at_random(data: Dataset) -> None:
    train, test = rows_of(data, "70-30", 0)
    n = len(data.labels)
    assert len(test) == round(0.3 * n)
    assert sorted([*train, *test]) == list(range(n))
    assert np.array_equal(test, rows_of(data, "70-30", 0)[1])
    assert not np.array_equal(test, rows_of(data, "70-30", 1)[1])


def test_the_official_split_is_the_data_set_s_own(data: Dataset) -> None:
    train, test = rows_of(data, "official", 0)
    assert np.array_equal(train, data.rows(TRAIN))
    assert np.array_equal(test, data.rows(TEST))


def test_an_unknown_split_is_named(data: Dataset) -> None:
    with pytest.raises(ValueError, match="no split '80-20'; choose one of official, 70-30"):
        rows_of(data, "80-20", 0)
