"""What the shell offers, asked of bash and of the command as the three shells ask it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from poscuda_fast.cli.completing import BACKENDS
from poscuda_fast.evaluation.names import NAMES
from poscuda_fast.kernels import BACKENDS as OF_KERNELS

SCRIPT = """
eval "$(poscuda completion bash)"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_poscuda_completion poscuda 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""
NEEDS_BASH = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with files of several kinds, and the command `poscuda` on the path."""
    for name in ("my.key", "other.key", "labels.npy", "labels.csv", "notes.txt", "clips.poscuda", "keys/third.key"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    command = tmp_path / "bin" / "poscuda"
    command.parent.mkdir()
    command.write_text(
        f'#!/bin/sh\nexec {sys.executable} -W error -c "from poscuda_fast.cli import main; main()" "$@"\n'
    )
    command.chmod(0o755)
    return tmp_path


def environment(place: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}", **more}


def offered(place: Path, *words: str) -> list[str]:
    """What bash offers for the last word."""
    command = ["bash", "-c", SCRIPT, "bash", "poscuda", *words]
    done = subprocess.run(command, cwd=place, env=environment(place), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def answer(place: Path, *words: str, shell: str = "bash") -> str:
    """What the command answers to a shell that completes the last word."""
    asked = {"COMP_WORDS": " ".join(("poscuda", *words)), "COMP_CWORD": str(len(words))}
    if shell == "fish":
        asked["COMP_CWORD"] = words[-1]
    done = subprocess.run(
        ["poscuda"],
        cwd=place,
        env=environment(place, _POSCUDA_COMPLETE=f"{shell}_complete", **asked),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


@NEEDS_BASH
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["protect", "src", "dst", "--labels-from", ""], ["folder", "csv:", "regex:"]),
        (["protect", "src", "dst", "--labels-from", "f"], ["folder"]),
        (["protect", "src", "dst", "--labels-from", "csv", ":"], ["labels.csv"]),
        (["protect", "src", "dst", "--labels-from", "csv", ":", "la"], ["labels.csv"]),
        (["protect", "src", "dst", "--labels-from", "csv", ":", "labels.csv", "--back"], ["--backend"]),
        (["protect", "src", "dst", "--backend", ""], list(BACKENDS)),
        (["protect", "src", "dst", "--strength", ""], ["0.5", "1", "2", "4"]),
        (["protect", "src", "dst", "--snr", "2"], ["20", "25"]),
        (["protect", "src", "dst", "--share", "0.0"], ["0.01", "0.05"]),
        (["protect", "src", "dst", "--key", ""], ["my.key", "other.key"]),
        (["verify", "src", "--key", "keys/"], ["keys/third.key"]),
        (["verify", "src", "--sidecar", ""], ["clips.poscuda"]),
        (["protect", "clips.npy", "--labels", "l"], ["labels.npy"]),
        (["evaluate", "src", "--model", ""], list(NAMES)),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["prot"], ["protect"]),
    ],
    ids=" ".join,
)
def test_bash_offers(place: Path, words: list[str], expected: list[str]) -> None:
    assert offered(place, *words) == expected


@pytest.mark.parametrize(
    "words",
    [
        ["verify", ""],
        ["evaluate", "src", "--out", "e"],
        ["verify", "src", "--key", "no"],
        ["verify", "src", "--key", "x/"],
    ],
    ids=" ".join,
)
def test_paths_are_left_to_the_shell(place: Path, words: list[str]) -> None:
    assert answer(place, *words) == f"file,{words[-1]}\n"


def test_a_name_that_a_shell_would_split_is_left_to_it(place: Path) -> None:
    (place / "my spare.key").touch()
    assert answer(place, "verify", "src", "--key", "my") == "file,my\n"


def test_other_shells_keep_the_word_whole(place: Path) -> None:
    words = ("protect", "src", "dst", "--labels-from", "csv:")
    assert "csv:labels.csv" in answer(place, *words, shell="zsh").split("\n")
    assert "plain,csv:labels.csv" in answer(place, *words, shell="fish").split("\n")


def test_the_backends_are_those_of_the_kernels() -> None:
    assert list(BACKENDS) == ["auto", *OF_KERNELS]
