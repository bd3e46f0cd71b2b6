"""What the proofs tried and what went wrong, added up over a run of the tests."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def command() -> str:
    """How pytest was called, as it is stored beside what it found."""
    words = [os.path.relpath(word, ROOT) if word.startswith("/") else word for word in sys.argv[1:]]
    return f"POSCUDA_TRUST_RESULTS=tests/trust/results pytest {shlex.join(words)}"


class Ledger:
    """Figures by name, each with counts that are added up and words that are collected.

    `count("kills", tried=1, wrong=0, points="before append")` adds to the figure "kills".
    """

    def __init__(self) -> None:
        self.figures: dict[str, dict[str, int | set[str]]] = {}

    def count(self, figure: str, **fields: int | str) -> None:
        """Add to a figure: numbers are summed, and of each word one is kept."""
        known = self.figures.setdefault(figure, {})
        test = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[2].partition("[")[0].partition(" ")[0]
        for name, value in {**fields, "tests": test}.items():
            if isinstance(value, str):
                words = known.setdefault(name, set())
                assert isinstance(words, set)
                words.add(value)
            else:
                known[name] = known.get(name, 0) + int(value)

    def store(self, folder: Path) -> None:
        """Write each figure as a result of its own, replacing an earlier one."""
        sys.path.append(str(ROOT))  # last, so that an installed poscuda_fast comes first
        from benchmarks import stored

        for figure, fields in self.figures.items():
            plain = {name: sorted(value) if isinstance(value, set) else value for name, value in fields.items()}
            stored.store(folder, figure, command(), plain)
