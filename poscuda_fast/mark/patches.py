"""Where some patches are: in their clips, and in flat samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels import NOT_FINITE, SILENT, Flags, Ints
from poscuda_fast.secrecy import Secret


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Patches(Secret):
    """Some runs of frames that are marked, in order; all fields are (n,) int64.

    In format 1 each is a patch. In format 2, which marks whole clips, each is a clip or a part of one.

    Attributes
    ----------
    clips : (n,) int64
        The number of the clip.
    starts, sizes : (n,) int64
        The first frame in the clip, and the number of frames.
    rows : (n,) int64
        The row of `Plan.marks`.
    """

    clips: Ints
    starts: Ints
    sizes: Ints
    rows: Ints

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def n_frames(self) -> int:
        """Frames in all patches together."""
        return int(self.sizes.sum())

    def some(self, which: slice | Ints | NDArray[np.bool_]) -> Patches:
        """Some of the patches."""
        return Patches(self.clips[which], self.starts[which], self.sizes[which], self.rows[which])

    def places(self) -> Iterator[tuple[int, int, int]]:
        """(clip, first frame, frames) of each patch."""
        return zip(self.clips.tolist(), self.starts.tolist(), self.sizes.tolist(), strict=True)

    def __repr__(self) -> str:
        return f"Patches({len(self)} patches)"  # their places are secret


FEWEST_ACROSS = 16  # clips, for fewer of which a turned table does not pay


class Steps(NamedTuple):
    """How samples lie in flat memory: the distance between frames, between channels, and the number of channels."""

    frame: int
    channel: int
    channels: int

    @property
    def packed(self) -> bool:
        """Whether frames lie one behind the other, each with its channels in order."""
        return self.frame == self.channels and (self.channels == 1 or self.channel == 1)

    def side_by_side(self, firsts: Ints, patches: Patches) -> int:
        """How many samples each clip has in a run across the clips of one frame; 0 if there are no such runs.

        There are some if the patches have the same frames, and each clip begins right behind the one before it, with
        all of its channels or with one.
        """
        if len(patches) < FEWEST_ACROSS or abs(self.frame) < len(patches):
            return 0
        gaps = np.diff(firsts)
        alike = (patches.starts == patches.starts[0]).all() and (patches.sizes == patches.sizes[0]).all()
        if not alike or not (gaps == gaps[0]).all():
            return 0
        if gaps[0] == self.channels and (self.channels == 1 or self.channel == 1):
            return self.channels
        return int(gaps[0] == 1 and abs(self.channel) >= len(patches))

    def by_channel(self, firsts: Ints, *fields: Ints) -> tuple[Ints, ...]:
        """The flat place of each channel's first sample, and each field repeated for every channel."""
        if self.channels == 1:
            return (firsts, *fields)
        starts = (firsts[:, None] + self.channel * np.arange(self.channels)).reshape(-1)
        return (starts, *(np.repeat(field, self.channels) for field in fields))


def packed_steps(channels: int) -> Steps:
    """Frames one behind the other, each with its channels in order."""
    return Steps(channels, 1, channels)


def merge_channels(flags: Flags) -> Flags:
    """Merge a survey of each channel, (patches, channels), into one of each patch."""
    if flags.shape[1] == 1:
        return flags[:, 0]
    merged: Flags = np.bitwise_and.reduce(flags, axis=1, initial=SILENT)  # silent if all are
    merged |= np.bitwise_or.reduce(flags & NOT_FINITE, axis=1)
    return merged
