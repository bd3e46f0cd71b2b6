"""Text that comes from data, such as names and labels, as it may be shown: it forges no lines and moves no cursor."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Characters of a line that are shown: a value that a message repeats may be a whole recording.
MOST_SHOWN = 2000
HEAD_SHOWN, TAIL_SHOWN = 1400, 500  # of a longer one; its end says what to do
MOST_LISTED = 20
_LISTED = re.compile("\n(?=  )")  # a message may list problems, one a line, indented


def one_line(text: str) -> str:
    """The text with escapes for line ends, control characters and everything else that is not printable."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def message(text: str) -> str:
    """The same for a message, which keeps the line ends before what it lists; the middle of a long line is left out."""
    return "\n".join(_bounded(one_line(_bounded(line))) for line in _LISTED.split(text))


def _bounded(line: str) -> str:
    """At most `MOST_SHOWN` characters of a line: its beginning and its end."""
    if len(line) <= MOST_SHOWN:
        return line
    left_out = len(line) - HEAD_SHOWN - TAIL_SHOWN
    return f"{line[:HEAD_SHOWN]} ... ({left_out:,} characters left out) ... {line[-TAIL_SHOWN:]}"


def listed(sentences: Sequence[str], total: int | None = None) -> str:
    """At most 20 sentences, one a line, and how many of the total more there are."""
    more = (len(sentences) if total is None else total) - len(sentences[:MOST_LISTED])
    lines = [*sentences[:MOST_LISTED], *([f"and {more:,} more"] if more else [])]
    return "".join(f"\n  {one_line(line)}" for line in lines)


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def how_to_install(extra: str = "") -> str:
    """What to do to have this package, with an extra: it is not published, so it comes from a checkout."""
    what = f"'.[{extra}]'" if extra else "."
    return f"run pip install {what} in a checkout of poscuda_fast"


def noun(n: int, one: str, many: str = "") -> str:
    """The word in the singular or plural."""
    return one if n == 1 else many or f"{one}s"
