"""Killed, interrupted or failing anywhere, the next call finishes the job and nothing is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes import protect, protect_memmap

import poscuda_fast
from poscuda_fast import Key, Recipe, SidecarError, inplace, memmap, memory, restore_memmap, verify_memmap
from poscuda_fast.arrays import ArrayClips
from poscuda_fast.journal import Journal

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a worker forks the processes that are killed")

SMALL = Recipe.paper(patch=40, taps=8, blur=0.3)
SMALL_BATCH = 3 * 40 * 2  # three patches of int16
SECTOR = 512


class Worker:
    """The resident process of crash_worker.py."""

    def __init__(self) -> None:
        package = Path(poscuda_fast.__file__).parents[1]
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("crash_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(package)},
        )
        self._answer()

    def run(self, path: Path, verb: str, recipe: Recipe = SMALL, **request: Any) -> dict[str, Any]:
        """How a verb on an array ended, in a process of its own: {"state"}, {"error"} or {"signal"} and more."""
        request = {"batch_bytes": SMALL_BATCH, **request, "path": str(path), "verb": verb}
        request["recipe"] = recipe.to_dict()
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        reply = self._answer()
        assert reply["signal"] or "state" in reply or "error" in reply or reply["untraceable"], "the child failed"
        return reply

    def close(self) -> None:
        with self._process:
            self._process.stdin.close()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        assert line, "the worker died"
        return json.loads(line)


class Data:
    """An array in a file, its original and its protected bytes."""

    def __init__(self, folder: Path, key: Key, samples: np.ndarray, labels: Any, recipe: Recipe = SMALL) -> None:
        self.path = folder / "clips.npy"
        self.key, self.labels, self.recipe = key, labels, recipe
        np.save(self.path, samples)
        self.original = self.path.read_bytes()
        wet = samples.copy()
        self.report = protect(wet, labels, key, recipe=recipe)
        self.protected = self.original[: -samples.nbytes] + wet.tobytes()
        assert self.protected != self.original

    @property
    def sidecar(self) -> Path:
        return self.path.with_name("clips.npy.poscuda")

    @property
    def hot(self) -> Path:
        """SQLite's rollback journal, which a killed process leaves behind."""
        return self.path.with_name("clips.npy.poscuda-journal")

    def reset(self, sidecar: bytes | None = None) -> None:
        """Back to the original, with no sidecar or a given one."""
        self.hot.unlink(missing_ok=True)
        self.sidecar.unlink(missing_ok=True)
        self.write(self.original)
        if sidecar is not None:
            self.sidecar.write_bytes(sidecar)

    def write(self, content: bytes) -> None:
        with open(self.path, "r+b") as file:
            file.write(content)

    def protect(self, **options: Any) -> str:
        arr = np.load(self.path, mmap_mode="r+")
        return protect_memmap(arr, self.labels, self.key, recipe=self.recipe, **options).state

    def restore(self) -> str:
        return restore_memmap(np.load(self.path, mmap_mode="r+"), self.key).state

    def is_right_after_protect(self) -> bool:
        """Whether protecting again finishes, and undo still brings the original back."""
        if self.protect() not in ("protected", "already protected") or self.path.read_bytes() != self.protected:
            return False
        return self.restore() == "restored" and self.path.read_bytes() == self.original

    def is_right_after_restore(self) -> bool:
        """Whether restoring again finishes, and the data can be protected once more."""
        if self.restore() not in ("restored", "already original") or self.path.read_bytes() != self.original:
            return False
        return self.protect() == "protected" and self.path.read_bytes() == self.protected

    @contextlib.contextmanager
    def same_again(self) -> Iterator[None]:
        """Run a block on the files as they are, then bring them back."""
        files = [file for file in (self.path, self.sidecar, self.hot) if file.exists()]
        kept = {file: file.read_bytes() for file in files}
        yield
        for file in (self.sidecar, self.hot):
            file.unlink(missing_ok=True)
        for file, content in kept.items():
            if file == self.path:
                self.write(content)
            else:
                file.write_bytes(content)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "BATCH_BYTES", SMALL_BATCH)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where many commits are made: in memory where that can be, as a kill leaves the page cache alone."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared) as name:
        yield Path(name)


