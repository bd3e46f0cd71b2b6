"""A run on an array whose power is cut at every moment, with everything that the disk may hold then."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from array_trial import Data
from broken_syncs import BROKEN
from crash_states import files_below, in_the_middle, judge, put, replayed
from disk import Operation, State
from recipes import protect_memmap
from recorder import Recorder, say
from step_recorder import Steps
from tracer import Untraceable

from poscuda_fast import Key, Recipe, drop_undo, restore_memmap
from poscuda_fast.arrays import mapped
from poscuda_fast.arrays.layouts import ArrayClips
from poscuda_fast.errors import PoscudaError, SidecarError
from poscuda_fast.mark import plan
from poscuda_fast.mark.patches import Patches

KEY = Key(bytes(range(32)))
RECIPES = {
    "paper": Recipe.paper(patch=40, taps=8, blur=0.3, patches=2),
    "strong": Recipe.strong(2.0),
}
PATCHES_PER_BATCH = 3
RESTORE_FIRST = 3  # one state in so many is not protected again but restored at once


class Scenario(NamedTuple):
    """What is run, on what, and how much of it is tried."""

    verb: str = "protect"  # or "restore", "drop"
    start: str = "original"
    dtype: str = "int16"
    recipe: str = "paper"
    broken: str | None = None
    failed_sync: bool = False
    by_steps: bool = False
    samples: int = 4
    seed: int = 1
    every: int = 1  # check one state in so many
    begin: float = 0.0  # after this part of the operations
    until_wrong: bool = False  # the first wrong state ends it


class CutTrial:
    """One scenario, in a folder of its own."""

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self._folder, self._scenario = folder, scenario
        self._rng = np.random.default_rng(scenario.seed)
        self._data = make_data(folder, self._rng, scenario.dtype, scenario.recipe)
        self.recorded = ""
        self._changed = 0  # bytes outside patches, over all states

    def run(self) -> dict[str, Any]:
        """How many states were tried and how many went wrong, with examples, and the bytes outside patches."""
        self._begin()
        before = files_below(self._folder)
        operations = self._record(self._scenario.verb, self._rule())
        judged = judge(self._scenario, before, operations, self._rng, self._problem)
        outside = judged["tried"] * int(self._data.is_outside.sum())
        return {**judged, "recorded": self.recorded, "outside": outside, "changed_outside": self._changed}

    # The start

    def _begin(self) -> None:
        start = self._scenario.start
        if start in ("protected", "interrupted restore", "interrupted drop"):
            self._data.protect()
        if start == "undone":  # of another run, whose originals must not come back
            arr = np.load(self._data.path, mmap_mode="r+")
            other = Recipe.paper(patch=20, taps=5, blur=0.5, patches=4)
            protect_memmap(arr, (np.arange(5) + 1) % 5, KEY, recipe=other)
            restore_memmap(arr, KEY)
        if start.startswith("interrupted"):
            self._interrupt(start.removeprefix("interrupted "))

    def _interrupt(self, verb: str) -> None:
        """The power is cut in the middle of a run, with something of everything on the disk."""
        before = files_below(self._folder)
        operations = self._record(verb, contextlib.nullcontext)
        put(self._folder, in_the_middle(before, operations, self._rng))

    # The run

    def _rule(self) -> Callable[[], contextlib.AbstractContextManager[None]]:
        broken = self._scenario.broken
        return contextlib.nullcontext if broken is None else lambda: patched(BROKEN[broken])

    def _record(self, verb: str, rule: Callable[[], contextlib.AbstractContextManager[None]]) -> list[Operation]:
        """The operations of a run that is recorded, by its system calls where that can be."""
        data = self._data
        run = {"protect": data.protect, "restore": data.restore, "drop": lambda: drop_undo(data.path, KEY)}[verb]

        def recorded(say: Callable[..., None]) -> None:
            with rule():
                if self._scenario.failed_sync:
                    with patched(lambda patching: self._fail_sync(patching, say)), contextlib.suppress(OSError):
                        run()
                    with patched(lambda patching: self._tell_stores(patching, say)):
                        run()
                else:
                    run()

        before = files_below(self._folder)
        path = self._data.path
        operations = None
        if not self._scenario.by_steps:
            with contextlib.suppress(Untraceable):
                operations = Recorder(self._folder, [path.name]).of(lambda: recorded(say))
                self.recorded = "system calls"
        if operations is None:
            put(self._folder, before)
            steps = Steps(path)
            operations = steps.of(lambda: recorded(steps.say))
            self.recorded = "steps"
        self._check_recording(before, operations)
        return operations

    def _fail_sync(self, patching: pytest.MonkeyPatch, say: Callable[..., None]) -> None:
        def fail(_: object) -> None:
            say("sync_failed", self._data.path.name)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        patching.setattr(mapped.MappedArray, "sync", fail)

    def _tell_stores(self, patching: pytest.MonkeyPatch, say: Callable[..., None]) -> None:
        """Storing what is there already changes no byte, but the page is to be written once more."""
        write = ArrayClips.write
        header = np.load(self._data.path, mmap_mode="r").offset

        def told(clips: ArrayClips, patches: Patches, dense: np.ndarray) -> None:
            write(clips, patches, dense)
            first, n_bytes = clips.reach(patches)
            for place in first.tolist():
                say("touch", self._data.path.name, header + place, n_bytes)

        patching.setattr(ArrayClips, "write", told)

    def _check_recording(self, before: State, operations: list[Operation]) -> None:
        """An operation that was missed would show: what was recorded has to lead to the files that are there."""
        seen, found = replayed(before, operations).seen(), files_below(self._folder)
        if self.recorded == "steps":  # SQLite's own file is a part of its commits
            seen, found = ({n: c for n, c in files.items() if not n.endswith("-journal")} for files in (seen, found))
        assert seen == found, f"the recording of {self._scenario} is not complete"

    # The states

    def _problem(self, state: State, n: int) -> str | None:
        """What is wrong after the next calls, if anything."""
        put(self._folder, state)
        self._changed += self._data.changed_outside()
        return problem(self._data, self._scenario.verb, restore_first=n % RESTORE_FIRST == 0)


def make_data(folder: Path, rng: np.random.Generator, dtype: str, recipe: str) -> Data:
    """Five clips on a few pages; four batches of patches with the paper's recipe, five with the other."""
    samples = rng.integers(-20_000, 20_000, (5, 1400), dtype=np.int16)
    if dtype == "float32":
        samples = (samples / np.float32(32_768)).astype(np.float32)
    plan.BATCH_BYTES = PATCHES_PER_BATCH * 40 * samples.itemsize
    return Data(folder, KEY, samples, np.arange(5) % 3, RECIPES[recipe])


