"""Batches of files that are edited in place: pieces of them, how they are announced, and their patches as bytes."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from poscuda_fast.disk import Buffer
from poscuda_fast.errors import SidecarError
from poscuda_fast.files.records import WHOLE, Places, Record
from poscuda_fast.kernels import Ints
from poscuda_fast.mark.codings import CODINGS
from poscuda_fast.mark.labels import token_of
from poscuda_fast.mark.patches import Patches
from poscuda_fast.mark.stretches import Bytes, Stretches
from poscuda_fast.secrecy import Secret

Label = str | int


class Rows:
    """The row of the marks of each label at each sample rate."""

    def __init__(self, tokens: Sequence[bytes], rates: Sequence[int], *, steady: bool) -> None:
        self._tokens = {token: row for row, token in enumerate(tokens)}
        self._rates = {rate: n * len(tokens) for n, rate in enumerate(rates)} if steady else {}
        self._steady = steady

    def of(self, label: Label, rate: int) -> int:
        """The row; SidecarError if a record names a class or rate that its header does not."""
        try:
            return self._tokens[token_of(label)] + (self._rates[rate] if self._steady else 0)
        except KeyError:
            raise SidecarError(
                "A record of the sidecar names a class that it does not describe; restore a backup of it."
            ) from None


class Part(NamedTuple):
    """A piece of a file with the label and the sample rate of the file."""

    record: Record
    label: Label
    rate: int


class Group(NamedTuple):
    """Uncompressed pieces of one coding and number of channels: their numbers in the batch, and their patches."""

    numbers: list[int]
    stretches: Stretches

    def join(self, contents: Sequence[Buffer], records: Sequence[Record]) -> Bytes:
        """The bytes of all patches, one behind the other."""
        taken = [Places(records[n]).take(contents[n], records[n].begin) for n in self.numbers]
        return np.frombuffer(bytearray().join(taken), np.uint8)

    def split(self, dense: Bytes, records: Sequence[Record]) -> Iterator[tuple[int, memoryview]]:
        """(number in the batch, bytes of its patches) of each piece."""
        first = 0
        for n in self.numbers:
            size = records[n].kept
            yield n, dense[first : first + size].data
            first += size


class FileBatch(Secret):
    """Pieces of files that are recorded together: all of uncompressed files, or all of files that are encoded again.

    Attributes
    ----------
    parts : sequence of Part
    records : list of Record
    steady : bool
        Whether the marks are those of format 2.
    """

    def __init__(self, parts: Sequence[Part], *, steady: bool) -> None:
        self.parts = parts
        self.records = [part.record for part in parts]
        self.steady = steady

    def __repr__(self) -> str:
        return f"FileBatch({len(self.parts)} pieces)"

    @property
    def is_encoded(self) -> bool:
        """Whether these are files that are encoded again."""
        return self.records[0].is_encoded

    @functools.cached_property
    def groups(self) -> list[Group]:
        """The uncompressed pieces by kind of sample."""
        kinds: dict[tuple[str, int], list[int]] = {}
        for number, record in enumerate(self.records):
            if record.sizes:
                kinds.setdefault((record.coding, record.channels), []).append(number)
        return [Group(numbers, self._stretches(*kind, numbers)) for kind, numbers in kinds.items()]

    def renamed(self, name: str) -> FileBatch:
        """The same pieces of one file under another name."""
        parts = [part._replace(record=part.record._replace(name=name)) for part in self.parts]
        return FileBatch(parts, steady=self.steady)

    def pack(self) -> bytes:
        """Where the pieces lie."""
        return json.dumps([_fields(part) for part in self.parts], separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def parse(cls, announcement: memoryview, rows: Rows, *, steady: bool) -> FileBatch:
        """The batch that was packed."""
        return cls([_part(fields, rows) for fields in json.loads(bytes(announcement))], steady=steady)

    def _stretches(self, coding: str, channels: int, numbers: list[int]) -> Stretches:
        records = [self.records[n] for n in numbers]
        counts = [len(record.sizes) for record in records]
        starts = np.array([start for record in records for start in record.starts], np.int64)
        sizes = np.array([size for record in records for size in record.sizes], np.int64)
        rows = np.repeat(np.array([record.row for record in records], np.int64), counts)
        offsets: Ints = np.repeat(np.array([record.offset for record in records], np.int64), counts)
        firsts = offsets + starts * (channels * CODINGS[coding])
        patches = Patches(np.repeat(np.array(numbers, np.int64), counts), starts, sizes, rows)
        return Stretches(coding, channels, patches, firsts, self.steady)


def _fields(part: Part) -> list[object]:
    record = part.record
    return [
        record.name,
        part.label,
        part.rate,
        record.coding,
        record.channels,
        record.frames,
        record.offset,
        record.size,
        record.begin,
        record.end,
        record.starts,
        record.sizes,
        record.time,
    ]


def _part(fields: Sequence[object], rows: Rows) -> Part:
    name, label, rate, coding, channels, frames, offset, size, begin, end, starts, sizes, time = fields
    row = rows.of(label, rate)  # type: ignore[arg-type]
    record = Record(name, row, coding, channels, frames, offset, size, begin, end, starts, sizes, time)  # type: ignore[arg-type]
    return Part(record, label, rate)  # type: ignore[arg-type]


def encoded_parts(part: Part, piece_bytes: int, begin: int = 0) -> Iterator[Part]:
    """The pieces of an encoded file from a byte on; the last one has its patches."""
    whole = part.record
    for first in range(begin, whole.size, piece_bytes):
        end = min(first + piece_bytes, whole.size)
        record = whole._replace(offset=WHOLE, begin=first, end=end)
        yield part._replace(record=record if record.is_last else record._replace(starts=[], sizes=[]))
