"""Pieces: they tile every patch, end where blocks of the file end, and samples that lie in two are found."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poscuda_fast.mark.codings import CODINGS
from poscuda_fast.mark.patches import Patches
from poscuda_fast.mark.stretches import BLOCK, Stretches

codings = st.sampled_from(sorted(CODINGS))
sizes_in_frames = st.lists(st.integers(1, 900), min_size=1, max_size=6)


def stretches_of(coding: str, channels: int, sizes: list[int], firsts: list[int]) -> Stretches:
    n = np.arange(len(sizes), dtype=np.int64)
    patches = Patches(n, 0 * n, np.array(sizes, np.int64), 0 * n)
    return Stretches(coding, channels, patches, np.array(firsts, np.int64), computed=True)


def naive_pieces(stretches: Stretches) -> list[tuple[int, int, int]]:
    """(first byte in a dense buffer, bytes, patch) of each piece, byte by byte."""
    found: list[tuple[int, int, int]] = []
    position = 0
    for owner, (first, size) in enumerate(zip(stretches.firsts.tolist(), stretches.sizes.tolist(), strict=True)):
        for _, run in itertools.groupby(range(first, first + size), lambda byte: byte // BLOCK):
            n = len(list(run))
            found.append((position, n, owner))
            position += n
    return found


def naive_straddlers(stretches: Stretches) -> list[int]:
    """The samples of a dense buffer of which some bytes lie in one block of the file and some in the next."""
    found, number = [], 0
    width = stretches.sample_bytes
    for first, size in zip(stretches.firsts.tolist(), stretches.sizes.tolist(), strict=True):
        for begin in range(first, first + size, width):
            if begin // BLOCK != (begin + width - 1) // BLOCK:
                found.append(number)
            number += 1
    return found


def check(stretches: Stretches) -> None:
    pieces = stretches.pieces
    assert [tuple(map(int, piece)) for piece in zip(*pieces, strict=True)] == naive_pieces(stretches)
    assert stretches.straddlers.tolist() == naive_straddlers(stretches)
    owners = pieces.owners.tolist()
    assert pieces.edges.tolist() == [owners.index(owner) for owner in range(len(stretches))]
    assert [pieces.of(n) for n in range(len(owners))] == [slice(a, a + n) for a, n, _ in naive_pieces(stretches)]
    covered = np.concatenate([np.arange(stretches.n_bytes)[pieces.of(n)] for n in range(len(owners))])
    assert covered.tolist() == list(range(stretches.n_bytes))
    assert pieces.sizes.max() <= BLOCK


@pytest.mark.parametrize("coding", sorted(CODINGS))
@pytest.mark.parametrize("frames", [1, 170, 171, 255, 256, 257, 500])
def test_pieces_tile_a_patch_at_every_offset(coding: str, frames: int) -> None:
    for first in range(BLOCK):
        check(stretches_of(coding, 1, [frames], [first]))


@given(coding=codings, channels=st.integers(1, 3), sizes=sizes_in_frames, data=st.data())
def test_pieces_tile_any_patches(coding: str, channels: int, sizes: list[int], data: st.DataObject) -> None:
    firsts = data.draw(st.lists(st.integers(0, 1 << 40), min_size=len(sizes), max_size=len(sizes)))
    check(stretches_of(coding, channels, sizes, firsts))


def test_two_patches_that_meet_in_a_block_have_pieces_of_their_own() -> None:
    stretches = stretches_of("PCM_16", 1, [100, 100], [44, 244])
    assert [tuple(map(int, piece)) for piece in zip(*stretches.pieces, strict=True)] == [(0, 200, 0), (200, 200, 1)]


@pytest.mark.parametrize("coding", sorted(CODINGS))
def test_whole_samples_never_straddle_at_multiples_of_their_size(coding: str) -> None:
    """Blocks are no multiple of three bytes, so that 24-bit samples always do."""
    width = CODINGS[coding]
    stretches = stretches_of(coding, 1, [2000], [width * 11])
    assert (len(stretches.straddlers) > 0) == (width == 3)
    assert len(stretches_of(coding, 1, [2000], [width * 11 + 1]).straddlers) > 0


@given(sizes=sizes_in_frames, first=st.integers(0, 2000), data=st.data())
def test_what_holds_of_pieces_is_gathered_for_patches_and_spread_over_bytes(
    sizes: list[int], first: int, data: st.DataObject
) -> None:
    stretches = stretches_of("PCM_16", 1, sizes, [first + 9_999 * n for n in range(len(sizes))])
    pieces = naive_pieces(stretches)
    n = len(pieces)
    which = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    every = [all(which[n] for n, (_, _, owner) in enumerate(pieces) if owner == patch) for patch in range(len(sizes))]
    assert stretches.pieces.every(which).tolist() == every
    spread = [bool(held) for held, (_, size, _) in zip(which, pieces, strict=True) for _ in range(size)]
    assert stretches.pieces.spread(which).tolist() == spread
    one = np.zeros(stretches.n_bytes, np.uint8)
    other = one.copy()
    for held, (start, size, _) in zip(which, pieces, strict=True):
        other[start + size - 1] = not held
    assert stretches.pieces.alike(one, other).tolist() == which.tolist()
    assert stretches.pieces.alike(one, one.copy()).all()


def test_no_patches_have_no_pieces() -> None:
    stretches = stretches_of("FLOAT", 2, [], [])
    assert stretches.n_bytes == 0
    assert [len(field) for field in stretches.pieces] == [0, 0, 0]
    assert stretches.straddlers.tolist() == stretches.pieces.edges.tolist() == []
    none = np.empty(0, np.bool_)
    assert stretches.pieces.every(none).tolist() == []
    assert stretches.pieces.alike(np.empty(0, np.uint8), np.empty(0, np.uint8)).tolist() == []


def test_places_are_secret() -> None:
    stretches = stretches_of("PCM_16", 1, [123_457], [98_765])
    assert repr(stretches) == "Stretches(1 patches)"
    with pytest.raises(TypeError, match="is secret"):
        pickle.dumps(stretches)
