"""The code blocks of the README, by the heading above them, and a folder in which they run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from poscuda_fast import Key
from poscuda_fast.cli import synth

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


class Block(NamedTuple):
    """A code block: the heading above it, its language, and the code."""

    heading: str
    language: str
    code: str


def blocks(language: str) -> list[Block]:
    """The blocks of a language, in order."""
    found, heading = [], ""
    for match in re.finditer(r"^#+ ([^\n]*)$|^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        heading = match[1] or heading
        if match[2] == language:
            found.append(Block(heading, language, match[3]))
    return found


def python_of(heading: str) -> str:
    """The Python under a heading."""
    (code,) = (block.code for block in blocks("python") if block.heading == heading)
    return code


def commands_of(heading: str) -> list[list[str]]:
    """The arguments of each `poscuda` command under a heading."""
    lines = [line for block in blocks("sh") if block.heading == heading for line in block.code.splitlines()]
    return [words[1:] for words in (shlex.split(line, comments=True) for line in lines) if words[:1] == ["poscuda"]]


def recordings(folder: Path, n: int = 3) -> Path:
    """`n` files of each of two words, in a folder for each word."""
    for word in ("yes", "no"):
        (folder / word).mkdir(parents=True)
        for take in range(n):
            soundfile.write(folder / word / f"{'abcdefghij'[take]}.wav", synth.speak(word, 0, take), synth.SAMPLE_RATE)
    return folder


def workplace(folder: Path) -> None:
    """Make what the README's Python expects: a key, recordings, and an array of samples."""
    Key(bytes(range(32))).save(folder / "my.key")
    recordings(folder / "recordings")
    np.random.default_rng(0).uniform(-0.5, 0.5, (4, 8000, 2)).astype(np.float32).tofile(folder / "clips.raw")


def run_python(code: str, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run code as a script, in a folder."""
    script = folder / "recipe.py"
    script.write_text(code, encoding="utf-8")
    return subprocess.run(
        [sys.executable, *flags, str(script)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def run_command(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `poscuda` in a folder."""
    return subprocess.run(
        [sys.executable, "-c", "from poscuda_fast.cli import main; main()", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
