"""Looks at the beginnings of some files before any is marked: whether the mark would protect, and how loud it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.files import encoded, headers
from poscuda_fast.files.encoded import Encoding
from poscuda_fast.files.listing import AudioFile
from poscuda_fast.kernels import Engine
from poscuda_fast.mark import packed
from poscuda_fast.mark.judging import MOST_BYTES, Look, chosen_clips, look_at
from poscuda_fast.mark.patches import Patches
from poscuda_fast.mark.plan import Plan

MOST_BYTES_OF_ONE = 1 << 20


class _Beginning:
    """The first frames of a file, as `judging.Readable`."""

    def __init__(self, samples: NDArray[Any], channels: int) -> None:
        self.samples, self.dtype, self.channels = samples, samples.dtype, channels

    def measure(self, patches: Patches, engine: Engine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return packed.measure_dense(self.samples, patches, self.channels, engine)

    def read(self, patches: Patches) -> NDArray[Any]:
        del patches  # there is one, and this is all of it
        return self.samples.copy()


def look(root: Path, files: Sequence[AudioFile], plan: Plan, engine: Engine) -> Look:
    """Look at the beginnings of some files under format 2; AudioFileError if one cannot be read."""
    chosen = chosen_clips(len(files))
    most = min(MOST_BYTES_OF_ONE, MOST_BYTES // len(chosen))

    def looks() -> Iterator[Look]:
        for number in chosen.tolist():
            beginning = _read(root, files[number], most)
            patches = plan.of_clip(number)
            frames = len(beginning.samples) // beginning.channels
            patches = dataclasses.replace(patches, sizes=np.minimum(patches.sizes, frames))
            yield look_at(beginning, plan.marks, patches, engine)

    return Look.joined(looks())


def _read(root: Path, file: AudioFile, most: int) -> _Beginning:
    """At most so many bytes of a file's samples, or one frame."""
    layout, path = file.layout, f"{root}/{file.name}"
    with encoded.opened(path, file.stamp) as source:
        if isinstance(layout, Encoding):
            with encoded.Reader(source, path) as reader:
                frames = min(file.frames, max(1, most // (4 * layout.channels)))
                return _Beginning(reader.read(frames).reshape(-1), layout.channels)
        frames = min(file.frames, max(1, most // layout.frame_bytes))
        source.seek(layout.offset)
        return _Beginning(headers.to_samples(source.read(frames * layout.frame_bytes), layout.coding), layout.channels)
