"""`protect_memmap` on 100,000 clips in a file, with a warm and with a cold page cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import files
import limits
import numpy as np
import pytest

from poscuda_fast import Key, Recipe, protect_memmap, restore_memmap
from poscuda_fast.kernels import will_need

N_CLIPS = 100_000
N_FRAMES = 16_000
PATCH = Recipe.paper().patch
CLIPS_PER_STEP = 8192


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("durable") / "clips"
    files.make_memmap(found, N_CLIPS, N_FRAMES)
    return found


@pytest.fixture(scope="module")
def journal_bytes(path: Path) -> int:
    """What `protect_memmap` writes beside the data."""
    arr, key = files.open_memmap(path, N_FRAMES), Key(bytes(range(32)))
    protect_memmap(arr, np.arange(N_CLIPS) % 35, key, recipe=Recipe.paper())
    restore_memmap(arr, key)
    sidecar = path.with_name(path.name + ".poscuda")
    n_bytes = sidecar.stat().st_size
    sidecar.unlink()
    return n_bytes


def places() -> np.ndarray:
    starts = np.random.default_rng(5).integers(0, N_FRAMES - PATCH + 1, 35)
    return np.arange(N_CLIPS) * N_FRAMES + starts[np.arange(N_CLIPS) % 35]


class Runs:
    """What is timed, on the file's mapping; cold rounds map it again."""

    def __init__(self, path: Path, journal_bytes: int) -> None:
        self.path = path
        self.journal_bytes = journal_bytes
        self.key = Key(bytes(range(32)))
        self.labels = np.arange(N_CLIPS) % 35
        self.places = places()
        self.arr = files.open_memmap(path, N_FRAMES)

    def fresh(self) -> None:
        """No sidecar, nothing unwritten."""
        self.path.with_name(self.path.name + ".poscuda").unlink(missing_ok=True)
        self.arr.flush()

    def fresh_and_cold(self) -> None:
        self.fresh()
        del self.arr  # mapped pages cannot be dropped
        files.drop_caches()
        self.arr = files.open_memmap(self.path, N_FRAMES)

    def protect(self) -> None:
        protect_memmap(self.arr, self.labels, self.key, recipe=Recipe.paper())

    def touch(self) -> None:
        limits.touch(self.arr.reshape(-1), self.places, PATCH)

    def prefetched_touch(self) -> None:
        flat = self.arr.reshape(-1)
        steps = range(0, N_CLIPS, CLIPS_PER_STEP)
        with ThreadPoolExecutor(1) as pool:
            for first in steps:
                pool.submit(will_need, flat, self.places[first : first + CLIPS_PER_STEP] * 2, 2 * PATCH)
            for first in steps:
                limits.touch(flat, self.places[first : first + CLIPS_PER_STEP], PATCH)

    def durably(self, touch: Callable[[], None]) -> Callable[[], None]:
        """Touch, msync, and the journal's bytes."""

        def run() -> None:
            touch()
            self.arr.flush()
            journal = self.path.with_name("journal")
            files.write_durably(journal, self.journal_bytes)
            journal.unlink()

        return run

    def stream(self) -> None:
        """Read the whole file, as a program must that does not know where the patches are."""
        buffer = bytearray(8 << 20)
        with open(self.path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    def stream_and_write(self) -> None:
        """The same, and write it all back, synced."""
        buffer = bytearray(8 << 20)
        with open(self.path, "r+b", buffering=0) as file:
            while n := file.readinto(buffer):
                file.seek(-n, os.SEEK_CUR)
                file.write(memoryview(buffer)[:n])
            os.fsync(file.fileno())


def test_warm_file(race: Any, path: Path, journal_bytes: int) -> None:
    runs = Runs(path, journal_bytes)
    race.per = N_CLIPS
    floor = runs.durably(runs.touch)
    race.run(
        {"protect_memmap": runs.protect, "touch + msync + journal": floor, "touch": runs.touch},
        rounds=7,
        prepare=runs.fresh,
    )
    runs.fresh()
    ratio = race.ratio("protect_memmap", "touch + msync + journal")
    race.reach("protect_memmap over touch + msync + journal's bytes", ratio, at_most=1.3)


def test_cold_file(race: Any, path: Path, journal_bytes: int) -> None:
    try:
        files.drop_caches()
    except OSError as error:
        pytest.skip(f"the page cache cannot be dropped here ({error})")
    runs = Runs(path, journal_bytes)
    race.per = N_CLIPS
    race.run(
        {
            "protect_memmap": runs.protect,
            "prefetched touch": runs.prefetched_touch,
            "prefetched touch + msync + journal": runs.durably(runs.prefetched_touch),
            "reading the file": runs.stream,
            "reading and writing the file": runs.stream_and_write,
        },
        rounds=5,
        prepare=runs.fresh_and_cold,
    )
    runs.fresh()
    floor = race.ratio("protect_memmap", "prefetched touch + msync + journal")
    race.reach("protect_memmap over prefetched touch + msync + journal's bytes", floor, at_most=1.25)
    # The disk sets the limit: even only touching the patches, syncing and journalling is not faster than this.
    limits_of_reading = {
        "reading the whole file over prefetched touch": ("reading the file", "prefetched touch"),
        "reading the whole file over that limit": ("reading the file", "prefetched touch + msync + journal"),
        "reading the whole file over protect_memmap": ("reading the file", "protect_memmap"),
        "reading and writing the whole file over protect_memmap": ("reading and writing the file", "protect_memmap"),
    }
    for what, (over, under) in limits_of_reading.items():
        race.reach(what, race.ratio(over, under), at_least=4)
