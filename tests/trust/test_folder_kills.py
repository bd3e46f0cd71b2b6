"""A folder's run killed before or after any of its steps, or stopped by an error, is finished by the same call."""

from __future__ import annotations

import errno
import functools
import os
import signal
from typing import Any

import audiofiles
import pytest
from audiofiles import contents, in_child, write_tree
from folder_trial import STEPS, Trial, is_sound, kills
from recipes import protect_folder

from poscuda_fast import DatasetError, disk, verify_folder
from poscuda_fast.files import target as files
from poscuda_fast.undo import steps
from poscuda_fast.undo.journal import Journal

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
    pytest.mark.usefixtures("small_folder_batches"),
]

both_ways = pytest.mark.parametrize("copying", [True, False], ids=["copy", "in place"])


@both_ways
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_at_any_step_it_is_finished_by_the_same_call(folder, key, finished, copying, threads):
    before, after = finished
    trial = Trial(folder, key, before, copying=copying, threads=threads)
    points = 0
    for points in kills(trial.protect):
        assert is_sound(trial.root, before, after, copying=copying), f"kill point {points}"
        assert trial.protect() in ("protected", "already protected")
        assert contents(trial.root) == after, f"kill point {points}"
        names = set(contents(trial.root, hidden=True))
        assert names - {".poscuda-journal"} == {*after, ".poscuda"}, f"kill point {points}"  # SQLite's may be empty
        assert verify_folder(trial.root, key).ok
        assert not copying or contents(trial.src) == before
        trial.begin(points)
    assert points >= 40


@pytest.mark.slow
@both_ways
def test_killed_at_any_step_it_can_be_restored(folder, key, finished, copying):
    before, _ = finished
    trial = Trial(folder, key, before, copying=copying)
    for n in kills(trial.protect):
        trial.restore()
        found = trial.found()
        assert found == {name: before[name] for name in found}, f"kill point {n}"
        assert copying or set(found) == set(before)
        trial.begin(n)


@pytest.mark.slow
@both_ways
def test_the_kills_catch_a_store_before_its_commit(folder, key, finished, copying):
    from array_worker import store_before_commit

    def broken() -> None:
        steps.apply = store_before_commit

    before, after = finished
    trial = Trial(folder, key, before, copying=copying)
    wrong = 0
    for n in kills(trial.protect, broken):
        if copying:  # a protected file that the journal does not know cannot be restored
            trial.restore()
            wrong += any(content != before[name] for name, content in trial.found().items())
        else:
            trial.protect()
            wrong += contents(trial.root) != after
        trial.begin(n)
    assert wrong > 0


@both_ways
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[1])
def test_an_error_at_any_step_is_raised_and_leaves_no_parts(folder, key, finished, monkeypatch, step, copying):
    before, after = finished
    owner, name = step
    method = getattr(owner, name)
    for n in range(1, 100):
        trial = Trial(folder / str(n), key, before, copying=copying, threads=2)
        seen: list[None] = []

        def fail(*args: Any, seen: list[None] = seen, n: int = n, **options: Any) -> Any:
            seen.append(None)
            if len(seen) == n:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return method(*args, **options)

        with monkeypatch.context() as patching:
            patching.setattr(owner, name, fail)
            try:
                trial.protect()
            except OSError as error:
                raised = error.errno
            else:
                assert len(seen) < n  # it has no n-th time
                break
        assert raised == errno.ENOSPC
        assert list(trial.root.rglob(".*.poscuda-part")) == []
        assert is_sound(trial.root, before, after, copying=copying)
        assert trial.protect() in ("protected", "already protected")
        assert contents(trial.root) == after


@pytest.mark.parametrize("limit", [600, 1000, 1240, 16_000])
def test_a_disk_that_is_full_in_the_middle_of_a_copy(tmp_path, key, finished, limit):
    resource = pytest.importorskip("resource")
    before, after = finished
    write_tree(tmp_path / "src", before)

    def run() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        begin = Journal.begin

        def begin_then_limit(*args: Any) -> None:
            begin(*args)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        Journal.begin = begin_then_limit
        with pytest.raises(OSError, match=r"File too large|cannot be read or written"):
            protect_folder(tmp_path / "src", tmp_path / "dst", key)

    assert in_child(run) == 0
    found = contents(tmp_path / "dst", hidden=True)
    assert [name for name in found if name.endswith("-part")] == []
    assert is_sound(tmp_path / "dst", before, after, copying=True)
    assert protect_folder(tmp_path / "src", tmp_path / "dst", key).state == "protected"
    assert contents(tmp_path / "dst") == after


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("name", ["no/large.wav", "yes/1.wav", "yes/3.wav", "yes/5.flac"])
def test_a_source_that_changes_after_it_was_read_ahead_is_refused(tmp_path, key, finished, threads, name):
    before, after = finished
    src, dst = tmp_path / "src", tmp_path / "dst"
    write_tree(src, before)

    def progress(done: int, total: int) -> None:
        if done == 1:
            os.utime(src / name, ns=(7, 7))

    with pytest.raises(DatasetError, match=f"{name} was replaced or changed since this run began"):
        protect_folder(src, dst, key, threads=threads, progress=progress)
    assert not (dst / name).exists()
    assert list(dst.rglob(".*.poscuda-part")) == []
    assert protect_folder(src, dst, key).state == "protected"
    assert contents(dst) == after


@both_ways
def test_what_a_killed_run_left_under_a_hidden_name_is_replaced(tmp_path, key, finished, copying):
    before, after = finished
    src = tmp_path / "src"
    write_tree(src, before)
    root = tmp_path / "dst" if copying else src
    call = functools.partial(protect_folder, src, root if copying else None, key)
    assert in_child(lambda: call(progress=audiofiles.killer(1))) == -signal.SIGKILL
    (tmp_path / "precious").write_bytes(b"precious")
    for name in ("yes/1.wav", "yes/5.flac", "no/large.wav"):
        part = root / disk.part_name(name)
        part.parent.mkdir(exist_ok=True)
        part.unlink(missing_ok=True)
        part.symlink_to(tmp_path / "precious")
    call()
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert contents(root) == after
    if copying:
        assert set(contents(root, hidden=True)) == {*after, ".poscuda"}


@both_ways
def test_a_file_that_changes_after_a_resumed_run_has_looked_at_it_is_refused(
    folder, key, finished, monkeypatch, copying
):
    before, after = finished
    trial = Trial(folder, key, before, copying=copying)
    dst = trial.root if copying else None
    assert in_child(lambda: protect_folder(trial.src, dst, key, progress=audiofiles.killer(1))) == -signal.SIGKILL
    victim = trial.src / "no/0.wav"
    content = bytearray(victim.read_bytes())
    content[28] ^= 1  # the header's byte rate, which nobody looks at
    victim.write_bytes(content)
    with monkeypatch.context() as patching:
        patching.setattr(files.FileTarget, "recheck", lambda *_: [])
        with pytest.raises(DatasetError, match=r"no/0\.wav was changed since this run began"):
            trial.protect()
    content[28] ^= 1  # the header's byte rate, which nobody looks at
    victim.write_bytes(content)
    assert trial.protect() == "protected"
    assert contents(trial.root) == after
