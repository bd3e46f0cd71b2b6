"""The stored races as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks import figures, stored

MISSING = "Not measured yet."


def results() -> Iterator[tuple[str, dict[str, Any]]]:
    """The stored races with their titles, in the order of the tables."""
    for name, title in figures.RACES.items():
        if (stored.BENCHMARKS / f"{name}.json").exists():
            yield title, stored.load(stored.BENCHMARKS, name)


def reach() -> str:
    """Every figure beside its target."""
    lines = ["| | " + " | ".join(figures.HEADS) + " |", "|" + "---|" * (len(figures.HEADS) + 1)]
    last = None
    for title, result in results():
        for row in result["figures"]:
            *rest, reached = figures.cells(row)
            lines.append(
                f"| {title}: {row['what']} | {' | '.join([*rest, '**no**' if reached == 'NO' else reached])} |"
            )
            last = result
    return MISSING if last is None else "\n".join([*lines, "", source(last)])


def medians() -> str:
    """The median time of every contender."""
    parts = []
    for title, result in results():
        if title.startswith("memory"):
            continue
        parts.append(f"**{title}** ({result['rounds']} rounds, {result['unit']})\n")
        parts.append("| " + " | ".join(result["medians"]) + " |\n|" + "---|" * len(result["medians"]))
        parts.append("| " + " | ".join(map(figures.plain, result["medians"].values())) + " |\n")
        parts.append(source(result) + "\n")
    return "\n".join(parts) or MISSING


def source(result: dict[str, Any]) -> str:
    """Where a result comes from."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    made = f"`{result['command']}`, {result['date']}; {result['machine']}; Python {result['python']}, {versions}."
    return f"<sub>{made}</sub>"
