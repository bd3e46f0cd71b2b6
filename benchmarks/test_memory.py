"""Arrays in memory: kernels compared with peers and limits, threads, and long clips."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import contenders
import limits
import numpy as np
import pytest

from poscuda_fast import Key, Recipe, protect

N_CLIPS = 10_000
N_FRAMES = 16_000
ROUNDS = 11

each_dtype = pytest.mark.parametrize("dtype", [np.int16, np.float32], ids=lambda dtype: dtype.__name__)


def peers(task: contenders.Task, threads: int) -> dict[str, Any]:
    return {name: prepare(task, threads) for name, prepare in contenders.available_peers().items()}


def spread_multiply_adds(n: int, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(limits.multiply_add, [n // threads] * threads))


@each_dtype
def test_one_thread(race: Any, dtype: type) -> None:
    task = contenders.make_task(dtype, N_CLIPS, N_FRAMES)
    race.per = N_CLIPS
    flat, places = task.flat, task.places
    others = peers(task, 1)
    race.run(
        {
            **{name: prepare(task, 1) for name, prepare in contenders.OURS.items()},
            "touch": lambda: limits.touch(flat, places, task.patch),
            "multiply-adds": lambda: limits.multiply_add(task.multiply_adds),
            **others,
        },
        rounds=ROUNDS,
    )
    best = race.best(list(others))
    race.reach(f"native over the best peer ({best})", race.ratio(best, "native"), at_least=3)
    race.reach("native over touch + multiply-adds", race.ratio("native", ["touch", "multiply-adds"]), at_most=1.6)
    race.reach(f"numba over the best peer ({best})", race.ratio(best, "numba"), at_least=1)


@each_dtype
def test_two_threads(race: Any, dtype: type) -> None:
    task = contenders.make_task(dtype, N_CLIPS, N_FRAMES)
    race.per = N_CLIPS
    runs = {
        f"{name}, {threads} threads": prepare(task, threads)
        for name, prepare in contenders.OURS.items()
        for threads in (2, 1)
    }
    others = {f"{name}, 2 threads": run for name, run in peers(task, 2).items()}
    machine = {
        f"multiply-adds, {threads} threads": functools.partial(spread_multiply_adds, task.multiply_adds, threads)
        for threads in (2, 1)
    }
    race.run({**runs, **machine, **others}, rounds=ROUNDS)
    # Two threads of one core share its multipliers: nothing can gain more from the second thread than this.
    gain = race.ratio("multiply-adds, 1 threads", "multiply-adds, 2 threads")
    race.reach("the machine's own multiply-adds: two threads over one", gain, at_least=1.8)
    for name in contenders.OURS:
        ratio = race.ratio(f"{name}, 1 threads", f"{name}, 2 threads")
        race.reach(f"{name}: two threads over one", ratio, at_least=1.8)
    best = race.best(list(others))
    race.reach(f"native over the best peer ({best})", race.ratio(best, "native, 2 threads"), at_least=3)
    race.reach(f"numba over the best peer ({best})", race.ratio(best, "numba, 2 threads"), at_least=1)


@each_dtype
def test_whole_call(race: Any, dtype: type) -> None:
    """`protect` with everything it does besides the kernel: positions, filters, checks, counts."""
    task = contenders.make_task(dtype, N_CLIPS, N_FRAMES)
    race.per = N_CLIPS
    key = Key(bytes(range(32)))
    kernel = contenders.OURS["native"](task, 1)
    others = peers(task, 1)
    race.run(
        {
            "protect": lambda: protect(task.clips, task.rows, key, recipe=Recipe.paper(), threads=1),
            "kernel": kernel,
            **others,
        },
        rounds=ROUNDS,
    )
    best = race.best(list(others))
    race.reach(f"protect over the best peer ({best})", race.ratio(best, "protect"), at_least=1)


def test_long_clips(race: Any) -> None:
    """The cost depends on the patches, not on the length of the clips."""
    n_clips = 2000
    race.per = n_clips
    key, labels = Key(bytes(range(32))), np.arange(n_clips) % 35
    short = np.ones((n_clips, N_FRAMES), np.int16)
    long = np.zeros((n_clips, 100 * N_FRAMES), np.int16)  # memory that was never written takes none
    protect(long, labels, key, recipe=Recipe.paper())
    race.run(
        {
            "long": lambda: protect(long, labels, key, recipe=Recipe.paper()),
            "short": lambda: protect(short, labels, key, recipe=Recipe.paper()),
        },
        rounds=ROUNDS,
    )
    race.reach("clips 100 times longer", race.ratio("long", "short"), at_most=1.2)
