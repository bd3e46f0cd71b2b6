"""Faults: forks in the middle of a run, threads that cannot be started, and two names or two runs at once."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from audiofiles import contents, noise, wav, write_tree
from folders import needs_fork

from poscuda_fast import BusyError, DatasetError, Key, protect_array, protect_folder, restore_folder, verify_folder
from poscuda_fast.disk import Threads, Workers, locked
from poscuda_fast.kernels import Engine

FILES = {f"{label}/{n}.wav": wav(noise(3000, seed=n)) for n in range(40) for label in ("yes", "no")}


@pytest.fixture
def src(tmp_path: Path) -> Path:
    write_tree(tmp_path / "src", FILES)
    return tmp_path / "src"


@needs_fork
@pytest.mark.parametrize("verb", ["protect", "copy", "restore"])
def test_after_a_fork_only_the_first_process_goes_on(
    tmp_path: Path, src: Path, key: Key, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from poscuda_fast.files import target

    monkeypatch.setattr(target, "PIECES_PER_BATCH", 10)
    if verb == "restore":
        protect_folder(src, None, key)
    children: list[int] = []
    me = os.getpid()

    def progress(done: int, total: int) -> None:
        if not children and 2 * done > total:
            children.append(os.fork())

    code = 3
    try:
        if verb == "restore":
            restore_folder(src, key, progress=progress)
        else:
            protect_folder(src, tmp_path / "dst" if verb == "copy" else None, key, threads=2, progress=progress)
        code = 1
    except BusyError as error:
        code = 0 if "forked" in str(error) else 2
    finally:
        if os.getpid() != me:
            os._exit(code)
    assert code == 1
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    found = verify_folder(tmp_path / "dst" if verb == "copy" else src, key)
    assert found.ok
    assert (found.original if verb == "restore" else found.protected) == len(FILES)


def refuse_threads(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    start, count = threading.Thread.start, iter(range(1 << 20))

    def limited(thread: threading.Thread) -> None:
        if next(count) >= after:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_each_piece_is_worked_on_once_with_however_few_threads(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    refuse_threads(monkeypatch, after)
    seen: list[int] = []

    def work(n: int) -> int:
        seen.append(n)
        return n * n

    with Workers(4) as workers:
        assert list(workers.map(work, range(50))) == [n * n for n in range(50)]
    assert sorted(seen) == list(range(50))
    with Threads(2) as threads, pytest.raises(OSError, match="told"):
        threads.submit(lambda: os.fsync(-1) if False else raising())()


def raising() -> None:
    raise OSError("told")


@pytest.mark.parametrize("after", [0, 1])
def test_kernels_need_no_threads(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    samples = np.random.default_rng(0).normal(0, 900, 4000).astype(np.int16)
    starts, sizes = np.arange(0, 4000, 8), np.full(500, 8)
    expected = Engine("auto", 1).survey_patches(samples, starts, sizes, 1)
    refuse_threads(monkeypatch, after)
    assert Engine("auto", 4).survey_patches(samples, starts, sizes, 1).tobytes() == expected.tobytes()


@pytest.mark.parametrize("way", ["in place", "copy"])
def test_a_run_needs_no_threads(tmp_path: Path, src: Path, key: Key, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    refuse_threads(monkeypatch, 0)
    target = src if way == "in place" else tmp_path / "dst"
    protect_folder(src, None if way == "in place" else target, key, threads=4)
    assert verify_folder(target, key).protected == len(FILES)


def test_two_names_of_an_array_are_refused_and_have_one_lock(tmp_path: Path, key: Key) -> None:
    one, other = tmp_path / "a.npy", tmp_path / "b.npy"
    np.save(one, np.random.default_rng(0).normal(0, 900, (8, 4000)).astype(np.int16))
    os.link(one, other)
    before = contents(tmp_path)
    for path in (one, other):
        with pytest.raises(DatasetError, match="2 names"):
            protect_array(path, [0, 1] * 4, key)
    with locked(one), pytest.raises(BusyError), locked(other):
        pass
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("first", "second"), [("src", "src/yes"), ("src/yes", "src"), ("src", "src/yes/0.wav")])
def test_a_folder_and_what_lies_in_it_are_not_edited_at_once(
    tmp_path: Path, src: Path, key: Key, first: str, second: str
) -> None:
    del src
    failed: list[BaseException] = []

    def other() -> None:
        try:
            protect_folder(tmp_path / second, None, key, labels_from="regex:(.)")
        except BusyError as error:
            failed.append(error)

    with locked(tmp_path / first):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert failed
    assert contents(tmp_path / "src") == FILES
