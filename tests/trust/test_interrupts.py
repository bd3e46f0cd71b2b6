"""Ctrl-C, or no more memory, at any line of any verb: the same process can finish it, and nothing is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_trial import SMALL, Data
from audiofiles import contents, in_child, noise, wav
from folder_trial import Trial
from ledger import Ledger
from line_injector import lines_of, moments, raise_at

from poscuda_fast import Key, disk, drop_undo, restore_folder
from poscuda_fast.arrays import mapped
from poscuda_fast.arrays import target as array_target
from poscuda_fast.arrays import verbs as memmap
from poscuda_fast.files import edits, encoded, manifest, pieces, staging
from poscuda_fast.files import target as files
from poscuda_fast.files import verbs as folder
from poscuda_fast.files import wav as wavedit
from poscuda_fast.mark import plan
from poscuda_fast.undo import final, journal, steps  # fmt: skip

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
    pytest.mark.usefixtures("small_batches", "small_folder_batches"),
]

OF_ARRAYS = [memmap, steps, journal, final, array_target, mapped]
OF_FOLDERS = [folder, steps, journal, final, files, edits, encoded, pieces, staging, wavedit, disk, manifest]
KINDS = {KeyboardInterrupt: "interrupts", MemoryError: "memory_errors"}
often = pytest.mark.parametrize(
    ("kind", "step"),
    [
        (KeyboardInterrupt, 61),
        (MemoryError, 61),
        pytest.param(KeyboardInterrupt, 1, marks=pytest.mark.trust),
        pytest.param(MemoryError, 4, marks=pytest.mark.trust),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)


def raise_everywhere(
    call: Callable[[], Any],
    begin: Callable[[], None],
    is_right: Callable[[], bool],
    modules: list[Any],
    kind: type[BaseException],
    step: int,
    ledger: Ledger,
) -> None:
    """Raise at every line, each time from the same beginning and in a process of its own, which then calls again."""
    begin()
    lines = lines_of(call, modules)
    wrong = []
    for n in moments(lines, step):
        begin()

        def run(n: int = n) -> None:
            raise_at(call, modules, n, kind)
            assert is_right()

        right = in_child(run) == 0
        ledger.count(KINDS[kind], tried=1, wrong=not right)
        if not right:
            wrong.append(lines[n - 1].rpartition("/")[2])
    assert wrong == []


@often
@pytest.mark.guards("I6")
@pytest.mark.parametrize("verb", ["protect", "restore", "drop_undo"])
def test_at_any_line_of_a_verb_on_an_array(
    folder: Path, key: Key, ledger: Ledger, verb: str, kind: type[BaseException], step: int
) -> None:
    plan.BATCH_BYTES = 1 << 20
    samples = np.random.default_rng(11).integers(-20_000, 20_000, (11, 300), dtype=np.int16)
    data = Data(folder, key, samples, np.arange(11) % 3, SMALL)
    if verb != "protect":
        data.protect()
    start = data.files()
    calls = {"protect": data.protect, "restore": data.restore, "drop_undo": lambda: drop_undo(data.path, key)}
    right = {
        "protect": data.is_right_after_protect,
        "restore": data.is_right_after_restore,
        "drop_undo": data.is_right_after_drop,
    }
    raise_everywhere(calls[verb], lambda: data.put(start), right[verb], OF_ARRAYS, kind, step, ledger)


@often
@pytest.mark.guards("I6")
@pytest.mark.parametrize(
    ("verb", "copying"), [("protect", True), ("protect", False), ("restore", False), ("drop_undo", False)]
)
def test_at_any_line_of_a_verb_on_a_folder(
    folder: Path, key: Key, ledger: Ledger, verb: str, copying: bool, kind: type[BaseException], step: int
) -> None:
    before = {f"{'yes' if n % 2 else 'no'}/{n}.wav": wav(noise(600 + n, seed=n)) for n in range(3)}
    trial = Trial(folder, key, before, copying=copying, threads=1)
    trial.protect()
    after = contents(trial.root)
    if verb == "protect":
        trial.begin("second")
    start = trial.tree()
    calls = {
        "protect": trial.protect,
        "restore": lambda: restore_folder(trial.root, key),
        "drop_undo": lambda: drop_undo(trial.root, key),
    }
    right = {
        "protect": trial.is_right_after_protect,
        "restore": trial.is_right_after_restore,
        "drop_undo": trial.is_right_after_drop,
    }[verb]
    # A folder has many more lines than an array: every second moment.
    raise_everywhere(calls[verb], lambda: trial.put(start), lambda: right(after), OF_FOLDERS, kind, 2 * step, ledger)
