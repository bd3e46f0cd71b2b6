"""Kills and power cuts of the library's own runs, one after the other, on a disk that is a model.

The files of a scene are what the page cache holds; `disk.Disk` keeps what else may be on the disk. A kill stops a run
at some operation and leaves the cache; a power cut leaves one of the states that the disk may be in.
"""

from __future__ import annotations

import errno
import gc
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from crash_states import files_below, put
from disk import Disk, Operation
from stages import Scene, place, small_batches
from wires import Cut, Failing, Gate, Stopped, Wires

from poscuda_fast.undo.journal import SIDECAR

VERBS = ("protect", "restore")
OTHER = {"protect": "restore", "restore": "protect"}


class Outcome(NamedTuple):
    """What was tried, and what went wrong, if anything."""

    states: int
    problem: str | None
    story: str


class Machine:
    """Runs verbs on a scene's files, and remembers what may be on the disk below them."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        self.scene, self._rng = scene, rng
        self.disk = self._new_disk(files_below(scene.root))
        self.operations: list[Operation] = []
        self.steps = 0
        self.dead = False

    def run(self, verb: str, gate: Gate | None = None) -> str:
        """The state that a verb reports; `Cut` if the gate ended it."""
        wires = Wires(self.scene.root, gate)
        try:
            with wires:
                return self.scene.run(verb)
        finally:
            for operation in wires.operations:
                self.disk.apply(operation) if operation[0] != "open" else None
            self.operations, self.steps, self.dead = wires.operations, wires.steps, wires.dead

    def crash(self, verb: str, n: int) -> bool:
        """Whether a run was stopped at its n-th operation; if not, it came to its end."""
        try:
            self.run(verb, Stopped(n, self.part_of))
        except Cut:
            pass
        except Exception:
            if not self.dead:  # else a thread was the first to end, and another missed what that had closed
                raise
        else:
            return False
        gc.collect(0)
        return True

    def fail(self, verb: str, n: int) -> bool:
        """Whether a run was ended by its n-th sync, from 1, that failed; then the kernel takes all to be written."""
        failing = Failing(("sync", "sync_all"), n, errno.EIO)
        try:
            self.run(verb, failing)
        except OSError:
            assert failing.failed
        return failing.failed > 0

    def cut_power(self) -> None:
        """The disk's content becomes all that there is."""
        state = self.disk.power_cut(self._rng)
        put(self.scene.root, state)
        self.disk = self._new_disk(state)

    def part_of(self, operation: Operation) -> int:
        """How much of a write was done when the process was killed."""
        kind, name, offset, content = operation
        if kind == "store":
            return int(self._rng.integers(0, len(content) + 1))
        return self._tear(name, offset, offset + len(content)) - offset

    def is_recorded(self) -> bool:
        """Whether all that a run did was seen: then it leads to the files that are there."""
        return self.disk.seen() == files_below(self.scene.root)

    def _new_disk(self, state: dict[str, bytes]) -> Disk:
        return Disk(state, self._tear_of_data)

    def _tear(self, name: str, begin: int, end: int) -> int:
        """A place in some bytes of a file at which storing them may have ended."""
        first, width = self.scene.grain(name) if self._is_data(name) else (0, 1)
        place = int(self._rng.integers(begin, end + 1))
        return min(end, max(begin, place - (place - first) % width))

    def _tear_of_data(self, name: str, begin: int, end: int) -> int:
        return self._tear(name, begin, end) if self._is_data(name) else begin

    def _is_data(self, name: str) -> bool:
        return SIDECAR not in name.rpartition("/")[2]


def life(scene: Scene, rng: np.random.Generator, depth: int, lengths: dict[str, int], failing: float = 0) -> Outcome:
    """So many interruptions of runs in either direction, then both verbs; what was wrong, if anything.

    `lengths` has about how many operations each verb takes; `failing` of the interruptions are syncs that fail.
    """
    scene.reset()
    machine = Machine(scene, rng)
    story: list[str] = []
    states = 0
    verb = "protect"
    try:
        for _ in range(depth):
            if rng.random() < failing:
                n = int(rng.integers(1, lengths[verb] // 3))
                stopped = machine.fail(verb, n)
            else:
                n = int(rng.integers(0, lengths[verb] + 2))
                stopped = machine.crash(verb, n)
            story.append(f"{verb} {f'stopped at {n} ' + _shown(machine.operations) if stopped else 'done'}")
            if not machine.is_recorded():
                return Outcome(states, "the recording is not complete", "; ".join(story))
            problem = None if stopped else scene.wrong_after(verb)
            if problem is None and rng.random() < 0.6:
                machine.cut_power()
                story.append("cut")
                problem = None if stopped else scene.wrong_after(verb)
            states += 1
            if problem is not None:
                return Outcome(states, problem, "; ".join(story))
            verb = VERBS[rng.integers(2)]
        first = VERBS[rng.integers(2)]
        for verb in (first, OTHER[first]):
            story.append(f"{verb}: {machine.run(verb)}")
            problem = scene.wrong_after(verb)
            if problem is not None:
                return Outcome(states, problem, "; ".join(story))
    except Exception as error:  # noqa: BLE001 - whatever a recovery raises is a fault
        return Outcome(states, f"{verb} raised {type(error).__name__}: {error}", "; ".join(story))
    return Outcome(states, None, "; ".join(story))


def lives(
    kind: Callable[[Path], Scene],
    seed: int,
    most: int,
    *,
    depth: int = 3,
    until_wrong: bool = False,
    failing: float = 0,
) -> tuple[int, list[str]]:
    """(states, problems) of so many lives of a scene."""
    states, problems = 0, []
    with small_batches(), tempfile.TemporaryDirectory(dir=place()) as folder:
        scene = kind(Path(folder))
        lengths = clean_lengths(scene)
        for n in range(most):
            rng = np.random.default_rng([seed, n])
            done = life(scene, rng, depth, lengths, failing)
            states += done.states
            if done.problem is not None:
                problems.append(f"{kind.__name__} {seed}, {n}: {done.problem} [{done.story}]")
                if until_wrong:
                    break
    return states, problems


def clean_lengths(scene: Scene) -> dict[str, int]:
    """How many steps each verb takes that nothing stops."""
    scene.reset()
    machine = Machine(scene, np.random.default_rng(0))
    found = {}
    for verb in VERBS:
        machine.run(verb)
        found[verb] = machine.steps
    return found


def _shown(operations: list[Operation]) -> str:
    last = operations[-1] if operations else ()
    return f"after {' '.join(str(part) for part in last if not isinstance(part, bytes))}" if last else ""
