"""One engine that protects, undoes and verifies whatever is edited in place, batch by batch.

Protecting makes a batch's record durable before any of its bytes is stored. Everything else is one question, put to the
data by the records: what is this now, original, marked, half written, or changed by somebody? So a run can be finished
from any crash in either direction, and what a sidecar says of the data is never believed over the data (FORMAT.md,
"Order of events").
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from poscuda_fast.disk import Threads
from poscuda_fast.errors import SidecarError, stopping
from poscuda_fast.results import Tally, Verdict
from poscuda_fast.undo.journal import Journal, Kind, State, unpack_json
from poscuda_fast.undo.log import Bookmark

NAMES_SHOWN = 10

Batch = TypeVar("Batch")
TornPieces = dict[tuple[int, int], bytes]  # originals of torn pieces of a batch, by the numbers of group and piece

_SIZE = struct.Struct("<I")
_TORN = struct.Struct("<QII")  # batch, group, piece; the original follows


class Fresh(NamedTuple):
    """A batch that is marked for the first time.

    Attributes
    ----------
    digest : bytes
        It tells its originals.
    content : bytes
        What its record says: how to tell its originals and get them back. Secret.
    store : callable
        Stores the marked form.
    """

    digest: bytes
    content: bytes
    store: Callable[[], None]

    def __repr__(self) -> str:
        return "Fresh()"


class Answer(Protocol):
    """What a recorded batch is now."""

    def verdicts(self) -> Iterable[tuple[str, Verdict]]:
        """A verdict on each clip or file by its name, which may come again for another part."""

    def torn(self) -> TornPieces:
        """The originals of torn pieces that were found just now."""

    def protect(self, skipped: Collection[str], *, everywhere: bool) -> None:
        """Store the marked form where it is not there yet, or `everywhere`."""

    def restore(self, skipped: Collection[str], *, everywhere: bool) -> None:
        """Store the originals where they are not there yet, or `everywhere`."""


class Target(Protocol[Batch]):
    """Data that can be edited batch by batch, in the order that a plan gives.

    Attributes
    ----------
    tally : Tally
        Counts of what was marked or restored.
    """

    tally: Tally

    def header(self, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Describes the run and its data; with `known`, a recorded header, both that run and what is added to it."""

    def planned(self) -> Iterator[Batch]:
        """The batches behind those that are recorded, in order, without what is to be skipped."""

    def recorded(self, batch: Batch) -> None:
        """Take notice of a recorded batch: `planned` goes on behind it."""

    def skip(self, names: Collection[str]) -> None:
        """Leave these out of what is planned."""

    def announce(self, batch: Batch) -> bytes:
        """Where a batch lies."""

    def parse(self, announcement: memoryview) -> Batch:
        """The batch that was announced."""

    def fresh(self, batch: Batch) -> Fresh:
        """Read a batch's originals, and mark and count them in memory."""

    def differing(self, batch: Batch, digest: bytes) -> list[str]:
        """The names in a batch that are not as they were when it was announced; none if its originals are there."""

    def examine(self, batch: Batch, content: memoryview, torn: TornPieces, place: Bookmark) -> Answer:
        """What a recorded batch is now."""

    def unfinished(self) -> Iterable[tuple[str, Verdict]]:
        """Once all recorded batches were examined: verdicts on what can only be marked whole, and is recorded in part.

        It must still be the original.
        """

    def unwritable(self, batch: Batch) -> list[str]:
        """The names in a batch that may not be written; OSError if it is all the same to which."""

    def looked(self, batch: Batch) -> None:
        """Tell that a batch was looked at."""

    def advance(self, batch: Batch) -> None:
        """Tell that a batch is done."""

    def sync(self) -> None:
        """Return once every stored byte is on the disk, of every file system; OSError if that fails."""


class Announced(NamedTuple):
    """The batch that comes next: where it lies, and what tells its originals."""

    places: memoryview
    digest: bytes


class Recorded(NamedTuple, Generic[Batch]):
    """A batch that is recorded; secret."""

    number: int
    batch: Batch
    content: memoryview
    place: Bookmark

    def __repr__(self) -> str:
        return f"Recorded({self.number})"


