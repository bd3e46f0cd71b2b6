"""No key and nonce seal twice, however often a run is killed, cut off from its power and resumed."""

from __future__ import annotations

import pytest
import sealings
from crashes import lives
from ledger import Ledger
from stages import SCENES


def count_pairs(ledger: Ledger, name: str, most: int) -> int:
    with sealings.recorded() as seen:
        states, _ = lives(SCENES[name], 11, most, failing=0.2)
    ledger.count("nonces", runs=states, pairs=len(seen), repeated=sealings.repeated(seen))
    assert sealings.repeated(seen) == 0
    return len(seen)


@pytest.mark.guards("I11")
def test_no_key_and_nonce_seal_twice(ledger: Ledger) -> None:
    assert count_pairs(ledger, "RawArray", 40) > 500


@pytest.mark.trust
@pytest.mark.guards("I11")
@pytest.mark.parametrize("name", ["RawArray", "OneWav", "EncodedFolder"])
def test_no_key_and_nonce_seal_twice_in_thousands_of_runs(ledger: Ledger, name: str) -> None:
    assert count_pairs(ledger, name, 700) > 5000
