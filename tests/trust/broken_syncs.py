"""Drivers that break a rule which only a power cut can see."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from array_worker import store_before_commit

from poscuda_fast import disk
from poscuda_fast.arrays import mapped
from poscuda_fast.arrays.target import ArrayTarget, unpack
from poscuda_fast.results import Verdict
from poscuda_fast.undo import journal, steps
from poscuda_fast.undo.journal import Journal, State


def early_complete(sidecar: Journal, target: ArrayTarget) -> None:
    """`steps.apply` that says so before the data is on the disk."""
    if sidecar.state in (State.NEW, State.UNDONE):
        sidecar.begin(target.header(), target.secret())
    for payload in sidecar.payloads():
        target.apply(payload)
    for payload in target.fresh():
        sidecar.append(payload)
        target.apply(payload)
    sidecar.move(State.COMPLETE, target.summary())
    target.sync()


def compare_and_skip(sidecar: Journal, target: ArrayTarget) -> None:
    """`steps.apply` that stores no batch again which looks protected already."""
    if sidecar.state in (State.NEW, State.UNDONE):
        sidecar.begin(target.header(), target.secret())
    for payload in sidecar.payloads():
        if (target.judge(payload)[1] & Verdict.PROTECTED).all():
            target._advance(unpack(payload, target._array.dtype)[0])
        else:
            target.apply(payload)
    for payload in target.fresh():
        sidecar.append(payload)
        target.apply(payload)
    target.sync()
    sidecar.move(State.COMPLETE, target.summary())


def early_undone(sidecar: Journal, target: ArrayTarget, *, partial: bool = False) -> list[str]:
    """`steps.undo` that says so before the data is on the disk."""
    if sidecar.state is not State.UNDOING:
        sidecar.move(State.UNDOING)
    for payload in sidecar.payloads():
        target.undo(payload)
    sidecar.move(State.UNDONE, target.summary())
    target.sync()
    return []


def _no_fsync(patching: pytest.MonkeyPatch) -> None:
    patching.setattr(mapped.MappedArray, "sync", lambda self: None)
    # Nor is the system asked to begin to write: that promises nothing, yet it often suffices.
    patching.setattr(disk, "start_writing", lambda *_: None)
    patching.setattr(disk, "sync_files", lambda *_: None)


def _unsynced_sidecar(patching: pytest.MonkeyPatch) -> None:
    connect = journal._connect

    def unsynced(path: Path) -> sqlite3.Connection:
        database = connect(path)
        database.execute("PRAGMA synchronous = OFF").fetchall()
        return database

    patching.setattr(journal, "_connect", unsynced)


def _applies(driver: Callable[[Journal, ArrayTarget], None]) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patching: patching.setattr(steps, "apply", driver)


BROKEN: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "no fsync": _no_fsync,
    "no fsync of the sidecar": _unsynced_sidecar,
    "store before commit": _applies(store_before_commit),
    "early COMPLETE": _applies(early_complete),
    "compare and skip": _applies(compare_and_skip),
    "early UNDONE": lambda patching: patching.setattr(steps, "undo", early_undone),
}
