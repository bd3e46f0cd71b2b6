"""Turns a lossy file into FLAC, piece by piece, so that one of any length takes little memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from poscuda_fast.files.encoded import Reader, Writer


class Piece(NamedTuple):
    """Some bytes of a file: where they begin, and the size of the whole file."""

    begin: int
    size: int
    content: bytes


def to_flac(source: BinaryIO, name: str, piece_bytes: int) -> Iterator[Piece]:
    """The 16-bit FLAC file that a lossy file becomes, in pieces; AudioFileError if it cannot be decoded.

    An encoder writes its header again at the end. So one that makes more than a piece runs twice: for the header and
    the size, and for the rest.
    """
    first = _Sink(0, piece_bytes)
    for _ in _encoding(source, name, first):
        pass
    yield Piece(0, first.size, bytes(first.held))
    if first.size <= piece_bytes:
        return
    rest = _Sink(piece_bytes, None)
    for _ in _encoding(source, name, rest):
        while len(rest.held) > piece_bytes:
            yield Piece(rest.begin, first.size, rest.take(piece_bytes))
    while rest.held:
        yield Piece(rest.begin, first.size, rest.take(piece_bytes))


def _encoding(source: BinaryIO, name: str, sink: _Sink) -> Iterator[None]:
    """Encode into a sink, with a step after each block."""
    with Reader(source, name) as reader, Writer(sink, reader.encoding, reader.tags) as writer:  # type: ignore[arg-type]
        for block in reader.blocks():
            writer.write(block)
            yield


class _Sink(io.RawIOBase):
    """A file that holds only the bytes from `begin` on, and at most `most` of them."""

    def __init__(self, begin: int, most: int | None) -> None:
        self.begin, self.size, self.held = begin, 0, bytearray()
        self._most, self._position = most, 0

    def take(self, n: int) -> bytes:
        """Remove the first bytes that it holds."""
        found = bytes(self.held[:n])
        del self.held[:n]
        self.begin += len(found)
        return found

    def write(self, content: bytes) -> int:  # type: ignore[override]
        first = self._position - self.begin
        shown = content[max(0, -first) :]
        first = max(0, first)
        if self._most is not None:
            shown = shown[: max(0, self._most - first)]
        self.held[first : first + len(shown)] = shown
        self._position += len(content)
        self.size = max(self.size, self._position)
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True
