"""Sidecars that were damaged, cut, spliced or exchanged, and what verbs do with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from audiofiles import write_tree
from crash_states import put
from kills import beginnings
from stages import KEY, Scene, State

from poscuda_fast.errors import PoscudaError
from poscuda_fast.undo import log


class Found(NamedTuple):
    """How a verb ended: whether it refused the sidecar, and what is wrong, if anything."""

    refused: bool
    wrong: str | None


class Tampered:
    """A scene at the beginning of a verb, whose sidecar is exchanged again and again."""

    def __init__(self, scene: Scene, begin: str) -> None:
        put(scene.root, beginnings(scene)[begin])
        self.scene = scene
        self.data: State = scene.bytes()
        self.sidecar = scene.sidecar.read_bytes()

    def outcome(self, sidecar: bytes, verb: str = "restore") -> Found:
        """A verb with this sidecar: it must do what it should, or refuse, and then change nothing."""
        put(self.scene.root, {})
        write_tree(self.scene.root, self.data)
        self.scene.sidecar.write_bytes(sidecar)
        try:
            self.scene.run(verb)
        except (PoscudaError, OSError):
            changed = self.scene.bytes() != self.data
            return Found(True, "it was refused after something was written" if changed else None)
        return Found(False, self.scene.wrong_after(verb))

    def end(self) -> int:
        """Where the last record ends."""
        self.scene.sidecar.write_bytes(self.sidecar)
        with log.Log(self.scene.sidecar, KEY) as opened:
            return opened._end

    def edges(self) -> list[int]:
        """Where the header and each record end."""
        self.scene.sidecar.write_bytes(self.sidecar)
        with log.Log(self.scene.sidecar, KEY) as opened:
            return [place.begin - log._HEAD.size for place in opened._places()] + [len(self.sidecar)]


def flipped(content: bytes, places: Iterable[int], mask: int = 0xFF) -> Iterator[tuple[int, bytes]]:
    """(place, content with that byte flipped)."""
    for place in places:
        yield place, content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :]
