"""Audio files that are edited in place, as something that `undo.steps` can edit."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import io
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from blake3 import blake3

from poscuda_fast import attributes, disk
from poscuda_fast.errors import DatasetError, SidecarError
from poscuda_fast.files import batches, encoded, listing, pieces, replacing
from poscuda_fast.files.accounts import Accounts
from poscuda_fast.files.answers import EncodedAnswer, SamplesAnswer
from poscuda_fast.files.batches import FileBatch, Label, Part, Rows
from poscuda_fast.files.below import Below
from poscuda_fast.files.kept import KeptPiece
from poscuda_fast.files.paths import Paths
from poscuda_fast.files.records import Places, Record
from poscuda_fast.files.table import FileTable
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key
from poscuda_fast.mark.forms import Forms
from poscuda_fast.mark.marks import draw_marks
from poscuda_fast.mark.plan import BATCH_BYTES, Plan
from poscuda_fast.recipe import Recipe
from poscuda_fast.results import Progress, Tally, Verdict
from poscuda_fast.undo import record as runs
from poscuda_fast.undo.journal import Journal, Kind, State
from poscuda_fast.undo.log import Bookmark
from poscuda_fast.undo.manifest import Writer
from poscuda_fast.undo.steps import Fresh, TornPieces, content_of

PIECES_PER_BATCH = 1000
KEPT_BYTES = 4 << 20  # of an encoded file in one record
FILES_PER_CHUNK = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What is to be protected: listed files, their plan and labels, and what the run's header says beside them."""

    files: FileTable
    plan: Plan
    labels: Sequence[Label]
    snr: float | None
    notes: Sequence[str]


