"""Processes, threads and forks that want the same data at once: one of them wins, and nothing is harmed."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from audiofiles import contents, end_of_child, in_child, killer, noise, start_child, wav, write_tree
from ledger import Ledger
from recipes import protect_folder, protect_memmap
from tampering import SMALL, Array

from poscuda_fast import (
    BusyError,
    DatasetError,
    Key,
    PoscudaError,
    drop_undo,
    restore_folder,
    restore_memmap,
    verify_folder,
    verify_memmap,
)

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


# Races


VERBS = {
    "protect": lambda array, arr: protect_memmap(arr, np.arange(11) % 3, array.key, recipe=SMALL).state,
    "restore": lambda array, arr: restore_memmap(arr, array.key).state,
    "verify": lambda array, arr: verify_memmap(arr, array.key).state,
    "drop_undo": lambda array, arr: drop_undo(array.path, array.key).state,
    "protect with another sidecar": lambda array, arr: (
        protect_memmap(
            arr, np.arange(11) % 3, array.key, recipe=SMALL, sidecar=array.path.with_name("another")
        ).state
        if not array.path.with_name("another").exists()
        else "not again"
    ),
}  # fmt: skip


ALLOWED = {
    "protected", "already protected", "restored", "already original", "final", "complete", "undone", "applying",
    "undoing", "BusyError", "SidecarError",
}  # fmt: skip


def race(array: Array, verbs: list[str], delays: list[float]) -> list[str]:
    """Start a process for each verb, each after its delay; how each ended: its state, or the name of its error."""
    readable, writable = os.pipe()
    children = []
    for number, (verb, delay) in enumerate(zip(verbs, delays, strict=True)):

        def work(number: int = number, verb: str = verb, delay: float = delay) -> None:
            arr = np.load(array.path, mmap_mode="r+")
            time.sleep(delay)
            try:
                said = VERBS[verb](array, arr)
            except (PoscudaError, OSError) as error:
                said = type(error).__name__
            os.write(writable, f"{number} {said}\n".encode())

        children.append(start_child(work))
    os.close(writable)
    assert [end_of_child(child) for child in children] == [0] * len(children)
    with open(readable, encoding="utf-8") as pipe:
        said = dict(line.rstrip("\n").split(" ", 1) for line in pipe)
    return [said[str(number)] for number in range(len(verbs))]


def run_races(array: Array, ledger: Ledger, n: int) -> None:
    seed = secrets.randbits(32)
    rng = np.random.default_rng(seed)
    names = ["protect", "restore", "verify", "drop_undo"]
    for number in range(n):
        array.sidecar.unlink(missing_ok=True)
        array.set_data(array.original)
        if number % 2:
            array.protect()
        # Two sidecars for one file are no race: whoever comes second cannot see the first one's.
        verbs = list(rng.choice(names, rng.integers(2, 5)))
        said = race(array, verbs, rng.uniform(0, 0.004, len(verbs)).tolist())
        about = f"seed {seed}, race {number}: {list(zip(verbs, said, strict=True))}"
        right = set(said) <= ALLOWED and set(said) != {"BusyError"}
        right = right and array.path.read_bytes() in (array.original, array.protected)
        # What the last one left must still be known: protecting says so, and does it if it is not done.
        right = right and array.protect() in ("protected", "already protected")
        right = right and array.path.read_bytes() == array.protected
        ledger.count("races", tried=1, wrong=not right, how="processes")
        assert right, about


@pytest.mark.guards("I12")
def test_whatever_races_nothing_is_harmed(array: Array, ledger: Ledger) -> None:
    run_races(array, ledger, 12)


@pytest.mark.trust
@pytest.mark.guards("I12")
def test_whatever_races_for_long_nothing_is_harmed(array: Array, ledger: Ledger) -> None:
    run_races(array, ledger, 300)


@pytest.mark.guards("I12")
@pytest.mark.parametrize("verb", ["protect", "restore", "verify", "drop_undo", "protect with another sidecar"])
def test_a_forked_child_is_refused_while_its_parent_is_at_work(array: Array, ledger: Ledger, verb: str) -> None:
    array.restore()
    ended = []

    def refused() -> None:
        with pytest.raises(BusyError, match="in use"):
            VERBS[verb](array, np.load(array.path, mmap_mode="r+"))

    def fork(done: int, total: int) -> None:
        if done == total:
            ended.append(in_child(refused, beside_threads=True))

    protect_memmap(array.arr, np.arange(11) % 3, array.key, recipe=SMALL, progress=fork)
    ledger.count("races", tried=1, wrong=ended != [0], how="forks")
    assert ended == [0]
    assert array.path.read_bytes() == array.protected


def linked(array: Array) -> Path:
    os.link(array.path, array.path.with_name("linked.npy"))
    return array.path.with_name("linked.npy")


def symbolically_linked(array: Array) -> Path:
    array.path.with_name("linked.npy").symlink_to(array.path)
    return array.path.with_name("linked.npy")


def by_another_folder(array: Array) -> Path:
    folder = array.path.parent / "linked"
    folder.symlink_to(array.path.parent)
    return folder / array.path.name


@pytest.mark.guards("I12")
@pytest.mark.parametrize("name_again", [linked, symbolically_linked, by_another_folder])
def test_another_name_of_the_file_is_the_same_file(
    array: Array, ledger: Ledger, name_again: Callable[[Array], Path]
) -> None:
    array.restore()
    other = name_again(array)

    def refused(done: int, total: int) -> None:
        with pytest.raises(BusyError, match="in use"):
            protect_memmap(np.load(other, mmap_mode="r+"), np.arange(11) % 3, array.key, recipe=SMALL)

    protect_memmap(array.arr, np.arange(11) % 3, array.key, recipe=SMALL, progress=refused)
    ledger.count("races", tried=1, wrong=0, how="two names")
    assert array.path.read_bytes() == array.protected


@pytest.mark.guards("I12")
def test_the_lock_of_a_killed_process_is_free_at_once(array: Array, ledger: Ledger) -> None:
    array.restore()

    def work() -> None:
        protect_memmap(array.arr, np.arange(11) % 3, array.key, recipe=SMALL, progress=killer(240))

    assert in_child(work) < 0
    assert array.protect() == "protected"
    assert array.path.read_bytes() == array.protected
    ledger.count("races", tried=1, wrong=0, how="a killed process")


@pytest.mark.guards("I12")
@pytest.mark.parametrize("copying", [True, False], ids=["copy", "in place"])
def test_processes_that_want_one_folder(tmp_path: Path, key: Key, ledger: Ledger, copying: bool) -> None:
    files = {f"{'ab'[n % 2]}/{n}.wav": wav(noise(300 + n, seed=n)) for n in range(8)}
    for number in range(6):
        src = tmp_path / f"src {number}"
        write_tree(src, files)
        dst = tmp_path / f"dst {number}" if copying else None

        def work(src: Path = src, dst: Path | None = dst) -> None:
            with contextlib.suppress(BusyError, DatasetError):  # a copy that another has finished is taken
                protect_folder(src, dst, key)

        children = [start_child(work) for _ in range(3)]
        assert [end_of_child(child) for child in children] == [0] * 3
        root = src if dst is None else dst
        found = verify_folder(root, key)
        right = (found.protected, found.ok) == (8, True)
        restore_folder(root, key)
        right = right and {name: data for name, data in contents(root).items() if name in files} == files
        ledger.count("races", tried=1, wrong=not right, how="processes")
        assert right
