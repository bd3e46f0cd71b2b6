"""Divides files into pieces, so that one of any length is edited, journalled and put back in little memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from poscuda_fast.disk import time_of
from poscuda_fast.files.containers import Uncompressed
from poscuda_fast.files.records import WHOLE, Record
from poscuda_fast.files.table import AudioFile
from poscuda_fast.mark.plan import Plan

PIECE_BYTES = 1 << 19
BYTES_PER_RECORD = 400


def whole_files(files: Sequence[AudioFile], plan: Plan, numbers: Sequence[int]) -> list[Record]:
    """Some files as a single piece each."""
    chosen = np.array(numbers, np.int64)
    patches = plan.of_clips(chosen)
    ends = np.searchsorted(patches.clips, chosen, side="right").tolist()
    starts, sizes = patches.starts.tolist(), patches.sizes.tolist()
    found = []
    first = 0
    for number, row, end in zip(numbers, plan.rows_of(chosen).tolist(), ends, strict=True):
        is_marked = plan.marks_clip(number)
        found.append(_record(files[number], row, starts[first:end], sizes[first:end], is_marked=is_marked))
        first = end
    return found


def uncompressed_pieces(file: AudioFile, plan: Plan, number: int, begin: int = 0) -> Iterator[Record]:
    """The pieces of an uncompressed file from byte `begin` on, where one must begin.

    A piece of samples consists of whole frames and, in format 1, of whole patches.
    """
    whole = _record(file, int(plan.rows_of(np.array([number]))[0]), [], [], is_marked=plan.marks_clip(number))
    patches = _Ahead(plan, number)
    unit, end_of_sound = whole.frame_bytes, whole.offset + whole.frames * whole.frame_bytes
    while begin < whole.size:
        end = min(begin + PIECE_BYTES, whole.size)
        starts: list[int] = []
        sizes: list[int] = []
        if whole.frames and end > whole.offset and begin < end_of_sound:
            first = max(0, begin - whole.offset) // unit
            last = max(first + 1, min((end - whole.offset) // unit, whole.frames))
            if plan.marks.steady:
                starts, sizes = [first], [last - first]
            else:
                starts, sizes = patches.between(first, last)
                last = max(last, starts[-1] + sizes[-1]) if starts else last
            # Bytes behind the samples are in the last piece of them, as far as they fit.
            end = end if end > end_of_sound else whole.offset + last * unit
        yield whole._replace(begin=begin, end=end, starts=starts, sizes=sizes)
        begin = end


def is_long(file: AudioFile) -> bool:
    """Whether a file is divided into pieces."""
    return file.size > PIECE_BYTES


def bytes_kept(files: Sequence[AudioFile], plan: Plan) -> int:
    """About how many bytes the sidecar keeps of the files of a plan."""
    return sum(_bytes_kept(file, plan) if plan.marks_clip(n) else BYTES_PER_RECORD for n, file in enumerate(files))


def _bytes_kept(file: AudioFile, plan: Plan) -> int:
    if not isinstance(file.layout, Uncompressed):
        return BYTES_PER_RECORD + file.size
    frames = file.frames if plan.marks.steady else plan.n_frames // max(1, len(plan.lengths)) + 1
    return BYTES_PER_RECORD + frames * file.layout.frame_bytes


def _record(file: AudioFile, row: int, starts: list[int], sizes: list[int], *, is_marked: bool) -> Record:
    """A file as one piece; one that is not marked is any file without samples, and is not encoded again."""
    encoded_at = WHOLE if is_marked else 0
    return Record(
        name=file.output_name,
        row=row,
        coding=file.coding,
        channels=file.layout.channels,
        frames=file.frames if is_marked else 0,
        offset=file.layout.offset if isinstance(file.layout, Uncompressed) else encoded_at,
        size=file.size,
        begin=0,
        end=file.size,
        starts=starts,
        sizes=sizes,
        time=time_of(file.stamp),
    )


class _Ahead:
    """The patches of one clip in format 1, taken in order."""

    def __init__(self, plan: Plan, number: int) -> None:
        self._groups = plan.parts_of(number)
        self._starts = self._sizes = np.empty(0, np.int64)

    def between(self, first: int, last: int) -> tuple[list[int], list[int]]:
        """(starts, sizes) of the patches that begin in frames first..last-1; those before them are dropped."""
        while not len(self._starts) or self._starts[-1] < last:
            group = next(self._groups, None)
            if group is None:
                break
            self._starts = np.concatenate([self._starts, group.starts])
            self._sizes = np.concatenate([self._sizes, group.sizes])
        low, high = np.searchsorted(self._starts, [first, last]).tolist()
        found = self._starts[low:high].tolist(), self._sizes[low:high].tolist()
        self._starts, self._sizes = self._starts[high:], self._sizes[high:]
        return found
