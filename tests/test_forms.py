"""Original, marked, both, half written or changed: told piece by piece, and each form made from the other."""

from __future__ import annotations

import pickle
import struct

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marked import KEY, LABELS, RATE, Scene

from poscuda_fast import Recipe, SidecarError, Verdict
from poscuda_fast.kernels import KEY_WORDS
from poscuda_fast.mark import forms
from poscuda_fast.mark.codings import CODINGS, little, to_bytes, to_samples

PAPER = Recipe.paper(patch=40, taps=8, blur=0.3)
OFFSETS = {"PCM_16": (44, 45), "PCM_24": (44, 46), "FLOAT": (44, 58)}
KINDS = [(coding, first) for coding, firsts in OFFSETS.items() for first in firsts]
each_kind = pytest.mark.parametrize(("coding", "first"), KINDS, ids=[f"{coding}@{first}" for coding, first in KINDS])


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Patches of any kind of sample at any places."""
    sizes = draw(st.lists(st.integers(1, 700), min_size=1, max_size=4))
    firsts = draw(st.lists(st.integers(0, 3000), min_size=len(sizes), max_size=len(sizes)))
    recipe, computed = draw(st.sampled_from([(Recipe.strong(), True)] * 3 + [(Recipe.strong(9), True)] * 2 + [
        (Recipe.strong(), False), (PAPER, False)
    ]))  # fmt: skip
    coding = draw(st.sampled_from(sorted(CODINGS)))
    kind = draw(st.sampled_from(["quiet", "loud"] if recipe == PAPER else ["quiet", "loud", "odd"]))
    channels, seed = draw(st.integers(1, 3)), draw(st.integers(0, 99))
    return Scene(coding, channels, sizes, firsts, kind, seed, recipe, computed)


def verdicts_of(scene: Scene, now: np.ndarray) -> list[int]:
    return scene.examine(now).verdicts().tolist()


# What a record says


@each_kind
def test_the_marked_form_is_that_of_the_format(coding: str, first: int) -> None:
    scene = Scene(coding, 1, [900], [first], "loud")
    dtype = {"PCM_16": np.int16, "PCM_24": np.int32, "FLOAT": np.float32}[little(coding)]
    samples = to_samples(scene.dry.tobytes(), coding).astype(dtype)
    expected, _ = naive.protect_clip(samples, LABELS[0], bytes(range(32)), RATE, strength=1.0)
    assert scene.wet.tobytes() == to_bytes(expected, coding)


@each_kind
def test_a_record_begins_with_the_hash_of_every_original_piece(coding: str, first: int) -> None:
    scene = Scene(coding, 2, [300, 1, 77], [first, 5_000, 5_511])
    words = np.frombuffer(KEY.derive(b"sidecar", b"pieces", length=8 * KEY_WORDS), "<u8").tolist()
    sums = [naive.hash_piece(scene.dry[part].tobytes(), words) for part in scene.parts]
    assert scene.fresh.content[: 8 * len(sums)] == struct.pack(f"<{len(sums)}Q", *sums)


@pytest.mark.parametrize("coding", sorted(CODINGS))
def test_a_record_of_ordinary_pcm_is_small_and_holds_no_samples(coding: str) -> None:
    scene = Scene(coding, 1, [20_000], [0 if little(coding) == "FLOAT" else 44])
    n_pieces, n = len(scene.parts), len(scene.stretches.straddlers)
    most = 20_000 if little(coding) == "FLOAT" else 8 * n_pieces + n * CODINGS[coding] + 4
    assert len(scene.fresh.content) <= most
    if coding == "PCM_16":
        assert len(scene.fresh.content) == 8 * n_pieces + 4


def test_without_computing_a_record_is_the_original() -> None:
    for recipe in (PAPER, Recipe.strong()):
        scene = Scene("PCM_16", 2, [40, 9], [100, 901], recipe=recipe, computed=False)
        assert scene.fresh.content == scene.dry.tobytes()


def test_counts_are_those_of_the_originals() -> None:
    scene = Scene("PCM_16", 1, [400], [44], "loud")
    _, saturated = naive.protect_clip(scene.samples.astype(np.int16), LABELS[0], bytes(range(32)), RATE, strength=1.0)
    assert scene.tally.frames_changed == 400
    assert scene.tally.saturated_samples == saturated > 0
    floats = Scene("FLOAT", 1, [900], [44], "odd")
    assert floats.tally.not_finite_samples == (~np.isfinite(floats.samples)).sum() > 0
    paper = Scene("PCM_16", 1, [40, 40], [44, 5_000], recipe=PAPER, computed=False)
    assert (paper.tally.patches, paper.tally.silent_patches, paper.tally.frames_changed) == (2, 0, 80)
    again = forms.Tally()
    paper.forms.count(again, paper.dry, paper.stretches)
    assert again == paper.tally


# Telling the forms


@given(scenes())
def test_the_original_and_the_marked_form_are_told_and_made_from_each_other(scene: Scene) -> None:
    for now, is_wet in ((scene.dry, False), (scene.wet, True)):
        answer = scene.examine(now)
        assert (answer.dry.tobytes(), answer.wet.tobytes()) == (scene.dry.tobytes(), scene.wet.tobytes())
        assert (answer.protected if is_wet else answer.original).all()
        same = np.array([np.array_equal(scene.dry[part], scene.wet[part]) for part in scene.parts])
        assert (answer.original if is_wet else answer.protected).tolist() == same.tolist()
        assert not answer.torn.any()
        assert answer.found == {}
        assert answer.odd == scene.forms.mark(scene.dry.copy(), scene.stretches)
        held = Verdict.PROTECTED if is_wet else Verdict.ORIGINAL
        assert all(verdict & held for verdict in answer.verdicts().tolist())
    assert scene.forms.digests(scene.dry, scene.stretches).tolist() == scene.fresh.digests.tolist()


@given(scene=scenes(), data=st.data())
def test_whatever_state_each_piece_is_in_it_is_told_and_its_original_is_found(
    scene: Scene, data: st.DataObject
) -> None:
    """Every piece on its own: original, marked, cut anywhere with either end marked, or changed by somebody."""
    now = scene.dry.copy()
    wanted = []
    for part in scene.parts:
        state = data.draw(st.sampled_from(["original", "protected", "head marked", "tail marked", "changed"]))
        if state == "protected":
            now[part] = scene.wet[part]
        elif state in ("head marked", "tail marked"):
            k = data.draw(st.sampled_from(scene.cuts(part)))
            now[part] = scene.cut(part, k, head_marked=state == "head marked")
        elif state == "changed":
            byte = data.draw(st.integers(part.start, part.stop - 1))
            now[byte] = next(b for b in range(256) if b not in (scene.dry[byte], scene.wet[byte]))
        wanted.append(state)
    answer = scene.examine(now)
    for number, (part, state) in enumerate(zip(scene.parts, wanted, strict=True)):
        is_dry, is_wet = (np.array_equal(now[part], form[part]) for form in (scene.dry, scene.wet))
        assert (answer.original[number], answer.protected[number]) == (is_dry, is_wet), (number, state)
        assert answer.torn[number] == (state != "changed" and not is_dry and not is_wet), (number, state)
        if state != "changed":
            assert answer.dry[part].tobytes() == scene.dry[part].tobytes(), (number, state)
            assert answer.wet[part].tobytes() == scene.wet[part].tobytes(), (number, state)
    assert all(scene.dry[scene.parts[number]].tobytes() == original for number, original in answer.found.items())
    owners = scene.stretches.pieces.owners
    for patch, verdict in enumerate(answer.verdicts().tolist()):
        own = owners == patch
        whole = Verdict.ORIGINAL * answer.original[own].all() + Verdict.PROTECTED * answer.protected[own].all()
        if whole:
            assert verdict == whole
        else:
            known = (answer.original | answer.protected | answer.torn)[own].all()
            assert verdict == (Verdict.TORN if known else Verdict.NEITHER)


@given(scene=scenes(), seed=st.integers(0, 99))
def test_once_the_original_of_a_piece_is_recorded_each_byte_may_be_of_either_form(scene: Scene, seed: int) -> None:
    rng = np.random.default_rng(seed)
    now = np.where(rng.random(len(scene.dry)) < 0.5, scene.dry, scene.wet)
    answer = scene.examine(now, {n: scene.dry[part].tobytes() for n, part in enumerate(scene.parts)})
    assert (answer.original | answer.protected | answer.torn).all()
    assert (answer.dry.tobytes(), answer.wet.tobytes()) == (scene.dry.tobytes(), scene.wet.tobytes())
    assert answer.found == {}
    byte = int(rng.integers(len(now)))
    now[byte] = next(b for b in range(256) if b not in (scene.dry[byte], scene.wet[byte]))
    (number,) = (n for n, part in enumerate(scene.parts) if part.start <= byte < part.stop)
    answer = scene.examine(now, {n: scene.dry[part].tobytes() for n, part in enumerate(scene.parts)})
    assert not (answer.original | answer.protected | answer.torn)[number]
    assert scene.examine(now).verdicts()[scene.stretches.pieces.owners[number]] == Verdict.NEITHER


@each_kind
@pytest.mark.parametrize("kind", ["quiet", "loud", "odd"])
def test_blocks_that_are_old_or_new_are_told_apart_though_samples_lie_in_two(
    coding: str, first: int, kind: str
) -> None:
    """After a power cut each block is whole, of either form, in any order."""
    scene = Scene(coding, 1, [1500], [first], kind)
    assert len(scene.stretches.straddlers) > 0 or first % CODINGS[coding] == 0
    for seed in range(20):
        marked = np.random.default_rng(seed).random(len(scene.parts)) < 0.5
        now = np.where(scene.stretches.pieces.spread(marked), scene.wet, scene.dry)
        answer = scene.examine(now)
        assert answer.original.tolist() == (~marked).tolist()
        assert answer.protected.tolist() == marked.tolist()
        assert (answer.dry.tobytes(), answer.wet.tobytes()) == (scene.dry.tobytes(), scene.wet.tobytes())
        assert answer.verdicts().tolist() == [Verdict.TORN]


def test_a_piece_that_the_mark_does_not_change_is_both() -> None:
    scene = Scene("FLOAT", 1, [64, 64], [0, 512])
    scene.dry[:256] = np.full(64, np.nan, np.float32).view(np.uint8)
    fresh = scene.forms.fresh(scene.dry, scene.stretches, scene.tally)
    answer = scene.forms.examine(scene.dry.copy(), scene.stretches, memoryview(fresh.content), {})
    assert answer.original.tolist() == [True, True]
    assert answer.protected.tolist() == [True, False]
    assert answer.verdicts().tolist() == [Verdict.UNCHANGED, Verdict.ORIGINAL]


# Samples that subtraction does not bring back


def alone(coding: str, samples: np.ndarray) -> Scene:
    """A scene with these samples."""
    scene = Scene(coding, 1, [len(samples)], [0])
    scene.dry = np.frombuffer(to_bytes(samples, coding), np.uint8).copy()
    scene.fresh = scene.forms.fresh(scene.dry, scene.stretches, scene.tally)
    scene.wet = scene.fresh.wet
    return scene


@pytest.mark.parametrize(
    ("coding", "samples"),
    [
        ("PCM_16", np.full(600, 2**15 - 1, np.int16)),
        ("PCM_16", np.full(600, -(2**15), np.int16)),
        ("PCM_24", np.full(600, 2**23 - 1, np.int32)),
        ("PCM_24", np.full(600, -(2**23), np.int32)),
        ("FLOAT", np.full(600, -0.0, np.float32)),
        ("FLOAT", np.full(600, 1e-30, np.float32)),
        ("FLOAT", np.full(600, 1.1754944e-38 / 4, np.float32)),
        ("FLOAT", np.full(600, 3.4028235e38, np.float32)),
        ("FLOAT", np.full(600, np.nan, np.float32)),
        ("FLOAT", np.full(600, -np.inf, np.float32)),
        ("FLOAT", np.full(600, 0x7F80_0001, np.uint32).view(np.float32)),
        ("FLOAT", np.linspace(-1e-3, 1e3, 600).astype(np.float32)),
    ],
)
def test_it_is_kept(coding: str, samples: np.ndarray) -> None:
    scene = alone(coding, samples)
    answer = scene.examine(scene.wet)
    assert answer.dry.tobytes() == scene.dry.tobytes()
    assert answer.protected.all()
    assert scene.examine(scene.dry).original.all()


def test_differences_in_the_last_place_are_packed_and_come_back() -> None:
    for differences in (
        np.zeros(0, np.int32),
        np.zeros(100, np.int32),
        np.array([0, 1, -1, 126, 127, -127, -128, 128, 2**31 - 1, -(2**31), 0], np.int32),
        np.random.default_rng(1).integers(-(2**31), 2**31, 500).astype(np.int32),
    ):
        coded = forms._pack_differences(differences)
        assert bool(coded) == bool(differences.any())
        if coded:
            assert forms._unpack_differences(memoryview(coded), len(differences)).tolist() == differences.tolist()
            with pytest.raises(SidecarError, match="does not fit its data"):
                forms._unpack_differences(memoryview(coded), len(differences) + 1)
    assert len(forms._pack_differences(np.ones(100_000, np.int32))) < 1000


# Digests of patches


@given(scene=scenes(), data=st.data())
def test_any_change_of_a_patch_changes_its_digest_alone(scene: Scene, data: st.DataObject) -> None:
    byte = data.draw(st.integers(0, len(scene.dry) - 1))
    now = scene.dry.copy()
    now[byte] ^= data.draw(st.integers(1, 255))
    owner = np.searchsorted(scene.stretches.starts, byte, side="right") - 1
    differing = scene.forms.digests(now, scene.stretches) != scene.fresh.digests
    assert np.flatnonzero(differing).tolist() == [owner]


def test_pieces_that_are_exchanged_change_the_digest() -> None:
    scene = Scene("PCM_16", 1, [768], [0])
    now = np.concatenate([scene.dry[512:1024], scene.dry[:512], scene.dry[1024:]])
    assert scene.forms.digests(now, scene.stretches) != scene.fresh.digests


# Secrecy


def test_forms_and_answers_are_secret() -> None:
    scene = Scene("PCM_16", 1, [100], [0])
    for secret in (scene.forms, scene.examine(scene.dry)):
        with pytest.raises(TypeError, match="is secret"):
            pickle.dumps(secret)
        assert "array" not in repr(secret)
