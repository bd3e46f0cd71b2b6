"""Backend name -> kernel, imported on first use; and the division of patches among threads."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Fastest first: "auto" takes the first that is there.
BACKENDS = {"cpu": "poscuda_fast.kernels.cpu", "reference": "poscuda_fast.kernels.reference"}
PATCHES_PER_THREAD = 64  # fewer than this are not worth starting a thread

Kernel = Callable[
    [NDArray[Any], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], int], int
]


def load(backend: str) -> Kernel:
    """The kernel of a backend: "auto", "cpu" (numba) or "reference" (NumPy).

    Raises
    ------
    ValueError
        There is no backend of that name.
    ImportError
        Its packages are missing; the message says which and how to get them.
    """
    if backend == "auto":
        for name in BACKENDS:
            if why_missing(name) is None:
                return load(name)
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; expected one of {['auto', *BACKENDS]}.")
    problem = why_missing(backend)
    if problem is not None:
        raise ImportError(problem)
    kernel: Kernel = importlib.import_module(BACKENDS[backend]).filter_patches
    return kernel


def why_missing(backend: str) -> str | None:
    """Why a backend cannot be used here, as a sentence; None if it can."""
    try:
        importlib.import_module(BACKENDS[backend])
    except ImportError as error:
        return f"The {backend} backend cannot be imported ({error}); run pip install --force-reinstall poscuda-fast."
    return None


class Engine:
    """A backend and a number of threads, checked once; every count of threads gives the same bits."""

    def __init__(self, backend: str = "auto", threads: int | None = None) -> None:
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise ValueError(f"threads is {threads!r}; expected a whole number from 1, or None for all cores.")
        self._kernel = load(backend)
        self._threads = threads or usable_cores()

    def filter_patches(
        self,
        samples: NDArray[Any],
        starts: NDArray[np.int64],
        sizes: NDArray[np.int64],
        rows: NDArray[np.int64],
        taps: NDArray[np.float32],
        stride: int,
    ) -> int:
        """`reference.filter_patches`, spread over threads.

        Plain threads over a kernel that releases the GIL, not an OpenMP loop: they survive a fork, so
        that data-loader workers can call this whatever their parent did. Patches never overlap, so no
        two threads write one address.
        """
        # Compiled kernels do not check places; one wrong place would write into foreign memory.
        if len(starts):
            ends = starts + (sizes - 1) * stride
            lowest, highest = min(starts.min(), ends.min()), max(starts.max(), ends.max())
            if (
                sizes.min() < 0
                or lowest < 0
                or highest >= samples.size
                or not 0 <= rows.min() <= rows.max() < len(taps)
            ):
                raise IndexError("a patch lies outside the samples, or has no filter")
        parts = min(self._threads, max(1, len(starts) // PATCHES_PER_THREAD))
        if parts == 1:
            return int(self._kernel(samples, starts, sizes, rows, taps, stride))
        edges = np.linspace(0, len(starts), parts + 1).astype(np.int64)

        def run(part: int) -> int:
            some = slice(edges[part], edges[part + 1])
            return int(self._kernel(samples, starts[some], sizes[some], rows[some], taps, stride))

        with ThreadPoolExecutor(parts) as pool:
            return sum(pool.map(run, range(parts)))


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
