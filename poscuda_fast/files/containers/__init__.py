"""Files whose samples lie in them as they are: each container's header is read by a module of its own."""

from __future__ import annotations

from collections.abc import Callable

from poscuda_fast.files.containers import aiff, au, caf, riff, sphere, wave64
from poscuda_fast.files.containers.layout import Reader, Uncompressed

__all__ = ["Uncompressed", "parse"]


def parse(source: int | bytes, size: int, name: str) -> Uncompressed | None:
    """The layout of an uncompressed file, of which an open descriptor or all bytes are given; None for any other file.

    `size` is its size in bytes, and `name` is for messages.

    Raises
    ------
    AudioFileError
        Samples that cannot be edited exactly, or a header that contradicts itself or the file's size; the message says
        which.
    """
    reader = Reader(source, size, name)
    parser = _parser_of(reader.head)
    return None if parser is None else parser(reader)


def _parser_of(head: bytes) -> Callable[[Reader], Uncompressed] | None:
    """What reads a file with such first bytes."""
    kinds = (
        (head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE", riff.parse),
        (head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"), aiff.parse),
        (head[:4] in (b".snd", b"dns."), au.parse),
        (head[:4] == b"caff", caf.parse),
        (head[:16] == wave64.RIFF, wave64.parse),
        (head[:8] == b"NIST_1A\n", sphere.parse),
    )
    return next((parse for is_one, parse in kinds if is_one), None)
