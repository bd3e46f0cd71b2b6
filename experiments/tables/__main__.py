"""Put the stored results into the three README files, between their comment tags, and draw the plots of the trainings.

    python -m experiments.tables [--check]

With --check nothing is written or drawn; the exit code is 1 if a document differs from the results.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import report, stored
from experiments.tables import text as tables


def roundtrip() -> str:
    """The table of whole data sets, protected and restored."""
    if not (stored.BENCHMARKS / "roundtrip.json").exists():
        return tables.MISSING
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
    return "\n".join([*lines, "", source(result)])


def evaluation() -> str:
    """What `poscuda evaluate` says of a whole data set."""
    if not (stored.EXPERIMENTS / "evaluation.json").exists():
        return tables.MISSING
    result = stored.load(stored.EXPERIMENTS, "evaluation")
    data, verdict = result["data"], result["verdict"]
    said = (
        f"On {result['dataset']}, {data['training_clips'] + data['test_clips']:,} clips, it took "
        f"{result['seconds'] / 60:.0f} minutes and said **{verdict['word']}**: {verdict['sentence']} "
        f"{verdict['uncertainty']}"
    )
    head = (
        "| accuracy, % | learnt from clean clips | protected, plain | protected, default | 95 % | keyed | mis-keyed |"
    )
    lines = [said, "", head, "|---|---|---|---|---|---|---|"]
    for row in result["models"]:
        low, high = row["protected_interval"]
        lines.append(
            f"| {row['model']} | {row['clean']} | {row['plain']} | {row['default']} | {low} to {high} | {row['keyed']} "
            f"| {row['miskeyed']} |"
        )
    for row in result["attacks"]:
        low, high = row["protected_interval"]
        lines.append(f"| {row['model']}, {row['attack']} | | {row['protected']} | | {low} to {high} | | |")
    columns = (
        f"On {data['test_clips']} clean test clips, after the best epoch; default training has random shifts, noise "
        f"and SpecAugment. Keyed and mis-keyed: plain training, after the last epoch, on test clips with the mark of "
        f"their own class, or of another. {data['split']}"
    )
    lines += ["", columns]
    return "\n".join([*lines, "", source(result)])


def kills() -> str:
    """The sentence on killed runs."""
    result = stored.load(stored.BENCHMARKS, "kills")
    left = ", ".join(f"{count} times {state}" for state, count in sorted(result["file_when_killed"].items()))
    return (
        f"{result['clips']:,} clips of Speech Commands in one mapped array, `protect_memmap` killed with "
        f"SIGKILL at {result['kills']} random moments (the file was left {left}): after the next call it was wrong "
        f"{result['wrong_after_next_call']} times, undo included.\n\n{source(result)}"
    )


def source(result: dict[str, Any]) -> str:
    """Where a result comes from."""
    return report.source(result).replace("</sub>", " SPEECH is a folder with the data sets.</sub>")


ROOT = Path(__file__).parents[2]
DOCUMENTS: dict[Path, dict[str, Callable[[], str]]] = {
    ROOT / "README.md": {
        "evaluation": evaluation,
        "targets": tables.targets,
        "roundtrip": roundtrip,
        "kills": kills,
    },
    ROOT / "benchmarks" / "README.md": {"reach": report.reach, "medians": report.medians},
    ROOT / "experiments" / "README.md": tables.SECTIONS,
}  # fmt: skip


def render(text: str, sections: dict[str, Callable[[], str]]) -> str:
    """A document's text with every section between tags generated again."""
    for name, section in sections.items():
        marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        match = marks.search(text)
        if match is None:
            sys.exit(f"There is no section <!-- {name} --> in the document.")
        text = text[: match.end(1)] + section() + "\n" + text[match.start(2) :]
    return text


if __name__ == "__main__":
    for document, its_sections in DOCUMENTS.items():
        current = document.read_text()
        wanted = render(current, its_sections)
        if sys.argv[1:] != ["--check"]:
            document.write_text(wanted)
        elif current != wanted:
            sys.exit(f"{document.name} differs from the stored results; run python -m experiments.tables.")
    if sys.argv[1:] != ["--check"]:
        from experiments.tables import plots

        plots.main()
