"""Format 2's kernel: every backend, layout and number of threads adds the same table, bit for bit."""

from __future__ import annotations

import tracemalloc

import naive
import numpy as np
import pytest
from awkward import any_samples
from backends import each_backend, here
from hypothesis import given, settings
from hypothesis import strategies as st

from poscuda_fast import Key, Recipe
from poscuda_fast.kernels import SAMPLES_PER_THREAD, WRAP, Engine, LineTable, why_missing
from poscuda_fast.mark.labels import encode
from poscuda_fast.mark.lines import Lines, draw_lines
from poscuda_fast.mark.patches import FEWEST_ACROSS, Patches, Steps, packed_steps

DTYPES = [np.int16, np.int32, np.float32]
PERIODS = [WRAP, WRAP + 1, 200]  # rows of several lengths

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


def some_rows(dtype, seed: int = 0) -> list[np.ndarray]:
    """A period of each row, of which the middle one is so loud that samples saturate."""
    rng = np.random.default_rng(seed)
    loud = {np.int16: 2**14, np.int32: 2**22, np.float32: 1.0}[dtype]
    return [
        (level * rng.uniform(-1, 1, n)).astype(dtype) for level, n in zip((0.01 * loud, loud, 1), PERIODS, strict=True)
    ]


def table_of(rows: list[np.ndarray]) -> LineTable:
    wrapped = [np.concatenate([row, row[:WRAP]]) for row in rows]
    lengths = np.array([len(row) for row in wrapped])
    return LineTable(np.concatenate(wrapped), np.cumsum(lengths) - lengths, np.array([len(row) for row in rows]))


def added(samples, places, rows, stride=1, backend="reference", threads=1) -> tuple[bytes, int]:
    """Flat samples with lines, and how many were odd; `places` is a list of (start, frames, phase, row)."""
    wet = np.array(samples)
    odd = Engine(backend, threads).add_lines(wet, *np.array(places, np.int64).reshape(-1, 4).T, table_of(rows), stride)
    assert type(odd) is int
    return wet.tobytes(), odd


def expected(samples, places, rows, stride=1) -> tuple[bytes, int]:
    """The same by the second implementation."""
    wet, total = np.array(samples), 0
    for start, size, phase, row in places:
        where = [start + t * stride for t in range(size)]
        in_units = rows[row] * 2.0**23 if wet.dtype == np.float32 else rows[row]
        wet[where], odd = naive.add_samples(wet[where], in_units.tolist(), phase)
        total += odd
    return wet.tobytes(), total


@st.composite
def some_places(draw: st.DrawFn) -> tuple[list[tuple[int, int, int, int]], int, int]:
    """(start, frames, phase, row) of some patches, their stride, and the samples that they need."""
    sizes = draw(st.lists(st.integers(0, 150) | st.integers(0, 700), max_size=5))
    gaps = draw(st.lists(st.integers(0, 40), min_size=len(sizes), max_size=len(sizes)))
    stride = draw(st.sampled_from([1, 1, 2, 3, -1, -2]))
    firsts = (np.cumsum([0, *sizes])[:-1] + np.cumsum(gaps)).astype(int) if sizes else []
    total = (sum(sizes) + sum(gaps) + 1) * abs(stride)
    begin = 0 if stride > 0 else total - 1
    phases = draw(st.lists(st.integers(0, 2**40), min_size=len(sizes), max_size=len(sizes)))
    rows = draw(st.lists(st.integers(0, 2), min_size=len(sizes), max_size=len(sizes)))
    starts = [begin + int(first) * stride for first in firsts]
    return list(zip(starts, sizes, phases, rows, strict=True)), stride, total


@pytest.mark.guards("I10")
@each_dtype
@settings(max_examples=60, deadline=None)
@given(some_places(), st.integers(0, 2**16))
def test_backends_agree(dtype, drawn, seed) -> None:
    places, stride, total = drawn
    samples = any_samples(dtype, (total,), seed)
    samples[::37] = samples.dtype.type(0)
    if dtype is np.float32:
        samples[5::91] = np.float32("nan")
    wanted = expected(samples, places, some_rows(dtype), stride)
    for backend in here():
        assert added(samples, places, some_rows(dtype), stride, backend) == wanted


