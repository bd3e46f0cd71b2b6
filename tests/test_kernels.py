"""Every backend, layout and number of threads convolves patches as the format says, bit for bit."""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import naive
import numpy as np
import pytest
from awkward import any_samples, patched_samples, random_samples
from backends import each_backend, here
from hypothesis import given, settings
from hypothesis import strategies as st

import poscuda_fast
from poscuda_fast.kernels import AUTO, BACKENDS, PATCHES_PER_THREAD, Engine, compiling, load, why_missing

HERE = Path(poscuda_fast.__file__).parents[1]
DTYPES = [np.int16, np.int32, np.float32]
BELOW = {np.int16: (-(2**15), 2**15 - 1), np.int32: (-(2**23), 2**23 - 1)}

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


def filtered(samples, places, taps, rows=None, stride=1, backend="reference", threads=1) -> tuple[np.ndarray, int]:
    """A filtered copy of flat samples, and its saturated samples; `places` is a list of (start, frames)."""
    wet = np.array(samples)
    starts, sizes = np.array(places, np.int64).reshape(-1, 2).T
    rows = np.zeros(len(places), np.int64) if rows is None else np.array(rows, np.int64)
    over = Engine(backend, threads).filter_patches(wet, starts, sizes, rows, np.atleast_2d(taps), stride)
    assert type(over) is int
    return wet, over


def expected(samples, places, taps, rows=None, stride=1) -> tuple[np.ndarray, int]:
    """The same by the second implementation."""
    wet, saturated = np.array(samples), 0
    for n, (start, size) in enumerate(places):
        where = [start + t * stride for t in range(size)]
        row = np.atleast_2d(taps)[0 if rows is None else rows[n]]
        wet[where], over = naive.filter_samples(wet[where], row.tolist())
        saturated += over
    return wet, saturated


def assert_same(found: tuple[np.ndarray, int], wanted: tuple[np.ndarray, int]) -> None:
    assert found[0].dtype == wanted[0].dtype
    assert found[0].tobytes() == wanted[0].tobytes()
    assert found[1] == wanted[1]


def some_taps(n_classes: int, n_taps: int, blur: float = 0.3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, blur, (n_classes, n_taps)).astype(np.float32)


# Shapes.


@each_backend
@each_dtype
@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_patch_sizes_and_filter_lengths(backend, dtype, size) -> None:
    """Filters longer than the patch too; lengths around eight, of which one backend makes a block."""
    samples = any_samples(dtype, (size + 4,))
    for n_taps in (*range(1, 13), 16, 17, 80):
        taps = some_taps(1, n_taps)
        assert_same(filtered(samples, [(2, size)], taps, backend=backend), expected(samples, [(2, size)], taps))


@each_backend
@pytest.mark.parametrize(("size", "n_taps"), [(30, 1023), (30, 1024), (1, 1024), (1100, 1)])
def test_the_longest_filters(backend, size, n_taps) -> None:
    samples, taps = any_samples(np.int16, (size,)), some_taps(1, n_taps, 0.01)
    assert_same(filtered(samples, [(0, size)], taps, backend=backend), expected(samples, [(0, size)], taps))


@each_backend
@each_dtype
def test_strides(backend, dtype) -> None:
    """A stride is the distance of frames: of channels beside each other, or of a reversed view."""
    samples, taps = any_samples(dtype, (200,)), some_taps(2, 9)
    for stride in (1, 2, 3, 7, -1, -2, -5):
        begin = 3 if stride > 0 else 196
        places = [(begin, 10), (begin + 12 * stride, 1), (begin + 14 * stride, 13)]
        wanted = expected(samples, places, taps, [1, 0, 1], stride)
        assert_same(filtered(samples, places, taps, [1, 0, 1], stride, backend), wanted)


@each_backend
@each_dtype
def test_channels_are_filtered_apart(backend, dtype) -> None:
    frames, taps = any_samples(dtype, (50, 3)), some_taps(1, 6)
    together, over = filtered(frames.reshape(-1), [(3 * 5 + c, 40) for c in range(3)], taps, stride=3, backend=backend)
    apart = [filtered(frames[:, c].copy(), [(5, 40)], taps, backend=backend) for c in range(3)]
    assert together.reshape(50, 3).tobytes() == np.stack([wet for wet, _ in apart], axis=1).tobytes()
    assert over == sum(saturated for _, saturated in apart)


