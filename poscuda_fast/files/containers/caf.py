"""CAF, of Apple: chunks with 64-bit sizes; desc describes the samples, which lie in data."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from poscuda_fast.files.containers.layout import MAX_CHUNKS, Reader, Uncompressed, layout

_IS_FLOAT, _IS_LITTLE = 1, 2
_DESC = struct.Struct(">d4s5I")
_EDIT_BYTES = 4  # before the samples: how often they were edited


def parse(reader: Reader) -> Uncompressed:
    """The layout of a CAF file."""
    every = list(_chunks(reader))
    found = reader.only(every, b"desc", b"data")
    begin, length = found[b"desc"]
    if length < _DESC.size:
        raise reader.refuse(f"its desc chunk has {length} bytes; {_DESC.size} are needed")
    rate, kind, flags, packet, frames, channels, bits = _DESC.unpack(reader.take(begin, _DESC.size))
    if kind != b"lpcm":
        raise reader.refuse(
            f"its samples are compressed ({kind.decode('latin-1')!r}); convert it to FLAC or WAV, or leave it out"
        )
    rate = reader.check(channels, rate)
    stored, rest = divmod(packet, channels)
    if frames != 1 or rest or stored > 8:
        raise reader.refuse(f"its desc chunk says {packet} bytes and {frames} frames a packet of {channels} channels")
    is_float, is_big = bool(flags & _IS_FLOAT), not flags & _IS_LITTLE
    coding = reader.coding_of(8 * stored, bits, is_float=is_float, is_big=is_big)
    begin, length = found[b"data"]
    if length == -1:  # to the end of the file, which it ends
        length = _EDIT_BYTES + (reader.size - begin - _EDIT_BYTES) // packet * packet
    if length < _EDIT_BYTES:
        raise reader.refuse(f"its data chunk has {length} bytes; at least {_EDIT_BYTES} are needed")
    if begin + length > reader.size:
        raise reader.refuse_cut("data chunk", length)
    frames = reader.whole_frames(length - _EDIT_BYTES, packet, "data chunk")
    reader.refuse_uncounted(max(begin + length, reader.end_of(every, 1)))
    return layout(begin + _EDIT_BYTES, frames, channels, coding, rate, "CAF")


def _chunks(reader: Reader) -> Iterator[tuple[bytes, int, int]]:
    """(tag, first byte, bytes) of every chunk; the last one may claim to end past the file, or -1 bytes."""
    position = 8
    for _ in range(MAX_CHUNKS):
        if position + 12 > reader.size:
            return
        tag, length = struct.unpack(">4sq", reader.take(position, 12))
        yield tag, position + 12, length
        if length < 0:
            return
        position += 12 + length
    raise reader.refuse(f"it has more than {MAX_CHUNKS} chunks")
