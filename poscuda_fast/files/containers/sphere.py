"""NIST SPHERE, as of TIMIT: a header of text lines, 1,024 bytes or a multiple of that, and the samples."""

from __future__ import annotations

from poscuda_fast.files.containers.layout import Reader, Uncompressed, layout
from poscuda_fast.mark.codings import CODINGS

_FIRST = 16  # bytes of the first two lines
_MOST = 1 << 16
MOST_DIGITS = 12
MOST_WIDTH = 8


def parse(reader: Reader) -> Uncompressed:
    """The layout of a NIST SPHERE file."""
    length = reader.take(8, 7).strip()
    if not length.isdigit() or not _FIRST < int(length) <= _MOST:
        raise reader.refuse("its second line does not say how long its header is")
    offset = int(length)
    fields = _fields(reader, reader.take(_FIRST, offset - _FIRST))

    def number(name: str, otherwise: int | None = None) -> int:
        value = fields.get(name, "" if otherwise is None else str(otherwise))
        if not (value.isascii() and value.isdigit() and len(value) <= MOST_DIGITS):
            raise reader.refuse(f"its header says {name} {value!r}; expected a number")
        return int(value)

    how = fields.get("sample_coding", "pcm")
    width, order = number("sample_n_bytes"), fields.get("sample_byte_format", "")
    if how != "pcm":
        raise reader.refuse(f"its samples are coded as {how!r}; convert it to WAV, as sph2pipe does")
    if not 1 <= width <= MOST_WIDTH or not _is_order(order, width):
        raise reader.refuse(f"its header says that the bytes of a sample come in the order {order!r}")
    is_big = order[0] != "0"
    bits = number("sample_sig_bits", 8 * width)
    coding = reader.coding_of(8 * width, bits, is_float=False, is_big=is_big)
    channels, frames = number("channel_count", 1), number("sample_count")
    rate = reader.check(channels, number("sample_rate"))
    size = frames * channels * CODINGS[coding]
    if offset + size > reader.size:
        raise reader.refuse_cut("samples", size)
    reader.refuse_uncounted(offset + size)
    return layout(offset, frames, channels, coding, rate, "NIST")


def _is_order(order: str, width: int) -> bool:
    """Whether digits number the bytes of a sample up or down; libsndfile writes two of them for three bytes."""
    digits = "".join(map(str, range(width)))
    return bool(order) and order in (digits, digits[::-1], digits[:2], digits[1::-1])


def _fields(reader: Reader, header: bytes) -> dict[str, str]:
    """Lines such as ``sample_rate -i 16000``, up to ``end_head``."""
    found: dict[str, str] = {}
    for line in header.decode("latin-1").split("\n"):
        if line.strip() == "end_head":
            return found
        name, _, rest = line.partition(" ")
        kind, _, value = rest.strip().partition(" ")
        if kind.startswith("-"):
            found[name] = value.strip()
    raise reader.refuse("its header does not end")
