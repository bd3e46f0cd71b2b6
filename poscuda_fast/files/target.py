"""A set of audio files as a target that `undo.steps` can edit."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from poscuda_fast import disk
from poscuda_fast.disk import Workers
from poscuda_fast.files import encoded, filtering, records, wav
from poscuda_fast.files.edits import Edit, Editor, Taken, dry_of
from poscuda_fast.files.headers import WavLayout
from poscuda_fast.files.listing import AudioFile
from poscuda_fast.files.manifest import Manifest
from poscuda_fast.files.records import WHOLE, Record
from poscuda_fast.files.staging import Staging
from poscuda_fast.kernels import Engine, Marks
from poscuda_fast.key import Key
from poscuda_fast.mark.packed import BATCH_BYTES
from poscuda_fast.mark.plan import Plan
from poscuda_fast.results import Progress, Tally, Verdict
from poscuda_fast.undo.journal import Journal
from poscuda_fast.undo.record import describe, keyed_mac, reopen, seal

Item = TypeVar("Item")

FILES_PER_BATCH = 1000
# Bytes of WAV files that a thread holds in memory; of encoded files a quarter, since they decode to more.
CHUNK_BYTES = 1 << 20
FILES_PER_CHUNK = 64


class FileTarget:
    """The files below `root`, in order; with `source` they are copied from there.

    A copy is written already marked, under a hidden name, and renamed once its originals are journalled. `marks` has
    one row per class. `files`, `labels` and `plan` are needed to protect, not to undo or to judge. With `unfinished`,
    the recorded copy may lack files. With `looking_first`, every file is checked before any is edited, and progress
    counts both.
    """

    def __init__(
        self,
        root: Path,
        key: Key,
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
        manifest: Path | None = None,
        n_files: int = 0,
        unfinished: bool = False,
        looking_first: bool = False,
    ) -> None:
        self._root = root
        self._key = key
        self._workers = workers
        self._progress = progress
        self._files = files or []
        self._others = others or []
        self._labels = dict(zip([file.output_name for file in self._files], labels or [], strict=False))
        self._staging = Staging(root, source, self._files)
        self._marks = marks
        self._engine = engine
        self._editor = Editor(self._staging, marks, engine)
        self._plan = plan
        self._manifest = manifest
        self._n_files = n_files or len(self._files)
        self._unfinished = unfinished
        self._looking_first = looking_first
        self._n_looked_at = 0
        self._ready: tuple[bytes, list[Edit]] = (b"", [])
        self._applied: set[str] = set()
        self._entries: dict[str, dict[str, Any]] = {}
        self._skip: set[str] = set()
        self.tally = Tally()
        if plan is not None:
            self.tally = Tally(**plan.counts())

    def header(self) -> dict[str, Any]:
        return {
            "files": keyed_mac(self._key, b"files", json.dumps([f.output_name for f in self._files]).encode()),
            **describe("files", self._key, self._planned()),
            "copied": self._staging.copying,
            "n_files": len(self._files),
        }

    def secret(self) -> bytes:
        return seal(self._planned())

    def rehearse(self) -> None:
        """Count what protecting would do, and refuse what it would refuse, without writing anything."""
        chunks = self._chunks(range(len(self._files)))
        tallies = self._workers.map(lambda chunk: self._editor.filter(self._take(chunk)).tally, chunks)
        for chunk, tally in zip(chunks, tallies, strict=True):
            self.tally.add(tally)
            for number in chunk:
                self._advance(self._files[number].output_name)

    def examine(self) -> None:
        """Refuse what the headers do not show: encoded files that cannot be decoded, samples that are not finite."""
        doubtful = [n for n, file in enumerate(self._files) if file.coding == "FLOAT" or not _is_wav(file)]
        for taken in self._workers.map(self._take, self._chunks(doubtful)):
            filtering.refuse_non_finite([one.record for one in taken], [one.dry for one in taken], self._engine)

    def fresh(self) -> Iterator[bytes]:
        for _ in self._workers.map(self._staging.copy, self._others):
            pass
        todo = [n for n, file in enumerate(self._files) if file.output_name not in self._applied]
        kept = [bytes_kept(self._files[n], self._planned()) for n in todo]
        batches = [self._chunks(batch) for batch in _divide(todo, kept, BATCH_BYTES, FILES_PER_BATCH)]
        prepared = self._workers.map(self._prepare, itertools.chain.from_iterable(batches))
        for batch in batches:
            edits = []
            for some, tally in itertools.islice(prepared, len(batch)):
                edits += some
                self.tally.add(tally)
            for edit in edits:
                disk.refuse_exchanged(self._staging.input(edit.record.name), edit.stamp or ())
            payload = records.pack([edit.record for edit in edits], [edit.kept for edit in edits])
            self._ready = payload, edits
            yield payload

    def recheck(self, payload: bytes) -> list[str]:
        changed = []
        chunks = _recorded_chunks(payload)
        for chunk, names in zip(chunks, self._workers.map(self._changed, chunks), strict=True):
            changed += names
            self._n_looked_at += len(chunk)
            self._tell()
        return changed

    def apply(self, payload: bytes) -> None:
        edits: Iterable[Edit]
        if payload is self._ready[0]:
            edits, self._ready = self._ready[1], (b"", [])
        else:
            edits = self._prepare_again(payload)
        for edit in edits:
            self._editor.publish(edit)
            record, outcome = edit.record, edit.outcome
            self._entries[record.name] = {
                "label": self._labels[record.name],
                "bytes_before": record.size,
                "bytes_after": outcome.bytes_after,
                "sha256_before": record.sha256,
                "sha256_after": outcome.sha256_after,
                "snr_db": outcome.snr_db,
            }
            self._advance(record.name)

    def undo(self, payload: bytes) -> None:
        found = [
            one for one in records.unpack(payload) if one[0].name not in self._skip and not self._never_made(one[0])
        ]
        for chunk in _divide(found, [record.size for record, _ in found], CHUNK_BYTES, FILES_PER_CHUNK):
            dry = [dry_of(record, kept) for record, kept in chunk]
            filtering.count_together(self.tally, [record for record, _ in chunk], dry, self._marks, self._engine)
            for record, kept in chunk:
                if record.offset == WHOLE:
                    encoded.undo(self._staging.output(record.name), kept)
                else:
                    wav.store(self._staging.output(record.name), record, kept)
                self._advance(record.name)

    def judge(self, payload: bytes) -> Iterator[tuple[str, Verdict, str | None]]:
        """(name, verdict, SHA-256) for each file of a payload."""
        for verdicts in self._workers.map(self._editor.judge, _recorded_chunks(payload)):
            yield from verdicts

    def unprotected(self, payload: bytes) -> list[str]:
        return [name for name, verdict, _ in self.judge(payload) if not verdict.as_protected]

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

    def _prepare(self, numbers: Sequence[int]) -> tuple[list[Edit], Tally]:
        """Read and edit some listed files."""
        taken = self._take(numbers, staging=True)
        return self._editor.finish(taken)

    def _prepare_again(self, payload: bytes) -> Iterator[Edit]:
        """Edit the files of a journalled payload, from the originals in the journal."""
        for edits, tally in self._workers.map(
            lambda chunk: self._editor.finish(self._editor.take_again(chunk)), _recorded_chunks(payload)
        ):
            self.tally.add(tally)
            yield from edits

    def _take(self, numbers: Sequence[int], *, staging: bool = False) -> list[Taken]:
        """Read the originals of some listed files; with `staging`, start the copy of any too large for memory."""
        patches = self._planned().of_clips(np.array(numbers, np.int64))
        rows = self._planned().rows_of(np.array(numbers, np.int64)).tolist()
        ends = np.searchsorted(patches.clips, numbers, side="right").tolist()
        starts, sizes = patches.starts.tolist(), patches.sizes.tolist()
        taken = []
        first = 0
        for number, row, end in zip(numbers, rows, ends, strict=True):
            file = self._files[number]
            draft = Record(
                file.output_name,
                row,
                file.coding,
                file.layout.channels,
                file.frames,
                file.layout.offset if isinstance(file.layout, WavLayout) else WHOLE,
                file.size,
                starts[first:end],
                sizes[first:end],
                "",
            )
            first = end
            taken.append(self._editor.take(draft, file, staging=staging))
        return taken

    def _changed(self, chunk: Sequence[tuple[Record, bytes]]) -> list[str]:
        """Names of journalled files whose originals can neither be found nor put back."""
        if self._staging.copying:
            # Encoded originals are journalled whole. Other files are copied again, since a power cut may have lost
            # bytes of the first copy.
            return [
                record.name for record, _ in chunk if record.offset != WHOLE and not self._editor.is_same(record, None)
            ]
        here = [one for one in chunk if not self._never_made(one[0])]
        changed = {
            record.name for record, kept in here if record.offset != WHOLE and not self._editor.is_same(record, kept)
        }
        encoded = [one for one in here if one[0].offset == WHOLE]
        changed |= {
            name for name, verdict, _ in self._editor.judge(encoded) if verdict in (Verdict.NEITHER, Verdict.MISSING)
        }
        return [record.name for record, _ in here if record.name in changed]

    def _never_made(self, record: Record) -> bool:
        """Whether copying stopped after the commit and before this file was published."""
        return self._unfinished and not os.path.lexists(self._staging.output(record.name))

    def _chunks(self, numbers: Sequence[int]) -> list[Sequence[int]]:
        weights = [self._files[n].size * (1 if _is_wav(self._files[n]) else 4) for n in numbers]
        return _divide(numbers, weights, CHUNK_BYTES, FILES_PER_CHUNK)

    def _planned(self) -> Plan:
        if self._plan is None:
            raise RuntimeError("a target that was read from a sidecar has no plan")
        return self._plan

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


def recorded(journal: Journal, root: Path, key: Key, workers: Workers, progress: Progress | None) -> FileTarget:
    """The target that the sidecar of a folder or file records."""
    _, marks = reopen(journal, "files")
    header = journal.header
    unfinished = header["copied"] and "counts" not in journal.summary
    engine = Engine(threads=1)
    target = FileTarget(
        root,
        key,
        marks,
        engine,
        workers,
        progress,
        n_files=header["n_files"],
        unfinished=unfinished,
        looking_first=True,
    )
    target.tally = Tally(**header["counts"])
    return target


def bytes_kept(file: AudioFile, plan: Plan) -> int:
    """About how many bytes the sidecar keeps of a file."""
    whole = 0 if _is_wav(file) else file.size
    share = plan.n_frames // max(1, len(plan.lengths)) + 1
    return whole + share * file.layout.channels * 4 + 400


def _is_wav(file: AudioFile) -> bool:
    return isinstance(file.layout, WavLayout)


def _recorded_chunks(payload: bytes) -> list[Sequence[tuple[Record, bytes]]]:
    found = records.unpack(payload)
    return _divide(found, [record.size for record, _ in found], CHUNK_BYTES, FILES_PER_CHUNK)


def _divide(items: Sequence[Item], weights: Iterable[int], most: int, most_items: int) -> list[Sequence[Item]]:
    """Items in order, in groups of at most `most_items`, and at most `most` weight unless one item exceeds it."""
    groups = []
    first = total = 0
    for number, weight in enumerate(weights):
        if number > first and (total + weight > most or number - first >= most_items):
            groups.append(items[first:number])
            first, total = number, 0
        total += weight
    if first < len(items):
        groups.append(items[first:])
    return groups
