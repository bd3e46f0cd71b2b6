"""A piece of an audio file: where it lies, and where its patches are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from poscuda_fast.disk import Buffer
from poscuda_fast.mark import codings

WHOLE = -1  # the `offset` of a record whose bytes are all kept, not only those of its patches


class Record(NamedTuple):
    """A piece of a file before it was edited; secret, because it says where the patches are.

    A file of ordinary length is a single piece.

    Attributes
    ----------
    name : str
        Path below the folder, with "/".
    row : int
        Row of its class in `Plan.marks`.
    coding, channels, frames
        How the file's samples are stored, and their length in frames.
    offset : int
        Byte where the samples begin in the file; `WHOLE` for an encoded file, of which all bytes are kept.
    size : int
        Size of the file in bytes.
    begin, end : int
        The bytes of the file that this piece consists of.
    starts, sizes : list of int
        The patches in this piece, in frames of the file; of an encoded file, the last piece has all.
    time : int
        When the file was last changed, in nanoseconds; 0 where nothing is put back.
    """

    name: str
    row: int
    coding: str
    channels: int
    frames: int
    offset: int
    size: int
    begin: int
    end: int
    starts: Sequence[int]
    sizes: Sequence[int]
    time: int = 0

    def __repr__(self) -> str:
        return f"Record({self.name!r})"

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame of its samples, all channels."""
        return self.channels * codings.CODINGS[self.coding]

    @property
    def is_encoded(self) -> bool:
        """Whether the file is encoded again to be edited."""
        return self.offset == WHOLE

    @property
    def is_last(self) -> bool:
        """Whether this is the file's last piece."""
        return self.end == self.size

    @property
    def is_whole(self) -> bool:
        """Whether this is the file's only piece."""
        return self.begin == 0 and self.is_last

    @property
    def kept(self) -> int:
        """How many of its bytes the journal keeps."""
        return self.end - self.begin if self.is_encoded else sum(self.sizes) * self.frame_bytes

    @property
    def sound(self) -> slice:
        """Where the samples of an uncompressed file lie in the piece's bytes."""
        first, end = self.offset - self.begin, self.offset + self.frames * self.frame_bytes - self.begin
        return slice(max(0, first), max(0, min(end, self.end - self.begin)))


class Places:
    """Where the patches of a piece of an uncompressed file lie in the file's bytes.

    Attributes
    ----------
    firsts, sizes : list of int
        First byte in the file, and size in bytes, of each patch.
    """

    def __init__(self, record: Record) -> None:
        unit = record.frame_bytes
        self.firsts = [record.offset + start * unit for start in record.starts]
        self.sizes = [size * unit for size in record.sizes]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.firsts, self.sizes, strict=True)

    def take(self, content: Buffer, begin: int = 0) -> Buffer:
        """The patches, one behind the other; `content` holds the file's bytes from `begin` on."""
        view = memoryview(content)
        found = [view[first - begin : first - begin + size] for first, size in self]
        return found[0] if len(found) == 1 else b"".join(found)

    def put(self, content: bytearray, patches: Buffer, begin: int = 0) -> None:
        """Write patches into a file's bytes from `begin` on."""
        done = 0
        for first, size in self:
            content[first - begin : first - begin + size] = patches[done : done + size]
            done += size

    def woven(self, content: Buffer, patches: Buffer, begin: int = 0) -> Iterator[memoryview]:
        """The bytes of `content` with other patches, in parts."""
        view, other = memoryview(content), memoryview(patches)
        position = done = 0
        for first, size in self:
            yield view[position : first - begin]
            yield other[done : done + size]
            position, done = first - begin + size, done + size
        yield view[position:]
