"""What all commands of the experiments share: errors as sentences, and a word when they are interrupted."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable

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
