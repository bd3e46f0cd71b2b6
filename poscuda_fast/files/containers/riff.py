"""WAV: RIFF, its 64-bit forms RF64 and BW64, and RIFX, in which all numbers and samples are big-endian.

A layout is returned only if the samples lie within the file's real size. Nothing is allocated because a header says so.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from poscuda_fast.files.containers.layout import MAX_CHANNELS, MAX_CHUNKS, Reader, Uncompressed, layout
from poscuda_fast.mark.codings import CODINGS

MAX_FORMAT_BYTES = 4096
UNKNOWN_SIZE = 0xFFFFFFFF
# What writers put where they do not know yet how long a stream will be: ffmpeg, sox and arecord among them.
STREAMED = {UNKNOWN_SIZE, 0x7FFFF000, 0x7FFFFFFF, 0x80000000}
_WIDE = (b"RF64", b"BW64")
_FILES = (b"RIFF", b"RIFX", *_WIDE)
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_GUID_TAIL = bytes.fromhex("0000 0000 1000 8000 00aa 0038 9b71".replace(" ", ""))

_PLAIN_FORMAT = b"WAVEfmt " + struct.pack("<I", 16)
_PLAIN_HEAD = struct.Struct("<4sI12sHHIIHH4sI")
_PLAIN_CODINGS = {(_PCM, 16): "PCM_16", (_PCM, 24): "PCM_24", (_FLOAT, 32): "FLOAT"}

Chunks = Sequence[tuple[bytes, int, int]]


def parse(reader: Reader) -> Uncompressed:
    """The layout of a WAV file of any of the four kinds."""
    return _plain(reader) or _any(reader)


def described(reader: Reader, chunks: Chunks, *, is_big: bool, container: str) -> Uncompressed:
    """The layout that a fmt and a data chunk describe, of (tag, first byte, bytes) of all chunks."""
    tags = [tag for tag, _, _ in chunks]
    for tag in (b"fmt ", b"data"):
        if tags.count(tag) != 1:
            count = {0: "no", 2: "two"}.get(tags.count(tag), "many")
            raise reader.refuse(f"it has {count} {tag.decode().strip()} chunk" + "s" * (count != "no"))
    if tags.index(b"data") < tags.index(b"fmt "):
        raise reader.refuse("its data chunk comes before its fmt chunk")
    _, body, length = chunks[tags.index(b"fmt ")]
    channels, align, coding, rate = _format(reader, reader.take(body, min(length, MAX_FORMAT_BYTES)), is_big=is_big)
    _, offset, length = chunks[tags.index(b"data")]
    if offset + length > reader.size:
        if length not in STREAMED:
            raise reader.refuse_cut("data chunk", length)
        length = (reader.size - offset) // align * align
    return layout(offset, reader.whole_frames(length, align, "data chunk"), channels, coding, rate, container)


def _plain(reader: Reader) -> Uncompressed | None:
    """Fast path for the commonest file, a 16-byte fmt chunk and then the samples; None for any other."""
    if len(reader.head) < _PLAIN_HEAD.size:
        return None
    form, riff_size, kind, code, channels, rate, _, align, bits, tag, length = _PLAIN_HEAD.unpack_from(reader.head)
    coding, begin, size = _PLAIN_CODINGS.get((code, bits)), _PLAIN_HEAD.size, reader.size
    if (form, kind, tag, riff_size, length) != (b"RIFF", _PLAIN_FORMAT, b"data", size - 8, size - begin):
        return None
    if coding is None or not 1 <= channels <= MAX_CHANNELS or align != channels * CODINGS[coding] or rate == 0:
        return None
    return None if length == 0 or length % align else layout(begin, length // align, channels, coding, rate)


def _any(reader: Reader) -> Uncompressed:
    form, _, kind = struct.unpack("<4s4s4s", reader.take(0, 12))
    if form not in _FILES or kind != b"WAVE":
        raise reader.refuse("it does not begin with RIFF....WAVE, so it is not a WAV file")
    is_big = form == b"RIFX"
    chunks = list(_chunks(reader, is_wide=form in _WIDE, is_big=is_big))
    found = described(reader, chunks, is_big=is_big, container="WAV" if form == b"RIFF" else form.decode())
    end_of_sound = found.offset + found.frames * found.frame_bytes
    if reader.size - end_of_sound >= found.frame_bytes or not _is_streamed(reader, chunks):
        reader.refuse_uncounted(max(end_of_sound, reader.end_of(chunks, 1)))
    return found


def _is_streamed(reader: Reader, chunks: Chunks) -> bool:
    """Whether the samples go to the end of the file because nobody knew how many there would be."""
    return any(tag == b"data" and length in STREAMED and begin + length > reader.size for tag, begin, length in chunks)


def _chunks(reader: Reader, *, is_wide: bool, is_big: bool) -> Iterator[tuple[bytes, int, int]]:
    """(tag, first byte, bytes) of every chunk, up to what cannot be one; the last may claim to end past the file."""
    head = struct.Struct(">4sI" if is_big else "<4sI")
    wide_size: int | None = None
    position = 12
    for _ in range(MAX_CHUNKS):
        if position + head.size > reader.size:
            return
        tag, length = head.unpack(reader.take(position, head.size))
        if not _is_tag(tag):
            return
        position += head.size
        if tag == b"ds64" and is_wide:
            wide_size = int(struct.unpack("<8xQ", reader.take(position, 16))[0])
        if tag == b"data" and length == UNKNOWN_SIZE and is_wide:
            if wide_size is None:
                raise reader.refuse("its header does not say how long its data is; save it again with any audio tool")
            length = wide_size
        yield tag, position, length
        position += length
        if length % 2 and not _goes_on(reader, position, head):
            position += 1  # a byte that makes the size even, which some writers forget
    raise reader.refuse(f"it has more than {MAX_CHUNKS} chunks")


def _is_tag(tag: bytes) -> bool:
    """Whether four bytes can name a chunk inside a WAV file."""
    return tag not in _FILES and all(32 <= byte < 127 for byte in tag)


def _goes_on(reader: Reader, position: int, head: struct.Struct) -> bool:
    """Whether a chunk begins at an odd place, and none behind the byte there."""
    if position + head.size > reader.size:
        return False
    tag, length = head.unpack(reader.take(position, head.size))
    fits = position + head.size + length <= reader.size or length in STREAMED
    return tag[0] != 0 and _is_tag(tag) and fits


def _format(reader: Reader, body: bytes, *, is_big: bool) -> tuple[int, int, str, int]:
    """(channels, bytes a frame, coding, sample rate) from a fmt chunk."""
    if len(body) < 16:
        raise reader.refuse(f"its fmt chunk has {len(body)} bytes; at least 16 are needed")
    order = ">" if is_big else "<"
    code, channels, rate, _, align, bits = struct.unpack_from(f"{order}HHIIHH", body)
    valid = bits
    if code == _EXTENSIBLE:
        if len(body) < 40:
            raise reader.refuse(f"its extensible fmt chunk has {len(body)} bytes; 40 are needed")
        valid = struct.unpack_from(f"{order}H", body, 18)[0] or bits
        code = struct.unpack_from(f"{order}H", body, 24)[0]
        if body[26:40] != _GUID_TAIL:
            raise reader.refuse("its extensible fmt chunk names an unknown coding")
    if code not in (_PCM, _FLOAT):
        raise reader.refuse_coding(bits, f"of WAV format code {code}")
    coding = reader.coding_of(bits, valid, is_float=code == _FLOAT, is_big=is_big)
    rate = reader.check(channels, rate)
    if align != channels * CODINGS[coding]:
        raise reader.refuse(
            f"its header says {align} bytes a frame, but {channels} channels of {bits} bits need "
            f"{channels * CODINGS[coding]}"
        )
    return channels, align, coding, rate
