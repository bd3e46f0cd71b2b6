"""`protect_folder` on 7,100 WAV files, as a copy."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import files
import numpy as np
import pytest
import soundfile

from poscuda_fast import Key, Recipe, protect_folder
from poscuda_fast.kernels import usable_cores

N_FILES = 7_100
RECIPE = Recipe.paper()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return files.make_folder(tmp_path_factory.mktemp("folders") / "source", N_FILES)


def soundfile_loop(source: Path, target: Path) -> None:
    """Read, filter the patch, write, file by file."""
    taps = np.random.default_rng(1).uniform(0, RECIPE.blur, RECIPE.taps)
    part = slice(8000, 8000 + RECIPE.patch)
    for folder in source.iterdir():
        (target / folder.name).mkdir(parents=True)
        for path in folder.iterdir():
            samples, rate = soundfile.read(path, dtype="int16")
            wet = np.convolve(samples[part], taps, "same")
            samples[part] = np.clip(np.rint(wet), -32768, 32767)
            soundfile.write(target / folder.name / path.name, samples, rate, subtype="PCM_16")


def hash_twice(source: Path) -> None:
    """What the manifest needs: SHA-256 before and after, which share the work up to the patch; on all threads."""

    def hash_folder(folder: Path) -> None:
        for path in folder.iterdir():
            content = memoryview(path.read_bytes())
            before = hashlib.sha256(content[: len(content) // 2])
            after = before.copy()
            before.update(content[len(content) // 2 :])
            after.update(content[len(content) // 2 :])

    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(hash_folder, source.iterdir()))


def test_copy(race: Any, source: Path) -> None:
    key = Key(bytes(range(32)))
    # A new folder each time, and nothing deleted before the end: ext4 does not reuse an inode soon after it was
    # freed, and a copy that follows a deletion spends seconds looking for others.
    targets = (source.with_name(f"target{number}") for number in itertools.count())
    race.per = N_FILES

    def settle() -> None:
        subprocess.run(["sync", "-f", source], check=True)

    def cp(*, sync: bool) -> None:
        target = next(targets)
        subprocess.run(["cp", "-r", source, target], check=True)
        if sync:
            subprocess.run(["sync", "-f", target], check=True)

    race.run(
        {
            "protect_folder": lambda: protect_folder(source, next(targets), key, recipe=RECIPE),
            "cp -r": lambda: cp(sync=False),
            "cp -r, sync": lambda: cp(sync=True),
            "both SHA-256 of every file": lambda: hash_twice(source),
            "soundfile loop": lambda: soundfile_loop(source, next(targets)),
        },
        rounds=5,
        prepare=settle,
    )
    race.over_limit("over cp -r", "protect_folder", "cp -r", at_most=1.5)
    race.over_limit("over cp -r and sync", "protect_folder", "cp -r, sync", at_most=1.5)
    race.over_peer("a soundfile loop over ours", "protect_folder", "soundfile loop", at_least=5)
    # The least that any protected copy must do.
    least = ["both SHA-256 of every file", "cp -r"]
    race.reach("cp -r, then both SHA-256, over cp -r", race.ratio(least, "cp -r"), at_most=1.5)
    race.reach("a soundfile loop over these two", race.ratio("soundfile loop", least), at_least=5)
