"""What all commands of the experiments share: errors as sentences, and progress with the time that is left."""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from poscuda_fast.evaluation.pace import in_words

STOPPED = "Stopped. What is finished is stored: the same command goes on from there."


def parser_of(text: str | None) -> argparse.ArgumentParser:
    """A parser that shows a module's text as it is written."""
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)


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
            print(STOPPED, file=sys.stderr)
            sys.exit(130)

    return asked


def tell(lines: Iterable[tuple[float, str]], costs: float) -> Iterator[str]:
    """Print each line with how far the work is, and yield it.

    `lines` are (cost of what it took, text), as they get done; `costs` is the cost of all.
    """
    begun, done = time.perf_counter(), 0.0
    for cost, text in lines:
        done += cost
        left = (time.perf_counter() - begun) * (costs - done) / done if done else 0.0
        print(f"{text}; {100 * done / costs:.0f} % done" + f", {in_words(left)} left" * (done < costs), flush=True)
        yield text


def skipped(path: Any) -> None:
    """Say that a result is there already."""
    print(f"Already stored, skipped: {path}", flush=True)