class Records(Generic[Batch]):
    """The batches that a sidecar records.

    Attributes
    ----------
    announced : Announced or None
        After iterating, the batch that was announced but is not recorded.
    """

    def __init__(self, journal: Journal, target: Target[Batch]) -> None:
        self.announced: Announced | None = None
        self._journal, self._target = journal, target
        self._torn: dict[int, TornPieces] = {}
        for record in journal.records(Kind.TORN):
            number, group, piece = _TORN.unpack_from(record.payload)
            self._torn.setdefault(number, {})[group, piece] = record.payload[_TORN.size :]

    def __iter__(self) -> Iterator[Recorded[Batch]]:
        number, self.announced = 0, None
        for record in self._journal.records(Kind.BEGIN, Kind.MORE, Kind.BATCH):
            if record.kind != Kind.BATCH:
                self.announced, _ = _unpack_announced(unpack_json(record.payload)[1])
                continue
            if self.announced is None:
                raise SidecarError(f"The sidecar {self._journal.path} has a batch too many; restore a backup of it.")
            batch = self._target.parse(self.announced.places)
            self.announced, content = _unpack_announced(memoryview(record.payload))
            yield Recorded(number, batch, content, record.place)
            number += 1

    def examine(self, one: Recorded[Batch]) -> Answer:
        """What a recorded batch is now."""
        return self._target.examine(one.batch, one.content, self.torn_of(one), one.place)

    def torn_of(self, one: Recorded[Batch]) -> TornPieces:
        """The originals of its pieces that were found torn before."""
        return self._torn.get(one.number, {})

    def keep(self, one: Recorded[Batch], found: TornPieces) -> None:
        """Record the originals of torn pieces, durably: from now on each byte there must be one of two."""
        for (group, piece), original in found.items():
            self._journal.append(Kind.TORN, _TORN.pack(one.number, group, piece) + original)
            self._torn.setdefault(one.number, {})[group, piece] = original


class Findings:
    """What all recorded batches are now.

    Attributes
    ----------
    changed : dict
        Names of clips or files of which a part is missing or neither form, or that may not be written, in order.
    original, protected : bool
        Whether every other part is the original, and whether every other part is marked.
    foreign : bool
        Whether there is no other part.
    """

    def __init__(self) -> None:
        self.changed: dict[str, None] = {}
        self.original = self.protected = self.foreign = True

    def add(self, verdicts: Iterable[tuple[str, Verdict]]) -> None:
        for name, verdict in verdicts:
            if verdict in (Verdict.NEITHER, Verdict.MISSING):
                self.changed[name] = None
                continue
            self.foreign = False
            self.original &= verdict in (Verdict.ORIGINAL, Verdict.UNCHANGED)
            self.protected &= verdict in (Verdict.PROTECTED, Verdict.UNCHANGED)


def protect(
    journal: Journal,
    target: Target[Batch],
    *,
    partial: bool = False,
    undone: Target[Batch] | None = None,
    apart: Collection[str] = (),
) -> tuple[str, tuple[str, ...]]:
    """Protect a target: from the beginning, from wherever a run was stopped, or what is new in it.

    Names in `apart` are left out, whatever their data say.

    Where the run was undone, `undone` is the target that it records, by which the data must prove to be the originals:
    `target` may be marked otherwise.

    Returns "protected", "partly protected" or "already protected", and the names that were left out: none, unless
    `partial`.
    """
    if journal.state is State.NEW:
        return _protect_anew(journal, target)
    if journal.state is State.FINAL:
        refuse_other_run(journal, target.header(journal.header))
        return "already protected", ()
    header = target.header(journal.header)
    refuse_other_data(journal, header)
    was_undone = journal.state is State.UNDONE
    if not was_undone:
        refuse_other_run(journal, header)
    looking = undone if was_undone and undone is not None else target
    findings = _look(Records(journal, looking), looking)
    if was_undone and findings.original and not findings.changed:
        return _protect_anew(journal, target)
    refuse_other_run(journal, header)
    records = Records(journal, target)
    gone = "; if that is meant, move the sidecar away, for its run was undone and all others are originals"
    hint = gone * (was_undone and findings.original and not findings.foreign)
    left_out = _left_out(journal, findings.changed, partial=partial, foreign=findings.foreign, hint=hint)
    left_out = (*left_out, *(name for name in apart if name not in findings.changed))
    for one in records:
        target.recorded(one.batch)
    target.skip(left_out)
    batches = target.planned()
    found = _announced_batch(journal, records, target, left_out, partial=partial)
    announced, late = found
    if late:
        left_out = (*left_out, *late)
        target.skip(left_out)
    first = next(batches, None) if announced is None else announced
    if first is None and findings.protected and not left_out and journal.state is State.COMPLETE:
        return "already protected", ()
    journal.refuse_read_only()
    with stopping():
        interrupted = _settle(journal)
        if journal.state is not State.APPLYING:
            journal.move(State.APPLYING)
        _put(records, target, lambda answer: answer.protect(left_out, everywhere=interrupted))
        if first is not None:
            _go_on(journal, records, target, header, first, batches)
        return _finish(journal, target, State.COMPLETE, left_out, "protected")


