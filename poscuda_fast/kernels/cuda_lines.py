"""Format 2 of FORMAT.md for NVIDIA GPUs: a table added round and round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda

from poscuda_fast.kernels.clips import ClipRows
from poscuda_fast.kernels.cuda_launch import blocks_for, fetch, kernel, part, refuse_fork, send, view_of, zeros
from poscuda_fast.kernels.reference import Ints, LineTable

# A thread adds 4 elements at once, so that enough loads are on their way; an element is a sample, or of int16
# a word of 4.
THREADS = 128
TILE = 4096  # elements of a block
PER_WORD = 4

_ROUNDS_TO = np.uint64(0x7FFF7FFF7FFF7FFF)  # four int16 of a word: all bits but the signs
_SIGNS = np.uint64(0x8000800080008000)
_LOWEST_BITS = np.uint64(0x0001000100010001)
_LARGEST = np.float32(3.4028235e38)
_TOP24 = 1 << 23


def add_clips(samples: Any, clips: ClipRows, table: LineTable) -> int:
    """See `ClipKernels.add_clips`; one launch."""
    refuse_fork()
    view = view_of(samples)
    if not len(clips.rows) or not clips.frames or not clips.channels:
        return 0
    launch, odd = prepare_clips(samples, view, clips, table)
    launch()
    return int(fetch(odd, view.stream)[0])


def prepare_clips(samples: Any, view: Any, clips: ClipRows, table: LineTable) -> tuple[Callable[[], None], Any]:
    """Send what one launch over clips needs; returns what queues it, and the counter that it adds to."""
    stream, step = view.stream, clips.frames * clips.channels
    adding = Adding(table, stream)
    rows, lengths, odd = send(clips.rows, stream), send(clips.lengths, stream), zeros(1, stream)
    words, lead = adding.words_of(view, samples.__cuda_array_interface__["data"][0])
    tiles, tile = _tiles(step, view.dtype)
    kernel_of_dtype, blocks = _ADD_CLIPS[view.dtype.name], blocks_for(len(clips.rows) * tiles)

    def launch() -> None:
        kernel_of_dtype[blocks, THREADS, stream](
            view, words, lead, rows, lengths, step, clips.channels, tiles, tile, *adding.arguments, odd
        )

    return launch, odd


class Adding:
    """Lines in device memory, and the queueing of their addition."""

    def __init__(self, table: LineTable, stream: Any) -> None:
        values = table.values
        if values.dtype == np.int16:  # in whole words, and one more
            values = np.concatenate([values, np.zeros(-len(values) % PER_WORD + PER_WORD, np.int16)])
        places = np.stack([table.firsts, table.periods], axis=1)
        sent = send(values, stream)
        words = sent.view(np.uint64) if values.dtype == np.int16 else sent
        self.arguments = sent, words, send(places, stream)

    @staticmethod
    def words_of(samples: Any, address: int) -> tuple[Any, int]:
        """int16 samples as aligned words, and how many samples lie before the first of these."""
        lead = -address % (2 * PER_WORD) // 2
        n_words = max(0, len(samples) - lead) // PER_WORD
        if samples.dtype != np.int16:
            return samples, 0
        if not n_words:
            return cuda.to_device(np.zeros(1, np.uint64)), lead
        return samples[lead : lead + n_words * PER_WORD].view(np.uint64), lead

    def launch(
        self, samples: Any, places: Any, on_host: Ints, stride: int, tally: Any, stream: Any, address: int
    ) -> None:
        """Queue the addition at `places`, (n, 4) starts, sizes, phases and rows in device memory."""
        words, lead = self.words_of(samples, address)
        tiles, tile = _tiles(int(on_host[:, 1].max()), samples.dtype)
        _ADD_PATCHES[samples.dtype.name][blocks_for(len(on_host) * tiles), THREADS, stream](
            samples, words, lead, places, stride, tiles, tile, *self.arguments, tally
        )


def _tiles(longest: int, dtype: np.dtype[Any]) -> tuple[int, int]:
    """Into how many tiles, each of a block, patches are cut, and samples of a tile: whole words."""
    most = TILE * PER_WORD if dtype == np.int16 else TILE
    tiles = max(1, -(-longest // most))
    return tiles, -(-longest // tiles // PER_WORD) * PER_WORD


@part
def _load(samples: Any, place: int) -> Any:
    return samples[np.uint64(place)]


@part
def _store(samples: Any, place: int, value: Any) -> None:
    samples[np.uint64(place)] = value


@part
def _load_packed(samples: Any, place: int) -> Any:
    """A sample of 24 bits from three bytes."""
    first = np.uint64(3 * place)
    low, middle = np.int32(samples[first]), np.int32(samples[first + np.uint64(1)])
    high = np.int32(samples[first + np.uint64(2)])
    return low + 256 * middle + 65536 * (high - 2 * (high & 128))


@part
def _store_packed(samples: Any, place: int, value: Any) -> None:
    first = np.uint64(3 * place)
    samples[first] = value & 255
    samples[first + np.uint64(1)] = (value >> 8) & 255
    samples[first + np.uint64(2)] = (value >> 16) & 255


@part
def _mark_word(values: Any, place: int) -> Any:
    """Four values from `place` on, counted in values, as a word."""
    first, shift = np.uint64(place >> 2), np.uint64(16 * (place & 3))
    low, high = values[first], values[first + np.uint64(1)]
    return (low >> shift) | ((high << np.uint64(1)) << (np.uint64(63) - shift))


@part
def _sum_words(a: Any, b: Any) -> Any:
    """Four sums of int16, saturated; and how many were."""
    total = ((a & _ROUNDS_TO) + (b & _ROUNDS_TO)) ^ ((a ^ b) & _SIGNS)
    lost = (a ^ total) & (b ^ total) & _SIGNS  # both terms have one sign and the sum has the other
    if lost != 0:
        ones = lost >> np.uint64(15)
        mask = (lost - ones) | lost
        limit = _ROUNDS_TO + ((a >> np.uint64(15)) & _LOWEST_BITS)
        total = (total & ~mask) | (limit & mask)
    return total, np.int32(cuda.popc(lost))  # numba makes a float of a sum of signed and unsigned integers


@part
def _sum_int16(a: Any, b: Any) -> Any:
    total = np.int32(a) + np.int32(b)
    limited = min(max(total, -32768), 32767)
    return limited, np.int32(limited != total)


@part
def _sum_int24(a: Any, b: Any) -> Any:
    total = a + b
    limited = min(max(total, -_TOP24), _TOP24 - 1)
    return limited, np.int32(limited != total)


@part
def _sum_float32(a: Any, b: Any) -> Any:
    """What is not finite keeps its bits."""
    if abs(a) <= _LARGEST:
        return a + b, np.int32(0)
    return a, np.int32(1)


def _runs(load: Any, store: Any, mark: Any, add: Any, width: int) -> Any:
    """What adds a row to a run of elements with the threads of a block; an element holds `width` values of the row."""

    @part
    def run(samples: Any, start: int, stride: int, count: int, values: Any, first: int, period: int, phase: int) -> Any:
        threads, last = cuda.blockDim.x, count - 1
        t = np.int64(cuda.threadIdx.x)
        hop = width * threads % period
        p0 = (phase + width * t) % period
        odd = np.int32(0)
        while t < count:
            t1, t2, t3 = t + threads, t + 2 * threads, t + 3 * threads
            # Four loads are on their way before the first is waited for; those beyond the run are not stored.
            x0, x1 = load(samples, start + t * stride), load(samples, start + min(t1, last) * stride)
            x2, x3 = load(samples, start + min(t2, last) * stride), load(samples, start + min(t3, last) * stride)
            p1 = p0 + hop
            p1 -= period if p1 >= period else 0
            p2 = p1 + hop
            p2 -= period if p2 >= period else 0
            p3 = p2 + hop
            p3 -= period if p3 >= period else 0
            y0, odd0 = add(x0, mark(values, first + p0))
            y1, odd1 = add(x1, mark(values, first + p1))
            y2, odd2 = add(x2, mark(values, first + p2))
            y3, odd3 = add(x3, mark(values, first + p3))
            store(samples, start + t * stride, y0)
            odd = np.int32(odd + odd0)
            if t1 < count:
                store(samples, start + t1 * stride, y1)
                odd = np.int32(odd + odd1)
            if t2 < count:
                store(samples, start + t2 * stride, y2)
                odd = np.int32(odd + odd2)
            if t3 < count:
                store(samples, start + t3 * stride, y3)
                odd = np.int32(odd + odd3)
            t += 4 * threads
            p0 = p3 + hop
            p0 -= period if p0 >= period else 0
        return odd

    return run


_run_words = _runs(_load, _store, _mark_word, _sum_words, PER_WORD)
_run_int16 = _runs(_load, _store, _load, _sum_int16, 1)


@part
def _add_int16(
    samples: Any, words: Any, lead: int, start: int, stride: int, size: int,
    values: Any, value_words: Any, first: int, period: int, phase: int,
) -> Any:  # fmt: skip
    """Words of four samples, and what lies before the first and behind the last."""
    if stride != 1:
        return _run_int16(samples, start, stride, size, values, first, period, phase)
    end = start + size
    word, last = (start - lead + 3) >> 2, (end - lead) >> 2
    head = min(lead + 4 * word, end)
    tail = max(lead + 4 * last, head)
    odd = _run_words(words, word, 1, last - word, value_words, first, period, (phase + head - start) % period)
    t = np.int64(cuda.threadIdx.x)
    while t < head - start + end - tail:  # six samples at most
        place = start + t if t < head - start else tail + t - (head - start)
        y, more = _sum_int16(samples[np.uint64(place)], values[np.uint64(first + (phase + place - start) % period)])
        samples[np.uint64(place)] = y
        odd = np.int32(odd + more)
        t += cuda.blockDim.x
    return odd


def _plain(run: Any) -> Any:
    """`run`, with the arguments of `_add_int16`."""

    @part
    def add(
        samples: Any, words: Any, lead: int, start: int, stride: int, size: int,  # noqa: ARG001
        values: Any, value_words: Any, first: int, period: int, phase: int,  # noqa: ARG001
    ) -> Any:  # fmt: skip
        return run(samples, start, stride, size, values, first, period, phase)

    return add


@part
def _count(odd: Any, tally: Any) -> None:
    """Add what each thread of a block has found, by one atomic addition at most."""
    total = cuda.shared.array(1, np.int32)
    if cuda.threadIdx.x == 0:
        total[0] = 0
    cuda.syncthreads()
    if odd != 0:
        cuda.atomic.add(total, 0, np.int32(odd))
    cuda.syncthreads()
    if cuda.threadIdx.x == 0 and total[0] != 0:
        cuda.atomic.add(tally, 0, np.int64(total[0]))


def _adding_kernels(add: Any) -> tuple[Any, Any]:
    """The two kernels of a dtype: for patches anywhere, and for clips one behind the other."""

    @kernel
    def add_patches(
        samples: Any, words: Any, lead: int, places: Any, stride: int, tiles: int, tile: int,
        values: Any, value_words: Any, rows: Any, tally: Any,
    ) -> None:  # fmt: skip
        n, skipped = cuda.blockIdx.x // tiles, cuda.blockIdx.x % tiles * tile
        odd = np.int32(0)
        if n < places.shape[0]:
            first, period = rows[places[n, 3], 0], rows[places[n, 3], 1]
            start, size, phase = places[n, 0] + skipped * stride, places[n, 1] - skipped, places[n, 2] + skipped
            size = min(size, tile)
            odd = add(
                samples, words, lead, start, stride, size, values, value_words, first, period, phase % period
            )  # fmt: skip
        _count(odd, tally)

    @kernel
    def add_clips(
        samples: Any, words: Any, lead: int, clips: Any, lengths: Any, step: int, channels: int, tiles: int, tile: int,
        values: Any, value_words: Any, rows: Any, tally: Any,
    ) -> None:  # fmt: skip
        n, skipped = cuda.blockIdx.x // tiles, cuda.blockIdx.x % tiles * tile
        odd = np.int32(0)
        if n < clips.size:
            first, period = rows[clips[n], 0], rows[clips[n], 1]
            size = lengths[n if lengths.size > 1 else 0] * channels - skipped
            size = min(size, tile)
            odd = add(
                samples, words, lead, n * step + skipped, 1, size, values, value_words, first, period, skipped % period
            )  # fmt: skip
        _count(odd, tally)

    return add_patches, add_clips


_ADD_PATCHES, _ADD_CLIPS = {}, {}
for _name, _add in {
    "int16": _add_int16,
    "int32": _plain(_runs(_load, _store, _load, _sum_int24, 1)),
    "uint8": _plain(_runs(_load_packed, _store_packed, _load, _sum_int24, 1)),
    "float32": _plain(_runs(_load, _store, _load, _sum_float32, 1)),
}.items():
    _ADD_PATCHES[_name], _ADD_CLIPS[_name] = _adding_kernels(_add)
