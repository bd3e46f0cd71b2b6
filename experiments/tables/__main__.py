"""Put the stored results into three README files, between their comment tags, and draw the plots of the trainings.

    python -m experiments.tables [--check]

With --check nothing is written or drawn; the exit code is 1 if a document differs from the results.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import report, stored
from experiments.tables import front
from experiments.tables import text as tables


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
    return "\n".join([*lines, "", report.on_speech(result)])


ROOT = Path(__file__).parents[2]
DOCUMENTS: dict[Path, dict[str, Callable[[], str]]] = {
    ROOT / "README.md": {"front": front.front, "paper": front.paper},
    ROOT / "benchmarks" / "README.md": {
        "reach": report.reach, "roundtrip": report.roundtrip, "kills": report.kills, "medians": report.medians,
    },
    ROOT / "experiments" / "README.md": {**tables.SECTIONS, "evaluation": evaluation},
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
