"""Records the steps of a run on an array where no process may trace another.

The operations are those of recorder.py, but for the sidecar's: SQLite's commits are taken to be one durable step each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from disk import PAGE, Operation

from poscuda_fast.arrays import mapped
from poscuda_fast.arrays.layouts import ArrayClips
from poscuda_fast.undo.journal import Journal


class Steps:
    """Notes what the steps of this process's runs do to the array in `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = path.read_bytes()
        self.operations: list[Operation] = []

    def say(self, *operation: Any) -> None:
        self._look()
        self.operations.append(operation)

    def of(self, run: Callable[[], object]) -> list[Operation]:
        with pytest.MonkeyPatch.context() as patching:
            for name in ("begin", "append", "move", "make_final"):
                self._after(patching, Journal, name, self._committed)
            self._after(patching, ArrayClips, "write", lambda _: self._look())
            self._after(patching, mapped.MappedArray, "sync", lambda _: self.say("sync", self._path.name))
            run()
        self._look()
        return self.operations

    def _after(self, patching: pytest.MonkeyPatch, owner: type, name: str, note: Callable[[Any], None]) -> None:
        method = getattr(owner, name)

        def noted(self: Any, *args: Any) -> None:
            method(self, *args)
            note(self)

        patching.setattr(owner, name, noted)

    def _committed(self, journal: Journal) -> None:
        self.say("replace", journal.path.name, journal.path.read_bytes())

    def _look(self) -> None:
        now = self._path.read_bytes()
        for low in range(0, len(now), PAGE):
            if now[low : low + PAGE] != self._known[low : low + PAGE]:
                self.operations.append(("store", self._path.name, low, now[low : low + PAGE]))
        self._known = now
