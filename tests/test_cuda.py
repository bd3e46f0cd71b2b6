"""The CUDA backend: on a GPU where there is one, and everywhere on numba's simulator, in a process of its own.

The simulator shows neither data races nor what the compiler makes of the code: for that there are the tests of
the PTX, and those on a GPU.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpu
import numpy as np
import pytest
from awkward import any_samples, random_samples
from devices import SIMULATED, Simulated, to_device
from installed import run_module

from poscuda_fast import Key, Recipe, kernels, protect
from poscuda_fast.arrays.device import DeviceClips, is_on_device
from poscuda_fast.arrays.layouts import ArrayClips
from poscuda_fast.kernels import NOT_FINITE, SILENT, Engine, LineTable
from poscuda_fast.mark.labels import encode
from poscuda_fast.mark.lines import draw_lines
from poscuda_fast.mark.plan import Plan, plan_of
from poscuda_fast.results import Tally

HERE = Path(__file__).parent
DTYPES = [np.int16, np.int32, np.float32]

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
each_clip_dtype = pytest.mark.parametrize("dtype", [np.int16, np.float32], ids=lambda dtype: dtype.__name__)
needs_cuda = pytest.mark.needs_cuda
simulated_only = pytest.mark.skipif(not SIMULATED, reason="only the simulator lets itself be made to fail")
gpu_only = pytest.mark.skipif(SIMULATED, reason="the simulator has no streams")


@pytest.fixture
def backend():
    return kernels.load("cuda")


@pytest.fixture
def filters(backend):
    from poscuda_fast.kernels import cuda_filters

    return cuda_filters


@pytest.fixture
def lines(backend):
    from poscuda_fast.kernels import cuda_lines

    return cuda_lines


class Case:
    """Random patches of many sizes, in any order, apart from each other or not, in flat samples."""

    def __init__(self, dtype, sizes, n_taps=9, stride=1, seed=0) -> None:
        rng = np.random.default_rng(seed)
        self.sizes = np.array(sizes, np.int64)
        gaps = rng.integers(0, 3, len(sizes))
        first = np.cumsum(self.sizes + gaps) - self.sizes
        frames = int((self.sizes + gaps).sum()) + 3
        self.samples = any_samples(dtype, (frames * abs(stride),), seed)
        self.starts = first * stride if stride > 0 else (len(self.samples) - 1) + first * stride
        order = rng.permutation(len(sizes))
        self.starts, self.sizes = self.starts[order], self.sizes[order]
        self.rows = rng.integers(0, 3, len(sizes))
        # Small filters for integers, so that not all of them saturate; of either sign, and float32 of any size.
        self.taps = rng.uniform(-0.5, 0.9, (3, n_taps)).astype(np.float32)
        if dtype is np.float32:
            self.taps[2] = any_samples(np.float32, (n_taps,), seed + 1)
            half = self.samples[: len(self.samples) // 2]
            half[:] = rng.integers(0, 2**23, len(half), np.uint32).view(np.float32)  # subnormals
        self.stride = stride

    def filtered(self, backend: str) -> tuple[bytes, int]:
        wet = self.samples.copy()
        over = self.filter(backend, wet)
        return wet.tobytes(), over

    def filter(self, backend: str, wet) -> int:
        on_device = not isinstance(wet, np.ndarray)
        engine = Engine(backend, on_device=on_device)
        return engine.filter_patches(wet, self.starts, self.sizes, self.rows, self.taps, self.stride)


# Samples in host memory.


@needs_cuda
@each_dtype
@pytest.mark.parametrize("stride", [1, 2, -1, -3])
@pytest.mark.parametrize(
    ("sizes", "n_taps"),
    [
        ([1, 2, 3, 7, 8, 9, 15, 16, 17, 40, 31, 33], 9),
        ([5, 1, 12, 40], 80),  # filters longer than patches
        ([1, 0, 30, 0], 8),
        ([255, 256, 257, 300, 600], 16),  # more than one pass of 16 threads with 16 outputs each
        ([64], 1),
    ],
)
def test_random_patches(dtype, stride, sizes, n_taps) -> None:
    case = Case(dtype, sizes, n_taps, stride, seed=len(sizes) + n_taps)
    assert case.filtered("cuda") == case.filtered("reference")


@needs_cuda
@each_dtype
def test_every_size_and_filter_length(dtype) -> None:
    for n_taps in range(1, 21):
        case = Case(dtype, range(1 + n_taps % 5, 26, 5), n_taps, seed=n_taps)
        assert case.filtered("cuda") == case.filtered("reference"), n_taps


@needs_cuda
def test_the_cases_saturate_and_have_subnormals() -> None:
    """So that the tests above see both."""
    assert Case(np.int16, [40] * 5).filtered("cuda")[1] > 10
    assert Case(np.int32, [40] * 5).filtered("cuda")[1] > 10
    wet = np.frombuffer(Case(np.float32, range(1, 29)).filtered("cuda")[0], np.float32)
    assert (np.abs(wet[wet != 0]) < np.finfo(np.float32).tiny).any()


@needs_cuda
@each_dtype
def test_a_memory_map(dtype, tmp_path) -> None:
    case = Case(dtype, [20, 9, 33])
    path = tmp_path / "samples"
    path.write_bytes(case.samples.tobytes())
    mapped = np.memmap(path, dtype, "r+")
    over = case.filter("cuda", mapped)
    mapped.flush()
    assert (path.read_bytes(), over) == case.filtered("reference")


@pytest.fixture
def small_chunks(backend, monkeypatch) -> list[int]:
    """Chunks of 64 bytes or 3 patches; the list grows by the patches of each that is sent."""
    monkeypatch.setattr(backend, "CHUNK_BYTES", 64)
    monkeypatch.setattr(backend, "CHUNK_PATCHES", 3)
    sent: list[int] = []
    send = backend._Staging.send

    def spy(self, samples, places, *others) -> None:
        sent.append(len(places))
        send(self, samples, places, *others)

    monkeypatch.setattr(backend._Staging, "send", spy)
    return sent


@needs_cuda
@each_dtype
def test_chunks_take_turns(dtype, small_chunks) -> None:
    """One patch is longer than a chunk, others are so short that their number fills one."""
    case = Case(dtype, [10, 12, 50, 1, 1, 1, 1, 1, 0, 0, 0, 0, 16, 16, 15], 5)
    for _ in range(2):  # the second time with the buffers of the first
        small_chunks.clear()
        assert case.filtered("cuda") == case.filtered("reference")
        assert len(small_chunks) > 5
        assert sum(small_chunks) == 15
        assert max(small_chunks) == 3


@needs_cuda
def test_buffers_are_kept_unless_a_patch_is_longer_than_a_chunk(backend, small_chunks) -> None:
    backend._kept.__dict__.clear()
    made = []
    make = backend._pair
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "_pair", lambda *shape: made.append(shape) or make(*shape))
        for sizes, buffers in (([10] * 9, 6), ([20] * 9, 0), ([100], 6), ([10], 0)):
            made.clear()
            Case(np.int16, sizes).filtered("cuda")
            assert len(made) == buffers, sizes
            kept = [staging._dense.nbytes for stagings in backend._kept.stagings.values() for staging in stagings]
            assert kept == [64, 64]


@needs_cuda
@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
def test_a_chunk_that_cannot_be_sent_is_not_stored(fails_at, backend, filters, small_chunks, monkeypatch) -> None:
    case = Case(np.int16, [30] * 4)
    order = np.argsort(case.starts)
    case.starts, case.sizes, case.rows = case.starts[order], case.sizes[order], case.rows[order]
    whole = np.frombuffer(case.filtered("reference")[0], np.int16)
    wet = case.samples.copy()
    calls = []
    launch = filters._launch_filter

    def failing(*arguments) -> None:
        calls.append(1)
        if len(calls) == fails_at:
            raise MemoryError("the GPU is full")
        launch(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(filters, "_launch_filter", failing)
        with pytest.raises(MemoryError, match="the GPU is full"):
            case.filter("cuda", wet)
    stored = case.starts[max(0, fails_at - 2)] if fails_at > 1 else 0  # the one before is still with the GPU
    assert np.array_equal(wet[:stored], whole[:stored])
    assert np.array_equal(wet[stored:], case.samples[stored:])
    assert not backend._kept.stagings or all(key[2] != 32 for key in backend._kept.stagings)
    assert case.filtered("cuda") == case.filtered("reference")


@needs_cuda
@simulated_only
def test_a_chunk_that_fails_on_the_gpu_is_not_stored(backend, small_chunks, monkeypatch) -> None:
    """Errors of a kernel come up when its stream is waited for: the first chunk's here."""

    class Failing:
        def synchronize(self) -> None:
            raise RuntimeError("an illegal address")

    monkeypatch.setattr(backend.cuda, "stream", Failing)
    backend._kept.__dict__.clear()
    case = Case(np.int16, [30] * 4)
    wet = case.samples.copy()
    with pytest.raises(RuntimeError, match="an illegal address"):
        case.filter("cuda", wet)
    assert len(small_chunks) == 2
    assert np.array_equal(wet, case.samples)


