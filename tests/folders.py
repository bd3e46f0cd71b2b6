"""Folders of audio files of every kind and small ones, how they should look when protected, and harm done to them."""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
from pathlib import Path

import audiofiles
import numpy as np
import pytest
from audiofiles import chunk, contents, noise, packed, protected, read_samples, rf64, wav, write_tree

from poscuda_fast import Key, Recipe, Report

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
both_ways = pytest.mark.parametrize("copying", [True, False], ids=["copy", "in place"])

STRONG = Recipe.paper(patch=100, taps=33, blur=0.3, patches=3, identity=True)
RECIPES = {
    "default": Recipe.paper(),
    "loud": STRONG,
    "format 2": Recipe.strong(),
    "every": Recipe.paper(patch=50, blur=0.1, every=400),
}
OTHERS = {"readme.txt": b"about\n", "yes/notes.csv": b"a,b\n", "empty.bin": b"", "no/poscuda.json": b"not a manifest"}
HIDDEN = {".DS_Store": b"\0", "yes/._plain.wav": b"not audio", ".cache/x.wav": b"not audio"}


@dataclasses.dataclass(frozen=True)
class Clip:
    """An audio file of the data set below: its samples, its bytes, and where they hold the samples (WAV only)."""

    label: str
    coding: str
    samples: np.ndarray
    content: bytes
    offset: int | None
    rate: int


@functools.cache
def clips() -> dict[str, Clip]:
    """One file of every kind."""
    made: dict[str, Clip] = {}

    def add_wav(name: str, coding: str, samples: np.ndarray, content: bytes, rate: int = 16000) -> None:
        data = packed(samples, coding)
        made[name] = Clip(name.split("/")[-2], coding, samples, content, content.index(b"data") + 8, rate)
        assert content[made[name].offset :].startswith(data)

    def add_encoded(name: str, container: str, coding: str, samples: np.ndarray, rate: int = 16000) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file"
            audiofiles.encoded(path, samples, container, coding, rate)
            made[name] = Clip(name.split("/")[-2], coding, samples, path.read_bytes(), None, rate)

    extra = chunk(b"LIST", b"INFOodd") + chunk(b"bext", bytes(602))
    samples = noise(4000)
    add_wav("yes/plain.wav", "PCM_16", samples, wav(samples))
    samples = noise(3000, 2, "PCM_24")
    content = wav(samples, "PCM_24", 44100, extensible=True, before=extra, after=chunk(b"id3 ", b"odd"))
    add_wav("yes/stereo.wav", "PCM_24", samples, content, 44100)
    samples = noise(1000, 8, "FLOAT") * 3
    add_wav("yes/eight.WAV", "FLOAT", samples, wav(samples, "FLOAT", extensible=True))
    samples = noise(2001, 1, "PCM_24")
    add_wav("no/rf64.wav", "PCM_24", samples, rf64(samples, "PCM_24"))
    samples = noise(1001, 1, "PCM_24")
    add_wav("no/odd.wav", "PCM_24", samples, wav(samples, "PCM_24") + b"trailing")
    samples = noise(99)
    add_wav("no/short.wav", "PCM_16", samples, wav(samples))
    add_wav("no/empty.wav", "PCM_16", noise(0), wav(noise(0)))
    samples = np.zeros((2000, 2), np.int16)
    add_wav("no/silent.wav", "PCM_16", samples, wav(samples))
    samples = np.where(noise(500) < 0, -(2**15), 2**15 - 1).astype(np.int16)
    add_wav("deep/er/no/loud.wave", "PCM_16", samples, wav(samples, after=extra))

    add_encoded("yes/a.flac", "FLAC", "PCM_16", noise(3000))
    add_encoded("yes/b.flac", "FLAC", "PCM_24", noise(2500, 2, "PCM_24"), 48000)
    add_encoded("yes/short.flac", "FLAC", "PCM_16", noise(70))
    add_encoded("no/silent.flac", "FLAC", "PCM_16", np.zeros((900, 1), np.int16))
    add_encoded("no/c.aiff", "AIFF", "PCM_24", noise(1200, 1, "PCM_24"))
    add_encoded("no/d.AIF", "AIFF", "PCM_16", noise(1100, 2), 8000)
    add_encoded("no/e.caf", "CAF", "FLOAT", noise(1000, 1, "FLOAT"))
    add_encoded("no/f.w64", "W64", "PCM_16", noise(1300))
    add_encoded("no/g.au", "AU", "FLOAT", noise(1400, 2, "FLOAT"))
    return made


