"""Format 1 of FORMAT.md for NVIDIA GPUs: patches found and filtered."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda, float64

from poscuda_fast.kernels.clips import ClipRows, Scattering
from poscuda_fast.kernels.cuda_launch import blocks_for, fetch, kernel, part, refuse_fork, send, view_of, zeros
from poscuda_fast.kernels.reference import TOP, Ints, Table

# GROUP threads filter a patch, so that the paper's 240 frames keep 15 of 16 busy; each sums WIDTH neighbouring outputs
# at once, in registers. Threads that read WIDTH samples apart would hit the same banks of shared memory, so x is stored
# in rows of WIDTH samples, PITCH apart. Filters are read STEP taps at a time, and BATCH loads are on their way at once.
WIDTH, PITCH, STEP = 16, 17, 8
WINDOW = WIDTH + STEP
BATCH = 8
GROUP, GROUPS = 16, 2  # threads of a patch, which are as many as WIDTH, and patches of a block: one warp, in step
_COUNTS = 1 + GROUPS

SHARED_BYTES = 48 << 10  # any GPU gives a block this much; longer patches are held in device memory
SCRATCH_BYTES = 64 << 20  # device memory for those, unless one block needs more


def filter_clips(samples: Any, clips: ClipRows, scattering: Scattering, taps: Table) -> Ints:
    """See `ClipKernels.filter_clips`; one launch."""
    refuse_fork()
    view = view_of(samples)
    if not len(clips.rows) or not clips.frames or not clips.channels:
        return np.zeros(3, np.int64)
    launch, tally = prepare_clips(view, clips, scattering, taps)
    launch()
    return fetch(tally, view.stream)


def prepare_clips(view: Any, clips: ClipRows, scattering: Scattering, taps: Table) -> tuple[Callable[[], None], Any]:
    """Send what one launch over clips needs; returns what queues it, and the counters that it adds to."""
    n, longest = len(clips.rows) * scattering.most(clips.frames), min(scattering.patch, clips.frames)
    stream = view.stream
    given = (view, *_where(clips, scattering, stream), n, longest)
    filters, tally = send(taps, stream), zeros(3, stream)

    def launch() -> None:
        _launch_filter((_filter_clips, _filter_clips_long), n, longest, given, filters, tally, stream)

    return launch, tally


def first_odd_clip(samples: Any, clips: ClipRows, scattering: Scattering) -> int | None:
    """See `ClipKernels.first_odd_clip`; one launch."""
    refuse_fork()
    view = view_of(samples)
    if not len(clips.rows) or not clips.frames or not clips.channels:
        return None
    n = len(clips.rows) * scattering.most(clips.frames)
    stream = view.stream
    found = send(np.array([len(clips.rows)], np.int64), stream)
    _find_odd[blocks_for(n), GROUP * GROUPS, stream](view, *_where(clips, scattering, stream), n, found)
    clip = int(fetch(found, stream)[0])
    return clip if clip < len(clips.rows) else None


def _where(clips: ClipRows, scattering: Scattering, stream: Any) -> tuple[Any, ...]:
    """The arguments of `_scattered`."""
    arrays = clips.rows, clips.lengths, scattering.words, scattering.firsts
    sent = [send(each, stream) for each in arrays]
    rest = scattering.patch, scattering.patches, scattering.every
    return (*sent, clips.frames, clips.channels, scattering.most(clips.frames), *rest)


class Filtering:
    """Filters in device memory, and the queueing of their application."""

    def __init__(self, taps: Table, stream: Any) -> None:
        self._filters = send(taps, stream)

    def launch(
        self, samples: Any, places: Any, on_host: Ints, stride: int, tally: Any, stream: Any, address: int
    ) -> None:
        """See `Adding.launch`."""
        del address
        n, longest = len(on_host), int(on_host[:, 1].max())
        given = samples, places, stride, longest
        _launch_filter((_filter, _filter_long), n, longest, given, self._filters, tally, stream)


def _launch_filter(
    kernels: tuple[Any, Any], n: int, longest: int, given: Any, filters: Any, tally: Any, stream: Any
) -> None:
    """Queue the filtering of n patches; all arrays are in device memory."""
    top = int(TOP[np.dtype(given[0].dtype)])
    steps, blocks = -(-filters.shape[1] // STEP), -(-n // GROUPS)
    f_room = steps * STEP
    x_room = PITCH * (-(-longest // WIDTH) + (steps + 1) // 2)
    in_shared, in_memory = kernels
    if 8 * GROUPS * (f_room + x_room) <= SHARED_BYTES:
        in_shared[blocks_for(blocks), GROUP * GROUPS, stream, 8 * GROUPS * (f_room + x_room)](
            *given, filters, top, tally, f_room, x_room
        )
        return
    slots = min(blocks, max(1, SCRATCH_BYTES // (8 * GROUPS * x_room)))
    scratch = cuda.device_array((slots, GROUPS, x_room), np.float64, stream=stream)
    in_memory[blocks_for(slots), GROUP * GROUPS, stream, 8 * GROUPS * f_room](
        *given, filters, top, tally, f_room, scratch
    )


@kernel
def _filter(
    samples: Any, places: Any, stride: int, longest: int, filters: Any, top: int, tally: Any, f_room: int, x_room: int
) -> None:
    """A group of threads for each patch; filters and patches are in shared memory."""
    group = cuda.threadIdx.x // GROUP
    own = cuda.shared.array(0, float64)[group * (f_room + x_room) :]
    n = cuda.blockIdx.x * GROUPS + group
    start = size = row = np.int64(0)
    if n < places.shape[0]:
        start, size, row = places[n, 0], places[n, 1], places[n, 3]
    _filter_patch(samples, start, size, longest, filters[row], stride, 1, top, own, own[f_room:], tally)


@kernel
def _filter_long(
    samples: Any, places: Any, stride: int, longest: int, filters: Any, top: int, tally: Any, f_room: int, scratch: Any
) -> None:
    """`_filter` with the patches in `scratch`; a block takes some patches after others."""
    group, slot = cuda.threadIdx.x // GROUP, cuda.blockIdx.x
    own = cuda.shared.array(0, float64)[group * f_room :]
    first = GROUPS * slot if slot < scratch.shape[0] else places.shape[0]
    while first < places.shape[0]:
        n = first + group
        start = size = row = np.int64(0)
        if n < places.shape[0]:
            start, size, row = places[n, 0], places[n, 1], places[n, 3]
        _filter_patch(samples, start, size, longest, filters[row], stride, 1, top, own, scratch[slot, group], tally)
        first += GROUPS * scratch.shape[0]


@kernel
def _filter_clips(
    samples: Any, clips: Any, lengths: Any, words: Any, firsts: Any, frames: int, channels: int, most: int, patch: int,
    patches: int, every: int, total: int, longest: int, filters: Any, top: int, tally: Any, f_room: int, x_room: int,
) -> None:  # fmt: skip
    """`_filter` for clips one behind the other, whose places are computed here."""
    group = cuda.threadIdx.x // GROUP
    own = cuda.shared.array(0, float64)[group * (f_room + x_room) :]
    n = cuda.blockIdx.x * GROUPS + group
    start = size = row = np.int64(0)
    if n < total:
        start, size, row = _scattered(
            n, clips, lengths, words, firsts, frames, channels, most, patch, patches, every
        )  # fmt: skip
    _filter_patch(samples, start, size, longest, filters[row], channels, channels, top, own, own[f_room:], tally)


@kernel
def _filter_clips_long(
    samples: Any, clips: Any, lengths: Any, words: Any, firsts: Any, frames: int, channels: int, most: int, patch: int,
    patches: int, every: int, total: int, longest: int, filters: Any, top: int, tally: Any, f_room: int, scratch: Any,
) -> None:  # fmt: skip
    """`_filter_clips` with the patches in `scratch`, as in `_filter_long`."""
    group, slot = cuda.threadIdx.x // GROUP, cuda.blockIdx.x
    own = cuda.shared.array(0, float64)[group * f_room :]
    first = GROUPS * slot if slot < scratch.shape[0] else total
    while first < total:
        n = first + group
        start = size = row = np.int64(0)
        if n < total:
            start, size, row = _scattered(
                n, clips, lengths, words, firsts, frames, channels, most, patch, patches, every
            )  # fmt: skip
        x = scratch[slot, group]
        _filter_patch(samples, start, size, longest, filters[row], channels, channels, top, own, x, tally)
        first += GROUPS * scratch.shape[0]


@part
def _scattered(
    n: int, clips: Any, lengths: Any, words: Any, firsts: Any, frames: int, channels: int, most: int, patch: int,
    patches: int, every: int,
) -> Any:  # fmt: skip
    """First sample, frames and row of patch n, of `most` for each clip; no frames if the clip has no such patch."""
    clip, number = n // most, n % most
    length = lengths[clip if lengths.size > 1 else 0]
    size, count = min(patch, length), np.int64(1)
    if length == 0:
        count = np.int64(0)
    elif every > 0:
        count = max(np.int64(1), length // every)
    elif patches > 1:
        count = min(np.int64(patches), length // size)
    row = np.int64(clips[clip])
    if number >= count:
        return np.int64(0), np.int64(0), row
    free = length - count * size + 1
    low, high = np.int64(0), free
    if count > 1:  # divided before it is multiplied: the product need not fit 64 bits
        whole, rest = free // count, free % count
        low = whole * number + rest * number // count
        high = whole * (number + 1) + rest * (number + 1) // count
    word, span = np.uint64(words[firsts[row] + number]), np.uint64(high - low)
    half = np.uint64(32)
    shift = word * (span >> half) + (word * (span & np.uint64(0xFFFFFFFF)) >> half)
    start = number * size + low + np.int64(shift)
    return (clip * frames + start) * channels, size, row


@part
def _filter_patch(
    samples: Any, start: int, size: int, longest: int, taps: Any, stride: int, channels: int, top: int, f: Any, x: Any,
    tally: Any,
) -> None:  # fmt: skip
    """Filter the channels of one patch for each group of a block, whose barriers all threads pass equally often."""
    found = cuda.shared.array(_COUNTS, np.int32)  # saturated samples; and whether each patch sounds
    thread, group = cuda.threadIdx.x % GROUP, cuda.threadIdx.x // GROUP
    if cuda.threadIdx.x < _COUNTS:
        found[cuda.threadIdx.x] = 0
    cuda.syncthreads()
    n_taps = taps.size
    steps = (n_taps + STEP - 1) // STEP
    # The filter is reversed, so y[j] is the plain sum of f[t] * x[j + t]. Both end in zeros.
    batch = cuda.local.array(BATCH, float64)
    t = thread
    while t < steps * STEP:
        for r in range(BATCH):  # so many loads are on their way before the first is waited for
            tap = float64(taps[np.uint64(max(n_taps - 1 - t - r * GROUP, 0))])
            batch[r] = tap if t + r * GROUP < n_taps else 0.0
        for r in range(BATCH):
            if t + r * GROUP < steps * STEP:
                f[t + r * GROUP] = batch[r]
        t += BATCH * GROUP
    over = np.int32(0)
    for channel in range(channels):
        over += _filter_channel(samples, start + channel, size, longest, n_taps, stride, top, f, x, found)
    if over != 0:
        cuda.atomic.add(found, 0, np.int32(over))
    cuda.syncthreads()
    if cuda.threadIdx.x == 0 and found[0] != 0:
        cuda.atomic.add(tally, 0, np.int64(found[0]))
    if thread == 0 and size > 0 and found[1 + group] == 0:
        cuda.atomic.add(tally, 1, np.int64(1))
        cuda.atomic.add(tally, 2, size)
    cuda.syncthreads()  # everything is read before the next patch overwrites it


@part
def _filter_channel(
    samples: Any, start: int, size: int, longest: int, n_taps: int, stride: int, top: int, f: Any, x: Any, found: Any
) -> Any:
    """Load, sum and store one channel of a patch; returns how many of this thread's samples were saturated."""
    thread, group = cuda.threadIdx.x % GROUP, cuda.threadIdx.x // GROUP
    steps = (n_taps + STEP - 1) // STEP
    rows = (size + WIDTH - 1) // WIDTH
    if _load_channel(samples, start, size, stride, n_taps - 1 - (n_taps - 1) // 2, rows * WIDTH + steps * STEP, x):
        found[1 + group] = 1
    cuda.syncthreads()  # everything is loaded before anything is stored
    y = cuda.local.array(WIDTH, float64)
    over = np.int32(0)
    base = 0
    while base * WIDTH < longest:
        row = base + thread
        sums = x[row * PITCH :]
        if row < rows:
            _convolve(sums, f, steps, y)
        cuda.syncthreads()  # all threads have read the rows up to here, which now take the sums
        if row < rows:
            for r in range(WIDTH):
                if top != 0:
                    rounded = round(y[r])  # half to even
                    limited = min(max(rounded, -top), top - 1)
                    over += np.int32(limited != rounded and row * WIDTH + r < size)
                    y[r] = limited
                sums[r] = y[r]
        base += GROUP
    cuda.syncthreads()  # neighbouring threads now store neighbouring samples
    t, place = thread, thread
    while t < size:
        samples[np.uint64(start + t * stride)] = x[place]
        t += GROUP
        place += PITCH
    cuda.syncthreads()  # everything is stored before the next channel is loaded
    return over


@part
def _load_channel(samples: Any, start: int, size: int, stride: int, lead: int, room: int, x: Any) -> Any:
    """One channel of a patch behind `lead` zeros, and zeros up to `room` samples; returns whether it sounds."""
    t, place = cuda.threadIdx.x % GROUP - lead, cuda.threadIdx.x % GROUP
    behind = room - lead
    first = start if size > 0 else np.int64(0)  # a patch of no frames may begin behind the last sample
    sounds = False
    batch = cuda.local.array(BATCH, float64)
    while t < behind:  # a thread's next sample is a row further on
        for r in range(BATCH):
            i = t + r * GROUP
            sample = float64(samples[np.uint64(first + max(min(i, size - 1), 0) * stride)])
            batch[r] = sample if 0 <= i < size else 0.0
        for r in range(BATCH):
            if t + r * GROUP < behind:
                sounds |= batch[r] != 0.0
                x[place + r * PITCH] = batch[r]
        t += BATCH * GROUP
        place += BATCH * PITCH
    return sounds


@part
def _convolve(x: Any, f: Any, steps: int, y: Any) -> None:
    """y[r] = sum over t ascending of f[t] * x[r + t], for a row of outputs.

    The GPU's float64 units limit this loop. For each step a warp does 128 multiply-adds, each taking 2 cycles of a
    quarter of a multiprocessor: 64 cycles with all four quarters at work. Its loads take 32 cycles of shared memory: 8
    of samples and 8 of taps, each of a half warp for either patch.
    """
    window = cuda.local.array(WINDOW, float64)
    for r in range(WIDTH):
        y[r] = 0.0
        window[r] = x[r]
    # With `range` the compiler cannot tell that indexes are not negative, and adds wraparound to each.
    step, place = 0, PITCH
    while step < steps:
        for r in range(STEP):
            window[WIDTH + r] = x[place + r]
        for t in range(STEP):
            tap = f[step * STEP + t]
            for r in range(WIDTH):
                y[r] += tap * window[t + r]
        for r in range(WIDTH):
            window[r] = window[STEP + r]
        place += STEP + step % 2  # every second step begins a row, behind the gap between two
        step += 1


@kernel
def _find_odd(
    samples: Any, clips: Any, lengths: Any, words: Any, firsts: Any, frames: int, channels: int, most: int, patch: int,
    patches: int, every: int, total: int, found: Any,
) -> None:  # fmt: skip
    """One block per patch: lowers `found` to its clip if a sample is not finite."""
    n = np.int64(cuda.blockIdx.x)
    if n < total:
        start, size, _ = _scattered(
            n, clips, lengths, words, firsts, frames, channels, most, patch, patches, every
        )  # fmt: skip
        t = cuda.threadIdx.x
        odd = False
        while t < size * channels:
            odd |= not math.isfinite(samples[np.uint64(start + t)])
            t += cuda.blockDim.x
        if odd:
            cuda.atomic.min(found, 0, n // most)
