"""Looks at the beginnings of some files before any is marked: whether the mark would protect, and how loud it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.files import encoded
from poscuda_fast.files.encoded import Encoding
from poscuda_fast.files.table import AudioFile
from poscuda_fast.kernels import Engine, Ints
from poscuda_fast.mark import codings, packed
from poscuda_fast.mark.judging import (
    BYTES_OF_FIRST,
    MOST_BYTES,
    MOST_TRACED,
    TRACED_OF_FIRST,
    Look,
    clips_to_look_at,
    look_at,
    traces_of,
)
from poscuda_fast.mark.patches import Patches
from poscuda_fast.mark.plan import Plan

MOST_BYTES_OF_ONE = 1 << 20
BYTES_TOGETHER = 1 << 22  # of beginnings that are in memory at a time


class _Beginnings:
    """The first frames of some files of one kind, as `judging.Readable`; clips are numbered from 0."""

    def __init__(self, parts: Sequence[NDArray[Any]], channels: int) -> None:
        self._parts, self.dtype, self.channels = parts, parts[0].dtype, channels

    def measure(self, patches: Patches, engine: Engine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return packed.measure_dense(self.read(patches), patches, self.channels, engine)

    def read(self, patches: Patches) -> NDArray[Any]:
        clips, sizes = patches.clips.tolist(), (patches.sizes * self.channels).tolist()
        return np.concatenate([self._parts[clip][:size] for clip, size in zip(clips, sizes, strict=True)])


def look(
    root: Path,
    files: Sequence[AudioFile],
    plan: Plan,
    engine: Engine,
    among: Ints | None = None,
    most_traced: int = MOST_TRACED,
    first: Ints | None = None,
) -> Look:
    """Look at the beginnings of some files under format 2, `among` all or those with some numbers, or only at `first`.

    Marks are looked for in so many frames of them. AudioFileError if one cannot be read.
    """
    chosen = clips_to_look_at(plan, among) if first is None else first
    if not len(chosen):
        return Look.nothing()
    most = min(MOST_BYTES_OF_ONE, MOST_BYTES // len(chosen))
    traced = most_traced // len(chosen)
    if first is not None:
        most, traced = BYTES_OF_FIRST, TRACED_OF_FIRST

    def look_together(numbers: list[int], parts: list[NDArray[Any]], channels: int) -> Look:
        patches = plan.of_clips(np.array(numbers, np.int64))
        frames = np.array([len(part) // channels for part in parts], np.int64)
        patches = dataclasses.replace(patches, clips=np.arange(len(parts)), sizes=np.minimum(patches.sizes, frames))
        if first is not None:
            return Look.only(traces_of(_Beginnings(parts, channels), plan.marks, patches, traced))
        return look_at(_Beginnings(parts, channels), plan.marks, patches, engine, traced)

    def looks() -> Iterator[Look]:
        yield Look.nothing()
        kinds: dict[tuple[str, int], tuple[list[int], list[NDArray[Any]]]] = {}
        for number in chosen.tolist():
            if not files[number].frames:
                continue
            samples = _read(root, files[number], most)
            channels = files[number].layout.channels
            own, parts = kinds.setdefault((samples.dtype.str, channels), ([], []))
            own.append(number)
            parts.append(samples)
            if sum(part.nbytes for part in parts) > BYTES_TOGETHER:
                yield look_together(own, parts, channels)
                del kinds[samples.dtype.str, channels]
        for (_, channels), (own, parts) in kinds.items():
            yield look_together(own, parts, channels)

    return Look.joined(looks())


def _read(root: Path, file: AudioFile, most: int) -> NDArray[Any]:
    """At most so many bytes of a file's samples, or one frame."""
    layout, path = file.layout, f"{root}/{file.name}"
    with encoded.opened(path, file.stamp) as source:
        if isinstance(layout, Encoding):
            with encoded.Reader(source, path) as reader:
                frames = min(file.frames, max(1, most // (4 * layout.channels)))
                return reader.read(frames).reshape(-1)
        frames = min(file.frames, max(1, most // layout.frame_bytes))
        source.seek(layout.offset)
        return codings.to_samples(source.read(frames * layout.frame_bytes), layout.coding)
