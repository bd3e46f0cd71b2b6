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

SILENT, NOT_FINITE = 1, 2  # what a survey finds in a patch

BITS: dict[Any, int] = {
    np.dtype(np.int16): 16,
    np.dtype(np.int32): 24,
    np.dtype(np.uint8): 24,
    np.dtype(np.float32): 24,
}
# Integer samples lie in [-TOP, TOP); floating point has no limit.
TOP: dict[Any, float] = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**23, np.dtype(np.float32): 0.0}
FULL_SCALE: dict[Any, float] = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**23, np.dtype(np.float32): 1.0}
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
