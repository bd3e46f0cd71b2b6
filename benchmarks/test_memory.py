"""Arrays in memory: the whole `protect` and the kernels alone, compared with peers and limits; the default first."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import contenders
import limits
import numpy as np
import pytest
from numpy.typing import NDArray

from poscuda_fast import Key, Recipe, protect
from poscuda_fast.kernels import Engine

KEY = Key(bytes(range(32)))
N_CLIPS, MANY_CLIPS = 10_000, 100_000
N_FRAMES = 16_000
ROUNDS = 11

each_dtype = pytest.mark.parametrize("dtype", [np.int16, np.float32], ids=lambda dtype: dtype.__name__)


def peers(table: dict[str, Any], task: Any, threads: int) -> dict[str, Any]:
    suffix = ", 2 threads" if threads == 2 else ""
    return {f"{name}{suffix}": prepare(task, threads) for name, prepare in contenders.available(table).items()}


def touching(clips: NDArray[Any]) -> dict[str, Callable[[], Any]]:
    """Two ways to read and write every sample: the faster one is the limit."""
    one = clips.dtype.type(1)
    return {"touch": lambda: np.add(clips, one, out=clips), "touch in C++": lambda: limits.touch_all(clips)}


def restored(task: contenders.Task | contenders.LinesTask) -> Callable[[], None]:
    """A function that puts the clips back: marks upon marks would make them loud, filters upon filters silent."""
    clips = task.clips
    if isinstance(task, contenders.LinesTask):
        block = clips[:1000].copy()

        def restore() -> None:
            for first in range(0, len(clips), len(block)):
                clips[first : first + len(block)] = block[: len(clips) - first]

        return restore
    before = [(clips_of, part, clips[clips_of, part]) for clips_of, part, _ in task.classes()]

    def restore_patches() -> None:
        for clips_of, part, samples in before:
            clips[clips_of, part] = samples

    return restore_patches


@each_dtype
def test_default(race: Any, dtype: type) -> None:
    """Lines added to every sample: one thread."""
    task = contenders.make_lines_task(dtype, N_CLIPS, N_FRAMES)
    race.per = N_CLIPS
    others = peers(contenders.lines_peers(dtype), task, 1)
    touch = touching(task.clips)
    race.run(
        {
            "protect": lambda: protect(task.clips, task.rows, KEY, sample_rate=16_000, threads=1),
            **{name: prepare(task, 1) for name, prepare in contenders.OUR_LINES.items()},
            **touch,
            **others,
        },
        rounds=ROUNDS,
        prepare=restored(task),
    )
    limit, best = race.best(list(touch)), race.best(list(others))
    race.over_limit("protect over touching all", "protect", limit, at_most=1.25)
    race.over_peer("best peer over protect", "protect", best, at_least=1.7 if dtype is np.int16 else 1.3)
    race.over_limit("native kernel over touching", "native", limit)
    race.over_limit("numba kernel over touching", "numba", limit)
    race.over_peer("best peer over numba", "numba", best, at_least=1)
    race.over_limit("the best peer over touching", best, limit)


def test_default_many(race: Any) -> None:
    """About as many clips as Speech Commands has, in 3.2 GB: the look at 256 of them counts less."""
    task = contenders.make_lines_task(np.int16, MANY_CLIPS, N_FRAMES)
    race.per = MANY_CLIPS
    others, touch = peers(contenders.lines_peers(np.int16), task, 1), touching(task.clips)
    run = functools.partial(protect, task.clips, task.rows, KEY, sample_rate=16_000, threads=1)
    race.run({"protect": run, **touch, **others}, rounds=5, prepare=restored(task))
    race.over_limit("protect over touching all", "protect", race.best(list(touch)), at_most=1.25)
    race.over_peer("best peer over protect", "protect", race.best(list(others)), at_least=1.7)


@each_dtype
def test_default_two_threads(race: Any, dtype: type) -> None:
    task = contenders.make_lines_task(dtype, N_CLIPS, N_FRAMES)
    race.per = N_CLIPS
    others = peers(contenders.lines_peers(dtype), task, 2)
    halves = [touching(half)["touch"] for half in np.array_split(task.clips, 2)]

    def touch_in_two() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda touch: touch(), halves))

    race.run(
        {
            "protect": lambda: protect(task.clips, task.rows, KEY, sample_rate=16_000, threads=2),
            "protect, 1 thread": lambda: protect(task.clips, task.rows, KEY, sample_rate=16_000, threads=1),
            "native": contenders.OUR_LINES["native"](task, 2),
            "touch, 2 threads": touch_in_two,
            "touch, 1 thread": touching(task.clips)["touch"],
            **others,
        },
        rounds=ROUNDS,
        prepare=restored(task),
    )
    # What the memory gives two threads bounds what they can gain.
    race.over_peer("touching: 1 thread over 2", "touch, 2 threads", "touch, 1 thread")
    race.over_peer("protect: 1 thread over 2", "protect", "protect, 1 thread")
    race.over_limit("protect over touching all", "protect", "touch, 2 threads", at_most=1.25)
    best = race.best(list(others))
    race.over_peer("best peer over protect", "protect", best, at_least=1.7 if dtype is np.int16 else 1.3)


LAYOUTS: dict[str, Callable[[], NDArray[Any]]] = {
    "stereo": lambda: contenders.make_clips(np.int16, 2_000, 32_000).reshape(2_000, 16_000, 2),
    "planar stereo": lambda: contenders.make_clips(np.int16, 2_000, 32_000).reshape(2_000, 2, 16_000).swapaxes(1, 2),
    "Fortran order": lambda: np.asfortranarray(contenders.make_clips(np.int16, 4_000, 16_000)),
    "Fortran order, float32": lambda: np.asfortranarray(contenders.make_clips(np.float32, 4_000, 16_000)),
}


def test_layouts(race: Any) -> None:
    """Other layouts than clip after clip, for the record: the whole `protect` over touching the same array.

    Touching adds nothing, so that the clips need not be put back.
    """
    runs: dict[str, Any] = {}
    for name, make in LAYOUTS.items():
        array = make()
        labels, nothing = np.arange(len(array)) % 35, array.dtype.type(0)
        runs[name] = functools.partial(protect, array, labels, KEY, recipe=Recipe.strong(0.01), threads=1)
        runs[f"touch, {name}"] = functools.partial(np.add, array, nothing, out=array)
    packed = np.random.default_rng(0).integers(0, 256, 3 * 64_000_000, np.uint8)
    starts, sizes = np.arange(4_000) * 16_000, np.full(4_000, 16_000)
    table = contenders.make_lines_task(np.int16, 35, 64).lines.table(packed.dtype, 1)
    engine, rows = Engine("auto", 1), np.arange(4_000) % 35
    runs["24 bits, packed"] = lambda: engine.add_lines(packed, starts, sizes, np.zeros_like(rows), rows, table, 1)
    runs["touch, 24 bits, packed"] = functools.partial(np.add, packed, np.uint8(0), out=packed)
    race.run(runs, rounds=5)
    for name in [*LAYOUTS, "24 bits, packed"]:
        race.over_limit(f"{name}, over touching all", name, f"touch, {name}")


def spread_multiply_adds(n: int, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(limits.multiply_add, [n // threads] * threads))


@each_dtype
def test_paper(race: Any, dtype: type) -> None:
    """The paper's recipe: one patch a clip, one thread."""
    task = contenders.make_task(dtype, N_CLIPS, N_FRAMES)
    race.per = N_CLIPS
    flat, places = task.flat, task.places
    others = peers(contenders.PEERS, task, 1)
    labels = task.rows
    race.run(
        {
            "protect": lambda: protect(task.clips, labels, KEY, recipe=Recipe.paper(), threads=1),
            **{name: prepare(task, 1) for name, prepare in contenders.OURS.items()},
            "touch": lambda: limits.touch(flat, places, task.patch),
            "multiply-adds": lambda: limits.multiply_add(task.multiply_adds),
            **others,
        },
        rounds=ROUNDS,
        prepare=restored(task),
    )
    bound, best = ["touch", "multiply-adds"], race.best(list(others))
    race.over_peer("best peer over protect", "protect", best, at_least=3)
    race.over_limit("protect over touch + multiply-adds", "protect", bound)
    race.over_limit("the best peer over these two", best, bound)
    race.over_peer("best peer over native kernel", "native", best, at_least=3)
    race.over_limit("native kernel over these two", "native", bound, at_most=1.6)
    race.over_peer("best peer over numba", "numba", best, at_least=1)


