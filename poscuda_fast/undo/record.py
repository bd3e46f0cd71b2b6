"""What the sidecar of every run tells, whether of an array or of files."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from poscuda_fast.errors import SidecarError
from poscuda_fast.kernels import Engine, Marks
from poscuda_fast.key import Key
from poscuda_fast.mark.draw import draw_marks
from poscuda_fast.mark.labels import label_of
from poscuda_fast.mark.plan import Plan
from poscuda_fast.recipe import Recipe
from poscuda_fast.undo.journal import Journal, State

_KINDS = {"array": "an array", "files": "a folder of files"}


def describe(kind: str, key: Key, plan: Plan) -> dict[str, Any]:
    """The header's fields that all runs have; what the user can change comes first, to be compared first."""
    return {
        "kind": kind,
        "recipe": plan.recipe.to_dict(),
        "labels": keyed_mac(key, b"labels", plan.digest()),
        "counts": plan.counts(),
    }


def seal(plan: Plan, **fields: Any) -> bytes:
    """What must be sealed of a run: its class tokens, and `fields`."""
    return json.dumps({"tokens": [token.hex() for token in plan.labels.tokens], **fields}).encode()


def reopen(journal: Journal, kind: str) -> tuple[dict[str, Any], Marks]:
    """What was sealed of a recorded run, and what its classes' patches were given.

    SidecarError if no run was begun, or one of another kind.
    """
    if journal.state is State.NEW:
        raise SidecarError(
            f"There is no finished or begun run in {journal.path}; without its sidecar protected data can be neither "
            f"recognised nor restored. If the sidecar was moved, give its path."
        )
    if journal.state is State.FINAL:
        raise SidecarError(
            f"The undo in {journal.path} was dropped: the originals are gone, so that nothing can be restored from it, "
            f"nor be compared with them. Nothing was written."
        )
    found = journal.header["kind"]
    if found != kind:
        raise SidecarError(f"The sidecar {journal.path} belongs to {_KINDS[found]}, not to {_KINDS[kind]}.")
    sealed = json.loads(journal.secret)
    recipe = Recipe.from_dict(journal.header["recipe"])
    return sealed, draw_marks(journal.key, [bytes.fromhex(token) for token in sealed["tokens"]], recipe)


def keyed_mac(key: Key, purpose: bytes, message: bytes) -> str:
    """HMAC-SHA256 in hex, under a key of its own for each purpose."""
    return hmac.digest(key.derive(b"sidecar", purpose, length=32), message, "sha256").hex()


def refuse_protected(data: Path, sidecars: Iterable[Path], key: Key) -> None:
    """SidecarError if data are protected already, also as part of something larger: they would be marked twice."""
    for sidecar in sidecars:
        try:
            with Journal(sidecar, key) as journal:
                state = journal.state
        except SidecarError as error:
            raise type(error)(f"{data} holds or lies in what was protected on its own. {error}") from None
        if state not in (State.NEW, State.UNDONE):
            raise SidecarError(
                f"{data} is protected already by {sidecar}, as a whole or in part (state {state.value}): it would be "
                f"marked twice. Restore that first. Nothing was written."
            )


class Run:
    """A run whose originals are kept, as its sidecar tells it; the sidecar is open as long as this is used.

    Attributes
    ----------
    journal : Journal
        The sidecar.
    recipe : Recipe
        What was applied.
    tokens : tuple of bytes
        The class token of each row of the marks.
    labels : list of str or int
        The label that each of them stands for.
    n_clips : int
        Files or clips in all.
    """

    def __init__(self, journal: Journal, kind: str) -> None:
        sealed, self._marks = reopen(journal, kind)
        if journal.state is State.UNDONE:
            raise SidecarError(
                f"The run in {journal.path} was undone: the data are the originals again, and nothing is protected. "
                f"Protect them first."
            )
        self.journal = journal
        self.recipe = Recipe.from_dict(journal.header["recipe"])
        self.tokens = tuple(bytes.fromhex(token) for token in sealed["tokens"])
        self.labels = [label_of(token) for token in self.tokens]
        self.n_clips = int(journal.header["counts"]["clips"])
        self._engine = Engine(threads=1)
