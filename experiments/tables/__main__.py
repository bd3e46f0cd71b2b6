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
from poscuda_fast.evaluation import words


def evaluation() -> str:
    """What `poscuda evaluate` says of a whole data set."""
    if not (stored.EXPERIMENTS / "evaluation.json").exists():
        return tables.MISSING
    result = stored.load(stored.EXPERIMENTS, "evaluation")
    said = f"On {result['dataset']} it took {result['seconds'] / 60:.0f} minutes, and printed:"
    return f"{said}\n\n```text\n{words.text(result)}\n```\n\n{report.on_speech(result)}"


ROOT = Path(__file__).parents[2]
DOCUMENTS: dict[Path, dict[str, Callable[[], str]]] = {
    ROOT / "README.md": {"front": front.front, "costs": report.costs, "paper": report.paper},
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
