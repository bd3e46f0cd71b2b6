"""Every call of every verb that changes a file fails: it is said, and the next call finishes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from failing import KINDS, SYNCS, failures, faults
from kills import beginnings
from ledger import Ledger
from stages import SCENES, Scene, place, small_batches


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with small_batches(), tempfile.TemporaryDirectory(dir=place()) as folder:
        yield SCENES[request.param](Path(folder))


def every_failure(scene: Scene, ledger: Ledger, verb: str, begin: str, kinds: Sequence[str]) -> int:
    """How many calls failed."""
    start = beginnings(scene)[begin]
    tried = 0
    wrong = []
    for kind in kinds:
        for error, for_good in faults(kind):
            for n, problem in failures(scene, verb, start, kind, error, for_good=for_good):
                tried += 1
                ledger.count("failing_calls", tried=1, wrong=problem is not None, calls=kind)
                if problem is not None:
                    wrong.append(f"{verb} of {begin} data, {kind} {n}, {error} {for_good}: {problem}")
    assert not wrong, "\n".join(wrong)
    return tried


@pytest.mark.guards("I8")
@pytest.mark.parametrize("scene", ["FloatArray", "WavFolder"], indirect=True)
def test_a_sync_that_fails_is_said_and_the_next_call_finishes(scene: Scene, ledger: Ledger) -> None:
    assert every_failure(scene, ledger, "protect", "original", SYNCS) >= 10


@pytest.mark.trust
@pytest.mark.guards("I8")
@pytest.mark.parametrize("scene", SCENES, indirect=True)
@pytest.mark.parametrize(
    ("verb", "begin"),
    [("protect", "original"), ("protect", "half restored"), ("restore", "protected"), ("restore", "half protected")],
)
def test_every_call_that_fails_is_said_and_the_next_call_finishes(
    scene: Scene, ledger: Ledger, verb: str, begin: str
) -> None:
    assert every_failure(scene, ledger, verb, begin, KINDS) >= 30
