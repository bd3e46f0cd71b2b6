"""Attacks that change the sound of training clips: filters, bands, time.

Each is ``attack(clips, lengths, sample_rate, strength, rng) -> clips``: new (n, L) int16 clips, each changed
within its own length. The attacks know nothing about labels or marks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, idct, irfft, next_fast_len, rfft
from scipy.ndimage import gaussian_filter1d, map_coordinates
from scipy.signal import oaconvolve

PATCH = 240  # frames of a region
TAPS = 80  # of the random blur of a region, as many as the method's
SHORT_TAPS = 15  # of the random short filter
EQUALISER_KNOTS = 8  # gains from 0 Hz to half the sample rate
SHARPEN_WIDTHS = (1.0, 4.0)  # frames, standard deviation of the blur that is taken away
SHARPEN_MOST = 4.0
WARP_SECONDS = 0.05  # between two changes of speed

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


def short_filter(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """A random filter of `SHORT_TAPS` taps for each clip; `strength` is its energy relative to the direct sound's."""

    def change(wave: Wave) -> Wave:
        taps = rng.standard_normal(SHORT_TAPS) * np.sqrt(strength / SHORT_TAPS)
        taps[SHORT_TAPS // 2] += 1.0
        return _same_level(oaconvolve(wave, taps, "same"), wave)

    return each(clips, lengths, change)


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


def sharpen(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """Sharpen each clip at random, then keep the lower `strength` (a share) of its cosine transform."""

    def change(wave: Wave) -> Wave:
        blurred = gaussian_filter1d(wave, rng.uniform(*SHARPEN_WIDTHS), mode="nearest")
        sharp = wave + rng.uniform(0, SHARPEN_MOST) * (wave - blurred)
        return _same_level(_band(sharp, 0.0, strength, 2.0), wave)

    return each(clips, lengths, change)


def lower_share(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """Keep the lower `strength` (a share) of each clip's cosine transform."""
    return each(clips, lengths, lambda wave: _band(wave, 0.0, strength, 2.0))


def low_pass(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """Keep cosine-transform components below `strength` Hz."""
    return each(clips, lengths, lambda wave: _band(wave, 0.0, strength, sample_rate))


def high_pass(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """Keep cosine-transform components from `strength` Hz up."""
    return each(clips, lengths, lambda wave: _band(wave, strength, np.inf, sample_rate))


def band_pass(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """Keep two octaves of the cosine transform, from `strength` Hz."""
    return each(clips, lengths, lambda wave: _band(wave, strength, 4 * strength, sample_rate))


def blur(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """Convolve each clip with `strength` taps from U(0, 1), divided by their sum."""
    return each(clips, lengths, lambda wave: oaconvolve(wave, _low_pass_taps(int(strength), rng), "same"))


def blur_regions(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """Convolve `strength` random regions of `PATCH` frames of each clip, each with its own `TAPS` random taps."""

    def change(wave: Wave) -> Wave:
        for _ in range(int(strength)):
            start = int(rng.integers(max(0, len(wave) - PATCH) + 1))
            region = wave[start : start + PATCH]
            wave[start : start + PATCH] = oaconvolve(region, _low_pass_taps(TAPS, rng), "same")
        return wave

    return each(clips, lengths, change)


def warp(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """Warp time up to `strength` (a share) faster or slower, changing every `WARP_SECONDS`; the ends stay."""

    def change(wave: Wave) -> Wave:
        knots = 2 + int(len(wave) / (WARP_SECONDS * sample_rate))
        speeds = 1.0 + strength * rng.uniform(-1, 1, knots)
        passed = np.cumsum(np.interp(np.linspace(0, knots - 1, len(wave)), np.arange(knots), speeds))
        return _read(wave, (passed - passed[0]) * ((len(wave) - 1) / max(passed[-1] - passed[0], 1e-9)))

    return each(clips, lengths, change)


def jitter(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """Read every frame up to `strength` frames early or late, drawn for each frame."""

    def change(wave: Wave) -> Wave:
        return _read(wave, np.arange(len(wave)) + strength * rng.uniform(-1, 1, len(wave)))

    return each(clips, lengths, change)


def speed(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """Play each clip up to `strength` (a share) faster or slower about its middle, and cut it to its length."""

    def change(wave: Wave) -> Wave:
        middle = (len(wave) - 1) / 2
        factor = 1.0 + strength * rng.uniform(-1, 1)
        return _read(wave, middle + (np.arange(len(wave)) - middle) * factor, outside="constant")

    return each(clips, lengths, change)


def cut(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """Cut a random stretch, `strength` (a share) of the clip, out of each clip, and close the gap."""

    def change(wave: Wave) -> Wave:
        size = int(strength * len(wave))
        start = int(rng.integers(len(wave) - size + 1))
        return np.concatenate([wave[:start], wave[start + size :], np.zeros(size)])

    return each(clips, lengths, change)


def _low_pass_taps(taps: int, rng: np.random.Generator) -> NDArray[np.float64]:
    drawn = rng.uniform(0.0, 1.0, taps)
    normal: NDArray[np.float64] = drawn / drawn.sum()
    return normal


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
