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


def roundtrip() -> str:
    """The table of whole data sets, protected and restored."""
    if not (stored.BENCHMARKS / "roundtrip.json").exists():
        return MISSING
    result = stored.load(stored.BENCHMARKS, "roundtrip")
    lines = [
        "| data set | how | files | MB | changed | verified | originals, by SHA-256 | median SNR | protect | restore |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        verified = f"{row['verified_protected']:,} protected"
        if row["verified_unchanged"]:
            verified += f", {row['verified_unchanged']} silent there"
        verified += f", {row['verified_neither']} neither"
        restored = f"{row['restore_seconds']:.1f} s" if "restore_seconds" in row else "not needed"
        lines.append(
            f"| {row['dataset']} | {row['mode']} | {row['files']:,} | {row['bytes'] / 1e6:.0f} | {row['changed']:,} "
            f"| {verified} | {row['originals_equal']:,} of {row['files']:,} | {row['snr_db_median']} dB "
            f"| {row['protect_seconds']:.1f} s | {restored} |"
        )
    return "\n".join([*lines, "", on_speech(result)])


def kills() -> str:
    """The sentence on killed runs."""
    if not (stored.BENCHMARKS / "kills.json").exists():
        return MISSING
    result = stored.load(stored.BENCHMARKS, "kills")
    left = ", ".join(f"{count} times {state}" for state, count in sorted(result["file_when_killed"].items()))
    return (
        f"{result['clips']:,} clips of Speech Commands in one mapped array, `protect_memmap` killed with "
        f"SIGKILL at {result['kills']} random moments (the file was left {left}): after the next call it was wrong "
        f"{result['wrong_after_next_call']} times, undo included.\n\n{on_speech(result)}"
    )


def on_speech(result: dict[str, Any]) -> str:
    """Where a result comes from whose command takes a folder of speech."""
    return source(result).replace("</sub>", " SPEECH is a folder with the data sets.</sub>")


def costs() -> str:
    """What README says of the speed of the default recipe, of undo, and of the sidecar."""
    lines = ["| cost |  |", "|---|---|"]
    for name, title in (("default_int16", "int16"), ("default_float32", "float32")):
        times = stored.load(stored.BENCHMARKS, name)["medians"]
        lines.append(
            f"| `protect` in memory, {title}, a second at 16 kHz, one thread | {times['protect']:.1f} µs; NumPy "
            f"{times['numpy']:.1f}, torch {times['torch']:.1f}, adding 1 to each sample {times['touch']:.1f} |"
        )
    for name, call, what in (
        ("warm_file_default", "protect_memmap", " with undo, durably"), ("restore_default", "restore_memmap", ""),
    ):  # fmt: skip
        times = stored.load(stored.BENCHMARKS, name)["medians"]
        ratio = times[call] / times["touch + msync"]
        lines.append(f"| `{call}`{what}, times as long as adding 1 and syncing | {ratio:.1f} |")
    result = stored.load(stored.BENCHMARKS, "sidecar_int16")
    share = result["figures"][0]["ours"]
    lines.append(f"| sidecar of 16-bit WAV files; FLAC is kept whole | {share} of the data |")
    return "\n".join([*lines, "", source(result)])


def paper() -> str:
    """What README says of the speed of the paper's recipe."""
    result = stored.load(stored.BENCHMARKS, "paper_int16")
    times = result["medians"]
    peers = ("scipy fftconvolve", "scipy oaconvolve", "torch conv1d", "torchaudio fftconvolve", "numpy convolve")
    peer = min(peers, key=lambda name: times[name])
    said = f"`protect` takes {times['protect']:.2f} µs for a patch of 240 samples and 80 taps, the fastest peer"
    return f"{said} ({peer}) {times[peer]:.2f} µs.\n\n{source(result)}"
