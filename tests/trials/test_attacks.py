from __future__ import annotations

import numpy as np
import pytest
from experiments.conditions import clean, poscuda, strong, whole_clip
from scenes import RATE, N, padding

from experiments.attacks.table import ATTACKS, ROWS, Chosen, attacked, choose, heard

CLIP_KINDS = [c for c in choose("all") if c.attack.kind in ("audio", "data") and c.attack.needs != "format 2"]
# Strengths at which an attack leaves the clips as they are.
NEUTRAL = {
    "short-filter": 0, "equaliser": 0, "low-pass": RATE / 2, "high-pass": 0, "warp": 0, "jitter": 0, "speed": 0,
    "resample": 1, "blur": 1, "cut": 0, "blur-regions": 0, "noise-at-places": 0, "level-waves": 0,
    "partial": 0, "detect-mirror": 0, "detect-silence": 0, "detect-noise": 0,
}  # fmt: skip


def test_every_row_of_the_literature_has_an_attack_that_runs_by_default():
    assert {chosen.attack.row for chosen in choose("all")} == set(ROWS)
    names = [attack.name for attack in ATTACKS]
    assert len(set(names)) == len(names)
    assert {attack.kind for attack in ATTACKS} == {"audio", "data", "labels", "front", "training", "probe"}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_found_by_its_name_and_by_name_and_strength(attack):
    usual = choose(attack.name)
    assert [chosen.strength for chosen in usual] == list(attack.strengths)
    if attack.name != "none":
        assert choose(usual[0].name) == usual[:1]
        assert choose(f"{attack.name}-0.25")[0].name == f"{attack.name}-0.25"


def test_unknown_attacks_are_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match=r"no attack 'mp4'.*mp3"):
        choose("mp4")
    with pytest.raises(ValueError, match="no attack 'mp3-loud'"):
        choose("mp3-loud")


def test_attacks_that_need_a_mark_mean_nothing_without():
    partial, filtered, mp3 = (choose(name)[0] for name in ("partial", "leak-filter", "mp3"))
    assert [one.applies(clean()) for one in (partial, filtered, mp3)] == [False, False, True]
    assert [one.applies(whole_clip(0.01)) for one in (partial, filtered, mp3)] == [True, False, True]
    assert [one.applies(poscuda(0.01)) for one in (partial, filtered, mp3)] == [True, True, True]
    assert [one.applies(strong(1.0)) for one in (partial, filtered, mp3)] == [True, False, True]
    assert [choose("leak-mark")[0].applies(one) for one in (poscuda(0.01), strong(1.0))] == [False, True]


@pytest.mark.parametrize("chosen", CLIP_KINDS, ids=lambda chosen: chosen.name)
def test_shape_type_padding_and_repetition(chosen, scene):
    clips = attacked(chosen, scene, seed=0)[0].clips
    assert clips.shape == scene.clips.shape
    assert clips.dtype == np.int16
    assert not padding(clips, scene.lengths).any()
    changed = (clips != scene.clips).any(axis=1).sum()
    if chosen.attack.name == "none":
        assert changed == 0
    elif chosen.attack.name == "partial":
        assert changed == round(N * chosen.strength / 100)
    else:
        assert changed > 0.9 * N
    np.testing.assert_array_equal(clips, attacked(chosen, scene, seed=0)[0].clips)


RANDOM = ("short-filter", "equaliser", "sharpen", "warp", "jitter", "speed", "blur", "blur-regions", "cut", "partial",
          "noise-at-places", "detect-noise", "leak-filter")  # fmt: skip


@pytest.mark.parametrize("name", RANDOM)
def test_another_seed_is_another_attack(name, scene):
    chosen = Chosen(choose(name)[0].attack, 20.0) if name == "partial" else choose(name)[0]
    assert not np.array_equal(attacked(chosen, scene, seed=0)[0].clips, attacked(chosen, scene, seed=1)[0].clips)


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_strength_changes_nothing(name, scene):
    chosen = Chosen(choose(name)[0].attack, float(NEUTRAL[name]))
    np.testing.assert_array_equal(attacked(chosen, scene, seed=0)[0].clips, scene.clips)


def test_test_clips_go_through_fixed_steps_only(scene):
    before = scene.original
    for chosen in choose("all"):
        after = heard(chosen, before, scene.lengths, RATE, seed=0)
        if chosen.attack.at_test is None:
            assert after is before
        else:
            assert chosen.attack.kind == "audio"
            np.testing.assert_array_equal(after, heard(chosen, before, scene.lengths, RATE, seed=1))
            assert not np.array_equal(after, before)
