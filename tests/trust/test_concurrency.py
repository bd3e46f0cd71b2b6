"""Processes, threads and forks that want the same data at once: one of them wins, and nothing is harmed."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from recipes import protect_memmap
from tampering import SMALL, Array

from poscuda_fast import BusyError, restore_memmap, verify_memmap

HOLD = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold() -> Iterator[Callable[[Path], None]]:
    """Let another process hold a SQLite file until the test ends."""
    processes = []

    def hold(path: Path) -> None:
        arguments = [sys.executable, "-S", "-c", HOLD, str(path)]
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout.readline() == b"held\n"

    yield hold
    for process in processes:
        process.communicate()


def test_a_sidecar_that_another_process_holds_is_busy(array: Array, hold: Callable[[Path], None]) -> None:
    hold(array.sidecar)
    for verb in (array.restore, array.protect, lambda: verify_memmap(array.arr, array.key)):
        with pytest.raises(BusyError, match=re.escape(f"The sidecar {array.sidecar} is in use")):
            verb()
    assert array.path.read_bytes() == array.protected


def test_of_two_threads_one_wins(array: Array) -> None:
    array.restore()
    at_work, go_on = threading.Event(), threading.Event()
    states = []

    def wait(done: int, total: int) -> None:
        at_work.set()
        assert go_on.wait(60)

    def work() -> None:
        states.append(protect_memmap(array.arr, np.arange(11) % 3, array.key, recipe=SMALL, progress=wait).state)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert at_work.wait(60)
        second = np.load(array.path, mmap_mode="r+")
        for verb in (
            lambda: protect_memmap(second, np.arange(11) % 3, array.key, recipe=SMALL),
            lambda: restore_memmap(second, array.key),
            lambda: verify_memmap(second, array.key),
            # Another sidecar does not make it another file.
            lambda: protect_memmap(
                second, np.arange(11) % 3, array.key, recipe=SMALL, sidecar=array.path.with_name("other")
            ),
        ):
            with pytest.raises(BusyError, match=re.escape(f"{array.path} is in use")):
                verb()
    finally:
        go_on.set()
        thread.join()
    assert states == ["protected"]
    assert array.path.read_bytes() == array.protected
    assert not array.path.with_name("other").exists()


def test_many_threads_protect_once(array: Array) -> None:
    array.restore()
    barrier = threading.Barrier(8, timeout=20)
    outcomes = []

    def work() -> None:
        arr = np.load(array.path, mmap_mode="r+")
        barrier.wait()
        try:
            outcomes.append(protect_memmap(arr, np.arange(11) % 3, array.key, recipe=SMALL).state)
        except BusyError:
            outcomes.append("busy")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 8
    assert outcomes.count("protected") == 1
    assert set(outcomes) <= {"protected", "already protected", "busy"}
    assert array.path.read_bytes() == array.protected
