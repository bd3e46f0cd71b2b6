"""Runs of which some call fails, and what must be true then and afterwards."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator

from crash_states import files_below, put
from kills import Files, problem_after
from stages import KEY, Scene
from wires import Failing, Wires

from poscuda_fast.errors import PoscudaError
from poscuda_fast.undo.journal import SIDECAR, Journal

KINDS = (
    "open", "create", "folder", "write", "resize", "sync", "sync_folder", "sync_all", "rename", "link", "remove",
)  # fmt: skip
SYNCS = ("sync", "sync_all")
FINISHED = {"protect": "complete", "restore": "undone"}


def faults(kind: str) -> Iterator[tuple[int | None, bool]]:
    """(error, for good) for a kind of call; no error for a write that does only half."""
    yield from itertools.product((errno.EIO, errno.ENOSPC), (False, True))
    if kind == "write":
        yield None, False


def failures(
    scene: Scene, verb: str, begin: Files, kind: str, error: int | None, *, for_good: bool
) -> Iterator[tuple[int, str | None]]:
    """Let the first such call of a verb fail, the second and so on until none does: (number, what is wrong then)."""
    for n in itertools.count(1):
        put(scene.root, begin)
        gate = Failing(kind, n, error, for_good=for_good)
        raised: Exception | None = None
        try:
            with Wires(scene.root, gate):
                scene.run(verb)
        except (OSError, PoscudaError) as found:
            raised = found
        if not gate.failed:
            assert raised is None, raised
            return
        left = [name for name in files_below(scene.root) if name.endswith("-part") and name not in begin]
        yield n, _problem(scene, verb, gate, error, raised, left) or problem_after(scene)


def _problem(
    scene: Scene, verb: str, gate: Failing, error: int | None, raised: Exception | None, left: list[str]
) -> str | None:
    if raised is None and scene.wrong_after(verb):
        return "it says that it is done"
    if raised is not None and error is None:
        return f"a short write was not gone on with: {raised}"
    if raised is not None and scene.wrong_after(verb) and state_of(scene) == FINISHED[verb]:
        return "the sidecar says that it is done"
    if gate.kind in SYNCS and (raised is None or (gate.what in gate.after and not _is_sidecar(gate.what))):
        return "a failed sync was not the end"
    return f"{left} are left" if left and gate.kind != "remove" else None


def _is_sidecar(operation: tuple[str, ...]) -> bool:
    return len(operation) > 1 and SIDECAR in operation[1]


def state_of(scene: Scene) -> str:
    """What the sidecar says, if it is there."""
    with Journal(scene.sidecar, KEY) as journal:
        return journal.state.value
