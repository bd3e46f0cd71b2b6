"""Protecting, restoring and verifying a stored array, wherever it is kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from poscuda_fast import inplace
from poscuda_fast.array_target import IS_ORIGINAL, IS_PROTECTED, ArrayTarget, Storage, StoredClips, recorded
from poscuda_fast.inplace import Progress
from poscuda_fast.journal import Journal, State
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key
from poscuda_fast.memory import make_plan
from poscuda_fast.recipe import Recipe
from poscuda_fast.report import Report, Tally
from poscuda_fast.verification import Verification

NO_PATCH = 0xFF  # beside the verdicts of array_target: a clip without frames


def protect(
    storage: Storage,
    audio: StoredClips,
    labels: Any,
    key: Key,
    recipe: Recipe,
    classes: Sequence[str] | None,
    engine: Engine,
    progress: Progress | None,
    *,
    dry_run: bool,
) -> Report:
    """Protect an array, or go on where a run was stopped; see `protect_memmap`."""
    begun = time.perf_counter()
    plan = make_plan(key, recipe, labels, classes, audio)
    target = ArrayTarget(storage, audio, key, plan.marks, engine, plan, progress)
    with storage.locked(), Journal(storage.sidecar, key) as journal, target:
        inplace.refuse_if_undoing(journal)
        if journal.state in (State.APPLYING, State.COMPLETE, State.FINAL):
            inplace.refuse_other_run(journal, target.header())
        else:
            target.preflight()
        if journal.state in (State.COMPLETE, State.FINAL):
            inplace.refuse_unprotected(journal, target)
            tally, state = Tally(**journal.summary["counts"]), "already protected"
        elif dry_run:
            target.rehearse()
            tally, state = target.tally, "untouched"
        else:
            inplace.apply(journal, target)
            tally, state = target.tally, "protected"
    return tally.report(state, key.fingerprint, time.perf_counter() - begun)


def restore(storage: Storage, audio: StoredClips, key: Key, progress: Progress | None) -> Report:
    """Put the originals of an array back; see `restore_memmap`."""
    begun = time.perf_counter()
    with (
        storage.locked(),
        Journal(storage.sidecar, key) as journal,
        recorded(journal, storage, audio, key, progress) as target,
    ):
        if journal.state is State.UNDONE:
            tally, state = Tally(**journal.summary["counts"]), "already original"
        else:
            inplace.undo(journal, target)
            tally, state = target.tally, "restored"
    return tally.report(state, key.fingerprint, time.perf_counter() - begun)


def verify(storage: Storage, audio: StoredClips, key: Key) -> Verification:
    """Compare every patch of an array with its original and that one's marked form; see `verify_memmap`."""
    with (
        storage.locked(),
        Journal(storage.sidecar, key) as journal,
        recorded(journal, storage, audio, key, None) as target,
    ):
        found = np.full(len(audio.lengths), NO_PATCH, np.uint8)
        for payload in journal.payloads():
            np.bitwise_and.at(found, *target.judge(payload))
        counts = np.bincount(found, minlength=NO_PATCH)
        return Verification(
            original=int(counts[IS_ORIGINAL]),
            protected=int(counts[IS_PROTECTED]),
            unchanged=int(counts[IS_ORIGINAL | IS_PROTECTED]),
            neither=tuple(map(str, np.flatnonzero(found == 0).tolist())),
            missing=(),
            unlisted=(),
            state=journal.state.value,
        )
