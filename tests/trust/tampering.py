"""A protected array whose sidecar is damaged, forged or exchanged, again and again."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ledger import Ledger
from recipes import protect_memmap
from sidecars import edit

from poscuda_fast import Key, PoscudaError, Recipe, SidecarError, drop_undo, restore_memmap, verify_memmap
from poscuda_fast.mark import plan
from poscuda_fast.undo.journal import Journal

SMALL = Recipe.paper(patch=40, taps=8, blur=0.3)


class Array:
    """A small protected array, four batches, and its sidecar."""

    def __init__(self, folder: Path, key: Key, monkeypatch: Any, ledger: Ledger) -> None:
        self.ledger = ledger
        monkeypatch.setattr(plan, "BATCH_BYTES", 3 * 40 * 2)
        self.path = folder / "clips.npy"
        self.key = key
        np.save(self.path, np.random.default_rng(7).integers(-20_000, 20_000, (11, 120), dtype=np.int16))
        self.original = self.path.read_bytes()
        self.arr = np.load(self.path, mmap_mode="r+")
        self.protect()
        self.protected = self.path.read_bytes()
        self.sidecar = folder / "clips.npy.poscuda"
        self.sealed = self.sidecar.read_bytes()

    def protect(self) -> str:
        return protect_memmap(self.arr, np.arange(11) % 3, self.key, recipe=SMALL).state

    def restore(self) -> str:
        return restore_memmap(self.arr, self.key).state

    def set(self, data: bytes, sidecar: bytes) -> None:
        self.set_data(data)
        self.sidecar.write_bytes(sidecar)

    def set_data(self, data: bytes) -> None:
        self.arr.reshape(-1).view(np.uint8)[:] = np.frombuffer(data[-self.arr.nbytes :], np.uint8)

    def refuses_to_restore(self, message: str) -> None:
        """Neither restoring nor protecting nor verifying believes the sidecar; the data stays as it is."""
        with pytest.raises(SidecarError, match=message):
            self.restore()
        assert self.path.read_bytes() == self.protected
        with pytest.raises(SidecarError, match=message):
            verify_memmap(self.arr, self.key)
        with contextlib.suppress(SidecarError):  # batches that will be destroyed need not be whole
            drop_undo(self.path, self.key)
        assert self.path.read_bytes() == self.protected
        self.ledger.count("tampered", tried=4, wrong=0, what="a sidecar")


def outcome(array: Array) -> str:
    """What restoring does with a damaged sidecar: "refused" with the data untouched, or "restored" rightly."""
    try:
        array.restore()
    except (PoscudaError, OSError):
        found, expected = "refused", array.protected
    else:
        found, expected = "restored", array.original
    right = array.path.read_bytes() == expected
    array.ledger.count("tampered", tried=1, wrong=not right, what="a sidecar")
    assert right
    return found


def reading(array: Array) -> Any:
    """All that a sidecar says, or None if it is refused."""
    try:
        with Journal(array.sidecar, array.key) as journal:
            return journal.state, journal.header, journal.secret, journal.summary, list(journal.payloads())
    except (PoscudaError, OSError):
        return None


def damaged(content: bytes, places: Iterable[int], masks: Iterable[int]) -> Iterator[tuple[str, bytes]]:
    """A name and a copy of some content for each place and mask that is flipped there."""
    for place, mask in itertools.product(places, masks):
        yield f"byte {place} ^ {mask:#04x}", content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :]


def check_damaged(array: Array, copies: Iterator[tuple[str, bytes]], *, every: int) -> None:
    """Each copy is refused, or says what the sidecar said and restores the original (every n-th one is tried)."""
    truth = reading(array)
    problems = []
    harmless = 0
    for name, content in copies:
        array.sidecar.write_bytes(content)
        try:
            read = reading(array)
        except Exception as error:  # noqa: BLE001 - anything but a refusal is what is looked for
            problems.append(f"{name}: {error!r}")
            continue
        array.ledger.count("tampered", tried=1, wrong=read not in (None, truth), what="a sidecar")
        if read is None:
            continue
        if read != truth:
            problems.append(f"{name}: another reading")
        elif harmless % every == 0:
            array.set(array.protected, content)
            assert outcome(array) in ("refused", "restored"), name
        harmless += 1
    assert problems == []
    assert harmless > 0


def second_run(array: Array) -> bytes:
    """The sidecar of another run over the same data, with the same key."""
    array.restore()
    array.protect()
    assert array.path.read_bytes() == array.protected
    return array.sidecar.read_bytes()


def splice(array: Array, statement: str) -> None:
    """Run a statement on the first run's sidecar, with the second run's attached as `other`."""
    other = array.sidecar.with_name("other")
    other.write_bytes(second_run(array))
    array.sidecar.write_bytes(array.sealed)
    edit(array.sidecar, f"ATTACH '{other}' AS other", statement)
    assert array.sidecar.read_bytes() != array.sealed
