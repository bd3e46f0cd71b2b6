"""Marks the patches of several files together: one kernel call for each coding and number of channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.disk import Buffer
from poscuda_fast.files.records import Record
from poscuda_fast.kernels import NOT_FINITE, Engine
from poscuda_fast.mark import codings, packed
from poscuda_fast.mark.marks import Marks
from poscuda_fast.mark.patches import Patches
from poscuda_fast.mark.snr import SAMPLES_PER_STEP
from poscuda_fast.results import Tally


class Filtered(NamedTuple):
    """Each record's marked patches as file bytes, the energy of its edit if that was measured, and all counts."""

    wet: list[memoryview]
    noise: list[float]
    tally: Tally


def filter_together(
    records: Sequence[Record], dry: Sequence[Buffer], marks: Marks, engine: Engine, *, measuring: bool = False
) -> Filtered:
    """Mark the patches of each record, as file bytes; ValueError if format 1 meets one that is not finite."""
    wet = [memoryview(b"")] * len(records)
    noises = [0.0] * len(records)
    tally = Tally()
    for group in _groups(records, dry):
        content, samples = _joined(group, packed_24=marks.steady)
        if marks.steady:
            tally.frames_changed += group.patches.n_frames
        else:
            packed.count_patches(tally, group.patches, _checked(records, group, samples, engine))
        odd = packed.mark_dense(samples, group.patches, group.channels, marks, engine)
        packed.count_odd(tally, samples.dtype, odd)
        view = memoryview(codings.to_bytes(samples, group.coding) if content is None else content)
        first = 0
        for number, before in zip(group.numbers, group.dry, strict=True):
            wet[number] = view[first : first + len(before)]
            if measuring:
                noises[number] = noise(before, wet[number], group.coding)
            first += len(before)
    return Filtered(wet, noises, tally)


def refuse_flagged(name: str, flags: NDArray[np.uint8]) -> None:
    """ValueError if one of a file's patches has a NaN or infinite sample: a filter would spread it."""
    if (flags & NOT_FINITE).any():
        raise ValueError(
            f"{name} has a NaN or infinite sample where it would be marked; nothing was written. Repair the file."
        )


class _Group(NamedTuple):
    """Records of one coding and number of channels: their numbers, their patches' bytes, and all patches in order.

    The patches' clips are indices into the numbers.
    """

    coding: str
    channels: int
    numbers: list[int]
    dry: list[Buffer]
    patches: Patches


def _groups(records: Sequence[Record], dry: Sequence[Buffer]) -> Iterator[_Group]:
    kinds: dict[tuple[str, int], list[int]] = {}
    for number, record in enumerate(records):
        kinds.setdefault((record.coding, record.channels), []).append(number)
    for (coding, channels), numbers in kinds.items():
        starts = np.array([start for n in numbers for start in records[n].starts], np.int64)
        sizes = np.array([size for n in numbers for size in records[n].sizes], np.int64)
        clips = np.repeat(np.arange(len(numbers)), [len(records[n].sizes) for n in numbers])
        rows = np.array([records[n].row for n in numbers], np.int64)[clips]
        yield _Group(coding, channels, numbers, [dry[n] for n in numbers], Patches(clips, starts, sizes, rows))


def _joined(group: _Group, *, packed_24: bool = False) -> tuple[bytearray | None, NDArray[Any]]:
    """All patches of a group as samples, and their bytes if the samples share their memory."""
    content = bytearray().join(group.dry)
    samples = codings.as_samples(content, group.coding, packed=packed_24)
    return (content, samples) if samples is not None else (None, codings.to_samples(memoryview(content), group.coding))


def _checked(records: Sequence[Record], group: _Group, samples: NDArray[Any], engine: Engine) -> NDArray[np.uint8]:
    """What each patch holds; ValueError if a sample is not finite."""
    flags = packed.survey_dense(samples, group.patches, group.channels, engine)
    odd = np.flatnonzero(flags & NOT_FINITE)
    if odd.size:
        refuse_flagged(records[group.numbers[group.patches.clips[odd[0]]]].name, flags)
    return flags


def noise(dry: Buffer, wet: Buffer, coding: str) -> float:
    """Energy of an edit, of patches as file bytes."""
    step = SAMPLES_PER_STEP * codings.CODINGS[coding]
    before, after = memoryview(dry), memoryview(wet)
    return sum(
        edit_energy(codings.to_samples(before[n : n + step], coding), codings.to_samples(after[n : n + step], coding))
        for n in range(0, len(before), step)
    )


def edit_energy(dry: NDArray[Any], wet: NDArray[Any]) -> float:
    """Energy of the difference of two runs of samples; not finite where they are not."""
    total = 0.0
    for n in range(0, len(dry), SAMPLES_PER_STEP):
        with np.errstate(invalid="ignore", over="ignore"):
            edit = dry[n : n + SAMPLES_PER_STEP].astype(np.float64) - wet[n : n + SAMPLES_PER_STEP]
            total += float(np.dot(edit, edit))
    return total
