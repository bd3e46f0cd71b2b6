"""Kills and power cuts at any moment, several one after the other, in both directions: nothing is lost or refused."""

from __future__ import annotations

import pytest
from crashes import lives
from ledger import Ledger
from stages import SCENES

SEED = 7


def count_lives(ledger: Ledger, name: str, most: int, **options: float) -> int:
    states, problems = lives(SCENES[name], SEED, most, **options)
    ledger.count("crash_states", tried=states, wrong=len(problems), scenes=name)
    assert problems == []
    return states


@pytest.mark.guards("I1", "I4", "I5", "I6", "I7")
@pytest.mark.parametrize("name", SCENES)
def test_after_any_crashes_both_verbs_still_work(ledger: Ledger, name: str) -> None:
    assert count_lives(ledger, name, 10 if name == "ZarrArray" else 40) >= 30


@pytest.mark.guards("I1", "I5", "I8")
@pytest.mark.parametrize("name", ["FloatArray", "OneWav"])
def test_after_crashes_and_syncs_that_fail_both_verbs_still_work(ledger: Ledger, name: str) -> None:
    assert count_lives(ledger, name, 40, failing=0.4) >= 100


@pytest.mark.trust
@pytest.mark.guards("I1", "I4", "I5", "I6", "I7")
@pytest.mark.parametrize("name", SCENES)
def test_after_thousands_of_crashes_both_verbs_still_work(ledger: Ledger, name: str) -> None:
    assert count_lives(ledger, name, 200 if name == "ZarrArray" else 1500) >= 500


@pytest.mark.trust
@pytest.mark.guards("I1", "I5", "I8")
@pytest.mark.parametrize("name", SCENES)
def test_after_thousands_of_crashes_and_syncs_that_fail_both_verbs_still_work(ledger: Ledger, name: str) -> None:
    assert count_lives(ledger, name, 100 if name == "ZarrArray" else 500, failing=0.3) >= 250
