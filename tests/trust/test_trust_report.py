"""Every invariant is guarded by a test, and SECURITY.md says what the proofs found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from installed import ROOT, run_module
from ledger import Ledger


def test_every_invariant_is_guarded_and_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    from tests.trust import report

    texts, guards = report.invariant_texts(), report.guarding_tests()
    assert list(texts) == [f"I{n}" for n in range(1, 15)]
    assert set(guards) == set(texts)


def test_readme_says_what_the_proofs_found() -> None:
    done = subprocess.run(run_module("tests.trust.report", "--check"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_ledger_adds_up(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.count("kills", tried=1, wrong=False, points="before")
    ledger.count("kills", tried=2, wrong=True, points="after")
    ledger.store(tmp_path)
    stored = json.loads((tmp_path / "kills.json").read_text())
    assert (stored["tried"], stored["wrong"], stored["points"]) == (3, 1, ["after", "before"])
    assert stored["tests"] == ["test_a_ledger_adds_up"]
