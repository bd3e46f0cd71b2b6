"""A folder's run whose power is cut at every moment, with everything that the disk may hold then."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import audiofiles
import numpy as np
import pytest
from audiofiles import contents, noise, wav, write_tree
from broken_syncs import BROKEN
from crash_states import files_below, in_the_middle, judge, put, replayed
from cut_trial import KEY, RESTORE_FIRST, patched
from disk import State
from folder_trial import Trial
from recorder import Recorder, say
from tracer import Untraceable

from poscuda_fast import disk, restore_folder
from poscuda_fast.errors import PoscudaError, SidecarError
from poscuda_fast.files import pieces
from poscuda_fast.files import target as files


class FolderScenario(NamedTuple):
    """What is run on a folder, and how much of it is tried."""

    folder_verb: str = "protect"  # or "restore"
    copying: bool = False
    resumed: bool = False  # an earlier run was cut off
    failed_sync: bool = False  # and the same call again in the same process
    samples: int = 2
    seed: int = 1
    every: int = 1  # check one state in so many
    begin: float = 0.0  # after this part of the operations
    broken: str | None = None
    until_wrong: bool = False  # the first wrong state ends it


class FolderCutTrial:
    """One scenario, in a folder of its own."""

    def __init__(self, folder: Path, scenario: FolderScenario) -> None:
        self._folder, self._scenario = folder, scenario
        self._rng = np.random.default_rng(scenario.seed)
        files.PIECES_PER_BATCH, pieces.PIECE_BYTES = 2, 3000
        before = _dataset(folder / "made")
        self._trial = Trial(folder, KEY, before, copying=scenario.copying, threads=1)
        put(folder / "made", {})
        (folder / "made").rmdir()
        begun = files_below(folder)
        self._trial.protect()
        self._after = contents(self._trial.root)
        if scenario.folder_verb == "protect":
            put(folder, begun)
        if scenario.resumed:
            self._interrupt()

    def run(self) -> dict[str, Any]:
        """How many states were tried and how many went wrong, with examples."""
        before = files_below(self._folder)
        operations = Recorder(self._folder).of(self._run)
        seen = replayed(before, operations).seen()
        assert seen == files_below(self._folder), f"the recording of {self._scenario} is not complete"
        return judge(self._scenario, before, operations, self._rng, self._problem)

    def _run(self) -> None:
        broken = self._scenario.broken
        with patched(BROKEN[broken]) if broken else contextlib.nullcontext():
            if self._scenario.failed_sync:
                with patched(_fail_sync), contextlib.suppress(OSError):
                    self._call()
            self._call()

    def _call(self) -> None:
        if self._scenario.folder_verb == "restore":
            restore_folder(self._trial.root, KEY)
        else:
            self._trial.protect()

    def _interrupt(self) -> None:
        """The power is cut in the middle of a run, with something of everything on the disk."""
        before = files_below(self._folder)
        put(self._folder, in_the_middle(before, Recorder(self._folder).of(self._call), self._rng))

    def _restore(self) -> None:
        """Undo whatever was begun."""
        try:
            restore_folder(self._trial.root, KEY)
        except SidecarError as error:
            if "There is no sidecar" not in str(error) and "nothing can be restored" not in str(error):
                raise

    def _problem(self, state: State, n: int) -> str | None:
        """What is wrong after the next calls, if anything."""
        put(self._folder, state)
        trial = self._trial
        try:
            if self._scenario.folder_verb == "restore":
                right = trial.is_right_after_restore(self._after)
            elif n % RESTORE_FIRST == 0 and not self._scenario.copying:
                self._restore()
                right = trial.found() == trial.before and trial.is_right_after_protect(self._after)
            else:
                right = trial.is_right_after_protect(self._after)
        except (PoscudaError, OSError, sqlite3.Error, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        if self._scenario.copying and contents(trial.src) != trial.before:
            return "the source has changed"
        return None if right else "the next calls do not bring back what was there"


def folder_tried(scenario: FolderScenario) -> dict[str, Any]:
    """`FolderCutTrial.run` in a folder in memory, where that can be."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        try:
            return FolderCutTrial(Path(folder), scenario).run()
        except Untraceable:
            return {"refused": "this system does not let a process trace its child"}


def _fail_sync(patching: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        say("sync_all_failed")
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    patching.setattr(disk, "sync_files", fail)


def _dataset(root: Path) -> dict[str, bytes]:
    """Three WAV files, one of them large beside `pieces.PIECE_BYTES`, one encoded, and one that is no audio."""
    made = {
        "no/0.wav": wav(noise(600)),
        "yes/1.wav": wav(noise(900, seed=1)),
        "no/large.wav": wav(noise(2500, 2)),
        "about.txt": b"about",
    }
    write_tree(root, made)
    audiofiles.encoded(root / "yes/2.flac", noise(700), "FLAC", "PCM_16")
    return contents(root)
