"""Generated speech-like test material: words of vowels and noise, spoken by invented speakers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
TOP_FREQUENCY = 5_000
CONTROL_FRAMES = 80

# First three formants in Hz, after the classic averages of Peterson and Barney (1952); "s" is noise.
_FORMANTS = {
    "i": (270, 2290, 3010),
    "e": (530, 1840, 2480),
    "a": (730, 1090, 2440),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
    "n": (250, 1200, 2100),
    "s": (0, 0, 0),
}
WORDS = {"yes": "ies", "no": "nou", "sun": "san", "you": "iu", "one": "uan"}
_BANDWIDTHS = (80.0, 110.0, 160.0)


def speak(word: str, speaker: int, take: int, *, seed: int = 0) -> NDArray[np.int16]:
    """One utterance: (n_frames,) int16 at `SAMPLE_RATE`, 0.35 to 0.75 s; equal arguments give equal samples.

    Harmonics of a gliding pitch are weighted by the formants of each sound, which fade into one another.
    """
    rng = np.random.default_rng([seed, speaker, take, *word.encode()])
    voice = np.random.default_rng([seed, speaker])
    pitch = voice.uniform(90, 230)
    tract = voice.uniform(0.9, 1.18)
    n = int(rng.uniform(0.35, 0.75) * SAMPLE_RATE)
    time = np.linspace(0, 1, n)
    steps = np.linspace(0, 1, n // CONTROL_FRAMES)  # formants move slowly: follow them at a lower rate
    f0 = pitch * (1 + 0.12 * np.sin(np.pi * time) - 0.15 * time) * rng.uniform(0.95, 1.05)
    phase = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE
    sounds = WORDS[word]
    places = (np.arange(len(sounds)) + 0.5) / len(sounds)
    tracks = [np.interp(steps, places, [_FORMANTS[s][k] or 500.0 for s in sounds]) * tract for k in range(3)]
    slow_f0 = np.interp(steps, time, f0)
    voiced = np.interp(time, places, [float(s != "s") for s in sounds])
    wave = np.zeros(n)
    for harmonic in range(1, int(TOP_FREQUENCY / f0.max())):
        frequency = harmonic * slow_f0
        gain = np.full(len(steps), 1 / harmonic)
        for track, width in zip(tracks, _BANDWIDTHS, strict=True):
            gain *= track**2 / np.hypot(track**2 - frequency**2, width * frequency)
        wave += np.interp(time, steps, gain) * np.sin(harmonic * phase)
    wave *= voiced / np.abs(wave).max()
    hiss = np.diff(rng.standard_normal(n + 1)) * (1 - voiced)
    envelope = np.minimum(1, 12 * np.minimum(time, 1 - time))
    mixed = (wave + 0.12 * hiss) * envelope + 0.0005 * rng.standard_normal(n)
    spoken: NDArray[np.int16] = np.rint(mixed / np.abs(mixed).max() * rng.uniform(6000, 20000)).astype(np.int16)
    return spoken
