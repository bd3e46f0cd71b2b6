"""Tells marked pieces from original ones (FORMAT.md, "Pieces"), for numba: one CPU thread; releases the GIL."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels.adding import add_run
from poscuda_fast.kernels.compiling import kernel, word_at
from poscuda_fast.kernels.hashing import HALF, LOW, hash_piece
from poscuda_fast.kernels.reference import MARKED, ORIGINAL, PIECE_BYTES, Flags, Ints, LineTable, Samples, Words


def tell_pieces(
    samples: Samples,
    starts: Ints,
    sizes: Ints,
    phases: Ints,
    rows: Ints,
    table: LineTable,
    sums: Words,
    key: Words,
    dry: Samples,
) -> Flags:
    """See `reference.tell_pieces`: same arguments, same states."""
    states = np.zeros(len(starts), np.uint8)
    width = 3 if samples.dtype == np.uint8 else 1
    with np.errstate(over="ignore"):  # where numba does not compile: NumPy warns of numbers that wrap around
        _tell_pieces(samples, width, starts, sizes, phases, rows, *table, sums, key, dry, states)
    return states


def mark_and_hash(
    samples: Samples,
    starts: Ints,
    sizes: Ints,
    phases: Ints,
    rows: Ints,
    table: LineTable,
    key: Words,
    wet: Samples,
) -> tuple[Words, int]:
    """See `reference.mark_and_hash`: same arguments, same bits."""
    sums = np.zeros(len(starts), np.uint64)
    width = 3 if samples.dtype == np.uint8 else 1
    with np.errstate(over="ignore"):
        odd = int(_mark_and_hash(samples, width, starts, sizes, phases, rows, *table, key, wet, sums))
    return sums, odd


@kernel
def _mark_and_hash(
    samples: Samples,
    width: int,
    starts: Ints,
    sizes: Ints,
    phases: Ints,
    rows: Ints,
    values: NDArray[Any],
    firsts: Ints,
    periods: Ints,
    key: Words,
    wet: Samples,
    sums: Words,
) -> int:
    """`width` is how many elements of `samples` make a sample."""
    low, high = key & LOW, key >> HALF
    odd = 0
    for n in range(starts.size):
        begin, end = width * starts[n], width * (starts[n] + sizes[n])
        before, after = samples[begin:end], wet[begin:end]
        _copy(before, after)
        first, period = firsts[rows[n]], periods[rows[n]]
        done, phase = 0, phases[n] % period
        while done < sizes[n]:
            size = min(sizes[n] - done, period - phase)
            odd += add_run(after, done, 1, values[first + phase : first + phase + size])
            done += size
            phase = 0
        sums[n] = hash_piece(before.view(np.uint8), low, high)
    return odd


@kernel
def _tell_pieces(
    samples: Samples,
    width: int,
    starts: Ints,
    sizes: Ints,
    phases: Ints,
    rows: Ints,
    values: NDArray[Any],
    firsts: Ints,
    periods: Ints,
    sums: Words,
    key: Words,
    dry: Samples,
    states: Flags,
) -> None:
    """`width` is how many elements of `samples` make a sample."""
    low, high = key & LOW, key >> HALF
    most = PIECE_BYTES // samples.itemsize
    before, again = np.empty(most, samples.dtype), np.empty(most, samples.dtype)  # they stay in the first cache
    mark, minus = np.empty(most, values.dtype), np.empty(most, values.dtype)
    for n in range(starts.size):
        begin, end, size = width * starts[n], width * (starts[n] + sizes[n]), width * sizes[n]
        now = samples[begin:end]
        _take_mark(values, firsts[rows[n]], periods[rows[n]], phases[n], mark[: sizes[n]], minus[: sizes[n]])
        _copy(now, before)
        add_run(before, 0, 1, minus[: sizes[n]])
        _copy(before[:size], again)
        add_run(again, 0, 1, mark[: sizes[n]])
        if _equal(again[:size], now) and hash_piece(before[:size].view(np.uint8), low, high) == sums[n]:
            states[n] = ORIGINAL | MARKED if _equal(before[:size], now) else MARKED
        else:
            _copy(now, before)
            if hash_piece(before[:size].view(np.uint8), low, high) != sums[n]:
                continue
            _copy(now, again)
            add_run(again, 0, 1, mark[: sizes[n]])
            states[n] = ORIGINAL | MARKED if _equal(again[:size], now) else ORIGINAL
        _copy(before[:size], dry[begin:end])


@kernel
def _take_mark(
    values: NDArray[Any], first: int, period: int, phase: int, mark: NDArray[Any], minus: NDArray[Any]
) -> None:
    """The mark of one piece, and its negative."""
    phase %= period
    done = 0
    while done < mark.size:
        n = min(mark.size - done, period - phase)
        part = values[first + phase : first + phase + n]
        to, negative = mark[done : done + n], minus[done : done + n]
        for t in range(part.size):
            to[t] = part[t]
        for t in range(part.size):
            negative[t] = -part[t]
        done += n
        phase = 0


@kernel
def _copy(source: NDArray[Any], to: NDArray[Any]) -> None:
    """A loop, which takes a fifth of the time of numba's own assignment to a slice."""
    for t in range(source.size):
        to[t] = source[t]


@kernel
def _equal(one: Samples, other: Samples) -> bool:
    """Whether two runs of samples have the same bits."""
    x, y = one.view(np.uint8), other.view(np.uint8)
    whole = x.size // 8
    changed = np.uint64(0)
    for i in range(whole):
        changed |= word_at(x, 8 * i) ^ word_at(y, 8 * i)
    for i in range(8 * whole, x.size):
        changed |= np.uint64(x[i] ^ y[i])
    return bool(changed == 0)
