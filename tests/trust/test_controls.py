"""Drivers with one rule taken away: the harness has to notice, or it proves nothing."""

from __future__ import annotations

import os

import pytest
from array_trial import Data, Worker, kill_points

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="a worker forks the processes that are killed"),
    pytest.mark.usefixtures("small_batches"),
]


@pytest.mark.parametrize("broken", ["store before commit", "reread on resume"])
def test_the_harness_catches_a_broken_order(worker: Worker, data: Data, broken: str) -> None:
    def goes_wrong(n: int) -> bool:
        if broken == "reread on resume":
            assert "state" in worker.run(data.path, "protect", broken=broken)
        right = data.is_right_after_protect()
        data.reset()
        return not right

    assert any(map(goes_wrong, kill_points(lambda n: worker.run(data.path, "protect", die_at=n, broken=broken))))
