"""Kills of runs in processes of their own, and everything that may be called afterwards."""

from __future__ import annotations

import faulthandler
import itertools
import os
import signal
from collections.abc import Callable, Iterator

import numpy as np
from audiofiles import SECONDS, end_of_child, start_child
from crash_states import files_below, put
from crashes import OTHER, VERBS, Machine
from stages import Scene
from wires import Killed, Wires

Files = dict[str, bytes]


def killed(scene: Scene, verb: str, n: int, prepare: Callable[[], object] = lambda: None) -> str | None:
    """The point at which a process that runs a verb is killed, its n-th; None if it comes to its end before."""
    readable, writable = os.pipe()

    def run() -> None:
        faulthandler.dump_traceback_later(SECONDS - 1, file=2)
        prepare()
        with Wires(scene.root, Killed(n, writable, Machine(scene, np.random.default_rng(n)).part_of)):
            scene.run(verb)

    child = start_child(run)
    os.close(writable)
    with open(readable, "rb") as pipe:
        said = pipe.read().decode()
    ended = end_of_child(child)
    assert ended == (-signal.SIGKILL if said else 0), f"{verb} ended with {ended} at point {n}"
    return said or None


def kills(scene: Scene, verb: str, begin: Files, every: int = 1) -> Iterator[tuple[int, str]]:
    """Kill a verb at its first point, its second and so on, or at every n-th, each time from the same files."""
    for n in itertools.count(1, every):
        put(scene.root, begin)
        point = killed(scene, verb, n)
        if point is None:
            return
        yield n, point


def problem_after(scene: Scene) -> str | None:
    """What is wrong, if anything, when a verb and then the other one are called on what is there: each first once."""
    found = files_below(scene.root)
    before = scene.bytes()
    if scene.sidecar.exists():
        scene.verify()
        if scene.bytes() != before:
            return "verifying changed the data"
    for first in VERBS:
        put(scene.root, found)
        for verb in (first, OTHER[first]):
            known = scene.run(verb) != "never begun"
            problem = scene.wrong_after(verb) or (_left(scene) if known else None)
            if problem is not None:
                return f"{first} first: {problem}"
    return None


def _left(scene: Scene) -> str | None:
    """What a run that came to its end has left under hidden names of data."""
    names = [name for name in files_below(scene.root) if name.endswith("-part") and "poscuda." not in name]
    return f"{names} are left" if names else None


def beginnings(scene: Scene) -> dict[str, Files]:
    """The files from which verbs begin, by what happened before: also runs that were stopped in the middle."""
    found = {}
    scene.reset()
    found["original"] = files_below(scene.root)
    machine = Machine(scene, np.random.default_rng(1))
    lengths = {}
    for verb, name in (("protect", "protected"), ("restore", "restored")):
        machine.run(verb)
        found[name] = files_below(scene.root)
        lengths[verb] = machine.steps
    for verb, name, begin in (("protect", "half protected", "original"), ("restore", "half restored", "protected")):
        put(scene.root, found[begin])
        machine = Machine(scene, np.random.default_rng(2))
        assert machine.crash(verb, lengths[verb] * 6 // 10)
        found[name] = files_below(scene.root)
    scene.reset()
    return found
