"""Killed anywhere, the next call finishes the job and nothing is lost."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_trial import SMALL, Data, Worker, kill_points
from recipes import protect_memmap

from poscuda_fast import Key, Recipe, SidecarError, restore_memmap, verify_memmap
from poscuda_fast.mark import plan

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="a worker forks the processes that are killed"),
    pytest.mark.usefixtures("small_batches"),
]


# Kills at the steps of the protocol


@pytest.mark.guards("I1", "I7")
def test_a_protect_killed_at_any_step_is_finished_or_undone_by_the_next_call(worker: Worker, data: Data) -> None:
    data.reset()
    points = 0
    for n in kill_points(lambda n: worker.run(data.path, "protect", die_at=n)):
        points += 1
        with data.same_again():
            if data.sidecar.exists() and data.sidecar.stat().st_size:
                assert data.restore() == "restored", f"kill point {n}"
            else:
                with pytest.raises(SidecarError, match="nothing can be restored"):
                    data.restore()
            assert data.path.read_bytes() == data.original, f"kill point {n}"
        assert data.is_right_after_protect(), f"kill point {n}"
        data.reset()
    assert points == 2 + 4 * (2 + 4) + 2 + 2  # begin; append and torn store of four batches; sync; the last state


def test_a_restore_killed_at_any_step_is_finished_by_the_next_call(worker: Worker, data: Data) -> None:
    assert data.protect() == "protected"
    sidecar = data.sidecar.read_bytes()
    points = 0
    for n in kill_points(lambda n: worker.run(data.path, "restore", die_at=n)):
        points += 1
        assert data.is_right_after_restore(), f"kill point {n}"
        data.reset(sidecar)
        data.write(data.protected)
    assert points == 2 + 4 * 4 + 2 + 2


@pytest.mark.slow
@pytest.mark.guards("I3")
def test_killed_while_protecting_after_an_undo_no_original_of_the_old_run_comes_back(
    worker: Worker, data: Data
) -> None:
    other = Recipe.paper(patch=20, taps=5, blur=0.5, patches=4)
    arr = np.load(data.path, mmap_mode="r+")
    protect_memmap(arr, (np.arange(11) + 1) % 5, data.key, recipe=other)
    restore_memmap(arr, data.key)
    undone = data.sidecar.read_bytes()
    for n in kill_points(lambda n: worker.run(data.path, "protect", die_at=n)):
        with data.same_again():
            assert data.restore() in ("restored", "already original"), f"kill point {n}"
            assert data.path.read_bytes() == data.original, f"kill point {n}"
        assert data.is_right_after_protect(), f"kill point {n}"
        data.reset(undone)


@pytest.mark.slow
@pytest.mark.parametrize("first", [6, 18])
def test_a_resumed_protect_may_be_killed_again(worker: Worker, data: Data, first: int) -> None:
    def killed_twice(n: int) -> dict[str, Any]:
        data.reset()
        assert worker.run(data.path, "protect", die_at=first)["signal"] == signal.SIGKILL
        return worker.run(data.path, "protect", die_at=n)

    for n in kill_points(killed_twice):
        assert data.is_right_after_protect(), f"kill points {first}, {n}"


@pytest.mark.parametrize("first", [9])
def test_the_undo_of_an_interrupted_protect_may_be_killed_too(worker: Worker, data: Data, first: int) -> None:
    def killed_twice(n: int) -> dict[str, Any]:
        data.reset()
        assert worker.run(data.path, "protect", die_at=first)["signal"] == signal.SIGKILL
        return worker.run(data.path, "restore", die_at=n)

    for n in kill_points(killed_twice):
        assert data.is_right_after_restore(), f"kill points {first}, {n}"


def test_a_protect_is_refused_in_the_middle_of_an_undo(worker: Worker, data: Data) -> None:
    data.protect()
    assert worker.run(data.path, "restore", die_at=6)["signal"] == signal.SIGKILL
    torn = data.path.read_bytes()
    with pytest.raises(SidecarError, match=r"undo recorded in .* was interrupted; run restore again"):
        data.protect()
    assert data.path.read_bytes() == torn
    assert verify_memmap(np.load(data.path, mmap_mode="r"), data.key).state == "undoing"
    assert data.is_right_after_restore()


def test_a_resumed_run_reports_what_an_uninterrupted_one_does(worker: Worker, data: Data) -> None:
    assert worker.run(data.path, "protect", die_at=11)["signal"] == signal.SIGKILL
    steps = []
    arr = np.load(data.path, mmap_mode="r+")
    report = protect_memmap(
        arr, data.labels, data.key, recipe=SMALL, progress=lambda done, total: steps.append((done, total))
    )
    assert dataclasses.replace(report, seconds=data.report.seconds) == data.report
    assert steps == [(120, 440), (240, 440), (360, 440), (440, 440)]


# Kills inside the steps


@pytest.mark.slow
def test_killed_at_any_system_call_that_changes_a_file(worker: Worker, data: Data) -> None:
    points = 0
    for n in kill_points(lambda n: worker.run(data.path, "protect", die_at_call=n, batch_bytes=6 * 40 * 2)):
        points += 1
        plan.BATCH_BYTES = 6 * 40 * 2
        assert data.is_right_after_protect(), f"system call {n}"
        data.reset()
    assert points > 30  # the commits alone have as many


@pytest.mark.slow
def test_an_undo_killed_at_any_system_call_that_changes_a_file(worker: Worker, data: Data) -> None:
    data.protect()
    sidecar = data.sidecar.read_bytes()
    points = 0
    for n in kill_points(lambda n: worker.run(data.path, "restore", die_at_call=n)):
        points += 1
        assert data.is_right_after_restore(), f"system call {n}"
        data.reset(sidecar)
        data.write(data.protected)
    assert points > 15


@pytest.mark.slow
def test_killed_at_random_times(worker: Worker, folder: Path, key: Key) -> None:
    seed = time.time_ns() % 1_000_000
    rng = np.random.default_rng(seed)
    samples = np.random.default_rng(1).integers(-20_000, 20_000, (3_000, 1_600), dtype=np.int16)
    recipe = Recipe.paper(blur=0.3)
    data = Data(folder, key, samples, np.arange(3_000) % 3, recipe)
    batch = {"batch_bytes": 64 << 10, "hooks": False}
    plan.BATCH_BYTES = batch["batch_bytes"]
    times = {verb: worker.run(data.path, verb, recipe, **batch)["seconds"] for verb in ("protect", "restore")}
    kills = 0
    while kills < 50:
        for verb, wanted in (("protect", data.protected), ("restore", data.original)):
            for _ in range(rng.integers(1, 4)):
                delay = float(rng.uniform(0, times[verb]))
                reply = worker.run(data.path, verb, recipe, die_after=delay, **batch)
                kills += reply["signal"] == signal.SIGKILL
            state = data.protect() if verb == "protect" else data.restore()
            about = f"seed {seed}, kill {kills}, {verb}, state {state}"
            assert data.path.read_bytes() == wanted, about
            assert not data.hot.exists() or data.hot.stat().st_size == 0, about


@pytest.mark.slow
@pytest.mark.real
def test_real_speech_survives_a_kill(worker: Worker, speech_commands: Path, tmp_path: Path, key: Key) -> None:
    import soundfile

    recordings = [file for file in sorted(speech_commands.glob("*/*")) if file.suffix in (".flac", ".wav")]
    recordings = recordings[:: max(1, len(recordings) // 500)][:500]
    samples = np.zeros((len(recordings), 16_000), np.int16)
    for clip, recording in zip(samples, recordings, strict=True):
        frames, _ = soundfile.read(recording, dtype="int16")
        clip[: len(frames)] = frames[:16_000]
    words = sorted({recording.parent.name for recording in recordings})
    labels = [words.index(recording.parent.name) for recording in recordings]
    plan.BATCH_BYTES = 32 << 10
    for recipe in (Recipe.paper(), Recipe.paper(every=4_000, blur=0.3), Recipe.strong()):
        data = Data(tmp_path, key, samples, labels, recipe)
        request = {"labels": labels, "batch_bytes": plan.BATCH_BYTES}
        points = worker.run(data.path, "protect", recipe, **request)["points"]
        assert worker.run(data.path, "restore", recipe, **request, die_at=len(points) // 2)["signal"] == signal.SIGKILL
        assert data.restore() == "restored"
        assert data.path.read_bytes() == data.original
        for die_at in (3, len(points) // 3, len(points) - 2):
            assert worker.run(data.path, "protect", recipe, **request, die_at=die_at)["signal"] == signal.SIGKILL
            assert data.is_right_after_protect()


def test_a_sidecar_and_its_rollback_journal_may_be_moved_together_after_a_kill(
    worker: Worker, data: Data, tmp_path: Path
) -> None:
    assert worker.run(data.path, "protect", die_at=11)["signal"] == signal.SIGKILL
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for file in (data.path, data.sidecar, data.hot):
        if file.exists():
            shutil.move(file, folder)
    data.path = folder / "clips.npy"
    assert data.is_right_after_protect()


def test_a_run_may_be_resumed_with_its_classes_in_another_order(folder: Path, key: Key) -> None:
    samples = np.random.default_rng(12).integers(-20_000, 20_000, (8, 300), dtype=np.int16)
    names = ["no", "yes", "bed"]
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1])
    data = Data(folder, key, samples, [names[label] for label in labels])
    arr = np.load(data.path, mmap_mode="r+")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        protect_memmap(arr, labels, key, recipe=SMALL, classes=names, progress=stop)
    order = [2, 0, 1]
    again = protect_memmap(arr, np.argsort(order)[labels], key, recipe=SMALL, classes=[names[label] for label in order])
    assert again.state == "protected"
    assert data.path.read_bytes() == data.protected
