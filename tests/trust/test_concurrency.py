"""Processes, threads and forks that want the same data at once: one of them wins, and nothing is harmed."""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from audiofiles import end_of_child, in_child, start_child
from crash_states import put
from kills import beginnings, problem_after
from ledger import Ledger
from stages import KEY, SCENES, Scene, place, small_batches

from poscuda_fast import BusyError, PoscudaError, drop_undo

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

VERBS: dict[str, Callable[[Scene], object]] = {
    "protect": lambda scene: scene.protect(),
    "restore": lambda scene: scene.restore(),
    "drop_undo": lambda scene: drop_undo(scene.path, KEY).state,
    "protect with another sidecar": lambda scene: scene.protect(sidecar=scene.root / "another"),
}
ALLOWED = {
    "protected", "already protected", "restored", "already original", "final", "verified", "BusyError", "SidecarError",
}  # fmt: skip
QUICK = ["RawArray", "WavFolder"]


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with small_batches(), tempfile.TemporaryDirectory(dir=place()) as folder:
        yield SCENES[request.param](Path(folder))


scenes = pytest.mark.parametrize("scene", QUICK, indirect=True)


class Pause:
    """A progress callback that says that a run is in the middle, and holds it there."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __call__(self, done: int, total: int) -> None:
        self.reached.set()
        assert self.go_on.wait(60)


def refused(scene: Scene) -> None:
    for verb in VERBS.values():
        with pytest.raises(BusyError, match="in use"):
            verb(scene)
    assert not (scene.root / "another").exists()


@pytest.mark.guards("I12")
@scenes
def test_of_two_threads_one_wins(scene: Scene, ledger: Ledger) -> None:
    pause = Pause()
    states: list[str] = []
    thread = threading.Thread(target=lambda: states.append(scene.protect(progress=pause)))
    thread.start()
    try:
        assert pause.reached.wait(60)
        refused(scene)
    finally:
        pause.go_on.set()
        thread.join()
    ledger.count("races", tried=1, wrong=states != ["protected"], how="threads")
    assert states == ["protected"]
    assert scene.wrong_after("protect") is None


@scenes
def test_many_threads_protect_once(scene: Scene, ledger: Ledger) -> None:
    barrier = threading.Barrier(8, timeout=20)
    outcomes: list[str] = []

    def work() -> None:
        barrier.wait()
        try:
            outcomes.append(scene.protect())
        except BusyError:
            outcomes.append("busy")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    right = outcomes.count("protected") == 1 and set(outcomes) <= {"protected", "already protected", "busy"}
    ledger.count("races", tried=1, wrong=not right, how="threads")
    assert len(outcomes) == 8
    assert right, outcomes
    assert scene.wrong_after("protect") is None


@pytest.mark.guards("I12")
@scenes
def test_a_forked_child_is_refused_while_its_parent_is_at_work(scene: Scene, ledger: Ledger) -> None:
    ended = []

    def fork(done: int, total: int) -> None:
        if not ended:
            ended.append(in_child(lambda: refused(scene), beside_threads=True))

    scene.protect(progress=fork)
    ledger.count("races", tried=1, wrong=ended != [0], how="forks")
    assert ended == [0]
    assert scene.wrong_after("protect") is None


@pytest.mark.guards("I12")
@scenes
@pytest.mark.parametrize("how", ["a link", "a folder's link"])
def test_another_name_is_the_same_data(scene: Scene, ledger: Ledger, how: str) -> None:
    other = type(scene).of(scene.root, scene.original, scene.protected)
    if how == "a link":
        other.path = scene.root / "linked"
        other.path.symlink_to(scene.path)
    else:
        (scene.root / "above").symlink_to(scene.root)
        other.path = scene.root / "above" / scene.data
    busy = []

    def refuse(done: int, total: int) -> None:
        with pytest.raises(BusyError, match="in use"):
            other.protect()
        busy.append(True)

    scene.protect(progress=refuse)
    ledger.count("races", tried=1, wrong=not busy, how="two names")
    assert busy
    assert scene.wrong_after("protect") is None


@pytest.mark.parametrize("scene", ["WavFolder"], indirect=True)
def test_a_folder_and_what_lies_in_it_are_not_worked_on_at_once(scene: Scene, ledger: Ledger) -> None:
    from poscuda_fast import protect_folder

    inner = scene.path / "yes"
    busy = []

    def refuse(done: int, total: int) -> None:
        with pytest.raises(BusyError, match="in use"):
            protect_folder(inner, None, KEY, labels_from={"a.wav": "yes", "long.wav": "yes"})
        busy.append(True)

    scene.protect(progress=refuse)
    ledger.count("races", tried=1, wrong=not busy, how="a folder and one in it")
    assert busy


@pytest.mark.guards("I12")
@scenes
def test_the_lock_of_a_killed_process_is_free_at_once(scene: Scene, ledger: Ledger) -> None:
    def die(done: int, total: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(lambda: scene.protect(progress=die)) == -signal.SIGKILL
    assert problem_after(scene) is None
    ledger.count("races", tried=1, wrong=0, how="a killed process")


def race(scene: Scene, verbs: list[str], delays: list[float]) -> list[str]:
    """Start a process for each verb, each after its delay; how each ended: its state, or the name of its error."""
    readable, writable = os.pipe()
    children = []
    for number, (verb, delay) in enumerate(zip(verbs, delays, strict=True)):

        def work(number: int = number, verb: str = verb, delay: float = delay) -> None:
            time.sleep(delay)
            try:
                if verb == "verify":
                    scene.verify()
                said = "verified" if verb == "verify" else str(VERBS[verb](scene))
            except (PoscudaError, OSError) as error:
                said = type(error).__name__
            os.write(writable, f"{number} {said}\n".encode())

        children.append(start_child(work))
    os.close(writable)
    assert [end_of_child(child) for child in children] == [0] * len(children)
    with open(readable, encoding="utf-8") as pipe:
        said = dict(line.rstrip("\n").split(" ", 1) for line in pipe)
    return [said[str(number)] for number in range(len(verbs))]


@pytest.mark.guards("I12")
@pytest.mark.parametrize("n", [6, pytest.param(150, marks=pytest.mark.trust)])
@scenes
def test_whatever_races_nothing_is_harmed(scene: Scene, ledger: Ledger, n: int) -> None:
    seed = secrets.randbits(32)
    rng = np.random.default_rng(seed)
    known = beginnings(scene)
    for number in range(n):
        begin = ("original", "protected", "half protected", "half restored")[number % 4]
        put(scene.root, known[begin])
        verbs = list(rng.choice(["protect", "restore", "verify", "drop_undo"], rng.integers(2, 5)))
        said = race(scene, verbs, rng.uniform(0, 0.004, len(verbs)).tolist())
        about = f"seed {seed}, race {number} of {begin} data: {list(zip(verbs, said, strict=True))}"
        # What the last one left must still be known: protecting says so, and does it if it is not done.
        right = set(said) <= ALLOWED | {"DatasetError"} and set(said) != {"BusyError"}
        right = right and scene.protect() in ("protected", "already protected")
        right = right and scene.wrong_after("protect") is None
        ledger.count("races", tried=1, wrong=not right, how="processes")
        assert right, about
