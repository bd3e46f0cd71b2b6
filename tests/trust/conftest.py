"""Fixtures of the proofs: the ledger of what was tried."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger import Ledger


@pytest.fixture(scope="session")
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """What all proofs of this run tried; stored where POSCUDA_TRUST_RESULTS says, unless something failed."""
    ledger = Ledger()
    yield ledger
    folder = os.environ.get("POSCUDA_TRUST_RESULTS")
    if folder and not request.session.testsfailed:
        ledger.store(Path(folder))
