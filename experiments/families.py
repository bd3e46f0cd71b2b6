"""The families of marks that the search tried: class-wise sounds at keyed places, at a given level.

These are prototypes in floating point; the winner became format 2 of the library (FORMAT.md). Every mark changes
patches only, and needs only the clip's length and the patch itself.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import oaconvolve

from experiments.conditions import Clips, Condition, Ints
from poscuda_fast import Key

FULL_SCALE = 32768.0
Float = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Family:
    """One point of the search.

    Attributes
    ----------
    carrier : str
        "filtered": the patch through its class's filter, scaled to the level. The others depend on the class alone:
        "tone", a sum of tones; "pulse", the same on one side of zero; "noise" in the bands; "loop", noise that
        repeats with `period`; "comb", `resonances` harmonics of that period; "taps", random samples. Names joined by
        "+" give one carrier per band.
    bands : tuple of (float, float)
        Where the class's frequencies lie, in cycles a frame; every band gets `resonances` of them.
    level : float
        RMS of the mark inside a patch, as a share of full scale.
    patch : int
        Frames per patch; 0: computed from `share` and `patches`.
    share : float
        Share of the clip's frames that lie in patches.
    patches : int
        Patches per clip; 0: computed from `share`.
    resonances : int
        Frequencies of a class in each band.
    window : str
        "hann", "flat" (cosine edges of an eighth) or "none".
    place : str
        "keyed": as in format 1; "edges": from both ends of the clip inwards; "grid": at equal distances.
    weights : tuple of float
        Relative weights of the bands; empty: all equal.
    slots : int
        Number of frequencies in a band that tones choose from, so that they differ; 0: any frequency.
    width : int
        Taps of the filter of "filtered".
    period : int
        Frames after which a carrier repeats; patches begin at multiples of it. 0: neither.
    tilt : float
        Harmonics of frequency f are weighted by exp(tilt * f).
    differences : int
        How often "taps" are differenced.
    follow : float
        The lowest level, as a share of the patch's own RMS.
    hold : int
        Frames for which each sample of "taps" is held.
    """

    carrier: str = "tone"
    bands: tuple[tuple[float, float], ...] = ((0.0375, 0.4375),)
    level: float = 0.003
    patch: int = 240
    share: float = 0.25
    patches: int = 0
    resonances: int = 1
    window: str = "hann"
    place: str = "keyed"
    weights: tuple[float, ...] = ()
    slots: int = 0
    width: int = 80
    period: int = 0
    tilt: float = 0.0
    differences: int = 0
    follow: float = 0.0
    hold: int = 1

    @property
    def name(self) -> str:
        """The fields that differ from the defaults, for file names."""
        parts = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                if isinstance(value, tuple):
                    value = "+".join("-".join(f"{edge:g}" for edge in np.atleast_1d(one)) for one in value)
                elif isinstance(value, float):
                    value = f"{value:.4g}"
                parts.append(f"{field.name}={value}")
        return "_".join(parts) or "default"


def condition(family: Family) -> Condition:
    """The family as a condition that trainings can use."""

    def mark(clips: Clips, labels: Ints, lengths: Ints, key: Key) -> None:
        made = {int(label): Mark(family, key, int(label)) for label in np.unique(labels)}
        for row, (label, length) in enumerate(zip(labels, lengths, strict=True)):
            made[int(label)].add(clips[row, :length])

    return Condition(family.name, family.name, mark, None, dataclasses.asdict(family))


class Mark:
    """The mark of one class."""

    def __init__(self, family: Family, key: Key, label: int) -> None:
        self.family = family
        seed = np.frombuffer(key.derive(b"experiments: search", str(label).encode(), length=32), np.uint32)
        self.rng = np.random.default_rng(seed)
        self.words = self.rng.integers(0, 1 << 32, 4096, np.uint64)
        self.frequencies = [self._draw(band) for band in family.bands]
        self.window = _window(family.window, family.patch)
        self.weights = family.weights or (1.0,) * len(family.bands)
        if family.carrier == "filtered":
            self.filter = self._filter()
        else:
            self.template = self._template()

    def _draw(self, band: tuple[float, float]) -> Float:
        lo, hi = band
        n = self.family.resonances
        if self.family.slots:
            chosen = np.sort(self.rng.permutation(self.family.slots)[:n])
            return lo + (hi - lo) * (chosen + 0.5) / self.family.slots
        return np.sort(self.rng.uniform(lo, hi, n))

    def _template(self) -> Float:
        t = np.arange(self.family.patch or 8192)
        wave = np.zeros(len(t))
        carriers = (self.family.carrier.split("+") * len(self.family.bands))[: len(self.family.bands)]
        for carrier, weight, band, frequencies in zip(
            carriers, self.weights, self.family.bands, self.frequencies, strict=True
        ):
            if carrier == "taps":
                part = self.rng.integers(-128, 129, len(t) + self.family.differences).astype(float)
                part = np.diff(part, self.family.differences)
                part = np.repeat(part, self.family.hold)[: len(t)]
            elif carrier in ("loop", "comb"):
                f = np.fft.rfftfreq(self.family.period)
                inside = np.flatnonzero((f >= band[0] - 1e-9) & (f <= band[1] + 1e-9))
                spectrum = np.fft.rfft(self.rng.standard_normal(self.family.period))
                if carrier == "comb":
                    inside = self.rng.permutation(inside)[: self.family.resonances]
                    spectrum /= np.abs(spectrum)
                spectrum *= np.isin(np.arange(len(f)), inside) * np.exp(self.family.tilt * f)
                part = np.tile(np.fft.irfft(spectrum, self.family.period), 1 + len(t) // self.family.period)[: len(t)]
            elif carrier == "noise":
                spectrum = np.fft.rfft(self.rng.standard_normal(512))
                f = np.fft.rfftfreq(512)
                part = np.fft.irfft(spectrum * ((f >= band[0]) & (f <= band[1])), 512)[: len(t)]
            else:
                phases = self.rng.uniform(0.0, 2 * np.pi, len(frequencies))
                part = np.cos(2 * np.pi * frequencies[:, None] * t + phases[:, None]).sum(axis=0)
            if self.family.carrier == "pulse":
                part = (1.0 + part / np.abs(part).max()) / 2
            wave += weight * part / np.sqrt(np.mean(part**2))
        wave *= self.window if self.family.patch else 1.0
        scaled: Float = wave / np.sqrt(np.mean(wave**2))
        return scaled

    def _filter(self) -> Float:
        t = np.arange(self.family.width) - (self.family.width - 1) / 2
        taps = np.zeros(self.family.width)
        for weight, frequencies in zip(self.weights, self.frequencies, strict=True):
            taps += weight * np.cos(2 * np.pi * frequencies[:, None] * t).sum(axis=0)
        return taps * np.hanning(self.family.width)

    def add(self, clip: Clips) -> None:
        """Mark one clip in place."""
        family = self.family
        size = min(family.patch or max(1, int(family.share * len(clip) / family.patches)), len(clip))
        if size != len(self.window):
            self.window = _window(family.window, size)
        count = family.patches or max(1, int(family.share * len(clip)) // max(1, size))
        grid = family.period or 1
        for start in (first // grid * grid for first in self._starts(len(clip), size, count)):
            dry = clip[start : start + size].astype(np.float64)
            if family.carrier == "filtered":
                wave = oaconvolve(dry, self.filter, mode="same") * self.window[:size]
                rms = np.sqrt(np.mean(wave**2))
                wave = wave / rms if rms > 0 else wave
            else:
                wave = self.template[:size] if family.patch else self.template[:size] * self.window
            level = max(family.level * FULL_SCALE, family.follow * float(np.sqrt(np.mean(dry**2))))
            clip[start : start + size] = np.clip(np.rint(dry + level * wave), -32768, 32767)

    def _starts(self, length: int, size: int, count: int) -> list[int]:
        count = min(count, length // max(1, size))
        free = length - count * size + 1
        if self.family.place == "edges":
            half = count // 2
            return [n * size for n in range(count - half)] + [length - (n + 1) * size for n in range(half)]
        if self.family.place == "grid":  # at equal distances from a keyed first one
            step = int(size / self.family.share)
            first = int(self.words[0]) * (step - size + 1) >> 32
            return list(range(first, length - size + 1, step))
        edges = [j * free // count for j in range(count + 1)]
        return [j * size + edges[j] + int(self.words[j]) * (edges[j + 1] - edges[j]) // (1 << 32) for j in range(count)]


def _window(name: str, size: int) -> Float:
    if name == "hann":
        return np.hanning(size + 2)[1:-1]
    if name == "none":
        return np.ones(size)
    edge = size // 8
    ramp = np.hanning(2 * edge + 2)[1 : edge + 1]
    return np.concatenate([ramp, np.ones(size - 2 * edge), ramp[::-1]])


def at_snr(family: Family, energies: Float, lengths: Ints, snr_db: float) -> Family:
    """The family with the level that gives a median SNR over clips of these energies (of samples in [-1, 1))."""
    frames = frames_marked(family, lengths)
    ratio = float(np.median(energies / frames))
    return dataclasses.replace(family, level=float(np.sqrt(ratio / 10 ** (snr_db / 10))))


def frames_marked(family: Family, lengths: Ints) -> Ints:
    """(n,) frames that lie in patches of clips of these lengths, except those that a grid leaves out at the end."""
    size = np.minimum(family.patch or np.maximum(1, (family.share * lengths / family.patches).astype(int)), lengths)
    by_share = np.maximum(1, (family.share * lengths).astype(int) // size)
    count = np.full(len(lengths), family.patches) if family.patches else by_share
    frames: Ints = np.minimum(count, lengths // size) * size
    return frames


def energies_of(clips: Any, rows: Ints, lengths: Ints) -> Float:
    """(n,) energy of each clip, where full scale is 1."""
    return np.array([float((clips[row, : lengths[row]].astype(np.float64) ** 2).sum()) for row in rows]) / FULL_SCALE**2
