"""Format 2's kernel: every backend, layout and number of threads adds the same sound, bit for bit."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from awkward import any_samples, patched_samples
from backends import each_backend, here
from hypothesis import given, settings
from hypothesis import strategies as st

from poscuda_fast.kernels import PATCHES_PER_THREAD, Engine, Marks, why_missing

DTYPES = [np.int16, np.int32, np.float32]
FULL_SCALE = {np.int16: 2.0**15, np.int32: 2.0**23, np.float32: 1.0}

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


def added(samples, places, sounds, rows=None, stride=1, backend="reference", threads=1) -> tuple[bytes, int]:
    """Flat samples with sounds, and how many were saturated; `places` is a list of (start, frames)."""
    wet = np.array(samples)
    starts, sizes = np.array(places, np.int64).reshape(-1, 2).T
    rows = np.zeros(len(places), np.int64) if rows is None else np.array(rows, np.int64)
    marks = Marks(np.atleast_2d(sounds), added=True)
    over = Engine(backend, threads).mark_patches(wet, starts, sizes, rows, marks, stride)
    assert type(over) is int
    return wet.tobytes(), over


def expected(samples, places, sounds, rows=None, stride=1) -> tuple[bytes, int]:
    """The same by the second implementation."""
    wet, saturated = np.array(samples), 0
    for n, (start, size) in enumerate(places):
        where = [start + t * stride for t in range(size)]
        row = np.atleast_2d(sounds)[0 if rows is None else rows[n]]
        wet[where], over = naive.add_samples(wet[where], row.tolist())
        saturated += over
    return wet.tobytes(), saturated


def some_sounds(n_classes: int, n_frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.3, (n_classes, n_frames)).astype(np.float32)


@each_backend
@each_dtype
@pytest.mark.parametrize("stride", [1, 2, 3, -1, -4])
def test_sizes_and_strides(backend, dtype, stride) -> None:
    samples, sounds = any_samples(dtype, (400,)), some_sounds(2, 17)
    begin = 3 if stride > 0 else 396
    places = [(begin, 17), (begin + 18 * stride, 1), (begin + 20 * stride, 0), (begin + 21 * stride, 16)]
    wanted = expected(samples, places, sounds, [1, 0, 1, 1], stride)
    assert added(samples, places, sounds, [1, 0, 1, 1], stride, backend) == wanted
    assert wanted[0] != samples.tobytes()


@pytest.mark.guards("I10")
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_backends_agree(dtype, data) -> None:
    samples, places, rows, stride = data.draw(patched_samples(dtype))
    sounds = any_samples(np.float32, (2, 30), data.draw(st.integers(0, 2**16)))
    wanted = expected(samples, places, sounds, rows, stride)
    for backend in here():
        assert added(samples, places, sounds, rows, stride, backend) == wanted


@each_backend
@pytest.mark.parametrize("dtype", [np.int16, np.int32], ids=lambda dtype: dtype.__name__)
def test_integers_round_half_to_even_and_saturate(backend, dtype) -> None:
    top = FULL_SCALE[dtype]
    samples = np.array([0, 1, 2, -1, -2, top - 1, top - 1, -top, -top, top - 2], dtype)
    steps = np.array([0.5, 0.5, 0.5, -0.5, -0.5, 0.49, 0.5, -0.5, -0.51, 3.0])
    wet, over = added(samples, [(0, 10)], (steps / top).astype(np.float32), backend=backend)
    found = np.frombuffer(wet, dtype).tolist()
    assert found == [0, 2, 2, -2, -2, top - 1, top - 1, -top, -top, top - 1]
    assert over == 3  # half above the top rounds up to even, half below the bottom to even too, which is the bottom


@each_backend
def test_floats_are_never_limited(backend) -> None:
    samples = np.array([3.0e38, -3.0e38, 1e-45, 1.0, -0.0], np.float32)
    sounds = np.array([3.0e38, 1.0, 1e-45, 2**-24, 0.0], np.float32)
    wet, over = added(samples, [(0, 5)], sounds, backend=backend)
    with np.errstate(over="ignore"):
        wanted = (samples.astype(np.float64) + sounds.astype(np.float64)).astype(np.float32)
    assert wet == wanted.tobytes()
    assert np.isinf(wanted[0])
    assert over == 0


@pytest.mark.guards("I10")
@each_backend
@each_dtype
def test_every_number_of_threads_gives_the_same_bits(backend, dtype) -> None:
    n = 3 * PATCHES_PER_THREAD + 5
    places = [(20 * i + i % 3, 5 + i % 13) for i in range(n)]
    samples, sounds, rows = any_samples(dtype, (20 * n,)), some_sounds(4, 17), np.arange(n) % 4
    wanted = expected(samples, places, sounds, rows)
    assert wanted[1] > 3 or dtype is np.float32
    for threads in (1, 2, 3, None):
        assert added(samples, places, sounds, rows, backend=backend, threads=threads) == wanted


@pytest.mark.guards("I10")
@pytest.mark.skipif(why_missing("native") is not None, reason="the native kernels are not installed")
@each_dtype
def test_every_instruction_set_of_this_processor_gives_the_same_bits(dtype) -> None:
    from poscuda_fast.kernels import _native

    for size, stride in ((1, 1), (5, 1), (33, 2), (64, 1), (241, -1)):
        samples = any_samples(dtype, (3 * size * abs(stride) + 7,), size)
        starts = np.arange(3) * size * abs(stride) + (3 if stride > 0 else size - 1)
        sizes, rows = np.full(3, size), np.arange(3) % 2
        sounds = some_sounds(2, size, size)
        wanted = expected(samples, list(zip(starts, sizes, strict=True)), sounds, rows, stride)
        for name in _native.instruction_sets():
            wet = samples.copy()
            assert (_native.add_patches(wet, starts, sizes, rows, sounds, stride, set=name), wet.tobytes()) == wanted[
                ::-1
            ]


@each_backend
def test_what_would_reach_outside_is_refused(backend) -> None:
    samples, sounds = np.zeros(50, np.int16), some_sounds(1, 8)
    for places, rows, message in (
        ([(45, 8)], [0], "outside"),
        ([(0, 9)], [0], "longer than its sound"),
        ([(0, 8)], [1], "of no class"),
        ([(0, 8)], [-1], "of no class"),
    ):
        with pytest.raises(IndexError, match=message):
            added(samples, places, sounds, rows, backend=backend)


def test_marks_do_not_show_themselves() -> None:
    assert repr(Marks(some_sounds(3, 4), added=True)) == "Marks(3 classes)"