@pytest.mark.guards("I4")
@each_backend
@each_dtype
def test_nothing_outside_the_patches_changes(backend, dtype) -> None:
    samples = any_samples(dtype, (300,))
    wet, _ = filtered(samples, [(10, 20), (30, 1), (35, 20), (299, 1)], some_taps(1, 50), backend=backend)
    outside = np.ones(300, bool)
    outside[[*range(10, 31), *range(35, 55), 299]] = False
    assert wet[outside].tobytes() == samples[outside].tobytes()
    assert not np.array_equal(wet, samples)


@each_backend
@each_dtype
def test_no_patches(backend, dtype) -> None:
    for samples in (any_samples(dtype, (5,)), np.empty(0, dtype)):
        wet, over = filtered(samples, [], some_taps(1, 3), backend=backend)
        assert wet.tobytes() == samples.tobytes()
        assert over == 0


@pytest.mark.guards("I10")
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_backends_agree(dtype, data) -> None:
    samples, places, rows, stride = data.draw(patched_samples(dtype))
    taps = any_samples(np.float32, (2, data.draw(st.integers(1, 40))), data.draw(st.integers(0, 2**16)))
    wanted = expected(samples, places, taps, rows, stride)
    for backend in here():
        assert_same(filtered(samples, places, taps, rows, stride, backend), wanted)


# Surveys.


def surveyed(samples, places, stride=1, backend="reference", threads=1) -> list[int]:
    starts, sizes = np.array(places, np.int64).reshape(-1, 2).T
    before = samples.tobytes()
    flags = Engine(backend, threads).survey_patches(samples, starts, sizes, stride)
    assert flags.dtype == np.uint8
    assert samples.tobytes() == before
    return flags.tolist()


@each_backend
@each_dtype
def test_filtering_tells_what_was_there(backend, dtype) -> None:
    samples = any_samples(dtype, (2000,), 7)
    samples[400:900] = 0
    starts, sizes, taps = np.arange(0, 1800, 10), np.full(180, 10), some_taps(2, 7, 2.0, 3)
    rows = np.arange(180) % 2
    wanted, wet, found = samples.copy(), samples.copy(), np.full(180, 255, np.uint8)
    over = Engine(backend, 1).filter_patches(wanted, starts, sizes, rows, taps, 1)
    assert Engine(backend, 2).filter_patches(wet, starts, sizes, rows, taps, 1, found) == over
    assert wet.tobytes() == wanted.tobytes()
    assert found.tolist() == surveyed(samples, list(zip(starts, sizes, strict=True)))
    assert found.sum() == 50


@each_backend
@each_dtype
def test_a_survey_finds_silence(backend, dtype) -> None:
    samples = np.zeros(200, dtype)
    samples[[50, 149]] = 1
    places = [(0, 50), (0, 51), (50, 1), (51, 98), (51, 99), (150, 50)]
    assert surveyed(samples, places, backend=backend) == [1, 0, 0, 1, 0, 1]
    assert surveyed(samples, [(50, 3), (51, 3), (52, 3)], 49, backend) == [0, 0, 1]
    assert surveyed(samples[::-1].copy(), [(199, 150), (199, 149)], -1, backend) == [0, 0]
    samples[:] = -1
    assert surveyed(samples, [(0, 200)], backend=backend) == [0]
    if dtype is np.float32:
        samples[:] = -0.0  # as silent as 0.0
        assert surveyed(samples, [(0, 200)], backend=backend) == [1]
        samples[3] = np.finfo(np.float32).smallest_subnormal
        assert surveyed(samples, [(0, 200)], backend=backend) == [0]


@each_backend
def test_a_survey_finds_what_is_not_finite(backend) -> None:
    for odd in (np.nan, -np.nan, np.inf, -np.inf):
        for where in (1, 7, 8, 98):
            samples = any_samples(np.float32, (100,))
            samples[where] = odd
            places = [(0, where), (where, 1), (where + 1, 99 - where), (0, 100)]
            assert surveyed(samples, places, backend=backend) == [0, 2, 0, 2]
    most = np.full(10, np.finfo(np.float32).max)
    assert surveyed(most, [(0, 10)], backend=backend) == [0]


