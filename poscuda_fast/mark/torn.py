"""The original of a piece that a crash left half written, found by trying.

Samples are stored upwards, so one end of the piece is marked and the other is original, and the sample between them may
be both: then its low bytes are of one form and its high bytes of the other (FORMAT.md, "Pieces").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.mark.codings import CODINGS, is_big, little
from poscuda_fast.mark.stretches import Bytes


class Torn(NamedTuple):
    """A piece that is neither original nor marked; secret.

    Attributes
    ----------
    now, undone : (n,) uint8
        As it is, and as it would have been if all of it were marked now.
    coding : str
    origin : int
        Where the patch of the piece begins, counted from the piece: zero or less.
    values : (n or more,) uint8
        What the mark adds to the samples, as bytes; zeros for float.
    exact : set of int
        Where samples begin whose originals are kept, and so are in `undone`, counted from the piece.
    """

    now: Bytes
    undone: Bytes
    coding: str
    origin: int
    values: Bytes
    exact: set[int]

    def __repr__(self) -> str:
        return "Torn()"


def original_of_torn(torn: Torn, fits: Callable[[Bytes], NDArray[np.bool_]]) -> bytes | None:
    """The first original that fits, of all that the piece may come from; `fits` judges rows of bytes."""
    size = len(torn.now)
    if size < 2:
        return None
    before = np.arange(size) < np.arange(1, size)[:, None]  # row k - 1: the first k bytes
    for head_marked in (True, False):
        tried = np.where(before == head_marked, torn.undone, torn.now)
        for k in range(1, size):
            _mend_cut(torn, tried[k - 1], k, head_marked=head_marked)
        found = np.flatnonzero(fits(tried))
        if found.size:
            original: bytes = tried[found[0]].tobytes()
            return original
    return None


def _mend_cut(torn: Torn, row: Bytes, k: int, *, head_marked: bool) -> None:
    """Put the original of the sample that byte k cuts, if one is cut."""
    width = CODINGS[torn.coding]
    before = (k - torn.origin) % width  # bytes of it before the cut
    first = k - before
    if before == 0:
        return
    inside = slice(max(0, first), min(first + width, len(row)))
    if first in torn.exact:
        row[inside] = torn.undone[inside]
        return
    if little(torn.coding) == "FLOAT" or first < 0 or first + width > len(row):
        return  # a float is stored at once, and a sample in two pieces is kept
    order: Literal["big", "little"] = "big" if is_big(torn.coding) else "little"
    low = width - before if is_big(torn.coding) else before  # bytes that are of another form than the high ones
    now = int.from_bytes(torn.now[inside].tobytes(), order)
    mark = int.from_bytes(torn.values[inside].tobytes(), order, signed=True)
    unit, top = 1 << 8 * low, 1 << 8 * (width - low)
    high, below = divmod(now, unit)
    if head_marked != is_big(torn.coding):
        below = (below - mark) % unit
    else:
        high = (high - (below + mark >> 8 * low)) % top
    row[inside] = np.frombuffer((high * unit + below).to_bytes(width, order), np.uint8)
