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
    """One file before it was edited; secret, since it tells where the patches are.

    Attributes
    ----------
    name : str
        Path below the folder, with "/".
    row : int
        Its class's row of `Plan.marks`.
    coding, channels, frames
        Its samples.
    offset : int
        Where they begin in the file; `WHOLE` for an encoded file, whose bytes are kept whole.
    size : int
        Bytes of the file.
    starts, sizes : list of int
        Its patches, in frames.
    sha256 : str
        Of the file; empty as long as it is not known.
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
        """Bytes kept of it."""
        return self.size if self.offset == WHOLE else sum(self.sizes) * self.frame_bytes

    def with_digest(self, sha256: str) -> Record:
        """The same with its file's digest."""
        return Record(*self[:-1], sha256)


class Places:
    """Where the patches of a WAV file lie in its bytes; they are taken and put as one piece, patch after patch.

    Attributes
    ----------
    firsts, sizes : list of int
        The first byte of each patch in the file, and its bytes.
    """

    def __init__(self, record: Record) -> None:
        unit = record.frame_bytes
        self.firsts = [record.offset + start * unit for start in record.starts]
        self.sizes = [size * unit for size in record.sizes]
        self._begins = list(itertools.accumulate(self.sizes, initial=0))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.firsts, self.sizes, strict=True)

    def take(self, content: Buffer) -> bytes:
        """The patches in a file's content."""
        return b"".join([content[first : first + size] for first, size in self])

    def put(self, content: bytearray, patches: Buffer, position: int = 0) -> None:
        """Put patches where they belong in content that begins at byte `position` of the file, as far as it goes."""
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
    """Records and what is kept of their files, as one payload."""
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
