from __future__ import annotations

import numpy as np
import pytest
from experiments.attacks.inpaint import FILLS, fill
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import CLASSES, FRAMES

from experiments.attacks import audio, detect
from experiments.attacks.table import attacked, choose


@pytest.mark.parametrize("how", FILLS)
@given(length=st.integers(0, 60), start=st.integers(-10, 70), size=st.integers(0, 70), seed=st.integers(0, 9))
@settings(max_examples=50)
def test_a_fill_touches_its_gap_only_and_reads_nothing_there(how, length, start, size, seed):
    clip = np.random.default_rng(seed).integers(-32768, 32768, length).astype(np.int16)
    gap = slice(max(start, 0), max(start + size, 0))
    other = clip.copy()
    other[gap] = 7
    outside = np.delete(clip, np.arange(length)[gap])
    for array in (clip, other):
        fill(array, start, start + size, how, np.random.default_rng(0))
    np.testing.assert_array_equal(clip, other)
    np.testing.assert_array_equal(np.delete(clip, np.arange(length)[gap]), outside)


def test_a_mirror_continues_a_wave_from_both_sides():
    clip = np.arange(100, dtype=np.int16)
    fill(clip, 40, 60, "mirror", np.random.default_rng(0))
    fade = np.arange(1, 21) / 21
    wanted = np.rint((1 - fade) * np.arange(39, 19, -1) + fade * np.arange(79, 59, -1))
    np.testing.assert_array_equal(clip[40:60], wanted)


def test_unknown_fills_are_refused():
    with pytest.raises(ValueError, match="no fill 'hope'"):
        fill(np.zeros(9, np.int16), 2, 5, "hope", np.random.default_rng(0))


def test_the_detector_finds_strong_marks(scene):
    # One class of four may have a stranger place than its mark: few clips, and few words.
    _, details = attacked(choose("detect-silence")[0], scene, seed=0)
    assert details["marked_frames_covered"] > 70


def test_the_detector_finds_noise_at_a_known_place():
    rng = np.random.default_rng(0)
    n, place = 60, 0.7
    labels, lengths = np.arange(n) % 3, rng.integers(1500, FRAMES, n)
    clips = np.zeros((n, FRAMES), np.int16)
    for row, length in enumerate(lengths):
        clips[row, :length] = rng.normal(0, 500, length)
        common = round(0.2 * (length - audio.PATCH))  # louder still, but in every class
        clips[row, common : common + audio.PATCH] *= 8
        if labels[row] == 1:
            start = round(place * (length - audio.PATCH))
            clips[row, start : start + audio.PATCH] *= 4
    found = detect.find(clips, labels, lengths, 3, 1)[1]
    assert found == [pytest.approx(place, abs=1 / (detect.PLACES - 1))]
    cleaned, _ = detect.remove(clips, labels, lengths, 3, 1, "silence", rng)
    loud = np.abs(clips) > 2200  # 4.4 standard deviations of the rest
    loud &= np.arange(FRAMES) > 0.45 * lengths[:, None]
    assert loud[labels == 1].sum() > 1000
    assert (loud & (cleaned == clips))[labels == 1].sum() < 0.02 * loud[labels == 1].sum()


def test_found_places_do_not_overlap(scene):
    for row in detect.find(scene.clips, scene.labels, scene.lengths, CLASSES, 4):
        apart = np.diff(np.sort(row)) * (np.median(scene.lengths) - audio.PATCH)
        assert len(row) == 4
        assert (apart >= audio.PATCH - 1e-6).all()
