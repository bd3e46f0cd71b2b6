"""`protect_folder` on 7,100 WAV files, as a copy."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import files
import numpy as np
import pytest
import soundfile

from poscuda_fast import Key, Recipe, protect_folder

N_FILES = 7_100
RECIPE = Recipe()


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


def test_copy(race: Any, source: Path) -> None:
    target, key = source.with_name("target"), Key(bytes(range(32)))
    race.per = N_FILES

    def clear() -> None:
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["sync", "-f", source], check=True)

    def cp(*, sync: bool) -> None:
        subprocess.run(["cp", "-r", source, target], check=True)
        if sync:
            subprocess.run(["sync", "-f", target], check=True)

    race.run(
        {
            "protect_folder": lambda: protect_folder(source, target, key),
            "cp -r": lambda: cp(sync=False),
            "cp -r, sync": lambda: cp(sync=True),
            "soundfile loop": lambda: soundfile_loop(source, target),
        },
        rounds=5,
        prepare=clear,
    )
    clear()
    race.reach("protect_folder over cp -r", race.ratio("protect_folder", "cp -r"), at_most=1.5)
    race.reach("protect_folder over cp -r and sync", race.ratio("protect_folder", "cp -r, sync"), at_most=1.5)
    race.reach("a soundfile loop over protect_folder", race.ratio("soundfile loop", "protect_folder"), at_least=5)
