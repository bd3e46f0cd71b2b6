"""Attacks that change the sound of training clips: filters, bands, speed, pitch, gating.

Each is ``attack(clips, lengths, sample_rate, strength, rng) -> clips``: new (n, L) int16 clips, each changed
within its own length. The attacks know nothing about labels or marks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import soxr
import torch
import torchaudio
from numpy.typing import NDArray
from scipy.fft import dct, idct, irfft, next_fast_len, rfft
from scipy.ndimage import map_coordinates

EQUALISER_KNOTS = 8  # gains from 0 Hz to half the sample rate
PITCHES = 5  # different shifts, from the lowest to the highest
VOCODER = 512  # frames of its window
GATE_SECONDS = 0.064  # a window of spectral gating

Clips = NDArray[np.int16]  # (n, L)
Ints = NDArray[np.int64]  # (n,)
Wave = NDArray[np.float64]  # (frames,) of one clip, in units of int16
Transform = Callable[[Clips, Ints, int, float, np.random.Generator], Clips]


def each(clips: Clips, lengths: Ints, change: Callable[[Wave], Wave]) -> Clips:
    """Copies of the clips, with `change` applied to the true frames of each."""
    changed = clips.copy()
    for row, length in enumerate(lengths):
        if length:
            changed[row, :length] = rounded(change(clips[row, :length].astype(np.float64)))
    return changed


def rounded(wave: Wave) -> Clips:
    """To int16: nearest, ties to even, saturated."""
    whole: Clips = np.clip(np.rint(wave), -32768, 32767).astype(np.int16)
    return whole


def equaliser(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """A random smooth equaliser for each clip, without phase; `strength` is its standard deviation in dB."""

    def change(wave: Wave) -> Wave:
        decibels = strength * rng.standard_normal(EQUALISER_KNOTS)
        size = next_fast_len(2 * len(wave), real=True)
        spectrum = rfft(wave, size)
        places = np.linspace(0, EQUALISER_KNOTS - 1, len(spectrum))
        gains = 10 ** (np.interp(places, np.arange(EQUALISER_KNOTS), decibels) / 20)
        return _same_level(irfft(spectrum * gains, size)[: len(wave)], wave)

    return each(clips, lengths, change)


def low_pass(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """Keep cosine-transform components below `strength` Hz."""
    return each(clips, lengths, lambda wave: _band(wave, 0.0, strength, sample_rate))


def high_pass(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """Keep cosine-transform components from `strength` Hz up."""
    return each(clips, lengths, lambda wave: _band(wave, strength, np.inf, sample_rate))


def speed(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """Play each clip up to `strength` (a share) faster or slower about its middle, and cut it to its length."""

    def change(wave: Wave) -> Wave:
        middle = (len(wave) - 1) / 2
        factor = 1.0 + strength * rng.uniform(-1, 1)
        return _read(wave, middle + (np.arange(len(wave)) - middle) * factor, outside="constant")

    return each(clips, lengths, change)


def pitch(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """Shift each clip's pitch by up to `strength` semitones, in one of `PITCHES` steps, at the same speed."""
    steps = np.linspace(-strength, strength, PITCHES)
    return each(clips, lengths, lambda wave: _shifted(wave, float(steps[rng.integers(PITCHES)])))


def gate(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """Spectral gating by noisereduce: a share `strength` of what is steady in a clip is taken off as noise."""
    import noisereduce  # noqa: PLC0415 - it imports matplotlib

    size = 1 << (round(GATE_SECONDS * sample_rate) - 1).bit_length()

    def change(wave: Wave) -> Wave:
        if len(wave) < size:
            return wave
        with warnings.catch_warnings():  # it divides by levels of silence
            warnings.simplefilter("ignore", RuntimeWarning)
            kept: Wave = noisereduce.reduce_noise(
                wave, sample_rate, stationary=True, prop_decrease=strength, n_fft=size
            )
        return np.nan_to_num(kept)

    return each(clips, lengths, change)


def fitted(wave: Wave, frames: int) -> Wave:
    """Cut, or filled with zeros, to a length."""
    return np.pad(wave[:frames], (0, max(0, frames - len(wave))))


def _shifted(wave: Wave, semitones: float) -> Wave:
    """The wave stretched by a phase vocoder, and resampled to its length.

    torchaudio's own `pitch_shift` resamples by filters of thousands of taps, and takes a second for a clip.
    """
    if not semitones:
        return wave
    rate = 2.0 ** (-semitones / 12)
    window = torch.hann_window(VOCODER, dtype=torch.float64)
    options: dict[str, Any] = {"n_fft": VOCODER, "hop_length": VOCODER // 4, "window": window}
    spectrum = torch.stft(torch.from_numpy(wave), **options, pad_mode="constant", return_complex=True)
    turns = torch.linspace(0, torch.pi * VOCODER / 4, VOCODER // 2 + 1, dtype=torch.float64)[:, None]
    stretched = torchaudio.functional.phase_vocoder(spectrum, rate, turns)
    longer = torch.istft(stretched, **options, length=max(1, round(len(wave) / rate))).numpy()
    return fitted(soxr.resample(longer, 1 / rate, 1.0), len(wave))


def _band(wave: Wave, lowest: float, highest: float, rate: float) -> Wave:
    """What lies in [lowest, highest), in the units of `rate`; component k of n is at k * rate / (2 n)."""
    parts = dct(wave, norm="ortho")
    frequencies = np.arange(len(wave)) * (rate / (2 * len(wave)))
    kept: Wave = idct(np.where((frequencies >= lowest) & (frequencies < highest), parts, 0.0), norm="ortho")
    return kept


def _read(wave: Wave, times: NDArray[Any], outside: str = "nearest") -> Wave:
    """The wave at fractional frames, by cubic splines."""
    values: Wave = map_coordinates(wave, times[None], order=3, mode=outside)
    return values


def _same_level(wave: Wave, like: Wave) -> Wave:
    """A wave scaled to the level of another, so that an attack on timbre is not one on gain."""
    power = float(np.mean(wave**2))
    return wave * np.sqrt(float(np.mean(like**2)) / power) if power else wave
