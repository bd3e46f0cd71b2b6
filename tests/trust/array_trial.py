"""An array in a file that is protected, killed, cut off from its power and restored, again and again."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes import protect, protect_memmap

import poscuda_fast
from poscuda_fast import Key, Recipe, SidecarError, drop_undo, restore_memmap
from poscuda_fast.mark.plan import make_plan
from poscuda_fast.undo.journal import Journal, State

SMALL = Recipe.paper(patch=40, taps=8, blur=0.3)
SMALL_BATCH = 3 * 40 * 2  # three patches of int16


class Worker:
    """The resident process of array_worker.py."""

    def __init__(self) -> None:
        package = Path(poscuda_fast.__file__).parents[1]
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("array_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(package)},
        )
        self._answer()

    def run(self, path: Path, verb: str, recipe: Recipe = SMALL, **request: Any) -> dict[str, Any]:
        """How a verb on an array ended, in a process of its own: {"state"}, {"error"} or {"signal"} and more."""
        request = {"batch_bytes": SMALL_BATCH, **request, "path": str(path), "verb": verb}
        request["recipe"] = recipe.to_dict()
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        reply = self._answer()
        assert reply["signal"] or "state" in reply or "error" in reply or reply["untraceable"], "the child failed"
        return reply

    def close(self) -> None:
        with self._process:
            self._process.stdin.close()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        assert line, "the worker died"
        return json.loads(line)


class Data:
    """An array in a file, its original and its protected bytes."""

    def __init__(self, folder: Path, key: Key, samples: np.ndarray, labels: Any, recipe: Recipe = SMALL) -> None:
        self.path = folder / "clips.npy"
        self.key, self.labels, self.recipe = key, labels, recipe
        np.save(self.path, samples)
        self.original = self.path.read_bytes()
        wet = samples.copy()
        self.report = protect(wet, labels, key, recipe=recipe)
        self.protected = self.original[: -samples.nbytes] + wet.tobytes()
        assert self.protected != self.original
        self.is_outside = np.ones(len(self.original), bool)
        self.is_outside[-samples.nbytes :] = _outside(samples, labels, key, recipe)

    @property
    def sidecar(self) -> Path:
        return self.path.with_name("clips.npy.poscuda")

    @property
    def hot(self) -> Path:
        """SQLite's rollback journal, which a killed process leaves behind."""
        return self.path.with_name("clips.npy.poscuda-journal")

    def reset(self, sidecar: bytes | None = None) -> None:
        """Back to the original, with no sidecar or a given one."""
        self.hot.unlink(missing_ok=True)
        self.sidecar.unlink(missing_ok=True)
        self.write(self.original)
        if sidecar is not None:
            self.sidecar.write_bytes(sidecar)

    def write(self, content: bytes) -> None:
        with open(self.path, "r+b") as file:
            file.write(content)

    def changed_outside(self) -> int:
        """How many bytes of the file differ from the original although no patch holds them."""
        now = np.frombuffer(self.path.read_bytes(), np.uint8)
        return int(((now != np.frombuffer(self.original, np.uint8)) & self.is_outside).sum())

    def protect(self, **options: Any) -> str:
        arr = np.load(self.path, mmap_mode="r+")
        return protect_memmap(arr, self.labels, self.key, recipe=self.recipe, **options).state

    def restore(self) -> str:
        return restore_memmap(np.load(self.path, mmap_mode="r+"), self.key).state

    def is_right_after_protect(self) -> bool:
        """Whether protecting again finishes, and undo still brings the original back."""
        if self.protect() not in ("protected", "already protected") or self.path.read_bytes() != self.protected:
            return False
        return self.restore() == "restored" and self.path.read_bytes() == self.original

    def is_right_after_restore(self) -> bool:
        """Whether restoring again finishes, and the data can be protected once more."""
        if self.restore() not in ("restored", "already original") or self.path.read_bytes() != self.original:
            return False
        return self.protect() == "protected" and self.path.read_bytes() == self.protected

    def is_right_after_drop(self) -> bool:
        """Whether the undo is whole or gone, dropping it again finishes, and what is protected stays so."""
        with Journal(self.sidecar, self.key) as journal:
            was_final = journal.state is State.FINAL
        with self.same_again():
            if was_final != (self._outcome_of_restore() != "restored"):
                return False
            if not was_final and self.path.read_bytes() != self.original:
                return False
        is_dropped = drop_undo(self.path, self.key).state == "final" and self._outcome_of_restore() == "refused"
        return is_dropped and self.path.read_bytes() == self.protected and self.protect() == "already protected"

    def bytes_lost(self) -> int:
        """How many bytes of the original an undo of what is there now does not bring back; it is done."""
        if self.sidecar.exists() and self.sidecar.stat().st_size:
            self._outcome_of_restore()
        now = np.frombuffer(self.path.read_bytes(), np.uint8)
        return int((now != np.frombuffer(self.original, np.uint8)).sum())

    def _outcome_of_restore(self) -> str:
        try:
            return self.restore()
        except SidecarError:
            return "refused"

    @contextlib.contextmanager
    def same_again(self) -> Iterator[None]:
        """Run a block on the files as they are, then bring them back."""
        kept = self.files()
        try:
            yield
        finally:
            self.put(kept)

    def files(self) -> dict[Path, bytes]:
        """What is there now: the array, its sidecar and what a killed process left beside it."""
        return {file: file.read_bytes() for file in (self.path, self.sidecar, self.hot) if file.exists()}

    def put(self, files: dict[Path, bytes]) -> None:
        """Bring back what `files` found."""
        for file in (self.sidecar, self.hot):
            file.unlink(missing_ok=True)
        for file, content in files.items():
            if file == self.path:
                self.write(content)
            else:
                file.write_bytes(content)


def _outside(samples: np.ndarray, labels: Any, key: Key, recipe: Recipe) -> np.ndarray:
    """For each byte of an array whether it lies outside all patches."""
    outside = np.ones(samples.shape, bool)
    plan = make_plan(key, recipe, labels, None, np.full(len(samples), samples.shape[1]))
    for clip in range(len(samples)):
        patches = plan.of_clip(clip)
        for start, size in zip(patches.starts.tolist(), patches.sizes.tolist(), strict=True):
            outside[clip, start : start + size] = False
    return np.repeat(outside.reshape(-1), samples.itemsize)


def kill_points(run: Callable[[int], dict[str, Any]]) -> Iterator[int]:
    """Run with n = 1, 2, .. for as long as the run is killed."""
    for n in itertools.count(1):
        reply = run(n)
        if reply["untraceable"]:
            pytest.skip("this system does not let a process trace its child")
        if "state" in reply:
            return
        assert reply["signal"] == signal.SIGKILL, reply
        yield n