@each_dtype
def test_paper_two_threads(race: Any, dtype: type) -> None:
    task = contenders.make_task(dtype, N_CLIPS, N_FRAMES)
    race.per = N_CLIPS
    runs = {
        f"{name}, {threads} threads": prepare(task, threads)
        for name, prepare in contenders.OURS.items()
        for threads in (2, 1)
    }
    others = peers(contenders.PEERS, task, 2)
    machine = {
        f"multiply-adds, {threads} threads": functools.partial(spread_multiply_adds, task.multiply_adds, threads)
        for threads in (2, 1)
    }
    race.run({**runs, **machine, **others}, rounds=ROUNDS, prepare=restored(task))
    # Two threads of one core share its multipliers: nothing can gain more from the second thread than this.
    race.over_peer("multiply-adds: 1 thread over 2", "multiply-adds, 2 threads", "multiply-adds, 1 threads", 1.8)
    best = race.best(list(others))
    for name in contenders.OURS:
        race.over_peer(f"{name}: 1 thread over 2", f"{name}, 2 threads", f"{name}, 1 threads", 1.8)
    race.over_peer("best peer over native kernel", "native, 2 threads", best, at_least=3)
    race.over_peer("best peer over numba", "numba, 2 threads", best, at_least=1)


def test_long_clips(race: Any) -> None:
    """The paper's recipe: the cost depends on the patches, not on the length of the clips."""
    n_clips = 2000
    race.per = n_clips
    labels = np.arange(n_clips) % 35
    short = np.ones((n_clips, N_FRAMES), np.int16)
    long = np.zeros((n_clips, 100 * N_FRAMES), np.int16)  # memory that was never written takes none
    protect(long, labels, KEY, recipe=Recipe.paper())
    race.run(
        {
            "long": lambda: protect(long, labels, KEY, recipe=Recipe.paper()),
            "short": lambda: protect(short, labels, KEY, recipe=Recipe.paper()),
        },
        rounds=ROUNDS,
    )
    race.over_limit("clips 100 times longer", "long", "short", at_most=1.2)