@each_backend
@each_dtype
def test_surveys_agree_on_any_number_of_threads(backend, dtype) -> None:
    samples, places, _, _ = many_patches(dtype)
    samples[300:900] = 0
    if dtype is np.float32:
        samples[1000:2000:70] = np.inf
    wanted = surveyed(samples, places)
    assert len(set(wanted)) > 1
    for threads in (1, 2, 3, 100, None):
        assert surveyed(samples, places, backend=backend, threads=threads) == wanted


# Numbers.


@each_backend
def test_the_sum_runs_over_ascending_input_samples(backend) -> None:
    """1 is lost beside 2**53, so that each order of the sum has a result of its own."""
    huge, one = 2.0**53, 1.0
    for samples in ([huge, one, one, -huge], [one, one, huge, -huge], [one, huge, one, -huge], [huge, -huge, one, one]):
        total = 0.0
        for sample in samples:
            total += sample
        x = np.array(samples, np.float32)
        wet, _ = filtered(x, [(0, 4)], np.ones((1, 7), np.float32), backend=backend)
        assert wet.tolist() == [total] * 4
    assert huge + one + one - huge != one + one + huge - huge  # the order does matter


@each_backend
@pytest.mark.parametrize("dtype", BELOW, ids=lambda dtype: dtype.__name__)
def test_halves_round_to_even(backend, dtype) -> None:
    samples = np.array([1, 3, 5, 7, -1, -3, -5, -7, 2, -2, 0], dtype)
    wet, over = filtered(samples, [(0, 11)], np.float32([0.5]), backend=backend)
    assert wet.tolist() == [0, 2, 2, 4, 0, -2, -2, -4, 1, -1, 0]
    assert over == 0
    wet, _ = filtered(samples, [(0, 4)], np.float32([0.25]), backend=backend)  # 0.25, 0.75, 1.25, 1.75
    assert wet[:4].tolist() == [0, 1, 1, 2]


