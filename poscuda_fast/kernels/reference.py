"""The arithmetic of FORMAT.md in NumPy, without tricks: specification, last fallback and baseline."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Flat: int16, float32, int32 that holds 24-bit PCM, or uint8 that holds it in 3 bytes, little-endian.
Samples = NDArray[Any]
Ints = NDArray[np.int64]
Table = NDArray[np.float32]  # a row for each class
Flags = NDArray[np.uint8]
Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]

SILENT, NOT_FINITE = 1, 2  # what a survey finds in a patch
ORIGINAL, MARKED = 1, 2  # what a piece is told to be

BITS: dict[Any, int] = {
    np.dtype(np.int16): 16,
    np.dtype(np.int32): 24,
    np.dtype(np.uint8): 24,
    np.dtype(np.float32): 24,
}
# Integer samples lie in [-TOP, TOP); floating point has no limit.
TOP: dict[Any, float] = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**23, np.dtype(np.float32): 0.0}
FULL_SCALE: dict[Any, float] = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**23, np.dtype(np.float32): 1.0}
PIECE_BYTES = 512  # of the longest piece
KEY_WORDS = 130  # of a key of `hash_pieces`: two for each word of a piece, and two for the end
WRAP = 64  # values that a row of a `LineTable` has beyond its period, for each channel


class LineTable(NamedTuple):
    """What format 2 adds: a row for each class at each sample rate.

    Attributes
    ----------
    values : (n,) int16, int32 or float32
        The rows, one behind the other; each holds a period and then its first samples again, at least `WRAP`.
    firsts : (n_rows,) int64
        Where each row begins in `values`.
    periods : (n_rows,) int64
        Samples in a period, at least `WRAP`.
    """

    values: NDArray[Any]
    firsts: Ints
    periods: Ints


def filter_patches(
    samples: Samples, starts: Ints, sizes: Ints, rows: Ints, taps: Table, stride: int, flags: Flags | None = None
) -> int:
    """Convolve each patch with its filter, in place.

    Patch n is ``samples[starts[n] + t * stride]`` for t in 0..sizes[n]-1; its filter is
    ``taps[rows[n]]``. Patches must not overlap. `samples` is flat: int16, float32, or int32 that
    holds 24-bit PCM. Samples are finite: what becomes of others is not defined. Returns how many samples were
    saturated. `flags`, if given, is filled with what `survey_patches` finds before.
    """
    if flags is not None:
        flags[:] = survey_patches(samples, starts, sizes, stride)
    n_taps = taps.shape[1]
    centre = (n_taps - 1) // 2
    saturated = 0
    for start, size, row in zip(starts, sizes, rows, strict=True):
        f = taps[row].astype(np.float64)
        places = start + stride * np.arange(size)
        x = samples[places].astype(np.float64)
        y = np.zeros(size)
        for i in range(size):  # ascending input sample: no backend may reorder the sum
            first, end = max(0, i - centre), min(int(size), i - centre + n_taps)
            y[first:end] += f[first + centre - i : end + centre - i] * x[i]
        wet, over = _store(y, samples.dtype)
        samples[places] = wet
        saturated += over
    return saturated


def add_lines(
    samples: Samples, starts: Ints, sizes: Ints, phases: Ints, rows: Ints, table: LineTable, stride: int
) -> int:
    """Add the lines of its class to each patch, in place.

    Patch n is ``samples[starts[n] + t * stride]`` for t in 0..sizes[n]-1, and gets the values
    ``(phases[n] + t) % period`` of row ``rows[n]``. Of uint8 samples, places and strides count samples of 3 bytes.
    Returns how many integer samples were saturated, or how many of float32 are not finite: these keep their bits.
    """
    odd = 0
    for start, size, phase, row in zip(starts, sizes, phases, rows, strict=True):
        t = np.arange(size)
        mark = table.values[table.firsts[row] + (phase + t) % table.periods[row]]
        odd += _add(samples, start + t * stride, mark)
    return odd


def survey_patches(samples: Samples, starts: Ints, sizes: Ints, stride: int) -> Flags:
    """What each patch holds, (n_patches,) uint8: bit 0 is set for zeros only, bit 1 for a NaN or infinity."""
    flags = np.zeros(len(starts), np.uint8)
    for n, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        patch = samples[start + stride * np.arange(size)]
        flags[n] = (not patch.any()) | (not np.isfinite(patch).all()) << 1
    return flags


def measure_patches(
    samples: Samples, starts: Ints, sizes: Ints, stride: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sum of squares and the largest magnitude of each patch, both (n_patches,).

    A NaN makes the sum NaN. Sums may be rounded: backends differ in the last digits.
    """
    energies, peaks = np.zeros(len(starts)), np.zeros(len(starts))
    for n, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        patch = samples[start + stride * np.arange(size)].astype(np.float64)
        energies[n], peaks[n] = np.sum(patch * patch), np.fmax.reduce(np.abs(patch), initial=0.0)
    return energies, peaks


