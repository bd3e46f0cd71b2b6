"""Directions of rounding, and subnormal numbers that are flushed to zero, change no bit; the caller keeps its own."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from awkward import any_samples
from backends import each_backend
from test_kernels import many_patches
from test_lines import some_rows, table_of

from poscuda_fast import Key, Recipe, protect
from poscuda_fast.kernels import SAMPLES_PER_THREAD, Engine, default_arithmetic, load, why_missing
from poscuda_fast.mark.filters import draw_filters
from poscuda_fast.mark.labels import encode
from poscuda_fast.mark.lines import cosine_table, draw_lines

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64") or platform.libc_ver()[0] != "glibc",
    reason="reads and sets the environment as glibc on x86-64 keeps it",
)

# Bits of the control register of SSE, and what fesetround takes to set them for x87 too.
FLUSH, ROUND = 0x8040, 0x6000
MODES = {"default": 0, "flush": FLUSH, "down": 0x2000, "up": 0x4000, "to zero": 0x6000, "up and flush": 0x4000 | FLUSH}
each_mode = pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "default"])
each_dtype = pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32], ids=lambda dtype: dtype.__name__)


def now() -> tuple[int, int]:
    """The control words of x87 and SSE of this thread, the latter with the exceptions that have occurred."""
    environment = ctypes.create_string_buffer(64)
    ctypes.CDLL("libm.so.6").fegetenv(environment)
    return struct.unpack_from("<H", environment)[0], struct.unpack_from("<I", environment, 28)[0]


def without_inexact(found: tuple[int, int]) -> tuple[int, int]:
    """The same without the exception that Python's collector of garbage, and what is hooked into it, may raise."""
    return found[0], found[1] & ~0x20


@contextlib.contextmanager
def environment(mode: str) -> Iterator[None]:
    """Set what another library might, and look whether all of it is still there in the end."""
    libm, before = ctypes.CDLL("libm.so.6"), ctypes.create_string_buffer(64)
    libm.fegetenv(before)
    changed = ctypes.create_string_buffer(before.raw, 64)
    struct.pack_into("<I", changed, 28, 0x1F80 | MODES[mode])
    struct.pack_into("<H", changed, 0, 0x37F | (MODES[mode] & ROUND) >> 3)
    try:
        libm.fesetenv(changed)
        wanted = now()
        yield
        found = now()
    finally:
        libm.fesetenv(before)
    assert found[0] == wanted[0]
    assert found[1] & ~0x3F == wanted[1] & ~0x3F  # exceptions: NumPy and Python raise them outside of kernels too


def equal_in(mode: str, run: Callable[[], Any]) -> None:
    with environment("default"):
        wanted = run()
    with environment(mode):
        found = run()
    assert found == wanted


def awkward(dtype, n: int) -> np.ndarray:
    """Samples of which many are subnormal, in float32."""
    samples = any_samples(dtype, (n,), 3)
    if dtype is np.float32:
        samples[::3] *= np.float32(2.0**-149)
        samples[1::3] = np.random.default_rng(3).uniform(-1, 1, len(samples[1::3]))
        samples[5::70] = np.float32(1e-42)
    return samples


def filtering(dtype, backend: str, threads: int) -> Callable[[], Any]:
    samples, places, taps, rows = many_patches(dtype)
    samples = awkward(dtype, len(samples))
    starts, sizes = np.array(places).T
    engine = Engine(backend, threads)

    def run() -> Any:
        wet, flags = samples.copy(), np.empty(len(starts), np.uint8)
        over = engine.filter_patches(wet, starts, sizes, rows, taps, 1, flags)
        return wet.tobytes(), over, flags.tolist(), engine.survey_patches(samples, starts, sizes, 1).tolist()

    return run