@each_backend
@each_dtype
def test_integers_saturate_and_are_counted(backend, dtype) -> None:
    samples = any_samples(dtype, (5000,), 1)
    wet, odd = added(samples, [(3, 4990, 7, 1)], some_rows(dtype), backend=backend)
    assert (wet, odd) == expected(samples, [(3, 4990, 7, 1)], some_rows(dtype))
    assert (odd > 500) == (dtype is not np.float32)


@each_backend
def test_more_saturated_samples_than_a_lane_can_count(backend) -> None:
    """Long runs, of which every sample saturates: counts in registers of int16 must be emptied in time."""
    n = 40 * 2**16 if backend in ("native", "cpu") else 2**12
    samples, rows = np.full(n, 32767, np.int16), [np.ones(WRAP, np.int16)]
    wet, odd = added(samples, [(0, n, 0, 0)], rows, backend=backend)
    assert odd == n
    assert wet == samples.tobytes()


@pytest.mark.guards("I10")
@each_backend
@each_dtype
def test_every_number_of_threads_gives_the_same_bits(backend, dtype) -> None:
    n = 3 * SAMPLES_PER_THREAD + 17 if backend in ("native", "cpu") else 5000
    samples = any_samples(dtype, (n,), 2)
    places = [(0, n // 2, 5, 1), (n // 2, 0, 0, 0), (n // 2 + 1, 300, 0, 2), (n // 2 + 301, n // 2 - 310, 2**33, 0)]
    one = added(samples, places, some_rows(dtype), backend=backend)
    for threads in (2, 3, None):
        assert added(samples, places, some_rows(dtype), backend=backend, threads=threads) == one


@pytest.mark.guards("I10")
@pytest.mark.skipif(why_missing("native") is not None, reason="the native kernels are not installed")
@each_dtype
def test_every_instruction_set_of_this_processor_gives_the_same_bits(dtype) -> None:
    from poscuda_fast.kernels import _native

    rows = some_rows(dtype)
    for start, size, stride in ((0, 1, 1), (1, 5, 1), (3, 33, 2), (7, 64, 1), (1300, 1241, -1), (5, 1999, 1)):
        samples = any_samples(dtype, (2100,), size)
        places = [(start, size, phase, row) for phase, row in [(size, size % 3)]]
        wanted = expected(samples, places, rows, stride)
        for name in _native.instruction_sets():
            wet = samples.copy()
            odd = _native.add_lines(wet, *np.array(places).T.copy(), *table_of(rows), stride, set=name)
            assert (wet.tobytes(), odd) == wanted


@each_backend
def test_what_would_reach_outside_is_refused(backend) -> None:
    samples, rows = np.zeros(50, np.int16), some_rows(np.int16)
    for place, error, message in (
        ((45, 8, 0, 0), IndexError, "outside"),
        ((0, 8, 0, 3), IndexError, "of no class"),
        ((0, 8, 0, -1), IndexError, "of no class"),
        ((0, 8, -1, 0), IndexError, "phases"),
        ((-1, 8, 0, 0), IndexError, "outside"),
    ):
        with pytest.raises(error, match=message):
            added(samples, [place], rows, backend=backend)
    with pytest.raises(IndexError, match="outside"):  # a packed sample is three bytes
        Engine(backend).add_lines(
            np.zeros(50, np.uint8), *np.array([[0, 17, 0, 0]]).T, table_of(some_rows(np.int32)), 1
        )


@each_backend
def test_layouts_of_channels_agree(backend) -> None:
    """Interleaved channels are one run with a table of repeated values; apart, each is a run of its own."""
    key, frames = Key(bytes(range(32))), any_samples(np.int16, (700, 3), 4)
    lines = draw_lines(key, encode(["yes"], None, 1).tokens, Recipe.strong(9.0), [16_000])
    together, apart = frames.reshape(-1).copy(), frames.copy()
    one, zero = np.ones(1, np.int64), np.zeros(1, np.int64)
    engine = Engine(backend, 1)
    odd = engine.add_lines(together, zero, 2100 * one, 5 * 3 * one, zero, lines.table(frames.dtype, 3), 1)
    flat = apart.reshape(-1)
    for channel in range(3):
        odd -= engine.add_lines(flat, channel * one, 700 * one, 5 * one, zero, lines.table(frames.dtype, 1), 3)
    assert odd == 0
    assert together.tobytes() == apart.tobytes()


def test_lines_do_not_show_themselves() -> None:
    lines = draw_lines(Key(bytes(32)), encode([0, 1, 2], None, 3).tokens, Recipe.strong(), [8_000, 16_000])
    assert repr(lines) == str(lines) == "Lines(6 rows)"


@each_backend
@each_dtype
def test_measuring(backend, dtype) -> None:
    scale = {np.int16: 1, np.int32: 200, np.float32: 2**-15}[dtype]
    samples = (np.random.default_rng(0).integers(-30000, 30000, 9000) * scale).astype(dtype)
    starts, sizes = np.array([0, 10, 4500, 17, 5]), np.array([1, 4097, 4500, 0, 64])
    for stride in (1, 2):
        sizes = sizes // stride
        energies, peaks = Engine(backend).measure_patches(samples, starts, sizes, stride)
        for n, (start, size) in enumerate(zip(starts, sizes, strict=True)):
            patch = samples[start : start + size * stride : stride].astype(np.float64)
            assert energies[n] == pytest.approx(float(patch @ patch), rel=1e-5)
            assert peaks[n] == np.abs(patch).max(initial=0)


@each_backend
def test_measuring_what_is_not_finite(backend) -> None:
    samples = np.ones(3000, np.float32)
    samples[100], samples[2100] = np.nan, np.inf
    energies, _ = Engine(backend).measure_patches(samples, np.array([0, 1000, 2000]), np.full(3, 1000), 1)
    assert np.isnan(energies[0])
    assert energies[1] == 1000
    assert np.isinf(energies[2])


def test_a_table_of_long_periods_takes_little_more_memory_than_itself(key: Key) -> None:
    tokens = encode(np.arange(256), None, 256).tokens
    tracemalloc.start()
    try:
        values = draw_lines(key, tokens, Recipe.strong(), (512_000,)).table(np.dtype(np.int16), 1).values
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert values.nbytes > 8 << 20
    assert peak < values.nbytes + (16 << 20)


# Removing.

LAYOUTS = ["packed", "channels apart", "side by side"]


def clips_in(layout: str) -> tuple[int, np.ndarray, Patches, Steps]:
    """Samples needed, where clips begin, which frames of them are marked, and their steps; two channels each."""
    n, frames = FEWEST_ACROSS + 3, 1000
    clips = np.arange(n)
    patches = Patches(clips, np.full(n, 7), np.full(n, 900), clips % 4)
    if layout == "side by side":  # frames before clips
        return frames * n * 2, 7 * n * 2 + 2 * clips, patches, Steps(2 * n, 1, 2)
    if layout == "channels apart":
        return n * frames * 2, (clips * 2 * frames) + 7, patches, Steps(1, frames, 2)
    return n * frames * 2, (clips * frames + 7) * 2, patches, packed_steps(2)


def loud_lines(strength: float = 50.0) -> Lines:
    return draw_lines(Key(bytes(range(32))), encode(["a", "b"], None, 2).tokens, Recipe.strong(strength), (8000, 16000))


@each_backend
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["int16", "int32", "uint8"])
def test_removing_brings_back_what_was_not_saturated(backend, layout, kind) -> None:
    total, firsts, patches, steps = clips_in(layout)
    bits = 16 if kind == "int16" else 24
    wide = np.random.default_rng(1).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), total, np.int32)
    before = (
        wide.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].reshape(-1) if kind == "uint8" else wide.astype(kind)
    )
    lines, engine, samples = loud_lines(), Engine(backend, 2), before.copy()
    saturated = lines.apply(engine, samples, firsts, patches, steps)
    marked = samples.copy()
    assert lines.remove(engine, samples, firsts, patches, steps) == 0  # a limited sample moves back into its range
    # What was added is seen on silence: of a mark with half of full scale nothing saturates there.
    silence = np.zeros_like(before)
    assert lines.apply(engine, silence, firsts, patches, steps) == 0
    exact = whole(before) + whole(silence)
    limited = exact != np.clip(exact, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert 0 < saturated == limited.sum()
    assert np.array_equal(whole(samples) != whole(before), limited)
    assert not np.array_equal(marked, before)
    assert lines.remove(engine, silence, firsts, patches, steps) == 0
    assert not silence.any()


def whole(samples: np.ndarray) -> np.ndarray:
    """Samples as int64, packed ones too."""
    if samples.dtype == np.uint8:
        wide = np.zeros((samples.size // 3, 4), np.uint8)
        wide[:, 1:] = samples.reshape(-1, 3)
        samples = wide.view("<i4").reshape(-1) >> 8
    return samples.astype(np.int64)


@each_backend
@pytest.mark.parametrize("layout", LAYOUTS)
def test_removing_brings_back_float32_where_the_sum_was_exact(backend, layout) -> None:
    total, firsts, patches, steps = clips_in(layout)
    before = any_samples(np.float32, (total,), 2)
    before[::3] = np.round(before[::3] % 1, 5)
    before[1::5] = np.random.default_rng(2).integers(-(2**23), 2**23, len(before[1::5])) / 2**23
    before[::91], before[::97], before[::89] = np.inf, np.nan, np.float32("-inf")
    lines, engine, samples = loud_lines(1.0), Engine(backend, 2), before.copy()
    odd = lines.apply(engine, samples, firsts, patches, steps)
    marked = samples.copy()
    assert lines.remove(engine, samples, firsts, patches, steps) == odd > 0
    strange = ~np.isfinite(before)
    assert samples.view(np.uint32)[strange].tolist() == before.view(np.uint32)[strange].tolist()
    silence = np.zeros_like(before)
    assert lines.apply(engine, silence, firsts, patches, steps) == 0
    finite = ~strange
    x, m, y, back = (each[finite] for each in (before, silence, marked, samples))
    assert back.tobytes() == (y - m).tobytes()
    exact = is_exact(x.astype(np.float64), m.astype(np.float64), y)
    assert 10_000 < exact.sum() < len(x) - 10_000
    assert (back == x)[exact].all()  # and of the others some, by chance
    assert (back != x).sum() > 5_000
    assert (back.view(np.uint32) != x.view(np.uint32))[exact].sum() == 0  # which tells 0.0 from -0.0


def is_exact(x: np.ndarray, m: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where y is x + m to the last digit: the error of a float64 sum is computed by Knuth's two-sum."""
    total = x + m
    moved = total - x
    error = (x - (total - moved)) + (m - moved)
    return (y == total) & (error == 0)


@each_backend
def test_removing_gives_plus_zero_for_minus_zero(backend) -> None:
    lines, samples = loud_lines(1.0), np.full(600, -0.0, np.float32)
    place = np.zeros(1, np.int64), Patches(*np.array([[0], [0], [600], [0]])), packed_steps(1)
    for each in (lines.apply, lines.remove):
        assert each(Engine(backend), samples, *place) == 0
    assert samples.tobytes() == np.zeros(600, np.float32).tobytes()


def test_tables_are_kept() -> None:
    lines = loud_lines()
    for dtype in (np.dtype(np.int16), np.dtype(np.uint8), np.dtype(np.float32)):
        added, removed = lines.table(dtype, 2), lines.table(dtype, 2, -1)
        assert lines.table(dtype, 2) is added
        assert lines.table(dtype, 2, -1) is removed
        assert np.array_equal(added.values + removed.values, np.zeros_like(added.values))
        assert added.values.any()
