"""The lines of format 2 are found without the key, and its mark in leaked pairs."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import RATE, marked, padding

from experiments.attacks import lines
from experiments.attacks.scene import Scene
from experiments.attacks.table import attacked, choose
from experiments.training.conditions import strong, study_key
from poscuda_fast.mark.lines import period_of


@pytest.fixture(scope="module")
def loud() -> Scene:
    """Many clips with a mark that stands out."""
    return marked(strong(3.0, RATE), n=240)


def test_fold_is_the_mean_turn_of_whole_turns() -> None:
    edits = np.arange(24.0).reshape(2, 12)
    assert lines.fold(edits, np.array([8, 4]), 4).tolist() == [(0 + 4 + 12) / 3, (1 + 5 + 13) / 3, 22 / 3, 25 / 3]
    assert lines.fold(edits, np.array([3, 0]), 4).tolist() == [0.0] * 4


def energy(scene: Scene, clips: np.ndarray) -> float:
    return float(np.square(clips - scene.original.astype(float)).sum())


@pytest.mark.parametrize(("name", "most"), [("notch-lines", 10.0), ("leak", 1.0)])
def test_the_mark_of_format_2_is_taken_away(name: str, most: float, loud: Scene) -> None:
    after, details = attacked(choose(name)[0], loud, seed=0)
    left = 100 * energy(loud, after.clips) / energy(loud, loud.clips)
    assert details == {"energy_of_the_edit_left": round(left, 2)}
    assert left < most
    assert not padding(after.clips, loud.lengths).any()


@pytest.mark.parametrize("name", ["fold-clips", "fold-classes", "notch-peaks-6", "notch-lines", "leak"])
def test_no_line_of_the_class_is_left(name: str, loud: Scene) -> None:
    """What the clips of a class have in common at the period: with the mark, and after the attack."""
    period = period_of(RATE)
    after = attacked(choose(name)[0], loud, seed=0)[0].clips
    for label in range(loud.n_classes):
        own = loud.labels == label
        before, cleaned, voices = (
            np.square(lines.fold(clips[own].astype(float), loud.lengths[own], period)).sum()
            for clips in (loud.clips, after, loud.original)
        )
        assert cleaned < 0.2 * before
        assert before > 3 * voices


def test_a_clips_own_sines_are_its_mark_where_nothing_else_is_steady() -> None:
    rng = np.random.default_rng(0)
    labels, lengths = np.arange(12) % 4, rng.integers(3000, 4001, 12)
    original = np.zeros((12, 4000), np.int16)
    for row, length in enumerate(lengths):
        original[row, :length] = rng.normal(0, 600, length) * (np.arange(length) % 1000 < 500)
    clips = original.copy()
    strong(3.0, RATE).mark(clips, labels, lengths, study_key(0))
    scene = Scene(clips, original, labels, lengths, 4, RATE)
    after, _ = attacked(choose("sines-2")[0], scene, seed=0)
    # An eighth of a bin beside the line leaves 5 % of its energy; the fit takes some of the noise with it.
    assert energy(scene, after.clips) < 0.2 * energy(scene, clips)


def test_folding_a_clip_leaves_silence_of_what_is_periodic_and_the_rest_of_short_ones() -> None:
    period = period_of(RATE)
    rng = np.random.default_rng(0)
    clips = np.tile(rng.integers(-3000, 3000, period).astype(np.int16), (2, 5))
    lengths = np.array([5 * period, 2 * period - 1])
    clips[1, lengths[1] :] = 0
    folded = lines.fold_clips(clips, lengths, RATE, 1.0, rng)
    assert not folded[0].any()
    assert np.array_equal(folded[1], clips[1])


def test_sines_are_subtracted_to_the_rounding() -> None:
    time = np.arange(4000) / RATE
    clip = np.rint(2000 * np.sin(2 * np.pi * 700 * time) + 900 * np.cos(2 * np.pi * 1234.5 * time)).astype(np.int16)
    rng = np.random.default_rng(0)
    left = lines.subtract_sines(clip[None], np.array([4000]), RATE, 2.0, rng)
    # A frequency is found to a quarter of a bin: a fit that is off by an eighth of one leaves some per cent.
    assert np.abs(left.astype(int)).max() < 0.2 * 2900
    one = lines.subtract_sines(clip[None], np.array([4000]), RATE, 1.0, rng)
    assert np.square(left, dtype=float).sum() < np.square(one, dtype=float).sum()


def test_a_leak_without_an_edit_takes_nothing(loud: Scene) -> None:
    same = Scene(loud.original, loud.original, loud.labels, loud.lengths, loud.n_classes, RATE)
    after, details = attacked(choose("leak")[0], same, seed=0)
    assert np.array_equal(after.clips, loud.original)
    assert details == {}


@pytest.mark.parametrize(("name", "replaced"), [("partial-1", 2), ("partial-5", 12), ("partial-20", 48)])
def test_some_clips_are_unprotected(name: str, replaced: int, loud: Scene) -> None:
    after, details = attacked(choose(name)[0], loud, seed=0)
    assert details == {"unprotected": replaced}
    assert int((after.clips == loud.original).all(axis=1).sum()) == replaced
