"""Threads that work ahead on many small pieces, and hand the results back in order."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from poscuda_fast.kernels import usable_cores

Piece = TypeVar("Piece")
Result = TypeVar("Result")

MOST_THREADS = 16  # each may hold a piece in memory, and all of them share one disk
PIECES_AHEAD = 4  # for each thread: enough to go on with while the journal commits


class Workers:
    """Threads for `map`, until `close`; with one thread everything is done by the caller's own.

    Any number of threads gives the same results in the same order.
    """

    def __init__(self, threads: int | None) -> None:
        self._n = min(threads or usable_cores(), MOST_THREADS)
        self._pool = ThreadPoolExecutor(self._n) if self._n > 1 else None

    def map(self, work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Iterator[Result]:
        """The result of each piece, in order; the first error is raised in its place."""
        if self._pool is None:
            yield from map(work, pieces)
            return
        ahead: collections.deque[Future[Result]] = collections.deque()
        for piece in pieces:
            ahead.append(self._pool.submit(work, piece))
            if len(ahead) > self._n * PIECES_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def close(self) -> None:
        """Wait for what is being worked on, and forget the rest."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
