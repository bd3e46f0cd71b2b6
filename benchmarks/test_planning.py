"""What it takes to plan a million clips, before any sample is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from poscuda_fast import Key, Recipe
from poscuda_fast.mark.plan import make_plan

N_CLIPS = 1_000_000
N_FRAMES = 16_000
RECIPES = {"default": Recipe.strong(), "paper": Recipe.paper()}


@pytest.mark.parametrize("recipe", RECIPES)
def test_planning(race: Any, recipe: str) -> None:
    """Labels, marks, and the place of every patch, a batch at a time."""
    key, lengths = Key(bytes(range(32))), np.broadcast_to(np.int64(N_FRAMES), (N_CLIPS,))
    numbers = np.arange(N_CLIPS) % 35
    names = [f"word{number}" for number in numbers.tolist()]
    labels = {"integers": numbers, "names in a list": names, "names in an array": np.array(names)}

    def plan(given: Any) -> None:
        for _ in make_plan(key, RECIPES[recipe], given, None, lengths).batches(None):
            pass

    race.run({what: lambda given=given: plan(given) for what, given in labels.items()}, rounds=7)
    for what in labels:
        seconds = race.median(what)
        most = 0.15 if what == "integers" else 0.5
        race.reach(f"{what}, in s", seconds, at_most=most, ours=race.time(seconds))
