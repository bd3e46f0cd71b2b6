"""Format 2: adding sounds in short patches along a clip, compared with NumPy and with touching the same samples."""

from __future__ import annotations

from typing import Any

import limits
import numpy as np
import pytest
from numpy.typing import NDArray

from poscuda_fast import Key, Recipe, protect
from poscuda_fast.kernels import Engine, Marks

N_CLIPS = 5_000
N_FRAMES = 16_000
N_CLASSES = 35
PATCH, EVERY = 32, 128  # the default recipe
ROUNDS = 11

each_dtype = pytest.mark.parametrize("dtype", [np.int16, np.float32], ids=lambda dtype: dtype.__name__)


def make_clips(dtype: type) -> NDArray[Any]:
    """Noise at the level of speech."""
    clips = np.random.default_rng(0).normal(0, 3000, (N_CLIPS, N_FRAMES))
    return (clips / 32768 if dtype is np.float32 else clips).astype(dtype)


def numpy_added(clips: NDArray[Any], rows: NDArray[np.int64], firsts: NDArray[np.int64], sounds: Any) -> Any:
    """A class at a time, all its patches in one operation."""
    turns = clips.reshape(len(clips), -1, EVERY)  # a view

    def run() -> None:
        for row, (first, sound) in enumerate(zip(firsts.tolist(), sounds, strict=True)):
            where = (np.flatnonzero(rows == row), slice(None), slice(first, first + PATCH))
            if clips.dtype == np.int16:
                turns[where] = np.clip(np.rint(turns[where] + 32768 * sound), -32768, 32767)
            else:
                turns[where] += sound

    return run


@each_dtype
def test_adding_sounds(race: Any, dtype: type) -> None:
    clips, rng = make_clips(dtype), np.random.default_rng(1)
    rows = np.arange(N_CLIPS) % N_CLASSES
    firsts = rng.integers(0, EVERY - PATCH + 1, N_CLASSES)
    sounds = rng.normal(0, 0.01, (N_CLASSES, PATCH)).astype(np.float32)
    per_clip = N_FRAMES // EVERY
    clip_rows = np.repeat(rows, per_clip)
    starts = (np.arange(N_CLIPS) * N_FRAMES + firsts[rows])[:, None] + np.arange(per_clip) * EVERY
    starts, sizes, flat = starts.reshape(-1), np.full(N_CLIPS * per_clip, PATCH), clips.reshape(-1)

    def ours(backend: str) -> Any:
        engine = Engine(backend, 1)
        return lambda: engine.mark_patches(flat, starts, sizes, clip_rows, Marks(sounds, added=True), 1)

    race.per = N_CLIPS
    race.run(
        {
            "native": ours("native"),
            "numba": ours("cpu"),
            "touch": lambda: limits.touch(flat, starts, PATCH),
            "numpy": numpy_added(clips, rows, firsts, sounds),
        },
        rounds=ROUNDS,
    )
    race.reach("native over touch", race.ratio("native", "touch"), at_most=1.6)
    race.reach("native over numpy", race.ratio("numpy", "native"), at_least=3)
    race.reach("numba over numpy", race.ratio("numpy", "numba"), at_least=1)


@each_dtype
def test_protect_by_format_2(race: Any, dtype: type) -> None:
    clips, labels, key = make_clips(dtype), np.arange(N_CLIPS) % N_CLASSES, Key(bytes(32))
    recipe = Recipe.strong()
    firsts = np.zeros(N_CLASSES, np.int64)
    starts = (np.arange(N_CLIPS * (N_FRAMES // EVERY)) * EVERY).astype(np.int64)
    sounds = np.full((N_CLASSES, PATCH), 0.01, np.float32)
    race.per = N_CLIPS
    race.run(
        {
            "protect": lambda: protect(clips, labels, key, recipe=recipe),
            "touch": lambda: limits.touch(clips.reshape(-1), starts, PATCH),
            "numpy": numpy_added(clips, labels, firsts, sounds),
        },
        rounds=ROUNDS,
    )
    race.reach("numpy over protect, all threads", race.ratio("numpy", "protect"), at_least=1)
    race.reach("protect, all threads, over touch in one", race.ratio("protect", "touch"), at_most=4)