class FileTarget:
    """The files below a folder, or one file, which may have another name than when it was recorded.

    Their pieces are edited in batches.

    Without a `job`, as a sidecar has none, they can be restored and verified.
    """

    def __init__(
        self, paths: Paths, journal: Journal, recipe: Recipe, engine: Engine, progress: Progress | None, job: Job | None
    ) -> None:
        self.below = Below(paths.root)
        self._only = paths.only
        modes = () if job is None else (disk.mode_of(job.files.stamp(n)) for n in range(len(job.files)))
        readers = attributes.readers_of(os.stat(paths.data), modes)
        self._manifest = Writer(paths.manifest, journal.key.fingerprint, recipe, readers)
        self.accounts = Accounts(self._manifest)
        self._journal = journal
        self._job = job
        self._goes_on = journal.state in (State.APPLYING, State.UNDOING)  # a call that was killed may have left parts
        header = journal.header
        tokens = set(runs.tokens_of(header)) if header else set()
        rates = set(header["rates"]) if header else set()
        if job is not None:
            tokens.update(job.plan.labels.tokens)
            rates.update(job.plan.rates)
        self._tokens, self._rates = sorted(tokens), sorted(rates)
        key: Key = journal.key
        self._marks = draw_marks(key, self._tokens, recipe, self._rates)
        self._rows = Rows(self._tokens, self._rates, steady=self._marks.steady)
        self.forms = Forms(key, self._marks, engine)
        self.engine = engine
        self._progress, self._process = progress, os.getpid()
        self._files = FileTable() if job is None else job.files
        self._done = bytearray(len(self._files))  # 1 for files of which all is recorded
        self._until: dict[str, int] = {}  # bytes of files of which a part is
        self._skipped: frozenset[str] = frozenset()
        self._kept: dict[str, list[tuple[Record, KeptPiece]]] = {}  # of encoded files that did not end yet
        # Records of encoded files, of which each file is a part: one is examined while the one before is stored.
        self._kept_at = functools.lru_cache(2)(self._read_kept)
        self._waiting: set[str] = set()  # encoded files beside which a marked form waits
        self._stamps: dict[str, disk.Stamp] = {}  # of files that are not listed, of which a part is written
        self._n_files = len(job.files) if job is not None else int(header["counts"]["clips"])
        self._n_looked_at = self._n_done = 0
        self.lost: collections.Counter[str] = collections.Counter()  # what replaced files did not keep
        self.tally = Tally(**(job.plan.counts() if job is not None else header["counts"]))

    def close(self) -> None:
        """Close folders, and delete what is not finished: a manifest, and files beside those that they replace."""
        with contextlib.closing(self.below):
            self._manifest.discard()
            self.discard(self._waiting)

    def discard(self, names: Iterable[str]) -> None:
        """Delete what waits beside encoded files, also what a killed run left there."""
        for name in list(names):
            with contextlib.suppress(OSError, DatasetError), self.below.folder(name) as (folder, last):
                replacing.discard(folder, last)
            self._waiting.discard(name)

    def header(self, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        job = self._planned
        described = {**runs.describe("files", job.plan, job.snr, job.notes), "single": self._only is not None}
        if known is not None:
            described.update(
                tokens=[token.hex() for token in self._tokens], rates=self._rates, notes=known["notes"], snr=job.snr
            )
        return {**(known or {}), **described}

    def planned(self) -> Iterator[FileBatch]:
        batch: list[Part] = []
        n_bytes = 0
        for part in self._parts():
            size = part.record.end - part.record.begin
            other = batch and batch[0].record.is_encoded != part.record.is_encoded
            if batch and (other or n_bytes + size > BATCH_BYTES or len(batch) >= PIECES_PER_BATCH):
                yield FileBatch(batch, steady=self._marks.steady)
                batch, n_bytes = [], 0
            batch.append(part)
            n_bytes += size
        if batch:
            yield FileBatch(batch, steady=self._marks.steady)

    def recorded(self, batch: FileBatch, others: dict[str, str] | None = None) -> None:
        """Take a recorded batch as done; files that have another sample rate now go to `others`, or are refused."""
        for part in batch.parts:
            name = part.record.name
            number = self._files.names.find(name)
            if number is not None and self._planned.labels[number] != part.label:
                raise SidecarError(
                    f"The sidecar {self._journal.path} was made for other labels: {name} had {part.label!r}. To change "
                    f"that, restore first and protect again. Nothing was written."
                )
            if number is not None and self._marks.steady:
                rate = self._files[number].layout.sample_rate
                if rate != part.rate:
                    other = f"{name} had {part.rate:,} Hz, and now says {rate:,} Hz"
                    if others is None:
                        raise SidecarError(
                            f"The sidecar {self._journal.path} was made for another sample rate: {other}. Put that "
                            f"back, or go on with the other files alone (partial=True). Nothing was written."
                        )
                    others[name] = other
            if part.record.is_last:
                if number is not None:
                    self._done[number] = True
                self._until.pop(name, None)
            else:
                self._until[name] = part.record.end

    def skip(self, names: Collection[str]) -> None:
        self._skipped = frozenset(names)

    def announce(self, batch: FileBatch) -> bytes:
        return batch.pack()

    def parse(self, announcement: memoryview) -> FileBatch:
        batch = FileBatch.parse(announcement, self._rows, steady=self._marks.steady)
        if self._only is not None:
            batch = batch.renamed(self._only)
        return batch

    def fresh(self, batch: FileBatch) -> Fresh:
        contents = self.originals(batch)
        if batch.is_encoded:
            return self._fresh_encoded(batch, contents)
        digests = np.zeros(len(batch.parts), "<u8")
        content, wet = bytearray(), [memoryview(b"")] * len(batch.parts)
        for group in batch.groups:
            done = self.forms.fresh(group.join(contents, batch.records), group.stretches, self.tally)
            np.add.at(digests, group.stretches.patches.clips, done.digests)
            content += len(done.content).to_bytes(8, "little") + done.content
            for number, marked in group.split(done.wet, batch.records):
                wet[number] = marked
        return Fresh(digests.tobytes(), bytes(content), lambda: self._store_all(batch, contents, wet))

    def originals(self, batch: FileBatch) -> list[bytes]:
        """The bytes of pieces that are not recorded yet; DatasetError if a file is not as it was listed."""
        return [self._original(record) for record in batch.records]

    def undone(self, batch: FileBatch, contents: Sequence[bytes]) -> Sequence[bytes]:
        """What pieces that are not recorded are without a mark: what they are."""
        del batch
        return contents

    def differing(self, batch: FileBatch, digest: bytes) -> list[str]:
        found = np.zeros(len(batch.parts), "<u8")
        contents = [self.read(record) for record in batch.records]
        if batch.is_encoded:
            found = np.array([0 if content is None else _sum(content) for content in contents], "<u8")
        else:
            there = [_or_zeros(content, record) for content, record in zip(contents, batch.records, strict=True)]
            shown = self.undone(batch, there)
            for group in batch.groups:
                digests = self.forms.digests(group.join(shown, batch.records), group.stretches)
                np.add.at(found, group.stretches.patches.clips, digests)
        wrong = found != np.frombuffer(digest, "<u8")
        wrong |= np.array([content is None for content in contents])
        return [batch.records[n].name for n in np.flatnonzero(wrong)]

    def examine(
        self, batch: FileBatch, content: memoryview, torn: TornPieces, place: Bookmark
    ) -> SamplesAnswer | EncodedAnswer:
        if batch.is_encoded:
            return self._examine_encoded(batch, place)
        return self.examine_samples(batch, content, torn)

    def examine_samples(self, batch: FileBatch, content: memoryview, torn: TornPieces) -> SamplesAnswer:
        """What a recorded batch of uncompressed pieces is now."""
        contents = [self.read(record) for record in batch.records]
        shown = [_or_zeros(one, record) for one, record in zip(contents, batch.records, strict=True)]
        answers = []
        position = 0
        for number, group in enumerate(batch.groups):
            size = int.from_bytes(content[position : position + 8], "little")
            position += 8
            known = {piece: original for (other, piece), original in torn.items() if other == number}
            now = group.join(shown, batch.records)
            answers.append(self.forms.examine(now, group.stretches, content[position : position + size], known))
            position += size
        return SamplesAnswer(self, batch, contents, answers)

    def unfinished(self) -> Iterator[tuple[str, Verdict]]:
        for name, found in self._kept.items():
            verdict = Verdict.ORIGINAL
            for record, piece in found:
                content = self.read(record)
                if content is None:
                    verdict = Verdict.MISSING
                elif content != piece.read():
                    verdict = Verdict.NEITHER
                if verdict is not Verdict.ORIGINAL:
                    break
            yield name, verdict

    def unwritable(self, batch: FileBatch) -> list[str]:
        return [record.name for record in batch.records if not self._may_write(record)]

    def looked(self, batch: FileBatch) -> None:
        self._n_looked_at += sum(record.is_last for record in batch.records)
        self._tell()

    def advance(self, batch: FileBatch) -> None:
        self._n_done += sum(record.is_last for record in batch.records)
        self._tell()

    def sync(self) -> None:
        if self._goes_on:
            self.clear()
        self.below.sync()
        self._manifest.finish()  # if anything was written to it

    def clear(self) -> None:
        """Delete what a run that was killed left beside the files that it was to replace."""
        for name in listing.find_parts(self.below.root):
            with self.below.folder(name) as (folder, last):
                replacing.discard(folder, last)

    def read(self, record: Record, stamp: disk.Stamp | None = None) -> bytes | None:
        """The bytes of a piece as they are; None if there is no such file, or it has another size.

        DatasetError if its `stamp` is another before or after.
        """
        file = self.below.reading(record.name)
        if file is None:
            return None
        with file:
            status = os.fstat(file.fileno())
            if status.st_size != record.size:
                return None
            if stamp is not None:
                disk.refuse_exchanged(record.name, stamp, status)
            content = bytearray(record.end - record.begin)
            disk.read_into(file.fileno(), memoryview(content), record.begin, record.name)
            if stamp is not None:
                disk.refuse_exchanged(record.name, stamp, os.fstat(file.fileno()))
            return content  # type: ignore[return-value]

    def store(self, record: Record, patches: memoryview, time: int | None = None) -> None:
        """Write patches of an uncompressed file to their places; `time` is when it was changed then, by default now."""
        try:
            descriptor = self.below.open(record.name, disk.WRITING)
        except OSError as error:
            raise DatasetError(
                f"{self.below.root / record.name} cannot be written any more ({error.strerror}); put it back and run "
                f"the same command again."
            ) from None
        try:
            self.below.systems.meet(descriptor)
            self._refuse_exchanged(record, os.fstat(descriptor))
            done = 0
            for first, size in Places(record):
                disk.write_at(descriptor, patches[done : done + size], first)
                done += size
            if time is not None:
                replacing.set_time(descriptor, time, self.lost)
            if not disk.syncs_systems():
                os.fsync(descriptor)
            self._note_stamp(record, os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def account(self, part: Part, content: bytes, dry: memoryview, wet: memoryview) -> None:
        """Take an uncompressed piece into the accounts; `content` is all of it, as it was when it was read."""
        self.accounts.add(part, content, dry, wet)

    def mark_file(self, name: str, record: Record, original: BinaryIO) -> replacing.Marked:
        """Write the marked form of an encoded file beside it, durably, under a hidden name."""
        self._waiting.add(name)
        with self.below.folder(name) as (folder, last):
            return replacing.write_marked(folder, last, record, original, self._marks, self.engine, self.lost)

    def publish(self, name: str, record: Record) -> None:
        """Put the hidden file in the place of an encoded file."""
        with self.below.folder(name) as (folder, last):
            self._refuse_exchanged(record, os.stat(last, dir_fd=folder, follow_symlinks=False))
            replacing.publish(folder, last)
            self._waiting.discard(name)
            self._note_stamp(record, os.stat(last, dir_fd=folder, follow_symlinks=False))

    def put_back(self, name: str, record: Record, original: BinaryIO) -> None:
        """Put the original of an encoded file in its place."""
        with self.below.folder(name) as (folder, last):
            self._waiting.add(name)
            replacing.write_original(folder, last, original, record.time, self.lost)
            replacing.publish(folder, last)
            self._waiting.discard(name)

    def count_undone(self, record: Record, original: BinaryIO) -> None:
        """Add an encoded file that is put back to the tally."""
        self.tally.add(encoded.tally_of(original, record, self._marks, self.engine))

    def judge_file(self, name: str, record: Record, original: BinaryIO) -> Verdict:
        """What an encoded file is now."""
        now = self.below.reading(name)
        if now is None:
            return Verdict.MISSING
        with now:
            return encoded.judge(now, original, record, self._marks, self.engine)

    def _may_write(self, record: Record) -> bool:
        """Whether a file can be edited, or replaced if it is encoded; also if there is none."""
        try:
            if record.is_encoded:
                with self.below.folder(record.name) as (folder, _):
                    return os.access(".", os.W_OK | os.X_OK, dir_fd=folder)
            os.close(self.below.open(record.name, disk.WRITING))
        except (FileNotFoundError, NotADirectoryError):
            return True
        except (OSError, ValueError):  # DatasetError, and what is no name
            return False
        return True

    def _parts(self) -> Iterator[Part]:
        """What is not recorded, in order."""
        job = self._planned
        left = (n for n, done in enumerate(self._done) if not done)
        todo = (n for n in left if not self._skipped or job.files.names[n] not in self._skipped)
        for chunk in _chunks(todo, FILES_PER_CHUNK):
            for number, whole in zip(chunk, pieces.whole_files(job.files, job.plan, chunk), strict=True):
                file = job.files[number]
                rate = file.layout.sample_rate
                row = self._rows.of(job.labels[number], rate)
                part = Part(whole._replace(row=row), job.labels[number], rate)
                begin = self._until.get(whole.name, 0)
                if whole.is_encoded:
                    yield from batches.encoded_parts(part, KEPT_BYTES, begin)
                elif pieces.is_long(file) or begin:
                    for piece in pieces.uncompressed_pieces(file, job.plan, number, begin):
                        yield part._replace(record=piece._replace(row=row))
                else:
                    yield part

    def _original(self, record: Record) -> bytes:
        """The bytes of a piece of a listed file that is not recorded yet."""
        number = self._files.names.find(record.name)
        if number is None:
            raise RuntimeError("a piece that is planned is of no listed file")
        stamp = self._files.stamp(number)
        if record.begin and not record.is_encoded:
            stamp = stamp[: disk.STAMP_OF_IDENTITY]  # this run stores the pieces before meanwhile
        content = self.read(record, stamp)
        if content is None:
            raise DatasetError(
                f"{record.name} is missing or has another size than when it was listed; put it back and run the same "
                f"command again."
            )
        return content

    def _refuse_exchanged(self, record: Record, status: os.stat_result) -> None:
        """DatasetError if a file is not the one that was listed, or that this run wrote last."""
        stamp = self._stamps.get(record.name)
        number = self._files.names.find(record.name)
        if number is not None:
            stamp = self._files.stamp(number)
        if stamp is not None:
            disk.refuse_exchanged(record.name, stamp, status)

    def _note_stamp(self, record: Record, status: os.stat_result) -> None:
        """Remember how this run left a file."""
        number = self._files.names.find(record.name)
        if number is not None:
            self._files.restamp(number, disk.stamp_of(status))
        elif record.is_last:
            self._stamps.pop(record.name, None)
        else:
            self._stamps[record.name] = disk.stamp_of(status)

    def _store_all(self, batch: FileBatch, contents: Sequence[bytes], wet: Sequence[memoryview]) -> None:
        """Store uncompressed pieces, and account for them; another thread marks the next batch meanwhile."""
        for part, content, marked in zip(batch.parts, contents, wet, strict=True):
            if len(marked):
                self.store(part.record, marked)
            dry = Places(part.record).take(content, part.record.begin)
            self.account(part, content, memoryview(dry), marked)

    def _fresh_encoded(self, batch: FileBatch, contents: Sequence[bytes]) -> Fresh:
        ready: list[tuple[Part, replacing.Marked]] = []
        for part, content in zip(batch.parts, contents, strict=True):
            if part.record.is_last:
                with self._source(part.record, content) as source:
                    marked = self.mark_file(part.record.name, part.record, source)
                self.tally.add(marked.tally)
                ready.append((part, marked))
        digests = np.array([_sum(content) for content in contents], "<u8")

        def store() -> None:
            for part, content in zip(batch.parts, contents, strict=True):
                self.accounts.before(part, content)
            for part, marked in ready:
                self.publish(part.record.name, part.record)
                self.accounts.after(part, marked)

        return Fresh(digests.tobytes(), b"".join(contents), store)

    @contextlib.contextmanager
    def _source(self, record: Record, content: bytes) -> Iterator[BinaryIO]:
        """An encoded file that is not marked yet."""
        if record.is_whole:
            yield io.BytesIO(content)
            return
        with open(self.below.open(record.name, disk.READING), "rb") as source:
            yield source

    def _examine_encoded(self, batch: FileBatch, place: Bookmark) -> EncodedAnswer:
        position = 0
        read: list[KeptPiece] = []
        finished: list[tuple[Part, list[KeptPiece]]] = []
        for part in batch.parts:
            record = part.record
            size = record.end - record.begin
            shared = len(batch.parts) > 1
            piece = KeptPiece(record.begin, record.end, self._reading(place, position, size, shared=shared))
            found = self._kept.setdefault(record.name, [])
            if found and record.begin == 0:
                found.clear()
            found.append((record, piece))
            read.append(piece)
            if record.is_last:
                finished.append((part, [one for _, one in self._kept.pop(record.name)]))
            position += size
        return EncodedAnswer(self, list(zip(batch.parts, read, strict=True)), finished)

    def _reading(self, place: Bookmark, position: int, size: int, *, shared: bool) -> Callable[[], bytes]:
        """What reads a part of a record, which stays in memory only if other files share it."""
        read = self._kept_at if shared else self._read_kept
        return lambda: bytes(read(place)[position : position + size])

    def _read_kept(self, place: Bookmark) -> memoryview:
        return content_of(next(self._journal.records(Kind.BATCH, since=place)).payload)

    @property
    def _planned(self) -> Job:
        if self._job is None:
            raise RuntimeError("a target that was read from a sidecar has no plan")
        return self._job

    def _tell(self) -> None:
        if self._progress is not None and (self._n_looked_at or self._n_done):
            self._progress(self._n_looked_at + self._n_done, (2 if self._n_looked_at else 1) * self._n_files)
            disk.refuse_fork(self._process)


def recorded(journal: Journal, paths: Paths, progress: Progress | None) -> FileTarget:
    """The target that the sidecar of files records; SidecarError if it is that of a folder and this a file."""
    runs.refuse_unless(journal, "files")
    if journal.header["single"] != (paths.only is not None):
        was, given = ("one file", "a folder") if journal.header["single"] else ("a folder", "one file")
        raise SidecarError(
            f"The sidecar {journal.path} is that of {was}, and {paths.data} is {given}; give what was protected."
        )
    recipe = Recipe.from_dict(journal.header["recipe"])
    return FileTarget(paths, journal, recipe, Engine(threads=1), progress, None)


def _or_zeros(content: bytes | None, record: Record) -> bytes:
    """What stands for a piece of a file that is missing."""
    return bytes(record.end - record.begin) if content is None else content


def _sum(content: bytes) -> int:
    """A number that tells some bytes."""
    return int.from_bytes(blake3(content).digest(8), "little")


def _chunks(numbers: Iterator[int], size: int) -> Iterator[list[int]]:
    chunk: list[int] = []
    for number in numbers:
        chunk.append(number)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
