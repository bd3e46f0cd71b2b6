"""The arithmetic of FORMAT.md for NVIDIA GPUs, compiled by numba-cuda.

Of samples in host memory only the patches are sent, packed into pinned buffers; one chunk is packed while the GPU marks
the one before. Samples in device memory are marked in place.
"""

from __future__ import annotations

import importlib.util
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
from numba import cuda, float64
from numpy.typing import NDArray

from poscuda_fast.kernels.reference import FULL_SCALE, NOT_FINITE, SILENT, Flags, Ints, Samples, Table, top_of

_config: Any = numba.config
if not _config.ENABLE_CUDASIM:  # the simulator needs neither package nor GPU
    _INSTALL = "run pip install 'poscuda-fast[cuda12]', or [cuda13] if the driver is of CUDA 13."
    if importlib.util.find_spec("numba_cuda") is None:
        raise ImportError(f"The cuda backend needs numba-cuda, which is not installed; {_INSTALL}")
    if not cuda.is_available():
        _problem = cuda.cuda_error()
        if _problem is None:
            raise ImportError(f"The cuda backend needs the CUDA compiler, which is not installed; {_INSTALL}")
        raise ImportError(f"The cuda backend needs an NVIDIA GPU and its driver: {' '.join(str(_problem).split())}")

_Launch = Callable[..., None]  # queues work on patches

# A thread sums WIDTH neighbouring outputs at once, in registers. Threads that read WIDTH samples apart would hit the
# same banks of shared memory, so x is stored in rows of WIDTH samples, PITCH apart.
WIDTH, PITCH, WINDOW = 8, 9, 16

BLOCK = 128  # threads of a block of `_add`
WARP = 32  # threads of a block of `_filter`: they run in step; the paper's patch of 240 frames keeps 30 of them busy
STEP = WARP // WIDTH * PITCH

SHARED_BYTES = 48 << 10  # any GPU gives a block this much; longer patches are held in device memory
SCRATCH_BYTES = 64 << 20  # device memory for those, unless one alone needs more
FEWEST_BLOCKS = 128  # numba warns about smaller grids; a block without a patch returns at once
CHUNK_BYTES, CHUNK_PATCHES = 2 << 20, 1 << 14  # what is packed and sent at a time


def _kernel(function: Callable[..., Any]) -> Any:
    """Compile on first use, for the GPU. No fastmath: it would flush subnormals."""
    return cuda.jit(function)


def _part(function: Callable[..., Any]) -> Any:
    """The same for a function that kernels call."""
    return cuda.jit(device=True)(function)


def _on_host(function: Callable[..., Any]) -> Any:
    """Compile on first use, for one CPU thread."""
    return numba.njit(nogil=True)(function)


# What every backend has.


def filter_patches(
    samples: Samples, starts: Ints, sizes: Ints, rows: Ints, taps: Table, stride: int, flags: Flags | None = None
) -> int:
    """See `reference.filter_patches`: same arguments, same bits.

    `samples` may also be a flat array in device memory, with `__cuda_array_interface__`. It is filtered
    in place, in order on the stream that the interface names.
    """
    if flags is not None:
        flags[:] = survey_patches(samples, starts, sizes, stride)
    return _mark(samples, starts, sizes, rows, taps, stride, _launch_filter)


def add_patches(samples: Samples, starts: Ints, sizes: Ints, rows: Ints, sounds: Table, stride: int) -> int:
    """See `reference.add_patches`: same arguments, same bits; device memory too."""
    return _mark(samples, starts, sizes, rows, sounds, stride, _launch_add)


def survey_patches(samples: Samples, starts: Ints, sizes: Ints, stride: int) -> Flags:
    """See `reference.survey_patches`: same arguments, same flags; device memory too."""
    flags = np.empty(len(starts), np.uint8)
    if isinstance(samples, np.ndarray):
        _survey_host(samples, starts, sizes, stride, flags)  # not worth sending to the GPU
        return flags
    view = _view(samples)
    if not len(starts):
        return flags
    places = cuda.to_device(np.stack([starts, sizes], axis=1), stream=view.stream)
    found = cuda.device_array(len(starts), np.uint8, stream=view.stream)
    _survey[max(len(starts), FEWEST_BLOCKS), WARP, view.stream](view, places, stride, found)
    return _fetch(found, view.stream)


