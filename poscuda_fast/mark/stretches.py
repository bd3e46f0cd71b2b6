"""Runs of frames that are edited together, as the bytes of a file, and the pieces in which they are told apart.

A piece is the part of a run that lies in one block of 512 bytes of its file, the unit in which disks tear (FORMAT.md,
"Pieces").
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels import Ints
from poscuda_fast.mark.codings import CODINGS, little
from poscuda_fast.mark.patches import Patches
from poscuda_fast.secrecy import Secret

BLOCK = 512  # bytes that a disk writes whole or not at all

Bytes = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, repr=False)
class Stretches(Secret):
    """Patches of one coding and number of channels, and where they lie in their files.

    In a dense buffer their bytes lie one behind the other.

    Attributes
    ----------
    coding : str
        Of the samples: a name in `codings.CODINGS`.
    channels : int
    patches : Patches
        None of them empty.
    firsts : (n,) int64
        The first byte of each patch in its file.
    computed : bool
        Whether originals are computed from marked samples; otherwise they are kept whole.
    """

    coding: str
    channels: int
    patches: Patches
    firsts: Ints
    computed: bool

    def __repr__(self) -> str:
        return f"Stretches({len(self.patches)} patches)"

    def __len__(self) -> int:
        return len(self.patches)

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample of one channel."""
        return CODINGS[self.coding]

    @property
    def is_float(self) -> bool:
        """Whether the samples are floating-point numbers."""
        return little(self.coding) == "FLOAT"

    @functools.cached_property
    def sizes(self) -> Ints:
        """(n,) bytes of each patch."""
        return self.patches.sizes * (self.channels * self.sample_bytes)

    @functools.cached_property
    def starts(self) -> Ints:
        """(n,) where each patch begins in a dense buffer, in bytes."""
        starts: Ints = np.cumsum(self.sizes) - self.sizes
        return starts

    @property
    def n_bytes(self) -> int:
        """Bytes of a dense buffer."""
        return int(self.sizes.sum())

    @functools.cached_property
    def pieces(self) -> Pieces:
        """The pieces of all patches, in order."""
        counts = (self.firsts + self.sizes - 1) // BLOCK - self.firsts // BLOCK + 1
        owners = np.repeat(np.arange(len(self)), counts)
        number = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        # In the file; the first piece of a patch begins with it, the others with a block.
        begins = np.where(number == 0, self.firsts[owners], (self.firsts[owners] // BLOCK + number) * BLOCK)
        starts = begins - self.firsts[owners] + self.starts[owners]
        sizes = np.diff(np.append(starts, self.n_bytes))
        return Pieces(starts, sizes, owners)

    @functools.cached_property
    def straddlers(self) -> Ints:
        """The samples, counted in the dense buffer, that lie in two pieces: a tear may leave a half of one."""
        starts, _, owners = self.pieces
        cut = (starts - self.starts[owners]) % self.sample_bytes != 0
        straddlers: Ints = starts[cut] // self.sample_bytes  # patches are whole samples, and so is what lies before one
        return straddlers


class Pieces(NamedTuple):
    """The pieces of some patches, in order; all (n_pieces,) int64.

    Attributes
    ----------
    starts, sizes
        Where each begins in a dense buffer, and its bytes.
    owners
        The number of its patch.
    """

    starts: Ints
    sizes: Ints
    owners: Ints

    @property
    def edges(self) -> Ints:
        """(n_patches,) the first piece of each patch."""
        return np.flatnonzero(np.diff(self.owners, prepend=-1))

    def alike(self, one: Bytes, other: Bytes) -> NDArray[np.bool_]:
        """Which pieces of two dense buffers are equal."""
        if np.array_equal(one, other):
            return np.ones(len(self.starts), np.bool_)
        equal: NDArray[np.bool_] = np.logical_and.reduceat(one == other, self.starts)
        return equal

    def of(self, number: int) -> slice:
        """Where a piece lies in a dense buffer."""
        start = int(self.starts[number])
        return slice(start, start + int(self.sizes[number]))

    def spread(self, which: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """For each byte of a dense buffer, what `which` says of its piece."""
        return np.repeat(which, self.sizes)

    def every(self, which: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """For each patch, whether `which` holds for all of its pieces."""
        if not len(which):
            return which
        held: NDArray[np.bool_] = np.logical_and.reduceat(which, self.edges)
        return held
