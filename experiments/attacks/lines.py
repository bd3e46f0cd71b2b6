"""Attacks on steady lines: notches, fitted sines, and folding at the period, with and without labels.

The period of a mark is public, since it depends on the sample rate only. The lines of a class stand out in the average
spectrum of its clips, and a clip's own steady part holds its mark. Leaked pairs, folded at the period, show it whole.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import filtfilt, iirnotch

from experiments.attacks.audio import Clips, Ints, Wave, each
from experiments.attacks.scene import Scene
from poscuda_fast.evaluation.attacks import notched
from poscuda_fast.mark.lines import period_of

NOTCH_WIDTH = 25.0  # Hz
PADDING = 4  # of a spectrum, where a clip's own sines are looked for
SHORTEST = 64  # frames: nothing is fitted to less


def remove(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    """Find the two lines of each class on the comb, which is public, and take them off its clips."""
    cleaned = notched(scene.clips, scene.labels, scene.lengths, 1 / period_of(scene.sample_rate))
    return cleaned, left(scene, cleaned)


def notch_peaks(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    """Notch filters at the `strength` frequencies at which a class's average spectrum stands out most."""
    size = scene.clips.shape[1]
    frequencies = np.fft.rfftfreq(size, 1 / scene.sample_rate)
    notchable = np.abs(frequencies - scene.sample_rate / 4) < scene.sample_rate / 4 - NOTCH_WIDTH  # not 0 Hz, or half
    classes = _by_class(scene)
    spectra = np.stack([_level(scene.clips[own], size) for _, own in classes])
    cleaned = scene.clips.copy()
    for number, (_, own) in enumerate(classes):
        others = np.delete(spectra, number, axis=0).mean(axis=0) if len(classes) > 1 else 0.0
        contrast = np.where(notchable, spectra[number] - others, -np.inf)
        for _ in range(int(strength)):
            hertz = float(frequencies[np.argmax(contrast)])
            b, a = iirnotch(hertz, max(1.0, hertz / NOTCH_WIDTH), scene.sample_rate)
            contrast[np.abs(frequencies - hertz) < NOTCH_WIDTH] = -np.inf
            cleaned[own] = each(cleaned[own], scene.lengths[own], functools.partial(_filtered, b, a))
    return cleaned, left(scene, cleaned)


def subtract_sines(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """Fit the `strength` strongest steady sines of each clip, one after another, and take them off."""

    def change(wave: Wave) -> Wave:
        if len(wave) < SHORTEST:
            return wave
        for _ in range(int(strength)):
            size = PADDING * len(wave)
            # Logarithms before the mean: what is there all along stands out, and what is loud for a moment does not.
            halves = np.array_split(wave, 4)
            steady = np.mean(
                [np.log(np.abs(np.fft.rfft(part * np.hanning(len(part)), size)) + 1.0) for part in halves], 0
            )
            turns = 2 * np.pi * float(np.argmax(steady)) / size * np.arange(len(wave))
            waves = np.stack([np.cos(turns), np.sin(turns)], axis=1)
            fitted, *_ = np.linalg.lstsq(waves, wave, rcond=None)
            wave = wave - waves @ fitted
        return wave

    return each(clips, lengths, change)


def fold_clips(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """Take off each clip's own mean over all periods, times `strength`: a comb filter at all lines there can be."""
    period = period_of(sample_rate)

    def change(wave: Wave) -> Wave:
        turns = len(wave) // period
        if turns < 2:
            return wave
        mean = wave[: turns * period].reshape(turns, period).mean(axis=0)
        return wave - strength * np.resize(mean, len(wave))

    return each(clips, lengths, change)


def fold_classes(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    """Take off the mean of all periods of all clips of the class: its mark, and what the voices leave there."""
    return _without(scene, {
        label: fold(scene.clips[own].astype(np.float64), scene.lengths[own], period_of(scene.sample_rate))
        for label, own in _by_class(scene)
    })  # fmt: skip


def leaked(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    """Learn each class's mark from `strength` leaked pairs, and subtract it from all clips of the class."""
    marks = {}
    for label, own in _by_class(scene):
        rows = rng.permutation(own)[: int(strength)]
        edits = scene.clips[rows].astype(np.float64) - scene.original[rows]
        marks[label] = fold(edits, scene.lengths[rows], period_of(scene.sample_rate))
    return _without(scene, marks)


def partial(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    """Replace `strength` % of the clips by their originals."""
    chosen = rng.permutation(len(scene.clips))[: round(len(scene.clips) * strength / 100)]
    mixed = scene.clips.copy()
    mixed[chosen] = scene.original[chosen]
    return mixed, {"unprotected": len(chosen)}


def fold(waves: NDArray[np.float64], lengths: Ints, period: int) -> NDArray[np.float64]:
    """(period,) the mean of all whole periods in some (n, L) waves, counted from each first frame."""
    total, turns = np.zeros(period), 0
    for wave, length in zip(waves, lengths.tolist(), strict=True):
        n = length // period
        total += wave[: n * period].reshape(n, period).sum(axis=0)
        turns += n
    return total / max(1, turns)


def left(scene: Scene, cleaned: Clips) -> dict[str, Any]:
    """How much of the marks' energy is left, in %."""
    before = float(np.square(scene.clips - scene.original.astype(np.float64)).sum())
    after = float(np.square(cleaned - scene.original.astype(np.float64)).sum())
    return {"energy_of_the_edit_left": round(100.0 * after / before, 2)} if before else {}


def _by_class(scene: Scene) -> list[tuple[int, Ints]]:
    return [(int(label), np.flatnonzero(scene.labels == label)) for label in np.unique(scene.labels)]


def _without(scene: Scene, marks: dict[int, NDArray[np.float64]]) -> tuple[Clips, dict[str, Any]]:
    """The clips without the period of their class."""
    cleaned = scene.clips.copy()
    for label, own in _by_class(scene):
        cleaned[own] = each(cleaned[own], scene.lengths[own], functools.partial(_less, marks[label]))
    return cleaned, left(scene, cleaned)


def _less(mark: NDArray[np.float64], wave: Wave) -> Wave:
    return wave - np.resize(mark, len(wave))


def _level(clips: Clips, size: int) -> NDArray[np.float64]:
    """The mean logarithm of the clips' spectra."""
    return np.mean([np.log(np.abs(np.fft.rfft(clip.astype(np.float64), size)) + 1.0) for clip in clips], axis=0)


def _filtered(b: Any, a: Any, wave: Wave) -> Wave:
    """Filtered forwards and backwards, where the wave is long enough for it."""
    done: Wave = filtfilt(b, a, wave) if len(wave) > 3 * max(len(a), len(b)) else wave
    return done
