"""The arithmetic of FORMAT.md for NVIDIA GPUs, compiled by numba-cuda.

Samples in host memory are packed into pinned buffers and sent; one chunk is packed while the GPU marks the one before.
Samples in device memory are marked in place: whole clips by one launch, whatever their number.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import cuda, float64
from numpy.typing import NDArray

from poscuda_fast.kernels.cuda_filters import Filtering, filter_clips, first_odd_clip
from poscuda_fast.kernels.cuda_launch import blocks_for, fetch, kernel, on_host, refuse_fork, send, view_of, zeros
from poscuda_fast.kernels.cuda_lines import PER_WORD, Adding, add_clips
from poscuda_fast.kernels.hashing import hash_pieces
from poscuda_fast.kernels.reference import NOT_FINITE, SILENT, Flags, Ints, LineTable, Samples, Table
from poscuda_fast.kernels.telling import mark_and_hash, tell_pieces

__all__ = [  # what every backend has, and `ClipKernels`
    "add_clips", "add_lines", "filter_clips", "filter_patches", "first_odd_clip", "hash_pieces", "mark_and_hash",
    "measure_patches", "read_patches", "survey_patches", "tell_pieces",
]  # fmt: skip

CHUNK_BYTES, CHUNK_PATCHES = 2 << 20, 1 << 14  # what is packed and sent at a time

THREADS = 128


# What every backend has.


def filter_patches(
    samples: Samples, starts: Ints, sizes: Ints, rows: Ints, taps: Table, stride: int, flags: Flags | None = None
) -> int:
    """See `reference.filter_patches`: same arguments, same bits.

    `samples` may also be a flat array in device memory, with `__cuda_array_interface__`. It is filtered
    in place, in order on the stream that the interface names.
    """
    refuse_fork()
    if not len(starts):
        return 0
    if flags is not None:
        flags[:] = survey_patches(samples, starts, sizes, stride)
    places = np.stack([starts, sizes, np.zeros_like(starts), rows], axis=1)
    if isinstance(samples, np.ndarray):
        return _mark_host(samples, places, stride, Filtering(taps, 0))
    view = view_of(samples)
    return _mark_device(samples, view, places, stride, Filtering(taps, view.stream))


def add_lines(
    samples: Samples, starts: Ints, sizes: Ints, phases: Ints, rows: Ints, table: LineTable, stride: int
) -> int:
    """See `reference.add_lines`: same arguments, same bits; device memory too, as in `filter_patches`."""
    refuse_fork()
    if not len(starts):
        return 0
    places = np.stack([starts, sizes, phases, rows], axis=1)
    if isinstance(samples, np.ndarray):
        return _mark_host(samples, _cut(places, _room(samples.dtype), stride), stride, Adding(table, 0))
    view = view_of(samples)
    return _mark_device(samples, view, places, stride, Adding(table, view.stream))


def survey_patches(samples: Samples, starts: Ints, sizes: Ints, stride: int) -> Flags:
    """See `reference.survey_patches`: same arguments, same flags; not worth sending to the GPU."""
    flags = np.empty(len(starts), np.uint8)
    _survey_host(samples, starts, sizes, stride, flags)
    return flags


def measure_patches(
    samples: Samples, starts: Ints, sizes: Ints, stride: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """See `reference.measure_patches`; samples in device memory are measured there, by one launch."""
    found = np.zeros((len(starts), 2))
    if isinstance(samples, np.ndarray):
        _measure_host(samples, starts, sizes, stride, found)
    elif len(starts):
        refuse_fork()
        view = view_of(samples, writing=False)
        places = send(np.stack([starts, sizes], axis=1), view.stream)
        measured = cuda.device_array(found.shape, np.float64, stream=view.stream)
        blocks = blocks_for(len(starts))
        _measure[blocks, THREADS, view.stream, 16 * THREADS](view, places, stride, measured)
        found = fetch(measured, view.stream)
    return found[:, 0], found[:, 1]


def read_patches(samples: Any, starts: Ints, sizes: Ints) -> NDArray[Any]:
    """See `ClipKernels.read_patches`; one launch."""
    refuse_fork()
    view = view_of(samples, writing=False)
    total = int(sizes.sum())
    if not total:
        return np.empty(0, view.dtype)
    places = send(np.stack([starts, sizes, np.cumsum(sizes) - sizes], axis=1), view.stream)
    dense = cuda.device_array(total, view.dtype, stream=view.stream)
    _gather[blocks_for(len(starts)), THREADS, view.stream](view, places, dense)
    return fetch(dense, view.stream)


# Device memory.


def _mark_device(samples: Any, view: Any, places: Ints, stride: int, marking: Filtering | Adding) -> int:
    """Mark patches of a view in place."""
    stream = view.stream
    tally = zeros(3, stream)
    address = samples.__cuda_array_interface__["data"][0]
    marking.launch(view, send(places, stream), places, stride, tally, stream, address)
    return int(fetch(tally, stream)[0])


# Host memory.

_kept = threading.local()  # stagings for the thread's next call: pinning memory costs as much as filling it


def _room(dtype: np.dtype[Any]) -> int:
    """Samples of a chunk."""
    return CHUNK_BYTES // _bytes_of(dtype)


def _bytes_of(dtype: np.dtype[Any]) -> int:
    """Bytes of a sample; bytes are packed samples of 24 bits."""
    return 3 if dtype == np.uint8 else dtype.itemsize


def _cut(places: Ints, most: int, stride: int) -> Ints:
    """Patches, of which lines do not mind where they are cut, in pieces of at most `most` samples."""
    starts, sizes, phases, rows = places.T
    pieces = -(-sizes // most)
    if int(pieces.max()) <= 1:
        return places
    order = np.repeat(np.arange(len(places)), pieces)
    skipped = most * (np.arange(len(order)) - np.repeat(np.cumsum(pieces) - pieces, pieces))
    left = np.minimum(most, sizes[order] - skipped)
    cut: Ints = np.stack([starts[order] + skipped * stride, left, phases[order] + skipped, rows[order]], axis=1)
    return cut


def _mark_host(samples: NDArray[Any], places: Ints, stride: int, marking: Filtering | Adding) -> int:
    room = _room(samples.dtype)
    longest = int(places[:, 1].max())
    cuda.current_context()  # makes a GPU the current one
    key = cuda.gpus.current, samples.dtype, room
    kept: dict[Any, list[_Staging]] = _kept.__dict__.setdefault("stagings", {})
    stagings = kept.pop(key, []) if longest <= room else []
    stagings = stagings or [_Staging(max(room, longest), samples.dtype) for _ in range(2)]
    odd = 0
    for number, chunk in enumerate(_chunks(places[:, 1], room)):
        staging = stagings[number % 2]
        odd += staging.store()
        staging.send(samples, places[chunk], stride, marking)
    for staging in stagings:
        odd += staging.store()
    if longest <= room:  # not kept after an error: the GPU may still be using them
        kept[key] = stagings
    return odd


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
        self._width = 3 if dtype == np.uint8 else 1  # elements of a sample
        whole = -(-room // PER_WORD) * PER_WORD
        self._dense, self._device_dense = _pair(whole * self._width, dtype)
        self._places, self._device_places = _pair((CHUNK_PATCHES, 4), np.int64)
        self._tally, self._device_tally = _pair(3, np.int64)
        self._sent: tuple[Any, ...] | None = None

    def send(self, samples: NDArray[Any], places: Ints, stride: int, marking: Filtering | Adding) -> None:
        """Pack patches and queue their way to the GPU, the marking and the way back; does not wait."""
        starts, sizes = places[:, 0].copy(), places[:, 1].copy()
        n, total = len(places), int(sizes.sum())
        if not total:
            return
        dense, packed = self._dense[: total * self._width], self._places[:n]
        device_dense, device_places = self._device_dense[: total * self._width], self._device_places[:n]
        _pack(samples, starts, sizes, stride, self._width, dense)
        packed[:] = places
        packed[:, 0] = np.cumsum(sizes) - sizes
        self._tally[:] = 0
        device_places.copy_to_device(packed, stream=self._stream)
        device_dense.copy_to_device(dense, stream=self._stream)
        self._device_tally.copy_to_device(self._tally, stream=self._stream)
        marking.launch(device_dense, device_places, packed, 1, self._device_tally, self._stream, 0)
        device_dense.copy_to_host(dense, stream=self._stream)
        self._device_tally.copy_to_host(self._tally, stream=self._stream)
        self._sent = samples, starts, sizes, stride, self._width, dense

    def store(self) -> int:
        """Wait for the patches sent and store them in `samples`; returns how many samples were odd."""
        if self._sent is None:
            return 0
        self._stream.synchronize()  # raises errors of the GPU before anything is stored
        _unpack(*self._sent)
        self._sent = None
        return int(self._tally[0])


def _pair(shape: Any, dtype: Any) -> tuple[NDArray[Any], Any]:
    return cuda.pinned_array(shape, dtype), cuda.device_array(shape, dtype)


@on_host
def _pack(samples: NDArray[Any], starts: Ints, sizes: Ints, stride: int, width: int, dense: NDArray[Any]) -> None:
    place = 0
    for n in range(starts.size):
        first, size = width * starts[n], width * sizes[n]
        if stride == 1:
            dense[place : place + size] = samples[first : first + size]
        else:
            for t in range(sizes[n]):
                for part in range(width):
                    dense[place + width * t + part] = samples[first + width * t * stride + part]
        place += size


@on_host
def _unpack(samples: NDArray[Any], starts: Ints, sizes: Ints, stride: int, width: int, dense: NDArray[Any]) -> None:
    place = 0
    for n in range(starts.size):
        first, size = width * starts[n], width * sizes[n]
        if stride == 1:
            samples[first : first + size] = dense[place : place + size]
        else:
            for t in range(sizes[n]):
                for part in range(width):
                    samples[first + width * t * stride + part] = dense[place + width * t + part]
        place += size


@on_host
def _survey_host(samples: NDArray[Any], starts: Ints, sizes: Ints, stride: int, flags: NDArray[np.uint8]) -> None:
    for n in range(starts.size):
        flags[n] = SILENT
        for t in range(sizes[n]):
            sample = samples[starts[n] + t * stride]
            if sample != 0:
                flags[n] &= NOT_FINITE
            if not math.isfinite(sample):
                flags[n] |= NOT_FINITE


@on_host
def _measure_host(samples: NDArray[Any], starts: Ints, sizes: Ints, stride: int, found: NDArray[np.float64]) -> None:
    for n in range(starts.size):
        total = peak = 0.0
        for t in range(sizes[n]):
            sample = np.float64(samples[starts[n] + t * stride])
            total += sample * sample
            if abs(sample) > peak:  # noqa: PLR1730 - `max` may keep a NaN
                peak = abs(sample)
        found[n, 0], found[n, 1] = total, peak


# On the GPU, looks that change nothing.


@kernel
def _measure(samples: Any, places: Any, stride: int, measured: Any) -> None:
    """One block per patch; `places` is (n, 2) starts and sizes."""
    n, thread = cuda.blockIdx.x, cuda.threadIdx.x
    energies = cuda.shared.array(0, float64)
    peaks = energies[cuda.blockDim.x :]
    if n < places.shape[0]:
        energy = peak = 0.0
        t = np.int64(thread)
        while t < places[n, 1]:
            sample = float64(samples[np.uint64(places[n, 0] + t * stride)])
            energy += sample * sample
            if abs(sample) > peak:  # noqa: PLR1730 - `max` may keep a NaN
                peak = abs(sample)
            t += cuda.blockDim.x
        energies[thread], peaks[thread] = energy, peak
        cuda.syncthreads()
        if thread == 0:  # in a fixed order, so that each run has the same sum
            for other in range(1, cuda.blockDim.x):
                energy += energies[other]
                if peaks[other] > peak:  # noqa: PLR1730
                    peak = peaks[other]
            measured[n, 0], measured[n, 1] = energy, peak


@kernel
def _gather(samples: Any, places: Any, dense: Any) -> None:
    """One block per patch; `places` is (n, 3) starts, sizes and where to put them."""
    n = cuda.blockIdx.x
    if n < places.shape[0]:
        t = np.int64(cuda.threadIdx.x)
        while t < places[n, 1]:
            dense[np.uint64(places[n, 2] + t)] = samples[np.uint64(places[n, 0] + t)]
            t += cuda.blockDim.x
