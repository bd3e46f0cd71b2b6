"""Whatever is broken or hostile is refused with a sentence, in two seconds and 256 MiB; nothing is written or grown."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audiofiles import snapshot, start_child
from bad_inputs import CASES, KINDS
from ledger import Ledger

from poscuda_fast import PoscudaError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

REFUSALS = (PoscudaError, ValueError, TypeError, KeyError, FileNotFoundError, FileExistsError, IsADirectoryError)
SECONDS = 2
GROWTH = 256 << 20
kinds = pytest.mark.parametrize("kind", KINDS)


def try_out(folder: Path, case: Any) -> str:
    """What is wrong with how a bad input is met; nothing, if it is refused as it should be."""
    call = case(folder)
    before = snapshot(folder)
    readable, writable = os.pipe()

    def work() -> None:
        os.close(readable)
        signal.alarm(SECONDS)
        pages = int(Path("/proc/self/statm").read_text().split()[0]) if os.path.exists("/proc/self/statm") else 0
        if pages:
            most = pages * os.sysconf("SC_PAGESIZE") + GROWTH
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        try:
            call()
        except REFUSALS as error:
            said = f"refused: {error}"
        except BaseException as error:  # noqa: BLE001 - whatever else it is, it is wrong
            said = f"{type(error).__name__}: {error}"
        else:
            said = "accepted"
        os.write(writable, said.encode("utf-8", "replace")[:60_000])

    child = start_child(work)
    os.close(writable)
    with open(readable, "rb") as pipe:
        said = pipe.read().decode("utf-8", "replace")
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended != 0:
        return f"the process ended with {ended}"
    if not said.startswith("refused: "):
        return said[:200]
    if snapshot(folder) != before:
        return "something was written"
    return "" if is_sentence(said.removeprefix("refused: ")) else f"no sentence: {said[:200]}"


def is_sentence(text: str) -> bool:
    """Whether a message says something, and no more than can be read."""
    first = text.strip("'\"").split("\n", 1)[0]
    return len(first) >= 20 and len(text) < 2_000 and " " in first


def try_all(folder: Path, kind: str, ledger: Ledger) -> None:
    wrong = []
    for number, (of, name, case) in enumerate(CASES):
        if of != kind:
            continue
        here = folder / str(number)
        here.mkdir()
        problem = try_out(here, case)
        ledger.count("bad_inputs", tried=1, wrong=bool(problem), kinds=kind)
        if problem:
            wrong.append(f"{name}: {problem}")
        with contextlib.suppress(OSError):
            os.chmod(here, 0o700)
    assert not wrong, "\n".join(wrong)


@pytest.mark.guards("I13")
@kinds
def test_bad_inputs_are_refused(tmp_path: Path, ledger: Ledger, kind: str) -> None:
    try_all(tmp_path, kind, ledger)


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 270
    assert len({(kind, name) for kind, name, _ in CASES}) == len(CASES)


def accepts(folder: Path) -> None:
    """Says nothing against it."""


def writes(folder: Path) -> None:
    (folder / "new").write_bytes(b"")
    raise ValueError("A sentence of twenty characters and more.")


def hangs(folder: Path) -> None:
    while True:
        pass


def grows(folder: Path) -> None:
    bytearray(8 * GROWTH)


def dies(folder: Path) -> None:
    faulthandler.disable()  # it would print a report of this death among those of the tests
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        (accepts, "accepted"),
        (writes, "something was written"),
        (hangs, f"ended with {-signal.SIGALRM}"),
        (grows, "MemoryError"),
        (dies, f"ended with {-signal.SIGSEGV}"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_mistake_would_be_seen(tmp_path: Path, case: Callable[[Path], None], problem: str) -> None:
    assert problem in try_out(tmp_path, lambda folder: lambda: case(folder))
