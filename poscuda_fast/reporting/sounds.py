"""The beginning of a clip to listen to: a 16-bit WAV file in a data: URI."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.reporting.survey import MOST_SECONDS, Excerpt

PAGE_BYTES = 5_000_000  # for all players of a page together
LEAST_SECONDS = 2  # of each clip, even where that exceeds PAGE_BYTES
MOST_CHANNELS = 2


def what_fits(excerpts: Sequence[Excerpt]) -> tuple[float, int]:
    """Seconds and channels of each clip that fit into a page: all of short clips, less of many long ones."""
    for seconds in range(int(MOST_SECONDS), LEAST_SECONDS - 1, -1):
        for channels in range(MOST_CHANNELS, 0, -1):
            if sum(_bytes(excerpt, seconds, channels) for excerpt in excerpts) <= PAGE_BYTES:
                return seconds, channels
    return LEAST_SECONDS, 1


def _bytes(excerpt: Excerpt, seconds: int, channels: int) -> int:
    """Bytes of the three players of a clip."""
    frames: int = min(len(excerpt.before), seconds * excerpt.sample_rate)
    kept: int = min(excerpt.before.shape[1], channels)
    return 3 * 2 * frames * kept


def player(samples: NDArray[np.float32], sample_rate: int) -> str:
    """Samples (frames, 1 or 2 channels), full scale 1, as a WAV file in a data: URI."""
    return "data:audio/wav;base64," + base64.b64encode(_wav(samples, sample_rate)).decode("ascii")


def _wav(samples: NDArray[np.float32], sample_rate: int) -> bytes:
    """A WAV file of samples, limited to full scale."""
    heard = samples.astype(np.float64) * 2**15
    data = np.nan_to_num(np.rint(heard)).clip(-(2**15), 2**15 - 1).astype("<i2").tobytes()
    channels = heard.shape[1]
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, channels, sample_rate,
        2 * channels * sample_rate, 2 * channels, 16, b"data", len(data),
    )  # fmt: skip
    return head + data
