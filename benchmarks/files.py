"""Files for the benchmarks, and plain file operations to compare with."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from poscuda_fast.cli import synth

SAMPLE_RATE = 16_000


def make_memmap(path: Path, n_clips: int, n_frames: int) -> NDArray[Any]:
    """A file of (n_clips, n_frames) int16 noise, on the disk, mapped."""
    noise = np.random.default_rng(0).normal(0, 3000, (1000, n_frames)).astype(np.int16)
    with open(path, "wb") as file:
        file.writelines(noise[: n_clips - first].data for first in range(0, n_clips, len(noise)))
        os.fsync(file.fileno())
    return open_memmap(path, n_frames)


def open_memmap(path: Path, n_frames: int) -> NDArray[Any]:
    """The file, mapped."""
    return np.memmap(path, np.int16, "r+", shape=(path.stat().st_size // 2 // n_frames, n_frames))


def make_folder(path: Path, n_files: int, n_classes: int = 10) -> Path:
    """WAV files of one second, int16, in a folder for each class."""
    noise = np.random.default_rng(0).normal(0, 3000, (100, SAMPLE_RATE)).astype(np.int16)
    for number in range(n_files):
        folder = path / f"word{number % n_classes}"
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{number:06}.wav", noise[number % len(noise)], SAMPLE_RATE)
    subprocess.run(["sync", "-f", path], check=True)
    return path


def make_sounds(path: Path, n_files: int, kind: str) -> Path:
    """WAV files of one second of speech-like sounds, in one kind of samples, in a folder for each word."""
    rng, words = np.random.default_rng(3), list(synth.WORDS)
    for number in range(n_files):
        word = words[number % len(words)]
        spoken = np.resize(synth.speak(word, number % 7, number // 7), synth.SAMPLE_RATE) / 32768
        samples, subtype = spoken, "PCM_16"
        if kind == "24 bits":
            samples, subtype = spoken + rng.normal(0, 1e-5, len(spoken)), "PCM_24"
        elif kind == "float32 from PCM":
            subtype = "FLOAT"
        elif kind == "other float32":
            samples, subtype = 0.7231 * spoken, "FLOAT"
        file = path / word / f"{number:06}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, samples, synth.SAMPLE_RATE, subtype)
    return path


def write_durably(path: Path, n_bytes: int) -> None:
    """Write `n_bytes` random bytes, which do not compress, and sync them."""
    with open(path, "wb") as file:
        file.write(os.urandom(n_bytes))
        file.flush()
        os.fsync(file.fileno())


def drop_caches() -> None:
    """Drop the page cache of every file; PermissionError if that is not permitted."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
