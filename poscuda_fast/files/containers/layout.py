"""Where the samples of an uncompressed file lie, and the bounded reads with which that is found out."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from typing import NamedTuple

from poscuda_fast.errors import AudioFileError
from poscuda_fast.mark.codings import CODINGS

MAX_CHANNELS = 1024
MAX_CHUNKS = 1000
HEAD_BYTES = 4096  # read at once: few headers are longer
UNCOUNTED_BYTES = 1 << 16  # read at a time
FEW_BYTES = 16  # that nobody hears
MOST_ZEROS = 1 << 24
TAG_HEAD = 32  # bytes by which `tag_bytes` tells

# (bits per sample, whether they are floating point, whether the first byte is the highest) -> coding.
_CODING_OF = {
    (16, False, False): "PCM_16",
    (24, False, False): "PCM_24",
    (32, True, False): "FLOAT",
    (16, False, True): "PCM_16_BE",
    (24, False, True): "PCM_24_BE",
    (32, True, True): "FLOAT_BE",
}


class Uncompressed(NamedTuple):
    """The samples of a file as they lie in it: interleaved frames from byte `offset` on, coded as `coding` says.

    `container` is the name of the file's format.
    """

    offset: int
    frames: int
    channels: int
    coding: str
    sample_rate: int
    container: str = "WAV"

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame, all channels."""
        return self.channels * CODINGS[self.coding]


def tag_bytes(head: bytes) -> int:
    """Bytes of a tag of MP3 files (ID3v1, ID3v2, APEv2) that begins so; 0 if it is none."""
    if head[:3] == b"TAG":
        return 128
    if head[:8] == b"APETAGEX" and len(head) >= TAG_HEAD:
        has_header = bool(head[23] & 0x80)
        return int.from_bytes(head[12:16], "little") + TAG_HEAD * has_header
    if len(head) < 10 or head[:3] != b"ID3" or any(byte & 0x80 for byte in head[6:10]):
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + 10 * bool(head[5] & 0x10)


layout = functools.lru_cache(1024)(Uncompressed)  # many files have the same


class Reader:
    """Bounded reads of a header, and refusals that name the file.

    Attributes
    ----------
    head : bytes
        The first bytes of the file.
    size : int
        Bytes of the file.
    """

    def __init__(self, source: int | bytes, size: int, name: str) -> None:
        self._source = source
        self._name = name
        self.size = size
        self.head = self._read(0, HEAD_BYTES)

    def take(self, offset: int, n: int) -> bytes:
        """Exactly `n` bytes from `offset`; AudioFileError if the file ends before."""
        data = self.head[offset : offset + n]
        if len(data) != n:
            data = self._read(offset, n)
        if len(data) != n:
            raise self.refuse(f"it ends within its header, at byte {offset + len(data)}")
        return data

    def refuse(self, reason: str) -> AudioFileError:
        """The error to raise."""
        return AudioFileError(f"{self._name} cannot be used: {reason}.")

    def refuse_coding(self, bits: int, what: str) -> AudioFileError:
        """The error to raise for samples that are not edited."""
        return self.refuse(
            f"its samples are {bits}-bit {what}; 16- or 24-bit PCM and 32-bit float are edited exactly, so convert it "
            f"to one of them"
        )

    def coding_of(self, bits: int, valid: int, *, is_float: bool, is_big: bool) -> str:
        """The name of a coding; AudioFileError if there is none for it."""
        coding = _CODING_OF.get((bits, is_float, is_big))
        if coding is None:
            raise self.refuse_coding(bits, "float" if is_float else "PCM")
        if valid != bits:
            raise self.refuse(f"only {valid} of its {bits} bits are valid; convert it to plain 16- or 24-bit PCM")
        return coding

    def check(self, channels: int, rate: float) -> int:
        """The sample rate as a whole number; AudioFileError if it is none, or there are too many channels."""
        if not 1 <= channels <= MAX_CHANNELS:
            raise self.refuse(f"its header says {channels} channels; expected 1 to {MAX_CHANNELS}")
        if not (0 < rate < 2**32 and rate == int(rate)):  # not a number among others
            raise self.refuse(f"its header gives a sample rate of {rate:g}")
        return int(rate)

    def only(self, chunks: Iterable[tuple[bytes, int, int]], *tags: bytes) -> dict[bytes, tuple[int, int]]:
        """First byte and bytes of the chunks with some tags, of (tag, first byte, bytes); each must be there once."""
        found: dict[bytes, tuple[int, int]] = {}
        for tag, begin, length in chunks:
            if tag in tags and tag in found:
                raise self.refuse(f"it has two {tag.decode()} chunks")
            found[tag] = begin, length
        for tag in tags:
            if tag not in found:
                raise self.refuse(f"it has no {tag.decode()} chunk")
        return found

    def whole_frames(self, length: int, unit: int, what: str) -> int:
        """How many frames of `unit` bytes lie in `length` bytes; AudioFileError if they do not fill them."""
        if length % unit:
            raise self.refuse(f"its {what} of {length} bytes is not a whole number of {unit}-byte frames")
        return length // unit

    def refuse_cut(self, what: str, length: int) -> AudioFileError:
        """The error to raise for samples that end past the file."""
        return self.refuse(f"its {what} of {length} bytes ends past the file's {self.size} bytes: it was cut short")

    def refuse_uncounted(self, end: int) -> None:
        """AudioFileError if what lies behind the last byte that a header counts may be sound: it would not be marked.

        A few bytes, zeros and tags are not.
        """
        while tag := tag_bytes(self._read(end, TAG_HEAD)):
            end += tag
        position = end
        while position < self.size and self.size - end > FEW_BYTES:
            content = self._read(position, UNCOUNTED_BYTES)
            if not content or any(content) or position - end > MOST_ZEROS:
                raise self.refuse(
                    f"its header counts {end:,} of its {self.size:,} bytes, and what follows may be sound that would "
                    f"not be protected; save it again with an audio tool that reads all of it, or cut the rest off"
                )
            position += len(content)

    def end_of(self, chunks: Iterable[tuple[bytes, int, int]], pad: int) -> int:
        """Where the last whole chunk ends, of (tag, first byte, bytes), filled up to a multiple of `pad` bytes."""
        ends = [begin + length + -length % pad for _, begin, length in chunks if begin + length <= self.size]
        return max(ends, default=0)

    def _read(self, offset: int, n: int) -> bytes:
        if isinstance(self._source, bytes):
            return self._source[offset : offset + n]
        os.lseek(self._source, offset, os.SEEK_SET)
        return os.read(self._source, n)