def _mark(
    samples: Any, starts: Ints, sizes: Ints, rows: Ints, table: NDArray[np.float32], stride: int, launch: _Launch
) -> int:
    """Run `launch` on patches, in host or in device memory."""
    if isinstance(samples, np.ndarray):
        return _mark_host(samples, starts, sizes, rows, table, stride, launch)
    view = _view(samples, writing=True)
    if not len(starts):
        return 0
    places = cuda.to_device(np.stack([starts, sizes, rows], axis=1), stream=view.stream)
    device_table = cuda.to_device(table, stream=view.stream)
    saturated = cuda.to_device(np.zeros(1, np.int64), stream=view.stream)
    launch(view, places, int(sizes.max()), device_table, stride, saturated, view.stream)
    return int(_fetch(saturated, view.stream)[0])


# Device memory.


def _view(samples: Any, *, writing: bool = False) -> Any:
    """Numba's view of device memory; its `stream` is the caller's, or 0 for the default stream."""
    if writing and samples.__cuda_array_interface__["data"][1]:
        raise ValueError("the device array is read-only, and protection happens in place; make a copy of it.")
    return cuda.as_cuda_array(samples, sync=False)  # our work is queued behind the caller's: no need to wait


def _fetch(array: Any, stream: Any) -> NDArray[Any]:
    """Copy a device array to host memory, and wait for the stream."""
    fetched: NDArray[Any] = array.copy_to_host(stream=stream)
    _wait(stream)
    return fetched


def _wait(stream: Any) -> None:
    (stream or cuda).synchronize()


# Host memory.

_kept = threading.local()  # stagings for the thread's next call: pinning memory costs as much as filling it


def _mark_host(
    samples: NDArray[Any],
    starts: Ints,
    sizes: Ints,
    rows: Ints,
    table: NDArray[np.float32],
    stride: int,
    launch: _Launch,
) -> int:
    if not len(starts):
        return 0
    device_table = cuda.to_device(table)
    room = CHUNK_BYTES // samples.itemsize
    longest = int(sizes.max())
    cuda.current_context()  # makes a GPU the current one
    key = cuda.gpus.current, samples.dtype, room
    kept: dict[Any, list[_Staging]] = _kept.__dict__.setdefault("stagings", {})
    stagings = kept.pop(key, []) if longest <= room else []
    stagings = stagings or [_Staging(max(room, longest), samples.dtype) for _ in range(2)]
    saturated = 0
    for number, chunk in enumerate(_chunks(sizes, room)):
        staging = stagings[number % 2]
        saturated += staging.store()
        staging.send(samples, starts[chunk], sizes[chunk], rows[chunk], device_table, stride, launch)
    for staging in stagings:
        saturated += staging.store()
    if longest <= room:  # not kept after an error: the GPU may still be using them
        kept[key] = stagings
    return saturated


def _chunks(sizes: Ints, room: int) -> Iterator[slice]:
    """Divide patches into chunks of at most `room` samples, or of one patch."""
    ends = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        fits = int(np.searchsorted(ends, ends[first] - sizes[first] + room, side="right"))
        last = min(max(fits, first + 1), first + CHUNK_PATCHES)
        yield slice(first, last)
        first = last


class _Staging:
    """Buffers for one chunk of patches, pinned and on the GPU, with their own stream."""

    def __init__(self, room: int, dtype: np.dtype[Any]) -> None:
        self._stream = cuda.stream()
        self._dense, self._device_dense = _pair(room, dtype)
        self._places, self._device_places = _pair((CHUNK_PATCHES, 3), np.int64)
        self._saturated, self._device_saturated = _pair(1, np.int64)
        self._sent: tuple[Any, ...] | None = None

    def send(
        self, samples: NDArray[Any], starts: Ints, sizes: Ints, rows: Ints, table: Any, stride: int, launch: _Launch
    ) -> None:
        """Pack patches and queue their way to the GPU, the marking and the way back; does not wait."""
        n, total = len(starts), int(sizes.sum())
        if not total:
            return
        dense, places = self._dense[:total], self._places[:n]
        device_dense, device_places = self._device_dense[:total], self._device_places[:n]
        _pack(samples, starts, sizes, stride, dense)
        places[:, 0] = np.cumsum(sizes) - sizes
        places[:, 1], places[:, 2] = sizes, rows
        self._saturated[0] = 0
        device_places.copy_to_device(places, stream=self._stream)
        device_dense.copy_to_device(dense, stream=self._stream)
        self._device_saturated.copy_to_device(self._saturated, stream=self._stream)
        launch(device_dense, device_places, int(sizes.max()), table, 1, self._device_saturated, self._stream)
        device_dense.copy_to_host(dense, stream=self._stream)
        self._device_saturated.copy_to_host(self._saturated, stream=self._stream)
        self._sent = samples, starts, sizes, stride, dense

    def store(self) -> int:
        """Wait for the patches sent and store them in `samples`; returns how many samples were saturated."""
        if self._sent is None:
            return 0
        self._stream.synchronize()  # raises errors of the GPU before anything is stored
        _unpack(*self._sent)
        self._sent = None
        return int(self._saturated[0])


