"""Killed at every point of every verb, and killed again in the recovery: no byte is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_trial import SMALL, SMALL_BATCH, Data, Worker, kill_points
from ledger import Ledger
from recipes import protect_memmap

from poscuda_fast import Key, Recipe, restore_memmap
from poscuda_fast.mark import plan

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="a worker forks the processes that are killed"),
    pytest.mark.usefixtures("small_batches"),
]

SMALL_STRONG = Recipe.strong(2.0)
RECIPES = {"format 1": SMALL, "format 2": SMALL_STRONG}


def make_data(folder: Path, key: Key, dtype: type, recipe: Recipe, clips: int = 8, frames: int | None = None) -> Data:
    """A few short clips, for about four batches: shorter ones in format 2, which marks all of a clip."""
    rng = np.random.default_rng(13)
    frames = frames or (300 if recipe.format == 1 else 50)
    samples = rng.integers(-20_000, 20_000, (clips, frames)).astype(np.int16)
    if dtype is np.float32:
        samples = (samples / np.float32(32768)).astype(np.float32)
    return Data(folder, key, samples, np.arange(clips) % 3, recipe)


# What a verb may find when it begins, and what has to be true after it was killed


def untouched_data(data: Data, worker: Worker) -> None:
    data.reset()


def half_protected(data: Data, worker: Worker) -> None:
    data.reset()
    assert worker.run(data.path, "protect", data.recipe, die_at=13)["point"] == "half a batch stored"


def protected(data: Data, worker: Worker) -> None:
    data.reset()
    data.protect()


def half_restored(data: Data, worker: Worker) -> None:
    protected(data, worker)
    assert worker.run(data.path, "restore", data.recipe, die_at=5)["point"] == "half a batch stored"


def restored_from_another_run(data: Data, worker: Worker) -> None:
    data.reset()
    other = Recipe.paper(patch=20, taps=5, blur=0.5, patches=4)
    arr = np.load(data.path, mmap_mode="r+")
    protect_memmap(arr, (np.arange(len(arr)) + 1) % 5, data.key, recipe=other)
    restore_memmap(arr, data.key)


BEGINNINGS = [
    ("protect", untouched_data),
    ("protect", half_protected),
    ("protect", restored_from_another_run),
    ("restore", protected),
    ("restore", half_protected),
    ("restore", half_restored),
    ("drop_undo", protected),
]
IS_RIGHT: dict[str, Callable[[Data], bool]] = {
    "protect": Data.is_right_after_protect,
    "restore": Data.is_right_after_restore,
    "drop_undo": Data.is_right_after_drop,
}


def judge(data: Data, verb: str, point: str, ledger: Ledger) -> bool:
    """Whether what a killed verb left behind can be finished and undone; counted."""
    changed = data.changed_outside()
    lost = 0
    if verb != "drop_undo":
        with data.same_again():
            lost = data.bytes_lost()
    right = IS_RIGHT[verb](data)
    ledger.count("kills", tried=1, wrong=not right, bytes_lost=lost, points=point, verbs=verb)
    ledger.count("outside", bytes=len(data.original), changed=changed)
    return right and not lost and not changed


def killed_everywhere(
    worker: Worker, data: Data, verb: str, start: dict[Path, bytes], *, by: str = "die_at", **request: Any
) -> Iterator[tuple[int, str]]:
    """Kill a verb at its first point, its second, .. each time from the same start; the number and name of each."""
    points: list[str] = []

    def run(n: int) -> dict[str, Any]:
        data.put(start)
        reply = worker.run(data.path, verb, data.recipe, **{by: n}, **request)
        points.append(reply.get("point", "a system call"))
        return reply

    for n in kill_points(run):
        yield n, points[-1]


@pytest.mark.trust
@pytest.mark.guards("I1", "I2", "I3", "I4", "I6", "I7")
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize(("verb", "begin"), BEGINNINGS, ids=lambda value: getattr(value, "__name__", value))
def test_killed_at_every_point_of_every_verb(
    worker: Worker, folder: Path, key: Key, ledger: Ledger, dtype: type, recipe: Recipe, verb: str, begin: Any
) -> None:
    data = make_data(folder, key, dtype, recipe)
    begin(data, worker)
    start = data.files()
    wrong = [
        (n, point)
        for n, point in killed_everywhere(worker, data, verb, start)
        if not judge(data, verb, f"{point} ({verb})", ledger)
    ]
    assert wrong == []


@pytest.mark.trust
@pytest.mark.guards("I1", "I4", "I5", "I6", "I7")
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize(("verb", "begin"), BEGINNINGS, ids=lambda value: getattr(value, "__name__", value))
def test_killed_at_every_system_call_of_every_verb(
    worker: Worker, folder: Path, key: Key, ledger: Ledger, dtype: type, verb: str, begin: Any
) -> None:
    data = make_data(folder, key, dtype, SMALL_STRONG, clips=2, frames=130)  # a batch ends in the middle of each clip
    begin(data, worker)
    start = data.files()
    wrong = [
        n
        for n, point in killed_everywhere(worker, data, verb, start, by="die_at_call", hooks=False)
        if not judge(data, verb, point, ledger)
    ]
    assert wrong == []


@pytest.mark.trust
@pytest.mark.guards("I6", "I7")
@pytest.mark.parametrize(
    ("first", "second", "begin"),
    [
        ("protect", "protect", untouched_data),
        ("protect", "restore", untouched_data),
        ("restore", "restore", protected),
        ("drop_undo", "drop_undo", protected),
    ],
    ids=["protect twice", "protect and restore", "restore twice", "drop twice"],
)
def test_killed_in_the_recovery_from_every_kill(
    worker: Worker, folder: Path, key: Key, ledger: Ledger, first: str, second: str, begin: Any
) -> None:
    data = make_data(folder, key, np.int16, SMALL, clips=5)
    begin(data, worker)
    start = data.files()
    wrong = []
    for n, _ in killed_everywhere(worker, data, first, start):
        if second == "restore" and first == "protect" and not (data.sidecar.exists() and data.sidecar.stat().st_size):
            continue  # nothing was begun, so nothing can be undone
        torn = data.files()
        wrong += [
            (n, m, point)
            for m, point in killed_everywhere(worker, data, second, torn)
            if not judge(data, second, f"{point} (recovery)", ledger)
        ]
    assert wrong == []


@pytest.mark.trust
@pytest.mark.guards("I6", "I7")
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_killed_at_many_random_times(worker: Worker, folder: Path, key: Key, ledger: Ledger, dtype: type) -> None:
    seed = time.time_ns() % 1_000_000
    rng = np.random.default_rng(seed)
    data = make_data(folder, key, dtype, SMALL_STRONG, clips=3_000, frames=300)
    batch = {"batch_bytes": 64 << 10, "hooks": False}
    plan.BATCH_BYTES = batch["batch_bytes"]
    times = {verb: worker.run(data.path, verb, data.recipe, **batch)["seconds"] for verb in ("protect", "restore")}
    kills = 0
    while kills < 100:
        for verb in ("protect", "restore"):
            delay = float(rng.uniform(0, times[verb]))
            if worker.run(data.path, verb, data.recipe, die_after=delay, **batch)["signal"] != signal.SIGKILL:
                continue
            kills += 1
            about = f"seed {seed}, kill {kills}, {verb} after {delay} seconds"
            with data.same_again():
                lost = data.bytes_lost()
            getattr(data, verb)()
            right = data.path.read_bytes() == (data.protected if verb == "protect" else data.original)
            ledger.count("kills", tried=1, wrong=not right, bytes_lost=lost, points="a random time", verbs=verb)
            assert right, about
            assert lost == 0, about
        data.protect()
        data.restore()


def test_the_points_have_the_names_of_the_steps(worker: Worker, folder: Path, key: Key) -> None:
    data = make_data(folder, key, np.int16, SMALL, clips=2)
    assert SMALL_BATCH == 240
    batch = [
        "before Journal.append", "after Journal.append", "before ArrayClips.write", "half a patch stored",
        "half a batch stored", "after ArrayClips.write",
    ]  # fmt: skip
    assert worker.run(data.path, "protect")["points"] == [
        "before Journal.begin", "after Journal.begin", *batch,
        "before MappedArray.sync", "after MappedArray.sync", "before Journal.move", "after Journal.move",
    ]  # fmt: skip
    assert worker.run(data.path, "drop_undo")["points"] == ["before Journal.make_final", "after Journal.make_final"]


def test_lost_bytes_and_bytes_changed_outside_are_seen(worker: Worker, folder: Path, key: Key) -> None:
    data = make_data(folder, key, np.int16, SMALL)
    data.protect()
    assert (data.bytes_lost(), data.changed_outside()) == (0, 0)
    harmed = bytearray(data.original)
    harmed[-1] ^= 1
    data.write(bytes(harmed))
    assert data.bytes_lost() == 1
    outside = np.flatnonzero(data.is_outside)
    harmed[outside[len(outside) // 2]] ^= 1
    data.write(bytes(harmed))
    assert data.changed_outside() >= 1
