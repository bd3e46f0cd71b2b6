"""The power fails at any moment; whatever the disk holds then, the next call finishes right."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest
from cut_worker import CutWorkers
from ledger import Ledger

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a worker forks the runs that are recorded")

SEED = 5
VERBS = {
    "protect": {"verb": "protect"},
    "resumed protect": {"verb": "protect", "start": "interrupted protect"},
    "protect after undo": {"verb": "protect", "start": "undone"},
    "protect after a failed sync": {"verb": "protect", "failed_sync": True},
    "undo": {"verb": "restore", "start": "protected"},
    "resumed undo": {"verb": "restore", "start": "interrupted restore"},
    "undo after a failed sync": {"verb": "restore", "start": "protected", "failed_sync": True},
    "drop of the undo": {"verb": "drop", "start": "protected"},
    "resumed drop of the undo": {"verb": "drop", "start": "interrupted drop"},
}
LONG = {  # random mixtures at each moment; runs
    "protect": (2, 1),
    "resumed protect": (4, 2),
    "protect after undo": (2, 1),
    "protect after a failed sync": (1, 1),
    "undo": (5, 1),
    "resumed undo": (4, 2),
    "undo after a failed sync": (4, 1),
    "drop of the undo": (8, 1),
    "resumed drop of the undo": (8, 1),
}
# A control is tried where its rule matters: the sync of the data comes near the end.
CONTROLS = {
    "no fsync": {**VERBS["protect"], "begin": 0.94},
    "no fsync of the sidecar": {**VERBS["protect"], "begin": 0.15},
    "store before commit": {**VERBS["protect"], "begin": 0.2},
    "early COMPLETE": {**VERBS["protect"], "begin": 0.9},
    "early UNDONE": {**VERBS["undo"], "begin": 0.8},
    "compare and skip": {**VERBS["protect after a failed sync"], "begin": 0.94},
}


@pytest.fixture(scope="module")
def workers() -> Iterator[CutWorkers]:
    with CutWorkers(2) as workers:
        yield workers


def count_states(ledger: Ledger, verb: str, reply: dict[str, Any]) -> None:
    fields = {"tried": reply["tried"], "wrong": reply["wrong"], "moments": reply["moments"]}
    ledger.count("crash_states", **fields, verbs=verb, recorded=reply["recorded"])
    ledger.count("outside", bytes=reply["outside"], changed=reply["changed_outside"])
    assert reply["changed_outside"] == 0
    assert reply["wrong"] == 0, "\n".join(reply["examples"])


@pytest.mark.slow
@pytest.mark.guards("I1", "I2", "I4", "I5", "I6", "I7")
def test_after_a_power_cut_at_any_moment_the_next_call_finishes(workers: CutWorkers, ledger: Ledger) -> None:
    every = {"protect": 9, "undo": 5, "resumed protect": 5, "drop of the undo": 5}
    scenarios = [{**VERBS[verb], "every": n, "samples": 3, "seed": SEED} for verb, n in every.items()]
    states = 0
    for verb, reply in zip(every, workers.map(scenarios), strict=True):
        count_states(ledger, verb, reply)
        states += reply["tried"]
    assert states >= 90


@pytest.mark.guards("I1", "I5", "I6", "I7")
def test_the_steps_tell_the_same_where_no_process_may_trace_another(workers: CutWorkers, ledger: Ledger) -> None:
    verbs = ("protect", "undo", "drop of the undo")
    scenarios = [{**VERBS[verb], "by_steps": True, "every": 4, "seed": SEED} for verb in verbs]
    for verb, reply in zip(verbs, workers.map(scenarios), strict=True):
        assert reply["recorded"] == "steps"
        count_states(ledger, verb, reply)


@pytest.mark.trust
@pytest.mark.guards("I1", "I2", "I4", "I5", "I6", "I7", "I8")
def test_after_a_power_cut_at_any_moment_of_any_run_the_next_call_finishes(workers: CutWorkers, ledger: Ledger) -> None:
    runs = [
        (verb, {**VERBS[verb], "samples": samples, "dtype": dtype, "recipe": recipe, "seed": SEED + n})
        for verb, (samples, n_runs) in LONG.items()
        for dtype, recipe, n in itertools.product(("int16", "float32"), ("paper", "strong"), range(n_runs))
    ]
    states = 0
    recorded = set()
    for (verb, _), reply in zip(runs, workers.map([scenario for _, scenario in runs]), strict=True):
        count_states(ledger, verb, reply)
        states += reply["tried"]
        recorded.add(reply["recorded"])
    assert states >= (10_000 if recorded == {"system calls"} else 1_000)


@pytest.mark.slow
@pytest.mark.guards("I1", "I5", "I8")
@pytest.mark.parametrize(
    ("by_steps", "dtype", "recipe"),
    [
        (False, "int16", "paper"),
        (True, "int16", "paper"),
        pytest.param(False, "float32", "strong", marks=pytest.mark.trust),
        pytest.param(True, "float32", "strong", marks=pytest.mark.trust),
    ],
)
def test_the_power_cuts_catch_every_rule_that_is_taken_away(
    workers: CutWorkers, ledger: Ledger, by_steps: bool, dtype: str, recipe: str
) -> None:
    names = [name for name in CONTROLS if not (by_steps and name == "no fsync of the sidecar")]
    how = {"until_wrong": True, "dtype": dtype, "recipe": recipe, "seed": SEED}
    scenarios = [{**CONTROLS[name], "broken": name, **how} for name in names]
    if by_steps:  # which are few
        scenarios = [{**fields, "by_steps": True, "begin": fields["begin"] - 0.15} for fields in scenarios]
    for name, reply in zip(names, workers.map(scenarios), strict=True):
        if name == "no fsync of the sidecar" and reply["recorded"] == "steps":
            continue  # its commits cannot be seen to be torn
        ledger.count("controls", tried=1, caught=reply["wrong"], names=name)
        assert reply["wrong"] == 1, f"{name}: {reply['tried']} states and none is wrong"
