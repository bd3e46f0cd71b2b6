"""The names of the races, and their figures as lines that fit a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# What each race is called in a table, in the order of the tables: the default recipe first.
RACES = {
    "default_int16": "default, int16",
    "default_float32": "default, float32",
    "default_many": "default, int16, 100,000 clips",
    "default_two_threads_int16": "default, int16, 2 threads",
    "default_two_threads_float32": "default, float32, 2 threads",
    "layouts": "default",
    "planning_default": "default, plan of 1,000,000 clips",
    "paper_int16": "paper, int16",
    "paper_float32": "paper, float32",
    "paper_two_threads_int16": "paper, int16, 2 threads",
    "paper_two_threads_float32": "paper, float32, 2 threads",
    "long_clips": "paper",
    "planning_paper": "paper, plan of 1,000,000 clips",
    "memory_protect": "memory, protect",
    "memory_protect_memmap": "memory, protect_memmap",
    "memory_folder": "memory, protect_folder",
    "warm_file_default": "default, 20,000 clips in a warm file",
    "warm_file_paper": "paper, 100,000 clips in a warm file",
    "cold_file": "paper, 100,000 clips in a cold file",
    "restore_default": "default, undo of 20,000 clips",
    "restore_paper": "paper, undo of 100,000 clips",
    "sidecar_int16": "default, sidecar of 16-bit files",
    "sidecar_24 bits": "default, sidecar of 24-bit files",
    "sidecar_float32 from PCM": "default, sidecar of float32 from PCM",
    "sidecar_other float32": "default, sidecar of other float32",
    "copy": "default, copy of 7,100 WAV files",
    "import": "start-up",
    "small_job": "start-up",
}

_WIDTHS = (30, 9, 25, 8, 6, 7, 7)  # with a space between them less than 100 columns
HEADS = ("ours", "best peer", "limit", "ratio", "asked", "reached")


def plain(value: float, digits: int = 2) -> str:
    """A number without the sign of a zero."""
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text


def quantity(value: float, unit: str) -> str:
    """A number with its unit, with three digits or so."""
    return f"{plain(value, 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2)} {unit}"


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A figure as the cells of a table: ours, the best peer, the limit, ratio, asked, reached."""
    others = {"peer": "", "limit": ""} | {row["against"]: row["other"]}
    ratio = plain(row["figure"]) if row["is_ratio"] else ""
    reached = "" if not row["asked"] else "yes" if row["reached"] else "NO"
    return row["ours"], others["peer"], others["limit"], ratio, row["asked"], reached


def lines(entries: dict[str, dict[str, Any]]) -> Iterator[str]:
    """All figures of some races as one table, at most 100 columns wide."""
    yield _line("", HEADS)
    title = ""
    for name in sorted(entries, key=list(RACES).index):
        if RACES[name] != title:
            title = RACES[name]
            yield title
        for row in entries[name]["figures"]:
            what = f"  {row['what']}"
            while len(what) > _WIDTHS[0]:
                cut = what.rindex(" ", 3, _WIDTHS[0])
                yield what[:cut]
                what = f"    {what[cut + 1 :]}"
            ours, peer, *rest = cells(row)
            yield _line(what, (ours, peer[-_WIDTHS[2] :], *rest))


def _line(what: str, row: tuple[str, ...]) -> str:
    texts = [f"{text:>{width}}" for text, width in zip(row, _WIDTHS[1:], strict=True)]
    return " ".join([f"{what:<{_WIDTHS[0]}}", *texts]).rstrip()
