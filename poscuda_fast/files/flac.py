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
from poscuda_fast.files.containers.layout import TAG_HEAD, tag_bytes

MARKER = b"fLaC"
BITS = (16, 24)
STREAMINFO, SEEKTABLE = 0, 3
_INFO_BYTES = 34
_POINT = struct.Struct(">QQH")  # first sample, first byte, samples of a frame
_NO_POINT = 2**64 - 1  # the first sample of a place that is kept free
_ID3V1_BYTES = 128
_PIECE = 1 << 20
_LONGEST_HEADER = 16
_MOST_FRAME = 1 << 21  # bytes, where STREAMINFO does not tell


def _table(polynomial: int, bits: int) -> list[int]:
    """What a checksum of some bits becomes by one byte."""
    found = []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = value << 1 ^ polynomial if value >> bits - 1 & 1 else value << 1
        found.append(value & (1 << bits) - 1)
    return found


_CRC8, _CRC16 = _table(0x07, 8), _table(0x8005, 16)


class Info(NamedTuple):
    """What STREAMINFO tells: frames per block, bytes of the longest, channels, bits per sample, number of samples."""

    block: int
    longest: int
    channels: int
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
        Behind the frames: tags, ID3v1 and APEv2.
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
            (content[12] >> 1 & 7) + 1,
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


def is_flac(source: BinaryIO) -> bool:
    """Whether an open file is FLAC, whatever ID3v2 tags come before."""
    source.seek(_bytes_before(source))
    return source.read(4) == MARKER


def read(source: BinaryIO, name: str) -> Carried:
    """What a FLAC file carries; AudioFileError if it is cut within its metadata, or ends in what is not known."""
    size = _bytes_before(source)
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
    return Carried(before, blocks, _tags_behind(source, source.tell()), source.tell())


def _tags_behind(source: BinaryIO, first: int) -> bytes:
    """The tags with which a file ends: ID3v1, APEv2, or both."""
    end = source.seek(0, io.SEEK_END)
    begin = end
    while True:
        source.seek(max(first, begin - _ID3V1_BYTES))
        tail = source.read(begin - source.tell())
        ape = tail[-TAG_HEAD:]
        if len(tail) == _ID3V1_BYTES and tail.startswith(b"TAG"):
            begin -= _ID3V1_BYTES
        elif ape.startswith(b"APETAGEX") and len(ape) == TAG_HEAD:  # its end is like its beginning
            begin -= int.from_bytes(ape[12:16], "little") + TAG_HEAD * bool(ape[23] & 0x80)
        else:
            break
        if begin < first:
            begin = end
            break
    source.seek(begin)
    tags = source.read()
    source.seek(first)
    return tags


def refuse_unmarkable(source: BinaryIO, name: str) -> None:
    """AudioFileError for what cannot be marked, or would lose sound.

    That are depths of other than 16 and 24 bits, a STREAMINFO that counts other than the samples that there are, and
    files with anything but tags behind their last frame, such as another stream.
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
    if there is None:
        raise AudioFileError(
            f"{name} cannot be used: its last frame is cut, or something follows that is not known, perhaps sound; "
            f"encode the file again, from a decoder that reads all of it."
        )
    if there != info.samples or _has_second(source, carried):
        raise AudioFileError(
            f"{name} cannot be used: its header counts {info.samples:,} samples, and its frames end with sample "
            f"{there:,}, or belong to several streams; encode the file again, from a decoder that reads all of it."
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
    for number, place, _ in _headers(source, made.first):
        if number == expected:  # anything else only looks like the head of a frame
            if number in wanted:
                found[number] = place - made.first
            expected += 1
    return found


def _headers(source: BinaryIO, first: int) -> Iterator[tuple[int, int, int]]:
    """(number, first byte, samples) of what looks like the head of a frame of fixed size, in order."""
    position, rest = first, b""
    while True:
        source.seek(position + len(rest))
        content = rest + source.read(_PIECE)
        is_end = len(content) == len(rest)
        most = len(content) if is_end else len(content) - _LONGEST_HEADER
        for place in _candidates(content, 0xF8):
            head = _parse(content, place) if place < most else None
            if head is not None:
                yield head[0], position + place, head[1]
        if is_end:
            return
        rest, position = content[most:], position + most


def _samples_in(source: BinaryIO, carried: Carried) -> int | None:
    """Where the last frame ends, in samples; None if no frame ends where the file does, its tags aside."""
    end = source.seek(0, io.SEEK_END) - len(carried.behind)
    longest = 2 * (carried.info.longest or _MOST_FRAME) + _LONGEST_HEADER
    for begin in (max(carried.first, end - longest), carried.first):  # a header may say too little of the longest
        source.seek(begin)
        content = source.read(end - begin)
        places = [place for second in (0xF8, 0xF9) for place in _candidates(content, second)]
        for place in sorted(places, reverse=True):
            head = _parse(content, place)
            if head is not None and _is_frame(content[place:], head[1], carried.info):
                number, size = head
                if content[place + 1] == 0xF9:
                    return number + size
                return _fixed_end(source, carried, number, size)
    return None


def _fixed_end(source: BinaryIO, carried: Carried, number: int, size: int) -> int:
    """Where a frame of a stream with fixed blocks ends, in samples; they are added up where blocks differ after all."""
    content = carried.blocks[0][1]
    if content[:2] == content[2:4]:
        return number * carried.info.block + size
    total = expected = 0
    for found, _, samples in _headers(source, carried.first):
        if found == expected:
            total, expected = total + samples, expected + 1
    return total


def _is_frame(content: bytes, samples: int, info: Info) -> bool:
    """Whether these bytes are a frame of so many samples, of the depth and channels of its stream."""
    if len(content) > _LONGEST_HEADER + 64 * info.channels + samples * info.channels * (info.bits + 1) // 8:
        return False  # longer than samples that are not compressed
    depth = {0: info.bits, 4: 16, 6: 24}.get(content[3] >> 1 & 7)
    channels = content[3] >> 4
    if depth != info.bits or (channels + 1 if channels < 8 else 2) != info.channels:
        return False
    if content.endswith(b"\0\0\0"):  # zeros behind a frame leave its checksum right
        return False
    crc = 0
    for byte in content[:-2]:
        crc = (crc << 8 & 0xFFFF) ^ _CRC16[crc >> 8 ^ byte]
    return crc == int.from_bytes(content[-2:], "big")


def _has_second(source: BinaryIO, carried: Carried) -> bool:
    """Whether another stream begins among the frames."""
    position, rest = carried.first, b""
    source.seek(position)
    while content := source.read(_PIECE):
        if MARKER + b"\0\0\0\x22" in rest + content or MARKER + b"\x80\0\0\x22" in rest + content:
            return True
        rest = content[-7:]
    return False


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


def _bytes_before(source: BinaryIO) -> int:
    """Bytes of the ID3v2 tags with which a file begins."""
    size = 0
    source.seek(0)
    while tag := tag_bytes(head) if (head := source.read(TAG_HEAD))[:3] == b"ID3" else 0:
        size += tag
        source.seek(size)
    return size
