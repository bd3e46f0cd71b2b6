"""What is done to clips before training: exactly what each condition says, and nothing beyond the clip."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.training.conditions import (
    Condition,
    class_filter,
    clean,
    exchanged,
    mark_rows,
    named,
    noisy,
    poscuda,
    strong,
    study_key,
    touched,
    whole_clip,
)
from poscuda_fast import PaperRecipe, Recipe, protect

N, FRAMES = 12, 900
KEY = study_key(0)
NAMES = ("whole-0.01", "whole-0.3-identity", "poscuda-0.01", "poscuda-0.3", "poscuda-0.3-identity", "cuda-0.3")
MARKING = [*map(named, NAMES), strong(2.0, 8000)]
all_conditions = pytest.mark.parametrize("condition", MARKING, ids=lambda condition: condition.name)


def clips() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    labels, lengths = rng.integers(0, 3, N), rng.integers(300, FRAMES + 1, N)
    samples = rng.integers(-8000, 8000, (N, FRAMES)).astype(np.int16)
    samples[np.arange(FRAMES) >= lengths[:, None]] = 0
    return samples, labels, lengths


def marked(condition: Condition, seed: int = 0) -> np.ndarray:
    samples, labels, lengths = clips()
    condition.mark(samples, labels, lengths, study_key(seed))
    return samples


def test_clean_changes_nothing() -> None:
    assert np.array_equal(marked(clean()), clips()[0])


@all_conditions
def test_the_key_decides_and_padding_stays(condition: Condition) -> None:
    samples, _, lengths = clips()
    once = marked(condition)
    assert np.array_equal(once, marked(condition))
    assert not np.array_equal(once, marked(condition, seed=1))
    changed = (once != samples).any(axis=1)
    assert changed.all()
    if "absolute" not in condition.name:
        assert not once[np.arange(FRAMES) >= lengths[:, None]].any()


@pytest.mark.parametrize(("blur", "identity"), [(0.01, False), (0.3, True)])
def test_poscuda_is_the_librarys_own(blur: float, identity: bool) -> None:
    samples, labels, lengths = clips()
    protect(samples, labels, KEY, recipe=Recipe.paper(blur=blur, identity=identity), lengths=lengths)
    assert np.array_equal(marked(poscuda(blur, identity=identity)), samples)


def test_format_2_is_the_librarys_own() -> None:
    samples, labels, lengths = clips()
    protect(samples, labels, KEY, recipe=Recipe.strong(2.0), sample_rate=8000, lengths=lengths)
    assert np.array_equal(marked(strong(2.0, 8000)), samples)


def test_an_absolute_place_is_one_for_a_class() -> None:
    samples, labels, lengths = clips()
    mask = touched(poscuda(0.01, absolute=True), samples.shape, labels, lengths, KEY)
    for label in np.unique(labels):
        assert len(np.unique(mask[labels == label], axis=0)) == 1
    relative = touched(poscuda(0.01), samples.shape, labels, lengths, KEY)
    assert len(np.unique(relative[labels == labels[0]], axis=0)) > 1


def test_a_whole_clip_is_convolved_with_its_classs_filter() -> None:
    samples, labels, lengths = clips()
    wet = marked(whole_clip(0.01))
    for row in range(N):
        taps = class_filter(KEY, int(labels[row]), 0.01)
        direct = np.convolve(samples[row, : lengths[row]].astype(float), taps, "same")
        # Rounded to int16 from sums that differ by float64 rounding alone.
        assert np.abs(wet[row, : lengths[row]] - np.clip(direct, -32768, 32767)).max() <= 0.5 + 1e-6


def test_an_identity_tap_keeps_the_sound() -> None:
    assert class_filter(KEY, 0, 0.01, identity=True)[39] == 1.0
    samples = clips()[0].astype(float)
    errors = [np.sum((marked(whole_clip(0.01, identity=tap)) - samples) ** 2) for tap in (True, False)]
    assert errors[0] < errors[1] / 4


@all_conditions
def test_touched_frames_are_those_that_change(condition: Condition) -> None:
    samples, labels, lengths = clips()
    mask = touched(condition, samples.shape, labels, lengths, KEY)
    assert mask[marked(condition) != samples].all()
    inside = 240 if isinstance(condition.recipe, PaperRecipe) else lengths
    assert np.array_equal(mask.sum(axis=1), np.broadcast_to(inside, N))


@all_conditions
def test_noise_is_where_the_mark_is_and_as_strong(condition: Condition) -> None:
    samples, labels, lengths = clips()
    mixed = noisy(condition, samples, labels, lengths, KEY, seed=5)
    mask = touched(condition, samples.shape, labels, lengths, KEY)
    assert np.array_equal(mixed[~mask], samples[~mask])
    assert not np.array_equal(mixed, noisy(condition, samples, labels, lengths, KEY, seed=6))
    change = (marked(condition).astype(float) - samples)[mask]
    noise = (mixed.astype(float) - samples)[mask]
    # The mean square of n normal numbers, each clip at its own level, is within 30 % by six deviations for n = 2,400.
    assert np.mean(noise**2) == pytest.approx(np.mean(change**2), rel=0.3)


def test_rows_are_marked_in_place_and_others_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.training.conditions.BATCH", 3)
    samples, labels, lengths = clips()
    rows = np.array([1, 2, 5, 7, 11])
    mark_rows(poscuda(0.3), samples, rows, labels[rows], lengths[rows], KEY)
    others = np.setdiff1d(np.arange(N), rows)
    assert np.array_equal(samples[rows], marked(poscuda(0.3))[rows])
    assert np.array_equal(samples[others], clips()[0][others])


def test_exchanged_leaves_no_class_in_its_place() -> None:
    labels = np.arange(10)
    assert sorted(exchanged(labels, 10)) == sorted(labels)
    assert not (exchanged(labels, 10) == labels).any()


@pytest.mark.parametrize(
    "name", ["clean", "strong-0.5", "poscuda-0.01", "poscuda-0.3-identity", "poscuda-0.01-absolute",
             "poscuda-0.01-identity-absolute", "whole-0.01", "whole-0.3-identity", "cuda-0.3"],
)  # fmt: skip
def test_a_condition_is_found_by_its_name(name: str) -> None:
    assert named(name).name == name


@pytest.mark.parametrize(
    "name", ["", "clean-1", "poscuda", "poscuda-x", "poscuda-0.010", "poscuda-0.01-loud", "strong-1-loud",
             "poscuda-0.01-absolute-identity", "whole-0.01-absolute", "strong--1", "strong-nan",
             "cuda-0.3-identity", "emin-14"],
)  # fmt: skip
def test_an_unknown_condition_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="There is no condition"):
        named(name)


def test_format_2_depends_on_the_sample_rate() -> None:
    assert named("strong-1", 8000).settings["sample_rate"] == 8000
    assert named("strong-1").settings["sample_rate"] == 16_000
