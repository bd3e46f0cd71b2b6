"""Wave64, of Sony: a WAV file whose chunks have GUIDs for tags, 64-bit sizes, and begin at multiples of 8 bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from poscuda_fast.files.containers import riff
from poscuda_fast.files.containers.layout import MAX_CHUNKS, Reader, Uncompressed

RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
WAVE = bytes.fromhex("77617665f3acd3118cd100c04f8edb8a")
_TAIL = WAVE[4:]  # of the GUIDs of other chunks too
_FAMILIES = {
    bytes.fromhex(tail) for tail in ("8cd100c04f8edb8a", "a5d628db04c10000", "86c700c04f8edb8a", "86dc00c04f8edb8a")
}
_HEAD = struct.Struct("<16sq")


def parse(reader: Reader) -> Uncompressed:
    """The layout of a Wave64 file."""
    if reader.take(24, 16) != WAVE:
        raise reader.refuse("it begins as Wave64 but does not go on so")
    chunks = list(_chunks(reader))
    found = riff.described(reader, chunks, is_big=False, container="W64")
    reader.refuse_uncounted(reader.end_of(chunks, 8))
    return found


def _chunks(reader: Reader) -> Iterator[tuple[bytes, int, int]]:
    """(tag, first byte, bytes) of every chunk; the last one may claim to end past the file."""
    position = 40
    for _ in range(MAX_CHUNKS):
        if position + _HEAD.size > reader.size:
            return
        guid, length = _HEAD.unpack(reader.take(position, _HEAD.size))
        if guid == RIFF or guid[8:] not in _FAMILIES:
            return
        if length < _HEAD.size:
            raise reader.refuse(f"it has a chunk of {length} bytes; at least {_HEAD.size} are needed")
        yield guid[:4] if guid[4:] == _TAIL else guid, position + _HEAD.size, length - _HEAD.size
        position += length + -length % 8
    raise reader.refuse(f"it has more than {MAX_CHUNKS} chunks")
