"""The commands that the experiments' README names exist, with the options that it names."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "experiments" / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"`python -m experiments\.(\w+)([^`]*)`", README.split("## Commands")[1])


@pytest.mark.parametrize(("name", "rest"), COMMANDS, ids=lambda part: part.strip() or "alone")
def test_a_command_takes_the_options_it_is_shown_with(name: str, rest: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"experiments.{name}")
    assert f"python -m experiments.{name}" in module.__doc__
    options = re.findall(r"--[\w-]+", rest)
    if name == "report":
        assert not options
        return
    with pytest.raises(SystemExit) as stopped:
        module.main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert not [option for option in options if option not in shown]


def test_all_modules_that_are_run_are_named() -> None:
    folder = Path(__file__).parents[2] / "experiments"
    run = {path.stem for path in folder.glob("*.py") if "__main__" in path.read_text(encoding="utf-8")}
    others = {"expand", "kills", "roundtrip", "plots"}  # of the library itself, or part of another command
    assert {name for name, _ in COMMANDS} == run - others