# Patches that do not fit into shared memory.


class Spy:
    """A kernel that notes its name and its stream when it is launched."""

    def __init__(self, name, kernel, notes) -> None:
        self._name, self._kernel, self._notes = name, kernel, notes

    def __getitem__(self, configuration):
        self._notes.append((self._name, configuration[2]))
        return self._kernel[configuration]


@pytest.fixture
def launches(filters, lines, backend, monkeypatch) -> list[tuple[str, Any]]:
    """The name and stream of each kernel that is launched."""
    notes: list[tuple[str, Any]] = []
    kernels_of = {
        filters: ["_filter", "_filter_long", "_filter_clips", "_filter_clips_long", "_find_odd"],
        backend: ["_measure", "_gather"],
    }
    for module, names in kernels_of.items():
        for name in names:
            monkeypatch.setattr(module, name, Spy(name, getattr(module, name), notes))
    for name in ("_ADD_PATCHES", "_ADD_CLIPS"):
        spies = {dtype: Spy(name, kernel, notes) for dtype, kernel in getattr(lines, name).items()}
        monkeypatch.setattr(lines, name, spies)
    return notes


@pytest.fixture
def launched(launches) -> Any:
    """Takes the names of the kernels that were launched since it was last asked."""

    def taken() -> list[str]:
        names = [name for name, _ in launches]
        launches.clear()
        return names

    return taken


@needs_cuda
@each_dtype
@pytest.mark.parametrize("scratch_bytes", [0, 3000, 1 << 20])
def test_long_patches(dtype, scratch_bytes, filters, launched, monkeypatch) -> None:
    """Few places in device memory for many patches, so that one takes the place of another."""
    monkeypatch.setattr(filters, "SHARED_BYTES", 1 << 10)
    monkeypatch.setattr(filters, "SCRATCH_BYTES", scratch_bytes)
    case = Case(dtype, [130, 5, 100, 270, 1, 8], 12)
    assert case.filtered("cuda") == case.filtered("reference")
    assert launched() == ["_filter_long"]


