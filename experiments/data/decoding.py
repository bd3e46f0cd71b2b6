"""Decode many audio files in threads, in order; libsndfile and soxr run in parallel."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import soundfile

from poscuda_fast.disk import Workers
from poscuda_fast.evaluation.decoding import BROKEN, Decoded, UnusableError, decode, reason

BATCH_BYTES = 2**20
MOST_IN_BATCH = 256


def decode_all(
    root: Path, names: Sequence[str], rate: int, frames: int, jobs: int
) -> Generator[list[Decoded | UnusableError], None, None]:
    """Decode the named files below `root` with `jobs` threads; yield them in order, a batch at a time.

    Memory is bounded by `jobs` and does not grow with the number of files.
    """
    size = min(MOST_IN_BATCH, max(1, BATCH_BYTES // (2 * frames)))
    batches = (names[first : first + size] for first in range(0, len(names), size))

    def work(batch: Sequence[str]) -> list[Decoded | UnusableError]:
        return [_try(root / name, rate, frames) for name in batch]

    with Workers(jobs) as workers:
        yield from workers.map(work, batches)


def rate_of(path: Path | str) -> int:
    """A file's sample rate in Hz, from its header; UnusableError if it has none, or no frames."""
    try:
        info = soundfile.info(path)
    except BROKEN as error:
        raise UnusableError(reason(error)) from None
    if info.frames < 1 or info.samplerate < 1:
        raise UnusableError(f"it holds {info.frames} frames at {info.samplerate} Hz")
    return int(info.samplerate)


def _try(path: Path, rate: int, frames: int) -> Decoded | UnusableError:
    try:
        return decode(path, rate, frames)
    except UnusableError as problem:
        return problem
