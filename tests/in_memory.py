"""A target of `undo.steps` whose data lie in memory, and a journal that notes what happens in which order."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from poscuda_fast import DatasetError, Key
from poscuda_fast.results import Tally, Verdict
from poscuda_fast.undo.journal import Journal, Kind, State
from poscuda_fast.undo.log import Bookmark
from poscuda_fast.undo.steps import Fresh, TornPieces

MARK = 17  # is added to each byte


class Crash(Exception):
    """The process dies here."""


class Events:
    """What happened; raises Crash at event number `crash`, before it happens or when half of it has."""

    def __init__(self, crash: int | None = None) -> None:
        self.seen: list[str] = []
        self._crash = crash

    def note(self, what: str, half: Callable[[], None] | None = None) -> None:
        if len(self.seen) == self._crash:
            if half is not None:
                half()
            raise Crash
        self.seen.append(what)


class NotingJournal(Journal):
    """A sidecar that notes what is made durable in it."""

    def __init__(self, path: Path, key: Key, events: Events) -> None:
        super().__init__(path, key)
        self._events = events

    def begin(self, header: dict[str, Any], rest: bytes = b"") -> None:
        self._events.note("begin")
        super().begin(header, rest)

    def append(self, kind: Kind, payload: bytes) -> None:
        what = Kind(kind).name.lower()
        self._events.note(what if kind != Kind.STATE else json.loads(payload[4:])["state"])
        super().append(kind, payload)


def marked(content: bytes) -> bytes:
    return bytes((byte + MARK) % 256 for byte in content)


def unmarked(content: bytes) -> bytes:
    return bytes((byte - MARK) % 256 for byte in content)


def digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=8).digest()


class MemoryTarget:
    """Clips by name, a few in a batch; a record has the digest of each original."""

    def __init__(self, clips: dict[str, bytes], events: Events, *, per_batch: int = 2, **header: Any) -> None:
        self.clips, self.events = clips, events
        self.locked: set[str] = set()  # names that may not be written
        self.tally = Tally()
        self._header = {"kind": "memory", **header}
        self._names = list(clips)
        self._per_batch = per_batch
        self._done: set[str] = set()
        self._skipped: frozenset[str] = frozenset()

    def header(self, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return {**(known or {}), **self._header, "n": len(self._names)}

    def planned(self) -> Iterator[list[str]]:
        left = [name for name in self._names if name not in self._done and name not in self._skipped]
        for first in range(0, len(left), self._per_batch):
            yield left[first : first + self._per_batch]

    def recorded(self, batch: list[str]) -> None:
        self._done.update(batch)

    def skip(self, names: Collection[str]) -> None:
        self._skipped = frozenset(names)

    def announce(self, batch: list[str]) -> bytes:
        return json.dumps(batch).encode()

    def parse(self, announcement: memoryview) -> list[str]:
        return list(json.loads(bytes(announcement)))

    def fresh(self, batch: list[str]) -> Fresh:
        digests = b"".join(digest(self.clips[name]) for name in batch)
        wet = {name: marked(self.clips[name]) for name in batch}
        self.tally.frames_changed += len(batch)
        return Fresh(digests, digests, lambda: [self.store(name, wet[name]) for name in batch])

    def differing(self, batch: list[str], wanted: bytes) -> list[str]:
        return [name for n, name in enumerate(batch) if digest(self.clips[name]) != wanted[8 * n : 8 * n + 8]]

    def examine(self, batch: list[str], content: memoryview, torn: TornPieces, place: Bookmark) -> MemoryAnswer:
        assert place.number > 1
        return MemoryAnswer(self, batch, bytes(content), torn)

    def unfinished(self) -> tuple[()]:
        return ()

    def unwritable(self, batch: list[str]) -> list[str]:
        del batch
        return []

    def looked(self, batch: list[str]) -> None:
        self.events.note(f"looked {' '.join(batch)}")

    def advance(self, batch: list[str]) -> None:
        self.events.note(f"did {' '.join(batch)}")

    def sync(self) -> None:
        self.events.note("sync")

    def store(self, name: str, content: bytes) -> None:
        old = self.clips[name]

        def half() -> None:
            self.clips[name] = content[: len(content) // 2] + old[len(content) // 2 :]

        self.events.note(f"store {name}", half)
        self.clips[name] = content


class MemoryAnswer:
    """Each clip is one piece; a torn one is found by trying where it was cut."""

    def __init__(self, target: MemoryTarget, batch: list[str], content: bytes, torn: TornPieces) -> None:
        self._target, self._batch = target, batch
        self._originals: dict[str, bytes] = {}
        self._verdicts: list[Verdict] = []
        self._found: TornPieces = {}
        for n, name in enumerate(batch):
            now, wanted = target.clips[name], content[8 * n : 8 * n + 8]
            cuts = [form[:k] + other[k:] for k in range(len(now)) for form, other in (
                (now, unmarked(now)), (unmarked(now), now)
            )]  # fmt: skip
            original = torn.get((0, n)) or next(
                (one for one in [now, unmarked(now), *cuts] if digest(one) == wanted), None
            )
            verdict = Verdict.NEITHER
            if original is not None:
                pairs = zip(now, original, marked(original), strict=True)
                if all(byte in (dry, wet) for byte, dry, wet in pairs):
                    verdict = Verdict.of(
                        original=now == original, protected=now == marked(original), otherwise=Verdict.TORN
                    )
                self._originals[name] = original
            if verdict is Verdict.TORN and (0, n) not in torn:
                self._found[0, n] = self._originals[name]
            self._verdicts.append(verdict)

    def verdicts(self) -> Iterable[tuple[str, Verdict]]:
        return zip(self._batch, self._verdicts, strict=True)

    def torn(self) -> TornPieces:
        return self._found

    def protect(self, skipped: Collection[str], *, everywhere: bool) -> None:
        self._put(skipped, Verdict.PROTECTED, marked, everywhere=everywhere)

    def restore(self, skipped: Collection[str], *, everywhere: bool) -> None:
        self._put(skipped, Verdict.ORIGINAL, bytes, everywhere=everywhere)

    def _put(
        self, skipped: Collection[str], wanted: Verdict, form: Callable[[bytes], bytes], *, everywhere: bool
    ) -> None:
        for name, verdict in self.verdicts():
            if name in skipped:
                continue
            if verdict is Verdict.NEITHER:
                raise DatasetError(f"{name} was changed meanwhile")
            if everywhere or verdict is not wanted:
                self._target.store(name, form(self._originals[name]))
            self._target.tally.frames_changed += 1


__all__ = ["MARK", "Crash", "Events", "MemoryTarget", "NotingJournal", "State", "marked", "unmarked"]
