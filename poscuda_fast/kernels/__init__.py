"""Backend name -> kernels, imported on first use; and the division of patches among threads."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels.clips import ClipKernels as ClipKernels
from poscuda_fast.kernels.clips import ClipRows as ClipRows
from poscuda_fast.kernels.clips import Scattering as Scattering
from poscuda_fast.kernels.environment import default_arithmetic as default_arithmetic
from poscuda_fast.kernels.reference import BITS as BITS
from poscuda_fast.kernels.reference import FULL_SCALE as FULL_SCALE
from poscuda_fast.kernels.reference import KEY_WORDS as KEY_WORDS
from poscuda_fast.kernels.reference import MARKED as MARKED
from poscuda_fast.kernels.reference import NOT_FINITE as NOT_FINITE
from poscuda_fast.kernels.reference import ORIGINAL as ORIGINAL
from poscuda_fast.kernels.reference import PIECE_BYTES as PIECE_BYTES
from poscuda_fast.kernels.reference import SILENT as SILENT
from poscuda_fast.kernels.reference import TOP as TOP
from poscuda_fast.kernels.reference import WRAP as WRAP
from poscuda_fast.kernels.reference import Bytes as Bytes
from poscuda_fast.kernels.reference import Flags as Flags
from poscuda_fast.kernels.reference import Ints as Ints
from poscuda_fast.kernels.reference import LineTable as LineTable
from poscuda_fast.kernels.reference import Samples, Table
from poscuda_fast.kernels.reference import Words as Words
from poscuda_fast.text import how_to_install

BACKENDS = {
    "native": "poscuda_fast.kernels.native",
    "cpu": "poscuda_fast.kernels.cpu",
    "reference": "poscuda_fast.kernels.reference",
    "cuda": "poscuda_fast.kernels.cuda",
}
AUTO = ("native", "cpu", "reference")  # fastest first: "auto" takes the first that can be imported
PATCHES_PER_THREAD = 64  # fewer than this are not worth starting a thread
SAMPLES_PER_THREAD = 1 << 19  # the same, of samples that lines are added to
PIECES_PER_THREAD = 1 << 14  # the same, of pieces that are hashed
TOLD = tuple(map(np.dtype, (np.int16, np.uint8, np.float32)))  # samples of pieces that can be told
_HOW_TO_GET = {
    "native": "it is built when the package is installed with a C++17 compiler: "
    f"with POSCUDA_REQUIRE_NATIVE=1 in the environment, {how_to_install()}, to see what fails",
}

_Part = TypeVar("_Part")
_Result = TypeVar("_Result")


class Kernels(Protocol):
    """What every backend's module offers; the contract is in kernels/reference.py."""

    def filter_patches(
        self,
        samples: Samples,
        starts: Ints,
        sizes: Ints,
        rows: Ints,
        taps: Table,
        stride: int,
        flags: Flags | None = None,
    ) -> int:
        """Convolve each patch with its filter, in place; returns how many samples were saturated.

        `flags`, if given, is filled with what a survey finds before.
        """

    def add_lines(
        self, samples: Samples, starts: Ints, sizes: Ints, phases: Ints, rows: Ints, table: LineTable, stride: int
    ) -> int:
        """Add the lines of its class to each patch, in place; returns how many samples were saturated or not finite."""

    def survey_patches(self, samples: Samples, starts: Ints, sizes: Ints, stride: int) -> Flags:
        """What each patch holds: bits of SILENT and NOT_FINITE."""

    def measure_patches(
        self, samples: Samples, starts: Ints, sizes: Ints, stride: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The sum of squares and the largest magnitude of each patch."""

    def hash_pieces(self, data: Bytes, starts: Ints, sizes: Ints, key: Words) -> Words:
        """The keyed hash of each piece of some bytes."""

    def mark_and_hash(
        self,
        samples: Samples,
        starts: Ints,
        sizes: Ints,
        phases: Ints,
        rows: Ints,
        table: LineTable,
        key: Words,
        wet: Samples,
    ) -> tuple[Words, int]:
        """Put the marked form of each piece into `wet`; the hash of each original, and what `add_lines` returns."""

    def tell_pieces(
        self,
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
        """What each piece is, ORIGINAL or MARKED or both or neither; the originals are put into `dry`."""


def load(backend: str) -> Kernels:
    """The kernels of a backend: "auto", "native" (C++), "cpu" (numba), "reference" (NumPy) or "cuda" (numba-cuda).

    "auto" is never "cuda": the processor marks samples in host memory in less time than a GPU takes to get and return
    them.

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


def load_for_clips() -> ClipKernels:
    """The kernels for whole clips in the memory of a GPU; ImportError as of `load`."""
    return cast("ClipKernels", load("cuda"))


def why_missing(backend: str) -> str | None:
    """Why a backend cannot be used here, as a sentence; None if it can."""
    try:
        importlib.import_module(BACKENDS[backend])
    except ImportError as error:
        if backend == "cuda":
            return str(error)  # already a sentence: only that module knows what is missing
        advice = _HOW_TO_GET.get(backend, how_to_install())
        return f"The {backend} backend cannot be imported ({error}); {advice}."
    return None


class Engine:
    """A backend and a number of threads, checked once; any number of threads gives the same bits.

    Kernels run in the default floating-point environment, in whichever thread they do.
    """

    def __init__(self, backend: str = "auto", threads: int | None = None, *, on_device: bool = False) -> None:
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise ValueError(f"threads is {threads!r}; expected a whole number from 1; leave it out for all cores.")
        if on_device:
            if backend not in ("auto", "cuda"):
                raise ValueError(f"backend is {backend!r}; clips on a GPU need 'auto' or 'cuda'.")
            backend = "cuda"
        self._kernels = load(backend)
        self._threads = 1 if backend == "cuda" else threads or usable_cores()

    def filter_patches(
        self,
        samples: Samples,
        starts: Ints,
        sizes: Ints,
        rows: Ints,
        taps: Table,
        stride: int,
        flags: Flags | None = None,
    ) -> int:
        """`reference.filter_patches`, spread over threads."""
        starts, sizes, rows = _checked(samples, starts, sizes, rows, len(taps), stride)

        @default_arithmetic()
        def run(some: slice) -> int:
            found = None if flags is None else flags[some]
            return self._kernels.filter_patches(samples, starts[some], sizes[some], rows[some], taps, stride, found)

        return sum(self._spread(run, len(starts)))

    def add_lines(
        self, samples: Samples, starts: Ints, sizes: Ints, phases: Ints, rows: Ints, table: LineTable, stride: int
    ) -> int:
        """`reference.add_lines`, spread over threads."""
        starts, sizes, rows = _checked(samples, starts, sizes, rows, len(table.firsts), stride, BITS.keys())
        phases = _checked_phases(phases, len(starts))

        @default_arithmetic()
        def run(part: tuple[Ints, Ints, Ints, Ints]) -> int:
            return int(self._kernels.add_lines(samples, *part, table, stride))

        parts = min(self._threads, max(1, int(sizes.sum()) // SAMPLES_PER_THREAD)) if self._threads > 1 else 1
        if parts == 1:
            return run((starts, sizes, phases, rows))
        return sum(_in_threads(run, _divided(starts, sizes, phases, rows, stride, parts)))

    def survey_patches(self, samples: Samples, starts: Ints, sizes: Ints, stride: int) -> Flags:
        """`reference.survey_patches`, spread over threads."""
        starts, sizes, _ = _checked(samples, starts, sizes, np.zeros(len(starts), np.int64), 1, stride)

        @default_arithmetic()
        def run(some: slice) -> Flags:
            return self._kernels.survey_patches(samples, starts[some], sizes[some], stride)

        return np.concatenate(self._spread(run, len(starts)))

    def measure_patches(
        self, samples: Samples, starts: Ints, sizes: Ints, stride: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`reference.measure_patches`; meant for few patches, and so in this thread alone."""
        starts, sizes, _ = _checked(samples, starts, sizes, np.zeros(len(starts), np.int64), 1, stride)
        with default_arithmetic():
            return self._kernels.measure_patches(samples, starts, sizes, stride)

    def hash_pieces(self, data: Bytes, starts: Ints, sizes: Ints, key: Words) -> Words:
        """`reference.hash_pieces`, spread over threads."""
        _check_words("key", key, KEY_WORDS)
        if data.dtype != np.uint8 or data.ndim != 1 or not data.flags.c_contiguous:
            raise TypeError(f"data has dtype {data.dtype.str}, shape {data.shape}; expected flat uint8, contiguous.")
        starts, sizes = _int64(starts), _int64(sizes)
        if len(starts) != len(sizes):
            raise IndexError(f"{len(starts)} starts, {len(sizes)} sizes; give one of each for each piece")
        if len(starts) and not 0 <= sizes.min() <= sizes.max() <= PIECE_BYTES:
            raise IndexError(f"pieces have {sizes.min()} to {sizes.max()} bytes; expected 0 to {PIECE_BYTES}")
        if starts.min(initial=0) < 0 or (starts > data.size - sizes).any():
            raise IndexError("a piece lies outside the data")

        def run(some: slice) -> Words:
            return self._kernels.hash_pieces(data, starts[some], sizes[some], key)

        return np.concatenate(self._spread(run, len(starts), PIECES_PER_THREAD))

    def mark_and_hash(
        self,
        samples: Samples,
        starts: Ints,
        sizes: Ints,
        phases: Ints,
        rows: Ints,
        table: LineTable,
        key: Words,
        wet: Samples,
    ) -> tuple[Words, int]:
        """`reference.mark_and_hash`, spread over threads."""
        starts, sizes, phases, rows = _checked_pieces(samples, starts, sizes, phases, rows, table, key, wet, "wet")

        @default_arithmetic()
        def run(some: slice) -> tuple[Words, int]:
            place = starts[some], sizes[some], phases[some], rows[some]
            return self._kernels.mark_and_hash(samples, *place, table, key, wet)

        sums, odd = zip(*self._spread(run, len(starts), PIECES_PER_THREAD), strict=True)
        return np.concatenate(sums), sum(odd)

    def tell_pieces(
        self,
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
        """`reference.tell_pieces`, spread over threads."""
        starts, sizes, phases, rows = _checked_pieces(samples, starts, sizes, phases, rows, table, key, dry, "dry")
        _check_words("sums", sums, len(starts))

        @default_arithmetic()
        def run(some: slice) -> Flags:
            place = starts[some], sizes[some], phases[some], rows[some]
            return self._kernels.tell_pieces(samples, *place, table, sums[some], key, dry)

        return np.concatenate(self._spread(run, len(starts), PIECES_PER_THREAD))

    def _spread(
        self, run: Callable[[slice], _Result], n_patches: int, fewest: int = PATCHES_PER_THREAD
    ) -> list[_Result]:
        """`run` on consecutive parts of the patches, each of at least `fewest` and in a thread.

        Plain threads over kernels that release the GIL, not an OpenMP loop: they survive a fork, so data-loader workers
        can call this whatever their parent did. Patches never overlap, so no two threads write to one address.
        """
        parts = min(self._threads, max(1, n_patches // fewest))
        if parts == 1:
            return [run(slice(0, n_patches))]
        edges = [n_patches * part // parts for part in range(parts + 1)]
        return _in_threads(run, [slice(first, end) for first, end in itertools.pairwise(edges)])


def _in_threads(run: Callable[[_Part], _Result], parts: Sequence[_Part]) -> list[_Result]:
    """`run` on each part, one by the caller's thread and the others by as many threads as can be started."""
    waiting, taking = list(enumerate(parts))[::-1], threading.Lock()
    results: dict[int, _Result] = {}
    errors: list[BaseException] = []

    def work() -> None:
        while waiting and not errors:
            with taking:
                if not waiting:
                    return
                number, part = waiting.pop()
            try:
                results[number] = run(part)
            except BaseException as error:  # noqa: BLE001 - raised by the caller's thread
                errors.append(error)

    threads: list[threading.Thread] = []
    try:
        with contextlib.suppress(RuntimeError):  # the system gives no more
            for _ in parts[1:]:
                thread = threading.Thread(target=work)
                thread.start()
                threads.append(thread)
        work()
    finally:
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(parts))]


def usable_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _divided(
    starts: Ints, sizes: Ints, phases: Ints, rows: Ints, stride: int, parts: int
) -> list[tuple[Ints, Ints, Ints, Ints]]:
    """Patches as so many lists of equal work; a patch that lies across an edge is cut there."""
    ends = np.cumsum(sizes)
    edges = [int(ends[-1]) * part // parts for part in range(parts + 1)]
    divided = []
    for low, high in itertools.pairwise(edges):
        some = slice(int(np.searchsorted(ends, low, side="right")), int(np.searchsorted(ends, high, side="left")) + 1)
        begins = ends[some] - sizes[some]
        skipped = np.maximum(low - begins, 0)
        left = np.minimum(high, ends[some]) - begins - skipped
        divided.append((starts[some] + skipped * stride, left, phases[some] + skipped, rows[some]))
    return divided


def _checked(
    samples: Samples,
    starts: Ints,
    sizes: Ints,
    rows: Ints,
    n_rows: int,
    stride: int,
    kinds: Collection[Any] = TOP.keys(),
) -> tuple[Ints, Ints, Ints]:
    """Check places and convert them for kernels, which do not check: a wrong place would write outside the samples."""
    if samples.dtype not in kinds:
        expected = ", ".join(map(str, kinds))
        raise TypeError(f"samples have dtype {samples.dtype.str}; expected one of {expected}.")
    starts, sizes, rows = _int64(starts), _int64(sizes), _int64(rows)
    if not len(starts) == len(sizes) == len(rows):
        raise IndexError(f"{len(starts)} starts, {len(sizes)} sizes, {len(rows)} rows; give one of each for each patch")
    if len(starts):
        n_samples = samples.size // 3 if samples.dtype == np.uint8 else samples.size
        # Divided, not multiplied: a product of huge numbers would wrap around.
        far = int(sizes.max()) - 1 > n_samples // max(1, abs(stride))
        ends = starts if far else starts + np.maximum(sizes - 1, 0) * stride
        lowest, highest = min(starts.min(), ends.min()), max(starts.max(), ends.max())
        if far or sizes.min() < 0 or lowest < 0 or highest >= n_samples:
            raise IndexError("a patch lies outside the samples")
        if not 0 <= rows.min() <= rows.max() < n_rows:
            raise IndexError("a patch is of no class")
    return starts, sizes, rows


def _checked_pieces(
    samples: Samples,
    starts: Ints,
    sizes: Ints,
    phases: Ints,
    rows: Ints,
    table: LineTable,
    key: Words,
    other: Samples,
    name: str,
) -> tuple[Ints, Ints, Ints, Ints]:
    """Check pieces, and the buffer of that name for their other form; starts, sizes, phases and rows for kernels."""
    for called, array in (("samples", samples), (name, other)):
        if array.ndim != 1 or not array.flags.c_contiguous:
            raise TypeError(f"{called} has shape {array.shape}; expected a flat array, contiguous.")
    if other.dtype != samples.dtype or other.shape != samples.shape:
        raise TypeError(
            f"{name} has dtype {other.dtype.str}, shape {other.shape}; expected those of samples, {samples.dtype.str} "
            f"and {samples.shape}."
        )
    if not other.flags.writeable or np.may_share_memory(samples, other):
        raise ValueError(f"{name} is read-only or shares memory with samples; give a writable array of its own.")
    starts, sizes, rows = _checked(samples, starts, sizes, rows, len(table.firsts), 1, TOLD)
    _check_words("key", key, KEY_WORDS)
    most = PIECE_BYTES // (3 if samples.dtype == np.uint8 else samples.itemsize)
    if sizes.max(initial=0) > most:
        raise IndexError(f"a piece has {sizes.max()} samples; expected up to {most}, {PIECE_BYTES} bytes")
    return starts, sizes, _checked_phases(phases, len(starts)), rows


def _checked_phases(phases: Ints, n: int) -> Ints:
    """Check phases and convert them for kernels."""
    phases = _int64(phases)
    if len(phases) != n or phases.min(initial=0) < 0:
        raise IndexError(f"{len(phases)} phases for {n} patches; give one from 0 for each")
    return phases


def _check_words(name: str, words: Words, n: int) -> None:
    if words.dtype != np.uint64 or words.shape != (n,) or not words.flags.c_contiguous:
        raise TypeError(f"{name} has dtype {words.dtype.str}, shape {words.shape}; expected {n} flat uint64.")


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
