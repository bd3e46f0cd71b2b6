"""What would not protect, or would ruin recordings, is refused or said before anything is written."""

from __future__ import annotations

from pathlib import Path

import naive
import numpy as np
import pytest

from poscuda_fast import Key, Recipe, protect, protect_array
from poscuda_fast.arrays.memory import mark_batch
from poscuda_fast.kernels import Engine
from poscuda_fast.mark import judging
from poscuda_fast.mark.labels import integer_token
from poscuda_fast.mark.lines import draw_lines
from poscuda_fast.mark.patches import Patches

MASTER = bytes(range(32))
LABELS = [0, 1, 0, 1, 0]


def noise(level: float, shape: tuple[int, ...] = (5, 4000), seed: int = 0) -> np.ndarray:
    """int16 noise with an RMS relative to full scale."""
    samples = np.random.default_rng(seed).normal(0, level * 2**15, shape)
    return np.clip(np.rint(samples), -(2**15), 2**15 - 1).astype(np.int16)


def snr_db(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Of each clip, by the definition."""
    clean, added = before.astype(np.float64), after.astype(np.float64) - before
    axes = tuple(range(1, before.ndim))
    return 10 * np.log10((clean**2).sum(axis=axes) / (added**2).sum(axis=axes))


def refused(clips: np.ndarray, key: Key, sentence: str, **options: object) -> None:
    before = clips.copy()
    with pytest.raises(ValueError, match=sentence):
        protect(clips, LABELS[: len(clips)], key, **options)
    assert np.array_equal(clips, before)


# Shapes.


@pytest.mark.parametrize("shape", [(5, 1, 4000), (5, 2, 4000), (5, 4, 5), (5, 63, 64)])
def test_an_axis_that_is_hardly_one_of_frames_is_refused(shape, key: Key) -> None:
    """Frames come before channels: four frames of many channels were once "protected", and the report said so."""
    for recipe in (Recipe.strong(), Recipe.paper()):
        refused(np.ones(shape, np.int16), key, rf"clips of {shape[1]} frames and {shape[2]} channels", recipe=recipe)


@pytest.mark.parametrize("shape", [(5, 4, 4), (5, 64, 65), (5, 1, 1), (5, 0, 3)])
def test_short_clips_of_few_channels_are_clips(shape, key: Key) -> None:
    assert protect(np.full(shape, 9000, np.int16), LABELS, key).clips == 5


# Levels.


def test_floats_that_are_not_scaled_are_refused(key: Key) -> None:
    clips = noise(0.1).astype(np.float32)  # as large as integers are
    refused(clips, key, r"The median clip has a peak of .* a full scale of 1: .* Scale the samples")
    protect(clips, LABELS, key, recipe=Recipe.paper())  # a filter does not ask for the scale


def test_a_few_loud_floats_are_no_reason(key: Key) -> None:
    clips = noise(0.1).astype(np.float32) / 2**15
    clips[:2] *= 1000
    assert protect(clips, LABELS, key).clips == 5


def test_a_strength_that_saturates_is_refused(key: Key) -> None:
    refused(
        noise(0.4),
        key,
        r"\d+\.\d % of the samples would be pushed beyond full scale by .*strength=40",
        recipe=Recipe.strong(40),
    )
    assert protect(noise(0.1), LABELS, key).saturated_samples == 0


def test_few_saturated_samples_are_counted_only(key: Key) -> None:
    clips = noise(0.1)
    clips[:, ::200] = 2**15 - 1  # half a percent, about half of which the mark pushes up
    assert protect(clips, LABELS, key).saturated_samples > 30


def test_batches_are_not_judged(key: Key) -> None:
    """A batch may hold three quiet clips of a data set that is well."""
    loud = noise(0.4)
    tally = mark_batch(loud, LABELS, key, recipe=Recipe.strong(40), engine=Engine())
    assert tally.saturated_samples > 0.01 * loud.size


# Notes.


def test_a_single_class_is_said(key: Key) -> None:
    for recipe in (Recipe.strong(), Recipe.paper()):
        assert "single class" in protect(noise(0.1), [3] * 5, key, recipe=recipe).notes[0]


def test_clips_below_their_mark_are_counted(key: Key) -> None:
    clips = noise(0.1)
    clips[3] //= 100
    clips[4] = 0
    level, quiet = protect(clips, LABELS, key).notes
    assert level.startswith("the median clip is 2")
    assert level.endswith(" dB above its mark")
    assert quiet == "quieter than their mark: 2 of the 5 clips that were looked at"


def test_a_mark_louder_than_the_recordings_is_said(key: Key) -> None:
    clips = noise(0.002)
    before = clips.copy()
    loud, quiet = protect(clips, LABELS, key).notes
    below = -np.median(snr_db(before, clips))
    assert loud == f"the mark is louder than the recordings: the median clip is {below:.1f} dB below its mark"
    assert quiet.startswith("quieter than their mark: 5 of the 5")


def test_silence_is_no_reason_to_refuse(key: Key) -> None:
    clips = np.zeros((5, 400), np.int16)
    assert protect(clips, LABELS, key).notes == ("quieter than their mark: 5 of the 5 clips that were looked at",)
    assert clips.any(axis=1).all()


# The ratio.


@pytest.mark.parametrize("dtype", [np.int16, np.float32], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("channels", [None, 2])
@pytest.mark.parametrize("wanted", [14.0, 20.0])
def test_a_ratio_sets_the_strength(dtype, channels, wanted, key: Key) -> None:
    shape = (5, 4000) if channels is None else (5, 4000, channels)
    clips = noise(0.1, shape)
    clips = (clips * np.array([0.1, 0.5, 1.0, 1.5, 2.0]).reshape(5, *[1] * (clips.ndim - 1))).astype(np.int16)
    if dtype is np.float32:
        clips = clips.astype(np.float32) / 2**15
    before = clips.copy()
    report = protect(clips, LABELS, key, snr=wanted, sample_rate=8_000)
    assert np.median(snr_db(before, clips)) == pytest.approx(wanted, abs=0.01)
    again = before.copy()
    protect(again, LABELS, key, recipe=Recipe.from_dict(report.recipe), sample_rate=8_000)
    assert np.array_equal(again, clips)


def test_a_ratio_out_of_reach_is_refused(key: Key) -> None:
    refused(noise(0.1), key, r"the strength would be .*; it must be from 0\.01 to 50", snr=90)
    refused(noise(0.001), key, r"the strength would be .*; it must be from 0\.01 to 50", snr=-60)
    refused(np.zeros((5, 400), np.int16), key, "the clips that were looked at are silent", snr=20)


def test_a_ratio_beside_another_recipe_is_refused(key: Key) -> None:
    for recipe in (Recipe.strong(2.0), Recipe.paper()):
        refused(noise(0.1), key, "snr sets the strength of the default recipe", snr=20, recipe=recipe)


# What is looked at.


def test_at_most_256_clips_are_looked_at(key: Key) -> None:
    assert judging.chosen_clips(10).tolist() == list(range(10))
    chosen = judging.chosen_clips(10_000)
    assert (len(chosen), chosen[0], chosen[-1]) == (256, 0, 9_999)
    assert judging.chosen_clips(0).tolist() == []


def test_only_the_beginning_of_a_long_clip_is_looked_at(key: Key, monkeypatch) -> None:
    monkeypatch.setattr(judging, "MOST_BYTES", 5 * 100 * 2)
    clips = noise(0.1)
    clips[:, 100:] = 0
    before = clips.copy()
    protect(clips, LABELS, key, snr=20.0)
    assert np.median(snr_db(before[:, :100], clips[:, :100])) == pytest.approx(20, abs=0.05)


@pytest.mark.parametrize("layout", ["plain", "Fortran", "list"])
def test_every_layout_is_judged_alike(layout: str, key: Key) -> None:
    plain = noise(0.05, (5, 900, 2))
    clips = {"plain": plain.copy(), "Fortran": np.asfortranarray(plain), "list": [clip.copy() for clip in plain]}[
        layout
    ]
    wanted = protect(plain.copy(), LABELS, key, snr=17.0)
    assert protect(clips, LABELS, key, snr=17.0).recipe == wanted.recipe


def test_a_stored_array_is_judged_before_it_has_a_sidecar(tmp_path: Path, key: Key) -> None:
    np.save(tmp_path / "clips.npy", noise(0.4))
    before = (tmp_path / "clips.npy").read_bytes()
    for dry_run in (True, False):
        with pytest.raises(ValueError, match="beyond full scale"):
            protect_array(tmp_path / "clips.npy", LABELS, key, recipe=Recipe.strong(40), dry_run=dry_run)
    assert [path.name for path in tmp_path.iterdir()] == ["clips.npy"]
    assert (tmp_path / "clips.npy").read_bytes() == before
    np.save(tmp_path / "clips.npy", noise(0.002))
    dry = protect_array(tmp_path / "clips.npy", LABELS, key, dry_run=True)
    assert protect_array(tmp_path / "clips.npy", LABELS, key).notes == dry.notes != ()


def test_the_saturated_share_is_the_real_one(key: Key, monkeypatch) -> None:
    clips = noise(0.5)
    marked = [
        naive.protect_clip(clip, label, MASTER, strength=20.0)[1] for clip, label in zip(clips, LABELS, strict=True)
    ]
    share = 100 * sum(marked) / clips.size
    refused(clips, key, rf"^{share:.1f} % of the samples", recipe=Recipe.strong(20))


def test_the_energies_of_marks_at_several_rates(key: Key) -> None:
    """Blocks of rows and periods against one sum for each clip."""
    rates, rng = (8_000, 16_000, 192_000), np.random.default_rng(0)
    lines = draw_lines(key, [integer_token(label) for label in range(100)], Recipe.strong(), rates)
    rows, sizes = rng.integers(0, 300, 400), rng.integers(0, 20_000, 400)
    zeros = np.zeros_like(rows)
    energies, loudest = judging._marks_of(lines, Patches(zeros, zeros, sizes, rows), np.dtype(np.int16))
    marks = [lines.mark(row, np.dtype(np.int16)).astype(np.int64) for row in rows]
    expected = [(np.resize(mark, size) ** 2).sum() for mark, size in zip(marks, sizes, strict=True)]
    assert energies.tolist() == expected  # integers below 2^53
    assert loudest == max(np.abs(mark).max() for mark in marks)
