"""The recipes run as they stand, on what the demo leaves behind."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import readme

SET_UP = "Recipes"
PLAIN = [heading for heading in dict.fromkeys(block.heading for block in readme.blocks(readme.RECIPES))
         if heading not in (SET_UP, *readme.EXTRAS)]  # fmt: skip
PRINTED = {
    "Protect a folder": r"original +\d+(.*\n)*.*protected +\d+",
    "Protect arrays in memory": r"^\d+ \d+$",
    "Prove ownership": r"p.value +1",
}


def test_the_first_commands_make_what_the_recipes_need(demo_folder: Path, tmp_path: Path) -> None:
    (block,) = readme.blocks(readme.RECIPES, SET_UP)
    assert block.code == "poscuda demo --out demo && cd demo\n"
    assert {path.name for path in demo_folder.iterdir()} >= {
        "speech",
        "protected",
        "clips.npy",
        "labels.npy",
        "demo.key",
    }


@pytest.mark.parametrize("heading", PLAIN)
def test_a_recipe_runs(demo_folder: Path, heading: str) -> None:
    printed = ""
    for block in readme.blocks(readme.RECIPES, heading):
        if block.language == "json":
            assert json.loads(block.code)
        else:
            printed += readme.run(block, demo_folder, "-W", "error")
    assert re.search(PRINTED.get(heading, ""), printed, re.MULTILINE)


def test_recipes_that_need_more_are_there() -> None:
    assert set(readme.EXTRAS) <= {block.heading for block in readme.blocks(readme.RECIPES)}
