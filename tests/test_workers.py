"""Work ahead on threads: results in order, errors in their place, a bounded number of pieces under way."""

from __future__ import annotations

import hashlib
import os
import threading
import time

import pytest

from poscuda_fast.disk import MOST_THREADS, PIECES_AHEAD, Threads, Workers

threads = pytest.mark.parametrize("n", [1, 2, 5, 100])


@threads
def test_results_come_in_order(n):
    def work(piece: int) -> int:
        time.sleep(0.002 * (piece % 3))
        return piece * piece

    with Workers(n) as workers:
        assert list(workers.map(work, range(40))) == [piece * piece for piece in range(40)]
        assert list(workers.map(work, [])) == []


@threads
def test_an_error_is_raised_in_its_place(n):
    with Workers(n) as workers:
        results = workers.map(lambda piece: 1 // (piece - 3), range(10))
        assert [next(results) for _ in range(3)] == [-1, -1, -1]
        with pytest.raises(ZeroDivisionError):
            next(results)


@threads
def test_no_more_is_begun_than_was_asked_for_and_some(n):
    begun = []
    with Workers(n) as workers:
        results = workers.map(begun.append, range(1000))
        next(results)
        time.sleep(0.05)
        assert len(begun) <= 2 + MOST_THREADS * PIECES_AHEAD
    time.sleep(0.05)
    assert len(begun) < 1000


@threads
def test_nothing_runs_once_it_is_closed(n):
    workers = Workers(n)
    before = threading.active_count()
    for _ in zip(workers.map(time.sleep, [0.01] * 50), range(3), strict=False):
        pass
    workers.close()
    assert threading.active_count() <= before


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="this system does not list threads")
def test_threads_have_left_the_system_when_they_are_closed():
    before = set(os.listdir("/proc/self/task"))
    for _ in range(300):
        with Threads(4) as threads:
            for wait in [threads.submit(lambda: hashlib.sha256(bytes(100)).digest()) for _ in range(8)]:
                wait()
        assert set(os.listdir("/proc/self/task")) <= before
