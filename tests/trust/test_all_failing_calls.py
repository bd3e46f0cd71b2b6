"""Every system call of every verb fails, alone or with all that follow: it is said, and the next call finishes."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_trial import SMALL, Data
from audiofiles import contents, noise, wav
from fault_injector import SHORT, FaultInjector
from folder_trial import Trial
from ledger import Ledger
from tracer import Untraceable

from poscuda_fast import Key, PoscudaError, drop_undo, restore_folder
from poscuda_fast.undo.journal import Journal

pytestmark = pytest.mark.usefixtures("small_batches", "small_folder_batches")

CALLS = ("openat", "write", "pwrite64", "ftruncate", "fsync", "fdatasync", "msync", "syncfs")
GONE_ON_WITH = {  # errors that whoever calls has to go on with: they say "again"
    "write": (errno.EINTR, SHORT),
    "pwrite64": (errno.EINTR, SHORT),
    "ftruncate": (errno.EINTR,),
}
SYNCS_OF_DATA = {"msync", "syncfs"}
FINISHED = {"protect": "complete", "restore": "undone", "drop_undo": "final"}


def faults(call: str) -> Iterator[tuple[int | str, bool]]:
    """(error, for good) for a kind of call."""
    for error in (errno.EIO, errno.ENOSPC):
        yield error, False
        yield error, True
    for how in GONE_ON_WITH.get(call, ()):
        yield how, False


def run_with_fault(injector: FaultInjector, verb: Callable[[], str]) -> str:
    """How a verb ended: "state: ..." or the name of its error."""
    readable, writable = os.pipe()

    def run() -> None:
        os.close(readable)
        try:
            said = f"state: {verb()}"
        except (OSError, PoscudaError) as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writable, said.encode())

    try:
        status = injector.of(run)
    except Untraceable:
        os.close(readable)
        pytest.skip("this system does not let a process trace its child")
    finally:
        os.close(writable)
    with open(readable, "rb") as pipe:
        said = pipe.read().decode()
    assert status == 0, said
    return said


class Series:
    """One verb from one beginning; each fault is tried at the first call, the second, .. until the run passes."""

    def __init__(self, ledger: Ledger, root: Path, verb: str, call: Callable[[], str]) -> None:
        self.ledger, self.root, self.verb, self.call = ledger, root, verb, call
        self.wrong: list[str] = []

    def run(
        self,
        begin: Callable[[], None],
        state: Callable[[], str],
        is_sound: Callable[[], bool],
        is_right: Callable[[], bool],
        calls: tuple[str, ...] = CALLS,
        step: int = 1,
    ) -> int:
        """Try them all, or every `step`-th; how many failed."""
        tried = 0
        for call in calls:
            for how, for_good in faults(call):
                for n in itertools.count(1, step):
                    begin()
                    injector = FaultInjector(self.root, call, n, how, for_good=for_good)
                    said = run_with_fault(injector, self.call)
                    if not injector.failed:
                        self.ledger.count("failing_calls", tried=0, wrong=0, passed_runs=1, calls=call)
                        assert said.startswith("state: "), said
                        break
                    tried += 1
                    problems = self._problems(injector, said, how, state, is_sound, is_right)
                    self.ledger.count("failing_calls", tried=1, wrong=bool(problems), calls=call, verbs=self.verb)
                    if problems:
                        mode = "for good" if for_good else "once"
                        self.wrong.append(f"{call} {n} fails with {how} {mode}: {said[:80]}: {', '.join(problems)}")
        assert not self.wrong, "\n".join(self.wrong)
        return tried

    def _problems(
        self, injector: FaultInjector, said: str, how: int | str, state: Any, is_sound: Any, is_right: Any
    ) -> list[str]:
        problems = []
        passed = said.startswith("state: ")
        if how in (errno.EINTR, SHORT) and not passed:
            problems.append("it was not gone on with")
        if not passed and state() == FINISHED[self.verb] and not is_right():
            problems.append("it says that it is finished")
        if how == errno.EIO and injector._call in SYNCS_OF_DATA and (passed or injector._call in injector.after):
            problems.append("a failed sync was not the end")
        if not is_sound():
            problems.append("something is harmed")
        elif not is_right():
            problems.append("the next call does not finish")
        return problems


def state_of(sidecar: Path, key: Key) -> str:
    """What a sidecar says, if it is there."""
    if not sidecar.exists() or not sidecar.stat().st_size:
        return "new"
    with Journal(sidecar, key) as journal:
        return journal.state.value


# An array


def array_series(ledger: Ledger, folder: Path, key: Key, verb: str, begin: str, **options: Any) -> int:
    samples = np.random.default_rng(15).integers(-20_000, 20_000, (4, 200), dtype=np.int16)
    data = Data(folder, key, samples, np.arange(4) % 3, SMALL)
    if begin == "half protected":
        with pytest.raises(KeyboardInterrupt):
            data.protect(progress=_interrupt)
    elif begin != "original":
        data.protect()
    start = data.files()
    verbs = {"protect": data.protect, "restore": data.restore, "drop_undo": lambda: drop_undo(data.path, key).state}
    right = {
        "protect": data.is_right_after_protect,
        "restore": data.is_right_after_restore,
        "drop_undo": data.is_right_after_drop,
    }[verb]

    def is_right() -> bool:
        with data.same_again():
            return right()

    return Series(ledger, folder, verb, verbs[verb]).run(
        lambda: data.put(start),
        lambda: state_of(data.sidecar, key),
        lambda: not data.changed_outside(),
        is_right,
        **options,
    )


def _interrupt(done: int, total: int) -> None:
    raise KeyboardInterrupt


BEGINNINGS = [
    ("protect", "original"), ("protect", "half protected"), ("restore", "protected"), ("restore", "half protected"),
    ("drop_undo", "protected"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.guards("I8")
@pytest.mark.parametrize(("verb", "begin"), BEGINNINGS)
def test_a_call_on_an_array_that_fails_is_said_and_the_next_one_finishes(
    folder: Path, key: Key, ledger: Ledger, verb: str, begin: str
) -> None:
    assert array_series(ledger, folder, key, verb, begin, calls=("fdatasync", "msync"), step=7) > 2


@pytest.mark.trust
@pytest.mark.guards("I8")
@pytest.mark.parametrize(("verb", "begin"), BEGINNINGS)
def test_every_call_on_an_array_that_fails_is_said_and_the_next_one_finishes(
    folder: Path, key: Key, ledger: Ledger, verb: str, begin: str
) -> None:
    assert array_series(ledger, folder, key, verb, begin) > 50


# A folder


def folder_series(ledger: Ledger, tmp_path: Path, key: Key, verb: str, *, copying: bool, **options: Any) -> int:
    before = {f"{'yes' if n % 2 else 'no'}/{n}.wav": wav(noise(600 + n, seed=n)) for n in range(3)}
    trial = Trial(tmp_path, key, before, copying=copying, threads=1)
    trial.protect()
    after = contents(trial.root)
    protected = trial.tree()
    if verb != "protect":
        start = protected
    else:
        trial.begin("second")
        start = trial.tree()
    verbs = {
        "protect": trial.protect,
        "restore": lambda: restore_folder(trial.root, key).state,
        "drop_undo": lambda: drop_undo(trial.root, key).state,
    }
    right = {
        "protect": trial.is_right_after_protect,
        "restore": trial.is_right_after_restore,
        "drop_undo": trial.is_right_after_drop,
    }[verb]

    def is_right() -> bool:
        torn = trial.tree()
        try:
            return right(after)
        finally:
            trial.put(torn)

    def is_sound() -> bool:
        parts = (
            [name for name in contents(trial.root, hidden=True) if name.endswith("-part")]
            if trial.root.exists()
            else []
        )
        return not parts and (not copying or contents(trial.src) == before)

    return Series(ledger, tmp_path, verb, verbs[verb]).run(
        lambda: trial.put(start), lambda: state_of(trial.root / ".poscuda", key), is_sound, is_right, **options
    )


FOLDER_VERBS = pytest.mark.parametrize("verb", ["protect", "restore", "drop_undo"])
both_ways = pytest.mark.parametrize("copying", [True, False], ids=["copy", "in place"])


@pytest.mark.guards("I8")
@both_ways
def test_a_sync_of_a_folder_that_fails_is_said_and_the_next_call_finishes(
    folder: Path, key: Key, ledger: Ledger, copying: bool
) -> None:
    assert folder_series(ledger, folder, key, "protect", copying=copying, calls=("syncfs",)) == 4


@pytest.mark.trust
@pytest.mark.guards("I8")
@both_ways
@FOLDER_VERBS
def test_every_call_on_a_folder_that_fails_is_said_and_the_next_one_finishes(
    folder: Path, key: Key, ledger: Ledger, verb: str, copying: bool
) -> None:
    assert folder_series(ledger, folder, key, verb, copying=copying) > 30
