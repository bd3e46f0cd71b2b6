"""A sidecar and data of different moments: one of them came back from a backup, or was copied during a run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from audiofiles import write_tree
from crash_states import put
from crashes import VERBS, Machine
from stages import Scene, State

from poscuda_fast.errors import PoscudaError


class Moment(NamedTuple):
    """How far a history has come, in which verb, and what was there."""

    number: int
    verb: str
    sidecar: bytes | None
    data: State


def moments(scene: Scene) -> list[Moment]:
    """Every moment of a run that protects and of one that restores, each from a run that was stopped there."""
    found = []
    for verb in VERBS:
        for n in itertools.count():
            scene.reset()
            machine = Machine(scene, np.random.default_rng(n))
            if verb == "restore":
                machine.run("protect")
            stopped = machine.crash(verb, n)
            sidecar = scene.sidecar.read_bytes() if scene.sidecar.exists() else None
            found.append(Moment(len(found), verb, sidecar, scene.bytes()))
            if not stopped:
                break
    return found


def mixtures(scene: Scene, every: int = 1) -> Iterator[tuple[str, str | None]]:
    """(what was mixed, what is wrong) for each verb on each sidecar and each data of a history, or one in so many.

    A sidecar from the middle of protecting that has recorded less than the one that was beside the data may be
    refused, and then nothing changes; no other may. Moments are told by that and not by their numbers: each is of a run
    of its own, and threads do not write in the same order twice. What is left out: a sidecar from the middle of
    protecting with data from the middle of restoring. It tells what the batch that it names next was, and that is the
    original again, but nothing of those behind.
    """
    known = moments(scene)
    first = next(n for n, moment in enumerate(known) if moment.sidecar is not None)
    pairs = ((one, other) for one in known[first:] for other in known if one.verb >= other.verb)
    for sidecar, data in itertools.islice(pairs, 0, None, every):
        for verb in VERBS:
            wrong = _wrong(scene, sidecar, data, verb)
            yield f"{verb}, the sidecar of moment {sidecar.number} and the data of {data.number} of {len(known)}", wrong


def _wrong(scene: Scene, sidecar: Moment, data: Moment, verb: str) -> str | None:
    put(scene.root, {})
    write_tree(scene.root, data.data)
    assert sidecar.sidecar is not None
    scene.sidecar.write_bytes(sidecar.sidecar)
    try:
        scene.run(verb)
    except PoscudaError as error:
        if scene.bytes() != data.data:
            return "it was refused after something was written"
        is_older = sidecar.verb == "protect" and len(sidecar.sidecar) < len(data.sidecar or b"")
        return None if is_older else f"{type(error).__name__}: {error}"
    return scene.wrong_after(verb)
