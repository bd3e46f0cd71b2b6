"""The recipes run as they stand, on what the demo leaves behind."""

from __future__ import annotations

import json
import re
from pathlib import Path

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


def test_all_that_need_nothing_more_run_one_after_the_other(demo_folder: Path) -> None:
    printed: dict[str, str] = {}
    for block in readme.blocks(readme.RECIPES):
        if block.heading not in PLAIN:
            continue
        if block.language == "json":
            assert json.loads(block.code)
        else:
            printed[block.heading] = printed.get(block.heading, "") + readme.run(block, demo_folder, "-W", "error")
    for heading, said in PRINTED.items():
        assert re.search(said, printed[heading], re.MULTILINE), heading


def test_recipes_that_need_more_are_there() -> None:
    assert set(readme.EXTRAS) <= {block.heading for block in readme.blocks(readme.RECIPES)}
