"""`protect_memmap` on clips in a file, with a warm and with a cold page cache."""

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

from poscuda_fast import Key, Recipe, protect_folder, protect_memmap, restore_memmap
from poscuda_fast.kernels import will_need

N_CLIPS = {"default": 20_000, "paper": 100_000}
RECIPES = {"default": Recipe.strong(), "paper": Recipe.paper()}
N_FRAMES = 16_000
PATCH = Recipe.paper().patch
CLIPS_PER_STEP = 8192


@pytest.fixture(scope="module")
def make_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Runs]:
    """The runs of a recipe over a new file."""

    def make(recipe: str) -> Runs:
        path = tmp_path_factory.mktemp("durable") / "clips"
        files.make_memmap(path, N_CLIPS[recipe], N_FRAMES)
        runs = Runs(path, recipe)
        runs.protect()
        restore_memmap(runs.arr, runs.key)
        runs.journal_bytes = runs.sidecar.stat().st_size
        return runs

    return make


def places(n_clips: int) -> np.ndarray:
    starts = np.random.default_rng(5).integers(0, N_FRAMES - PATCH + 1, 35)
    return np.arange(n_clips) * N_FRAMES + starts[np.arange(n_clips) % 35]


class Runs:
    """What is timed, on the file's mapping; cold rounds map it again."""

    def __init__(self, path: Path, recipe: str) -> None:
        self.path = path
        self.sidecar = path.with_name(path.name + ".poscuda")
        self.recipe = RECIPES[recipe]
        self.n_clips = N_CLIPS[recipe]
        self.journal_bytes = 0  # what `protect_memmap` writes beside the data
        self.key = Key(bytes(range(32)))
        self.labels = np.arange(self.n_clips) % 35
        self.places = places(self.n_clips)
        self.arr = files.open_memmap(path, N_FRAMES)

    def fresh(self) -> None:
        """Unmarked data, no sidecar, nothing unwritten."""
        if self.sidecar.exists():
            restore_memmap(self.arr, self.key)
            self.sidecar.unlink()
        self.arr.flush()

    def fresh_and_cold(self) -> None:
        self.fresh()
        del self.arr  # mapped pages cannot be dropped
        files.drop_caches()
        self.arr = files.open_memmap(self.path, N_FRAMES)

    def protect(self) -> None:
        protect_memmap(self.arr, self.labels, self.key, recipe=self.recipe)

    def touch(self) -> None:
        """What the recipe marks: every sample, or the patches."""
        if self.recipe == RECIPES["default"]:
            np.add(self.arr, np.int16(1), out=self.arr)
        else:
            limits.touch(self.arr.reshape(-1), self.places, PATCH)

    def prefetched_touch(self) -> None:
        flat = self.arr.reshape(-1)
        steps = range(0, self.n_clips, CLIPS_PER_STEP)
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


@pytest.mark.parametrize("recipe", RECIPES)
def test_warm_file(race: Any, make_runs: Callable[[str], Runs], recipe: str) -> None:
    runs = make_runs(recipe)
    race.per = runs.n_clips
    least, limit = "touch + msync", "touch + msync + journal"

    def touch_durably() -> None:
        runs.touch()
        runs.arr.flush()

    race.run(
        {"protect_memmap": runs.protect, least: touch_durably, limit: runs.durably(runs.touch)},
        rounds=7,
        prepare=runs.fresh,
    )
    runs.fresh()
    race.over_limit("over touch + msync", "protect_memmap", least, at_most=1.35 if recipe == "default" else 1.2)
    race.over_limit("over touch + msync + journal", "protect_memmap", limit, at_most=1.2)


@pytest.mark.parametrize("recipe", RECIPES)
def test_restore(race: Any, make_runs: Callable[[str], Runs], recipe: str) -> None:
    runs, other = make_runs(recipe), make_runs(recipe)
    race.per = runs.n_clips

    def protected() -> None:
        runs.protect()
        other.fresh()

    def touch_durably() -> None:
        other.touch()
        other.arr.flush()

    race.run(
        {"restore_memmap": lambda: restore_memmap(runs.arr, runs.key), "touch + msync": touch_durably},
        rounds=7,
        prepare=protected,
    )
    race.over_limit("over touch + msync", "restore_memmap", "touch + msync", at_most=1.5)


SHARES = {"int16": 0.02, "24 bits": 0.024, "float32 from PCM": 0.027, "other float32": 0.13}


@pytest.mark.parametrize("kind", SHARES)
def test_sidecar(race: Any, tmp_path: Path, kind: str) -> None:
    """The size of the sidecar of a folder of files of a second, without 100 bytes for each."""
    n_files = 500
    folder = files.make_sounds(tmp_path / "sounds", n_files, kind)
    n_bytes = sum(path.stat().st_size for path in folder.rglob("*.wav"))
    race.run({"protect_folder": lambda: protect_folder(folder, None, Key(bytes(range(32))))}, rounds=1)
    share = ((tmp_path / "sounds.poscuda").stat().st_size - 100 * n_files) / n_bytes
    race.reach(f"sidecar over data, {kind}", share, at_most=SHARES[kind], ours=f"{100 * share:.2f} %")


def test_cold_file(race: Any, make_runs: Callable[[str], Runs]) -> None:
    try:
        files.drop_caches()
    except OSError as error:
        pytest.skip(f"the page cache cannot be dropped here ({error})")
    runs = make_runs("paper")
    race.per = runs.n_clips
    limit = "prefetched touch + msync + journal"
    race.run(
        {
            "protect_memmap": runs.protect,
            "prefetched touch": runs.prefetched_touch,
            limit: runs.durably(runs.prefetched_touch),
            "reading it all": runs.stream,
            "rewriting it all": runs.stream_and_write,
        },
        rounds=5,
        prepare=runs.fresh_and_cold,
    )
    runs.fresh()
    race.over_limit("over prefetched touch + msync + journal", "protect_memmap", limit, at_most=1.25)
    # The disk sets the limit: even only touching the patches, syncing and journalling is not faster than this.
    race.over_peer("reading it all over prefetched touch", "prefetched touch", "reading it all", at_least=4)
    race.over_peer("reading it all over that limit", limit, "reading it all", at_least=4)
    race.over_peer("reading it all over ours", "protect_memmap", "reading it all", at_least=4)
    race.over_peer("rewriting it all over ours", "protect_memmap", "rewriting it all", at_least=4)