@needs_cuda
def test_where_long_patches_begin(filters, launched, monkeypatch) -> None:
    """40 samples and 16 taps are 3 rows and 1, of 17 numbers of 8 bytes: with the taps 84, twice."""
    case = Case(np.float32, [40, 8], 16)
    for room, name in ((1344, "_filter"), (1343, "_filter_long")):
        monkeypatch.setattr(filters, "SHARED_BYTES", room)
        assert case.filtered("cuda") == case.filtered("reference")
        assert launched() == [name]


@needs_cuda
def test_a_patch_beyond_any_shared_memory(launched) -> None:
    """With the limits that are shipped."""
    case = Case(np.int16, [6000, 3], 3)
    assert case.filtered("cuda") == case.filtered("reference")
    assert launched() == ["_filter_long"]


# Lines.


LINE_DTYPES = [np.int16, np.int32, np.uint8, np.float32]
each_line_dtype = pytest.mark.parametrize("dtype", LINE_DTYPES, ids=lambda dtype: dtype.__name__)


class LineCase:
    """Random patches of many sizes, phases and rows, in flat samples of which many saturate or are not finite."""

    def __init__(self, dtype, sizes, table=None, stride=1, seed=0) -> None:
        rng = np.random.default_rng(seed)
        self.sizes = np.array(sizes, np.int64)
        gaps = rng.integers(0, 3, len(sizes))
        first = np.cumsum(self.sizes + gaps) - self.sizes
        frames = int((self.sizes + gaps).sum()) + 3
        n = frames * abs(stride)
        if dtype is np.uint8:
            self.samples = rng.integers(0, 256, 3 * n, np.uint8)
        else:
            self.samples = any_samples(dtype, (n,), seed)
        if dtype is np.float32:
            odd = np.array([0x7F800000, 0xFF800000, 0x7FC01234, 0xFF812345], np.uint32).view(np.float32)
            self.samples[rng.integers(0, n, 9)] = odd[rng.integers(0, 4, 9)]
        self.starts = first * stride if stride > 0 else n - 1 + first * stride
        self.table = some_lines(dtype) if table is None else table
        self.rows = rng.integers(0, len(self.table.firsts), len(sizes))
        self.phases = rng.integers(0, 5000, len(sizes))
        self.stride = stride

    def marked(self, backend: str) -> tuple[bytes, int]:
        wet = self.samples.copy()
        odd = self.mark(backend, wet)
        return wet.tobytes(), odd

    def mark(self, backend: str, wet) -> int:
        engine = Engine(backend, on_device=not isinstance(wet, np.ndarray))
        return engine.add_lines(wet, self.starts, self.sizes, self.phases, self.rows, self.table, self.stride)


def some_lines(dtype, channels: int = 1) -> LineTable:
    """Loud lines of three classes at two rates, of which one has a period that no word of four samples divides."""
    lines = draw_lines(Key(bytes(range(32))), [b"i0", b"i1", b"i2"], Recipe.strong(20.0), [2000, 44_100])
    return lines.table(np.dtype(dtype), channels)


@needs_cuda
@each_line_dtype
@pytest.mark.parametrize("stride", [1, 2, -1, -3])
def test_random_lines(dtype, stride) -> None:
    for seed in range(3):
        case = LineCase(dtype, [*range(12), 64, 65, 200, 33], stride=stride, seed=seed)
        wanted = case.marked("reference")
        assert wanted[1] > 0
        assert case.marked("cuda") == wanted


@needs_cuda
@each_line_dtype
@pytest.mark.parametrize("stride", [1, 2])
def test_lines_of_flat_samples_on_the_device(dtype, stride) -> None:
    """int16 samples that begin anywhere in a word of four."""
    for shift in range(4):
        case = LineCase(dtype, [1, 5, 40, 0, 133, 8, 70], stride=stride, seed=shift)
        width = 3 if dtype is np.uint8 else 1
        whole = np.concatenate([np.zeros(shift * width, dtype), case.samples])
        flat = DeviceFlat(whole, shift * width)
        over = case.mark("cuda", flat)
        found = flat.array.copy_to_host()
        assert (found[shift * width :].tobytes(), over) == case.marked("reference")
        assert not found[: shift * width].any()


@needs_cuda
@each_line_dtype
def test_lines_may_be_cut_anywhere(dtype, small_chunks) -> None:
    """A patch that is longer than a chunk is sent in parts."""
    case = LineCase(dtype, [10, 130, 0, 1, 1, 1, 1, 90])
    assert case.marked("cuda") == case.marked("reference")
    assert len(small_chunks) > 5
    assert max(small_chunks) <= 3


@needs_cuda
@each_line_dtype
def test_lines_in_tiles(dtype, lines, monkeypatch) -> None:
    """Patches of several blocks each, of which the last may be empty."""
    monkeypatch.setattr(lines, "TILE", 16)
    case = LineCase(dtype, [3, 64, 65, 200, 0, 15, 17])
    assert case.marked("cuda") == case.marked("reference")


@needs_cuda
def test_no_lines() -> None:
    for dtype in LINE_DTYPES:
        case = LineCase(dtype, [])
        assert case.marked("cuda") == (case.samples.tobytes(), 0)
        case = LineCase(dtype, [0, 0])
        assert case.marked("cuda") == (case.samples.tobytes(), 0)


# Measures.


