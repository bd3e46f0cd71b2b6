"""Edits the files of a chunk, one after another, in memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from poscuda_fast import disk
from poscuda_fast.disk import Stamp
from poscuda_fast.errors import DatasetError
from poscuda_fast.files import encoded, filtering, wav
from poscuda_fast.files.encoded import decode, encode
from poscuda_fast.files.listing import AudioFile
from poscuda_fast.files.records import WHOLE, Outcome, Record
from poscuda_fast.files.staging import Staging
from poscuda_fast.kernels import Engine, Marks
from poscuda_fast.mark.snr import ratio_db
from poscuda_fast.results import Tally, Verdict


class Edit(NamedTuple):
    """A file that is edited but not yet published under its name.

    `wet` holds the marked patches of a WAV file, and is empty for an encoded one. `stamp` is None unless this run
    listed the file.
    """

    record: Record
    kept: bytes
    wet: bytes
    outcome: Outcome
    stamp: Stamp | None


class Taken(NamedTuple):
    """A file's original as it was read: what the sidecar keeps of it, and its patches as file bytes (`dry`)."""

    record: Record
    kept: bytes
    dry: bytes
    content: wav.Whole | wav.Pieces | encoded.Content
    stamp: Stamp | None


class Editor:
    """Edits files at the paths that `staging` gives; threads may share it. `marks` has one row per class."""

    def __init__(self, staging: Staging, marks: Marks, engine: Engine) -> None:
        self._staging = staging
        self._marks = marks
        self._engine = engine

    def take(self, draft: Record, file: AudioFile, *, staging: bool) -> Taken:
        """Read the original of a listed file; with `staging`, start the copy of one too large for memory."""
        if draft.offset != WHOLE:
            wav = self._wav(draft, file.stamp, None, staging=staging)
            return Taken(draft, wav.now, wav.now, wav, file.stamp)
        kept = encoded.read(self._staging.input(file.output_name), file.stamp)
        if file.lossy:
            kept = encode(decode(kept, file.name))
        record = draft._replace(size=len(kept), sha256=encoded.digest(kept))
        content = encoded.Content(kept, record)
        return Taken(record, kept, content.now, content, file.stamp)

    def take_again(self, chunk: Sequence[tuple[Record, bytes]]) -> list[Taken]:
        """The originals of some journalled files."""
        taken = []
        for record, kept in chunk:
            if record.offset != WHOLE:
                wav = self._wav(record, None, kept, staging=True)
                taken.append(Taken(record, kept, kept, wav, None))
            else:
                content = encoded.Content(kept, record)
                taken.append(Taken(record, kept, content.now, content, None))
        return taken

    def filter(self, taken: Sequence[Taken]) -> filtering.Filtered:
        """Mark the patches of some files."""
        return filtering.filter_together(
            [one.record for one in taken], [one.dry for one in taken], self._marks, self._engine
        )

    def finish(self, taken: Sequence[Taken]) -> tuple[list[Edit], Tally]:
        """Mark what was taken; whole new files are written under hidden names, ready to publish."""
        filtered = self.filter(taken)
        edits = [
            self._finish_one(one, wet, noise)
            for one, wet, noise in zip(taken, filtered.wet, filtered.noise, strict=True)
        ]
        return edits, filtered.tally

    def publish(self, edit: Edit) -> None:
        """Write the marked patches into a WAV file in place, or rename a finished file to its final name."""
        record = edit.record
        path = self._staging.output(record.name)
        if not self._staging.copying and record.offset != WHOLE:
            wav.store(path, record, edit.wet, edit.stamp)
            return
        if not self._staging.copying and edit.stamp is not None:
            disk.refuse_exchanged(path, edit.stamp)
        self._staging.publish(record.name)

    def is_same(self, record: Record, kept: bytes | None) -> bool:
        """Whether a WAV file equals its original, once its patches are replaced by `kept` if given."""
        try:
            return wav.read(self._staging.input(record.name), record, None, kept).digest() == record.sha256
        except (OSError, DatasetError):
            return False

    def judge(self, chunk: Sequence[tuple[Record, bytes]]) -> list[tuple[str, Verdict, str | None]]:
        """(name, verdict, SHA-256) for some journalled files, as in `FileTarget.judge`."""
        present = [(r, kept) for r, kept in chunk if stat.S_ISREG(_mode_of(self._staging.output(r.name)))]
        dry = [dry_of(record, kept) for record, kept in present]
        wet = filtering.filter_together([record for record, _ in present], dry, self._marks, self._engine).wet
        found: dict[str, tuple[Verdict, str | None]] = {}
        for (record, kept), edited in zip(present, wet, strict=True):
            path = self._staging.output(record.name)
            if record.offset == WHOLE:
                now = encoded.read(path)
                verdict = encoded.judge(now, encoded.Content(kept, record), edited)
                found[record.name] = verdict, encoded.digest(now)
            else:
                found[record.name] = wav.judge(path, record, kept, edited)
        return [(record.name, *found.get(record.name, (Verdict.MISSING, None))) for record, _ in chunk]

    def _wav(
        self, record: Record, stamp: Stamp | None, originals: bytes | None, *, staging: bool
    ) -> wav.Whole | wav.Pieces:
        if not (staging and self._staging.copying and record.size > wav.PIECE_BYTES):
            return wav.read(self._staging.input(record.name), record, stamp, originals)
        if stamp is not None:
            disk.refuse_exchanged(self._staging.input(record.name), stamp)
        return wav.read(self._staging.begin_copy(record.name), record, None, originals)

    def _finish_one(self, one: Taken, wet: bytes, noise: float) -> Edit:
        record = one.record
        if isinstance(one.content, encoded.Content):
            signal = one.content.energy()
            edited = one.content.edited(wet)
            outcome = Outcome(len(edited), encoded.digest(edited), ratio_db(signal, noise))
            self._staging.write(record.name, edited)
            return Edit(record, one.kept, b"", outcome, one.stamp)
        seen = one.content.digests(wet, listening=True)
        if record.sha256 not in ("", seen.as_found):
            raise DatasetError(f"{self._staging.input(record.name)} was changed since this run began; put it back.")
        outcome = Outcome(record.size, seen.as_edited, ratio_db(seen.energy, noise))
        if self._staging.copying:
            if isinstance(one.content, wav.Whole):
                self._staging.write(record.name, one.content.content)
            else:
                wav.store(self._staging.part(record.name), record, wet)
        return Edit(record.with_digest(seen.as_found), one.kept, wet, outcome, one.stamp)


def dry_of(record: Record, kept: bytes) -> bytes:
    """A record's original patches as file bytes."""
    return encoded.Content(kept, record).now if record.offset == WHOLE else kept


def _mode_of(path: str) -> int:
    """The mode of the file at a path; 0 if there is none."""
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0