@pytest.fixture
def data(folder: Path, key: Key) -> Data:
    """Eleven clips: four batches, the last one short."""
    samples = np.random.default_rng(11).integers(-20_000, 20_000, (11, 300), dtype=np.int16)
    return Data(folder, key, samples, np.arange(11) % 3)


def kill_points(run: Callable[[int], dict[str, Any]]) -> Iterator[int]:
    """Run with n = 1, 2, .. for as long as the run is killed."""
    for n in itertools.count(1):
        reply = run(n)
        if reply["untraceable"]:
            pytest.skip("this system does not let a process trace its child")
        if "state" in reply:
            return
        assert reply["signal"] == signal.SIGKILL, reply
        yield n


# Kills at the steps of the protocol


def test_a_protect_killed_at_any_step_is_finished_or_undone_by_the_next_call(worker: Worker, data: Data) -> None:
    data.reset()
    points = 0
    for n in kill_points(lambda n: worker.run(data.path, "protect", die_at=n)):
        points += 1
        with data.same_again():
            if data.sidecar.exists() and data.sidecar.stat().st_size:
                assert data.restore() == "restored", f"kill point {n}"
            else:
                with pytest.raises(SidecarError, match="no finished or begun run"):
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
    assert steps == [(3, 11), (6, 11), (9, 11), (11, 11)]


# Kills inside the steps


def test_killed_at_any_system_call_that_changes_a_file(worker: Worker, data: Data) -> None:
    points = 0
    for n in kill_points(lambda n: worker.run(data.path, "protect", die_at_call=n, batch_bytes=6 * 40 * 2)):
        points += 1
        memory.BATCH_BYTES = 6 * 40 * 2
        assert data.is_right_after_protect(), f"system call {n}"
        data.reset()
    assert points > 30  # the commits alone have as many


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


