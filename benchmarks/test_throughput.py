"""Throughput of every backend on clips of one second, beside NumPy's own convolution, clip by clip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from poscuda_fast import Key, Recipe, protect

FRAMES = 16_000
N_CLIPS = {"cpu": 4096, "reference": 64}


def clips(n: int, dtype: type) -> NDArray[Any]:
    noise = np.random.default_rng(0).normal(0, 3000, (n, FRAMES))
    return noise.astype(dtype) if dtype is np.int16 else (noise / 32768).astype(dtype)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_protect(benchmark: Any, backend: str, threads: int, dtype: type) -> None:
    data = clips(N_CLIPS[backend], dtype)
    labels = np.arange(len(data)) % 35
    key = Key(bytes(range(32)))
    protect(data[:1], labels[:1], key, backend=backend)  # compiled before the clock starts
    benchmark.extra_info["clips"] = len(data)
    benchmark(protect, data, labels, key, backend=backend, threads=threads)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_numpy_convolve(benchmark: Any, dtype: type) -> None:
    """The peer: the same patch and filter length, one clip after another."""
    recipe = Recipe()
    data = clips(N_CLIPS["cpu"], dtype)
    taps = np.random.default_rng(1).uniform(0, recipe.blur, recipe.taps)
    start = FRAMES // 2

    def run() -> None:
        for clip in data:
            patch = clip[start : start + recipe.patch]
            patch[:] = np.convolve(patch, taps, "same")

    benchmark.extra_info["clips"] = len(data)
    benchmark(run)
