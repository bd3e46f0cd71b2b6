"""Backend name -> kernels, imported on first use; and the division of patches among threads."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np

from poscuda_fast.kernels.reference import FULL_SCALE as FULL_SCALE
from poscuda_fast.kernels.reference import NOT_FINITE as NOT_FINITE
from poscuda_fast.kernels.reference import SILENT as SILENT
from poscuda_fast.kernels.reference import Flags, Samples, Table
from poscuda_fast.kernels.reference import Ints as Ints
from poscuda_fast.secrecy import Secret

BACKENDS = {
    "native": "poscuda_fast.kernels.native",
    "cpu": "poscuda_fast.kernels.cpu",
    "reference": "poscuda_fast.kernels.reference",
    "cuda": "poscuda_fast.kernels.cuda",
}
AUTO = ("native", "cpu", "reference")  # fastest first: "auto" takes the first that can be imported
PATCHES_PER_THREAD = 64  # fewer than this are not worth starting a thread
_HOW_TO_GET = {
    "native": "it is built when the package is installed with a C++17 compiler: "
    "POSCUDA_REQUIRE_NATIVE=1 pip install --force-reinstall --no-binary poscuda-fast poscuda-fast shows what fails",
}

_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Marks(Secret):
    """The mark of each class; secret.

    Attributes
    ----------
    table : (n_classes, n) float32
        Filters of n taps, or sounds of n frames as a share of full scale.
    added : bool
        Whether a sound is added (format 2), or the patch is convolved with its filter (format 1).
    """

    table: Table
    added: bool

    def __repr__(self) -> str:
        return f"Marks({len(self.table)} classes)"


class Kernels(Protocol):
    """What every backend's module offers; the contract is in kernels/reference.py."""

    def filter_patches(self, samples: Samples, starts: Ints, sizes: Ints, rows: Ints, taps: Table, stride: int) -> int:
        """Convolve each patch with its filter, in place; returns how many samples were saturated."""

    def add_patches(self, samples: Samples, starts: Ints, sizes: Ints, rows: Ints, sounds: Table, stride: int) -> int:
        """Add its class's sound to each patch, in place; returns how many samples were saturated."""

    def survey_patches(self, samples: Samples, starts: Ints, sizes: Ints, stride: int) -> Flags:
        """What each patch holds: bits of SILENT and NOT_FINITE."""


def load(backend: str) -> Kernels:
    """The kernels of a backend: "auto", "native" (C++), "cpu" (numba), "reference" (NumPy) or "cuda" (numba-cuda).

    "auto" is never "cuda": filtering a patch in host memory takes less time than sending it to a GPU.

    Raises
    ------
    ValueError
        There is no backend of that name.
    ImportError
        Its packages are missing; the message says which and how to get them.
    """
    if backend == "auto":
        backend = next(name for name in AUTO if why_missing(name) is None)
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; expected one of {['auto', *BACKENDS]}.")
    problem = why_missing(backend)
    if problem is not None:
        raise ImportError(problem)
    kernels: Kernels = importlib.import_module(BACKENDS[backend])
    return kernels


def why_missing(backend: str) -> str | None:
    """Why a backend cannot be used here, as a sentence; None if it can."""
    try:
        importlib.import_module(BACKENDS[backend])
    except ImportError as error:
        if backend == "cuda":
            return str(error)  # already a sentence: only that module knows what is missing
        advice = _HOW_TO_GET.get(backend, "run pip install --force-reinstall poscuda-fast")
        return f"The {backend} backend cannot be imported ({error}); {advice}."
    return None


