"""What all commands of the experiments share: errors as sentences, and options of those that train."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

NEEDED = ("torch", "torchaudio", "scipy", "soxr")


def parser_of(text: str | None) -> argparse.ArgumentParser:
    """A parser that shows a module's text as it is written."""
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)


def trainer_of(text: str | None, seeds: list[int], epochs: str) -> argparse.ArgumentParser:
    """A parser for a command that trains cells; `epochs` says how many there are by default."""
    parser = parser_of(text)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=seeds)
    parser.add_argument("--clips", type=int, help="the most clips, three of four for training; default: all")
    parser.add_argument("--epochs", type=int, help=f"default: {epochs}")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--results", type=Path, help="a folder for the cells")
    return parser


def sentences(main: Callable[[list[str] | None], None]) -> Callable[..., None]:
    """Have a command say what is wrong in a sentence, with exit code 2, and go quietly when it is interrupted."""

    @functools.wraps(main)
    def asked(arguments: list[str] | None = None) -> None:
        try:
            main(arguments)
        except (ValueError, OSError, ImportError) as error:  # DatasetError is a ValueError
            print(f"Error: {error}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("Stopped. What is finished is stored: the same command goes on from there.", file=sys.stderr)
            sys.exit(130)

    return asked


missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if missing:  # before any module that cannot do without them is imported
    print(f"Error: The experiments need {', '.join(missing)}: run pip install '.[experiments]'.", file=sys.stderr)
    sys.exit(2)