@needs_cuda
@each_dtype
@pytest.mark.parametrize("place", ["host", "device"])
def test_measures(dtype, place) -> None:
    samples = any_samples(dtype, (400,), 7)
    if dtype is np.float32:
        samples = np.random.default_rng(0).uniform(-2, 2, 400).astype(np.float32)
        samples[[5, 120]] = np.nan, -np.inf
    starts, sizes = np.array([0, 6, 100, 300, 399]), np.array([6, 90, 40, 0, 1])
    flat = samples if place == "host" else DeviceFlat(samples)
    for stride, begins in ((1, starts), (-1, starts + np.maximum(sizes - 1, 0))):
        energies, peaks = Engine("cuda").measure_patches(flat, begins, sizes, stride)
        wanted = Engine("reference").measure_patches(samples, begins, sizes, stride)
        np.testing.assert_allclose(energies, wanted[0], rtol=1e-12)
        assert peaks.tolist() == wanted[1].tolist()
    assert [len(each) for each in Engine("cuda").measure_patches(flat, starts[:0], sizes[:0], 1)] == [0, 0]


# Surveys.# Surveys.


@needs_cuda
@each_dtype
def test_surveys(dtype) -> None:
    samples = np.zeros(400, dtype)
    samples[[39, 41, 380]] = 1  # the last sample of a patch, one between, and one far into a long patch
    wanted = {(1, 0): SILENT, (0, 40): 0, (40, 1): SILENT, (41, 1): 0, (50, 330): SILENT, (50, 340): 0}
    if dtype is np.float32:
        samples[[1, 2, 3, 399, 45]] = np.nan, np.inf, -np.inf, np.inf, -0.0
        wanted |= {(1, 1): NOT_FINITE, (2, 1): NOT_FINITE, (3, 1): NOT_FINITE, (0, 1): SILENT, (0, 40): NOT_FINITE}
        wanted |= {(390, 10): NOT_FINITE, (390, 9): SILENT, (45, 1): SILENT}
    starts, sizes = np.array(list(wanted)).T
    engine = Engine("cuda")
    flags = engine.survey_patches(samples, starts, sizes, 1)
    assert flags.dtype == np.uint8
    assert dict(zip(wanted, flags.tolist(), strict=True)) == wanted
    backwards = engine.survey_patches(samples, starts + sizes - 1, sizes, -1)
    assert backwards.tolist() == flags.tolist()
    assert engine.survey_patches(samples, np.array([41, 380]), np.array([2, 2]), -2).tolist() == [0, 0]
    assert engine.survey_patches(samples, starts[:0], sizes[:0], 1).shape == (0,)
    with pytest.raises(IndexError):
        engine.survey_patches(samples, np.array([399]), np.array([2]), 1)


# Samples on the device.


class DeviceFlat:
    """A flat device array as `Engine` takes it, without its first few elements."""

    def __init__(self, samples: np.ndarray, skipped: int = 0) -> None:
        self.array = to_device(samples)
        self.size, self.dtype, self._skipped = samples.size - skipped, samples.dtype, skipped

    @property
    def __cuda_array_interface__(self):
        whole = self.array.__cuda_array_interface__
        address = whole["data"][0] + self._skipped * self.dtype.itemsize
        return {**whole, "data": (address, False), "shape": (self.size,)}


@needs_cuda
@each_dtype
@pytest.mark.parametrize("stride", [1, 3, -2])
def test_flat_samples_on_the_device(dtype, stride) -> None:
    case = Case(dtype, [1, 5, 40, 33, 300, 0, 8], 11, stride)
    flat = DeviceFlat(case.samples)
    over = case.filter("cuda", flat)
    assert (flat.array.copy_to_host().tobytes(), over) == case.filtered("reference")


@needs_cuda
@each_dtype
def test_long_patches_on_the_device(dtype, filters, launched, monkeypatch) -> None:
    monkeypatch.setattr(filters, "SHARED_BYTES", 1 << 10)
    case = Case(dtype, [130, 5, 100], 12)
    flat = DeviceFlat(case.samples)
    over = case.filter("cuda", flat)
    assert (flat.array.copy_to_host().tobytes(), over) == case.filtered("reference")
    assert launched() == ["_filter_long"]


def planned(shape, recipe, key, lengths=None) -> Plan:
    labels = encode(np.arange(shape[0]) % 3, None, shape[0])
    full = np.full(shape[0], shape[1]) if lengths is None else np.array(lengths)
    return plan_of(key, recipe, labels, full, 2000)


RECIPE = Recipe.paper(patch=20, taps=7, blur=0.9, patches=2)
RECIPES = {
    "one patch": Recipe.paper(patch=33, taps=18, blur=0.9),
    "some patches": RECIPE,
    "patches everywhere": Recipe.paper(patch=7, taps=20, blur=0.9, every=19),
    "lines": Recipe.strong(3.0),
}
each_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


