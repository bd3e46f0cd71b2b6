"""The library with one rule taken away: some proof must notice, or the proofs prove nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import broken
import pytest
import sealings
from ages import mixtures
from crashes import lives
from ledger import Ledger
from stages import SCENES, Scene, place, small_batches
from tampering import Tampered, flipped

MOST = 2000  # lives: the first that is wrong ends a trial


def by_crashes(name: str, failing: float = 0) -> bool:
    """Whether some life of a scene goes wrong."""
    _, problems = lives(SCENES[name], 1, MOST, until_wrong=True, failing=failing)
    return bool(problems)


def by_ages(name: str) -> bool:
    """Whether a sidecar and data of different moments do harm."""
    return _with(name, lambda scene: any(wrong is not None for _, wrong in mixtures(scene, 5)))


def by_tampering(name: str) -> bool:
    """Whether a byte of the last record can be changed, unnoticed."""

    def is_missed(scene: Scene) -> bool:
        tampered = Tampered(scene, "protected")
        places = range(tampered.edges()[-2], len(tampered.sidecar))
        return any(not tampered.outcome(content).refused for _, content in flipped(tampered.sidecar, places))

    return _with(name, is_missed)


def by_nonces(name: str) -> bool:
    """Whether a key and nonce seal twice."""
    with sealings.recorded() as seen:
        lives(SCENES[name], 1, 40)
    return sealings.repeated(seen) > 0


def _with(name: str, is_wrong: Callable[[Scene], bool]) -> bool:
    with small_batches(), tempfile.TemporaryDirectory(dir=place()) as folder:
        return is_wrong(SCENES[name](Path(folder)))


CONTROLS: dict[str, tuple[broken.Patch, Callable[..., bool], tuple[Any, ...]]] = {
    "no fsync of the log": (broken.no_sync_of_the_log, by_crashes, ("RawArray",)),
    "store before the record": (broken.store_before_the_record, by_crashes, ("OneWav",)),
    "hashes of what is stored": (broken.hashes_of_what_is_stored, by_crashes, ("RawArray",)),
    "no comparison": (broken.no_comparison, by_crashes, ("RawArray",)),
    "torn records believed": (broken.torn_records_believed, by_crashes, ("RawArray",)),
    "torn tails not cut": (broken.torn_tails_not_cut, by_crashes, ("RawArray",)),
    "damage taken for a torn tail": (broken.damage_taken_for_a_torn_tail, by_tampering, ("RawArray",)),
    "words of the log believed": (broken.words_believed, by_ages, ("RawArray",)),
    "torn originals not kept": (broken.torn_originals_not_kept, by_crashes, ("RawArray",)),
    "straddling samples not kept": (broken.straddling_samples_not_kept, by_crashes, ("OneWav",)),
    "only kept samples not looked at": (broken.kept_samples_not_looked_at, by_crashes, ("FloatWav",)),
    "nothing synced": (broken.nothing_synced, by_crashes, ("OneWav",)),
    "announced batch not compared": (broken.announced_not_compared, by_ages, ("OneWav",)),
    "one session": (broken.one_session, by_nonces, ("RawArray",)),
    "killed records not settled": (broken.killed_records_not_settled, by_crashes, ("RawArray",)),
    "settled without writing": (broken.settled_without_writing, by_crashes, ("OneWav", 0.4)),
    "failed syncs forgotten": (broken.failed_syncs_forgotten, by_crashes, ("RawArray", 0.4)),
}


@pytest.mark.slow
@pytest.mark.guards("I1", "I2", "I5", "I8", "I11")
@pytest.mark.parametrize("name", CONTROLS)
def test_a_rule_that_is_taken_away_is_missed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    patch, proof, given = CONTROLS[name]
    patch(monkeypatch)
    caught = proof(*given)
    ledger.count("controls", tried=1, caught=caught, names=name)
    assert caught


@pytest.mark.slow
@pytest.mark.parametrize("proof", [by_ages, by_tampering, by_nonces], ids=lambda proof: proof.__name__)
def test_the_library_as_it_is_passes_the_same_proofs(proof: Callable[[str], bool]) -> None:
    assert not proof("RawArray")