def restore(journal: Journal, target: Target[Batch], *, partial: bool = False) -> tuple[str, tuple[str, ...]]:
    """Put every recorded original back where it is not there.

    Returns "restored", "partly restored" or "already original", and the names that were left out: none, unless
    `partial`.
    """
    records = Records(journal, target)
    findings = _look(records, target)
    changed = list(findings.changed)
    if records.announced is not None:
        changed += target.differing(target.parse(records.announced.places), records.announced.digest)
    left_out = _left_out(journal, changed, partial=partial, foreign=findings.foreign)
    if findings.original and not left_out and journal.state is State.UNDONE:
        return "already original", ()
    journal.refuse_read_only()
    with stopping():
        interrupted = _settle(journal)
        if journal.state is not State.UNDOING:
            journal.move(State.UNDOING)
        _put(records, target, lambda answer: answer.restore(left_out, everywhere=interrupted))
        return _finish(journal, target, State.UNDONE, left_out, "restored")


def verdicts(journal: Journal, target: Target[Batch]) -> Iterator[tuple[str, Verdict]]:
    """What every recorded clip or file is now; a name may come several times, for its parts."""
    records = Records(journal, target)
    for one in records:
        yield from records.examine(one).verdicts()
    yield from target.unfinished()


def refuse_other_data(journal: Journal, header: Mapping[str, Any]) -> None:
    """SidecarError if the sidecar was made for other data, whatever was to be done to them."""
    _refuse_different(journal, header, _OTHER_DATA)


def refuse_other_run(journal: Journal, header: Mapping[str, Any]) -> None:
    """SidecarError if the sidecar was made for another run."""
    _refuse_different(journal, header, {**_OTHER_DATA, **_OTHER_RUN})


def _refuse_different(journal: Journal, header: Mapping[str, Any], fields: Mapping[str, str]) -> None:
    for field, what in fields.items():
        if field in header and journal.header.get(field) != header[field]:
            raise SidecarError(
                f"The sidecar {journal.path} was made for {what}. To change that, restore first and protect again; if "
                f"it belongs to other data, move it away. Nothing was written."
            )


# In the order in which they are compared.
_OTHER_DATA = {
    "kind": "other data (files, an array or a copy)",
    "single": "other data (a folder, or one file)",
    "dtype": "other data (another dtype)",
    "shape": "other data (another shape)",
    "place": "other data (another part of the file)",
}
_OTHER_RUN = {
    "recipe": "another recipe",
    "snr": "another SNR",
    "share": "another share of the clips",
    "rate": "another sample rate",
    "labels": "other labels or lengths",
}


def _protect_anew(journal: Journal, target: Target[Batch]) -> tuple[str, tuple[str, ...]]:
    batches = target.planned()
    first = next(batches, None)
    announced = _SIZE.pack(0)
    if first is not None:
        fresh = target.fresh(first)
        announced = _pack_announced(target, first, fresh)
    journal.begin(target.header(), announced)
    with stopping():
        if first is not None:
            _mark_all(journal, target, first, fresh, batches)
        return _finish(journal, target, State.COMPLETE, (), "protected")


def _announced_batch(
    journal: Journal, records: Records[Batch], target: Target[Batch], left_out: tuple[str, ...], *, partial: bool
) -> tuple[Batch | None, tuple[str, ...]]:
    """The batch that was announced and is not recorded; without it, the names in it that have changed.

    If anything is left out there is none: it may have the next part of that, and what follows is planned anew.
    """
    if records.announced is None:
        return None, ()
    batch = target.parse(records.announced.places)
    changed = _left_out(journal, target.differing(batch, records.announced.digest), partial=partial, pending=True)
    if changed or left_out:
        return None, changed
    target.recorded(batch)
    return batch, ()


def _go_on(
    journal: Journal,
    records: Records[Batch],
    target: Target[Batch],
    header: dict[str, Any],
    first: Batch,
    batches: Iterator[Batch],
) -> None:
    """Mark what is not recorded yet; it is announced anew if it is not what was announced, or if the header grew."""
    fresh = target.fresh(first)
    announced = Announced(memoryview(target.announce(first)), fresh.digest)  # equal contents may lie elsewhere
    if announced != records.announced or header != journal.header:
        journal.extend(header, _pack_announced(target, first, fresh))
    _mark_all(journal, target, first, fresh, batches)


