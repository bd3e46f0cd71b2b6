"""A set of audio files as a target that `undo.steps` can edit."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from poscuda_fast import disk
from poscuda_fast.disk import Buffer, Stamp, Workers
from poscuda_fast.errors import DatasetError
from poscuda_fast.files import pieces, records, wav
from poscuda_fast.files.edits import Edit, Editor, Item, Sums
from poscuda_fast.files.headers import WavLayout
from poscuda_fast.files.listing import AudioFile
from poscuda_fast.files.manifest import Manifest
from poscuda_fast.files.records import Record
from poscuda_fast.files.staging import Staging
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key
from poscuda_fast.mark.marks import Marks
from poscuda_fast.mark.plan import BATCH_BYTES, Plan
from poscuda_fast.results import Progress, Tally, Verdict
from poscuda_fast.undo.journal import Journal
from poscuda_fast.undo.record import describe, keyed_mac, reopen, seal

One = TypeVar("One")

PIECES_PER_BATCH = 1000
FILES_PER_CHUNK = 64


class FileTarget:
    """The files below `root`, in order; with `source` they are copied from there.

    A file is edited in pieces, which for most files is one. A copy is written already marked, under a hidden name, and
    renamed once its originals are journalled. `files`, `labels` and `plan` are needed to protect, not to undo or to
    judge. With `unfinished`, the recorded copy may lack files. With `looking_first`, every file is checked before any
    is edited, and progress counts both. `snr` is what the strength was set by, if by that; `notes` are for
    the report.
    """

    def __init__(
        self,
        root: Path,
        journal: Journal,
        marks: Marks,
        engine: Engine,
        workers: Workers,
        progress: Progress | None,
        *,
        source: Path | None = None,
        files: list[AudioFile] | None = None,
        others: list[str] | None = None,
        labels: list[str | int] | None = None,
        plan: Plan | None = None,
        snr: float | None = None,
        notes: Sequence[str] = (),
        manifest: Path | None = None,
        n_files: int = 0,
        unfinished: bool = False,
        looking_first: bool = False,
    ) -> None:
        self._root = root
        self._journal = journal
        self._key: Key = journal.key
        self._workers = workers
        self._progress = progress
        self._files = files or []
        self._others = others or []
        self._labels = dict(zip([file.output_name for file in self._files], labels or [], strict=False))
        self._staging = Staging(root, source, self._files)
        self._marks = marks
        self._editor = Editor(self._staging, marks, engine, journal)
        self._plan = plan
        self._snr = snr
        self._notes = notes
        self._manifest = manifest
        self._n_files = n_files or len(self._files)
        self._unfinished = unfinished
        self._looking_first = looking_first
        self._n_looked_at = 0
        self._ready: tuple[bytes, list[Edit]] = (b"", [])
        self._applied: set[str] = set()
        self._begun: dict[str, _Begun] = {}  # files of which some pieces are journalled and applied
        self._first_batches: dict[str, int] = {}  # of files of which some pieces are packed
        self._entries: dict[str, dict[str, Any]] = {}
        self._skip: set[str] = set()
        self._told: set[str] = set()
        self.tally = Tally()
        if plan is not None:
            self.tally = Tally(**plan.counts())

    def header(self) -> dict[str, Any]:
        return {
            "files": keyed_mac(self._key, b"files", json.dumps([f.output_name for f in self._files]).encode()),
            **describe("files", self._key, self._planned(), self._snr, self._notes),
            "copied": self._staging.copying,
            "n_files": len(self._files),
        }

    def secret(self) -> bytes:
        return seal(self._planned())

    def rehearse(self) -> None:
        """Count what protecting would do, and refuse what it would refuse, without writing anything."""
        for last, tally in self._workers.map(self._rehearse, self._drafts(range(len(self._files)))):
            self.tally.add(tally)
            for name in last:
                self._advance(name)

    def examine(self) -> None:
        """Refuse what the headers do not show: encoded files that cannot be decoded, samples that are not finite."""
        may_be_odd = not self._marks.steady
        doubtful = [n for n, f in enumerate(self._files) if not _is_wav(f) or (may_be_odd and f.coding == "FLOAT")]
        for _ in self._workers.map(self._editor.examine, self._drafts(doubtful)):
            pass

    def fresh(self) -> Iterator[bytes]:
        for _ in self._workers.map(self._staging.copy, self._others):
            pass
        batch: list[Edit] = []
        n_bytes = 0
        for edits, tally in self._workers.map(self._editor.edit, self._items()):
            self.tally.add(tally)
            for edit in edits:
                batch.append(self._summed(edit))
                n_bytes += len(edit.kept)
                if n_bytes >= BATCH_BYTES or len(batch) >= PIECES_PER_BATCH:
                    yield self._payload(batch)
                    n_bytes = 0
        if batch:
            yield self._payload(batch)

    def recheck(self, payload: bytes) -> list[str]:
        changed: list[str] = []
        chunks = _recorded_chunks(payload)
        for chunk, names in zip(chunks, self._workers.map(self._changed, chunks), strict=True):
            changed += names
            self._n_looked_at += sum(record.is_last for record, _ in chunk)
            self._tell()
        return self._new(changed)

    def apply(self, payload: bytes) -> None:
        edits: Iterable[Edit]
        if payload is self._ready[0]:
            edits, self._ready = self._ready[1], (b"", [])
        else:
            edits = self._edit_again(payload)
        for edit in edits:
            record, name = edit.record, edit.record.name
            stamp = self._editor.publish(edit, self._stamp_of(edit))
            if edit.outcome is None:
                begun = self._begun[name]
                begun.until, begun.stamp = record.end, stamp
            else:
                self._begun.pop(name, None)
                self._entries[name] = {"label": self._labels[name], **edit.outcome._asdict()}
                self._advance(name)

    def undo(self, payload: bytes) -> None:
        found = [one for one in records.unpack(payload) if one[0].name not in self._skip]
        found = [one for one in found if not self._never_made(one[0])]
        for chunk in _divide(found, [_weight(record) for record, _ in found]):
            self._editor.count(self.tally, chunk)
            for record, kept in chunk:
                self._put_back(record, kept)

    def judge(self, payload: bytes) -> Iterator[tuple[Record, Verdict, str | None]]:
        """(record, verdict, SHA-256 of the file if known) for the pieces of a payload; one for each encoded file."""
        for verdicts in self._workers.map(self._editor.judge, _recorded_chunks(payload)):
            yield from verdicts

    def verdicts(self) -> Iterator[tuple[str, Verdict, str | None]]:
        """(name, verdict, SHA-256 if known) of what is journalled; a file may come several times, for its parts."""
        begun: set[str] = set()
        for payload in self._journal.payloads():
            for record, verdict, digest in self.judge(payload):
                (begun.discard if record.is_last else begun.add)(record.name)
                yield record.name, verdict, digest
        for name in begun:  # the run was stopped within this file, and did not touch the rest of it
            yield name, Verdict.ORIGINAL, None

    def unprotected(self, payload: bytes) -> list[str]:
        return self._new([record.name for record, verdict, _ in self.judge(payload) if not verdict.as_protected])

    def skip(self, names: list[str]) -> None:
        self._skip = set(names)

    def sync(self) -> None:
        if self._manifest is not None and self._plan is not None:
            Manifest(self._key.fingerprint, self._plan.recipe, self._entries).write(self._manifest)
        disk.sync_files(self._root, (self._root / name for name in (*self._others, *self._applied)))

    def summary(self) -> dict[str, Any]:
        return {"counts": self.tally.to_dict()}

    def abandon(self) -> None:
        """Stop the workers, and delete files that were written but not published."""
        self._workers.close()
        self._staging.abandon()

    def _drafts(self, numbers: Sequence[int]) -> Iterator[list[tuple[Record, AudioFile]]]:
        """What is read of some files, in chunks: long WAV files in pieces, all other files whole."""
        for chunk in _divide(numbers, [pieces.weight(self._files[n]) for n in numbers]):
            file = self._files[chunk[0]]
            if _is_wav(file) and pieces.is_long(file):
                for record in pieces.wav_pieces(file, self._planned(), chunk[0]):
                    yield [(record, file)]
            else:
                whole = pieces.whole_files(self._files, self._planned(), chunk)
                yield [(record, self._files[n]) for record, n in zip(whole, chunk, strict=True)]

    def _items(self) -> Iterator[list[Item]]:
        """What is to be edited of the files that are not yet in the journal, in chunks."""
        todo = [n for n, file in enumerate(self._files) if file.output_name not in self._applied]
        for chunk in _divide(todo, [pieces.weight(self._files[n]) for n in todo]):
            if any(pieces.is_long(self._files[n]) or self._files[n].output_name in self._begun for n in chunk):
                for number in chunk:
                    yield from ([item] for item in self._pieces_of(number))
            else:
                whole = pieces.whole_files(self._files, self._planned(), chunk)
                yield [Item(record, None, self._files[n]) for record, n in zip(whole, chunk, strict=True)]

    def _pieces_of(self, number: int) -> Iterator[Item]:
        """The pieces of a file that are not yet in the journal."""
        file = self._files[number]
        begun = self._begun.get(file.output_name)
        begin = 0 if begun is None else begun.until
        if _is_wav(file):
            for record in pieces.wav_pieces(file, self._planned(), number, begin):
                yield Item(record, None, file)
            return
        (whole,) = pieces.whole_files(self._files, self._planned(), [number])
        skipped = hashlib.sha256()
        path = self._staging.input(file.output_name)
        for record, content in pieces.encoded_pieces(path, file, whole, pieces.PIECE_BYTES):
            seen = max(0, min(begin, record.end) - record.begin)
            skipped.update(content[:seen])
            if begun is not None and record.begin + seen == begin and skipped.hexdigest() != begun.sums.before:
                raise DatasetError(f"{path} was changed since this run began; put it back.")
            if record.end > begin:
                yield Item(record._replace(begin=record.begin + seen), content[seen:], file)

    def _rehearse(self, drafts: list[tuple[Record, AudioFile]]) -> tuple[list[str], Tally]:
        return [record.name for record, _ in drafts if record.is_last], self._editor.rehearse(drafts)

    def _payload(self, batch: list[Edit]) -> bytes:
        """Pack some edits for the journal, and take them, if their files are still those that were read."""
        number = self._journal.n_batches()
        packed = []
        for edit in batch:
            name = edit.record.name
            stamp = self._stamp_of(edit)
            if stamp is not None:
                disk.refuse_exchanged(self._staging.input(name), stamp)
            if edit.record.begin == 0:
                self._first_batches[name] = number
            packed.append(edit.record._replace(batch=self._first_batches[name]))
            if edit.record.is_last:
                del self._first_batches[name]
        payload = records.pack(packed, [edit.kept for edit in batch])
        self._ready = payload, [edit._replace(kept=b"") for edit in batch]
        batch.clear()
        return payload

    def _summed(self, edit: Edit) -> Edit:
        """An edit without the file's content; with the last piece of a file, what was done to it."""
        outcome = edit.outcome
        if not edit.record.is_whole:
            outcome = self._begun.setdefault(edit.record.name, _Begun()).sums.add(edit)
        return edit._replace(content=b"", outcome=outcome)

    def _edit_again(self, payload: bytes) -> Iterator[Edit]:
        """Edit the pieces of a journalled payload, from the originals in the journal."""
        chunks = _recorded_chunks(payload)
        items = [[Item(record, kept, None) for record, kept in chunk] for chunk in chunks]
        for edits, tally in self._workers.map(self._editor.edit, items):
            self.tally.add(tally)
            for edit in edits:
                if not edit.record.is_last:
                    self._first_batches[edit.record.name] = edit.record.batch
                else:
                    self._first_batches.pop(edit.record.name, None)
                yield self._summed(edit)

    def _stamp_of(self, edit: Edit) -> Stamp | None:
        """The stamp that an edited file must have; None if this run neither listed it nor wrote to it."""
        begun = self._begun.get(edit.record.name)
        if edit.file is None:
            return None
        if begun is not None and begun.stamp is not None:
            return begun.stamp
        return edit.file.stamp

    def _changed(self, chunk: Sequence[tuple[Record, Buffer]]) -> list[str]:
        """Names of journalled files whose originals can neither be found nor put back."""
        if self._staging.copying:
            # Encoded originals are in the journal. Other files are copied again, since a power cut may have lost bytes
            # of the first copy.
            return [one.name for one, _ in chunk if not one.is_encoded and not self._editor.is_same(one, None)]
        here = [one for one in chunk if not self._never_made(one[0])]
        steady = self._marks.steady  # no bytes outside patches tell whether it is the same file
        changed = [one.name for one, kept in here if not (one.is_encoded or steady or self._editor.is_same(one, kept))]
        judged = self._editor.judge([one for one in here if steady or (one[0].is_encoded and one[0].is_last)])
        changed += [record.name for record, verdict, _ in judged if verdict in (Verdict.NEITHER, Verdict.MISSING)]
        order = {record.name: n for n, (record, _) in enumerate(chunk)}
        return sorted(set(changed), key=order.__getitem__)

    def _put_back(self, record: Record, kept: memoryview) -> None:
        """Put the original of a piece back; an encoded file once all of it is there."""
        path = self._staging.output(record.name)
        if not record.is_encoded:
            wav.store(path, record, kept)
        else:
            self._staging.write_at(record.name, record.begin, [kept])
            if record.is_last:
                self._staging.publish(record.name)
        if record.is_last:
            self._advance(record.name)

    def _never_made(self, record: Record) -> bool:
        """Whether copying stopped after the commit and before this file was published."""
        return self._unfinished and not os.path.lexists(self._staging.output(record.name))

    def _planned(self) -> Plan:
        if self._plan is None:
            raise RuntimeError("a target that was read from a sidecar has no plan")
        return self._plan

    def _new(self, names: Iterable[str]) -> list[str]:
        """Those of some names that were not told before."""
        found = [name for name in dict.fromkeys(names) if name not in self._told]
        self._told.update(found)
        return found

    def _advance(self, name: str) -> None:
        self._applied.add(name)
        self._tell()

    def _tell(self) -> None:
        if self._progress is None:
            return
        if self._looking_first:
            self._progress(self._n_looked_at + len(self._applied), 2 * self._n_files)
        elif self._applied:
            self._progress(len(self._applied), self._n_files)


