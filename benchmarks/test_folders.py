"""`protect_folder` on 7,100 WAV files, as a copy."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from typing import Any

import files
import numpy as np
import pytest
import soundfile
from blake3 import blake3

from poscuda_fast import Key, protect_folder

N_FILES = 7_100


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return files.make_folder(tmp_path_factory.mktemp("folders") / "source", N_FILES)


def soundfile_loop(source: Path, target: Path) -> None:
    """Read, add two lines, write, file by file."""
    t = np.arange(512)
    mark = np.rint(164 * (np.cos(2 * np.pi * 31 * t / 512) + np.cos(2 * np.pi * 57 * t / 512))).astype(np.int32)
    for folder in source.iterdir():
        (target / folder.name).mkdir(parents=True)
        for path in folder.iterdir():
            samples, rate = soundfile.read(path, dtype="int16")
            wet = samples + np.resize(mark, len(samples))
            wet = np.clip(wet, -32768, 32767).astype(np.int16)
            soundfile.write(target / folder.name / path.name, wet, rate, subtype="PCM_16")


def bare(source: Path, target: Path) -> None:
    """What every copy with digests must do: read, BLAKE3 of both forms, write; then sync."""
    for folder in source.iterdir():
        (target / folder.name).mkdir(parents=True)
        for path in folder.iterdir():
            content = path.read_bytes()
            blake3(content).hexdigest()
            with open(target / folder.name / path.name, "wb") as file:
                file.write(content)
            blake3(content).hexdigest()
    subprocess.run(["sync", "-f", target], check=True)


def test_copy(race: Any, source: Path) -> None:
    key = Key(bytes(range(32)))
    # A new folder each time, and nothing deleted before the end: ext4 does not reuse an inode soon after it was
    # freed, and a copy that follows a deletion spends seconds looking for others.
    targets = (source.with_name(f"target{number}") for number in itertools.count())
    race.per = N_FILES

    def settle() -> None:
        subprocess.run(["sync", "-f", source], check=True)

    def cp() -> None:
        target = next(targets)
        subprocess.run(["cp", "-r", source, target], check=True)
        subprocess.run(["sync", "-f", target], check=True)

    race.run(
        {
            "protect_folder": lambda: protect_folder(source, next(targets), key),
            "cp -r, sync": cp,
            "bare Python with both BLAKE3": lambda: bare(source, next(targets)),
            "soundfile loop": lambda: soundfile_loop(source, next(targets)),
        },
        rounds=5,
        prepare=settle,
    )
    race.over_limit("over cp -r and sync", "protect_folder", "cp -r, sync", at_most=1.8)
    race.over_peer("a soundfile loop over ours", "protect_folder", "soundfile loop", at_least=3.5)
    race.reach(
        "bare Python with both BLAKE3, over cp -r and sync", race.ratio("bare Python with both BLAKE3", "cp -r, sync")
    )
