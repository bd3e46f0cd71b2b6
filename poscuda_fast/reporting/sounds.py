"""The beginning of a clip to listen to: a 16-bit WAV file in a data: URI."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.reporting.survey import MOST_SECONDS, Excerpt

PAGE_BYTES = 3_000_000  # for all players of a page together
LEAST_SECONDS = 3.0  # of each, whatever it takes
MOST_CHANNELS = 2


def seconds_that_fit(excerpts: Sequence[Excerpt]) -> float:
    """How much of each clip a page can hold: 10 s of short clips, less of many long ones at high rates."""
    per_second = sum(2 * len(_wav(one.cut(0).before, one.sample_rate)[44:]) * one.sample_rate for one in excerpts)
    return min(MOST_SECONDS, max(LEAST_SECONDS, PAGE_BYTES / per_second)) if per_second else MOST_SECONDS


def player(samples: NDArray[np.float32], sample_rate: int) -> str:
    """Samples (frames, channels) of full scale 1 as the address of a WAV file that holds them."""
    return "data:audio/wav;base64," + base64.b64encode(_wav(samples, sample_rate)).decode("ascii")


def _wav(samples: NDArray[np.float32], sample_rate: int) -> bytes:
    """The file, limited to full scale; of more than two channels the first two."""
    heard = samples[:, :MOST_CHANNELS].astype(np.float64) * 2**15
    data = np.nan_to_num(np.rint(heard)).clip(-(2**15), 2**15 - 1).astype("<i2").tobytes()
    channels = heard.shape[1]
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, channels, sample_rate,
        2 * channels * sample_rate, 2 * channels, 16, b"data", len(data),
    )  # fmt: skip
    return head + data