class _Begun:
    """A file of which some pieces are applied: up to which byte, its stamp then, and its sums."""

    def __init__(self) -> None:
        self.until = 0
        self.stamp: Stamp | None = None
        self.sums = Sums()


def recorded(journal: Journal, root: Path, workers: Workers, progress: Progress | None) -> FileTarget:
    """The target that the sidecar of a folder or file records."""
    _, marks = reopen(journal, "files")
    header = journal.header
    target = FileTarget(
        root,
        journal,
        marks,
        Engine(threads=1),
        workers,
        progress,
        n_files=header["n_files"],
        unfinished=header["copied"] and "counts" not in journal.summary,
        looking_first=True,
    )
    target.tally = Tally(**header["counts"])
    return target


def _is_wav(file: AudioFile) -> bool:
    return isinstance(file.layout, WavLayout)


def _recorded_chunks(payload: bytes) -> list[Sequence[tuple[Record, memoryview]]]:
    found = records.unpack(payload)
    return _divide(found, [_weight(record) for record, _ in found])


def _weight(record: Record) -> int:
    return record.end - record.begin


def _divide(items: Sequence[One], weights: Iterable[int]) -> list[Sequence[One]]:
    """Items in order, in groups of at most `FILES_PER_CHUNK`, and of a piece's weight unless one item exceeds it."""
    groups = []
    first = total = 0
    for number, weight in enumerate(weights):
        if number > first and (total + weight > pieces.PIECE_BYTES or number - first >= FILES_PER_CHUNK):
            groups.append(items[first:number])
            first, total = number, 0
        total += weight
    if first < len(items):
        groups.append(items[first:])
    return groups
