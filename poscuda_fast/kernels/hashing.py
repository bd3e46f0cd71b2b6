"""FORMAT.md, "Hash of a piece", for numba: one CPU thread; releases the GIL."""

from __future__ import annotations

from typing import Any

import numpy as np

from poscuda_fast.kernels.compiling import kernel, prefetch, use_wide_registers, word_at
from poscuda_fast.kernels.reference import PIECE_BYTES, Bytes, Ints, Words

LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
PIECE_WORDS = PIECE_BYTES // 8
LINE, AHEAD = 64, 2048  # bytes


def hash_pieces(data: Bytes, starts: Ints, sizes: Ints, key: Words) -> Words:
    """See `reference.hash_pieces`: same arguments, same hashes."""
    hashes = np.empty(len(starts), np.uint64)
    with np.errstate(over="ignore"):  # where numba does not compile: NumPy warns of numbers that wrap around
        _hash_pieces(data, starts, sizes, key, hashes)
    return hashes


@kernel
def _hash_pieces(data: Bytes, starts: Ints, sizes: Ints, key: Words, hashes: Words) -> None:
    low, high = key & LOW, key >> HALF
    for n in range(starts.size):
        for t in range(0, sizes[n], LINE):  # of pieces to come: they mostly lie one behind the other
            prefetch(data, starts[n] + t + AHEAD)
        hashes[n] = hash_piece(data[starts[n] : starts[n] + sizes[n]], low, high)


@kernel
def hash_piece(piece: Bytes, low: Words, high: Words) -> Any:
    """The hash of one piece; `low` and `high` are the halves of the key's words."""
    whole = piece.size // 8
    first, second = _sum_words(piece[: 8 * whole], low, high)
    if 8 * whole < piece.size:
        w = np.uint64(0)
        for t in range(8 * whole, piece.size):
            w |= np.uint64(piece[t]) << np.uint64(8 * (t - 8 * whole))
        first += _product(w, low[whole], high[whole])
        second += _product(w, low[PIECE_WORDS + whole], high[PIECE_WORDS + whole])
    first += np.uint64(piece.size) * np.uint64(0x9E3779B97F4A7C15)
    first = _finish(first ^ (low[2 * PIECE_WORDS] | (high[2 * PIECE_WORDS] << HALF)))
    second = _finish(second ^ (low[2 * PIECE_WORDS + 1] | (high[2 * PIECE_WORDS + 1] << HALF)))
    return first + second * np.uint64(0xD6E8FEB86659FD93)


@kernel
def _sum_words(words: Bytes, low: Words, high: Words) -> tuple[np.uint64, np.uint64]:
    """NH_0 and NH_1 of whole words."""
    use_wide_registers()
    first = second = np.uint64(0)
    for i in range(words.size // 8):
        w = word_at(words, 8 * i)
        first += _product(w, low[i], high[i])
        second += _product(w, low[PIECE_WORDS + i], high[PIECE_WORDS + i])
    return first, second


@kernel
def _product(w: np.uint64, low: np.uint64, high: np.uint64) -> np.uint64:
    """The halves of a word, each with that of the key, multiplied."""
    return ((w + low) & LOW) * (((w >> HALF) + high) & LOW)


@kernel
def _finish(x: np.uint64) -> np.uint64:
    """The finalizer of MurmurHash3."""
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return x ^ (x >> np.uint64(33))
