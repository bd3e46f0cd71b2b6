"""Where a mapped array is kept: a file, whose pages are read before they are needed, and written in the background.

Both are advice to the system; what must be on the disk is synced by `MappedFile.sync`.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from poscuda_fast import durability
from poscuda_fast.arrays import ArrayClips
from poscuda_fast.kernels import will_need
from poscuda_fast.mapping import MappedFile
from poscuda_fast.plan import Patches

BATCHES_AHEAD = 4  # enough for the disk to be busy while the journal is synced
MOST_BYTES = 1 << 20  # a patch that is spread wider than this is not read ahead
PAGE_BYTES = 4096
_NOTHING = (1 << 62, 0)


def open_mapped(
    arr: NDArray[Any], sidecar: str | os.PathLike[str] | None, *, lengths: Any = None, writing: bool = True
) -> tuple[Pages, ArrayClips]:
    """Where a mapped array is kept, and its clips; TypeError or ValueError if it is no mapped array of clips."""
    mapped = MappedFile(arr, sidecar, writing=writing)
    clips = ArrayClips(arr, lengths, writing=writing)
    return Pages(mapped, clips), clips


class Pages:
    """The file of a mapped array and the pages that patches lie on, as `array_target.Storage` has it."""

    def __init__(self, mapped: MappedFile, audio: ArrayClips) -> None:
        self.path, self.sidecar = mapped.path, mapped.sidecar
        self.locked, self.refuse_cut, self.sync = mapped.locked, mapped.refuse_cut, mapped.sync
        self._mapped = mapped
        self._audio = audio
        self._reading = False
        self._begin, self._end = _NOTHING  # changed and not being written yet, in bytes from the array's lowest
        self._background = ThreadPoolExecutor(2)  # one may wait for reading, the other for writing

    def close(self) -> None:
        """Give no more advice; on return no thread is left, which a fork of this process would stumble over."""
        self._background.shutdown(wait=True, cancel_futures=True)

    def place(self) -> list[int | str]:
        """Where the array lies in its file: first byte and strides."""
        return [self._mapped.offset, *self._audio.array.strides]

    def room(self, n_patches: int) -> int:
        """Storing into a hole of a sparse file takes room, and a full disk would kill the process."""
        return min(self._mapped.holes(), 2 * PAGE_BYTES * n_patches)

    def read(self, patches: Patches) -> None:
        """Begin to read the pages of some patches; returns at once."""
        first, n_bytes = self._audio.reach(patches)
        if len(first) and n_bytes <= MOST_BYTES:
            self._background.submit(will_need, self._audio.flat, first, n_bytes)

    def read_ahead(self, batches: Iterable[Patches]) -> Iterator[Patches]:
        """The same batches, each asked for while those before it are worked on."""
        waiting: deque[Patches] = deque()
        self._reading = True
        for patches in batches:
            self.read(patches)
            waiting.append(patches)
            if len(waiting) > BATCHES_AHEAD:
                yield waiting.popleft()
        self._reading = False
        yield from waiting

    def write(self, patches: Patches) -> None:
        """Begin to write what has changed on the pages of some patches, once there is nothing more to read.

        A disk that reads and writes by turns takes longer for both.
        """
        first, n_bytes = self._audio.reach(patches)
        if not len(first):
            return
        self._begin = min(self._begin, int(first.min()))
        self._end = max(self._end, int(first.max()) + n_bytes)
        if not self._reading:
            span = self._mapped.lowest + self._begin, self._end - self._begin
            self._background.submit(_write_back, self._mapped.path, *span)
            self._begin, self._end = _NOTHING


def _write_back(path: os.PathLike[str], begin: int, n_bytes: int) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            durability.start_writing(descriptor, begin, n_bytes)
        finally:
            os.close(descriptor)
