"""The power fails at any moment; what is on the disk then is finished right by the next call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from array_trial import Data

from poscuda_fast import inplace, memmap
from poscuda_fast.arrays import ArrayClips
from poscuda_fast.journal import Journal

SECTOR = 512

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="a worker forks the processes that are killed"),
    pytest.mark.usefixtures("small_batches"),
]


class Disk:
    """What may be on the disk at each moment of a run in this process.

    The sidecar is as SQLite last committed it; each sector of the data is any version since the last sync.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, data: Data, *, syncs: bool = True) -> None:
        self.moments: list[tuple[bytes | None, tuple[bytes, ...]]] = []
        self._data = data
        self._syncs = syncs
        self._versions: tuple[bytes, ...] = (data.path.read_bytes(),)
        self._sidecar = data.sidecar.read_bytes() if data.sidecar.exists() else None
        for owner, name in ((Journal, "begin"), (Journal, "append"), (Journal, "move")):
            self._after(monkeypatch, owner, name, self._committed)
        self._after(monkeypatch, ArrayClips, "write", self._stored)
        self._after(monkeypatch, memmap.MappedFile, "sync", self._synced)

    def states(self, rng: np.random.Generator) -> Iterator[tuple[bytes | None, bytes]]:
        """Sidecar and data for each moment: nothing of what was not synced, all of it, and three mixtures."""
        for sidecar, versions in dict.fromkeys(self.moments):
            padded = [np.frombuffer(v + bytes(-len(v) % SECTOR), np.uint8).reshape(-1, SECTOR) for v in versions]
            stack = np.stack(padded)
            sectors = np.arange(stack.shape[1])
            picks = [np.zeros_like(sectors), np.full_like(sectors, len(stack) - 1)]
            picks += [rng.integers(0, len(stack), len(sectors)) for _ in range(3)]
            for pick in picks:
                yield sidecar, stack[pick, sectors].tobytes()[: len(versions[0])]

    def _after(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, note: Callable[[], None]) -> None:
        method = getattr(owner, name)

        def noted(*args: Any, **options: Any) -> Any:
            result = method(*args, **options)
            note()
            self.moments.append((self._sidecar, self._versions))
            return result

        monkeypatch.setattr(owner, name, noted)

    def _committed(self) -> None:
        self._sidecar = self._data.sidecar.read_bytes()

    def _stored(self) -> None:
        self._versions = (*self._versions, self._data.path.read_bytes())

    def _synced(self) -> None:
        if self._syncs:
            self._versions = (self._data.path.read_bytes(),)


def wrong_after_power_cuts(disk: Disk, data: Data, is_right: Callable[[], bool]) -> tuple[int, int]:
    """(states tried, states from which the next call does not finish right)."""
    tried = wrong = 0
    for sidecar, content in disk.states(np.random.default_rng(5)):
        data.reset(sidecar)
        data.write(content)
        tried += 1
        wrong += not is_right()
    return tried, wrong


def test_after_a_power_cut_at_any_moment_protect_finishes(data: Data) -> None:
    with pytest.MonkeyPatch.context() as patching:
        disk = Disk(patching, data)
        data.protect()
    tried, wrong = wrong_after_power_cuts(disk, data, data.is_right_after_protect)
    assert wrong == 0
    assert tried > 30


def test_after_a_power_cut_at_any_moment_restore_finishes(data: Data) -> None:
    data.protect()
    with pytest.MonkeyPatch.context() as patching:
        disk = Disk(patching, data)
        data.restore()
    tried, wrong = wrong_after_power_cuts(disk, data, data.is_right_after_restore)
    assert wrong == 0
    assert tried > 20


def test_the_power_cuts_catch_a_missing_sync(data: Data) -> None:
    with pytest.MonkeyPatch.context() as patching:
        disk = Disk(patching, data, syncs=False)
        data.protect()
    assert wrong_after_power_cuts(disk, data, data.is_right_after_protect)[1] > 0


def test_the_power_cuts_catch_a_store_before_its_commit(data: Data) -> None:
    from array_worker import store_before_commit

    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(inplace, "apply", store_before_commit)
        disk = Disk(patching, data)
        data.protect()
    assert wrong_after_power_cuts(disk, data, data.is_right_after_protect)[1] > 0
