"""The library with one rule taken away: each must be caught by a proof, or the proofs prove nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from poscuda_fast import disk
from poscuda_fast.arrays.target import ArrayTarget
from poscuda_fast.files.target import FileTarget
from poscuda_fast.kernels import Ints
from poscuda_fast.mark import forms
from poscuda_fast.mark.forms import Answer, Forms
from poscuda_fast.mark.stretches import Stretches
from poscuda_fast.undo import log, steps
from poscuda_fast.undo.journal import Journal, Kind, State
from poscuda_fast.undo.log import Log

Patch = Callable[[pytest.MonkeyPatch], None]


class _Without:
    """The module `os` with some calls that do nothing."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __getattr__(self, name: str) -> Any:
        return (lambda *_: None) if name in self._names else getattr(os, name)


def no_sync_of_the_log(patching: pytest.MonkeyPatch) -> None:
    patching.setattr(log, "os", _Without("fsync"))


def store_before_the_record(patching: pytest.MonkeyPatch) -> None:
    def mark_all(journal: Journal, target: Any, batch: Any, fresh: Any, batches: Iterator[Any]) -> None:
        while True:
            fresh.store()
            found = next(batches, None)
            following = None if found is None else (found, target.fresh(found))
            announcement = steps._SIZE.pack(0) if following is None else steps._pack_announced(target, *following)
            journal.append(Kind.BATCH, announcement + fresh.content)
            target.advance(batch)
            if following is None:
                return
            batch, fresh = following

    patching.setattr(steps, "_mark_all", mark_all)


def hashes_of_what_is_stored(patching: pytest.MonkeyPatch) -> None:
    real = Forms.fresh

    def fresh(self: Forms, dry: Any, stretches: Stretches, tally: Any) -> forms.Fresh:
        done = real(self, dry, stretches, tally)
        return done._replace(content=real(self, done.wet.copy(), stretches, tally).content)

    patching.setattr(Forms, "fresh", fresh)


def no_comparison(patching: pytest.MonkeyPatch) -> None:
    """Everything is taken to be marked."""

    def examine(self: Forms, now: Any, stretches: Stretches, content: memoryview, torn: Any) -> Answer:
        n = len(stretches.pieces.starts)
        dry = now.copy()
        self.unmark(dry, stretches)
        forms._put_kept(dry, stretches, content[8 * n :])
        no = np.zeros(n, np.bool_)
        return Answer(self, stretches, dry, no, ~no, no, {})

    patching.setattr(Forms, "examine", examine)


def torn_records_believed(patching: pytest.MonkeyPatch) -> None:
    from cryptography.exceptions import InvalidTag

    real = log._opened

    def opened(cipher: Any, place: Any, body: bytes, tag: bytes) -> bytes:
        try:
            return real(cipher, place, body, tag)
        except InvalidTag:
            return bytes(len(body) - 16)  # whatever an unauthenticated record says

    patching.setattr(log, "_opened", opened)


def torn_tails_not_cut(patching: pytest.MonkeyPatch) -> None:
    patching.setattr(log, "os", _Without("ftruncate"))


def damage_taken_for_a_torn_tail(patching: pytest.MonkeyPatch) -> None:
    patching.setattr(Log, "_refuse_unless_torn", lambda *_: None)


def words_believed(patching: pytest.MonkeyPatch) -> None:
    """The log says that a run is done, and the data are not asked."""
    protect, restore = steps.protect, steps.restore

    def believing_protect(journal: Journal, target: Any, **options: Any) -> Any:
        done = journal.state is State.COMPLETE
        return ("already protected", ()) if done else protect(journal, target, **options)

    def believing_restore(journal: Journal, target: Any, **options: Any) -> Any:
        done = journal.state is State.UNDONE
        return ("already original", ()) if done else restore(journal, target, **options)

    patching.setattr(steps, "protect", believing_protect)
    patching.setattr(steps, "restore", believing_restore)


def torn_originals_not_kept(patching: pytest.MonkeyPatch) -> None:
    patching.setattr(steps.Records, "keep", lambda *_: None)


def straddling_samples_not_kept(patching: pytest.MonkeyPatch) -> None:
    none: Ints = np.empty(0, np.int64)
    patching.setattr(Forms, "_whole", lambda *_: None)  # what tells each piece by itself must not be asked
    patching.setattr(Stretches, "straddlers", property(lambda _: none))


def nothing_synced(patching: pytest.MonkeyPatch) -> None:
    for target in (ArrayTarget, FileTarget):
        patching.setattr(target, "sync", lambda _: None)


def announced_not_compared(patching: pytest.MonkeyPatch) -> None:
    for target in (ArrayTarget, FileTarget):
        patching.setattr(target, "differing", lambda *_: [])


def one_session(patching: pytest.MonkeyPatch) -> None:
    """Every opening of a log seals with the same key."""
    patching.setattr(log.secrets, "token_bytes", bytes)


def killed_records_not_settled(patching: pytest.MonkeyPatch) -> None:
    patching.setattr(Log, "settle", lambda _: None)


def settled_without_writing(patching: pytest.MonkeyPatch) -> None:
    """The log is only synced again."""

    def settle(self: Log) -> None:
        os.fsync(self._file.fileno())
        disk.sync_folder(self.path.parent)

    patching.setattr(Log, "settle", settle)


def failed_syncs_forgotten(patching: pytest.MonkeyPatch) -> None:
    """Only what is not stored yet, as it seems, is stored again."""
    patching.setattr(steps, "_settle", lambda journal: journal.settle())


def kept_samples_not_looked_at(patching: pytest.MonkeyPatch) -> None:
    """A piece that subtraction makes the original is refused if a kept sample of it is not marked yet."""
    real = Forms.examine

    def examine(self: Forms, now: Any, stretches: Stretches, content: memoryview, torn: Any) -> Answer:
        answer = real(self, now, stretches, content, torn)
        undone = now.copy()
        self.unmark(undone, stretches)
        forms._put_kept(undone, stretches, content[8 * len(stretches.pieces.starts) :])
        for number, original in list(answer.found.items()):
            if undone[stretches.pieces.of(number)].tobytes() == original:
                answer.torn[number] = False
                del answer.found[number]
        return answer

    patching.setattr(Forms, "examine", examine)
