"""Finds the samples in a WAV file; reads little, and treats the header as untrusted.

A layout is returned only if every number in the header fits the file's real size. Nothing is allocated because a header
says so.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from poscuda_fast.errors import AudioFileError
from poscuda_fast.mark.codings import CODINGS

MAX_CHUNKS = 1000
MAX_FORMAT_BYTES = 4096
MAX_CHANNELS = 1024
HEAD_BYTES = 4096  # read at once: few WAV headers are longer
UNKNOWN_SIZE = 0xFFFFFFFF
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_GUID_TAIL = bytes.fromhex("0000 0000 1000 8000 00aa 0038 9b71".replace(" ", ""))

# (WAV format code, bits per sample) -> coding.
_CODING_OF = {(_PCM, 16): "PCM_16", (_PCM, 24): "PCM_24", (_FLOAT, 32): "FLOAT"}

_PLAIN = struct.Struct("<4sI12sHHIIHH4sI")
_PLAIN_FORMAT = b"WAVEfmt " + struct.pack("<I", 16)


class WavLayout(NamedTuple):
    """The sample data of a WAV file: interleaved little-endian frames from byte `offset` on."""

    offset: int
    frames: int
    channels: int
    coding: str
    sample_rate: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame, all channels."""
        return self.channels * CODINGS[self.coding]


_layout = functools.lru_cache(1024)(WavLayout)  # many files have the same


def read_wav(file: BinaryIO, name: str) -> WavLayout:
    """The layout of an open WAV file (RIFF or RF64; PCM_16, PCM_24 or FLOAT).

    Raises
    ------
    AudioFileError
        Not a WAV file, a coding that cannot be edited exactly, or a header that contradicts itself or
        the file's size. The message says which.
    """
    return parse_wav(file.fileno(), os.fstat(file.fileno()).st_size, name)


def parse_wav(source: int | bytes, size: int, name: str) -> WavLayout:
    """`read_wav` for an open file's descriptor or a file's bytes; `size` is the file's size in bytes."""
    reader = _Reader(source, name)
    return _plain_layout(reader.head, size) or _any_layout(reader, size)