@needs_cuda
@each_clip_dtype
@pytest.mark.parametrize("shape", [(5, 90), (5, 91, 1), (3, 65, 3), (4, 12, 2), (0, 40), (3, 0), (1, 131)])
@each_recipe
def test_protect_on_the_device(dtype, shape, recipe, key, launched) -> None:
    """The bits and the report of the CPU, by one launch."""
    before = random_samples(dtype, shape, 3)
    if dtype is np.int16:
        before //= 2  # so that not too many samples saturate
    if before.size:
        before[0] = 0  # its patches are silent
    labels = np.arange(shape[0]) % 3
    for lengths in (None, [max(0, shape[1] - 11 * clip) for clip in range(shape[0])]):
        wanted = before.copy()
        options = {"recipe": recipe, "lengths": lengths, "sample_rate": 2000}
        report = protect(wanted, labels, key, backend="cpu", **options)
        for backend in ("auto", "cuda"):
            clips = to_device(before)
            found = protect(clips, labels, key, backend=backend, **options)
            assert clips.copy_to_host().tobytes() == wanted.tobytes()
            assert {**found.to_dict(), "seconds": 0} == {**report.to_dict(), "seconds": 0}
            names = launched()
            marking = [name for name in names if name.startswith(("_filter", "_ADD"))]
            assert len(marking) == bool(before.size)
            assert len(names) <= 2  # and one to look, before anything is written


@needs_cuda
@each_clip_dtype
def test_long_patches_of_clips_on_the_device(dtype, key, filters, launched, monkeypatch) -> None:
    monkeypatch.setattr(filters, "SHARED_BYTES", 1 << 10)
    monkeypatch.setattr(filters, "SCRATCH_BYTES", 0)
    recipe = Recipe.paper(patch=130, taps=12, blur=0.9, patches=2)
    before = random_samples(dtype, (5, 300, 2))
    wanted = before.copy()
    protect(wanted, [0, 1, 2, 0, 1], key, recipe=recipe, lengths=[300, 270, 129, 0, 260], backend="cpu")
    clips = to_device(before)
    protect(clips, [0, 1, 2, 0, 1], key, recipe=recipe, lengths=[300, 270, 129, 0, 260])
    assert clips.copy_to_host().tobytes() == wanted.tobytes()
    assert launched()[-1] == "_filter_clips_long"


@needs_cuda
@each_recipe
@pytest.mark.parametrize("lengths", [None, [90, 0, 3, 40, 90, 90, 1]])
def test_a_share_of_the_clips_on_the_device(recipe, lengths, key) -> None:
    before = random_samples(np.int16, (7, 90), 3) // 2
    wet, device = before.copy(), to_device(before)
    options = {"recipe": recipe, "sample_rate": 2000, "lengths": lengths, "share": 0.5}
    expected = protect(wet, np.arange(7) % 3, key, backend="reference", **options)
    found = protect(device, np.arange(7) % 3, key, **options)
    assert device.copy_to_host().tobytes() == wet.tobytes() != before.tobytes()
    assert {**found.to_dict(), "seconds": 0} == {**expected.to_dict(), "seconds": 0}


@needs_cuda
def test_clips_that_begin_anywhere_in_a_word(key) -> None:
    """Clips of any length, in an array that begins anywhere: words of four int16 lie across their edges."""
    for n_frames in (64, 65, 66, 67):
        for shift in range(4):
            content = random_samples(np.int16, (4 * n_frames + shift,)) // 4
            flat = DeviceFlat(content, shift)
            wanted = content[shift:].reshape(4, n_frames).copy()
            protect(wanted, [0, 1, 2, 0], key, recipe=RECIPES["lines"], sample_rate=2000, backend="cpu")
            claims = flat.__cuda_array_interface__ | {"shape": (4, n_frames)}
            protect(interface(**claims), [0, 1, 2, 0], key, recipe=RECIPES["lines"], sample_rate=2000)
            assert flat.array.copy_to_host().tobytes() == content[:shift].tobytes() + wanted.tobytes()


@needs_cuda
def test_long_clips_on_the_device_are_cut_into_tiles(key, lines, monkeypatch) -> None:
    monkeypatch.setattr(lines, "TILE", 16)
    for shape in ((2, 1001), (3, 130, 2)):
        before = random_samples(np.int16, shape) // 4
        wanted = before.copy()
        protect(wanted, [5] * shape[0], key, recipe=RECIPES["lines"], sample_rate=44_100, backend="cpu")
        clips = to_device(before)
        protect(clips, [5] * shape[0], key, recipe=RECIPES["lines"], sample_rate=44_100)
        assert clips.copy_to_host().tobytes() == wanted.tobytes()


@needs_cuda
def test_places_of_clips_beyond_32_bits(filters) -> None:
    """In exact integers of 64 bits, as in mark/plan.py: of the kernel's own function, which needs no samples."""
    if not SIMULATED:
        pytest.skip("called from Python, which the simulator allows")
    from poscuda_fast.kernels.cuda_filters import _scattered
    from poscuda_fast.mark.plan import _multiply_divide, _scale

    words = np.array([0xFFFFFFFF, 0x80000001, 5], np.uint32)
    for length, patch, patches in ((2**40 + 7, 240, 3), (2**35 + 1, 2**33, 3), (10**9, 240, 1)):
        lengths = np.array([length])
        free = lengths - patches * patch + 1
        for j in range(patches):
            number, counts = np.array([j]), np.array([patches])
            low, high = _multiply_divide(free, number, counts), _multiply_divide(free, number + 1, counts)
            wanted = number * patch + low + _scale(words[j : j + 1], high - low)
            found = _scattered(
                np.int64(j), np.zeros(1, np.int32), lengths, words, np.zeros(1, np.int64), length, 1, patches, patch,
                patches, 0,
            )  # fmt: skip
            assert tuple(map(int, found)) == (int(wanted[0]), patch, 0)


