"""The power fails in the middle of a folder; whatever the disk holds then, the next call finishes right."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from cut_worker import CutWorkers
from ledger import Ledger

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a worker forks the runs that are recorded")

SEED = 9
VERBS = {
    "folder in place": {"folder_verb": "protect"},
    "folder copied": {"folder_verb": "protect", "copying": True},
    "resumed folder in place": {"folder_verb": "protect", "resumed": True},
    "resumed folder copied": {"folder_verb": "protect", "resumed": True, "copying": True},
    "folder in place after a failed sync": {"folder_verb": "protect", "failed_sync": True},
    "undo of a folder": {"folder_verb": "restore"},
    "undo of a folder after a failed sync": {"folder_verb": "restore", "failed_sync": True},
    "undo of a copied folder": {"folder_verb": "restore", "copying": True},
}
CONTROLS = {
    "no fsync": {**VERBS["folder in place"], "begin": 0.9},
    "store before commit": {**VERBS["folder in place"], "begin": 0.2},
    "early COMPLETE": {**VERBS["folder copied"], "begin": 0.85},
}


@pytest.fixture(scope="module")
def workers() -> Iterator[CutWorkers]:
    with CutWorkers(2) as workers:
        yield workers


def tried(workers: CutWorkers, ledger: Ledger, **shares: dict[str, Any]) -> int:
    """Count the states of some verbs, of which none may go wrong."""
    states = 0
    for verb, reply in zip(shares, workers.map([{**VERBS[v], **share} for v, share in shares.items()]), strict=True):
        if "refused" in reply:
            pytest.skip(reply["refused"])
        fields = {"tried": reply["tried"], "wrong": reply["wrong"], "moments": reply["moments"]}
        ledger.count("crash_states", **fields, verbs=verb, recorded="system calls")
        assert reply["wrong"] == 0, "\n".join(reply["examples"])
        states += reply["tried"]
    return states


@pytest.mark.guards("I1", "I5", "I6", "I7")
def test_after_a_power_cut_at_any_moment_the_next_call_finishes_a_folder(workers: CutWorkers, ledger: Ledger) -> None:
    shares = {"folder in place": {"every": 12}, "folder copied": {"every": 24}}
    assert tried(workers, ledger, **{verb: {**share, "seed": SEED} for verb, share in shares.items()}) > 40


@pytest.mark.trust
@pytest.mark.guards("I1", "I5", "I6", "I7", "I8")
def test_after_a_power_cut_at_any_moment_of_any_run_the_next_call_finishes_a_folder(
    workers: CutWorkers, ledger: Ledger
) -> None:
    shares = {verb: {"samples": 1 if verb == "folder copied" else 3, "seed": SEED} for verb in VERBS}
    assert tried(workers, ledger, **shares) > 2000


@pytest.mark.slow
@pytest.mark.guards("I1", "I5")
def test_the_power_cuts_of_folders_catch_every_rule_that_is_taken_away(workers: CutWorkers, ledger: Ledger) -> None:
    scenarios = [{**CONTROLS[name], "broken": name, "until_wrong": True, "seed": SEED} for name in CONTROLS]
    for name, reply in zip(CONTROLS, workers.map(scenarios), strict=True):
        if "refused" in reply:
            pytest.skip(reply["refused"])
        ledger.count("controls", tried=1, caught=reply["wrong"], names=name)
        assert reply["wrong"] == 1, f"{name}: {reply['tried']} states and none is wrong"
