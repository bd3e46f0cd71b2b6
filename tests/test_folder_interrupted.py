"""Runs over folders that are killed or interrupted and finished by the same call, and runs that meet."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from audiofiles import contents, end_of_child, in_child, start_child, untouched, write_tree
from folders import both_ways, needs_fork, small_dataset, small_is_protected
from recipes import protect_folder

from poscuda_fast import BusyError, DatasetError, Key, restore_folder, verify_folder
from poscuda_fast.files import making
from poscuda_fast.files import target as files

PUBLIC = {"src.poscuda", "src.poscuda.json"}


def killer(at: int) -> Callable[[int, int], None]:
    """A progress callback that kills its own process, without any clean-up, when it is called so many times."""
    calls = itertools.count(1)

    def progress(done: int, total: int) -> None:
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return progress


def beside(root: Path) -> set[str]:
    """What lies beside a folder."""
    return {entry.name for entry in root.parent.iterdir()} - {root.name}


@needs_fork
@pytest.mark.parametrize(("at", "batch"), [(1, 1), (1, 100), (3, 2), (4, 2), (2, 100), (6, 1)])
def test_a_run_that_was_killed_is_finished_by_the_same_call(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch, at: int, batch: int
) -> None:
    src = tmp_path / "work/src"
    before = small_dataset(src)
    monkeypatch.setattr(files, "PIECES_PER_BATCH", batch)
    call = functools.partial(protect_folder, src, None, key)
    assert in_child(lambda: call(progress=killer(at))) == -signal.SIGKILL
    found = verify_folder(src, key)
    assert (found.state, found.ok) == ("applying", False)

    report = call()
    write_tree(tmp_path / "fresh", before)
    whole = protect_folder(tmp_path / "fresh", None, key)
    assert report == dataclasses.replace(whole, seconds=report.seconds)
    assert small_is_protected(src, key)
    assert contents(src, hidden=True) == contents(tmp_path / "fresh", hidden=True)
    assert beside(src) == PUBLIC
    manifests = [tmp_path / name for name in ("work/src.poscuda.json", "fresh.poscuda.json")]
    assert manifests[0].read_bytes() == manifests[1].read_bytes()
    found = verify_folder(src, key)
    assert (found.protected, found.ok, found.state) == (6, True, "complete")
    assert verify_folder(src).ok
    assert call().state == "already protected"
    restore_folder(src, key)
    assert contents(src, hidden=True) == before


@needs_fork
def test_a_copy_that_was_killed_is_finished_by_the_same_call(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    before = small_dataset(src)
    monkeypatch.setattr(making, "FILES_AT_ONCE", 1)
    call = functools.partial(protect_folder, src, dst, key)
    for at in (1, 3, 1):
        assert in_child(lambda at=at: call(progress=killer(at))) == -signal.SIGKILL
        assert not verify_folder(dst, key).ok
    assert call().state == "protected"
    assert small_is_protected(dst, key)
    assert set(contents(dst, hidden=True)) == set(before)
    assert contents(src, hidden=True) == before
    assert verify_folder(dst, key).ok
    assert call().state == "already protected"


@needs_fork
def test_a_run_that_was_killed_again_and_again(tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    src = tmp_path / "src"
    before = small_dataset(src)
    monkeypatch.setattr(files, "PIECES_PER_BATCH", 2)
    call = functools.partial(protect_folder, src, None, key)
    for at in (1, 2, 1, 5, 3, 6):
        assert in_child(functools.partial(call, progress=killer(at))) == -signal.SIGKILL
    assert call().state == "protected"
    assert small_is_protected(src, key)
    assert set(contents(src, hidden=True)) == set(before)
    for at in (1, 2, 1, 4, 3, 4):  # behind a look at each of the four batches
        undo = functools.partial(restore_folder, src, key, progress=killer(4 + at))
        assert in_child(undo) == -signal.SIGKILL
    assert restore_folder(src, key).state == "restored"
    assert contents(src, hidden=True) == before
    assert beside(src) == PUBLIC


@needs_fork
@pytest.mark.parametrize(("at", "batch"), [(1, 1), (2, 100), (4, 2), (6, 1)])
def test_a_run_that_was_killed_can_be_restored(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch, at: int, batch: int
) -> None:
    src = tmp_path / "src"
    before = small_dataset(src)
    monkeypatch.setattr(files, "PIECES_PER_BATCH", batch)
    assert in_child(lambda: protect_folder(src, None, key, progress=killer(at))) == -signal.SIGKILL
    assert restore_folder(src, key).state == "restored"
    assert contents(src, hidden=True) == before
    assert restore_folder(src, key).state == "already original"


@needs_fork
@pytest.mark.parametrize("way", ["restore", "protect"])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_restore_that_was_killed_is_finished_either_way(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch, at: int, way: str
) -> None:
    src = tmp_path / "src"
    before = small_dataset(src)
    monkeypatch.setattr(files, "PIECES_PER_BATCH", 2)
    protect_folder(src, None, key)
    wet = contents(src, hidden=True)
    assert in_child(lambda: restore_folder(src, key, progress=killer(4 + at))) == -signal.SIGKILL
    found = verify_folder(src, key)
    assert (found.state, found.ok) == ("undoing", False)
    if way == "protect":
        assert protect_folder(src, None, key).state == "protected"
        assert contents(src, hidden=True) == wet
    report = restore_folder(src, key)
    assert (report.state, report.patches, report.clips) == ("restored", 6, 6)
    assert contents(src, hidden=True) == before
    assert beside(src) == PUBLIC


def test_an_interrupt_leaves_a_run_that_can_be_finished(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    src = tmp_path / "src"
    before = small_dataset(src)
    monkeypatch.setattr(files, "PIECES_PER_BATCH", 2)

    def interrupt(done: int, total: int) -> None:
        if done == (3 if total == 6 else 9):  # a restore takes two steps for each file
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        protect_folder(src, None, key, progress=interrupt)
    assert protect_folder(src, None, key).state == "protected"
    with pytest.raises(KeyboardInterrupt):
        restore_folder(src, key, progress=interrupt)
    assert restore_folder(src, key).state == "restored"
    assert contents(src) == before


# Runs that meet


@pytest.mark.guards("I12")
@needs_fork
@both_ways
def test_two_runs_at_once_on_one_folder(tmp_path: Path, key: Key, copying: bool) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    root = tmp_path / "dst" if copying else src
    call = functools.partial(protect_folder, src, root if copying else None, key)
    has_begun, begun = os.pipe()
    may_go_on, go_on = os.pipe()
    told: list[int] = []

    def pause(done: int, total: int) -> None:
        if not told:
            told.append(done)
            os.write(begun, b"1")
            os.read(may_go_on, 1)

    child = start_child(lambda: call(progress=pause))
    try:
        assert os.read(has_begun, 1) == b"1"
        for verb in (call, functools.partial(restore_folder, root, key), functools.partial(verify_folder, root, key)):
            with pytest.raises(BusyError, match=r"is in use: another run is at work.*Wait for it to end"):
                verb()
    finally:
        os.write(go_on, b"1")
        ended = end_of_child(child)
        for descriptor in (has_begun, begun, may_go_on, go_on):
            os.close(descriptor)
    assert ended == 0
    assert small_is_protected(root, key)
    assert verify_folder(root, key).ok


def test_a_run_inside_a_run_is_refused(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    refused = []

    def again(done: int, total: int) -> None:
        with pytest.raises(BusyError, match="in use") as caught:
            protect_folder(src, None, key)
        refused.append(caught.value)

    protect_folder(src, None, key, progress=again)
    assert refused
    assert small_is_protected(src, key)


@pytest.mark.guards("I12")
@pytest.mark.parametrize(
    ("name", "sidecar"), [("", "elsewhere"), ("no/0.wav", None)], ids=["another sidecar", "one of its files"]
)
def test_a_run_on_the_same_files_with_another_sidecar_is_refused(
    tmp_path: Path, key: Key, name: str, sidecar: str | None
) -> None:
    src = tmp_path / "src"
    before = small_dataset(src)
    other = None if sidecar is None else tmp_path / sidecar
    refused = []

    def again(done: int, total: int) -> None:
        if done != 3:
            return
        with pytest.raises((BusyError, DatasetError)) as caught:
            protect_folder(src / name, None, key, sidecar=other)
        refused.append(caught.value)

    protect_folder(src, None, key, progress=again)
    assert len(refused) == 1
    assert small_is_protected(src, key)
    with untouched(tmp_path):
        assert verify_folder(src, key).ok
    restore_folder(src, key)
    assert contents(src) == before
