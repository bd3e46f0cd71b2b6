"""Where patches are: inside their clips, apart from each other, and the same however the work is divided."""

from __future__ import annotations

import dataclasses
import re

import naive
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from poscuda_fast import Key, Recipe
from poscuda_fast.mark import plan
from poscuda_fast.mark.filters import WORDS_PER_BLOCK, draw_words
from poscuda_fast.mark.labels import encode
from poscuda_fast.mark.patches import Patches
from poscuda_fast.mark.plan import Plan

MASTER = bytes(range(32))


def make_plan(labels, lengths, recipe: Recipe = Recipe.paper(), master: bytes = MASTER, rates=None) -> Plan:
    return plan.make_plan(Key(master), recipe, labels, None, np.array(lengths, np.int64), rates)


def rows(patches: Patches) -> list[tuple[int, ...]]:
    """(clip, start, frames, row of taps) of each patch."""
    columns = [getattr(patches, field.name) for field in dataclasses.fields(patches)]
    assert all(column.dtype == np.int64 and column.shape == (len(patches),) for column in columns)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def batches(made: Plan, most: int, skip: int = 0) -> list[Patches]:
    """Batches of at most so many patches in format 1, and of about so many frames of one byte in format 2."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "PATCHES_PER_BATCH", most)
        patch.setattr(plan, "BATCH_BYTES", most)
        return list(made.batches(1 if made.marks.steady else None, skip=skip))


def all_rows(made: Plan, most: int) -> list[tuple[int, ...]]:
    return [row for patches in batches(made, most) for row in rows(patches)]


seeds = st.binary(min_size=32, max_size=32)
recipes = st.builds(
    lambda patch, extra, patches: {
        "patch": patch,
        **({"patches": patches} if extra is None else {"every": patch + extra}),
    },
    patch=st.integers(1, 300),
    extra=st.none() | st.integers(0, 300),
    patches=st.integers(1, 40) | st.sampled_from([2**31 - 1]),
)


@settings(max_examples=150, deadline=None)
@given(seeds, st.integers(0, 2**64 - 1), st.integers(0, 900), recipes)
@example(MASTER, 0, 0, {"patch": 240})
@example(MASTER, 0, 239, {"patch": 240, "patches": 2})
@example(MASTER, 0, 240, {"patch": 240, "patches": 2})
@example(MASTER, 0, 480, {"patch": 240, "patches": 2})
@example(MASTER, 0, 481, {"patch": 240, "every": 240})
@example(MASTER, 0, 239, {"patch": 240, "every": 480})
def test_patches_of_a_clip(master, label, length, fields) -> None:
    recipe = Recipe.paper(**fields)
    made = make_plan([label], [length], recipe, master)
    patches = made.of_clip(0)
    starts, sizes = patches.starts.tolist(), patches.sizes.tolist()

    if length == 0:
        expected = 0
    elif recipe.every is not None:
        expected = max(1, length // recipe.every)
    else:
        expected = min(recipe.patches, length // min(recipe.patch, length))
    assert len(patches) == made.n_patches == expected
    assert all(size == min(recipe.patch, length) for size in sizes)
    assert patches.n_frames == made.n_frames == sum(sizes)
    assert made.counts()["short_clips"] == (length < recipe.patch)

    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    assert all(start >= end for start, end in zip(starts, [0, *ends], strict=False))  # sorted, apart, from 0 on
    assert all(end <= length for end in ends)
    assert list(zip(starts, sizes, strict=True)) == naive.places(master, label, length, **fields)


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(0, 400))
def test_every_place_can_be_drawn(patch, free) -> None:
    """The least and the greatest word lead to the first and the last place that one patch has."""
    spans = np.array([free + 1])
    assert plan._scale(np.array([0], np.uint32), spans).tolist() == [0]
    assert plan._scale(np.array([2**32 - 1], np.uint32), spans).tolist() == [free]


def test_one_patch_is_uniform_over_its_clip() -> None:
    """1,000 classes in a clip with 10 places: each place is drawn about 100 times, within 6 deviations."""
    made = make_plan(list(range(1000)), [249] * 1000, Recipe.paper(patch=240))
    seen = np.bincount(np.concatenate([patches.starts for patches in batches(made, 100)]), minlength=10)
    assert len(seen) == 10
    assert (abs(seen - 100) < 6 * (1000 * 0.1 * 0.9) ** 0.5).all()


@settings(deadline=None)
@given(st.data())
def test_the_division_into_batches_does_not_matter(data) -> None:
    n = data.draw(st.integers(0, 12))
    labels = data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    lengths = data.draw(st.lists(st.integers(0, 60), min_size=n, max_size=n))
    recipe = data.draw(
        st.sampled_from([Recipe.paper(patch=5), Recipe.paper(patch=5, patches=7), Recipe.paper(patch=5, every=6)])
    )
    step = data.draw(st.integers(1, 13))

    whole = make_plan(labels, lengths, recipe)
    expected = all_rows(whole, 10**6)
    assert all_rows(whole, 1) == all_rows(whole, 7) == expected
    assert all_rows(whole, 7) == expected  # a second time: a resumed run divides again
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "CLIPS_PER_STEP", step)
        stepped = make_plan(labels, lengths, recipe)
        assert all_rows(stepped, 1) == all_rows(stepped, 7) == all_rows(stepped, 10**6) == expected
        assert all(0 < len(patches) <= 7 for patches in batches(stepped, 7))
        for name in ("n_patches", "n_frames"):
            assert getattr(stepped, name) == getattr(whole, name)
        assert stepped.counts() == whole.counts()
        assert np.array_equal(stepped.marks.taps, whole.marks.taps)
        for skipped in range(len(expected) + 1):
            frames = sum(row[2] for row in expected[:skipped])
            left = [row for patches in batches(stepped, 3, frames) for row in rows(patches)]
            assert left == expected[skipped:]
    assert [row for clip in range(n) for row in rows(whole.of_clip(clip))] == expected
    backwards = np.arange(n)[::-1]
    assert sorted(rows(whole.of_clips(backwards))) == sorted(expected)
    assert np.array_equal(
        whole.of_clips(backwards).clips, np.repeat(backwards, [len(whole.of_clip(c)) for c in backwards])
    )
    assert [row[:3] for row in expected] == [
        (clip, start, size)
        for clip, (label, length) in enumerate(zip(labels, lengths, strict=True))
        for start, size in naive.places(MASTER, label, length, **without_defaults(recipe))
    ]
    assert all(np.array_equal(whole.marks.taps[row[3]], naive.filter_taps(MASTER, labels[row[0]])) for row in expected)


def without_defaults(recipe: Recipe) -> dict:
    return {
        field.name: getattr(recipe, field.name)
        for field in dataclasses.fields(recipe)
        if getattr(recipe, field.name) != field.default
    }


def test_clips_across_a_real_step_boundary() -> None:
    n = plan.CLIPS_PER_STEP + 3
    lengths = np.full(n, 1148)
    made = make_plan(np.arange(n) % 2, lengths)
    assert made.n_patches == n
    starts = np.concatenate([patches.starts for patches in batches(made, 50_000)])
    assert np.array_equal(starts, np.where(np.arange(n) % 2, 118, 134))
    clips = np.concatenate([patches.clips for patches in batches(made, 50_000)])
    assert np.array_equal(clips, np.arange(n))


def test_batches_are_full_within_a_step() -> None:
    made = make_plan([0] * 10, [1000] * 10, Recipe.paper(patch=10, patches=3))
    assert [len(patches) for patches in batches(made, 7)] == [7, 7, 7, 7, 2]


def test_more_patches_than_a_block_of_words() -> None:
    n = 2 * WORDS_PER_BLOCK + 5
    made = make_plan(["long"], [n * 3], Recipe.paper(patch=2, every=3))
    places = list(zip(made.of_clip(0).starts.tolist(), made.of_clip(0).sizes.tolist(), strict=True))
    assert len(places) == n
    picked = [0, WORDS_PER_BLOCK - 1, WORDS_PER_BLOCK, 2 * WORDS_PER_BLOCK - 1, 2 * WORDS_PER_BLOCK, n - 1]
    words = draw_words(Key(MASTER), encode(["long"], None, 1).tokens[0], n)
    assert [int(words[j]) for j in picked] == [naive.position_word(MASTER, "long", j) for j in picked]
    free = n * 3 - n * 2 + 1
    for j in picked:
        lo, hi = j * free // n, (j + 1) * free // n
        assert places[j] == (2 * j + lo + (int(words[j]) * (hi - lo) >> 32), 2)


@pytest.mark.parametrize("n", [0, 1, 5, WORDS_PER_BLOCK - 1, WORDS_PER_BLOCK, WORDS_PER_BLOCK + 1])
def test_fewer_words_are_the_beginning_of_more(n) -> None:
    many = draw_words(Key(MASTER), b"n0", 2 * WORDS_PER_BLOCK)
    few = draw_words(Key(MASTER), b"n0", n)
    assert few.dtype == np.uint32
    assert np.array_equal(few, many[:n])
    assert len(set(many.tolist())) == len(many)


# Lengths and counts beyond what can be listed: the arithmetic against exact integers.

huge = st.integers(0, 2**62)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(0, 2**40), st.integers(1, 2**31 - 1), st.integers(1, 12))
def test_huge_clips(master, length, patch, patches) -> None:
    made = make_plan([5], [length], Recipe.paper(patch=patch, patches=patches), master)
    found = made.of_clip(0)
    expected = naive.places(master, 5, length, patch=patch, patches=patches)
    assert list(zip(found.starts.tolist(), found.sizes.tolist(), strict=True)) == expected


def test_the_longest_clip_there_can_be() -> None:
    for length in (2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**53 + 1, 2**62, 2**63 - 1):
        fields = {"patch": 2**31 - 1, "patches": 3}
        found = make_plan([5], [length], Recipe.paper(**fields)).of_clip(0)
        expected = naive.places(MASTER, 5, length, **fields)
        assert list(zip(found.starts.tolist(), found.sizes.tolist(), strict=True)) == expected


@settings(max_examples=300, deadline=None)
@given(huge, st.integers(1, 2**31 - 1), st.data())
def test_multiply_divide_is_exact(a, n, data) -> None:
    b = data.draw(st.integers(0, n) | st.sampled_from([0, n]))
    assert int(plan._multiply_divide(np.array([a]), np.array([b]), np.array([n]))[0]) == a * b // n


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1) | st.just(2**32 - 1), huge | st.sampled_from([2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1]))
def test_scale_is_exact(word, span) -> None:
    scaled = plan._scale(np.array([word], np.uint32), np.array([span]))
    assert scaled.dtype == np.int64
    assert int(scaled[0]) == word * span >> 32


# The digest tells one data set from another.


def test_equal_labels_and_lengths_have_one_digest() -> None:
    digest = make_plan([0, 1, 0], [10, 20, 30]).digest()
    assert len(digest) == 32
    assert make_plan(np.array([0, 1, 0], np.uint8), (10, 20, 30)).digest() == digest
    assert make_plan([0, 1, 0], [10, 20, 30]).digest() == digest
    caf = [make_plan([name, "x"], [1, 2]).digest() for name in ("caf\u00e9", "cafe\u0301")]
    assert caf[0] == caf[1]
    classes = encode([1, 0], ["x", "caf\u00e9"], 2)
    assert plan.plan_of(Key(MASTER), Recipe.paper(), classes, np.array([1, 2])).digest() == caf[0]


@settings(deadline=None)
@given(st.data())
def test_digests_differ_when_labels_or_lengths_do(data) -> None:
    clip = st.tuples(st.sampled_from([0, 1, 2, 2**40]), st.integers(0, 50))
    one, other = data.draw(st.lists(clip, max_size=5)), data.draw(st.lists(clip, max_size=5))
    names = data.draw(st.sampled_from([int, str]))
    digests = [
        make_plan([names(label) for label, _ in clips], [length for _, length in clips]).digest()
        for clips in (one, other)
    ]
    assert (digests[0] == digests[1]) == (one == other)


def test_small_changes_change_the_digest() -> None:
    plans = [
        make_plan([0, 1, 0], [10, 20, 30]),
        make_plan([0, 1, 1], [10, 20, 30]),
        make_plan([1, 0, 1], [10, 20, 30]),
        make_plan([0, 2, 0], [10, 20, 30]),
        make_plan([0, 1, 0], [10, 20, 31]),
        make_plan([0, 1, 0], [20, 10, 30]),
        make_plan([0, 1], [10, 20]),
        make_plan([0, 1, 0, 0], [10, 20, 30, 0]),
        make_plan(["00", "01", "00"], [10, 20, 30]),
        make_plan([], []),
    ]
    assert len({made.digest() for made in plans}) == len(plans)


def test_the_digest_shows_neither_key_nor_recipe() -> None:
    """It goes into sidecars: from data that the owner of the file has anyway, nothing secret."""
    digest = make_plan([0, 1], [10, 20]).digest()
    assert make_plan([0, 1], [10, 20], Recipe.paper(blur=0.3), bytes(32)).digest() == digest


# Nothing secret is shown.


def test_reprs_show_no_positions() -> None:
    made = make_plan([0, 1, 34], [16000, 1148, 3], Recipe.paper(patches=4))
    (patches,) = made.batches(None)
    assert len(patches) == 9
    for shown in (repr(made), str(made), f"{made}"):
        assert shown == "Plan(3 clips)"
    for shown in (repr(patches), str(patches), f"{[patches]}"[1:-1]):
        assert shown == "Patches(9 patches)"
    secrets = {str(start) for start in patches.starts.tolist() if start > 100}
    assert secrets
    shown_numbers = set(re.findall(r"\d+", repr(made) + repr(patches) + repr(vars(made).keys())))
    assert not secrets & shown_numbers


def test_a_plan_of_no_clips() -> None:
    made = make_plan([], [])
    assert (made.n_patches, made.n_frames, made.counts()["short_clips"]) == (0, 0, 0)
    assert list(made.batches(None)) == []
    assert made.marks.taps.shape == (0, 80)


def test_taps_of_a_class() -> None:
    made = make_plan([0], [100], Recipe.paper(taps=7, identity=True))
    assert made.marks.taps.dtype == np.float32
    assert made.marks.taps.tolist() == [naive.filter_taps(MASTER, 0, taps=7, identity=True)]
    assert made.marks.taps[0, 3] == 1.0
    even = make_plan([0], [100], Recipe.paper(taps=8, identity=True)).marks.taps[0]
    assert even[3] == 1.0
    assert (even[[0, 1, 2, 4, 5, 6, 7]] < 0.01).all()


# Format 2: every frame, cut only where a batch would be too large.


@settings(deadline=None)
@given(st.data())
def test_steady_batches_cover_every_frame_once(data) -> None:
    n = data.draw(st.integers(0, 12))
    labels = data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    lengths = data.draw(st.lists(st.integers(0, 60), min_size=n, max_size=n))
    most, step = data.draw(st.integers(1, 80)), data.draw(st.integers(1, 13))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "CLIPS_PER_STEP", step)
        made = make_plan(labels, lengths, Recipe.strong())
        assert (made.n_frames, made.n_patches) == (sum(lengths), np.count_nonzero(lengths))
        frames = [
            (clip, frame, row)
            for clip, (label, length) in enumerate(zip(labels, lengths, strict=True))
            for frame in range(length)
            for row in [sorted(set(labels)).index(label)]
        ]
        skip = data.draw(st.integers(0, len(frames)))
        found = batches(made, most, skip)
        covered = [
            (clip, frame, row)
            for patches in found
            for clip, start, size, row in rows(patches)
            for frame in range(start, start + size)
        ]
        assert covered == frames[skip:]
        assert all(0 < patches.n_frames <= most for patches in found)
        whole = [row for patches in found for row in rows(patches) if row[1] == 0 and row[2] == lengths[row[0]]]
        cut = {row[0] for patches in found for row in rows(patches)} - {row[0] for row in whole}
        first = next((clip for clip, _, _ in frames[skip:]), None)
        assert all(lengths[clip] > most or clip == first for clip in cut)  # no clip is cut that fits


def test_a_clip_of_another_rate_has_a_row_of_its_own() -> None:
    made = make_plan([0, 1, 0, 1], [9, 9, 9, 9], Recipe.strong(), rates=np.array([16_000, 8_000, 8_000, 16_000]))
    assert made.rates == (8_000, 16_000)
    assert made.rows_of(np.arange(4)).tolist() == [2, 1, 0, 3]
    assert made.marks.periods == (256, 512)
    for row, (label, rate) in enumerate([(0, 8_000), (1, 8_000), (0, 16_000), (1, 16_000)]):
        assert made.marks.mark(row, np.dtype(np.int16)).tolist() == naive.mark(MASTER, label, rate, 1.0, 16)
    one = make_plan([0, 1, 0, 1], [9, 9, 9, 9], Recipe.strong(), rates=np.full(4, 16_000))
    assert one.digest() != made.digest()
    assert one.digest() == make_plan([0, 1, 0, 1], [9, 9, 9, 9], Recipe.strong(), rates=16_000).digest()


@pytest.mark.parametrize("rate", [1_999, 512_001, 0, -1])
def test_rates_that_format_2_has_no_mark_for_are_refused(rate) -> None:
    with pytest.raises(ValueError, match=f"sample_rate is {rate} Hz; it must be from 2000 to 512000 Hz"):
        make_plan([0], [9], Recipe.strong(), rates=rate)


def test_a_rate_that_nobody_gave_is_said_to_be_assumed() -> None:
    assert make_plan([0], [9], Recipe.strong()).settings()[2:4] == ((16_000,), True)
    assert make_plan([0], [9], Recipe.strong(), rates=16_000).settings()[2:4] == ((16_000,), False)
