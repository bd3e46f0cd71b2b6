"""A folder's verbs killed at every point, each from every state that they may find: no byte is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folder_trial import Trial, die_at, is_sound, kills, last_point
from ledger import Ledger

from poscuda_fast import Key, drop_undo, restore_folder

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
    pytest.mark.usefixtures("small_folder_batches"),
]


def nothing(trial: Trial) -> None:
    """The files as they come."""


def killed(call: Callable[[], object], at: int) -> None:
    """Run `call` in a process that dies at its point number `at`."""
    from audiofiles import in_child

    def run() -> None:
        die_at(at)
        call()

    assert in_child(run) < 0


def half_protected(trial: Trial) -> None:
    killed(trial.protect, 30)


def protected(trial: Trial) -> None:
    trial.protect()


def half_restored(trial: Trial) -> None:
    trial.protect()
    killed(lambda: restore_folder(trial.root, trial.key), 9)


CALLS: dict[str, Callable[[Trial], Any]] = {
    "protect": Trial.protect,
    "restore": lambda trial: restore_folder(trial.root, trial.key),
    "drop_undo": lambda trial: drop_undo(trial.root, trial.key),
}
IS_RIGHT: dict[str, Callable[[Trial, dict[str, bytes]], bool]] = {
    "protect": Trial.is_right_after_protect,
    "restore": Trial.is_right_after_restore,
    "drop_undo": Trial.is_right_after_drop,
}


@pytest.mark.trust
@pytest.mark.guards("I1", "I2", "I4", "I6", "I7")
@pytest.mark.parametrize("copying", [True, False], ids=["copy", "in place"])
@pytest.mark.parametrize(
    ("verb", "begin"),
    [
        ("protect", nothing), ("protect", half_protected), ("restore", protected), ("restore", half_protected),
        ("restore", half_restored), ("drop_undo", protected),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)  # fmt: skip
def test_killed_at_every_point(
    tmp_path: Path, key: Key, finished: Any, ledger: Ledger, verb: str, begin: Any, copying: bool
) -> None:
    before, after = finished
    trial = Trial(tmp_path, key, before, copying=copying, threads=1)
    begin(trial)
    start = trial.tree()
    wrong = []
    for n in kills(lambda: CALLS[verb](trial), lambda: trial.put(start)):
        point = last_point()
        torn = trial.tree()
        sound = verb == "restore" or is_sound(trial.root, before, after, copying=copying)
        lost = 0 if verb == "drop_undo" else trial.bytes_lost()
        trial.put(torn)
        right = sound and IS_RIGHT[verb](trial, after)
        if not right or lost:
            wrong.append((n, point, lost))
        ledger.count("kills", tried=1, wrong=not right, bytes_lost=lost, points=f"{point} ({verb})", verbs=verb)
        ledger.count("outside", bytes=sum(map(len, before.values())), changed=not sound)
    assert wrong == []
