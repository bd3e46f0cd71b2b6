"""Fixtures of the proofs: arrays to be killed over, and the ledger of what was tried."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from array_trial import SMALL_BATCH, Data, Worker
from audiofiles import contents
from folder_trial import dataset
from ledger import Ledger
from recipes import protect_folder
from tampering import Array

from poscuda_fast import Key
from poscuda_fast.files import pieces
from poscuda_fast.files import target as files
from poscuda_fast.mark import plan


@pytest.fixture(scope="session")
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """What all proofs of this run tried; stored where POSCUDA_TRUST_RESULTS says, unless something failed."""
    ledger = Ledger()
    yield ledger
    folder = os.environ.get("POSCUDA_TRUST_RESULTS")
    if folder and not request.session.testsfailed:
        ledger.store(Path(folder))


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three patches a batch, so that there are many batches."""
    monkeypatch.setattr(plan, "BATCH_BYTES", SMALL_BATCH)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where many commits are made: in memory where that can be, as a kill leaves the page cache alone."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared) as name:
        yield Path(name)


@pytest.fixture
def data(folder: Path, key: Key) -> Data:
    """Eleven clips: four batches, the last one short."""
    samples = np.random.default_rng(11).integers(-20_000, 20_000, (11, 300), dtype=np.int16)
    return Data(folder, key, samples, np.arange(11) % 3)


@pytest.fixture
def small_folder_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files a batch, and few bytes of a file at once."""
    monkeypatch.setattr(files, "PIECES_PER_BATCH", 2)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 3000)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """(before, after): the files, and what protecting makes of them."""
    root = tmp_path_factory.mktemp("finished")
    before = dataset(root)
    protect_folder(root, None, Key(bytes(range(32))))
    return before, contents(root)


@pytest.fixture
def array(folder: Path, key: Key, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Array:
    """A small protected array whose sidecar may be tampered with."""
    return Array(folder, key, monkeypatch, ledger)
