"""Adds a run of table values to samples, for numba: one loop for each kind of sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import overload

from poscuda_fast.kernels.compiling import kernel, prefetch
from poscuda_fast.kernels.reference import Samples

LARGEST = np.float32(3.4028235e38)
TOP24 = 1 << 23
LINE = 64  # bytes of the cache
AHEAD = 1024  # bytes; the hardware alone does not read far enough ahead


def add_run(samples: Any, start: Any, stride: Any, mark: Any) -> int:
    """Add ``mark[t]`` to ``samples[start + t * stride]``; returns how many samples were saturated or not finite."""
    return int(_LOOPS[samples.dtype.name](samples, start, stride, mark))


@overload(add_run, inline="always")
def _add_run(samples: Any, start: Any, stride: Any, mark: Any) -> Callable[..., int]:
    del start, stride, mark
    add = _LOOPS[samples.dtype.name]

    def run(samples: Any, start: Any, stride: Any, mark: Any) -> int:
        return add(samples, start, stride, mark)  # type: ignore[no-any-return]

    return run


@kernel
def until_line(samples: Any, start: int, stride: int) -> int:
    """Samples before the next cache line: registers that lie across two lines take twice as long to write."""
    if stride != 1:
        return 0
    return int(-(samples.ctypes.data + start * samples.itemsize) % LINE) // int(samples.itemsize)


@kernel
def _add_int16(samples: Samples, start: int, stride: int, mark: Samples) -> Any:
    """In int16 throughout, which takes 32 samples to a register: wider sums would take a quarter of that."""
    if stride == 1:
        return _add_int16_run(samples[start : start + mark.size], mark)
    over = 0
    for t in range(mark.size):
        total = np.int32(samples[start + t * stride]) + np.int32(mark[t])
        limited = min(max(total, -32768), 32767)
        over += limited != total
        samples[start + t * stride] = limited
    return over


@kernel
def _add_int16_run(samples: Samples, mark: Samples) -> Any:
    """Casts are where LLVM needs them to stay in int16; numba's own sums of int16 are int64."""
    total = 0
    for first in range(0, samples.size, 8192):  # an int16 lane counts so many without an overflow
        x, m = samples[first : first + 8192], mark[first : first + 8192]
        for t in range(0, x.size, 32):
            prefetch(x, t + AHEAD // 2)
        over: Any = np.int16(0)
        for t in range(x.size):
            a, b = x[t], m[t]
            wrapped = np.int16(a + b)
            # All ones where both terms have one sign and the sum has the other.
            lost = np.int16(((a ^ wrapped) & (b ^ wrapped)) >> 15)
            x[t] = np.int16((wrapped & ~lost) | ((a >> 15 ^ 32767) & lost))
            over = np.int16(over - lost)
        total += over
    return total


@kernel
def _add_int24(samples: Samples, start: int, stride: int, mark: Samples) -> Any:
    if stride == 1:
        return _add_int24_run(samples[start : start + mark.size], mark)
    over = 0
    for t in range(mark.size):
        total = samples[start + t * stride] + mark[t]
        limited = min(max(total, -TOP24), TOP24 - 1)
        over += limited != total
        samples[start + t * stride] = limited
    return over


@kernel
def _add_int24_run(x: Samples, mark: Samples) -> Any:
    over = np.int32(0)
    for t in range(x.size):
        total = np.int32(x[t] + mark[t])
        limited = np.int32(min(max(total, np.int32(-TOP24)), np.int32(TOP24 - 1)))
        over = np.int32(over + np.int32(limited != total))
        x[t] = limited
    return over


@kernel
def _add_packed24(samples: Samples, start: int, stride: int, mark: Samples) -> Any:
    over = 0
    for t in range(mark.size):
        place = 3 * (start + t * stride)
        high = np.int32(np.int8(samples[place + 2]))
        total = np.int32((high << 16) + (np.int32(samples[place + 1]) << 8) + samples[place] + mark[t])
        limited: Any = min(max(total, -TOP24), TOP24 - 1)
        over += limited != total
        samples[place] = limited & 255
        samples[place + 1] = (limited >> 8) & 255
        samples[place + 2] = (limited >> 16) & 255
    return over


@kernel
def _add_float32(samples: Samples, start: int, stride: int, mark: Samples) -> Any:
    if stride == 1:
        return _add_float32_run(samples[start : start + mark.size], mark)
    odd = 0
    for t in range(mark.size):
        x = samples[start + t * stride]
        if abs(x) <= LARGEST:
            samples[start + t * stride] = x + mark[t]
        else:
            odd += 1
    return odd


@kernel
def _add_float32_run(x: Samples, mark: Samples) -> Any:
    odd = np.int32(0)
    for t in range(0, x.size, 16):
        prefetch(x, t + AHEAD // 4)
    for t in range(x.size):
        finite = abs(x[t]) <= LARGEST
        total = x[t] + mark[t]
        x[t] = total if finite else x[t]
        odd = np.int32(odd + (not finite))
    return odd


_LOOPS = {"int16": _add_int16, "int32": _add_int24, "uint8": _add_packed24, "float32": _add_float32}
