"""What the shell offers for the values of options: usual ones, and files with the right suffix."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

BACKENDS = ("auto", "native", "cpu", "reference", "cuda")  # those of `kernels`, which needs NumPy
LABEL_SOURCES = ("folder", "csv:", "regex:")
_CSV = "csv:"
_PLAIN = re.compile(r"[\w.+@:/-]+")  # a shell takes it as it is

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def values(*usual: object) -> Completer:
    """Offer usual values, of which others may be given."""

    def offer(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(text) for text in map(str, usual) if text.startswith(incomplete)]

    return offer


def files(suffix: str) -> Completer:
    """Offer files with a suffix; where there are none, what the shell offers by itself."""

    def offer(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = _named(incomplete, suffix)
        return [CompletionItem(path) for path in found] or [CompletionItem(incomplete, type="file")]

    return offer


def label_sources(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the kinds of sources, and behind `csv:` the CSV files."""
    tables = _named(incomplete.removeprefix(_CSV), ".csv") if incomplete.startswith(_CSV) else []
    return [
        CompletionItem(text)
        for text in (*LABEL_SOURCES, *(_CSV + path for path in tables))
        if text.startswith(incomplete)
    ]


def _named(incomplete: str, suffix: str) -> list[str]:
    """Paths that begin so and end in a suffix; none if the shell would have to quote one."""
    folder, slash, begun = incomplete.rpartition("/")
    try:
        names = sorted(os.listdir(folder + slash or "."))
    except OSError:
        return []
    found = [name for name in names if name.startswith(begun) and name.endswith(suffix) and name != suffix]
    paths = [f"{folder}{slash}{name}" for name in found]
    return paths if all(map(_PLAIN.fullmatch, paths)) else []