def test_killed_at_random_times(worker: Worker, folder: Path, key: Key) -> None:
    seed = time.time_ns() % 1_000_000
    rng = np.random.default_rng(seed)
    samples = np.random.default_rng(1).integers(-20_000, 20_000, (3_000, 1_600), dtype=np.int16)
    recipe = Recipe.paper(blur=0.3)
    data = Data(folder, key, samples, np.arange(3_000) % 3, recipe)
    batch = {"batch_bytes": 64 << 10, "hooks": False}
    memory.BATCH_BYTES = batch["batch_bytes"]
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
    memory.BATCH_BYTES = 32 << 10
    for recipe in (Recipe.paper(), Recipe.paper(every=4_000, blur=0.3), Recipe.strong(2.0, patch=240, every=4_000)):
        data = Data(tmp_path, key, samples, labels, recipe)
        request = {"labels": labels, "batch_bytes": memory.BATCH_BYTES}
        events = worker.run(data.path, "protect", recipe, **request)["events"]
        assert worker.run(data.path, "restore", recipe, **request, die_at=events // 2)["signal"] == signal.SIGKILL
        assert data.restore() == "restored"
        assert data.path.read_bytes() == data.original
        for die_at in (3, events // 3, events - 2):
            assert worker.run(data.path, "protect", recipe, **request, die_at=die_at)["signal"] == signal.SIGKILL
            assert data.is_right_after_protect()


# Broken orders of events: the harness has to notice


@pytest.mark.parametrize("broken", ["store before commit", "reread on resume"])
def test_the_harness_catches_a_broken_order(worker: Worker, data: Data, broken: str) -> None:
    def goes_wrong(n: int) -> bool:
        if broken == "reread on resume":
            assert "state" in worker.run(data.path, "protect", broken=broken)
        right = data.is_right_after_protect()
        data.reset()
        return not right

    assert any(map(goes_wrong, kill_points(lambda n: worker.run(data.path, "protect", die_at=n, broken=broken))))


# Power cuts


class Disk:
    """What may be on the disk at each moment of a run in this process.

    The sidecar is as SQLite last committed it; each sector of the data is any version since the last sync.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, data: Data, *, syncs: bool = True) -> None:
        self.moments: list[tuple[bytes | None, tuple[bytes, ...]]] = []
        self._data = data
        self._syncs = syncs
        self._versions: tuple[bytes, ...] = (data.path.read_bytes(),)
        self._sidecar = data.sidecar.read_bytes() if data.sidecar.exists() else None
        for owner, name in ((Journal, "begin"), (Journal, "append"), (Journal, "move")):
            self._after(monkeypatch, owner, name, self._committed)
        self._after(monkeypatch, ArrayClips, "write", self._stored)
        self._after(monkeypatch, memmap.MappedFile, "sync", self._synced)

    def states(self, rng: np.random.Generator) -> Iterator[tuple[bytes | None, bytes]]:
        """Sidecar and data for each moment: nothing of what was not synced, all of it, and three mixtures."""
        for sidecar, versions in dict.fromkeys(self.moments):
            padded = [np.frombuffer(v + bytes(-len(v) % SECTOR), np.uint8).reshape(-1, SECTOR) for v in versions]
            stack = np.stack(padded)
            sectors = np.arange(stack.shape[1])
            picks = [np.zeros_like(sectors), np.full_like(sectors, len(stack) - 1)]
            picks += [rng.integers(0, len(stack), len(sectors)) for _ in range(3)]
            for pick in picks:
                yield sidecar, stack[pick, sectors].tobytes()[: len(versions[0])]

    def _after(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, note: Callable[[], None]) -> None:
        method = getattr(owner, name)

        def noted(*args: Any, **options: Any) -> Any:
            result = method(*args, **options)
            note()
            self.moments.append((self._sidecar, self._versions))
            return result

        monkeypatch.setattr(owner, name, noted)

    def _committed(self) -> None:
        self._sidecar = self._data.sidecar.read_bytes()

    def _stored(self) -> None:
        self._versions = (*self._versions, self._data.path.read_bytes())

    def _synced(self) -> None:
        if self._syncs:
            self._versions = (self._data.path.read_bytes(),)


def wrong_after_power_cuts(disk: Disk, data: Data, is_right: Callable[[], bool]) -> tuple[int, int]:
    """(states tried, states from which the next call does not finish right)."""
    tried = wrong = 0
    for sidecar, content in disk.states(np.random.default_rng(5)):
        data.reset(sidecar)
        data.write(content)
        tried += 1
        wrong += not is_right()
    return tried, wrong


def test_after_a_power_cut_at_any_moment_protect_finishes(data: Data) -> None:
    with pytest.MonkeyPatch.context() as patching:
        disk = Disk(patching, data)
        data.protect()
    tried, wrong = wrong_after_power_cuts(disk, data, data.is_right_after_protect)
    assert wrong == 0
    assert tried > 30


def test_after_a_power_cut_at_any_moment_restore_finishes(data: Data) -> None:
    data.protect()
    with pytest.MonkeyPatch.context() as patching:
        disk = Disk(patching, data)
        data.restore()
    tried, wrong = wrong_after_power_cuts(disk, data, data.is_right_after_restore)
    assert wrong == 0
    assert tried > 20


def test_the_power_cuts_catch_a_missing_sync(data: Data) -> None:
    with pytest.MonkeyPatch.context() as patching:
        disk = Disk(patching, data, syncs=False)
        data.protect()
    assert wrong_after_power_cuts(disk, data, data.is_right_after_protect)[1] > 0


def test_the_power_cuts_catch_a_store_before_its_commit(data: Data) -> None:
    from crash_worker import store_before_commit

    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(inplace, "apply", store_before_commit)
        disk = Disk(patching, data)
        data.protect()
    assert wrong_after_power_cuts(disk, data, data.is_right_after_protect)[1] > 0


# Errors and Ctrl-C


@pytest.mark.parametrize("verb", ["protect", "restore"])
def test_a_failed_sync_is_raised_once_and_everything_is_stored_again(
    data: Data, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    before, after, state = data.original, data.protected, "applying"
    if verb == "restore":
        data.protect()
        before, after, state = data.protected, data.original, "undoing"
    call = getattr(data, verb)
    tries = []

    def fail(_: Any) -> None:
        tries.append(None)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patching:
        patching.setattr(memmap.MappedFile, "sync", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            call()
    assert len(tries) == 1
    assert verify_memmap(np.load(data.path, mmap_mode="r"), data.key).state == state
    data.write(before)  # after a failed sync the kernel may drop what was stored
    call()
    assert data.path.read_bytes() == after


@pytest.mark.parametrize(("name", "steps"), [("begin", 1), ("append", 4), ("move", 1)])
def test_an_error_in_any_commit_is_raised_and_the_next_call_finishes(
    data: Data, monkeypatch: pytest.MonkeyPatch, name: str, steps: int
) -> None:
    method = getattr(Journal, name)
    for n in range(1, steps + 2):
        seen = []

        def fail(*args: Any, seen: list[None] = seen, n: int = n) -> None:
            seen.append(None)
            if len(seen) == n:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            method(*args)

        data.reset()
        with monkeypatch.context() as patching:
            patching.setattr(Journal, name, fail)
            if n > steps:
                assert data.protect() == "protected"
                break
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                data.protect()
        assert len(seen) == n  # nothing is tried again
        assert data.is_right_after_protect()


def limits(worker: Worker, data: Data, *, kills: bool) -> Iterator[dict[str, Any]]:
    """Run with files limited to more and more bytes, for as long as that stops the run."""
    for limit in itertools.count(0, 1024):
        data.reset()
        reply = worker.run(data.path, "protect", file_limit=limit, limit_kills=kills)
        if "state" in reply:
            assert limit > 4096
            return
        assert data.path.stat().st_size == len(data.original)
        yield reply
        assert data.is_right_after_protect(), f"limit {limit}"


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system does not limit the size of files")
def test_killed_in_the_middle_of_any_write_to_the_sidecar(worker: Worker, data: Data) -> None:
    for reply in limits(worker, data, kills=True):
        assert reply["signal"] == signal.SIGXFSZ


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system does not limit the size of files")
def test_a_sidecar_that_cannot_grow_is_an_os_error_and_the_next_call_finishes(worker: Worker, data: Data) -> None:
    replies = list(limits(worker, data, kills=False))
    assert [reply["message"] for reply in replies if "OSError" not in reply["error"]] == []
    assert all("clips.npy.poscuda" in reply["message"] for reply in replies)


def test_ctrl_c_at_every_line_of_the_drivers_leaves_a_run_that_the_same_process_can_finish(
    worker: Worker, data: Data
) -> None:
    one_batch = {"batch_bytes": 1 << 20}
    memory.BATCH_BYTES = one_batch["batch_bytes"]
    lines = worker.run(data.path, "protect", interrupt_line=-1, **one_batch)["lines"]
    first_times = [lines.index(line) + 1 for line in set(lines)]
    last_times = [len(lines) - lines[::-1].index(line) for line in set(lines)]
    assert len(first_times) > 80
    stuck = []
    for n in sorted({*first_times, *last_times}):
        data.reset()
        reply = worker.run(data.path, "protect", interrupt_line=n, **one_batch)
        if "error" in reply:
            stuck.append((reply["lines"][-1], reply["message"]))
            assert data.protect() in ("protected", "already protected"), f"line {n}"
        assert data.path.read_bytes() == data.protected, f"line {n}"
    assert stuck == []


def test_an_error_in_the_progress_callback_stops_a_run_that_can_be_finished(data: Data) -> None:
    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.protect(progress=stop)
    assert data.path.read_bytes() not in (data.original, data.protected)
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
