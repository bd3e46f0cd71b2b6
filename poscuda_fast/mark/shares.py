"""Which clips are marked where only a share of them is (FORMAT.md, "Share"): by the key and a clip's name alone."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.key import Key
from poscuda_fast.recipe import MILLION

ROWS_PER_BLOCK = 1024
Words = NDArray[np.uint32]


class Tags(NamedTuple):
    """A share in millionths, and of each clip whether it is marked; secret."""

    share: int
    chosen: NDArray[np.bool_]

    @property
    def untagged(self) -> int:
        """How many clips are left as they are."""
        return int(np.count_nonzero(~self.chosen))

    def __repr__(self) -> str:
        return f"Tags({self.share})"


def of_rows(key: Key, share: int | None, n_clips: int) -> Tags | None:
    """The share of the clips of an array; None if there is no share, and so all are marked."""
    if share is None:
        return None
    return Tags(share, _taken(words_of_rows(key, n_clips), share))


def of_names(key: Key, share: int | None, names: Iterable[str]) -> Tags | None:
    """The share of files, by their paths below the folder."""
    if share is None:
        return None
    return Tags(share, _taken(words_of_names(key, names), share))


def words_of_rows(key: Key, n_clips: int) -> Words:
    """The word of each clip of an array, which are secret: of any share, those with the lowest words are marked."""
    blocks = range(-(-n_clips // ROWS_PER_BLOCK))
    drawn = (key.derive(b"share", b"row", n.to_bytes(8, "big"), length=4 * ROWS_PER_BLOCK) for n in blocks)
    return np.frombuffer(b"".join(drawn), "<u4")[:n_clips]


def words_of_names(key: Key, names: Iterable[str]) -> Words:
    """The word of each file."""
    forms = (unicodedata.normalize("NFC", name).encode("utf-8") for name in names)
    return np.frombuffer(b"".join(key.derive(b"share", b"file", form, length=4) for form in forms), "<u4")


def _taken(words: Words, share: int) -> NDArray[np.bool_]:
    """Whether word * 10^6 < share * 2^32, in integers."""
    taken: NDArray[np.bool_] = words.astype(np.uint64) * np.uint64(MILLION) < np.uint64(share << 32)
    return taken
