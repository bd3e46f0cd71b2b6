"""Marks the patches of several files together: one kernel call for each coding and number of channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.files import headers
from poscuda_fast.files.records import Record
from poscuda_fast.kernels import NOT_FINITE, Engine, Marks
from poscuda_fast.mark import packed
from poscuda_fast.mark.packed import count
from poscuda_fast.mark.plan import Patches
from poscuda_fast.results import Tally


class Filtered(NamedTuple):
    """Each file's marked patches as file bytes, the energy of each edit, and the counts over all files."""

    wet: list[bytes]
    noise: list[float]
    tally: Tally


def filter_together(records: Sequence[Record], dry: Sequence[bytes], marks: Marks, engine: Engine) -> Filtered:
    """Mark the patches of each record, given as file bytes; ValueError if a sample is not finite."""
    wet = [b""] * len(records)
    noise = [0.0] * len(records)
    tally = Tally()
    for group, samples, patches, channels in _groups(records, dry):
        flags = packed.survey_dense(samples, patches, channels, engine)
        _refuse(records, group, patches, flags)
        count(tally, patches, flags, marks)
        filtered = samples.copy()
        tally.saturated_samples += packed.mark_dense(filtered, patches, channels, marks, engine)
        content = memoryview(headers.to_bytes(filtered, records[group[0]].coding))
        first = 0
        for number, energy in zip(group, _noise(samples, filtered, [len(dry[n]) for n in group]), strict=True):
            n = len(dry[number])
            wet[number] = bytes(content[first : first + n])
            noise[number] = energy
            first += n
    return Filtered(wet, noise, tally)


def count_together(tally: Tally, records: Sequence[Record], dry: Sequence[bytes], marks: Marks, engine: Engine) -> None:
    """Count the patches of each record without marking them."""
    for _, samples, patches, channels in _groups(records, dry):
        count(tally, patches, packed.survey_dense(samples, patches, channels, engine), marks)


def refuse_non_finite(records: Sequence[Record], dry: Sequence[bytes], engine: Engine) -> None:
    """ValueError that names the first file with a NaN or infinite sample in a patch."""
    for group, samples, patches, channels in _groups(records, dry):
        _refuse(records, group, patches, packed.survey_dense(samples, patches, channels, engine))


def _groups(records: Sequence[Record], dry: Sequence[bytes]) -> Iterator[tuple[list[int], NDArray[Any], Patches, int]]:
    """(record numbers, their samples in one buffer, its patches, channels) for each coding and number of channels.

    The patches' clips are indices into the list of record numbers.
    """
    groups: dict[tuple[str, int], list[int]] = {}
    for number, record in enumerate(records):
        groups.setdefault((record.coding, record.channels), []).append(number)
    for (coding, channels), group in groups.items():
        samples = headers.to_samples(b"".join([dry[n] for n in group]), coding)
        sizes = np.array([size for n in group for size in records[n].sizes], np.int64)
        clips = np.repeat(np.arange(len(group)), [len(records[n].sizes) for n in group])
        rows = np.array([records[n].row for n in group], np.int64)[clips]
        yield group, samples, Patches(clips, np.zeros_like(sizes), sizes, rows), channels


def _refuse(records: Sequence[Record], group: list[int], patches: Patches, flags: NDArray[np.uint8]) -> None:
    odd = np.flatnonzero(flags & NOT_FINITE)
    if odd.size:
        raise ValueError(
            f"{records[group[patches.clips[odd[0]]]].name} has a NaN or infinite sample where it would be marked; "
            f"nothing was written. Repair the file."
        )


def _noise(dry: NDArray[Any], wet: NDArray[Any], n_bytes: list[int]) -> list[float]:
    """Energy of each file's edit; `n_bytes` gives its share of the buffers."""
    shares = np.array(n_bytes, np.int64)
    if not shares.any():
        return [0.0] * len(n_bytes)
    edit = dry.astype(np.float64)
    edit -= wet
    with np.errstate(over="ignore"):
        edit *= edit
        firsts = (np.cumsum(shares) - shares) * len(dry) // shares.sum()
        found = np.zeros(len(shares))
        # An empty file begins where the next one does; reduceat would give it its neighbour's energy.
        found[shares > 0] = np.add.reduceat(edit, firsts[shares > 0])
    return found.tolist()
