"""What every sidecar records, for an array and for files."""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from poscuda_fast.errors import SidecarError
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key
from poscuda_fast.mark.labels import label_of
from poscuda_fast.mark.marks import Marks, draw_marks
from poscuda_fast.mark.plan import Plan
from poscuda_fast.recipe import Recipe
from poscuda_fast.results import Settings
from poscuda_fast.undo.journal import Journal, State

_KINDS = {"array": "an array", "files": "a folder of files"}


def describe(kind: str, key: Key, plan: Plan, snr: float | None, notes: Iterable[str]) -> dict[str, Any]:
    """The header fields of every run; those that the user can change come first, so that they are compared first.

    `snr` is what the recipe's strength was set by, if by that; `notes` are for the report.
    """
    return {
        "kind": kind,
        "recipe": plan.recipe.to_dict(),
        "snr": snr,
        "rates": list(plan.rates),
        "rate_assumed": plan.rate_assumed,
        "notes": list(notes),
        "labels": keyed_mac(key, b"labels", plan.digest()),
        "counts": plan.counts(),
    }


def seal(plan: Plan, **fields: Any) -> bytes:
    """The part of a run's description that must be sealed: its class tokens and `fields`."""
    return json.dumps({"tokens": [token.hex() for token in plan.labels.tokens], **fields}).encode()


def reopen(journal: Journal, kind: str) -> tuple[dict[str, Any], Marks]:
    """The sealed description of a recorded run, and the marks of its classes.

    SidecarError if no run was begun, if it is of another kind, or if its undo was dropped.
    """
    refuse_without_run(journal)
    if journal.state is State.FINAL:
        raise SidecarError(
            f"The undo in {journal.path} was dropped: the originals are gone, so the data can be neither restored nor "
            f"compared with them. Nothing was written."
        )
    found = journal.header["kind"]
    if found != kind:
        raise SidecarError(f"The sidecar {journal.path} belongs to {_KINDS[found]}, not to {_KINDS[kind]}.")
    sealed = json.loads(journal.secret)
    recipe = Recipe.from_dict(journal.header["recipe"])
    tokens = [bytes.fromhex(token) for token in sealed["tokens"]]
    return sealed, draw_marks(journal.key, tokens, recipe, journal.header["rates"])


def settings_of(journal: Journal) -> Settings:
    """What a report says of a recorded run."""
    header = journal.header
    return Settings(header["fingerprint"], header["recipe"], tuple(header["rates"]), header["rate_assumed"])


def notes_of(journal: Journal) -> tuple[str, ...]:
    """The notes of the report of a recorded run."""
    return tuple(journal.header["notes"])


def recorded_recipe(sidecar: Path, key: Key) -> Recipe | None:
    """The recipe of the run that a sidecar records; None if there is no run, or it was undone."""
    with Journal(sidecar, key) as journal:
        if journal.state in (State.NEW, State.UNDONE):
            return None
        return Recipe.from_dict(journal.header["recipe"])


def refuse_without_run(journal: Journal) -> None:
    """SidecarError if no run was begun: there is no sidecar, or an empty one."""
    if journal.state is State.NEW:
        problem = "is empty" if os.path.lexists(journal.path) else "does not exist"
        raise SidecarError(
            f"The sidecar {journal.path} {problem}: nothing can be restored, nor compared with its original. If it was "
            f"moved, give its path (sidecar, --sidecar)."
        )


def keyed_mac(key: Key, purpose: bytes, message: bytes) -> str:
    """HMAC-SHA256 in hex, under a key of its own for each purpose."""
    return hmac.digest(key.derive(b"sidecar", purpose, length=32), message, "sha256").hex()


def refuse_protected(data: Path, sidecars: Iterable[Path], key: Key) -> None:
    """SidecarError if data are protected already, also as part of other data: they would be marked twice."""
    for sidecar in sidecars:
        try:
            with Journal(sidecar, key) as journal:
                state = journal.state
        except SidecarError as error:
            raise type(error)(f"{data} contains, or lies in, data that were protected separately. {error}") from None
        if state not in (State.NEW, State.UNDONE):
            raise SidecarError(
                f"{data} is protected already by {sidecar}, as a whole or in part (state {state.value}), and would be "
                f"marked twice. Restore it first. Nothing was written."
            )


class Run:
    """A run whose originals are kept, read from its sidecar, which must stay open while this is used.

    Attributes
    ----------
    journal : Journal
        The sidecar.
    recipe : Recipe
        What was applied.
    tokens : tuple of bytes
        The class token of each row of the marks.
    labels : list of str or int
        The label of each of those classes.
    n_clips : int
        Number of clips or files.
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
        # Rows are numbered class by class at each sample rate in turn.
        self.labels = [label_of(token) for token in self.tokens] * len(journal.header["rates"])
        self.n_clips = int(journal.header["counts"]["clips"])
        self._engine = Engine(threads=1)
