"""Every state that a disk may be in during a recorded run, put into a folder and judged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from disk import Disk, Operation, State

EXAMPLES = 3


class Share(Protocol):
    """How much of the states of a run is tried."""

    samples: int  # random mixtures at each moment
    every: int  # one state in so many
    begin: float  # after this part of the operations
    until_wrong: bool  # the first wrong state ends it


def judge(
    share: Share,
    before: State,
    operations: list[Operation],
    rng: np.random.Generator,
    problem: Callable[[State, int], str | None],
) -> dict[str, Any]:
    """How many states were tried and how many went wrong, with examples.

    `problem` is given a state and how many were tried before it, and says what is wrong.
    """
    tried = 0
    wrong: list[str] = []
    for n, (moment, state) in enumerate(_states(before, operations, rng, share.samples)):
        if n % share.every or moment < share.begin * len(operations):
            continue
        found = problem(state, tried)
        tried += 1
        if found is not None:
            last = [part for part in operations[moment] if not isinstance(part, bytes)]
            wrong.append(f"{share}: after operation {moment + 1} {last}, state {n}: {found}")
            if share.until_wrong:
                break
    return {"tried": tried, "wrong": len(wrong), "moments": len(operations), "examples": wrong[:EXAMPLES]}


def in_the_middle(before: State, operations: list[Operation], rng: np.random.Generator) -> State:
    """A state in the middle of a run, with something of everything on the disk."""
    disk = replayed(before, operations[: int(len(operations) * rng.uniform(0.3, 0.9))])
    return list(disk.states(rng, 4))[-1]


def replayed(before: State, operations: list[Operation]) -> Disk:
    """The disk after some operations."""
    disk = Disk(before)
    for operation in operations:
        disk.apply(operation)
    return disk


def files_below(folder: Path) -> State:
    """What is there."""
    return {
        f"{path.relative_to(folder)}{'/' * path.is_dir()}": b"" if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def put(folder: Path, state: State) -> None:
    """Make a folder hold this and nothing else."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    for name, content in sorted(state.items()):
        if name.endswith("/"):
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)


def _states(
    before: State, operations: list[Operation], rng: np.random.Generator, samples: int
) -> Iterator[tuple[int, State]]:
    """Each state that the disk may be in after any of the operations, once, with that one's number."""
    disk = Disk(before)
    seen = set()
    for n, operation in enumerate(operations):
        disk.apply(operation)
        for state in disk.states(rng, samples):
            digest = hashlib.blake2b(digest_size=16)
            for name, content in sorted(state.items()):
                digest.update(f"{name}:{len(content)}:".encode() + content)
            if digest.digest() not in seen:
                seen.add(digest.digest())
                yield n, state