@needs_cuda
@each_clip_dtype
@pytest.mark.parametrize("channels", [None, 2])
def test_device_clips_are_measured_and_read_as_others_are(dtype, channels, key) -> None:
    shape = (6, 70) if channels is None else (6, 70, channels)
    content = random_samples(dtype, shape)
    audio, twin = DeviceClips(to_device(content), None), ArrayClips(content.copy(), None)
    (patches,) = planned(shape, RECIPE, key).batches(100)
    assert audio.read(patches).tobytes() == twin.read(patches).tobytes()
    for found, wanted in zip(
        audio.measure(patches, Engine("cuda")), twin.measure(patches, Engine("reference")), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    nothing = planned((1, 0), RECIPE, key).of_clip(0)
    assert audio.read(nothing).size == 0
    audio.mark_all(planned(shape, RECIPE, key), Tally(clips=6, classes=3))


@needs_cuda
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channel", [0, 1])
def test_non_finite_samples_are_refused_before_anything_is_written(bad, channel, key) -> None:
    before = random_samples(np.float32, (9, 50, 2))
    (patches,) = planned(before.shape, RECIPE, key).batches(100)
    before[7, patches.starts[-4], channel] = bad
    assert patches.clips[-4] == 7
    clips = to_device(before)
    with pytest.raises(ValueError, match=r"Clip 7 has a NaN or infinite sample .* nothing was written"):
        protect(clips, np.arange(9) % 3, key, recipe=RECIPE)
    assert clips.copy_to_host().tobytes() == before.tobytes()


@needs_cuda
@pytest.mark.parametrize("backend", ["cpu", "reference", "gpu"])
def test_other_backends_cannot_reach_the_device(backend, key) -> None:
    clips = to_device(random_samples(np.int16, (2, 50)))
    with pytest.raises(ValueError, match=f"backend is '{backend}'; clips on a GPU need 'auto' or 'cuda'"):
        protect(clips, [0, 1], key, backend=backend)


def interface(**changes) -> object:
    """An object that claims to be a device array; what is refused is refused before its memory is looked at."""

    class Claims:
        __cuda_array_interface__ = {
            "shape": (3, 50), "typestr": np.dtype(np.int16).str, "data": (1 << 20, False), "version": 3,
        } | changes  # fmt: skip

    return Claims()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"shape": (50,)}, ValueError, r"shape \(50,\); expected"),
        ({"shape": (2, 3, 4, 5)}, ValueError, "shape"),
        ({"typestr": "<f8"}, TypeError, r"dtype <f8; use astype\(numpy.float32\)"),
        ({"typestr": ">i2"}, TypeError, "byte order"),
        ({"data": (1 << 20, True)}, ValueError, "read-only"),
        ({"strides": (200, 2)}, ValueError, r"strides \(200, 2\) .* contiguous"),
        ({"strides": (2, 6)}, ValueError, "contiguous"),
        ({"strides": (0, 2)}, ValueError, "contiguous"),
        ({"data": (1 << 20 | 1, False)}, ValueError, "aligned"),
        ({"mask": interface()}, ValueError, "masked"),
    ],
)
def test_device_arrays_that_are_refused(changes, error, message, key) -> None:
    with pytest.raises(error, match=message):
        protect(interface(**changes), [0, 1, 2], key)


def test_strides_of_contiguous_arrays_are_taken() -> None:
    for changes in (
        {"strides": None}, {"strides": (100, 2)}, {"shape": (1, 50), "strides": (7, 2)},
        {"shape": (3, 50, 2), "strides": (200, 4, 2)}, {"shape": (0, 50), "strides": (1, 1)},
        {"data": (0, False), "shape": (0, 50)},
    ):  # fmt: skip
        assert DeviceClips(interface(**changes), None).dtype == np.int16


def test_what_is_on_a_device() -> None:
    assert is_on_device(interface())
    assert not is_on_device(np.zeros(3))
    assert not is_on_device([interface()])


@needs_cuda
def test_the_kernel_refuses_read_only_device_memory(backend) -> None:
    one, claims = np.array([1]), interface(data=(1 << 20, True))
    with pytest.raises(ValueError, match="read-only"):
        backend.filter_patches(claims, one, one, one - 1, np.ones((1, 1), np.float32), 1)
    with pytest.raises(ValueError, match="read-only"):
        backend.add_lines(claims, one, one, one, one - 1, some_lines(np.int16), 1)


@needs_cuda
@simulated_only
@each_recipe
def test_all_work_is_on_the_arrays_own_stream(recipe, key, launches) -> None:
    content = random_samples(np.float32, (3, 70))
    for number in (1, 2, 1 << 40):
        clips = Simulated(content, stream=number)
        protect(clips, [0, 1, 2], key, recipe=recipe, sample_rate=2000)
        assert len(launches) == 2
        for _, stream in launches:
            assert stream.number == number
            assert stream.waited == 1  # before the counts were read
        launches.clear()


@needs_cuda
@pytest.mark.parametrize("recipe", [RECIPE, RECIPES["lines"]], ids=["filters", "lines"])
def test_after_a_fork_there_is_a_sentence(recipe, key, backend, monkeypatch) -> None:
    """A driver that was initialised does not survive a fork."""
    from poscuda_fast.kernels import cuda_launch

    content = random_samples(np.int16, (3, 70)) // 4
    monkeypatch.setattr(cuda_launch, "_first_used_by", os.getpid() + 1)
    for clips in (content.copy(), to_device(content)):
        with pytest.raises(RuntimeError, match=r"before this process was forked.* backend='native' .* 'spawn'"):
            protect(clips, [0, 1, 2], key, recipe=recipe, backend="cuda", sample_rate=2000)


