"""The arithmetic of FORMAT.md for one CPU thread, compiled by numba; releases the GIL."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels.adding import add_run, until_line
from poscuda_fast.kernels.compiling import kernel, use_wide_registers
from poscuda_fast.kernels.hashing import hash_pieces
from poscuda_fast.kernels.reference import TOP, Flags, Ints, LineTable, Samples, Table
from poscuda_fast.kernels.telling import mark_and_hash, tell_pieces

__all__ = [  # what every backend has
    "add_lines", "filter_patches", "hash_pieces", "mark_and_hash", "measure_patches", "survey_patches", "tell_pieces",
]  # fmt: skip


def filter_patches(
    samples: Samples, starts: Ints, sizes: Ints, rows: Ints, taps: Table, stride: int, flags: Flags | None = None
) -> int:
    """See `reference.filter_patches`: same arguments, same bits."""
    if flags is not None:
        _survey_patches(samples, starts, sizes, stride, flags)
    return int(_filter_patches(samples, starts, sizes, rows, taps, stride, TOP[samples.dtype]))


def add_lines(
    samples: Samples, starts: Ints, sizes: Ints, phases: Ints, rows: Ints, table: LineTable, stride: int
) -> int:
    """See `reference.add_lines`: same arguments, same bits."""
    return int(_add_lines(samples, starts, sizes, phases, rows, *table, stride))


def survey_patches(samples: Samples, starts: Ints, sizes: Ints, stride: int) -> Flags:
    """See `reference.survey_patches`."""
    flags = np.zeros(len(starts), np.uint8)
    _survey_patches(samples, starts, sizes, stride, flags)
    return flags


def measure_patches(
    samples: Samples, starts: Ints, sizes: Ints, stride: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """See `reference.measure_patches`."""
    energies, peaks = np.zeros(len(starts)), np.zeros(len(starts))
    _measure_patches(samples, starts, sizes, stride, energies, peaks)
    return energies, peaks


@kernel
def _filter_patches(
    samples: Samples, starts: Ints, sizes: Ints, rows: Ints, taps: Table, stride: int, top: float
) -> int:
    n_taps = taps.shape[1]
    lead = n_taps - 1 - (n_taps - 1) // 2
    longest = 0
    for n in range(sizes.size):
        longest = max(longest, sizes[n])
    # With zeros around the patch and reversed filters, y[j] is the plain sum of f[t] * x[j + t].
    # An index like n_taps - 1 - t + j would hinder vectorisation.
    x = np.zeros(longest + n_taps - 1)
    y = np.zeros(longest)
    flipped = taps[:, ::-1].astype(np.float64)
    saturated = 0
    for n in range(starts.size):
        start, size = starts[n], sizes[n]
        f = flipped[rows[n]]
        _load(samples, start, size, stride, x[lead : lead + size])
        x[lead + size : size + n_taps - 1] = 0.0
        _convolve(x, f, y, size)
        saturated += _store(y, samples, start, size, stride, top)
    return saturated


@kernel
def _add_lines(
    samples: Samples,
    starts: Ints,
    sizes: Ints,
    phases: Ints,
    rows: Ints,
    values: NDArray[Any],
    firsts: Ints,
    periods: Ints,
    stride: int,
) -> int:
    odd = 0
    for n in range(starts.size):
        first, period = firsts[rows[n]], periods[rows[n]]
        done, phase = 0, phases[n] % period
        head = until_line(samples, starts[n], stride)
        while done < sizes[n]:
            size = min(sizes[n] - done, period - phase)
            if done == 0 and head > 0:
                size = min(size, head)
            mark = values[first + phase : first + phase + size]
            odd += add_run(samples, starts[n] + done * stride, stride, mark)
            done += size
            phase = (phase + size) % period
    return odd


@kernel
def _load(samples: NDArray[Any], start: int, size: int, stride: int, x: NDArray[np.float64]) -> None:
    """The patch as float64; the slice for stride 1 lets the compiler vectorise."""
    if stride == 1:
        dry = samples[start : start + size]
        for t in range(size):
            x[t] = dry[t]
    else:
        for t in range(size):
            x[t] = samples[start + t * stride]


@kernel
def _convolve(x: NDArray[np.float64], f: NDArray[np.float64], y: NDArray[np.float64], size: int) -> None:
    """y[j] = sum over t ascending of f[t] * x[j + t]; eight taps a pass keep y in registers longer."""
    use_wide_registers()
    y[:size] = 0.0
    whole = f.size - f.size % 8
    for t in range(0, whole, 8):
        f0, f1, f2, f3 = f[t], f[t + 1], f[t + 2], f[t + 3]
        f4, f5, f6, f7 = f[t + 4], f[t + 5], f[t + 6], f[t + 7]
        z = x[t : t + size + 7]
        for j in range(size):
            s = y[j]
            s += f0 * z[j]
            s += f1 * z[j + 1]
            s += f2 * z[j + 2]
            s += f3 * z[j + 3]
            s += f4 * z[j + 4]
            s += f5 * z[j + 5]
            s += f6 * z[j + 6]
            s += f7 * z[j + 7]
            y[j] = s
    for t in range(whole, f.size):
        for j in range(size):
            y[j] += f[t] * x[j + t]


@kernel
def _store(y: NDArray[np.float64], samples: NDArray[Any], start: int, size: int, stride: int, top: float) -> int:
    """Store float64 sums as samples; returns how many were saturated."""
    over = 0
    if top > 0.0:
        for j in range(size):
            rounded = np.rint(y[j])  # half to even
            limited = min(max(rounded, -top), top - 1.0)
            over += limited != rounded
            y[j] = limited
    if stride == 1:
        wet = samples[start : start + size]
        for j in range(size):
            wet[j] = y[j]
    else:
        for j in range(size):
            samples[start + j * stride] = y[j]
    return over


@kernel
def _measure_patches(
    samples: Samples,
    starts: Ints,
    sizes: Ints,
    stride: int,
    energies: NDArray[np.float64],
    peaks: NDArray[np.float64],
) -> None:
    for n in range(starts.size):
        total = peak = 0.0
        for t in range(sizes[n]):
            sample = np.float64(samples[starts[n] + t * stride])
            total += sample * sample
            if abs(sample) > peak:  # noqa: PLR1730 - `max` may keep a NaN
                peak = abs(sample)
        energies[n], peaks[n] = total, peak


@kernel
def _survey_patches(samples: Samples, starts: Ints, sizes: Ints, stride: int, flags: Flags) -> None:
    for n in range(starts.size):
        silent = finite = True
        for t in range(sizes[n]):
            sample = samples[starts[n] + t * stride]
            silent &= sample == 0
            finite &= sample - sample == 0  # infinity and NaN minus themselves are NaN
        flags[n] = silent | (not finite) << 1
