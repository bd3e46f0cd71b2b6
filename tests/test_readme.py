"""README says what is true: its figures are the stored ones, its code runs, and it is short."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import readme
from installed import run_module

TEXT = readme.README.read_text(encoding="utf-8")
IN_PYTHON, COMMANDS, PAPER = "In Python", "On the command line", "The paper's own recipe"


def test_its_figures_are_those_of_the_stored_results() -> None:
    command = run_module("experiments.tables", "--check")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_it_is_read_in_two_minutes() -> None:
    assert len(TEXT.splitlines()) <= 200


def test_its_python_runs_twice(tmp_path: Path) -> None:
    (block,) = readme.blocks(readme.README, IN_PYTHON)
    for _ in range(2):
        assert re.search(r"protected +100\n(.*\n)*state +restored", readme.run(block, tmp_path, "-W", "error"))


def test_its_commands_run(tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in readme.recordings(tmp_path / "recordings").rglob("*.wav")}
    for heading in (COMMANDS, PAPER):
        for block in readme.blocks(readme.README, heading):
            readme.run(block, tmp_path)
    assert {path: path.read_bytes() for path in before} == before
    for name in ("published", "paper"):
        copies = [tmp_path / name / path.relative_to(tmp_path / "recordings") for path in before]
        assert not {path.read_bytes() for path in copies} & set(before.values())


@pytest.mark.parametrize("command", ["pip install . && poscuda demo", "pip install '.[test]' && pytest"])
def test_its_two_commands_are_where_they_are_looked_for(command: str) -> None:
    assert f"\n{command}\n" in TEXT


def test_all_its_code_is_run_by_a_test() -> None:
    rest = [block for block in readme.blocks(readme.README) if block.heading not in (IN_PYTHON, COMMANDS, PAPER)]
    assert [block.code.split(" ")[:2] for block in rest] == [["pip", "install"]] * 2
