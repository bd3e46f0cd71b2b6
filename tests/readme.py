"""The code blocks of README and of the recipes, by the heading above them, and how they are run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import soundfile

from poscuda_fast.cli import synth

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RECIPES = ROOT / "poscuda_fast" / "docs" / "recipes.md"
# Recipes that need more packages, and which; tests/adapters and tests/trials run them.
EXTRAS = {
    "Does it work on my files?": ("torch", "jinja2", "matplotlib"),
    "Zarr, and Dask": ("dask", "zarr"),
    "Hugging Face datasets": ("datasets",),
    "WebDataset": ("webdataset",),
    "Ray Data, for data larger than one machine": ("ray",),
    "Parquet": ("pyarrow",),
    "PyTorch, and anything with batches": ("torch",),
}


class Block(NamedTuple):
    """A code block: the heading above it, its language, and the code."""

    heading: str
    language: str
    code: str


def blocks(page: Path, heading: str | None = None) -> list[Block]:
    """The blocks of a page, or of one of its headings, in order."""
    found, above = [], ""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^#+ ([^\n]*)$|^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        above = match[1] or above
        if match[2] and heading in (None, above):
            found.append(Block(above, match[2], match[3]))
    return found


def recordings(folder: Path, n: int = 3) -> Path:
    """`n` files of each of two words, in a folder for each word."""
    for word in ("yes", "no"):
        (folder / word).mkdir(parents=True)
        for take in range(n):
            soundfile.write(folder / word / f"{'abcdefghij'[take]}.wav", synth.speak(word, 0, take), synth.SAMPLE_RATE)
    return folder


def run(block: Block, folder: Path, *flags: str) -> str:
    """Run a block of Python or of a shell in a folder, and return what it prints; AssertionError if it fails."""
    script = folder / ("recipe.py" if block.language == "python" else "recipe.sh")
    script.write_text(block.code, encoding="utf-8")
    command = [sys.executable, *flags, str(script)] if block.language == "python" else ["bash", "-eu", str(script)]
    done = subprocess.run(command, cwd=folder, env=with_poscuda(folder), capture_output=True, text=True, check=False)
    script.unlink()
    assert done.returncode == 0, f"{block.code}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def with_poscuda(folder: Path) -> dict[str, str]:
    """The environment, with a `poscuda` of this interpreter first on the path."""
    bin_folder = folder.with_name(f"{folder.name}-bin")
    if not bin_folder.exists():
        bin_folder.mkdir()
        command = bin_folder / "poscuda"
        command.write_text(f"#!{sys.executable}\nfrom poscuda_fast.cli import main\nmain()\n")
        command.chmod(0o755)
    return os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