@each_backend
@pytest.mark.parametrize("dtype", BELOW, ids=lambda dtype: dtype.__name__)
def test_integers_saturate_and_are_counted(backend, dtype) -> None:
    least, most = BELOW[dtype]
    samples = np.array([least, least // 2 - 1, least // 2, -1, 0, most // 2, most // 2 + 1, most], dtype)
    wet, over = filtered(samples, [(0, 8)], np.float32([2.0]), backend=backend)
    assert wet.tolist() == [least, least, least, -2, 0, most - 1, most, most]
    assert over == 4  # 2 * (least // 2) just fits
    for blur, wanted in ((1e30, 7), (1.0, 0)):
        wet, over = filtered(samples, [(0, 8)], np.float32([blur]), backend=backend)
        assert over == wanted
        assert wet.tolist() == (samples.tolist() if wanted == 0 else [least] * 4 + [0] + [most] * 3)


@each_backend
@pytest.mark.parametrize("dtype", BELOW, ids=lambda dtype: dtype.__name__)
def test_a_sum_that_rounds_into_range_is_not_saturated(backend, dtype) -> None:
    least, most = BELOW[dtype]
    fits, half = np.float32(1 + 2**-23), np.float32(0.5)
    taps = np.float32([[fits, 0, 0]])  # c = 1: y[1] = fits * x[2]
    samples = np.array([0, 0, 1], dtype)
    assert filtered(samples, [(0, 3)], taps, backend=backend)[0].tolist() == [0, 1, 0]
    # most + 1/4 rounds to most; most + 1/2 rounds to most + 1, which is even, and is limited.
    quarter = np.float32([[half * half, 1.0, 0]])
    edge = np.array([0, most, 1], dtype)
    wet, over = filtered(edge, [(0, 3)], quarter, backend=backend)
    assert (wet[1], over) == (most, 0)
    wet, over = filtered(edge, [(0, 3)], np.float32([[half, 1.0, 0]]), backend=backend)
    assert (wet[1], over) == (most, 1)
    # least - 1/2 rounds to least, which is even.
    edge = np.array([0, least, -1], dtype)
    wet, over = filtered(edge, [(0, 3)], np.float32([[half, 1.0, 0]]), backend=backend)
    assert (wet[1], over) == (least, 0)


@each_backend
def test_float32_extremes(backend) -> None:
    """Subnormals are kept, sums beyond float32 become infinite, and nothing warns (warnings are errors here)."""
    info = np.finfo(np.float32)
    tiny, most = info.smallest_subnormal, info.max
    samples = np.array([tiny, -tiny, 3 * tiny, info.tiny, most, -most, most / 2, 0.0, -0.0, 1.0], np.float32)
    for taps in ([1.0], [0.5], [2.0], [1e-40], [float(most)], [0.5, 1.0, 0.25], [float(tiny)], [0.0]):
        f = np.float32([taps])
        assert_same(filtered(samples, [(0, 10)], f, backend=backend), expected(samples, [(0, 10)], f))
    doubled, over = filtered(samples, [(0, 10)], np.float32([2.0]), backend=backend)
    assert doubled.tolist()[:2] == [2 * tiny, -2 * tiny]
    assert doubled.tolist()[4:7] == [math.inf, -math.inf, float(most)]
    assert over == 0


@each_backend
def test_float32_rounds_to_nearest_even(backend) -> None:
    samples = np.float32([1 + 2**-23, 1 + 3 * 2**-23, 1.0])
    taps = np.float32([[2**-24, 1.0, 0]])  # c = 1: y[j] = x[j] + x[j + 1] / 2**24
    wet, _ = filtered(samples, [(0, 3)], taps, backend=backend)
    assert wet.tolist() == [
        float(np.float32(float(a) + float(b) * 2**-24)) for a, b in [(*samples[:2],), samples[1:], (1, 0)]
    ]
    for odd, even in ((1 + 2**-23, 1 + 2**-22), (1.0, 1.0)):
        tie = np.float32([0, odd, 1])  # odd + 2**-24 lies between two float32 values
        assert filtered(tie, [(0, 3)], taps, backend=backend)[0][1] == np.float32(even)


@each_backend
def test_a_sum_of_nothing_is_plus_zero(backend) -> None:
    samples = np.float32([-0.0, -0.0, -0.0])
    wet, _ = filtered(samples, [(0, 3)], some_taps(1, 5), backend=backend)
    assert wet.tobytes() == np.zeros(3, np.float32).tobytes()
    (alone,), _ = filtered(samples[:1], [(0, 1)], np.float32([1.0]), backend=backend)
    assert not np.signbit(alone)


@each_backend
@pytest.mark.parametrize(("size", "n_taps"), [(240, 80), (240, 81), (81, 80), (80, 80), (5, 1), (2000, 1024)])
def test_sums_that_are_exact_are_numpys(backend, size, n_taps) -> None:
    """With q >= k it is numpy.convolve(x, f, mode="same"); few-bit taps leave no rounding to differ by."""
    rng = np.random.default_rng(size)
    samples = rng.integers(-100, 100, size, np.int16)
    taps = (rng.integers(0, 16, n_taps) / 64).astype(np.float32)
    wet, over = filtered(samples, [(0, size)], taps, backend=backend)
    assert np.array_equal(wet, np.rint(np.convolve(samples, taps.astype(np.float64), mode="same")))
    assert over == 0


@pytest.mark.parametrize(("size", "n_taps"), [(240, 80), (81, 80), (80, 80), (2000, 1024)])
def test_sums_are_numpys_within_rounding(size, n_taps) -> None:
    samples, taps = random_samples(np.float32, (size,)), some_taps(1, n_taps)
    x, f = samples.astype(np.float64), taps[0].astype(np.float64)
    numpys = np.convolve(x, f, mode="same")
    # Each of two sums of k exact products is off by less than k * eps / 2 of the sum of their magnitudes.
    summing = n_taps * np.finfo(np.float64).eps * np.convolve(np.abs(x), f, mode="same")
    storing = np.finfo(np.float32).eps / 2 * (np.abs(numpys) + summing)
    wet, _ = filtered(samples, [(0, size)], taps)
    assert (np.abs(wet - numpys) <= summing + storing).all()


# Instruction sets.


@pytest.mark.guards("I10")
@pytest.mark.skipif(why_missing("native") is not None, reason="the native kernels are not installed")
@each_dtype
def test_every_instruction_set_of_this_processor_gives_the_same_bits(dtype) -> None:
    from poscuda_fast.kernels import _native

    sets = _native.instruction_sets()
    assert sets[-1] == "baseline"
    for size, n_taps, stride in [
        (1, 1, 1),
        (5, 9, 1),
        (33, 16, 2),
        (64, 81, 1),
        (240, 80, 1),
        (241, 80, -1),
        (999, 300, 1),
    ]:
        count = 3
        samples = any_samples(dtype, (count * size * abs(stride) + 7,), size)
        starts = np.arange(count) * size * abs(stride) + (3 if stride > 0 else size - 1)
        sizes, rows = np.full(count, size), np.arange(count) % 2
        taps = some_taps(2, n_taps, 2.0, size)
        wanted = expected(samples, list(zip(starts, sizes, strict=True)), taps, rows, stride)
        flags = surveyed(samples, list(zip(starts, sizes, strict=True)), stride)
        for name in sets:
            wet = samples.copy()
            over = _native.filter_patches(wet, starts, sizes, rows, taps, stride, set=name)
            assert_same((wet, over), wanted)
            found = np.empty(count, np.uint8)
            _native.survey_patches(samples, starts, sizes, stride, found, set=name)
            assert found.tolist() == flags
            found[:] = 255
            _native.filter_patches(samples.copy(), starts, sizes, rows, taps, stride, found, set=name)
            assert found.tolist() == flags
    with pytest.raises(ValueError, match="no instruction set mmx"):
        _native.filter_patches(samples, starts, sizes, rows, taps, 1, set="mmx")


# Threads, processes, machines.


def many_patches(dtype) -> tuple[np.ndarray, list[tuple[int, int]], np.ndarray, np.ndarray]:
    """Enough patches to occupy three threads."""
    n = 3 * PATCHES_PER_THREAD + 5
    places = [(20 * i + i % 3, 5 + i % 13) for i in range(n)]
    return any_samples(dtype, (20 * n,)), places, some_taps(4, 10, 2.0), np.arange(n) % 4


@pytest.mark.guards("I10")
@each_backend
@each_dtype
def test_every_number_of_threads_gives_the_same_bits(backend, dtype) -> None:
    samples, places, taps, rows = many_patches(dtype)
    wanted = expected(samples, places, taps, rows)
    assert wanted[1] > 3 or dtype is np.float32  # so that each thread has some to count
    for threads in (1, 2, 3, 100, None):
        assert_same(filtered(samples, places, taps, rows, backend=backend, threads=threads), wanted)


def test_the_compiler_may_fuse_but_not_reorder() -> None:
    assert set(compiling._OPTIONS["fastmath"]) <= {"contract"}


@each_backend
def test_an_engine_can_be_used_again_and_from_threads(backend) -> None:
    samples, places, taps, rows = many_patches(np.int16)
    wanted = expected(samples, places, taps, rows)
    engine = Engine(backend, 2)
    starts, sizes = np.array(places).T

    def run(_: int) -> tuple[np.ndarray, int]:
        wet = samples.copy()
        return wet, engine.filter_patches(wet, starts, sizes, rows, taps, 1)

    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(run, range(6)):
            assert_same(found, wanted)


def test_an_error_in_a_thread_reaches_the_caller(monkeypatch) -> None:
    samples, places, taps, rows = many_patches(np.int16)
    engine = Engine("reference", 3)

    class Failing:
        def filter_patches(self, samples, starts, sizes, rows, taps, stride, flags) -> int:
            if starts[0] == places[0][0]:
                return 0
            raise MemoryError("in a later part")

    monkeypatch.setattr(engine, "_kernels", Failing())
    starts, sizes = np.array(places).T
    with pytest.raises(MemoryError, match="in a later part"):
        engine.filter_patches(samples, starts, sizes, rows, taps, 1)


@each_backend
@pytest.mark.parametrize("dtype", [np.int8, np.float64, np.uint16, ">i2"])
def test_other_samples_are_refused(backend, dtype) -> None:
    with pytest.raises(TypeError, match="expected one of int16, int32, float32"):
        filtered(np.ones(10, dtype), [(0, 5)], some_taps(1, 3), backend=backend)


@each_backend
@pytest.mark.parametrize(
    ("start", "size", "row", "stride"),
    [(-1, 5, 0, 1), (96, 5, 0, 1), (100, 1, 0, 1), (50, 5, 0, 13), (50, 5, 0, -13), (0, 5, 1, 1), (0, 5, -1, 1)],
)
def test_places_outside_the_samples_are_refused(backend, start, size, row, stride) -> None:
    samples = np.ones(100, np.int16)
    places = [np.array([0, value]) for value in (start, size, row)]
    with pytest.raises(IndexError, match=r"outside the samples|is of no class"):
        Engine(backend).filter_patches(samples, *places, np.ones((1, 3), np.float32), stride)
    assert (samples == 1).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("backend", [name for name in here() if name != "cuda"])  # a GPU's driver does not survive
def test_a_forked_child_works_after_its_parent_used_threads(backend) -> None:
    samples, places, taps, rows = many_patches(np.int16)
    wanted = filtered(samples, places, taps, rows, backend=backend, threads=3)

    def child() -> None:
        found = filtered(samples, places, taps, rows, backend=backend, threads=3)
        os._exit(0 if found[0].tobytes() == wanted[0].tobytes() and found[1] == wanted[1] else 3)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    try:
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()


class Filtering:
    """A data set for torch whose items are filtered by the worker that loads them."""

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> np.ndarray:
        samples, places, taps, rows = many_patches(np.int16)
        return filtered(samples, places, taps, rows, backend=self.backend, threads=2)[0]


def loaded_by_workers(backend: str, start_method: str | None) -> list[np.ndarray]:
    """What two workers of a torch data loader make of `Filtering`."""
    data = pytest.importorskip("torch.utils.data", reason="torch is not installed", exc_type=ImportError)
    loader = data.DataLoader(
        Filtering(backend), batch_size=None, num_workers=2, collate_fn=None, multiprocessing_context=start_method
    )
    return [np.asarray(each) for each in loader]


@each_backend
@pytest.mark.filterwarnings("ignore")  # torch's own, and Python's on forking
def test_data_loader_workers_give_the_same_bits(backend) -> None:
    samples, places, taps, rows = many_patches(np.int16)
    wanted = filtered(samples, places, taps, rows, backend=backend, threads=2)[0]  # the parent has used its threads
    if backend == "cuda":
        with pytest.raises(RuntimeError, match=r"initialised before this process was forked.* 'spawn'"):
            loaded_by_workers(backend, "fork")
    found = loaded_by_workers(backend, "spawn" if backend == "cuda" else None)
    assert len(found) == 4
    for each in found:
        assert each.tobytes() == wanted.tobytes()


@each_backend
@pytest.mark.parametrize(
    ("starts", "sizes", "rows", "stride"),
    [
        (np.array([0]), np.array([2**62 + 1]), np.array([0]), 4),
        (np.array([0], np.int32), np.array([2**30 + 1], np.int32), np.array([0]), 4),
        (np.array([0], np.int8), np.array([9], np.int8), np.array([0]), 32),
        (np.array([2**63 - 1]), np.array([5]), np.array([0]), 1),
        (np.array([0, 5, 9]), np.array([1]), np.array([0, 0, 0]), 1),
        (np.array([0, 5, 9]), np.array([1, 1, 1]), np.array([0]), 1),
        (np.array([0.5]), np.array([1]), np.array([0]), 1),
        (np.array([0]), np.array([np.nan]), np.array([0]), 1),
    ],
)
def test_numbers_that_would_wrap_around_or_do_not_match_are_refused(backend, starts, sizes, rows, stride) -> None:
    samples = np.ones(100, np.int16)
    with pytest.raises((IndexError, TypeError), match=r"outside the samples|one of each|give one for|are integers"):
        Engine(backend).filter_patches(samples, starts, sizes, rows, np.ones((1, 3), np.float32), stride)
    assert (samples == 1).all()


@each_backend
@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint64])
def test_places_of_any_integers_are_taken(backend, dtype) -> None:
    samples, places = (
        np.ones(200, np.int16),
        [np.array([3, 60], dtype), np.array([7, 0], dtype), np.array([0, 0], dtype)],
    )
    Engine(backend).filter_patches(samples, *places, np.zeros((1, 3), np.float32), 9)
    assert np.flatnonzero(samples == 0).tolist() == list(range(3, 3 + 7 * 9, 9))


