"""Drivers with one rule taken away: the kills have to notice, or they prove nothing."""

from __future__ import annotations

import os
from typing import Any

import pytest
from array_trial import Data, Worker, kill_points
from ledger import Ledger

from poscuda_fast import SidecarError

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="a worker forks the processes that are killed"),
    pytest.mark.usefixtures("small_batches"),
]


@pytest.mark.slow
@pytest.mark.guards("I1", "I2", "I3")
@pytest.mark.parametrize("broken", ["store before commit", "reread on resume", "row replaced"])
def test_the_kills_catch_a_broken_order(worker: Worker, data: Data, ledger: Ledger, broken: str) -> None:
    def goes_wrong(n: int) -> bool:
        if broken != "store before commit":  # the others break what is done after a kill
            assert "state" in worker.run(data.path, "protect", broken=broken)
        try:
            return not data.is_right_after_protect()
        except SidecarError:  # the library itself sees that something is wrong
            return True
        finally:
            data.reset()

    def kill(n: int) -> dict[str, Any]:
        return worker.run(data.path, "protect", die_at=n, broken=broken)

    wrong = sum(map(goes_wrong, kill_points(kill)))
    ledger.count("controls", tried=1, caught=wrong > 0, names=broken)
    assert wrong > 0
