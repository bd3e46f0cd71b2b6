"""The files of one condition and key: marked rows, test rows untouched, side tests as they should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

from experiments.data.dataset import TEST, TRAIN, Dataset
from experiments.training import trial
from experiments.training.conditions import clean, exchanged, poscuda, study_key
from experiments.training.trial import Trial, lay_out, rows_of

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
    assert np.array_equal(found.clean.audio[test], original[test])
    keyed, miskeyed, noise = (found.side[name] for name in ("keyed", "miskeyed", "noise"))
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
    assert len(found.clean) == len(data.rows(TEST))
    side = np.sort(np.random.default_rng(0).permutation(data.rows(TEST))[:5])
    assert len(found.side["keyed"]) == len(found.side["miskeyed"]) == len(found.side["noise"]) == 5
    assert np.array_equal(found.side["keyed"].audio, expected(data, side, data.labels[side]))
    wrong = expected(data, side, exchanged(data.labels[side], len(data.classes)))
    assert np.array_equal(found.side["miskeyed"].audio, wrong)


def test_without_a_mark_nothing_is_copied(data: Dataset, tmp_path: Path) -> None:
    found = lay_out(data, data.rows(TRAIN), data.rows(TEST), clean(), KEY, 0, tmp_path)
    assert found.training.audio is data.clips
    assert found.clean.audio is data.clips
    assert found.side == {}


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


def test_fewer_clips_are_spread_evenly_and_three_of_four_train(data: Dataset) -> None:
    train, test = rows_of(data, "official", 0, 16)
    assert train.tolist() == data.rows(TRAIN)[::3].tolist()
    assert test.tolist() == data.rows(TEST)[::3].tolist()
    assert [part.tolist() for part in rows_of(data, "official", 0, 1000)] == [
        part.tolist() for part in rows_of(data, "official", 0)
    ]
    rows = np.arange(10, 20)
    assert trial.spaced(rows, 4).tolist() == [10, 12, 15, 17]
    assert trial.spaced(rows, 10) is rows


def test_an_unknown_split_is_named(data: Dataset) -> None:
    with pytest.raises(ValueError, match="no split '80-20'; choose one of official, 70-30"):
        rows_of(data, "80-20", 0)
