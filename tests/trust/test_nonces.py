"""No key and nonce seal twice, however often a run is stopped and resumed, or set back to an older state."""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from ledger import Ledger

from poscuda_fast import Key
from poscuda_fast.undo import journal
from poscuda_fast.undo.journal import Journal, State

KEY = Key(bytes(range(32)))
BATCHES = 6


class Stopped(Exception):
    """A run ends here."""


@pytest.fixture
def sealings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[bytes]]:
    """How often each key and nonce sealed something, in digest."""
    seen: Counter[bytes] = Counter()

    class Counting:
        def __init__(self, key: bytes) -> None:
            self._key = key
            self._cipher = ChaCha20Poly1305(key)
            self.decrypt = self._cipher.decrypt

        def encrypt(self, nonce: bytes, data: bytes, context: bytes) -> bytes:
            seen[hashlib.sha256(self._key + nonce).digest()] += 1
            return self._cipher.encrypt(nonce, data, context)

    monkeypatch.setattr(journal, "ChaCha20Poly1305", Counting)
    return seen


def resumed_run(path: Path, rng: np.random.Generator) -> int:
    """Journal some batches in several openings, each stopped before, in or after a commit; how often it was opened.

    Some of the time the sidecar is set back to what it was at the opening before, as a lost tail would.
    """
    path.unlink(missing_ok=True)
    openings = 0
    older = b""
    while True:
        openings += 1
        with Journal(path, KEY) as opened:
            if opened.state in (State.NEW, State.UNDONE):
                opened.begin({"kind": "array"}, b"secret")
            for _ in opened.payloads():
                pass
            try:
                while opened.n_batches() < BATCHES:
                    stop_at_a_random_step(opened, rng)
            except Stopped:
                pass
            else:
                return openings
        before, older = older, path.read_bytes()
        if before and rng.random() < 0.3:
            path.write_bytes(before)


def stop_at_a_random_step(opened: Journal, rng: np.random.Generator) -> None:
    """Append a batch, or stop: before it, after it was sealed and before its commit, or after the commit."""
    step = rng.integers(0, 8)
    if step == 0:
        raise Stopped
    if step == 1:
        write_state = opened._write_state

        def fail(*_: object) -> None:
            raise Stopped

        opened._write_state = fail
        try:
            opened.append(rng.bytes(40))
        finally:
            opened._write_state = write_state
    opened.append(rng.bytes(40))
    if step == 2:
        raise Stopped


def count_repeated(folder: Path, sealings: Counter[bytes], runs: int, ledger: Ledger | None) -> int:
    seed = secrets.randbits(32)
    rng = np.random.default_rng(seed)
    done = 0
    while done < runs:
        done += resumed_run(folder / "sidecar", rng) - 1  # the first opening resumes nothing
    repeated = sum(times - 1 for times in sealings.values())
    if ledger is not None:
        ledger.count("nonces", runs=done, pairs=len(sealings), repeated=repeated)
        assert repeated == 0, f"seed {seed}"
    assert len(sealings) > runs
    return repeated


@pytest.mark.guards("I11")
def test_no_key_and_nonce_seal_twice(folder: Path, sealings: Counter[bytes], ledger: Ledger) -> None:
    count_repeated(folder, sealings, 50, ledger)


@pytest.mark.trust
@pytest.mark.guards("I11")
def test_no_key_and_nonce_seal_twice_in_a_thousand_resumed_runs(
    folder: Path, sealings: Counter[bytes], ledger: Ledger
) -> None:
    count_repeated(folder, sealings, 1_000, ledger)


def test_a_session_that_is_used_again_is_noticed(
    folder: Path, sealings: Counter[bytes], ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_journal = Journal.__init__

    def with_a_fixed_session(self: Journal, path: Path, key: Key) -> None:
        open_journal(self, path, key)
        self._session = b"always the same."

    monkeypatch.setattr(Journal, "__init__", with_a_fixed_session)
    repeated = count_repeated(folder, sealings, 50, None)
    ledger.count("controls", tried=1, caught=repeated > 0, names="nonce reused")
    assert repeated > 0