def problem(data: Data, verb: str, *, restore_first: bool) -> str | None:
    """What is wrong, if anything, after the calls that follow a power cut in the middle of a verb."""
    if data.changed_outside():
        return "bytes outside all patches have changed"
    try:
        if verb == "restore":
            right = data.is_right_after_restore()
        elif verb == "drop":
            right = data.is_right_after_drop()
        elif restore_first:
            right = _is_right_after_restore_first(data)
        else:
            right = data.is_right_after_protect()
    except (PoscudaError, OSError, sqlite3.Error, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None if right else "the next calls do not bring back what was there"


def _is_right_after_restore_first(data: Data) -> bool:
    """Whether restoring at once finds the original, or nothing that was ever begun, and protecting then works."""
    try:
        data.restore()
    except SidecarError as error:
        if "There is no sidecar" not in str(error) and "nothing can be restored" not in str(error):
            raise
    if data.path.read_bytes() != data.original:
        return False
    return data.protect() == "protected" and data.path.read_bytes() == data.protected


def tried(scenario: Scenario) -> dict[str, Any]:
    """`CutTrial.run` in a folder in memory, where that can be."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        return CutTrial(Path(folder), scenario).run()


@contextlib.contextmanager
def patched(patch: Callable[[pytest.MonkeyPatch], None]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patching:
        patch(patching)
        yield
