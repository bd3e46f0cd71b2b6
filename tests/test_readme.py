"""README says what is true: its figures are the stored ones, its code runs, its commands exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from poscuda_fast import synth

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_its_figures_are_those_of_the_stored_results() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.report", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_its_python_runs(tmp_path: Path) -> None:
    (code,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"protected +100\n", done.stdout)
    assert "restored" in done.stdout


def test_its_commands_run(tmp_path: Path) -> None:
    for folder, name in (("recordings/yes", "a.wav"), ("recordings/no", "b.wav"), ("digits", "3_a_0.wav")):
        (tmp_path / folder).mkdir(parents=True)
        soundfile.write(tmp_path / folder / name, synth.speak("yes", 0, 0), synth.SAMPLE_RATE)
    np.save(tmp_path / "clips.npy", np.ones((4, 500), np.int16))
    np.save(tmp_path / "labels.npy", np.arange(4))
    (commands,) = (block for block in blocks("sh") if "poscuda keygen" in block)
    for line in commands.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "poscuda"
        done = subprocess.run(
            [sys.executable, "-c", "from poscuda_fast.cli import main; main()", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"


@pytest.mark.parametrize("command", ["pip install . && poscuda demo", "pip install '.[test]' && pytest"])
def test_its_two_commands_are_where_they_are_looked_for(command: str) -> None:
    assert f"\n{command}\n" in README


@pytest.mark.parametrize(
    "document",
    sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("*/README.md")),
    ids=lambda path: path.parent.name + path.stem,
)
def test_the_modules_that_documents_name_are_there(document: Path) -> None:
    named = re.findall(r"python -m ((?:experiments|benchmarks|tests)[.\w]+)", document.read_text(encoding="utf-8"))
    assert not [name for name in named if not (ROOT / f"{name.replace('.', '/')}.py").is_file()]
