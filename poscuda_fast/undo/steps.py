"""The order of events that makes an edit in place safe, whatever is edited.

A batch of originals is durable in the journal before any of its patches is overwritten, and once it is there it is
never read from the data again. So a crash at any moment leaves every batch either untouched or in the journal, and
running the same steps again finishes the job.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from poscuda_fast.errors import SidecarError
from poscuda_fast.undo.journal import Journal, State

NAMES_SHOWN = 10


class Target(Protocol):
    """Data that can be edited batch by batch; a payload holds originals and where they belong."""

    def header(self) -> dict[str, Any]:
        """Describes the run and identifies the data, without secrets."""

    def secret(self) -> bytes:
        """What else is needed to identify the data, to be sealed."""

    def fresh(self) -> Iterator[bytes]:
        """Payloads that `apply` has not been given yet, read from the data."""

    def recheck(self, payload: bytes) -> list[str]:
        """Check that a journalled payload still fits the data; returns the names of files that it does not fit."""

    def apply(self, payload: bytes) -> None:
        """Store the marked form of a payload's originals, unconditionally."""

    def undo(self, payload: bytes) -> None:
        """Store a payload's originals, unconditionally."""

    def unprotected(self, payload: bytes) -> list[str]:
        """Names of a payload's clips or files that are not in their marked form now."""

    def skip(self, names: list[str]) -> None:
        """Leave these out of `undo`."""

    def sync(self) -> None:
        """Return once every stored byte is on the disk; OSError if that fails."""

    def summary(self) -> dict[str, Any]:
        """Counts to keep with the finished run."""


def apply(journal: Journal, target: Target) -> None:
    """Protect a target, from the beginning or from where the run was stopped."""
    if journal.state in (State.NEW, State.UNDONE):
        journal.begin(target.header(), target.secret())
    else:
        _refuse_changed(journal, _recheck(journal, target))
    for payload in journal.payloads():
        target.apply(payload)
    for payload in target.fresh():
        journal.append(payload)
        target.apply(payload)
    target.sync()
    journal.move(State.COMPLETE, target.summary())


def undo(journal: Journal, target: Target, *, partial: bool = False) -> list[str]:
    """Put back every original that was journalled, whether or not it had been overwritten.

    Returns the names that were left out because they have changed since: none, unless `partial`.
    """
    changed = _recheck(journal, target)
    if not partial:
        _refuse_changed(journal, changed)
    target.skip(changed)
    if journal.state is not State.UNDOING:
        journal.move(State.UNDOING)
    for payload in journal.payloads():
        target.undo(payload)
    target.sync()
    if not changed:  # what was left out can still be put back later
        journal.move(State.UNDONE, target.summary())
    return changed


def _recheck(journal: Journal, target: Target) -> list[str]:
    """Open every batch once before anything is written, so that damage is found in time."""
    return list(dict.fromkeys(name for payload in journal.payloads() for name in target.recheck(payload)))


def _refuse_changed(journal: Journal, names: list[str]) -> None:
    if names:
        shown = "".join(f"\n  {name}" for name in names[:NAMES_SHOWN])
        more = f"\n  and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
        raise SidecarError(
            f"{len(names)} files or clips are missing or were changed since {journal.path} was written; nothing was "
            f"written. Put them back, or restore only the others (partial):{shown}{more}"
        )


def refuse_unprotected(journal: Journal, target: Target) -> None:
    """SidecarError if data of a finished run are no longer protected: users rely on the answer "already protected"."""
    names = [name for payload in journal.payloads() for name in target.unprotected(payload)]
    if names:
        shown = ", ".join(names[:NAMES_SHOWN]) + ("" if len(names) <= NAMES_SHOWN else " ...")
        raise SidecarError(
            f"{journal.path} records a finished run, but {len(names)} clips or files are not as it left them "
            f"({shown}): they were put back or changed since. Restore, then protect again. Nothing was written."
        )


def refuse_if_undoing(journal: Journal) -> None:
    """SidecarError if an undo was interrupted: protecting now would mix the two."""
    if journal.state is State.UNDOING:
        raise SidecarError(
            f"The undo recorded in {journal.path} was interrupted; run restore again to finish it, then protect."
        )


def refuse_other_run(journal: Journal, header: dict[str, Any]) -> None:
    """SidecarError if the sidecar was made for another run."""
    for field, expected in header.items():
        if field not in ("rate_assumed", "notes") and journal.header.get(field) != expected:
            what = _COPIED[expected] if field == "copied" else _FIELD_NAMES[field]
            raise SidecarError(
                f"The sidecar {journal.path} was made for {what}. To change that, "
                f"restore first and protect again; if it belongs to other data, move it away. Nothing was written."
            )


_COPIED = {True: "files that are edited in place, not for a copy", False: "a copy, not for an edit in place"}
_FIELD_NAMES = {
    "kind": "other data (files or an array)",
    "files": "other files",
    "recipe": "another recipe",
    "labels": "other labels or lengths",
    "counts": "other data (other lengths)",
    "n_files": "other files (another number of them)",
    "dtype": "other data (another dtype)",
    "identity": "other data",
    "snr": "another SNR",
    "frames": "other data (other patches)",
    "rates": "another sample rate",
    "shape": "other data (another shape)",
    "place": "other data (another part of the file)",
}