def hash_pieces(data: Bytes, starts: Ints, sizes: Ints, key: Words) -> Words:
    """The keyed hash of each piece ``data[starts[n] : starts[n] + sizes[n]]``, (n_pieces,) uint64.

    `data` is flat and may begin at any address; a piece has up to `PIECE_BYTES`, and `key` has `KEY_WORDS`. FORMAT.md,
    "Hash of a piece", after NH of UMAC (RFC 4418, section 5.2.2).
    """
    hashes = np.empty(len(starts), np.uint64)
    halves = key.astype("<u8").view("<u4").reshape(-1, 2)
    for n, (start, size) in enumerate(zip(starts.tolist(), sizes.tolist(), strict=True)):
        padded = np.zeros(-(-size // 8) * 8, np.uint8)
        padded[:size] = data[start : start + size]
        w = padded.view("<u4").reshape(-1, 2)
        nh = []
        for part in (halves[:64], halves[64:128]):
            both = (w + part[: len(w)]).astype(np.uint64)
            nh.append(int((both[:, 0] * both[:, 1]).sum()))
        first = _finish((nh[0] + size * 0x9E3779B97F4A7C15) % 2**64 ^ int(key[128]))
        second = _finish(nh[1] ^ int(key[129]))
        hashes[n] = (first + second * 0xD6E8FEB86659FD93) % 2**64
    return hashes


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
    """Put the marked form of each piece into `wet`; returns the hash of each original, and what `add_lines` does.

    Hashes are (n_pieces,) uint64. Pieces, their marks and hashes are those of `tell_pieces`; `wet` is like `samples`
    and does not overlap it.
    """
    width = 3 if samples.dtype == np.uint8 else 1
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        part = slice(width * start, width * (start + size))
        wet[part] = samples[part]
    odd = add_lines(wet, starts, sizes, phases, rows, table, 1)
    each = width * samples.itemsize
    return hash_pieces(samples.view(np.uint8), each * starts, each * sizes, key), odd


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
    """What each piece is, (n_pieces,) uint8: bits of ORIGINAL and MARKED.

    Piece n is ``samples[starts[n] : starts[n] + sizes[n]]``, int16, float32 or uint8 as in `add_lines`, of up to
    `PIECE_BYTES`; ``sums[n]`` is the hash of its original under `key`, and its mark is that of a patch in `add_lines`.
    It is marked if without the mark it has that hash, and marking that gives what is there. Otherwise it is original if
    it has that hash itself. It is both if its mark changes nothing.

    The original of a piece that is told is put into `dry`, which is like `samples` and does not overlap it; what
    becomes of the place of any other piece is not defined. Pieces must not overlap.
    """
    states = np.zeros(len(starts), np.uint8)
    minus = table._replace(values=-table.values)
    width = 3 if samples.dtype == np.uint8 else 1
    for n, (start, size) in enumerate(zip(starts.tolist(), sizes.tolist(), strict=True)):
        part = slice(width * start, width * (start + size))
        place = np.zeros(1, np.int64), sizes[n : n + 1], phases[n : n + 1], rows[n : n + 1]
        now, undone = samples[part].copy(), samples[part].copy()
        add_lines(undone, *place, minus, 1)
        for tried, state in ((undone, MARKED), (now, ORIGINAL)):
            again = tried.copy()
            add_lines(again, *place, table, 1)
            content = tried.view(np.uint8)
            fits = hash_pieces(content, place[0], np.array([content.size]), key)[0] == sums[n]
            if not fits or (state == MARKED and again.tobytes() != now.tobytes()):
                continue
            states[n] = state if again.tobytes() != tried.tobytes() else ORIGINAL | MARKED
            dry[part] = tried
            break
    return states


def _finish(x: int) -> int:
    """The finalizer of MurmurHash3."""
    x = (x ^ x >> 33) * 0xFF51AFD7ED558CCD % 2**64
    x = (x ^ x >> 33) * 0xC4CEB9FE1A85EC53 % 2**64
    return x ^ x >> 33


def _add(samples: Samples, places: Ints, mark: NDArray[Any]) -> int:
    """Add a mark at some places; see `add_lines`."""
    if samples.dtype.kind == "f":
        finite = np.isfinite(samples[places])
        samples[places[finite]] += mark[finite]
        return int((~finite).sum())
    if samples.dtype == np.uint8:
        triples = samples.reshape(-1, 3)
        wide = np.zeros((len(places), 4), np.uint8)
        wide[:, 1:] = triples[places]
        packed = wide.view("<i4").reshape(-1)
        packed >>= 8
        over = _add(packed, np.arange(len(places)), mark)
        triples[places] = packed.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3]
        return over
    total = samples[places].astype(np.int64) + mark
    limited = np.clip(total, -TOP[samples.dtype], TOP[samples.dtype] - 1)
    samples[places] = limited
    return int((limited != total).sum())


def _store(y: NDArray[np.float64], dtype: np.dtype[Any]) -> tuple[NDArray[Any], int]:
    """float64 sums as samples, and how many of them were saturated."""
    top = TOP[dtype]
    if top == 0.0:
        with np.errstate(over="ignore", under="ignore"):
            return y.astype(np.float32), 0
    rounded = np.rint(y)
    limited = np.clip(rounded, -top, top - 1)
    return limited.astype(dtype), int((limited != rounded).sum())
