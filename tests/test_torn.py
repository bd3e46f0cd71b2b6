"""A piece that a crash left half written: wherever it was cut, its original is found again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marked import Scene

from poscuda_fast import Recipe, Verdict
from poscuda_fast.mark.codings import CODINGS
from poscuda_fast.mark.torn import Torn, original_of_torn

KINDS = [("PCM_16", 44), ("PCM_16", 45), ("PCM_24", 44), ("FLOAT", 44), ("FLOAT", 58)]
each_kind = pytest.mark.parametrize(("coding", "first"), KINDS, ids=[f"{coding}@{first}" for coding, first in KINDS])
each_end = pytest.mark.parametrize("head_marked", [True, False], ids=["head marked", "tail marked"])


def check(scene: Scene, number: int, k: int, *, head_marked: bool) -> None:
    """The pieces before and behind this one are of the form that they have when samples are stored upwards."""
    part = scene.parts[number]
    before, behind = (scene.wet, scene.dry) if head_marked else (scene.dry, scene.wet)
    cut = scene.cut(part, k, head_marked=head_marked)
    now = np.concatenate([before[: part.start], cut, behind[part.stop :]])
    answer = scene.examine(now)
    assert answer.dry.tobytes() == scene.dry.tobytes(), (number, k)
    assert answer.wet.tobytes() == scene.wet.tobytes(), (number, k)
    whole = [np.array_equal(now[part], form[part]) for form in (scene.dry, scene.wet)]
    assert [answer.original[number], answer.protected[number], answer.torn[number]] == [*whole, not any(whole)]
    assert answer.found == ({} if any(whole) else {number: scene.dry[part].tobytes()})
    if not any(whole):
        assert answer.verdicts().tolist() == [Verdict.TORN]


@each_end
@each_kind
def test_every_cut_of_a_piece(coding: str, first: int, head_marked: bool) -> None:
    scene = Scene(coding, 1, [640 // CODINGS[coding]], [first])
    for number, part in enumerate(scene.parts):
        for k in scene.cuts(part):
            check(scene, number, k, head_marked=head_marked)


@each_end
@each_kind
@pytest.mark.parametrize("kind", ["loud", "odd"])
def test_cuts_among_samples_that_saturate_or_that_sums_round(
    coding: str, first: int, kind: str, head_marked: bool
) -> None:
    scene = Scene(coding, 2, [150], [first], kind, seed=5, recipe=Recipe.strong(9))
    for number, part in enumerate(scene.parts):
        for k in scene.cuts(part)[::5]:
            check(scene, number, k, head_marked=head_marked)


@given(
    coding=st.sampled_from(["PCM_16", "PCM_24"]),
    first=st.integers(0, 511),
    frames=st.integers(1, 300),
    channels=st.integers(1, 3),
    kind=st.sampled_from(["quiet", "loud"]),
    seed=st.integers(0, 49),
    head_marked=st.booleans(),
    data=st.data(),
)
def test_any_cut_at_any_place(coding, first, frames, channels, kind, seed, head_marked, data) -> None:
    scene = Scene(coding, channels, [frames], [first], kind, seed)
    number = data.draw(st.integers(0, len(scene.parts) - 1))
    check(scene, number, data.draw(st.sampled_from(scene.cuts(scene.parts[number]))), head_marked=head_marked)


@each_end
def test_several_pieces_of_a_batch_may_be_torn(head_marked: bool) -> None:
    """After a power cut, for one; each is found on its own."""
    scene = Scene("PCM_24", 1, [400, 300], [44, 5_000])
    now = scene.dry.copy()
    for number, part in enumerate(scene.parts):
        now[part] = scene.cut(part, 40 + 3 * number + number % 3, head_marked=head_marked)
    answer = scene.examine(now)
    assert answer.found == {number: scene.dry[part].tobytes() for number, part in enumerate(scene.parts)}
    assert answer.torn.all()
    assert answer.dry.tobytes() == scene.dry.tobytes()


def test_a_piece_torn_twice_needs_the_original_that_was_recorded() -> None:
    """Restoring stored other bytes over a torn piece, and was stopped too."""
    scene = Scene("PCM_16", 1, [500], [44])
    part = scene.parts[1]
    now = scene.dry.copy()
    now[part] = np.concatenate([scene.dry[part][:100], scene.wet[part][100:300], scene.dry[part][300:]])
    answer = scene.examine(now)
    assert (answer.found, answer.verdicts().tolist()) == ({}, [Verdict.NEITHER])
    answer = scene.examine(now, {1: scene.dry[part].tobytes()})
    assert (answer.found, answer.verdicts().tolist()) == ({}, [Verdict.TORN])
    assert answer.dry.tobytes() == scene.dry.tobytes()


def test_a_float_that_was_cut_is_found_or_called_changed() -> None:
    """Floats are stored at once, so that somebody else may have written this; no wrong original is made up."""
    scene = Scene("FLOAT", 1, [128], [0])
    found = []
    for k in range(1, 120):
        answer = scene.examine(np.concatenate([scene.wet[:k], scene.dry[k:]]))
        found += answer.verdicts().tolist()
        if found[-1] != Verdict.NEITHER:
            assert answer.dry.tobytes() == scene.dry.tobytes()
    assert set(found[3::4]) == {Verdict.TORN}
    assert set(found) <= {Verdict.ORIGINAL, Verdict.TORN, Verdict.NEITHER}
    assert Verdict.NEITHER in found


@given(content=st.binary(min_size=600, max_size=600))
def test_what_was_never_marked_is_not_found(content: bytes) -> None:
    scene = Scene("PCM_16", 1, [300], [44])
    answer = scene.examine(np.frombuffer(content, np.uint8).copy())
    assert (answer.found, answer.verdicts().tolist()) == ({}, [Verdict.NEITHER])


# The search itself


def torn_of(now: np.ndarray, undone: np.ndarray, coding: str = "PCM_16", origin: int = 0) -> Torn:
    return Torn(now, undone, coding, origin, np.zeros(len(now), np.uint8), set())


def test_every_cut_is_tried_from_either_end() -> None:
    now, undone = np.zeros(6, np.uint8), np.ones(6, np.uint8)
    tried: list[bytes] = []

    def fits(rows: np.ndarray) -> np.ndarray:
        tried.extend(row.tobytes() for row in rows)
        return np.zeros(len(rows), np.bool_)

    assert original_of_torn(torn_of(now, undone, "FLOAT"), fits) is None
    heads = [bytes([1] * k + [0] * (6 - k)) for k in range(1, 6)]
    assert tried == [*heads, *(bytes(1 - byte for byte in head) for head in heads)]


def test_the_first_that_fits_is_returned_and_one_byte_cannot_be_torn() -> None:
    now, undone = np.zeros(6, np.uint8), np.arange(1, 7, dtype=np.uint8)
    found = original_of_torn(torn_of(now, undone, "FLOAT"), lambda rows: rows[:, 1] == 2)
    assert found == bytes([1, 2, 0, 0, 0, 0])
    one = torn_of(now[:1], undone[:1])
    assert original_of_torn(one, lambda rows: np.ones(len(rows), np.bool_)) is None


@pytest.mark.parametrize("width", [2, 3])
@each_end
def test_the_sample_that_is_cut_is_computed(width: int, head_marked: bool) -> None:
    """Every pair of low and high bytes of an original and its sum, for marks of either sign."""
    rng = np.random.default_rng(0)
    top = 1 << 8 * width - 1
    coding = {2: "PCM_16", 3: "PCM_24"}[width]
    for _ in range(300):
        mark = int(rng.integers(-300, 300))
        original = int(rng.integers(-top + 300, top - 300))
        dry, wet, values = (
            np.frombuffer(n.to_bytes(width, "little", signed=True), np.uint8) for n in (original, original + mark, mark)
        )
        for low in range(1, width):
            head, tail = (wet, dry) if head_marked else (dry, wet)
            now = np.concatenate([head[:low], tail[low:]])
            garbage = np.full(width, 0xAA, np.uint8)  # what subtracting a mark from a cut sample leaves
            torn = Torn(now, garbage, coding, 0, values, set())
            expected = dry.tobytes()
            assert original_of_torn(torn, lambda rows: (rows == dry).all(axis=1)) == expected  # noqa: B023 - called here


def test_nothing_of_it_is_shown() -> None:
    assert repr(torn_of(np.full(3, 77, np.uint8), np.zeros(3, np.uint8))) == "Torn()"