def _mark_all(journal: Journal, target: Target[Batch], batch: Batch, fresh: Fresh, batches: Iterator[Batch]) -> None:
    """Record and store a batch that is announced, and all that follow.

    A batch is recorded and then stored while the one after the next is marked in memory.
    """

    def done(announcement: bytes, fresh: Fresh) -> None:
        journal.append(Kind.BATCH, announcement + fresh.content)
        fresh.store()

    def prepared() -> tuple[Batch, Fresh] | None:
        found = next(batches, None)
        return None if found is None else (found, target.fresh(found))

    following = prepared()
    with Threads(1) as writer:
        while True:
            announcement = _SIZE.pack(0) if following is None else _pack_announced(target, *following)
            wait = writer.submit(functools.partial(done, announcement, fresh))
            further = None if following is None else prepared()
            wait()
            target.advance(batch)
            if following is None:
                return
            (batch, fresh), following = following, further


def _put(records: Records[Batch], target: Target[Batch], put: Callable[[Answer], None]) -> None:
    """Store one form of all recorded batches: each while the next is examined.

    Torn pieces are recorded in between, since a log is not read and written at once.
    """
    with Threads(1) as writer:
        before: tuple[Batch, Callable[[], None]] | None = None
        for one in records:
            answer = records.examine(one)
            if before is not None:
                before[1]()
                target.advance(before[0])
            records.keep(one, answer.torn())
            before = one.batch, writer.submit(functools.partial(put, answer))
        if before is not None:
            before[1]()
            target.advance(before[0])


def _settle(journal: Journal) -> bool:
    """Make the records durable; returns whether a run was interrupted, so that no store of it may be relied on.

    Its sync may have failed. The system then believes that its stores are on the disk, shows them, and never tries
    again to write them.
    """
    journal.settle()
    return journal.state in (State.APPLYING, State.UNDOING)


def _look(records: Records[Batch], target: Target[Batch]) -> Findings:
    """Put the question to all recorded batches before anything is written."""
    findings = Findings()
    for one in records:
        findings.add(records.examine(one).verdicts())
        findings.changed.update(dict.fromkeys(target.unwritable(one.batch)))
        target.looked(one.batch)
    findings.add((name, verdict) for name, verdict in target.unfinished() if verdict is not Verdict.ORIGINAL)
    return findings


def _finish(
    journal: Journal, target: Target[Batch], state: State, left_out: tuple[str, ...], done: str
) -> tuple[str, tuple[str, ...]]:
    target.sync()
    if left_out:  # they can be put back, and the same call made again
        return f"partly {done}", left_out
    journal.move(state, {"counts": target.tally.to_dict()})
    return done, ()


def _left_out(
    journal: Journal,
    changed: Iterable[str],
    *,
    partial: bool,
    pending: bool = False,
    foreign: bool = False,
    hint: str = "",
) -> tuple[str, ...]:
    """The names to leave out; SidecarError if there are any and none may be, or if nothing would be left."""
    names = tuple(dict.fromkeys(changed))
    if names and partial and foreign:
        raise SidecarError(
            f"Not one file or clip is what {journal.path} records; nothing was written. If it is the sidecar of other "
            f"data, move it to them, and put the right one here."
        )
    if names and not partial:
        shown = "".join(f"\n  {name!r}" if not name.isprintable() else f"\n  {name}" for name in names[:NAMES_SHOWN])
        more = f"\n  and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
        why = "; or the sidecar is an older copy of itself" if pending else ""
        advice = f"Put them back, or go on with the others alone (partial=True){hint}"
        raise SidecarError(
            f"{len(names)} files or clips are missing, may not be written, or were changed since {journal.path} was "
            f"made{why}; nothing was written. {advice}:{shown}{more}"
        )
    return names


def _pack_announced(target: Target[Batch], batch: Batch, fresh: Fresh) -> bytes:
    places = target.announce(batch)
    return _SIZE.pack(len(places)) + places + _SIZE.pack(len(fresh.digest)) + fresh.digest


def content_of(payload: bytes) -> memoryview:
    """What a batch's record says, without what it announces."""
    return _unpack_announced(memoryview(payload))[1]


def _unpack_announced(view: memoryview) -> tuple[Announced | None, memoryview]:
    """What is announced, if anything is, and the bytes behind it."""
    (size,) = _SIZE.unpack_from(view)
    places, end = _SIZE.size, _SIZE.size + size
    if not size:
        return None, view[places:]
    digest = end + _SIZE.size
    last = digest + _SIZE.unpack_from(view, end)[0]
    return Announced(view[places:end], bytes(view[digest:last])), view[last:]
