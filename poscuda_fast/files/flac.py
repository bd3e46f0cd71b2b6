"""What a FLAC file carries beside its samples, and how it comes into the file that is encoded anew.

FLAC is described in RFC 9639: "fLaC", metadata blocks (section 8), and frames of samples (section 9). Every block but
two is kept byte for byte: STREAMINFO describes the new frames, and SEEKTABLE says where they begin.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from poscuda_fast.errors import AudioFileError

MARKER = b"fLaC"
BITS = (16, 24)
HEAD_BYTES = 1 << 16  # by which `is_flac` tells: an ID3v2 tag may come first
STREAMINFO, SEEKTABLE = 0, 3
_INFO_BYTES = 34
_POINT = struct.Struct(">QQH")  # first sample, first byte, samples of a frame
_NO_POINT = 2**64 - 1  # the first sample of a place that is kept free
_ID3V1_BYTES = 128
_PIECE = 1 << 20
_LONGEST_HEADER = 16
_MOST_FRAME = 1 << 21  # bytes, where STREAMINFO does not tell
_CRC8 = [0] * 256
for _byte in range(256):
    _value = _byte
    for _ in range(8):
        _value = (_value << 1 ^ 0x07 if _value & 0x80 else _value << 1) & 0xFF
    _CRC8[_byte] = _value


class Info(NamedTuple):
    """What STREAMINFO tells: frames per block, bytes of the longest, bits per sample, and the number of samples."""

    block: int
    longest: int
    bits: int
    samples: int


class Carried(NamedTuple):
    """What lies before and behind the frames of a FLAC file.

    Attributes
    ----------
    before : bytes
        Before "fLaC": tags that do not belong there, such as ID3v2.
    blocks : sequence of (int, bytes)
        Type and content of each metadata block; the first one is STREAMINFO.
    behind : bytes
        Behind the frames: an ID3v1 tag.
    first : int
        The byte where the frames begin.
    """

    before: bytes
    blocks: Sequence[tuple[int, bytes]]
    behind: bytes
    first: int

    @property
    def info(self) -> Info:
        """What STREAMINFO says."""
        content = self.blocks[0][1]
        return Info(
            int.from_bytes(content[2:4], "big"),
            int.from_bytes(content[7:10], "big"),
            (int.from_bytes(content[12:14], "big") >> 4 & 31) + 1,
            int.from_bytes(content[13:18], "big") & (1 << 36) - 1,
        )

    @property
    def has_points(self) -> bool:
        """Whether there is a seek table."""
        return any(kind == SEEKTABLE for kind, _ in self.blocks)

    def head(self) -> bytes:
        """The bytes of the file up to its frames."""
        parts = [self.before, MARKER]
        for number, (kind, content) in enumerate(self.blocks):
            last = 0x80 * (number == len(self.blocks) - 1)
            parts += [bytes([last | kind]), len(content).to_bytes(3, "big"), content]
        return b"".join(parts)


def is_flac(head: bytes) -> bool:
    """Whether a file that begins so is FLAC, as far as an ID3v2 tag before it allows to say."""
    begin = _id3_bytes(head)
    return head[begin : begin + 4] == MARKER


def read(source: BinaryIO, name: str) -> Carried:
    """What a FLAC file carries; AudioFileError if it is cut within its metadata."""
    source.seek(0)
    size = _id3_bytes(source.read(10))
    source.seek(0)
    before = source.read(size)
    if source.read(4) != MARKER:
        raise AudioFileError(f"{name} cannot be used: it does not begin as FLAC does.")
    blocks: list[tuple[int, bytes]] = []
    kind = 0
    while not kind & 0x80:
        head = source.read(4)
        kind, size = (head[0], int.from_bytes(head[1:], "big")) if len(head) == 4 else (0x80, -1)
        content = source.read(max(0, size))
        if len(content) != size or (not blocks and (kind & 0x7F != STREAMINFO or size != _INFO_BYTES)):
            raise AudioFileError(f"{name} cannot be used: its metadata are damaged; encode the file again.")
        blocks.append((kind & 0x7F, content))
    first = source.tell()
    behind = b""
    end = source.seek(0, io.SEEK_END)
    if end - first >= _ID3V1_BYTES:
        source.seek(end - _ID3V1_BYTES)
        tag = source.read(_ID3V1_BYTES)
        behind = tag if tag.startswith(b"TAG") else b""
    return Carried(before, blocks, behind, first)


def refuse_unmarkable(source: BinaryIO, name: str) -> None:
    """AudioFileError for samples that cannot be marked.

    Also if STREAMINFO counts fewer than the frames have: the others would be dropped.
    """
    carried = read(source, name)
    info = carried.info
    if info.bits not in BITS:
        raise AudioFileError(
            f"{name} cannot be used: it is FLAC of {info.bits} bits; 16 and 24 are marked, so convert it."
        )
    if info.samples == 0:
        raise AudioFileError(
            f"{name} cannot be used: its header does not say how long it is, as if it had been streamed; encode the "
            f"file again, with flac for one, which completes the header."
        )
    there = _samples_in(source, carried)
    if there is not None and there > info.samples:
        raise AudioFileError(
            f"{name} cannot be used: its header counts {info.samples:,} samples and it has {there:,}; encode the file "
            f"again, from a decoder that reads all of them."
        )


def remade(carried: Carried, made: Carried, source: BinaryIO) -> bytes:
    """The head of a file with the frames in `source`, which were `made`, and all that another file carried."""
    blocks = [(STREAMINFO, made.blocks[0][1])]
    for kind, content in carried.blocks[1:]:
        blocks.append((kind, _seek_table(content, made, source) if kind == SEEKTABLE else content))
    return carried._replace(blocks=blocks).head()


def _seek_table(points: bytes, made: Carried, source: BinaryIO) -> bytes:
    """Points at the same samples, in other frames."""
    block = made.info.block
    wanted = [one[0] for one in _POINT.iter_unpack(points[: len(points) // _POINT.size * _POINT.size])]
    places = _places(source, made, {first // block for first in wanted if first < made.info.samples})
    found = {}
    for first in wanted:
        if first // block in places:
            begin = first // block * block
            found[begin] = places[first // block], min(block, made.info.samples - begin)
    ordered = [_POINT.pack(first, *found[first]) for first in sorted(found)]  # each once, in order: section 8.5
    return b"".join(ordered + [_POINT.pack(_NO_POINT, 0, 0)] * (len(wanted) - len(ordered)))


def _places(source: BinaryIO, made: Carried, wanted: set[int]) -> dict[int, int]:
    """Where the frames with some numbers begin, in bytes from the first frame."""
    found: dict[int, int] = {}
    expected = 0
    for number, place in _headers(source, made.first):
        if number == expected:  # anything else only looks like the head of a frame
            if number in wanted:
                found[number] = place - made.first
            expected += 1
    return found


def _headers(source: BinaryIO, first: int) -> Iterator[tuple[int, int]]:
    """(number, first byte) of what looks like the head of a frame of fixed size, in order."""
    position, rest = first, b""
    while True:
        source.seek(position + len(rest))
        content = rest + source.read(_PIECE)
        is_end = len(content) == len(rest)
        most = len(content) if is_end else len(content) - _LONGEST_HEADER
        for place in _candidates(content, 0xF8):
            head = _parse(content, place) if place < most else None
            if head is not None:
                yield head[0], position + place
        if is_end:
            return
        rest, position = content[most:], position + most


def _samples_in(source: BinaryIO, carried: Carried) -> int | None:
    """How many samples the frames have, by the head of the last one; None if none is found."""
    end = source.seek(0, io.SEEK_END) - len(carried.behind)
    begin = max(carried.first, end - 2 * (carried.info.longest or _MOST_FRAME) - _LONGEST_HEADER)
    source.seek(carried.first)
    second = source.read(2)[1:]
    if second not in (b"\xf8", b"\xf9"):
        return None
    source.seek(begin)
    content = source.read(end - begin)
    for place in reversed(_candidates(content, second[0])):
        head = _parse(content, place)
        if head is not None:
            number, size = head
            return (number if second == b"\xf9" else number * carried.info.block) + size
    return None


def _candidates(content: bytes, second: int) -> list[int]:
    """Where the two bytes stand with which a frame begins."""
    values = np.frombuffer(content, np.uint8)
    found: list[int] = np.flatnonzero((values[:-1] == 0xFF) & (values[1:] == second)).tolist()
    return found


def _parse(content: bytes, place: int) -> tuple[int, int] | None:
    """(number, samples) of the frame whose head stands at a place; None if that is no head. Section 9.1."""
    head = content[place : place + _LONGEST_HEADER]
    if len(head) < 6 or head[3] & 0x01 or head[2] >> 4 == 0 or head[2] & 0x0F == 0x0F or head[3] >> 4 > 10:
        return None
    number, position = _coded_number(head)
    if number is None:
        return None
    code = head[2] >> 4
    if code in (6, 7):
        size = int.from_bytes(head[position : position + code - 5], "big") + 1
        position += code - 5
    else:
        size = 192 if code == 1 else 576 << code - 2 if code < 6 else 256 << code - 8
    position += {12: 1, 13: 2, 14: 2}.get(head[2] & 0x0F, 0)
    if position >= len(head):
        return None
    crc = 0
    for byte in head[:position]:
        crc = _CRC8[crc ^ byte]
    return (number, size) if crc == head[position] else None


def _coded_number(head: bytes) -> tuple[int | None, int]:
    """The number of a frame or sample, which is coded as UTF-8 codes longer ones, and where it ends."""
    first = head[4]
    ones = 8 - (first ^ 0xFF).bit_length()
    if ones == 0:
        return first, 5
    if ones == 1 or ones > 7 or len(head) < 4 + ones:
        return None, 5
    number = first & (0x7F >> ones)
    for byte in head[5 : 4 + ones]:
        if byte >> 6 != 2:
            return None, 5
        number = number << 6 | byte & 0x3F
    return number, 4 + ones


def _id3_bytes(head: bytes) -> int:
    """Bytes of an ID3v2 tag with which a file begins; 0 if there is none."""
    if len(head) < 10 or head[:3] != b"ID3" or any(byte & 0x80 for byte in head[6:10]):
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + 10 * bool(head[5] & 0x10)
