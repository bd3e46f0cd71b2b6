"""The commands of the experiments take the options that they are shown with, and say all of them."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments"
RUN = sorted(path for path in FOLDER.rglob("*.py") if '__name__ == "__main__"' in path.read_text(encoding="utf-8"))
NAMES = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__") for path in RUN]
MODULES = dict(zip(NAMES, RUN, strict=True))
TABLES = "experiments.tables"  # takes --check alone


@pytest.mark.parametrize("name", [name for name in NAMES if name != TABLES])
def test_a_command_takes_the_options_it_is_shown_with(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = ".".join(MODULES[name].relative_to(ROOT).with_suffix("").parts)
    module = importlib.import_module(path)
    assert module.__doc__ is not None
    shown = module.__doc__.split(f"python -m {name}")[1].split("\n\n")[0]
    with pytest.raises(SystemExit) as stopped:
        module.main(["--help"])
    assert stopped.value.code == 0
    usage = capsys.readouterr().out.split("\n\n")[0]
    taken = set(re.findall(r"--[\w-]+", usage)) - {"--help"}
    assert set(re.findall(r"--[\w-]+", shown)) <= taken


def test_the_commands_are_these() -> None:
    assert NAMES == [
        "experiments.attacks", "experiments.data", "experiments.evaluation", "experiments.measures",
        "experiments.ownership", "experiments.search", TABLES, "experiments.training",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["training", "attacks", "measures", "ownership", "search"])
def test_a_data_set_that_is_not_there_is_said_in_a_sentence(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = ".".join(MODULES[f"experiments.{name}"].relative_to(ROOT).with_suffix("").parts)
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(path).main(["nowhere"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said == (
        "Error: There is no nowhere/dataset.json; make the folder with: python -m experiments.data SRC nowhere\n"
    )
