"""Ctrl-C, or no more memory, at any line of any verb: the same process can go on, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from audiofiles import in_child
from crash_states import put
from kills import beginnings, problem_after
from ledger import Ledger
from line_injector import lines_of, moments, raise_at
from stages import SCENES, Scene, place, small_batches

from poscuda_fast import disk
from poscuda_fast.arrays import mapped
from poscuda_fast.arrays import target as array_target
from poscuda_fast.arrays import verbs as arrays
from poscuda_fast.files import accounts, answers, batches, below, encoded, pieces, preflight, replacing
from poscuda_fast.files import target as file_target
from poscuda_fast.files import verbs as folders
from poscuda_fast.mark import forms
from poscuda_fast.undo import journal, log, manifest, record, steps

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

MODULES = [
    arrays, array_target, mapped, folders, file_target, accounts, answers, batches, below, encoded, manifest, pieces,
    preflight, replacing, forms, disk, journal, log, record, steps,
]  # fmt: skip
KINDS = {KeyboardInterrupt: "interrupts", MemoryError: "memory_errors"}


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with small_batches(), tempfile.TemporaryDirectory(dir=place()) as folder:
        yield SCENES[request.param](Path(folder))


@pytest.mark.guards("I6")
@pytest.mark.parametrize(
    ("kind", "step"),
    [
        (KeyboardInterrupt, 59),
        (MemoryError, 83),
        pytest.param(KeyboardInterrupt, 1, marks=pytest.mark.trust),
        pytest.param(MemoryError, 4, marks=pytest.mark.trust),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.parametrize(("verb", "begin"), [("protect", "original"), ("restore", "half protected")])
@pytest.mark.parametrize("scene", ["RawArray", "EncodedFolder"], indirect=True)
def test_raised_at_any_line(
    scene: Scene, ledger: Ledger, verb: str, begin: str, kind: type[BaseException], step: int
) -> None:
    start = beginnings(scene)[begin]
    put(scene.root, start)
    lines = lines_of(lambda: scene.run(verb), MODULES)
    wrong = []
    for n in moments(lines, step):
        put(scene.root, start)

        def run(n: int = n) -> None:
            with contextlib.suppress(soundfile.LibsndfileError):  # which loses what its callbacks raise
                raise_at(lambda: scene.run(verb), MODULES, n, kind)
            problem = problem_after(scene)
            assert problem is None, problem

        right = in_child(run) == 0
        ledger.count(KINDS[kind], tried=1, wrong=not right)
        if not right:
            wrong.append(lines[n - 1].rpartition("/")[2])
    assert wrong == []
