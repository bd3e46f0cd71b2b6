from __future__ import annotations

import numpy as np
import pytest
from experiments.conditions import poscuda, study_key
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scenes import CLASSES, marked

from experiments.attacks import knowing, leak
from experiments.attacks.scene import places
from experiments.attacks.table import attacked, choose
from poscuda_fast import Key, Recipe, protect


@given(
    key=st.binary(min_size=32, max_size=32), label=st.integers(0, 99), length=st.integers(1, 2000),
    blur=st.sampled_from([0.01, 0.3]), identity=st.booleans(), patches=st.integers(1, 4), taps=st.integers(1, 80),
)  # fmt: skip
@settings(max_examples=40)
@example(key=bytes(32), label=0, length=720, blur=0.01, identity=False, patches=3, taps=1)  # patches fill the clip
def test_one_pair_of_loud_noise_gives_exact_places(key, label, length, blur, identity, patches, taps):
    recipe = Recipe.paper(blur=blur, identity=identity, patches=patches, taps=taps)
    before = np.random.default_rng(length).integers(-32768, 32768, length).astype(np.int16)
    after = before[None].copy()
    protect(after, [label], Key(key), recipe=recipe)
    starts = leak.locate(before, after[0], recipe)
    wanted = leak.true_starts(Key(key), label, recipe, length)
    if taps > 1 or not identity:  # one tap of 1.0 changes nothing
        assert len(wanted) == len(leak.slots(recipe, length)[1])
    if length > 6 * taps and not (taps == 1 and identity):
        assert starts == wanted


def test_a_place_whose_edges_did_not_change_is_found_all_the_same():
    recipe, key = Recipe.paper(), study_key(1)
    before = np.random.default_rng(0).integers(-2000, 2001, 1500).astype(np.int16)
    (start,) = leak.true_starts(key, 0, recipe, len(before))
    edges = [start, start + 1, start + recipe.patch - 2, start + recipe.patch - 1]
    for _ in range(20):  # towards frames there that their own filtering returns
        after = before[None].copy()
        protect(after, [0], key, recipe=recipe)
        if (after[0, edges] == before[edges]).all():
            break
        before[edges] = after[0, edges]
    changed = np.flatnonzero(before != after[0])
    assert changed[0] > start
    assert changed[-1] < start + recipe.patch - 1
    assert leak.locate(before, after[0], recipe) == [start]


@pytest.mark.parametrize("identity", [False, True])
def test_the_filter_comes_out_as_precisely_as_rounding_allows(identity):
    recipe = Recipe.paper(identity=identity)
    key = study_key(3)
    before = np.random.default_rng(0).integers(-9000, 9001, 2000).astype(np.int16)  # nothing saturates
    true = leak.true_filter(key, 5, recipe)
    wet = before[None].copy()
    protect(wet, [5], key, recipe=recipe)
    told = leak.learn([(before, wet[0])], recipe)
    # Least squares: the error's expected square is the rounding's variance times trace of inv(A' A); five of it.
    start = told.starts[0][0]
    design = leak._design(before[start : start + recipe.patch], recipe.taps)
    spread = np.sqrt(np.trace(np.linalg.inv(design.T @ design)))
    assert np.linalg.norm(told.taps - true) <= 5 * np.sqrt(leak.ROUNDING) * spread
    assert leak.relative_error(told.taps, true) > 1e-7  # int16 is not exact
    dry, floats = knowing._float_pair(before, 5, key, recipe)
    exact = leak.learn([(dry, floats)], recipe)
    assert exact.starts == told.starts
    # float32 keeps 24 bits: a sample's error is at most 2^-25 of the largest.
    assert np.linalg.norm(exact.taps - true) <= 2**-25 * np.abs(floats).max() * np.sqrt(recipe.patch) * spread * 32768


def test_true_filter_is_the_filter(scene):
    recipe, key = Recipe.paper(patch=300, taps=33, identity=True), study_key(0)
    taps = leak.true_filter(key, 2, recipe)
    assert taps[16] == 1.0
    clip = np.random.default_rng(0).uniform(-1, 1, 300).astype(np.float32)
    wet = clip[None].copy()
    protect(wet, [2], key, recipe=recipe)
    np.testing.assert_array_equal(wet[0], np.convolve(clip, taps, "same").astype(np.float32))
    np.testing.assert_allclose(leak._answer(taps, 300) @ clip, wet[0], rtol=0, atol=1e-5)


def test_more_pairs_narrow_the_place(scene):
    recipe = scene.condition.recipe
    own = np.flatnonzero(scene.labels == 1)[:4]
    pairs = [(scene.original[r, : scene.lengths[r]], scene.clips[r, : scene.lengths[r]]) for r in own]
    alone = [leak.learn([pair], recipe).fractions[0] for pair in pairs]
    (together,) = leak.learn(pairs, recipe).fractions
    assert leak.learn(pairs[::-1], recipe).fractions == [together]
    assert len(set(alone)) == len(alone)
    assert together == (max(low for low, _ in alone), min(high for _, high in alone))
    assert together[0] < together[1]


@pytest.mark.parametrize("identity", [False, True])
def test_a_leak_undoes_the_class(identity):
    scene = marked(poscuda(0.01, identity=identity))
    after, details = attacked(choose("leak-filter")[0], scene, seed=0)
    cleaned = after.clips
    before = np.sum((scene.clips.astype(float) - scene.original) ** 2)
    after = np.sum((cleaned.astype(float) - scene.original) ** 2)
    assert after < 0.1 * before
    assert details["pairs_exactly_placed"] == CLASSES
    assert max(details["filter_error_float32"]) < min(details["filter_error_int16"])
    covered = attacked(choose("leak-mirror")[0], scene, seed=0)[0].clips
    np.testing.assert_array_equal(covered[~(scene.clips != covered)], scene.clips[~(scene.clips != covered)])
    mask = places(scene)
    assert (covered != scene.clips)[mask].mean() > 0.9


def test_places_in_the_padded_clip_are_found_too():
    scene = marked(poscuda(0.01, absolute=True))
    _, details = attacked(choose("leak-filter")[0], scene, seed=0)
    assert len(details["filter_error_int16"]) == CLASSES
    cleaned = attacked(choose("leak-filter")[0], scene, seed=0)[0].clips
    before = np.sum((scene.clips.astype(float) - scene.original) ** 2)
    assert np.sum((cleaned.astype(float) - scene.original) ** 2) < before
