"""The demo's toy learns what there is to learn, and says so plainly where protection does not hold."""

from __future__ import annotations

import numpy as np
import pytest

from poscuda_fast import Key
from poscuda_fast.cli import demo, toy


def test_a_forest_learns_a_threshold_and_not_noise() -> None:
    rng = np.random.default_rng(0)
    spectra, labels = rng.normal(size=(200, 6)), rng.integers(0, 2, 200)
    unknown, theirs = rng.normal(size=(200, 6)), rng.integers(0, 2, 200)
    assert 35 < toy.Forest(spectra, labels).accuracy(unknown, theirs) < 65
    spectra[:, 3] += 6 * labels
    unknown[:, 3] += 6 * theirs
    assert toy.Forest(spectra, labels).accuracy(unknown, theirs) > 95


def test_equal_spectra_of_two_classes_end_in_the_commoner_one() -> None:
    forest = toy.Forest(np.zeros((9, 3)), np.array([0, 1, 1, 1, 1, 1, 1, 1, 1]))
    assert forest.accuracy(np.zeros((1, 3)), np.array([1])) == 100


def test_features_are_of_the_frames_alone_that_a_clip_has() -> None:
    clips = np.random.default_rng(0).normal(0, 1000, (2, 4000)).astype(np.int16)
    clips[1] = clips[0]
    clips[1, 2000:] = 0
    one, two = toy.features(clips, np.array([2000, 2000]))
    assert one.shape == (toy.TOP_BIN,)
    assert np.array_equal(one, two)


def test_a_mark_that_does_not_keep_the_toy_from_learning_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mark the toy learns as well as from originals."""
    monkeypatch.setattr(demo, "protect", lambda *_, **__: None)
    lines: list[str] = []
    assert not demo.show_learning(Key(bytes(32)), lines.append)
    monkeypatch.undo()
    assert demo.show_learning(Key(bytes(32)), lines.append)
