"""Killed at every call of every verb that changes a file: afterwards both verbs do what they should."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_states import files_below, put
from crashes import OTHER, VERBS
from kills import beginnings, kills, problem_after
from ledger import Ledger
from stages import SCENES, Scene, place, small_batches

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

RUNS = [
    ("protect", "original"),
    ("protect", "half protected"),
    ("protect", "half restored"),
    ("protect", "restored"),
    ("restore", "protected"),
    ("restore", "half protected"),
    ("restore", "half restored"),
]
QUICK = ("RawArray", "WavFolder")


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with small_batches(), tempfile.TemporaryDirectory(dir=place()) as folder:
        yield SCENES[request.param](Path(folder))


def every_kill(scene: Scene, ledger: Ledger, verb: str, begin: str, every: int = 1) -> int:
    """How many kills there were."""
    tried = 0
    wrong = []
    for n, point in kills(scene, verb, beginnings(scene)[begin], every):
        problem = problem_after(scene)
        ledger.count("kills", tried=1, wrong=problem is not None, points=point, scenes=type(scene).__name__)
        tried += 1
        if problem is not None:
            wrong.append(f"{verb} of {begin} data, killed at {n}, {point}: {problem}")
    assert not wrong, "\n".join(wrong)
    return tried


@pytest.mark.guards("I1", "I4", "I6", "I7")
@pytest.mark.parametrize("scene", QUICK, indirect=True)
@pytest.mark.parametrize(("verb", "begin"), [("protect", "original"), ("restore", "half protected")])
def test_killed_at_many_calls_both_verbs_still_work(scene: Scene, ledger: Ledger, verb: str, begin: str) -> None:
    assert every_kill(scene, ledger, verb, begin, every=3) >= 7


@pytest.mark.trust
@pytest.mark.guards("I1", "I4", "I6", "I7")
@pytest.mark.parametrize("scene", SCENES, indirect=True)
@pytest.mark.parametrize(("verb", "begin"), RUNS)
def test_killed_at_every_call_of_every_verb(scene: Scene, ledger: Ledger, verb: str, begin: str) -> None:
    assert every_kill(scene, ledger, verb, begin) >= 8


@pytest.mark.trust
@pytest.mark.guards("I6", "I7")
@pytest.mark.parametrize("scene", SCENES, indirect=True)
@pytest.mark.parametrize("verb", VERBS)
def test_killed_in_the_recovery_from_every_third_kill(scene: Scene, ledger: Ledger, verb: str) -> None:
    start = beginnings(scene)["original" if verb == "protect" else "protected"]
    wrong = []
    for n, _ in kills(scene, verb, start, every=3):
        torn = files_below(scene.root)
        for second in (verb, OTHER[verb]):
            for m, point in kills(scene, second, torn, every=4):
                problem = problem_after(scene)
                ledger.count("kills", tried=1, wrong=problem is not None, points=f"{point} (recovery)")
                if problem is not None:
                    wrong.append(f"{verb} killed at {n}, {second} at {m}, {point}: {problem}")
            put(scene.root, torn)
    assert not wrong, "\n".join(wrong)
