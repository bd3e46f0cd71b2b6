"""README says what is true: its figures are the stored ones, its code runs, its commands exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import readme
import soundfile
from installed import run_module
from readme import ROOT, TEXT

from poscuda_fast.cli import synth

TITLE = "poscuda_fast"
# What each recipe prints; those of the frameworks are run by tests/adapters/test_recipes_of_readme.py.
PRINTED = {
    TITLE: r"protected +100\n(.*\n)*state +restored",
    "A folder": "6 2",
    "An array in a file": "",
    "Prove ownership": r"p.value +1",
}
ELSEWHERE = ("Zarr, and Dask",)  # commands run there too
EXTRAS = ("evaluate", "report")  # run by tests/trials/test_evaluation.py and tests/test_reporting.py


def test_its_figures_are_those_of_the_stored_results() -> None:
    command = run_module("experiments.tables", "--check")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("heading", PRINTED)
def test_its_python_runs(tmp_path: Path, heading: str) -> None:
    if heading != TITLE:  # which makes its own key
        readme.workplace(tmp_path)
    done = readme.run_python(readme.python_of(heading), tmp_path, "-W", "error")
    assert done.returncode == 0, done.stderr
    assert re.search(PRINTED[heading], done.stdout)


def test_all_its_python_is_run_by_a_test() -> None:
    elsewhere = (ROOT / "tests" / "adapters" / "test_recipes_of_readme.py").read_text(encoding="utf-8")
    headings = [block.heading for block in readme.blocks("python")]
    assert len(set(headings)) == len(headings)
    assert [heading for heading in headings if heading not in PRINTED and f'"{heading}"' not in elsewhere] == []


def test_its_commands_run(tmp_path: Path) -> None:
    """All that need no extra, from the first to the last, in one folder."""
    readme.recordings(tmp_path / "recordings", n=1)
    (tmp_path / "digits").mkdir()
    soundfile.write(tmp_path / "digits" / "3_a_0.wav", synth.speak("yes", 0, 0), synth.SAMPLE_RATE)
    np.save(tmp_path / "clips.npy", np.ones((4, 500), np.int16))
    np.save(tmp_path / "labels.npy", np.arange(4))
    blocks = [block for block in readme.blocks("sh") if block.heading not in ELSEWHERE]
    commands = [line for block in blocks for line in block.code.splitlines()]
    n_run = 0
    for line in commands:
        program, *arguments = shlex.split(line, comments=True)
        if program == "rm":
            (tmp_path / arguments[0]).unlink()
        elif program == "poscuda" and arguments[0] not in EXTRAS:
            done = readme.run_command(arguments, tmp_path)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            n_run += 1
    assert n_run > 15


@pytest.mark.parametrize("command", ["pip install . && poscuda demo", "pip install '.[test]' && pytest"])
def test_its_two_commands_are_where_they_are_looked_for(command: str) -> None:
    assert f"\n{command}\n" in TEXT
