"""The experiments' commands speak in sentences, and the stored results tell where they come from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from installed import ROOT, run_module


@pytest.mark.parametrize("name", ["data", "training", "attacks", "measures", "search", "ownership"])
def test_a_command_that_cannot_run_says_why_in_a_sentence(name: str, tmp_path: Path) -> None:
    """Whether PyTorch is missing, or only the data set."""
    command = run_module(f"experiments.{name}", tmp_path / "none", *[tmp_path / "new"] * (name == "data"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1


def test_every_stored_result_tells_where_it_comes_from() -> None:
    folder = ROOT / "experiments" / "results"
    results = [json.loads(path.read_text()) for path in folder.rglob("*.json")]
    points = [json.loads(line) for path in folder.rglob("*.jsonl") for line in path.read_text().splitlines()]
    assert results
    assert points
    for result in [*results, *points]:
        assert {"command", "date", "machine", "python", "versions"} <= set(result)
        assert result["command"].startswith("python -m experiments.")