SCRIPT = """
import hashlib, sys
# An editable install answers before sys.path is looked at; Python's own finders are classes.
sys.meta_path[:] = [finder for finder in sys.meta_path if isinstance(finder, type)]
sys.path[:0] = [sys.argv.pop(1)]
import numpy as np
import poscuda_fast
from poscuda_fast import Key, Recipe, protect
from poscuda_fast.kernels import cpu

print(type(cpu._filter_patches).__name__, poscuda_fast.__file__)
for dtype in sys.argv[2:]:
    clips = np.random.default_rng(1).integers(-2**15, 2**15, (3, 60, 2)).astype(dtype)
    recipe = Recipe.paper(patch=20, taps=9, blur=0.5, patches=2)
    report = protect(clips, [0, 1, 0], Key(bytes(range(32))), recipe=recipe, backend=sys.argv[1])
    print(dtype, hashlib.sha256(clips.tobytes()).hexdigest(), report.saturated_samples)
"""


def run_script(package: Path, *arguments: str, **environment: str) -> list[str]:
    """What the script prints: kind of the compiled kernel and which package it used, then a line for each dtype."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(package), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def reference_lines() -> list[str]:
    return run_script(HERE, "reference", "int16", "float32")[1:]


def test_the_kernel_runs_without_its_compiler(reference_lines) -> None:
    first, *lines = run_script(HERE, "cpu", "int16", "float32", NUMBA_DISABLE_JIT="1")
    assert first.startswith("function ")
    assert lines == reference_lines


def test_the_kernel_works_where_no_cache_can_be_written(tmp_path, reference_lines) -> None:
    """Files stand where numba would make its cache folders: this stops root too."""
    package = tmp_path / "site"
    shutil.copytree(HERE / "poscuda_fast", package / "poscuda_fast", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "poscuda_fast" / "kernels" / "__pycache__").touch()
    (tmp_path / "home").touch()
    home = str(tmp_path / "home")
    lines = run_script(package, "cpu", "int16", HOME=home, XDG_CACHE_HOME=home, NUMBA_CACHE_DIR="")
    assert lines == [f"CPUDispatcher {package / 'poscuda_fast' / '__init__.py'}", reference_lines[0]]


# Names.


def test_auto_is_the_fastest_backend() -> None:
    """In the order of AUTO; the last two are always there."""
    assert AUTO == ("native", "cpu", "reference")
    assert set(AUTO) <= set(BACKENDS)
    assert why_missing("cpu") is None
    assert why_missing("reference") is None
    fastest = next(name for name in AUTO if why_missing(name) is None)
    assert load("auto") is load(fastest)
    assert load("cpu") is not load("reference")


def test_native_kernels_are_there_where_they_must_be() -> None:
    """An installation may lack them; one that was made with POSCUDA_REQUIRE_NATIVE may not."""
    if os.environ.get("POSCUDA_REQUIRE_NATIVE"):
        assert why_missing("native") is None


@pytest.mark.parametrize("backend", ["gpu", "", "CPU", "numba", None, 3])
def test_an_unknown_backend_is_refused(backend) -> None:
    for ask in (load, Engine):
        with pytest.raises(
            ValueError, match=rf"backend is {backend!r}; expected one of .*'native', 'cpu', 'reference'"
        ):
            ask(backend)


def test_a_missing_backend_is_explained(monkeypatch) -> None:
    monkeypatch.setitem(BACKENDS, "absent", "poscuda_fast.kernels.absent")
    problem = why_missing("absent")
    assert problem is not None
    assert "absent backend cannot be imported (No module named" in problem
    with pytest.raises(ImportError, match=r"absent backend cannot be imported .*; run pip install"):
        Engine("absent")


@pytest.mark.parametrize("threads", [0, -1, 1.0, 2.5, "2", True, [1]])
def test_a_wrong_number_of_threads_is_refused(threads) -> None:
    with pytest.raises(ValueError, match=r"threads is .*; expected a whole number from 1") as caught:
        Engine("reference", threads)
    assert repr(threads) in str(caught.value)
