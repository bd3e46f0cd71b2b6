"""Put what the proofs found into the two pages that tell of it, between their marks.

    python -m tests.trust.report [--check]

The figures come from tests/trust/results, where the tests put them when POSCUDA_TRUST_RESULTS says so (see
`ledger.command`; `python -m tests.trust.fuzz` and `python -m tests.trust.load` put theirs there too); the names of the
tests from their marks. With --check nothing is written; the exit code is 1 if a document is not what they say.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import report, stored
from experiments.tables.__main__ import render

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
FORMAT = ROOT / "poscuda_fast" / "FORMAT.md"

# (result, what was done, how much was asked, the fields that say how much was done and what went wrong, units)
ROWS = [
    ("kills", "SIGKILL before or within a call that changes a file", ">= 500", "tried", "wrong", ""),
    ("power_cuts", "power cuts of an ext4 file system on a loop image", ">= 200", "tried", "wrong", ""),
    ("crash_states", "kills and power cuts on a model of a disk, three in a row", ">= 10,000", "tried", "wrong", ""),
    ("failing_calls", "system calls that fail, once and for good, until the run passes", "all", "tried", "wrong", ""),
    ("memory_errors", "MemoryError at a line of the driver", "", "tried", "wrong", ""),
    ("interrupts", "Ctrl-C at a line of the driver", "all", "tried", "wrong", ""),
    ("goldens", "states of goldens recovered and undone", "all", "tried", "wrong", ""),
    ("full_disks", "full disks, and files cut while they are mapped", "", "tried", "wrong", ""),
    ("races", "processes, threads and forks on the same data at once", "", "tried", "wrong", ""),
    ("tampered", "sidecars and key files flipped, cut, spliced, foreign, older, newer", "all", "tried", "wrong", ""),
    ("bad_inputs", "bad inputs by hand: accepted, crashed, hung or grown", ">= 270", "tried", "wrong", ""),
    ("fuzzed", "bad inputs by a coverage-guided fuzzer, likewise", ">= 100,000", "tried", "wrong", ""),
    ("leaks", "outputs, tracebacks, pickles, files searched for secrets", "0", "scanned", "hits", "things"),
    ("nonces", "a key and nonce used twice in resumed runs", "0", "pairs", "repeated", "pairs"),
]  # fmt: skip


def figures() -> str:
    """The table of all proofs."""
    lines = ["| proof | asked | tried | wrong |", "|---|---|---|---|"]
    for name, what, asked, tried, wrong, unit in ROWS:
        found = stored.load(RESULTS, name)
        lines.append(f"| {what} | {asked} | {f'{found[tried]:,} {unit}'.strip()} | {found[wrong]:,} |")
    controls = stored.load(RESULTS, "controls")
    names, missed = controls["names"], controls["tried"] - controls["caught"]
    what = f"drivers with one rule taken away, which the proofs must notice: {', '.join(names)}"
    lines.append(f"| {what} | all | {len(names)} | {missed} missed |")
    return "\n".join([*lines, "", report.source(stored.load(RESULTS, "kills"))])


def load() -> str:
    """What large data cost."""
    result = stored.load(RESULTS, "load")
    lines = [
        "| data | protect | verify | restore | anonymous memory | said to be done at half-time | interrupted | wrong |",
        "|---|---|---|---|---|---|---|---|",
    ]
    array = result["sparse"]
    rows = [(f"{array['part_megabytes']:,.0f} MB of a sparse array of {array['gigabytes']:,.0f} GB", array)]
    rows += [(f"{found['files']:,} WAV files, in place", found) for found in result["folders"]]
    for what, found in rows:
        seconds, half = found["seconds"], found["at_half"]
        verify = f"{seconds['verify']:.1f} s" if "verify" in seconds else ""
        cells = [
            what,
            f"{seconds['protect']:.1f} s",
            verify,
            f"{seconds['restore']:.1f} s",
            f"{found['peak_mib']:.0f} MiB",
            f"{half['protect']:.0%}, {half['restore']:.0%}",
            f"{found['interrupted']} times",
            f"{found['wrong']}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", report.source(result)])


def invariants() -> str:
    """Each invariant of FORMAT.md, and the tests that guard it."""
    guards = guarding_tests()
    lines = ["| | invariant | guarded by |", "|---|---|---|"]
    for name, text in invariant_texts().items():
        tests = ", ".join(f"`{test}`" for test in guards.get(name, ()))
        lines.append(f"| {name} | {text} | {tests} |")
    return "\n".join(lines)


def invariant_texts() -> dict[str, str]:
    """The invariants that FORMAT.md lists."""
    return dict(re.findall(r"^\| (I\d+) \| (.*?) \|$", FORMAT.read_text(encoding="utf-8"), re.MULTILINE))


def guarding_tests() -> dict[str, list[str]]:
    """For each invariant the tests that are marked as its guards."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for test, names in _marked(ast.parse(path.read_text(encoding="utf-8"))):
            for name in names:
                found.setdefault(name, []).append(f"{path.stem}::{test}")
    return found


def _marked(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """(test, invariants) for every test of a module with a mark `guards`."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.guards":
                yield node.name, [_text(argument) for argument in mark.args]


def _text(node: ast.expr) -> str:
    value: Any = ast.literal_eval(node)
    assert isinstance(value, str)
    return value


DOCUMENTS = {
    ROOT / "SECURITY.md": {"trust": figures},
    Path(__file__).with_name("README.md"): {"load": load, "invariants": invariants},
}

if __name__ == "__main__":
    for document, sections in DOCUMENTS.items():
        current = document.read_text(encoding="utf-8")
        wanted = render(current, sections)
        if sys.argv[1:] != ["--check"]:
            document.write_text(wanted, encoding="utf-8")
        elif current != wanted:
            sys.exit(f"{document} is not what the proofs found; run python -m tests.trust.report.")