class Engine:
    """A backend and a number of threads, checked once; any number of threads gives the same bits."""

    def __init__(self, backend: str = "auto", threads: int | None = None, *, on_device: bool = False) -> None:
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise ValueError(f"threads is {threads!r}; expected a whole number from 1, or None for all cores.")
        if on_device:
            if backend not in ("auto", "cuda"):
                raise ValueError(f"backend is {backend!r}; clips on a GPU need 'auto' or 'cuda'.")
            backend = "cuda"
        self._kernels = load(backend)
        self._threads = 1 if backend == "cuda" else threads or usable_cores()

    def mark_patches(self, samples: Samples, starts: Ints, sizes: Ints, rows: Ints, marks: Marks, stride: int) -> int:
        """Mark each patch with its class's filter or sound, in place; returns how many samples were saturated."""
        starts, sizes = _checked(samples, starts, sizes, stride)
        rows = _int64(rows)
        if len(rows) != len(starts):
            raise IndexError(f"{len(rows)} rows for {len(starts)} patches; give one for each")
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(marks.table):
            raise IndexError("a patch is of no class")
        if marks.added and len(sizes) and sizes.max() > marks.table.shape[1]:
            raise IndexError("a patch is longer than its sound")
        kernel = self._kernels.add_patches if marks.added else self._kernels.filter_patches

        def run(some: slice) -> int:
            return int(kernel(samples, starts[some], sizes[some], rows[some], marks.table, stride))

        return sum(self._spread(run, len(starts)))

    def survey_patches(self, samples: Samples, starts: Ints, sizes: Ints, stride: int) -> Flags:
        """`reference.survey_patches`, spread over threads."""
        starts, sizes = _checked(samples, starts, sizes, stride)

        def run(some: slice) -> Flags:
            return self._kernels.survey_patches(samples, starts[some], sizes[some], stride)

        return np.concatenate(self._spread(run, len(starts)))

    def _spread(self, run: Callable[[slice], _Result], n_patches: int) -> list[_Result]:
        """`run` on consecutive parts of the patches, each in a thread.

        Plain threads over kernels that release the GIL, not an OpenMP loop: they survive a fork, so data-loader workers
        can call this whatever their parent did. Patches never overlap, so no two threads write to one address.
        """
        parts = min(self._threads, max(1, n_patches // PATCHES_PER_THREAD))
        if parts == 1:
            return [run(slice(0, n_patches))]
        edges = [n_patches * part // parts for part in range(parts + 1)]
        with ThreadPoolExecutor(parts) as pool:
            return list(pool.map(run, map(slice, edges, edges[1:])))


def usable_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _checked(samples: Samples, starts: Ints, sizes: Ints, stride: int) -> tuple[Ints, Ints]:
    """Check places and convert them for kernels, which do not check: a wrong place would write outside the samples."""
    if samples.dtype not in FULL_SCALE:
        raise TypeError(f"samples have dtype {samples.dtype.str}; expected int16, int32 (24-bit) or float32.")
    starts, sizes = _int64(starts), _int64(sizes)
    if len(starts) != len(sizes):
        raise IndexError(f"{len(starts)} starts and {len(sizes)} sizes; give one of each for each patch")
    if len(starts):
        # Divided, not multiplied: a product of huge numbers would wrap around.
        far = int(sizes.max()) - 1 > samples.size // max(1, abs(stride))
        ends = starts if far else starts + np.maximum(sizes - 1, 0) * stride
        lowest, highest = min(starts.min(), ends.min()), max(starts.max(), ends.max())
        if far or sizes.min() < 0 or lowest < 0 or highest >= samples.size:
            raise IndexError("a patch lies outside the samples")
    return starts, sizes


def _int64(numbers: Ints) -> Ints:
    """Numbers as kernels take them; TypeError unless they are integers."""
    if numbers.dtype.kind not in "iu":
        raise TypeError(f"starts, sizes and rows are integers, not {numbers.dtype}.")
    return np.ascontiguousarray(numbers, np.int64)


def will_need(samples: Samples, first_bytes: Ints, n_bytes: int) -> None:
    """Ask the system to read stretches of mapped memory: `n_bytes` from each of `first_bytes` in `samples`.

    Only a hint; without the native kernels this does nothing.
    """
    if why_missing("native") is None:
        importlib.import_module(BACKENDS["native"]).will_need(samples, first_bytes, n_bytes)