@functools.cache
def wet(name: str, recipe: Recipe) -> tuple[np.ndarray, int]:
    """What protecting makes of a clip with the key of the vectors, and its saturated samples."""
    clip = clips()[name]
    return protected(clip.samples, clip.coding, clip.label, Key(bytes(range(32))), recipe, clip.rate)


def write_dataset(root: Path) -> Path:
    """The clips, other files and hidden ones below root/src."""
    src = root / "src"
    write_tree(src, {name: clip.content for name, clip in clips().items()} | OTHERS | HIDDEN)
    return src


def originals() -> dict[str, bytes]:
    return {name: clip.content for name, clip in clips().items()}


def audio_of(root: Path) -> dict[str, bytes]:
    """The bytes of the data set's audio files below a folder."""
    return {name: content for name, content in contents(root).items() if name in clips()}


def n_silent(recipe: Recipe) -> int:
    """Clips that protecting does not change."""
    return sum(wet(name, recipe)[0].tobytes() == clip.samples.tobytes() for name, clip in clips().items())


def assert_protected(root: Path, recipe: Recipe = Recipe.paper()) -> None:
    """Every WAV file equals, byte for byte, its original with filtered samples; every other one decodes to them."""
    for name, clip in clips().items():
        expected = wet(name, recipe)[0]
        if clip.offset is None:
            assert read_samples(root / name, clip.coding).tobytes() == expected.tobytes(), name
        else:
            end = clip.offset + len(packed(clip.samples, clip.coding))
            whole = clip.content[: clip.offset] + packed(expected, clip.coding) + clip.content[end:]
            assert (root / name).read_bytes() == whole, name


def small_dataset(src: Path) -> dict[str, bytes]:
    """Three WAV and three FLAC files, in two classes."""
    for number in range(6):
        label = "yes" if number % 2 else "no"
        samples = noise(700 + number, 1 + number // 4, seed=number)
        name = f"{label}/{number}.{'wav' if number < 3 else 'flac'}"
        (src / label).mkdir(parents=True, exist_ok=True)
        if number < 3:
            (src / name).write_bytes(wav(samples))
        else:
            audiofiles.encoded(src / name, samples, "FLAC", "PCM_16")
    (src / "readme.txt").write_bytes(b"about")
    return contents(src)


def small_is_protected(root: Path, key: Key, recipe: Recipe = Recipe.paper()) -> bool:
    for number in range(6):
        label = "yes" if number % 2 else "no"
        samples = noise(700 + number, 1 + number // 4, seed=number)
        path = root / f"{label}/{number}.{'wav' if number < 3 else 'flac'}"
        if read_samples(path, "PCM_16").tobytes() != protected(samples, "PCM_16", label, key, recipe)[0].tobytes():
            return False
    return True


def without(tree: dict[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: content for name, content in tree.items() if name not in names}


def harm(path: Path, damage: str, patches, original: bytes = b"") -> None:
    """Change a protected mono file of 16-bit samples."""
    content = bytearray(path.read_bytes())
    start, size = int(patches.starts[0]), int(patches.sizes[0])
    if damage == "gone":
        path.unlink()
        return
    if damage == "longer":
        path.write_bytes(content + b"\0\0")
        return
    if path.suffix == ".wav":
        first = 44 + 2 * start
        if damage == "half":  # as if the writing of the patch had stopped
            half = first + size
            content[half : first + 2 * size] = original[half : first + 2 * size]
        else:
            outside = 44 if start > 0 else len(content) - 1
            content[{"outside": outside, "inside": first + 10, "header": 24}[damage]] ^= 0x55
        path.write_bytes(content)
        return
    samples = read_samples(path, "PCM_16")
    if damage == "half":
        content = content[: len(content) // 2]
    elif damage == "header":
        content[4] ^= 0xFF
    else:
        samples[{"outside": 0 if start > 0 else -1, "inside": start + 5}[damage]] ^= 0x55
        audiofiles.encoded(path, samples, "FLAC", "PCM_16")
        return
    path.write_bytes(content)


def counted(report: Report) -> Report:
    """A report without what only the call that marks can tell: the SNR of files, and the sizes of classes."""
    return dataclasses.replace(report, class_sizes=(), snr_db_median=None, snr_db_lowest=None, lowest_snr_file=None)
