"""The arithmetic of FORMAT.md for one CPU thread, compiled by numba; releases the GIL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

# "contract" lets the compiler fuse multiply and add. A product of two float32 values is exact in
# float64, so fused and unfused sums have the same bits; nothing here may be reordered.
_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}

# Integers lie in [-top, top); int32 holds 24-bit PCM; 0 means floating point.
_TOP = {"i2": 2.0**15, "i4": 2.0**23, "f4": 0.0}
_FULL_SCALE = {"i2": 2.0**15, "i4": 2.0**23, "f4": 1.0}


@intrinsic
def _prefer_512_bits(typing_context: Any) -> Any:
    del typing_context

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature, arguments
        # llvmlite's own `add` knows no attributes that have values.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), emit


def use_wide_registers() -> None:
    """Called in a kernel: let LLVM use 512-bit registers there, where it prefers half of that; a third less time."""


@overload(use_wide_registers)
def _use_wide_registers() -> Callable[[], None]:
    def implementation() -> None:
        _prefer_512_bits()  # type: ignore[call-arg]

    return implementation


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first use; keep the result on disk where a cache folder is writable."""
    compiled: Callable[..., Any]
    try:
        compiled = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # numba found no folder it may write
        compiled = numba.njit(**_OPTIONS)(function)
    return compiled


def filter_patches(
    samples: NDArray[Any],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    rows: NDArray[np.int64],
    taps: NDArray[np.float32],
    stride: int,
) -> int:
    """See `reference.filter_patches`: same arguments, same bits."""
    top = _TOP[samples.dtype.str[1:]]
    return int(_filter_patches(samples, starts, sizes, rows, taps, stride, top))


def add_patches(
    samples: NDArray[Any],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    rows: NDArray[np.int64],
    sounds: NDArray[np.float32],
    stride: int,
) -> int:
    """See `reference.add_patches`: same arguments, same bits."""
    kind = samples.dtype.str[1:]
    scaled = _FULL_SCALE[kind] * sounds.astype(np.float64)
    return int(_add_patches(samples, starts, sizes, rows, scaled, stride, _TOP[kind]))


def survey_patches(
    samples: NDArray[Any], starts: NDArray[np.int64], sizes: NDArray[np.int64], stride: int
) -> NDArray[np.uint8]:
    """See `reference.survey_patches`."""
    flags = np.zeros(len(starts), np.uint8)
    _survey_patches(samples, starts, sizes, stride, flags)
    return flags


@kernel
def _filter_patches(
    samples: NDArray[Any],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    rows: NDArray[np.int64],
    taps: NDArray[np.float32],
    stride: int,
    top: float,
) -> int:
    n_taps = taps.shape[1]
    lead = n_taps - 1 - (n_taps - 1) // 2
    longest = 0
    for n in range(sizes.size):
        longest = max(longest, sizes[n])
    # Zeros around the patch, and filters back to front: y[j] is then the plain sum of f[t] * x[j + t].
    # An index like n_taps - 1 - t + j would cost the vectoriser.
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
def _add_patches(
    samples: NDArray[Any],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    rows: NDArray[np.int64],
    sounds: NDArray[np.float64],
    stride: int,
    top: float,
) -> int:
    y = np.zeros(sounds.shape[1])
    saturated = 0
    for n in range(starts.size):
        start, size = starts[n], sizes[n]
        sound = sounds[rows[n]]
        _load(samples, start, size, stride, y)
        for j in range(size):
            y[j] += sound[j]
        saturated += _store(y, samples, start, size, stride, top)
    return saturated


@kernel
def _load(samples: NDArray[Any], start: int, size: int, stride: int, x: NDArray[np.float64]) -> None:
    """The patch as float64; a slice of its own for stride 1 lets the compiler vectorise."""
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
    """float64 sums as samples; returns how many did not fit."""
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
def _survey_patches(
    samples: NDArray[Any],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    stride: int,
    flags: NDArray[np.uint8],
) -> None:
    for n in range(starts.size):
        silent = finite = True
        for t in range(sizes[n]):
            sample = samples[starts[n] + t * stride]
            silent &= sample == 0
            finite &= sample - sample == 0  # infinity and NaN less themselves are NaN
        flags[n] = silent | (not finite) << 1
