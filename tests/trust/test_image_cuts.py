"""A real file system loses its power in the middle of a run: what is on it then, the next call finishes right."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest
from cut_worker import CutWorkers
from ledger import Ledger

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a worker forks the runs that are cut off")

SEED = 7


@pytest.fixture(scope="module")
def workers() -> Iterator[CutWorkers]:
    with CutWorkers(2) as workers:
        yield workers


def cut(workers: CutWorkers, ledger: Ledger, *scenarios: dict[str, Any]) -> int:
    """Count the cuts, none of which may go wrong; how many of them came in the middle of a run."""
    early = 0
    for reply in workers.map(scenarios):
        if "refused" in reply:
            pytest.skip(reply["refused"])
        ledger.count("power_cuts", tried=reply["tried"], wrong=reply["wrong"], in_the_middle=reply["early"])
        assert reply["wrong"] == 0, "\n".join(reply["examples"])
        early += reply["early"]
    return early


@pytest.mark.guards("I1", "I4", "I5", "I7")
def test_a_file_system_that_loses_its_power_in_the_middle_of_a_run(workers: CutWorkers, ledger: Ledger) -> None:
    cut(workers, ledger, {"cuts": 3, "seed": SEED})


@pytest.mark.trust
@pytest.mark.guards("I1", "I4", "I5", "I7")
def test_a_file_system_that_loses_its_power_in_the_middle_of_many_runs(workers: CutWorkers, ledger: Ledger) -> None:
    kinds = itertools.product(("protect", "restore"), ("int16", "float32"), ("paper", "strong"))
    early = cut(
        workers,
        ledger,
        *(
            {"cuts": 60, "verb": verb, "dtype": dtype, "recipe": recipe, "seed": SEED + n}
            for n, (verb, dtype, recipe) in enumerate(kinds)
        ),
    )
    assert early >= 300


def test_the_file_system_catches_a_missing_sync(workers: CutWorkers, ledger: Ledger) -> None:
    (reply,) = workers.map([{"cuts": 2, "broken": "no fsync", "late": True, "seed": SEED}])
    if "refused" in reply:
        pytest.skip(reply["refused"])
    ledger.count("controls", tried=1, caught=reply["wrong"] > 0, names="no fsync on ext4")
    assert reply["wrong"] > 0


@pytest.mark.trust
@pytest.mark.parametrize("broken", ["store before commit", "no fsync of the sidecar"])
def test_the_file_system_catches_a_broken_order(workers: CutWorkers, ledger: Ledger, broken: str) -> None:
    replies = list(workers.map([{"cuts": 40, "broken": broken, "seed": SEED + n} for n in range(2)]))
    if "refused" in replies[0]:
        pytest.skip(replies[0]["refused"])
    wrong = sum(reply["wrong"] for reply in replies)
    ledger.count("controls", tried=1, caught=wrong > 0, names=f"{broken} on ext4")
    assert wrong > 0
