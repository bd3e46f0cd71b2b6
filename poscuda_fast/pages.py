"""Pages of a mapped file: read before they are needed, written while others are worked on.

Both are advice to the system, given in the background; what must be on the disk is synced by `MappedFile.sync`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from poscuda_fast import durability
from poscuda_fast.arrays import ArrayClips
from poscuda_fast.kernels import will_need
from poscuda_fast.mapping import MappedFile
from poscuda_fast.plan import Patches

MOST_BYTES = 1 << 20  # a patch that is spread wider than this is not read ahead


class Pages:
    """The pages that patches of a mapped array lie on."""

    def __init__(self, mapped: MappedFile, audio: ArrayClips) -> None:
        self._mapped = mapped
        self._audio = audio
        self._background = ThreadPoolExecutor(2)  # one may wait for reading, the other for writing

    def read(self, patches: Patches) -> None:
        """Begin to read the pages of some patches; returns at once."""
        first, n_bytes = self._audio.reach(patches)
        if len(first) and n_bytes <= MOST_BYTES:
            self._background.submit(will_need, self._audio.flat, first, n_bytes)

    def read_ahead(self, batches: Iterable[Patches]) -> Iterator[Patches]:
        """The same batches, each asked for while the one before it is worked on."""
        waiting = None
        for patches in batches:
            self.read(patches)
            if waiting is not None:
                yield waiting
            waiting = patches
        if waiting is not None:
            yield waiting

    def write(self, patches: Patches) -> None:
        """Begin to write what has changed between the first and the last page of some patches."""
        first, n_bytes = self._audio.reach(patches)
        if len(first):
            begin = self._mapped.lowest + int(first.min())
            self._background.submit(_write_back, self._mapped.path, begin, int(first.max() - first.min()) + n_bytes)


def _write_back(path: os.PathLike[str], begin: int, n_bytes: int) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            durability.start_writing(descriptor, begin, n_bytes)
        finally:
            os.close(descriptor)
