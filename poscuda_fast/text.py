"""Text that comes from data, such as names and labels, as it may be shown: it forges no lines and moves no cursor."""

from __future__ import annotations

import re
from collections.abc import Sequence

MOST_LISTED = 20
_LISTED = re.compile("\n(?=  )")  # a message may list problems, one a line, indented


def one_line(text: str) -> str:
    """The text with escapes for line ends, control characters and everything else that is not printable."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def message(text: str) -> str:
    """The same for a message, which keeps the line ends before what it lists."""
    return "\n".join(map(one_line, _LISTED.split(text)))


def listed(sentences: Sequence[str], total: int | None = None) -> str:
    """At most 20 sentences, one a line, and how many of the total more there are."""
    more = (len(sentences) if total is None else total) - len(sentences[:MOST_LISTED])
    lines = [*sentences[:MOST_LISTED], *([f"and {more:,} more"] if more else [])]
    return "".join(f"\n  {one_line(line)}" for line in lines)


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
