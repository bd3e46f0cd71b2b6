"""Fixtures shared by all tests; real speech is used where it lies beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from poscuda_fast import Key

# A shared machine may pause anything for longer than Hypothesis's limit for one example.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

REAL_SPEECH = Path(os.environ.get("POSCUDA_REAL_SPEECH", Path(__file__).parents[1] / ".." / "shared" / "data"))


@pytest.fixture
def key() -> Key:
    """The key of the format's vectors."""
    return Key(bytes(range(32)))


@pytest.fixture
def fsdd() -> Path:
    """The folder of the Free Spoken Digit Dataset's recordings."""
    return _real("fsdd/recordings")


@pytest.fixture
def speech_commands() -> Path:
    """A folder in the layout of Google's Speech Commands."""
    return _real("speech_commands")


def _real(name: str) -> Path:
    folder = REAL_SPEECH / name
    if not folder.is_dir():
        pytest.skip(f"no real speech at {folder}; set POSCUDA_REAL_SPEECH to a folder that has it")
    return folder