def adding(dtype, backend: str, threads: int) -> Callable[[], Any]:
    n = 2 * SAMPLES_PER_THREAD + 9 if backend in ("native", "cpu") else 20_000
    samples, rows = awkward(dtype, n), [*some_rows(dtype)[:2], np.zeros(64, dtype)]
    places = np.array([[0, n // 2], [n // 2, n // 2], [3, 9], [1, 2]])
    engine = Engine(backend, threads)

    def run() -> Any:
        wet = samples.copy()
        odd = engine.add_lines(wet, *places, table_of(rows), 1)
        return wet.tobytes(), odd

    return run


@pytest.mark.guards("I10")
@each_mode
@each_backend
@each_dtype
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kernel", [filtering, adding])
def test_kernels(mode, backend, dtype, threads, kernel) -> None:
    equal_in(mode, kernel(dtype, backend, threads))


@pytest.mark.parametrize("mode", ["flush", "down", "up", "to zero"])
def test_the_modes_would_change_bits(mode) -> None:
    """Without an engine, which sets the default environment: so the tests here have something to find."""
    samples, rows = awkward(np.float32, 5000), [np.full(64, 0.3, np.float32), np.zeros(64, np.float32)]
    places = np.array([[0, 2500], [2500, 2500], [0, 0], [0, 1]])

    def run() -> bytes:
        wet = samples.copy()
        load("reference").add_lines(wet, *places, table_of(rows), 1)
        return wet.tobytes()

    with pytest.raises(AssertionError):
        equal_in(mode, run)


@pytest.mark.guards("I10")
@each_mode
@pytest.mark.skipif(why_missing("native") is not None, reason="the native kernels are not installed")
def test_native_kernels_called_directly(mode) -> None:
    from poscuda_fast.kernels import _native

    samples, places, taps, rows = many_patches(np.float32)
    samples = awkward(np.float32, len(samples))
    starts, sizes = np.array(places).T.copy()
    table = table_of([*some_rows(np.float32)[:2], np.zeros(64, np.float32)])  # zeros leave subnormal numbers alone
    for name in _native.instruction_sets():

        def run(name: str = name) -> Any:
            filtered, added, flags = samples.copy(), samples.copy(), np.empty(len(starts), np.uint8)
            energies, peaks = np.empty(len(starts)), np.empty(len(starts))
            before = now()
            _native.filter_patches(filtered, starts, sizes, rows, taps, 1, set=name)
            _native.add_lines(added, starts, sizes, rows, rows % 3, *table, 1, set=name)
            _native.survey_patches(samples, starts, sizes, 1, flags, set=name)
            _native.measure_patches(samples, starts, sizes, 1, energies, peaks, set=name)
            assert without_inexact(now()) == without_inexact(before)
            return [each.tobytes() for each in (filtered, added, flags, energies, peaks)]

        equal_in(mode, run)


@pytest.mark.guards("I10")
@each_mode
@each_dtype
def test_marks(mode, dtype, key: Key) -> None:
    """Both a usual period, and those whose cosines float64 rounds wrongly."""
    tokens = encode(np.arange(9), None, 9).tokens

    def run() -> Any:
        cosine_table.cache_clear()
        lines = draw_lines(key, tokens, Recipe.strong(0.7), (8_000, 44_100, 500_001))
        filters = [
            draw_filters(key, tokens, Recipe.paper(blur=blur, identity=identity)).taps.tobytes()
            for blur in (0.01, 1e-38, 1e-44, 0.3)
            for identity in (False, True)
        ]
        return (
            lines.table(np.dtype(dtype), 1).values.tobytes(),
            lines.table(np.dtype(dtype), 2, -1).values.sum(),
            filters,
        )

    equal_in(mode, run)
    cosine_table.cache_clear()


@pytest.mark.guards("I10")
@each_mode
@each_backend
@pytest.mark.parametrize("recipe", [Recipe.strong(), Recipe.paper(patch=100, taps=20, blur=0.3)], ids=["2", "1"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32], ids=lambda dtype: dtype.__name__)
def test_protecting(mode, backend, recipe, dtype, key: Key) -> None:
    clips = awkward(dtype, 6 * 4000).reshape(6, 4000)
    if dtype is np.float32:
        clips = np.where(np.abs(clips) < 1, clips, np.float32(1e-40))

    def run() -> bytes:
        cosine_table.cache_clear()
        wet = clips.copy()
        protect(wet, [0, 1, 2, 0, 1, 2], key, recipe=recipe, backend=backend)
        return wet.tobytes()

    equal_in(mode, run)


@each_mode
@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_leaves_the_callers_environment(mode, threads, monkeypatch) -> None:
    seen = []

    class Failing:
        def survey_patches(self, *_: Any) -> Any:
            seen.append(now()[1] & (ROUND | FLUSH))
            raise MemoryError("in a kernel")

    engine, samples, places = Engine("reference", threads), np.ones(200, np.int16), np.arange(200)
    monkeypatch.setattr(engine, "_kernels", Failing())
    with environment(mode), pytest.raises(MemoryError, match="in a kernel"):
        engine.survey_patches(samples, places, np.ones(200, np.int64), 1)
    assert set(seen) == {0}


def test_exceptions_that_occur_meanwhile_are_not_the_callers() -> None:
    with environment("default"):
        before = now()
        with default_arithmetic(), np.errstate(all="ignore"):
            assert np.isinf(np.float32(1) / np.float32(0))
        assert without_inexact(now()) == without_inexact(before)


def test_threads_inherit_an_environment_and_have_their_own() -> None:
    """What a library sets before threads are started counts there too; so each sets the default for itself."""
    seen: list[int] = []

    def look() -> None:
        seen.append(now()[1] & (ROUND | FLUSH))
        with default_arithmetic():
            seen.append(now()[1] & (ROUND | FLUSH))
            inside.set()
            done.wait(10)
        seen.append(now()[1] & (ROUND | FLUSH))

    inside, done = threading.Event(), threading.Event()
    with environment("up and flush"):
        thread = threading.Thread(target=look)
        thread.start()
        inside.wait(10)
        seen.append(now()[1] & (ROUND | FLUSH))  # not that of the other thread
        done.set()
        thread.join()
    odd = MODES["up and flush"]
    assert seen == [odd, 0, odd, odd]
