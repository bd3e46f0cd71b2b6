"""The table of attacks: each runs, changes what it should, and is found by its name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scenes import CLASSES, FRAMES, RATE, N, padding

from experiments.attacks.scene import Scene
from experiments.attacks.table import ATTACKS, KINDS, Chosen, attacked, choose, heard, made_for
from poscuda_fast.evaluation.models import MODELS, build

ALL = choose("all")
CLIPS = [one for one in ALL if one.attack.kind in ("audio", "data")]
# Strengths at which an attack leaves the clips as they are.
NEUTRAL = {
    "equaliser": 0, "low-pass": RATE / 2, "high-pass": 0, "speed": 0, "pitch": 0,
    "partial": 0, "sines": 0, "fold-clips": 0, "notch-peaks": 0,
}  # fmt: skip
RANDOM = ("equaliser", "speed", "pitch", "partial")
named = pytest.mark.parametrize("chosen", CLIPS, ids=lambda chosen: chosen.name)


def test_names_are_unique_and_every_kind_is_there() -> None:
    assert len({one.name for one in ALL}) == len(ALL)
    assert {attack.kind for attack in ATTACKS} == set(KINDS)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_found_by_its_name_and_by_name_and_strength(attack) -> None:
    usual = choose(attack.name)
    assert [one.strength for one in usual] == list(attack.strengths)
    assert all(choose(one.name) == [one] for one in usual)
    assert all("{" not in one.title for one in usual)


def test_a_kind_is_all_its_attacks() -> None:
    assert sorted(one.name for kind in KINDS for one in choose(kind)) == sorted(one.name for one in ALL)


@pytest.mark.parametrize("text", ["mp4", "mp3-loud", "mp3-33", "none-1", ""])
def test_unknown_attacks_are_refused_with_the_names_there_are(text: str) -> None:
    with pytest.raises(ValueError, match=rf"no attack '{text}'.*mp3.*a kind: audio.*or all"):
        choose(text)


def test_attacks_apply_where_they_make_sense() -> None:
    partial, levelled, mp3 = (choose(name)[0] for name in ("partial", "level-features", "mp3"))
    assert [one.applies("clean", "m5") for one in (partial, levelled, mp3)] == [False, False, True]
    assert [one.applies("strong-1", "cnn") for one in (partial, levelled, mp3)] == [True, True, True]
    assert [levelled.applies("strong-1", model) for model in MODELS] == [kind.spectral for kind in MODELS.values()]


@named
def test_shape_type_padding_and_repetition(chosen: Chosen, scene: Scene) -> None:
    clips = attacked(chosen, scene, seed=0)[0].clips
    assert clips.shape == scene.clips.shape
    assert clips.dtype == np.int16
    assert not padding(clips, scene.lengths).any()
    changed = int((clips != scene.clips).any(axis=1).sum())
    if chosen.attack.name == "none":
        assert changed == 0
    elif chosen.attack.name == "partial":
        assert changed == round(N * chosen.strength / 100)
        assert ((clips == scene.original).all(axis=1) == (clips != scene.clips).any(axis=1)).all()
    elif chosen.attack.name == "pitch":  # one of five steps is none
        assert 0.5 * N < changed <= N
    else:
        assert changed > 0.9 * N
    np.testing.assert_array_equal(clips, attacked(chosen, scene, seed=0)[0].clips)


@pytest.mark.parametrize("name", RANDOM)
def test_another_seed_is_another_attack(name: str, scene: Scene) -> None:
    chosen = Chosen(choose(name)[0].attack, 20.0) if name == "partial" else choose(name)[0]
    assert not np.array_equal(attacked(chosen, scene, seed=0)[0].clips, attacked(chosen, scene, seed=1)[0].clips)


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_neutral_strength_changes_nothing(name: str, scene: Scene) -> None:
    chosen = Chosen(choose(name)[0].attack, float(NEUTRAL[name]))
    np.testing.assert_array_equal(attacked(chosen, scene, seed=0)[0].clips, scene.clips)


def test_test_clips_go_through_fixed_steps_only(scene: Scene) -> None:
    before = scene.original
    for chosen in ALL:
        after = heard(chosen, before, scene.lengths, RATE, seed=0)
        if chosen.attack.at_test is None:
            assert after is before
            assert chosen.stays == (chosen.attack.kind == "front")
        else:
            assert chosen.attack.kind == "audio"
            assert chosen.stays
            assert chosen.title.endswith("test clips too")
            np.testing.assert_array_equal(after, heard(chosen, before, scene.lengths, RATE, seed=1))
            assert not np.array_equal(after, before)


@pytest.mark.parametrize("chosen", choose("front"), ids=lambda chosen: chosen.name)
@pytest.mark.parametrize("model", ["m5", "lstm", "cnn-kaldi"])
def test_a_front_end_takes_the_place_of_the_models_own(chosen: Chosen, model: str, scene: Scene) -> None:
    if not chosen.applies("strong-1", model):
        return
    own = build(model, CLASSES, RATE).front
    front = made_for(chosen, "front", scene, model, seed=0)
    waves = torch.from_numpy(scene.clips.astype(np.float32) / 32768)
    assert front(waves).shape == own(waves).shape
    assert not torch.allclose(front(waves), own(waves))
    assert made_for(chosen, "training", scene, model, seed=0) is None


def test_other_kinds_leave_the_front_end_and_the_step(scene: Scene) -> None:
    for chosen in (one for one in ALL if one.attack.kind not in ("front", "training")):
        assert made_for(chosen, "front", scene, "cnn", seed=0) is None
        assert made_for(chosen, "training", scene, "cnn", seed=0) is None


@named
def test_two_classes_and_clips_too_short_for_anything(chosen: Chosen) -> None:
    lengths = np.array([1, 2, 40, FRAMES, 300, 3])
    clips = np.zeros((6, FRAMES), np.int16)
    for row, length in enumerate(lengths):
        clips[row, :length] = np.random.default_rng(row).integers(-9000, 9000, length)
    scene = Scene(clips, clips.copy(), np.arange(6) % 2, lengths, 2, RATE)
    done, details = attacked(chosen, replace(scene, clips=np.where(clips, clips + 5, 0).astype(np.int16)), seed=0)
    assert not padding(done.clips, lengths).any()
    assert all(np.isfinite(value) for value in details.values())