@needs_cuda
@gpu_only
def test_filtering_waits_its_turn_on_the_arrays_stream(key) -> None:
    """What an earlier kernel of that stream writes is what is filtered."""
    from numba import cuda

    @cuda.jit
    def late(array, value) -> None:
        for _ in range(200):
            cuda.nanosleep(1_000_000)
        for clip in range(cuda.grid(1), array.shape[0], cuda.gridsize(1)):
            for t in range(array.shape[1]):
                array[clip, t] = value

    wanted = np.full((300, 50), 1000, np.int16)
    protect(wanted, [0] * 300, key, recipe=RECIPE, backend="reference")
    clips = cuda.to_device(np.zeros((300, 50), np.int16))
    late[128, 32](clips, 1)  # compiled before it counts
    stream = cuda.stream()
    on_stream = clips.bind(stream)
    late[128, 32, stream](on_stream, 1000)
    assert on_stream.__cuda_array_interface__["stream"] == int(stream)
    protect(on_stream, [0] * 300, key, recipe=RECIPE)
    assert clips.copy_to_host().tobytes() == wanted.tobytes()


@needs_cuda
@gpu_only
@each_dtype
def test_many_patches_on_the_gpu(dtype) -> None:
    """Races and wrong barriers would show here."""
    rng = np.random.default_rng(5)
    for sizes, n_taps in ((np.full(20_000, 240), 80), (rng.integers(1, 400, 5000), 81), ([9000, 3, 20_000] * 30, 1024)):
        case = Case(dtype, sizes, n_taps)
        wanted = case.filtered("cpu")
        assert case.filtered("cuda") == wanted
        flat = DeviceFlat(case.samples)
        over = case.filter("cuda", flat)
        assert (flat.array.copy_to_host().tobytes(), over) == wanted


# Where the backend is missing.


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        ("importlib.util.find_spec = lambda *_: None", r"needs numba-cuda, which is not .* '\.\[cuda12\]'"),
        (
            "cuda.is_available = lambda: False; cuda.cuda_error = lambda: None",
            r"needs the CUDA compiler, which .* '\.\[cuda12\]' in a checkout of poscuda_fast, or \[cuda13\]",
        ),
        (
            r"cuda.is_available = lambda: False; cuda.cuda_error = lambda: '\nno library.\nFind it.\n'",
            "needs an NVIDIA GPU and its driver: no library. Find it.",
        ),
    ],
)
def test_what_is_missing_is_said(setup, message) -> None:
    """Importing the package and choosing automatically never ask for it."""
    code = f"""
import importlib.util
import poscuda_fast.arrays.memory, sys
from poscuda_fast.kernels import Engine, why_missing
Engine()
assert "numba.cuda" not in sys.modules
from numba import cuda
importlib.util.find_spec("numba_cuda") or setattr(importlib.util, "find_spec", lambda name: name)
{setup}
print(why_missing("cuda"))
try:
    Engine("cuda")
except ImportError as error:
    print(error)
"""
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first == second
    assert re.fullmatch(f"The cuda backend {message}.*", first), first


# What the compiler makes of the kernels.


