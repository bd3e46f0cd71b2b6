"""The arithmetic of FORMAT.md for one CPU thread in C++ (patches.cpp), built when the package was installed.

The fastest instruction set of this processor is chosen at run time; the GIL is released.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels import _native


def filter_patches(
    samples: NDArray[Any],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    rows: NDArray[np.int64],
    taps: NDArray[np.float32],
    stride: int,
) -> int:
    """See `reference.filter_patches`: same arguments, same bits."""
    starts, sizes, rows = (np.ascontiguousarray(each, np.int64) for each in (starts, sizes, rows))
    return int(_native.filter_patches(samples, starts, sizes, rows, np.ascontiguousarray(taps), stride))


def add_patches(
    samples: NDArray[Any],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    rows: NDArray[np.int64],
    sounds: NDArray[np.float32],
    stride: int,
) -> int:
    """See `reference.add_patches`: same arguments, same bits."""
    starts, sizes, rows = (np.ascontiguousarray(each, np.int64) for each in (starts, sizes, rows))
    return int(_native.add_patches(samples, starts, sizes, rows, np.ascontiguousarray(sounds), stride))


def survey_patches(
    samples: NDArray[Any], starts: NDArray[np.int64], sizes: NDArray[np.int64], stride: int
) -> NDArray[np.uint8]:
    """See `reference.survey_patches`."""
    flags = np.empty(len(starts), np.uint8)
    starts, sizes = np.ascontiguousarray(starts, np.int64), np.ascontiguousarray(sizes, np.int64)
    _native.survey_patches(samples, starts, sizes, stride, flags)
    return flags


def will_need(samples: NDArray[Any], first_bytes: NDArray[np.int64], n_bytes: int) -> None:
    """Ask the system to read the pages of mapped memory that begin at `first_bytes` in `samples`; madvise(2)."""
    _native.will_need(samples, first_bytes, n_bytes)
