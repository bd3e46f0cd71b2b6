"""AU, of Sun and NeXT: a header of six numbers, a free annotation, and the samples."""

from __future__ import annotations

import struct

from poscuda_fast.files.containers.layout import Reader, Uncompressed, layout
from poscuda_fast.mark.codings import CODINGS

UNKNOWN_SIZE = 0xFFFFFFFF  # of a file that was written to a pipe
_BITS = {3: 16, 4: 24, 6: 32}  # by the number of the encoding
_FLOAT = 6


def parse(reader: Reader) -> Uncompressed:
    """The layout of an AU file."""
    is_big = reader.head[:4] == b".snd"
    numbers = struct.unpack(">5I" if is_big else "<5I", reader.take(4, 20))
    offset, length, encoding, rate, channels = numbers
    if encoding not in _BITS:
        raise reader.refuse(
            f"its samples are of the AU encoding {encoding}; 16- or 24-bit PCM and 32-bit float are edited exactly, so "
            f"convert it to one of them"
        )
    bits = _BITS[encoding]
    coding = reader.coding_of(bits, bits, is_float=encoding == _FLOAT, is_big=is_big)
    rate = reader.check(channels, rate)
    if not 24 <= offset <= reader.size:
        raise reader.refuse(f"its header says that its samples begin at byte {offset}, and it has {reader.size}")
    unit = channels * CODINGS[coding]
    if length == UNKNOWN_SIZE:
        length = (reader.size - offset) // unit * unit
    if offset + length > reader.size:
        raise reader.refuse_cut("samples", length)
    reader.refuse_uncounted(offset + length)
    return layout(offset, reader.whole_frames(length, unit, "data"), channels, coding, rate, "AU")