@pytest.fixture(scope="module")
def ptx() -> dict[str, Any]:
    """Kernel and dtype -> PTX for compute capability 9.0, compiled without a GPU."""
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
    command = [sys.executable, "-W", "error", str(HERE / "cuda_ptx.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode == 77:
        if os.environ.get("POSCUDA_REQUIRE_PTX") == "1":
            pytest.fail(done.stdout)
        pytest.skip(done.stdout.strip())
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def opcodes(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line.startswith("\t") and line.strip()]


def test_the_compiler_may_not_reorder(ptx) -> None:
    assert ptx["fastmath"] == []
    assert {"_filter_channel", "_convolve", "_sum_float32", "add_clips", "run"} <= set(ptx["compiled"])


FILTERS = [f"_filter{which}{end}" for which in ("", "_clips") for end in ("", "_long")]
SAID_NOTHING = r"\.ftz|\.approx|\.f16|\.(add|mul|fma|sub)\.\w*\.?f32"


@each_dtype
@pytest.mark.parametrize("kernel", FILTERS)
def test_arithmetic_of_the_compiled_kernel(ptx, kernel, dtype) -> None:
    """Fused float64 sums, nothing flushed or approximated, the rounding that the format asks for."""
    found = opcodes(ptx[f"{kernel} {dtype.__name__}"])
    assert found.count("fma.rn.f64") == 128
    assert not [code for code in found if re.search(SAID_NOTHING, "." + code)]
    assert not [code for code in found if code.startswith(("mul", "add", "sub", "mad")) and "f64" in code]
    # Integers are rounded as int64, held as float64 until they are stored; of float32 that branch is never taken.
    loading, storing = {
        np.int16: ("cvt.rn.f64.s16", "cvt.rzi.s16.f64"),
        np.int32: ("cvt.rn.f64.s32", "cvt.rzi.s32.f64"),
        np.float32: ("cvt.f64.f32", "cvt.rn.f32.f64"),
    }[dtype]
    converting = {code for code in found if code.startswith("cvt") and re.search(r"f\d\d", code)}
    assert converting == {loading, storing, "cvt.f64.f32", "cvt.rni.s64.f64", "cvt.rn.f64.s64"}
    assert "atom.global.add.u64" in found


@each_dtype
@pytest.mark.parametrize("kernel", FILTERS)
def test_memory_of_the_compiled_kernel(ptx, kernel, dtype) -> None:
    """Sums and window stay in registers; filters, and patches that fit, are in shared memory."""
    text = ptx[f"{kernel} {dtype.__name__}"]
    assert ".local" not in text
    assert ".extern .shared" in text
    found = opcodes(text)
    assert found.count("bar.sync") == 7
    assert not [code for code in found if code in {"ld.f64", "st.f64"}]  # memory of no known kind
    if not kernel.endswith("_long"):
        assert not [code for code in found if code.startswith(("ld.global.f64", "st.global.f64"))]


@each_dtype
@pytest.mark.parametrize("kernel", ["_filter", "_filter_clips"])
def test_the_inner_loop_is_short(ptx, kernel, dtype) -> None:
    """16 loads and 128 multiply-adds, and hardly anything besides; see `_convolve`."""
    blocks = re.split(r"^\$L.*:$", ptx[f"{kernel} {dtype.__name__}"], flags=re.MULTILINE)
    inner = max((opcodes(block) for block in blocks), key=lambda codes: codes.count("fma.rn.f64"))
    assert inner.count("fma.rn.f64") == 128
    assert inner.count("ld.shared.f64") == 16
    assert len(inner) <= 180


@each_line_dtype
@pytest.mark.parametrize("kernel", ["add_patches", "add_clips"])
def test_arithmetic_of_adding(ptx, kernel, dtype) -> None:
    """Whole numbers stay so; float32 has one sum, in float32, nothing of which is flushed or approximated."""
    text = ptx[f"{kernel} {dtype.__name__}"]
    found = opcodes(text)
    assert ".local" not in text
    assert not [code for code in found if "f64" in code]
    floats = {code for code in found if re.search(r"\.f32", code)}
    if dtype is np.float32:
        assert {code for code in floats if code.startswith("add")} == {"add.f32"}
        assert not [code for code in floats if re.search(r"ftz|approx|mul|fma|sub|cvt", code)]
    else:
        assert not floats


@pytest.mark.parametrize("kernel", ["add_patches", "add_clips"])
def test_int16_is_added_in_words(ptx, kernel) -> None:
    """Four words are loaded before the first is stored."""
    found = opcodes(ptx[f"{kernel} int16"])
    moved = [code for code in found if code in {"ld.global.u64", "st.global.u64"}]
    first = moved.index("st.global.u64")
    assert moved[:first].count("ld.global.u64") >= 4
    assert moved.count("st.global.u64") == 4
    assert found.count("popc.b64") == 4


def test_every_kernel_compiles_for_every_dtype(ptx) -> None:
    for name, text in ptx.items():
        if name not in {"compiled", "fastmath"}:
            assert ".entry" in text, name


# The benchmark's own checks.


@needs_cuda
def test_the_benchmark_compares_bits(capsys, monkeypatch) -> None:
    monkeypatch.setattr(gpu, "to_device", to_device)
    arguments = ["--check-only", "--cases", "6", "--longest", "20"]
    assert gpu.main(arguments) == 0
    assert capsys.readouterr().out == "6 of 6 random cases match the CPU bit for bit.\n"
    for name in ("filter_patches", "add_lines"):
        monkeypatch.setattr(kernels.load("cpu"), name, lambda *_: -1)
    assert gpu.main(arguments) == 1
    assert capsys.readouterr().out == "0 of 6 random cases match the CPU bit for bit.\n"


def test_the_benchmark_says_where_there_is_no_gpu(capsys, monkeypatch) -> None:
    monkeypatch.setattr(kernels, "why_missing", lambda name: f"no {name}")
    assert gpu.main([]) == 1
    assert capsys.readouterr().out == "no cuda\n"


def test_the_benchmarks_table_and_file(capsys, tmp_path) -> None:
    rows = [
        {"what": "protect, default, int16", "clips": 1000, "milliseconds": 2.0},
        {"what": "touch every sample, int16", "clips": 1000, "milliseconds": 1.0},
        {
            "what": "limit, paper's recipe, int16", "clips": 1000, "milliseconds": 1.25,
            "bandwidth_milliseconds": 0.5, "float64_milliseconds": 1.25,
        },
    ]  # fmt: skip
    results = {"device": "a GPU", "cores": 2, "date": "2026-01-01", "versions": {"numpy": "2"}, "rows": rows}
    gpu.show_table(results)
    first, _, third, *_, parts, goal = capsys.readouterr().out.splitlines()
    assert first == "a GPU, 2 cores, 2026-01-01, numpy 2"
    assert third.split() == ["protect,", "default,", "int16", "1,000", "2.000", "2000.00"]
    assert parts == "  of bandwidth 0.500 ms, float64 1.250 ms"
    assert " ".join(goal.split()) == "default, whole call / touching 2.00, asked 1.3: not reached"
    gpu.store(results, tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text()) == results


# On the simulator.


@pytest.mark.slow
@pytest.mark.skipif(SIMULATED, reason="this is the simulator")
def test_on_the_simulator() -> None:
    """All of this module, of test_kernels, of the format's vectors and of the signatures that needs CUDA."""
    command = run_module(
        "pytest", "-q", "-p", "no:cacheprovider", "-m", "needs_cuda",
        "-W", "ignore:overflow encountered in cast:RuntimeWarning",  # NumPy's, where a GPU stores infinity
        "-k", "not threads",  # it runs one kernel at a time
        "tests/test_cuda.py", "tests/test_kernels.py", "tests/test_format.py::test_vector_clips",
        "tests/test_package.py::test_backends_have_one_signature",
    )  # fmt: skip
    done = subprocess.run(
        command,
        cwd=HERE.parent,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "POSCUDA_REQUIRE_CUDA": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 150
