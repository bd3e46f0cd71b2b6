"""What recorded files are now, and how they become one form or the other; see `undo.steps.Answer`."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Sequence
from typing import BinaryIO, Protocol

import numpy as np

from poscuda_fast.errors import DatasetError
from poscuda_fast.files.accounts import Accounts
from poscuda_fast.files.batches import FileBatch, Part
from poscuda_fast.files.kept import KeptFile, KeptPiece
from poscuda_fast.files.records import Record
from poscuda_fast.files.replacing import Marked
from poscuda_fast.mark.forms import Answer, Forms, verdicts_of
from poscuda_fast.results import Tally, Verdict
from poscuda_fast.undo.steps import TornPieces


class Files(Protocol):
    """What an answer needs of the files that it is about: `FileTarget` has it."""

    accounts: Accounts
    forms: Forms
    tally: Tally

    def account(self, part: Part, content: bytes, dry: memoryview, wet: memoryview) -> None:
        """Take an uncompressed piece into the accounts."""

    def store(self, record: Record, patches: memoryview, time: int | None = None) -> None:
        """Write patches of an uncompressed file to their places; `time` is when it was changed then, by default now."""

    def mark_file(self, name: str, record: Record, original: BinaryIO) -> Marked:
        """Write the marked form of an encoded file beside it."""

    def publish(self, name: str, record: Record) -> None:
        """Put it in the place of the file."""

    def put_back(self, name: str, record: Record, original: BinaryIO) -> None:
        """Put the original of an encoded file in its place."""

    def count_undone(self, record: Record, original: BinaryIO) -> None:
        """Add an encoded file that is put back to the tally."""

    def judge_file(self, name: str, record: Record, original: BinaryIO) -> Verdict:
        """What an encoded file is now."""


class SamplesAnswer:
    """What some recorded pieces of uncompressed files are now.

    Attributes
    ----------
    held : (3, n_pieces) bool
        Of each piece, whether all of it is original, protected, or known; see `forms.Answer.held`.
    """

    def __init__(
        self,
        target: Files,
        batch: FileBatch,
        contents: Sequence[bytes | None],
        answers: Sequence[Answer],
    ) -> None:
        self._target, self._batch, self._contents, self._answers = target, batch, contents, answers
        held = np.ones((3, len(batch.parts)), np.bool_)
        for answer in answers:
            for kind, found in zip(held, answer.held(), strict=True):
                np.logical_and.at(kind, answer.stretches.patches.clips, found)
        self.held = held
        self._found = verdicts_of(*held)
        self._found[[content is None for content in contents]] = Verdict.MISSING

    def verdicts(self) -> Iterator[tuple[str, Verdict]]:
        names = [record.name for record in self._batch.records]
        return zip(names, map(Verdict, self._found.tolist()), strict=True)

    def dry_of(self, number: int) -> bytes:
        """The originals of the patches of a piece."""
        return bytes(self._split("dry")[number])

    def torn(self) -> TornPieces:
        return {
            (number, piece): original
            for number, answer in enumerate(self._answers)
            for piece, original in answer.found.items()
        }

    def protect(self, skipped: Collection[str], *, everywhere: bool) -> None:
        self._put(skipped, Verdict.PROTECTED, everywhere=everywhere)

    def restore(self, skipped: Collection[str], *, everywhere: bool) -> None:
        self._put(skipped, Verdict.ORIGINAL, everywhere=everywhere)

    def _put(self, skipped: Collection[str], wanted: Verdict, *, everywhere: bool) -> None:
        target, batch = self._target, self._batch
        protecting = wanted is Verdict.PROTECTED
        dry, wet = self._split("dry"), self._split("wet")
        for number, (part, content) in enumerate(zip(batch.parts, self._contents, strict=True)):
            name, verdict = part.record.name, self._found[number]
            if name in skipped:
                continue
            if verdict in (Verdict.NEITHER, Verdict.MISSING) or content is None:
                raise DatasetError(f"{name} was changed while this run was at work on it; run it again.")
            if protecting:
                target.account(part, content, dry[number], wet[number])
            if part.record.sizes and (everywhere or verdict == Verdict.TORN or not verdict & wanted):
                time = None if protecting else part.record.time
                target.store(part.record, (wet if protecting else dry)[number], time)
        for answer in self._answers:
            target.forms.count(target.tally, answer.dry, answer.stretches, answer.odd if protecting else None)

    def _split(self, form: str) -> list[memoryview]:
        """The patches of each piece in one form."""
        found = [memoryview(b"")] * len(self._batch.parts)
        for group, answer in zip(self._batch.groups, self._answers, strict=True):
            for number, content in group.split(getattr(answer, form), self._batch.records):
                found[number] = content
        return found


class EncodedAnswer:
    """What some recorded files that are encoded again are now.

    `parts` are all pieces of a batch, and `files` those files that end in it, with all of their pieces.
    """

    def __init__(
        self,
        target: Files,
        parts: Sequence[tuple[Part, KeptPiece]],
        files: Sequence[tuple[Part, list[KeptPiece]]],
    ) -> None:
        self._target, self._parts, self._files = target, parts, files
        self._found = [target.judge_file(part.record.name, part.record, _opened(kept)) for part, kept in files]

    def verdicts(self) -> Iterator[tuple[str, Verdict]]:
        return zip([part.record.name for part, _ in self._files], self._found, strict=True)

    def torn(self) -> TornPieces:
        return {}

    def protect(self, skipped: Collection[str], *, everywhere: bool) -> None:
        del everywhere  # a file is encoded again for the manifest in any case
        for part, piece in self._parts:
            if part.record.name not in skipped:
                self._target.accounts.before(part, piece.read())
        for part, kept in self._left(skipped):
            name, record = part.record.name, part.record
            marked = self._target.mark_file(name, record, _opened(kept))
            self._target.tally.add(marked.tally)
            self._target.publish(name, record)
            self._target.accounts.after(part, marked)

    def restore(self, skipped: Collection[str], *, everywhere: bool) -> None:
        for (part, kept), verdict in zip(self._files, self._found, strict=True):
            if part.record.name in skipped:
                continue
            self._refuse_changed(part, verdict)
            self._target.count_undone(part.record, _opened(kept))
            if everywhere or not verdict & Verdict.ORIGINAL:
                self._target.put_back(part.record.name, part.record, _opened(kept))

    def _left(self, skipped: Collection[str]) -> Iterator[tuple[Part, list[KeptPiece]]]:
        for (part, kept), verdict in zip(self._files, self._found, strict=True):
            if part.record.name not in skipped:
                self._refuse_changed(part, verdict)
                yield part, kept

    def _refuse_changed(self, part: Part, verdict: Verdict) -> None:
        if verdict in (Verdict.NEITHER, Verdict.MISSING):
            raise DatasetError(f"{part.record.name} was changed while this run was at work on it; run it again.")


def _opened(kept: list[KeptPiece]) -> BinaryIO:
    return io.BytesIO(kept[0].read()) if len(kept) == 1 else io.BufferedReader(KeptFile(kept))
