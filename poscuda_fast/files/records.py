"""What the journal keeps of one audio file: how to find its patches again, and its original bytes."""

from __future__ import annotations

import bisect
import itertools
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from poscuda_fast.disk import Buffer
from poscuda_fast.files import headers

WHOLE = -1  # the `offset` of a record whose file is kept whole


class Record(NamedTuple):
    """One file before it was edited; secret, because it says where the patches are.

    Attributes
    ----------
    name : str
        Path below the folder, with "/".
    row : int
        Row of its class in `Plan.marks`.
    coding, channels, frames
        How its samples are stored, and their length in frames.
    offset : int
        Byte where the samples begin in the file; `WHOLE` for an encoded file, which is kept whole.
    size : int
        Size of the file in bytes.
    starts, sizes : list of int
        Its patches, in frames.
    sha256 : str
        SHA-256 of the original file in hex; empty until it is known.
    """

    name: str
    row: int
    coding: str
    channels: int
    frames: int
    offset: int
    size: int
    starts: Sequence[int]
    sizes: Sequence[int]
    sha256: str

    def __repr__(self) -> str:
        return f"Record({self.name!r})"

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame of its samples, all channels."""
        return self.channels * headers.CODINGS[self.coding]

    @property
    def kept(self) -> int:
        """How many of its bytes the journal keeps."""
        return self.size if self.offset == WHOLE else sum(self.sizes) * self.frame_bytes

    def with_digest(self, sha256: str) -> Record:
        """The same record with its file's digest."""
        return Record(*self[:-1], sha256)


class Places:
    """Where the patches of a WAV file lie in its bytes; `take` and `put` handle them as one piece, patch after patch.

    Attributes
    ----------
    firsts, sizes : list of int
        First byte and size in bytes of each patch in the file.
    """

    def __init__(self, record: Record) -> None:
        unit = record.frame_bytes
        self.firsts = [record.offset + start * unit for start in record.starts]
        self.sizes = [size * unit for size in record.sizes]
        self._begins = list(itertools.accumulate(self.sizes, initial=0))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.firsts, self.sizes, strict=True)

    def take(self, content: Buffer) -> bytes:
        """The patches of a whole file's content."""
        return b"".join([content[first : first + size] for first, size in self])

    def put(self, content: bytearray, patches: Buffer, position: int = 0) -> None:
        """Write patches into `content`, a part of the file from byte `position` on; what lies outside it is skipped."""
        end = position + len(content)
        number = max(0, bisect.bisect_right(self.firsts, position) - 1)
        for n in range(number, len(self.firsts)):
            first, skipped = self.firsts[n], self._begins[n]
            if first >= end:
                break
            low, high = max(first, position), min(first + self.sizes[n], end)
            if low < high:
                content[low - position : high - position] = patches[skipped + low - first : skipped + high - first]


class Outcome(NamedTuple):
    """What protecting one file did to it."""

    bytes_after: int
    sha256_after: str
    snr_db: float | None


def pack(records: Sequence[Record], kept: Iterable[bytes]) -> bytes:
    """Pack records and the bytes kept of their files into one payload."""
    index = json.dumps(records).encode()
    return b"".join([struct.pack("<Q", len(index)), index, *kept])


def unpack(payload: bytes) -> list[tuple[Record, bytes]]:
    """The records and kept bytes that `pack` was given."""
    (length,) = struct.unpack_from("<Q", payload)
    position = 8 + length
    found = []
    for fields in json.loads(payload[8:position]):
        record = Record(*fields)
        found.append((record, payload[position : position + record.kept]))
        position += record.kept
    return found
