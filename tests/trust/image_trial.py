"""Runs on an array on a real file system whose power is cut at random moments, with random pages written before."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from array_trial import Data
from broken_syncs import BROKEN
from crash_states import EXAMPLES
from cut_trial import make_data, patched, problem
from disk import PAGE
from loop_image import LoopImage, NoImage, mount_apart
from tracer import Tracer, Untraceable

from poscuda_fast.disk import sync_files

WRITE_AND_WAIT = 7  # SYNC_FILE_RANGE_WAIT_BEFORE | _WRITE | _WAIT_AFTER
WRITEBACKS = (0.0, 0.02, 0.2)  # how often something is written at a stop of the run, one for each cut
STOP_SECONDS = 2e-4


class ImageScenario(NamedTuple):
    """What is cut, and how often."""

    cuts: int
    verb: str = "protect"
    dtype: str = "int16"
    recipe: str = "paper"
    seed: int = 1
    broken: str | None = None
    late: bool = False  # cut only after the run has ended


class CutTracer(Tracer):
    """Follows a child to its n-th stop, and cuts the power there; without n it only counts the stops."""

    def __init__(self, at: int | None, cut: Callable[[], None], writeback: Callable[[], None]) -> None:
        super().__init__()
        self.stops = 0
        self._at, self._cut, self._writeback = at, cut, writeback

    def entered(self, number: int, given: list[int]) -> None:
        self._stop()

    def left(self, result: int) -> None:
        self._stop()

    def _stop(self) -> None:
        self.stops += 1
        if self._at is None:
            return
        self._writeback()
        if self.stops == self._at:
            self._cut()
            os.kill(self.pid, signal.SIGKILL)


class ImageTrial:
    """One scenario on one image."""

    def __init__(self, image: LoopImage, scenario: ImageScenario) -> None:
        self._image, self._scenario = image, scenario
        self._rng = np.random.default_rng(scenario.seed)
        self._folder = image.root / "clips"
        self._folder.mkdir()
        self._data: Data = make_data(self._folder, self._rng, scenario.dtype, scenario.recipe)
        self._sidecar: bytes | None = None
        self._writebacks = 0.0
        if scenario.verb == "restore":
            self._data.protect()
            self._sidecar = self._data.sidecar.read_bytes()

    def run(self) -> dict[str, Any]:
        """How many cuts were tried, how many went wrong, and how many came before the end of the run."""
        stops, seconds = self._measure()
        wrong = []
        early = 0
        for n in range(self._scenario.cuts):
            self._begin()
            if self._scenario.late:
                how, ended = "after the end", self._cut_in(60)
            elif n % 2 and stops:
                at = int(self._rng.integers(1, stops))
                how, ended = f"at stop {at} of {stops}", self._cut_at(at)
            else:
                after = self._rng.uniform(0, seconds)
                how, ended = f"after {after * 1000:.2f} ms", self._cut_in(after)
            early += not ended
            found = self._problem(ended=ended, restore_first=n % 4 >= 2)
            if found is not None:
                wrong.append(f"{self._scenario}, cut {n} {how}: {found}")
        return {"tried": self._scenario.cuts, "wrong": len(wrong), "early": early, "examples": wrong[:EXAMPLES]}

    def _begin(self) -> None:
        """Everything as before the run, and on the disk."""
        before = self._data.protected if self._scenario.verb == "restore" else self._data.original
        self._data.reset(self._sidecar)
        self._data.write(before)
        self._writebacks = 0.0 if self._scenario.late else float(self._rng.choice(WRITEBACKS))
        sync_files(self._folder, [])

    def _measure(self) -> tuple[int, float]:
        """The stops of a run where it can be traced, else 0, and its seconds."""
        self._begin()
        begun = time.perf_counter()
        self._wait(self._fork())
        seconds = time.perf_counter() - begun
        self._begin()
        tracer = CutTracer(None, self._image.cut, self._write_back)
        with contextlib.suppress(Untraceable):
            assert tracer.follow(self._run) == 0
            return tracer.stops, seconds
        return 0, seconds

    def _cut_at(self, stop: int) -> bool:
        """Cut the power at a stop; whether the run had ended before."""
        status = CutTracer(stop, self._image.cut, self._write_back).follow(self._run)
        if os.WIFSIGNALED(status):
            return False
        assert status == 0, f"the run failed: wait status {status}"
        self._image.cut()
        return True

    def _cut_in(self, seconds: float) -> bool:
        """Cut the power after some time, or once the run has ended; whether it had."""
        end = time.perf_counter() + seconds
        pid = self._fork()
        status = None
        while status is None and time.perf_counter() < end:
            self._write_back()
            time.sleep(STOP_SECONDS)
            done, found = os.waitpid(pid, os.WNOHANG)
            status = found if done else None
        self._image.cut()
        if status is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert status in (None, 0), f"the run failed: wait status {status}"
        return status == 0

    def _problem(self, *, ended: bool, restore_first: bool) -> str | None:
        """What is wrong on the disk when the power is back, if anything."""
        self._image.unmount()
        self._image.mount()
        after = self._data.original if self._scenario.verb == "restore" else self._data.protected
        if ended and self._data.path.read_bytes() != after:
            return "the run had ended, and its outcome is not there"
        return problem(self._data, self._scenario.verb, restore_first=restore_first)

    def _run(self) -> None:
        broken = self._scenario.broken
        with patched(BROKEN[broken]) if broken else contextlib.nullcontext():
            (self._data.restore if self._scenario.verb == "restore" else self._data.protect)()

    def _fork(self) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                self._run()
                os._exit(0)
            except OSError:  # from the disk that was cut off
                os._exit(3)
            finally:  # the child never goes on with its parent's work
                sys.excepthook(*sys.exc_info())
                os._exit(2)
        return pid

    def _wait(self, pid: int) -> None:
        _, status = os.waitpid(pid, 0)
        assert status == 0, f"the run failed: wait status {status}"

    def _write_back(self) -> None:
        """Write some of what is not on the disk yet, as the kernel may at any time."""
        if self._rng.random() >= self._writebacks:
            return
        names = sorted(os.listdir(self._folder))
        name = names[self._rng.integers(len(names))]
        with contextlib.suppress(OSError), open(self._folder / name, "rb") as file:
            if self._rng.random() < 0.2:
                os.fsync(file.fileno())
                return
            page = int(self._rng.integers(1 + os.fstat(file.fileno()).st_size // PAGE))
            offset, n_bytes = ctypes.c_int64(page * PAGE), ctypes.c_int64(PAGE)
            ctypes.CDLL(None).sync_file_range(file.fileno(), offset, n_bytes, WRITE_AND_WAIT)


def image_tried(scenario: ImageScenario) -> dict[str, Any]:
    """`ImageTrial.run` on an image of its own, or why there can be none."""
    mount_apart()
    try:
        with LoopImage() as image:
            return ImageTrial(image, scenario).run()
    except NoImage as reason:
        return {"refused": str(reason)}
