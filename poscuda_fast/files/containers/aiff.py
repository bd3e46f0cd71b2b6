"""AIFF and AIFC: chunks with sizes in big-endian order; COMM describes the samples, which lie in SSND."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

from poscuda_fast.files.containers.layout import MAX_CHUNKS, Reader, Uncompressed, layout
from poscuda_fast.mark.codings import CODINGS

# Compression type of AIFC -> (whether floating point, whether the first byte of a sample is the highest).
_PLAIN = {
    b"NONE": (False, True),
    b"twos": (False, True),
    b"in24": (False, True),
    b"sowt": (False, False),
    b"42ni": (False, False),
    b"42n1": (False, False),  # as libsndfile writes it
    b"fl32": (True, True),
    b"FL32": (True, True),
}
_COMM_BYTES = 18
_SSND_BYTES = 8  # before the samples: how far they are moved, and the size of blocks


def parse(reader: Reader) -> Uncompressed:
    """The layout of an AIFF or AIFC file."""
    is_aifc = reader.take(8, 4) == b"AIFC"
    every = list(_chunks(reader))
    chunks = reader.only(every, b"COMM", b"SSND")
    begin, length = chunks[b"COMM"]
    if length < _COMM_BYTES + 4 * is_aifc:
        raise reader.refuse(f"its COMM chunk has {length} bytes; at least {_COMM_BYTES + 4 * is_aifc} are needed")
    channels, frames, bits = struct.unpack(">HIH", reader.take(begin, 8))
    rate = reader.check(channels, _extended(reader.take(begin + 8, 10)))
    kind = reader.take(begin + _COMM_BYTES, 4) if is_aifc else b"NONE"
    if kind not in _PLAIN:
        raise reader.refuse(
            f"its samples are compressed ({kind.decode('latin-1')!r}); convert it to FLAC or WAV, or leave it out"
        )
    is_float, is_big = _PLAIN[kind]
    stored = (bits + 7) // 8 * 8  # bits that a sample takes
    coding = reader.coding_of(stored, bits, is_float=is_float, is_big=is_big)
    begin, length = chunks[b"SSND"]
    if length < _SSND_BYTES:
        raise reader.refuse(f"its SSND chunk has {length} bytes; at least {_SSND_BYTES} are needed")
    moved = struct.unpack(">I", reader.take(begin, 4))[0]
    unit, room = channels * CODINGS[coding], length - _SSND_BYTES - moved
    if begin + length > reader.size:
        raise reader.refuse_cut("SSND chunk", length)
    if frames * unit > room or room - frames * unit >= unit:
        raise reader.refuse(
            f"its COMM chunk counts {frames:,} frames, and its SSND chunk has {max(0, room) // unit:,}; save it again "
            f"with any audio tool, which makes them agree"
        )
    reader.refuse_uncounted(reader.end_of(every, 2))
    return layout(begin + _SSND_BYTES + moved, frames, channels, coding, rate, "AIFC" if is_aifc else "AIFF")


def _chunks(reader: Reader) -> Iterator[tuple[bytes, int, int]]:
    """(tag, first byte, bytes) of every chunk; the last one may claim to end past the file."""
    position = 12
    for _ in range(MAX_CHUNKS):
        if position + 8 > reader.size:
            return
        tag, length = struct.unpack(">4sI", reader.take(position, 8))
        if tag == b"FORM":  # another file
            return
        yield tag, position + 8, length
        position += 8 + length + length % 2
    raise reader.refuse(f"it has more than {MAX_CHUNKS} chunks")


def _extended(number: bytes) -> float:
    """An 80-bit floating-point number; nan if it is negative or beyond a sample rate."""
    exponent, mantissa = struct.unpack(">HQ", number)
    if exponent >= 16383 + 64:  # the sign too
        return float("nan")
    return math.ldexp(mantissa, exponent - 16383 - 63)
