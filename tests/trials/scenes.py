"""Small scenes for the attacks: spoken words, marked."""

from __future__ import annotations

import numpy as np

from experiments.attacks.scene import Scene
from experiments.training.conditions import Condition, mark_rows, study_key
from poscuda_fast.cli.synth import SAMPLE_RATE, WORDS, speak

RATE = 8000
FRAMES = 3000
N = 24
CLASSES = 4


def speech(n: int = N, frames: int = FRAMES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Words at 8 kHz as (n, frames) int16, their labels and true lengths."""
    words = sorted(WORDS)[:CLASSES]
    labels = np.arange(n, dtype=np.int64) % CLASSES
    clips, lengths = np.zeros((n, frames), np.int16), np.empty(n, np.int64)
    for row, label in enumerate(labels):
        wave = speak(words[label], row % 6, row)[:: SAMPLE_RATE // RATE][: frames - row]
        clips[row, : len(wave)], lengths[row] = wave, len(wave)
    return clips, labels, lengths


def marked(condition: Condition, n: int = N, frames: int = FRAMES, seed: int = 0) -> Scene:
    original, labels, lengths = speech(n, frames)
    clips = original.copy()
    mark_rows(condition, clips, np.arange(n), labels, lengths, study_key(seed))
    for array in (original, clips, labels, lengths):
        array.flags.writeable = False  # an attack works on copies
    return Scene(clips, original, labels, lengths, CLASSES, RATE)


def padding(clips: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """What lies behind the true frames of all clips."""
    return clips[np.arange(clips.shape[1]) >= lengths[:, None]]
