"""Decode audio files of any rate, sample width and channels to 16-bit mono clips of one rate, cut to one length."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from poscuda_fast.evaluation.padded import FULL_SCALE
from poscuda_fast.interrupts import interrupts_held_back

# Resampling goes this far beyond the cut, so that the last frames before it see what follows.
MARGIN_SECONDS = 0.25
BROKEN = (soundfile.SoundFileError, OSError, RuntimeError, ValueError, MemoryError)


class UnusableError(Exception):
    """A file gives no clip; the message says why."""


class Decoded(NamedTuple):
    """A clip: int16 samples, shape (frames,); its file's sample rate in Hz and channels; whether it was cut."""

    samples: NDArray[np.int16]
    rate: int
    channels: int
    cut: bool


def decode(path: Path | str | BinaryIO, rate: int, frames: int) -> Decoded:
    """The beginning of a file as mono 16-bit samples.

    Channels are averaged, other rates are resampled by soxr (quality HQ), and samples that are not 16-bit are rounded
    and saturated. Only the part of the file that is needed is read. A WAV file that was cut short gives what is left.

    Parameters
    ----------
    path : path or binary file
        An audio file that libsndfile reads.
    rate : int
        The sample rate wanted, in Hz.
    frames : int
        The most frames wanted, at that rate.

    Raises
    ------
    UnusableError
        The file cannot be read as far as needed, is empty, or holds NaN or infinity.
    """
    try:
        with interrupts_held_back(), soundfile.SoundFile(path) as file:  # its calls of Python lose an interrupt
            needed = -(-frames * file.samplerate // rate) + int(MARGIN_SECONDS * file.samplerate) + 1
            wanted = min(needed, file.frames)
            samples = file.read(wanted, dtype="float64", always_2d=True)  # (frames, channels)
        if not len(samples):
            raise UnusableError("it holds no frames")
        if len(samples) < wanted:
            raise UnusableError(f"it ends after {len(samples):,} of the {file.frames:,} frames that its header gives")
        if not np.isfinite(samples).all():
            raise UnusableError("it holds NaN or infinity")
        mono = samples.mean(axis=1)
        if file.samplerate != rate:
            mono = soxr.resample(mono, file.samplerate, rate, quality="HQ")
    except BROKEN as error:
        raise UnusableError(reason(error)) from None
    if not mono.size:
        raise UnusableError(f"its {len(samples)} frames at {file.samplerate} Hz are less than one at {rate} Hz")
    # A 16-bit sample is a multiple of 1 / FULL_SCALE, which float64 holds exactly: it comes out unchanged.
    scaled = np.rint(mono[:frames] * FULL_SCALE)
    clip = np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    return Decoded(clip, file.samplerate, file.channels, mono.size > frames)


def reason(error: BaseException) -> str:
    """An error's message, without the path that libsndfile puts into its own."""
    return str(getattr(error, "error_string", None) or error or type(error).__name__)
