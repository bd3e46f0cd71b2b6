"""A real file system loses its power in the middle of a run: what is on it then, both verbs put right."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from audiofiles import end_of_child, start_child
from broken import nothing_synced
from crash_states import files_below, put
from crashes import OTHER, VERBS, clean_lengths
from disk import PAGE, Operation
from ledger import Ledger
from loop_image import LoopImage, NoImage, mount_apart
from stages import SCENES, Scene, small_batches
from wires import Gate, Perform, Points, Wires

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a run that is cut off is a process of its own")

WRITE_AND_WAIT = 7  # SYNC_FILE_RANGE_WAIT_BEFORE | _WRITE | _WAIT_AFTER
WRITEBACKS = (0.0, 0.1, 0.4)  # how often something is written at a call of a run, one for each cut


class CutOff(Points):
    """Cuts the power at the n-th point, after random pages were written back before, and ends the process."""

    def __init__(self, n: int, image: LoopImage, rng: np.random.Generator) -> None:
        super().__init__(n)
        self._image, self._rng = image, rng
        self._often = float(rng.choice(WRITEBACKS))

    def __call__(self, wires: Wires, operation: Operation, perform: Perform) -> object:
        if self._rng.random() < self._often:
            write_back(self._image.root, self._rng)
        return super().__call__(wires, operation, perform)

    def stop(self, wires: Wires, operation: Operation, when: str) -> None:
        self._image.cut()
        os.kill(os.getpid(), signal.SIGKILL)


def write_back(folder: Path, rng: np.random.Generator) -> None:
    """Write some page that is not on the disk yet, as the kernel may at any time."""
    names = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    with contextlib.suppress(OSError):
        descriptor = os.open(names[rng.integers(len(names))], os.O_RDONLY)
        page = int(rng.integers(1 + os.fstat(descriptor).st_size // PAGE))
        offset, n_bytes = ctypes.c_int64(page * PAGE), ctypes.c_int64(PAGE)
        ctypes.CDLL(None).sync_file_range(descriptor, offset, n_bytes, WRITE_AND_WAIT)


def cuts(image: LoopImage, name: str, n_cuts: int, seed: int, broken: bool = False) -> tuple[int, list[str]]:
    """(cuts in the middle of a run, what went wrong) of a scene on an image."""
    root = image.root / name
    root.mkdir()
    rng = np.random.default_rng(seed)
    early, wrong = 0, []
    with small_batches():
        scene = SCENES[name](root)
        lengths = clean_lengths(scene)
        known = _known(scene)
        for number in range(n_cuts):
            verb = VERBS[number % 2]
            put(root, known[verb])
            os.sync()
            n = int(rng.integers(1, 2 * lengths[verb]))
            gate: Gate = Gate() if broken else CutOff(n, image, rng)
            ended = end_of_child(start_child(_running(scene, verb, gate, broken)))
            if ended == 0:
                image.cut()
            early += ended != 0
            image.unmount()
            image.mount()
            problem = (scene.wrong_after(verb) if ended == 0 else None) or _problem(scene, VERBS[rng.integers(2)])
            if problem is not None:
                wrong.append(f"{name}, {seed}, cut {number} of {verb} at {n}: {problem}")
    return early, wrong


def _running(scene: Scene, verb: str, gate: Gate, broken: bool) -> Callable[[], None]:
    def run() -> None:
        if broken:
            nothing_synced(pytest.MonkeyPatch())
        with Wires(scene.root, gate):
            scene.run(verb)

    return run


def _known(scene: Scene) -> dict[str, dict[str, bytes]]:
    """From which files each verb begins."""
    scene.reset()
    found = {"protect": files_below(scene.root)}
    scene.protect()
    found["restore"] = files_below(scene.root)
    return found


def _problem(scene: Scene, first: str) -> str | None:
    for verb in (first, OTHER[first]):
        scene.run(verb)
        if (problem := scene.wrong_after(verb)) is not None:
            return problem
    return None


def cut_off(ledger: Ledger, name: str, n_cuts: int, seed: int) -> int:
    mount_apart()
    try:
        with LoopImage() as image:
            early, wrong = cuts(image, name, n_cuts, seed)
    except NoImage as reason:
        pytest.skip(str(reason))
    ledger.count("power_cuts", tried=n_cuts, wrong=len(wrong), in_the_middle=early)
    assert not wrong, "\n".join(wrong)
    return early


@pytest.mark.guards("I1", "I4", "I5", "I7")
def test_a_file_system_that_loses_its_power_in_the_middle_of_a_run(ledger: Ledger) -> None:
    cut_off(ledger, "RawArray", 4, 7)


@pytest.mark.trust
@pytest.mark.guards("I1", "I4", "I5", "I7")
@pytest.mark.parametrize("name", SCENES)
def test_a_file_system_that_loses_its_power_in_the_middle_of_many_runs(ledger: Ledger, name: str) -> None:
    assert cut_off(ledger, name, 24, 8) >= 10


def test_the_file_system_catches_a_missing_sync(ledger: Ledger) -> None:
    mount_apart()
    try:
        with LoopImage() as image:
            _, wrong = cuts(image, "RawArray", 2, 9, broken=True)
    except NoImage as reason:
        pytest.skip(str(reason))
    ledger.count("controls", tried=1, caught=bool(wrong), names="nothing synced, on ext4")
    assert wrong
