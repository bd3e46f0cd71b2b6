"""What a launch over whole clips in device memory is told: a row for each clip, and how format 1 places its patches."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels.reference import Ints, LineTable, Table


class ClipRows(NamedTuple):
    """Clips that lie one behind the other, each with its channels interleaved.

    Attributes
    ----------
    rows : (n_clips,) int32
        The row of the table or of the filters that each clip is marked with.
    lengths : (n_clips,) int64, or (1,) for clips of one length
        True lengths in frames.
    frames : int
        From the beginning of a clip to that of the next.
    channels : int
    """

    rows: NDArray[np.int32]
    lengths: Ints
    frames: int
    channels: int


class Scattering(NamedTuple):
    """What format 1 places patches by (FORMAT.md, "Where the patches are"); secret.

    Attributes
    ----------
    words : (n,) uint32
        The position words of each row, one behind the other.
    firsts : (n_rows,) int64
        Where those of each row begin.
    patch, patches : int
        Of the recipe.
    every : int
        Of the recipe; 0 if it has none.
    """

    words: NDArray[np.uint32]
    firsts: Ints
    patch: int
    patches: int
    every: int

    def __repr__(self) -> str:
        return "Scattering()"

    def most(self, frames: int) -> int:
        """Patches of a clip of so many frames, from 1."""
        if self.every:
            return max(1, frames // self.every)
        return min(self.patches, frames // min(self.patch, frames))


class ClipKernels(Protocol):
    """What only the backend for GPUs has; `samples` are flat, in device memory, with `__cuda_array_interface__`."""

    def add_clips(self, samples: Any, clips: ClipRows, table: LineTable) -> int:
        """Add to every clip the lines of its row, in place; returns what `reference.add_lines` does.

        Each value of the table is repeated for every channel.
        """

    def filter_clips(self, samples: Any, clips: ClipRows, scattering: Scattering, taps: Table) -> Ints:
        """Filter the patches of every clip, in place.

        Returns the number of saturated samples, of silent patches, and of frames in these.
        """

    def first_odd_clip(self, samples: Any, clips: ClipRows, scattering: Scattering) -> int | None:
        """The first clip that has a NaN or infinite sample in a patch of format 1."""

    def read_patches(self, samples: Any, starts: Ints, sizes: Ints) -> NDArray[Any]:
        """A dense copy, in host memory, of a few patches of samples that lie side by side."""