def _pair(shape: Any, dtype: Any) -> tuple[NDArray[Any], Any]:
    return cuda.pinned_array(shape, dtype), cuda.device_array(shape, dtype)


@_on_host
def _pack(samples: NDArray[Any], starts: Ints, sizes: Ints, stride: int, dense: NDArray[Any]) -> None:
    place = 0
    for n in range(starts.size):
        for t in range(sizes[n]):
            dense[place + t] = samples[starts[n] + t * stride]
        place += sizes[n]


@_on_host
def _unpack(samples: NDArray[Any], starts: Ints, sizes: Ints, stride: int, dense: NDArray[Any]) -> None:
    place = 0
    for n in range(starts.size):
        for t in range(sizes[n]):
            samples[starts[n] + t * stride] = dense[place + t]
        place += sizes[n]


@_on_host
def _survey_host(samples: NDArray[Any], starts: Ints, sizes: Ints, stride: int, flags: NDArray[np.uint8]) -> None:
    for n in range(starts.size):
        flags[n] = SILENT
        for t in range(sizes[n]):
            sample = samples[starts[n] + t * stride]
            if sample != 0:
                flags[n] &= NOT_FINITE
            if not math.isfinite(sample):
                flags[n] |= NOT_FINITE


# On the GPU.


def _launch_add(samples: Any, places: Any, longest: int, sounds: Any, stride: int, saturated: Any, stream: Any) -> None:
    """Queue the adding of sounds at `places`; see `_launch_filter`."""
    blocks = -(-len(places) * longest // BLOCK)
    _add[max(blocks, FEWEST_BLOCKS), BLOCK, stream](
        samples, places, longest, sounds, FULL_SCALE[samples.dtype], stride, int(top_of(samples.dtype)), saturated
    )


@_kernel
def _add(
    samples: Any, places: Any, longest: int, sounds: Any, full_scale: float, stride: int, top: int, saturated: Any
) -> None:
    """One thread per frame of a patch."""
    i = cuda.grid(1)
    n, t = i // longest, i % longest
    if n < places.shape[0] and t < places[n, 1]:
        place = places[n, 0] + t * stride
        y = float64(samples[place]) + full_scale * float64(sounds[places[n, 2], t])
        if top == 0:
            samples[place] = y
        else:
            rounded = round(y)  # half to even
            limited = min(max(rounded, -top), top - 1)
            samples[place] = limited
            if limited != rounded:
                cuda.atomic.add(saturated, 0, 1)


def _launch_filter(
    samples: Any, places: Any, longest: int, filters: Any, stride: int, saturated: Any, stream: Any
) -> None:
    """Queue the filtering of `places`: (n, 3) starts, sizes and rows; all arrays are in device memory."""
    top = int(top_of(samples.dtype))
    n, tap_rows, patch_rows = len(places), -(-filters.shape[1] // WIDTH), -(-longest // WIDTH)
    f_bytes = 8 * WIDTH * tap_rows
    x_bytes = 8 * PITCH * (patch_rows + tap_rows)
    arguments = samples, places, filters, stride, top, saturated
    if f_bytes + x_bytes <= SHARED_BYTES:
        _filter[max(n, FEWEST_BLOCKS), WARP, stream, f_bytes + x_bytes](*arguments)
        return
    slots = min(n, max(1, SCRATCH_BYTES // x_bytes))
    scratch = cuda.device_array((slots, x_bytes // 8), np.float64, stream=stream)
    _filter_long[max(slots, FEWEST_BLOCKS), WARP, stream, f_bytes](*arguments, scratch)


@_kernel
def _filter(samples: Any, places: Any, filters: Any, stride: int, top: int, saturated: Any) -> None:
    """One block per patch; filter and patch are in shared memory."""
    n = cuda.blockIdx.x
    if n < places.shape[0]:
        f = cuda.shared.array(0, float64)
        x = f[(filters.shape[1] + WIDTH - 1) // WIDTH * WIDTH :]
        _filter_patch(samples, places[n, 0], places[n, 1], filters[places[n, 2]], stride, top, f, x, saturated)


@_kernel
def _filter_long(samples: Any, places: Any, filters: Any, stride: int, top: int, saturated: Any, scratch: Any) -> None:
    """`_filter` with the patch in a row of `scratch`; a block takes one patch after another."""
    n, slots = cuda.blockIdx.x, scratch.shape[0]
    if n < slots:
        f = cuda.shared.array(0, float64)
        x = scratch[n]
        while n < places.shape[0]:
            _filter_patch(samples, places[n, 0], places[n, 1], filters[places[n, 2]], stride, top, f, x, saturated)
            cuda.syncthreads()  # everything is stored before the next patch overwrites it
            n += slots


@_part
def _filter_patch(
    samples: Any, start: int, size: int, taps: Any, stride: int, top: int, f: Any, x: Any, saturated: Any
) -> None:
    """Load, sum and store one patch."""
    thread = cuda.threadIdx.x
    n_taps = taps.size
    lead = n_taps - 1 - (n_taps - 1) // 2
    tap_rows = (n_taps + WIDTH - 1) // WIDTH
    patch_rows = (size + WIDTH - 1) // WIDTH
    # The filter is reversed, so y[j] is the plain sum of f[t] * x[j + t]. Both end in zeros.
    t = thread
    while t < tap_rows * WIDTH:
        f[t] = taps[n_taps - 1 - t] if t < n_taps else 0.0
        t += WARP
    own = x[thread // WIDTH * PITCH + thread % WIDTH :]  # a thread's next sample is STEP further on
    t, place = thread - lead, 0
    while t < (patch_rows + tap_rows) * WIDTH - lead:
        own[place] = samples[start + t * stride] if 0 <= t < size else 0.0
        t += WARP
        place += STEP
    cuda.syncthreads()  # everything is loaded before anything is stored
    y = cuda.local.array(WIDTH, float64)
    base = 0
    while base < patch_rows:
        row = base + thread
        sums = x[row * PITCH :]
        if row < patch_rows:
            _convolve(sums, f, tap_rows, y)
        cuda.syncthreads()  # all threads have read the rows up to here, which now take the sums
        if row < patch_rows:
            for r in range(WIDTH):
                sums[r] = y[r]
        base += WARP
    cuda.syncthreads()  # neighbouring threads now store neighbouring samples
    over = 0
    t, place = thread, 0
    while t < size:
        if top == 0:
            samples[start + t * stride] = own[place]
        else:
            rounded = round(own[place])  # half to even
            limited = min(max(rounded, -top), top - 1)
            over += limited != rounded
            samples[start + t * stride] = limited
        t += WARP
        place += STEP
    if over:
        cuda.atomic.add(saturated, 0, over)


@_part
def _convolve(x: Any, f: Any, tap_rows: int, y: Any) -> None:
    """y[r] = sum over t ascending of f[t] * x[r + t], for a row of outputs.

    The GPU's float64 units limit this loop. For each row of taps a warp does 64 multiply-adds, each taking 2 cycles of
    a quarter of a multiprocessor: 32 cycles with all four quarters at work. Its loads take 24 cycles of shared memory:
    8 of neighbouring samples, 2 cycles each, and 8 of one tap for all threads, 1 cycle each.
    """
    window = cuda.local.array(WINDOW, float64)
    for r in range(WIDTH):
        y[r] = 0.0
        window[r] = x[r]
    # With `range` the compiler cannot tell that indexes are not negative, and adds wraparound to each.
    row = 0
    while row < tap_rows:
        for r in range(WIDTH):
            window[WIDTH + r] = x[row * PITCH + PITCH + r]
        for t in range(WIDTH):
            tap = f[row * WIDTH + t]
            for r in range(WIDTH):
                y[r] += tap * window[t + r]
        for r in range(WIDTH):
            window[r] = window[WIDTH + r]
        row += 1


@_kernel
def _survey(samples: Any, places: Any, stride: int, found: Any) -> None:
    """One block per patch; `places` is (n, 2) starts and sizes."""
    n = cuda.blockIdx.x
    if n < places.shape[0]:
        start, size = places[n, 0], places[n, 1]
        sounds = broken = False
        for t in range(cuda.threadIdx.x, size, cuda.blockDim.x):
            sample = samples[start + t * stride]
            sounds |= sample != 0
            broken |= not math.isfinite(sample)
        any_sounds = cuda.syncthreads_or(np.int32(sounds))
        any_broken = cuda.syncthreads_or(np.int32(broken))
        if cuda.threadIdx.x == 0:
            found[n] = (0 if any_sounds else SILENT) | (NOT_FINITE if any_broken else 0)