def _plain_layout(head: bytes, size: int) -> WavLayout | None:
    """Fast path for the commonest file, a 16-byte fmt chunk and then the samples; None for any other."""
    if len(head) < _PLAIN.size:
        return None
    form, riff_size, kind, code, channels, rate, _, align, bits, tag, length = _PLAIN.unpack_from(head)
    coding = _CODING_OF.get((code, bits))
    if (form, kind, tag, riff_size, length) != (b"RIFF", _PLAIN_FORMAT, b"data", size - 8, size - _PLAIN.size):
        return None
    if coding is None or not 1 <= channels <= MAX_CHANNELS or align != channels * CODINGS[coding] or rate == 0:
        return None
    return None if length == 0 or length % align else _layout(_PLAIN.size, length // align, channels, coding, rate)


def _any_layout(reader: _Reader, size: int) -> WavLayout:
    chunks = list(_chunks(reader, _check_form(reader, size), size))
    tags = [tag for tag, _, _ in chunks]
    for tag in (b"fmt ", b"data"):
        if tags.count(tag) != 1:
            count = {0: "no", 2: "two"}.get(tags.count(tag), "many")
            raise reader.refuse(f"it has {count} {tag.decode().strip()} chunk" + "s" * (count != "no"))
    if tags.index(b"data") < tags.index(b"fmt "):
        raise reader.refuse("its data chunk comes before its fmt chunk")
    _, body, length = chunks[tags.index(b"fmt ")]
    channels, align, coding, rate = _parse_format(reader, reader.take(body, min(length, MAX_FORMAT_BYTES)))
    _, offset, length = chunks[tags.index(b"data")]
    if offset + length > size:
        raise reader.refuse(f"its data chunk of {length} bytes ends past the file's {size} bytes: it was cut short")
    if length % align:
        raise reader.refuse(f"its data chunk of {length} bytes is not a whole number of {align}-byte frames")
    return _layout(offset, length // align, channels, coding, rate)


def _check_form(reader: _Reader, size: int) -> bytes:
    """The file's first four bytes, RIFF or RF64; refuses any other file, and one that was cut short."""
    form, riff_size, kind = struct.unpack("<4sI4s", reader.take(0, 12))
    if form == b"RIFX":
        raise reader.refuse("it is big-endian (RIFX); convert it to an ordinary WAV file")
    if form not in (b"RIFF", b"RF64") or kind != b"WAVE":
        raise reader.refuse("it does not begin with RIFF....WAVE, so it is not a WAV file")
    if form == b"RIFF" and riff_size != UNKNOWN_SIZE and riff_size + 8 > size + riff_size % 2:
        raise reader.refuse(f"its header promises {riff_size + 8} bytes but it has {size}: it was cut short")
    return bytes(form)


def _chunks(reader: _Reader, form: bytes, size: int) -> Iterator[tuple[bytes, int, int]]:
    """(tag, first byte, bytes) of every chunk; the last one may claim to end past the file."""
    wide_size: int | None = None
    position = 12
    for _ in range(MAX_CHUNKS):
        if position + 8 > size:
            return
        tag, length = struct.unpack("<4sI", reader.take(position, 8))
        position += 8
        if tag == b"ds64" and form == b"RF64":
            wide_size = int(struct.unpack("<8xQ", reader.take(position, 16))[0])
        if tag == b"data":
            if length == UNKNOWN_SIZE and wide_size is not None:
                length = wide_size
            riff_size = struct.unpack("<I", reader.take(4, 4))[0]
            covered = position if riff_size == UNKNOWN_SIZE else max(riff_size + riff_size % 2 + 8, position)
            if length == UNKNOWN_SIZE or (length == 0 and size > covered):
                raise reader.refuse(
                    f"its header does not say how long its data is (size {length:#x}), as if it had been streamed; "
                    f"save it again with any audio tool, which completes the header"
                )
        yield tag, position, length
        position += length + length % 2
    raise reader.refuse(f"it has more than {MAX_CHUNKS} chunks")


def _parse_format(reader: _Reader, body: bytes) -> tuple[int, int, str, int]:
    """(channels, bytes a frame, coding, sample rate) from a fmt chunk."""
    if len(body) < 16:
        raise reader.refuse(f"its fmt chunk has {len(body)} bytes; at least 16 are needed")
    code, channels, rate, _, align, bits = struct.unpack_from("<HHIIHH", body)
    if code == _EXTENSIBLE:
        if len(body) < 40:
            raise reader.refuse(f"its extensible fmt chunk has {len(body)} bytes; 40 are needed")
        valid = struct.unpack_from("<H", body, 18)[0]
        code = struct.unpack_from("<H", body, 24)[0]
        if body[26:40] != _GUID_TAIL:
            raise reader.refuse("its extensible fmt chunk names an unknown coding")
        if valid not in (0, bits):
            raise reader.refuse(f"only {valid} of its {bits} bits are valid; convert it to plain 16- or 24-bit PCM")
    coding = _CODING_OF.get((code, bits))
    if coding is None:
        raise reader.refuse(
            f"its samples are {bits}-bit of WAV format code {code}; 16- or 24-bit PCM and 32-bit float are edited "
            f"exactly, so convert it to one of them"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise reader.refuse(f"its header says {channels} channels; expected 1 to {MAX_CHANNELS}")
    if align != channels * CODINGS[coding]:
        raise reader.refuse(
            f"its header says {align} bytes a frame, but {channels} channels of {bits} bits need "
            f"{channels * CODINGS[coding]}"
        )
    if rate == 0:
        raise reader.refuse("its header gives a sample rate of 0")
    return channels, align, coding, rate


class _Reader:
    """Bounded reads, and refusals that name the file."""

    def __init__(self, source: int | bytes, name: str) -> None:
        self._source = source
        self._name = name
        self.head = self._read(0, HEAD_BYTES)

    def take(self, offset: int, n: int) -> bytes:
        """Exactly `n` bytes from `offset`."""
        data = self.head[offset : offset + n]
        if len(data) != n:
            data = self._read(offset, n)
        if len(data) != n:
            raise self.refuse(f"it ends within its header, at byte {offset + len(data)}")
        return data

    def _read(self, offset: int, n: int) -> bytes:
        if isinstance(self._source, bytes):
            return self._source[offset : offset + n]
        os.lseek(self._source, offset, os.SEEK_SET)
        return os.read(self._source, n)

    def refuse(self, reason: str) -> AudioFileError:
        """The error to raise."""
        return AudioFileError(f"{self._name} cannot be used: {reason}.")
