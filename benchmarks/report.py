"""The stored races as tables in Markdown."""

from __future__ import annotations

from typing import Any

from benchmarks import stored

# What each race is called in a table, in the order of the tables.
RACES = {
    "one_thread_int16": "in memory, one thread, int16",
    "one_thread_float32": "in memory, one thread, float32",
    "two_threads_int16": "in memory, two threads, int16",
    "two_threads_float32": "in memory, two threads, float32",
    "whole_call_int16": "the whole `protect`, int16",
    "whole_call_float32": "the whole `protect`, float32",
    "adding_sounds_int16": "format 2 in memory, one thread, int16",
    "adding_sounds_float32": "format 2 in memory, one thread, float32",
    "protect_by_format_2_int16": "the whole `protect` by format 2, int16",
    "protect_by_format_2_float32": "the whole `protect` by format 2, float32",
    "long_clips": "long clips",
    "warm_file": "`protect_memmap`, 100,000 clips, file in the page cache",
    "cold_file": "`protect_memmap`, 100,000 clips, file on the disk only",
    "copy": "`protect_folder`, 7,100 WAV files, copy",
    "memory_protect_memmap": "anonymous memory",
    "memory_protect": "anonymous memory",
    "memory_folder": "anonymous memory",
    "import": "start-up",
    "small_job": "start-up",
}


def reach() -> str:
    """Every figure beside its target."""
    lines = ["| | figure | asked | |", "|---|---|---|---|"]
    for name, title in RACES.items():
        for row in stored.load(stored.BENCHMARKS, name)["figures"]:
            verdict = "reached" if row["reached"] else "**not reached**"
            lines.append(f"| {title}: {row['what']} | {row['figure']:.2f} | {row['asked']} | {verdict} |")
    return "\n".join([*lines, "", source(stored.load(stored.BENCHMARKS, "one_thread_int16"))])


def medians() -> str:
    """The median time of every contender."""
    parts = []
    for name, title in RACES.items():
        result = stored.load(stored.BENCHMARKS, name)
        if name.startswith("memory"):
            continue
        parts.append(f"**{title}** ({result['rounds']} rounds, {result['unit']})\n")
        parts.append("| " + " | ".join(result["medians"]) + " |\n|" + "---|" * len(result["medians"]))
        parts.append("| " + " | ".join(f"{value:,.2f}" for value in result["medians"].values()) + " |\n")
        parts.append(source(result) + "\n")
    return "\n".join(parts)


def source(result: dict[str, Any]) -> str:
    """Where a result comes from."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    made = f"`{result['command']}`, {result['date']}; {result['machine']}; Python {result['python']}, {versions}."
    return f"<sub>{made}</sub>"
