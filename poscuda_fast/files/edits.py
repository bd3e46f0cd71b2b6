"""Edits pieces of files, some at a time, in memory."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

from poscuda_fast import disk
from poscuda_fast.disk import Buffer, Stamp
from poscuda_fast.errors import DatasetError
from poscuda_fast.files import encoded, filtering, pieces, wav
from poscuda_fast.files.kept import original_of
from poscuda_fast.files.listing import AudioFile
from poscuda_fast.files.records import Outcome, Places, Record
from poscuda_fast.files.staging import Staging
from poscuda_fast.kernels import Engine
from poscuda_fast.mark.marks import Marks
from poscuda_fast.mark.snr import ratio_db
from poscuda_fast.results import Tally, Verdict
from poscuda_fast.undo.journal import Journal


class Item(NamedTuple):
    """A piece to edit: its original bytes if they are known, and the file if this run has listed it and reads it."""

    record: Record
    kept: Buffer | None
    file: AudioFile | None


class Edit(NamedTuple):
    """A piece that is edited but not yet published.

    Attributes
    ----------
    record : Record
    kept : bytes-like
        What the journal keeps of it.
    wet : bytes-like
        The marked patches of a WAV file.
    content : bytes-like
        The original bytes of a piece of a WAV file that has several; empty for any other.
    signal, noise : float
        Energy of the samples and of the edit; of an encoded file, the last piece has them.
    outcome : Outcome or None
        What was done to the file, if this is all of it; of an encoded file, the last piece has it, without the digest
        of the original.
    file : AudioFile or None
        The file, if this run reads it.
    """

    record: Record
    kept: Buffer
    wet: Buffer
    content: Buffer
    signal: float
    noise: float
    outcome: Outcome | None
    file: AudioFile | None


class Editor:
    """Edits files at the paths that `staging` gives; threads may share it. `journal` has originals of earlier runs."""

    def __init__(self, staging: Staging, marks: Marks, engine: Engine, journal: Journal) -> None:
        self._staging = staging
        self._marks = marks
        self._engine = engine
        self._journal = journal

    def rehearse(self, drafts: Sequence[tuple[Record, AudioFile]]) -> Tally:
        """Count what marking would do to some pieces of WAV files, or to whole encoded ones."""
        tally = Tally()
        wavs = [(record, file) for record, file in drafts if not record.is_encoded]
        dry = [Places(record).take(self._read(record, None, file), record.begin) for record, file in wavs]
        tally.add(filtering.filter_together([record for record, _ in wavs], dry, self._marks, self._engine).tally)
        for record, file in drafts:
            if record.is_encoded:
                with self._opened(record, file) as source, encoded.Reader(source, record.name) as reader:
                    for _ in encoded.marked(reader, record, self._marks, self._engine, tally):
                        pass
        return tally

    def examine(self, drafts: Sequence[tuple[Record, AudioFile]]) -> None:
        """Refuse what the headers do not show: files that cannot be decoded, samples that cannot be filtered."""
        for record, file in drafts:
            if record.is_encoded:
                with self._opened(record, file) as source:
                    encoded.examine(source, record, self._marks, self._engine)
            elif not self._marks.steady:
                dry = Places(record).take(self._read(record, None, file), record.begin)
                filtering.refuse_non_finite([record], [dry], self._engine)

    def edit(self, items: Sequence[Item]) -> tuple[list[Edit], Tally]:
        """Mark some pieces; those of whole new files are written under hidden names, ready to publish."""
        wavs = [item for item in items if not item.record.is_encoded]
        contents = [self._read(*item) for item in wavs]
        kept = [Places(one.record).take(found, one.record.begin) for one, found in zip(wavs, contents, strict=True)]
        records = [item.record for item in wavs]
        done = filtering.filter_together(records, kept, self._marks, self._engine, measuring=True)
        tally = done.tally
        edited = iter([self._finish(*one) for one in zip(wavs, contents, kept, done.wet, done.noise, strict=True)])
        return [self._encode(item, tally) if item.record.is_encoded else next(edited) for item in items], tally

    def publish(self, edit: Edit, stamp: Stamp | None) -> Stamp | None:
        """Write marked patches into a WAV file in place, or rename a finished file to its final name.

        `stamp` is the file's, if this run has listed it or written to it; returns the new one of a file that may be
        written to again.
        """
        record = edit.record
        path = self._staging.output(record.name)
        if not self._staging.copying and not record.is_encoded:
            return wav.store(path, record, edit.wet, stamp)
        if record.is_last:
            if not self._staging.copying and stamp is not None:
                disk.refuse_exchanged(path, stamp)
            self._staging.publish(record.name)
        return stamp

    def is_same(self, record: Record, kept: Buffer | None) -> bool:
        """Whether a piece of a WAV file equals its original, once its patches are replaced by `kept` if given."""
        return wav.is_same(self._staging.input(record.name), record, kept)

    def judge(self, chunk: Sequence[tuple[Record, Buffer]]) -> list[tuple[Record, Verdict, str | None]]:
        """(record, verdict, SHA-256 of the file if known) for journalled pieces; one for each encoded file."""
        there = [stat.S_ISREG(_mode_of(self._staging.output(record.name))) for record, _ in chunk]
        wavs = [one for one, present in zip(chunk, there, strict=True) if present and not one[0].is_encoded]
        wet = iter(filtering.filter_together(*_columns(wavs), self._marks, self._engine).wet)
        found: list[tuple[Record, Verdict, str | None]] = []
        for (record, kept), present in zip(chunk, there, strict=True):
            path = self._staging.output(record.name)
            if not present:
                found.append((record, Verdict.MISSING, None))
            elif not record.is_encoded:
                found.append((record, *wav.judge(path, record, kept, next(wet), steady=self._marks.steady)))
            elif record.is_last:
                with encoded.opened(path) as now, original_of(record, memoryview(kept), self._journal) as original:
                    verdict = encoded.judge(now, original, record, self._marks, self._engine)
                    found.append((record, verdict, encoded.digest(now)[1]))
        return found

    def count(self, tally: Tally, chunk: Sequence[tuple[Record, Buffer]]) -> None:
        """Add the originals of some journalled pieces to a tally."""
        wavs = [one for one in chunk if not one[0].is_encoded]
        filtering.count_together(tally, *_columns(wavs), self._marks, self._engine)
        for record, kept in chunk:
            if record.is_encoded and record.is_last and self._marks.steady:
                tally.frames_changed += record.frames
            elif record.is_encoded and record.is_last:
                seen = Tally()
                with (
                    original_of(record, memoryview(kept), self._journal) as original,
                    encoded.Reader(original, record.name) as reader,
                ):
                    for _ in encoded.marked(reader, record, self._marks, self._engine, seen):
                        pass
                seen.saturated_samples = 0
                tally.add(seen)

    def _read(self, record: Record, kept: Buffer | None, file: AudioFile | None) -> bytes | bytearray:
        """The original bytes of a piece of a WAV file."""
        stamp = None if file is None else file.stamp
        if stamp is not None and not (self._staging.copying or record.is_whole):
            stamp = stamp[:3]  # other pieces of it are written meanwhile
        return wav.read(self._staging.input(record.name), record, stamp, kept)

    def _finish(self, item: Item, content: bytes | bytearray, kept: Buffer, wet: Buffer, noise: float) -> Edit:
        """A marked piece of a WAV file."""
        record, _, file = item
        found = wav.digest(content)
        if record.sha256 not in ("", found):
            raise DatasetError(f"{self._staging.input(record.name)} was changed since this run began; put it back.")
        record = record._replace(sha256=found)
        signal = wav.energy(record, content)
        if 2 * len(kept) < len(content):  # a view would keep all of the content in memory
            kept = bytes(kept)
        if not record.is_whole:
            if self._staging.copying:
                self._staging.write_at(record.name, record.begin, Places(record).woven(content, wet, record.begin))
            return Edit(record, kept, wet, content, signal, noise, None, file)
        if self._staging.copying:
            edited = b"".join(Places(record).woven(content, wet))
            self._staging.write(record.name, edited)
            after = wav.digest(edited)
        else:
            after = digest_of(Places(record), content, wet)
        outcome = Outcome(record.size, record.size, found, after, ratio_db(signal, noise))
        return Edit(record, kept, wet, b"", signal, noise, outcome, file)

    def _encode(self, item: Item, tally: Tally) -> Edit:
        """A marked piece of an encoded file: with the last one, all of the file is encoded again."""
        record, file = item.record, item.file
        if item.kept is not None:
            kept = item.kept
        elif file is not None:
            record, kept = pieces.encoded_whole(self._staging.input(record.name), file, record)
        else:
            raise ValueError(f"{record.name} is neither in the journal nor listed")
        found = wav.digest(kept)
        record = record._replace(sha256=found)
        if not record.is_last:
            return Edit(record, kept, b"", b"", 0.0, 0.0, None, file)
        with self._source(record, kept, file) as source, self._staging.writing(record.name) as target:
            done = encoded.edit(source, target, record, self._marks, self._engine)
            size, after = encoded.digest(target)
        tally.add(done.tally)
        ratio = ratio_db(done.signal, done.noise)
        outcome = Outcome(record.size, size, found if record.is_whole else "", after, ratio)
        return Edit(record, kept, b"", b"", done.signal, done.noise, outcome, file)

    def _source(self, record: Record, kept: Buffer, file: AudioFile | None) -> BinaryIO:
        """The original of an encoded file, of which this is the last piece."""
        if record.is_whole:
            return io.BytesIO(kept)
        return original_of(record, memoryview(kept), self._journal) if file is None else self._opened(record, file)

    def _opened(self, record: Record, file: AudioFile) -> BinaryIO:
        return encoded.opened(self._staging.input(record.name), file.stamp)


class Sums:
    """What is known of a file of several pieces that are edited one after another."""

    def __init__(self) -> None:
        self._before, self._after = hashlib.sha256(), hashlib.sha256()
        self._signal = self._noise = 0.0

    @property
    def before(self) -> str:
        """SHA-256 in hex of the original bytes so far."""
        return self._before.hexdigest()

    def add(self, edit: Edit) -> Outcome | None:
        """Take in the next piece; with the last one, what was done to the file."""
        record = edit.record
        if record.is_encoded:
            self._before.update(edit.kept)
            return edit.outcome and edit.outcome._replace(sha256_before=self._before.hexdigest())
        self._before.update(edit.content)
        for part in Places(record).woven(edit.content, edit.wet, record.begin):
            self._after.update(part)
        self._signal += edit.signal
        self._noise += edit.noise
        if not record.is_last:
            return None
        ratio = ratio_db(self._signal, self._noise)
        return Outcome(record.size, record.size, self._before.hexdigest(), self._after.hexdigest(), ratio)


def digest_of(places: Places, content: Buffer, patches: Buffer, begin: int = 0) -> str:
    """SHA-256 in hex of a file's bytes with other patches."""
    whole = hashlib.sha256()
    for part in places.woven(content, patches, begin):
        whole.update(part)
    return whole.hexdigest()


def _columns(chunk: Sequence[tuple[Record, Buffer]]) -> tuple[list[Record], list[Buffer]]:
    return [record for record, _ in chunk], [kept for _, kept in chunk]


def _mode_of(path: str) -> int:
    """The mode of the file at a path; 0 if there is none."""
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0
