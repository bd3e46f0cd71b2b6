"""What a disk may hold when the power fails: every combination of what was written and not yet synced.

The model follows what Linux promises and no more. Content is written back page by page at any moment, so that each
sector may be of any version since the last sync, whatever became of its neighbours, and a sector of the data may be in
the middle of being stored when it is; a change of a file's size is remembered in order, apart from the content; a name
is durable once its folder is synced. A sector reaches the disk whole or not at all, and nothing beside it changes. New
room in a file that was never written reads as zeros.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

SECTOR = 512
PAGE = 4096
EXHAUSTIVE = 32  # so many combinations are all tried
LAST = math.inf

State = dict[str, bytes]  # a folder's name ends with "/", and it has no content
Operation = tuple[Any, ...]
Knob = tuple[Any, ...]
Choice = dict[Knob, float]
Tear = Callable[[int, int], int]  # how far a store of some bytes of a sector had come, given its first and its end


class Version(NamedTuple):
    """A sector's content in the page cache: since when, after how many changes of the file's size, and what."""

    time: float
    epoch: int
    content: bytes


class CachedFile:
    """A file's bytes on the disk, in the page cache, and what came between since the last sync."""

    def __init__(self, content: bytes = b"") -> None:
        self.cached = bytearray(content)
        self.durable = bytes(content)
        self.sizes: list[tuple[float, int]] = [(0, len(content))]
        self.versions: dict[int, list[Version]] = {}
        self._clean: set[int] = set()  # sectors that the kernel takes to be on the disk

    def write(self, time: float, offset: int, content: bytes, tear: Tear | None = None) -> None:
        """New content. With `tear` each sector may also reach the disk before all of it was stored."""
        if not content:
            return
        end = offset + len(content)
        if end > len(self.cached):
            self.cached.extend(bytes(end - len(self.cached)))
            self.sizes.append((time, end))
        for sector in range(offset // SECTOR, -(-end // SECTOR)):
            low, high = max(offset, sector * SECTOR), min(end, (sector + 1) * SECTOR)
            if tear is not None:
                middle = tear(low, high)
                self.cached[low:middle] = content[low - offset : middle - offset]
                self._note(time - 0.5, sector)
            self.cached[low:high] = content[low - offset : high - offset]
            self._note(time, sector)
        self._dirty(offset, end)

    def store(self, time: float, offset: int, content: bytes) -> None:
        """New content through a mapping, byte by byte: a sector may also be written back in the middle of it."""
        for low in range(offset // SECTOR * SECTOR, offset + len(content), SECTOR):
            begin, end = max(low, offset), min(low + SECTOR, offset + len(content))
            new = np.frombuffer(content[begin - offset : end - offset], np.uint8)
            changed = np.flatnonzero(new != np.frombuffer(bytes(self.cached[begin:end]), np.uint8))
            if len(changed) > 1:
                half = int(changed[len(changed) // 2])
                self.write(time - 0.5, begin, new[:half].tobytes())
            if len(changed):
                self.write(time, begin, new.tobytes())
            else:
                self.touch(time, begin, end - begin)

    def touch(self, time: float, offset: int, n_bytes: int) -> None:
        """The same content once more: it is to be written again."""
        self._dirty(offset, offset + n_bytes)
        for sector in self.versions:
            if sector not in self._clean and offset < (sector + 1) * SECTOR and sector * SECTOR < offset + n_bytes:
                self._note(time, sector)

    def resize(self, time: float, size: int) -> None:
        if size == len(self.cached):
            return
        del self.cached[size:]
        self.cached.extend(bytes(size - len(self.cached)))
        self.sizes.append((time, size))
        if size % SECTOR:
            self._note(time, size // SECTOR)

    def sync(self) -> None:
        """Everything is on the disk but what an earlier sync failed to write: the kernel does not try that again."""
        lost = {sector: self._fixed(sector) for sector in self._clean & self.versions.keys()}
        fresh = bytearray(self.cached)
        for sector in lost:
            low = sector * SECTOR
            fresh[low : low + SECTOR] = self.durable[low : low + SECTOR].ljust(len(fresh[low : low + SECTOR]), b"\0")
        self.durable = bytes(fresh)
        self.sizes = [(0, len(fresh))]
        self.versions = lost
        self._clean = set(lost)

    def sync_failed(self) -> None:
        """Any of it is on the disk, and the kernel takes all of it to be there."""
        self._clean = set(self.versions)

    def knobs(self) -> Iterator[tuple[Knob, list[float]]]:
        """What is not certain, and the moments at which each of it may have been written last."""
        if len(self.sizes) > 1:
            yield ("size",), [time for time, _ in self.sizes]
        for sector, versions in self.versions.items():
            yield ("sector", sector), [0, *(version.time for version in versions)]

    def content(self, choice: Choice, default: float) -> bytes:
        """The file on the disk, its size and its sectors as of the chosen moments."""
        chosen = choice.get(("size",), default)
        epoch = max(0, sum(time <= chosen for time, _ in self.sizes) - 1)
        size = self.sizes[epoch][1]
        found = bytearray(self.durable[:size].ljust(size, b"\0"))
        for low in range(0, size, SECTOR):
            sector = low // SECTOR
            if sector in self.versions or len(self.sizes) > 1:
                time = choice.get(("sector", sector), default)
                found[low : low + SECTOR] = self._as_of(sector, time, epoch)
        return bytes(found[:size])

    def _as_of(self, sector: int, time: float, epoch: int) -> bytes:
        """A sector as of a moment, when the first `epoch` changes of size are on the disk.

        What was written before the file was cut is gone with the cut, and what was written after it cannot be there
        without it.
        """
        low = sector * SECTOR
        cuts = [
            n for n in range(1, len(self.sizes)) if self.sizes[n][1] <= low and self.sizes[n][1] < self.sizes[n - 1][1]
        ]
        last = max((cut for cut in cuts if cut <= epoch), default=0)
        following = min((cut for cut in cuts if cut > epoch), default=len(self.sizes))
        candidates = [v for v in self.versions.get(sector, []) if last <= v.epoch < following]
        old = bytes(SECTOR) if last else self.durable[low : low + SECTOR].ljust(SECTOR, b"\0")
        return next((v.content for v in reversed(candidates) if v.time <= time), old)

    def _note(self, time: float, sector: int) -> None:
        content = bytes(self.cached[sector * SECTOR : (sector + 1) * SECTOR]).ljust(SECTOR, b"\0")
        self.versions.setdefault(sector, []).append(Version(time, len(self.sizes) - 1, content))

    def _dirty(self, begin: int, end: int) -> None:
        """The kernel writes whole pages: all that it knew of one is to be written again."""
        first, stop = begin // PAGE * PAGE // SECTOR, -(-end // PAGE) * PAGE // SECTOR
        self._clean -= set(range(first, stop))

    def _fixed(self, sector: int) -> list[Version]:
        return [version._replace(epoch=0) for version in self.versions[sector]]


class Disk:
    """A folder's files and names, durable and not, as the operations that are applied leave them."""

    def __init__(self, before: State, tear: Callable[[str, int, int], int] | None = None) -> None:
        self.time = 0
        self._tear = tear
        files = [name for name in before if not name.endswith("/")]
        self._files = [CachedFile(before[name]) for name in files]
        self._names: dict[str, int | None] = {name: n for n, name in enumerate(files)}  # None for a folder
        self._names.update({name[:-1]: None for name in before if name.endswith("/")})
        self._durable = dict(self._names)
        self._pending: list[tuple[float, dict[str, int | str | None]]] = []  # "gone", a file's number or a folder

    def apply(self, operation: Operation) -> None:
        """One operation, as recorder.py names them."""
        self.time += 1
        kind, *given = operation
        getattr(self, "_" + kind)(*given)

    def seen(self) -> State:
        """What a process sees in the page cache."""
        return {
            name + "/" * (n is None): b"" if n is None else bytes(self._files[n].cached)
            for name, n in self._names.items()
        }

    def states(self, rng: np.random.Generator, samples: int) -> Iterator[State]:
        """What may be on the disk now: all of it where that is little, else the extremes and random mixtures.

        Extremes have whole pages as old or as new as can be: all subsets of few, each alone and all but each of many.
        """
        knobs = dict(self._knobs())
        if math.prod(len(times) for times in knobs.values()) <= EXHAUSTIVE:
            for times in itertools.product(*knobs.values()):
                yield self._state(dict(zip(knobs, times, strict=True)), LAST)
            return
        groups = _pages(knobs)
        if 2 ** len(groups) <= EXHAUSTIVE:
            subsets = itertools.product((False, True), repeat=len(groups))
        else:
            none, alone = np.zeros((1, len(groups)), bool), np.eye(len(groups), dtype=bool)
            subsets = iter(np.concatenate([none, alone, ~alone, ~none]).tolist())
        for subset in subsets:
            new = itertools.chain.from_iterable(itertools.compress(groups.values(), subset))
            yield self._state(dict.fromkeys(new, LAST), 0)
        for n in range(samples):
            yield self._state(_mixture(rng, knobs, groups, torn=n % 2 == 0), LAST)

    def power_cut(self, rng: np.random.Generator) -> State:
        """What may be on the disk now: all or nothing of it, or a mixture of pages or of sectors."""
        how = rng.choice(["all", "nothing", "pages", "sectors"], p=[0.1, 0.1, 0.2, 0.6])
        if how in ("all", "nothing"):
            return self._state({}, LAST if how == "all" else 0)
        knobs = dict(self._knobs())
        return self._state(_mixture(rng, knobs, _pages(knobs), torn=how == "sectors"), LAST)

    def _knobs(self) -> Iterator[tuple[Knob, list[float]]]:
        reachable = {*self._durable.values(), *self._names.values()}
        for time, change in self._pending:
            reachable.update(n for n in change.values() if isinstance(n, int))
            yield ("names", time), [0, time]
        for n, file in enumerate(self._files):
            if n in reachable:
                for knob, times in file.knobs():
                    yield (n, *knob), times

    def _state(self, choice: Choice, default: float) -> State:
        names: dict[str, Any] = dict(self._durable)
        for time, change in self._pending:
            if choice.get(("names", time), default) >= time:
                names.update(change)
        by_file: dict[int, Choice] = {}
        for knob, time in choice.items():
            if knob[0] != "names":
                by_file.setdefault(knob[0], {})[knob[1:]] = time
        found = {}
        for name, n in names.items():
            folders = [name[:at] for at, letter in enumerate(name) if letter == "/"]
            if n == "gone" or any(names.get(folder, "gone") is not None for folder in folders):
                continue  # nothing has this name, or nothing leads to it
            found[name + "/" * (n is None)] = b"" if n is None else self._files[n].content(by_file.get(n, {}), default)
        return found

    def _rename_names(self, change: dict[str, int | str | None]) -> None:
        self._pending.append((self.time, change))
        for name, n in change.items():
            if n == "gone":
                self._names.pop(name, None)
            else:
                self._names[name] = n

    def _file(self, name: str) -> CachedFile:
        n = self._names[name]
        assert n is not None, f"{name} is a folder"
        return self._files[n]

    # Operations

    def _create(self, name: str) -> None:
        self._files.append(CachedFile())
        self._rename_names({name: len(self._files) - 1})

    def _folder(self, name: str) -> None:
        self._rename_names({name: None})

    def _remove(self, name: str) -> None:
        self._rename_names({name: "gone"})

    def _link(self, old: str, new: str) -> None:
        self._rename_names({new: self._names[old]})

    def _rename(self, old: str, new: str) -> None:
        self._rename_names({old: "gone", new: self._names[old]})

    def _write(self, name: str, offset: int, content: bytes) -> None:
        tear = None if self._tear is None else functools.partial(self._tear, name)
        self._file(name).write(self.time, offset, content, tear)

    def _store(self, name: str, offset: int, content: bytes) -> None:
        self._file(name).store(self.time, offset, content)

    def _touch(self, name: str, offset: int, n_bytes: int) -> None:
        self._file(name).touch(self.time, offset, n_bytes)

    def _resize(self, name: str, size: int) -> None:
        self._file(name).resize(self.time, size)

    def _sync(self, name: str) -> None:
        self._file(name).sync()

    def _sync_failed(self, name: str) -> None:
        self._file(name).sync_failed()

    def _sync_all_failed(self) -> None:
        for file in self._files:
            file.sync_failed()

    def _sync_folder(self, folder: str) -> None:
        kept = []
        for time, change in self._pending:
            if next(iter(change)).rpartition("/")[0] == folder:
                self._durable.update(change)
            else:
                kept.append((time, change))
        self._durable = {name: n for name, n in self._durable.items() if n != "gone"}
        self._pending = kept

    def _sync_all(self) -> None:
        for file in self._files:
            file.sync()
        self._durable, self._pending = dict(self._names), []

    def _replace(self, name: str, content: bytes) -> None:
        """A file that changes in one durable step."""
        self._files.append(CachedFile(content))
        self._names[name] = self._durable[name] = len(self._files) - 1


def _pages(knobs: Iterable[Knob]) -> dict[Knob, list[Knob]]:
    """The sectors of each page, and each other knob alone."""
    groups: dict[Knob, list[Knob]] = {}
    for knob in knobs:
        page = (*knob[:2], knob[2] * SECTOR // PAGE) if knob[1:2] == ("sector",) else knob
        groups.setdefault(page, []).append(knob)
    return groups


def _mixture(
    rng: np.random.Generator, knobs: dict[Knob, list[float]], groups: dict[Knob, list[Knob]], *, torn: bool
) -> Choice:
    """A moment for everything: for each page one, or, torn, for each sector one."""
    choice: Choice = {}
    for group in groups.values():
        times = sorted({time for knob in group for time in knobs[knob]})
        together = times[rng.integers(len(times))]
        for knob in group:
            choice[knob] = knobs[knob][rng.integers(len(knobs[knob]))] if torn else together
    return choice
