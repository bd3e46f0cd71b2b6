"""An evaluation that was stopped goes on with what is trained already, and never with what was trained otherwise."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from poscuda_fast import DatasetError, Key, Recipe
from poscuda_fast.evaluation import pace, sources, study
from poscuda_fast.evaluation.threads import one_thread

COMMAND = (sys.executable, "-W", "error", "-c", "from poscuda_fast.cli import main; main()")
SAME = ("models", "attacks", "verdict", "quality", "labels", "epochs")


@pytest.fixture
def place(tmp_path: Path, key: Key) -> Path:
    """An array of two classes, and its key."""
    make_array(tmp_path, 1)
    key.save(tmp_path / "my.key")
    return tmp_path


def make_array(folder: Path, seed: int) -> None:
    np.save(folder / "clips.npy", np.random.default_rng(seed).integers(-900, 900, (20, 9000)).astype(np.int16))
    np.save(folder / "labels.npy", np.arange(20) % 2)


def evaluated(place: Path, key: Key, **given: Any) -> tuple[dict[str, Any], list[str]]:
    """The result of an evaluation, and what it told of trainings."""
    options = {name: given.pop(name) for name in ("recipe", "sample_rate") if name in given}
    source = sources.Array(place / "clips.npy", key, place / "labels.npy", **{"sample_rate": 8000, **options})
    told: list[str] = []
    usual = {"epochs": 2, "models": ("cnn",), "attacks": False, "finished": place / "found.part.json"}
    found = study.evaluate(source, key, tell=told.append, **{**usual, **given})
    return found, [line for line in told if re.search(r"\d of \d", line) and not line.startswith("Decoding")]


def stopping_at(step: tuple[int, int]) -> Any:
    def stop(*now: int) -> None:
        if now == step:
            raise KeyboardInterrupt

    return stop


def test_what_is_trained_is_taken_and_the_result_is_the_same(place: Path, key: Key) -> None:
    whole, _ = evaluated(place, key, finished=None)
    with pytest.raises(KeyboardInterrupt):
        evaluated(place, key, progress=stopping_at((3, 6)))  # in the second training
    found, told = evaluated(place, key)
    assert told[0] == f"Already trained, taken from {place / 'found.part.json'}: 1 of 3."
    assert [line.split("  ")[0] for line in told[1:]] == ["2 of 3", "3 of 3"]
    assert {name: found[name] for name in SAME} == {name: whole[name] for name in SAME}
    again, told = evaluated(place, key)
    assert told == [f"Already trained, taken from {place / 'found.part.json'}: 3 of 3."]
    assert {name: again[name] for name in SAME} == {name: whole[name] for name in SAME}


@pytest.mark.parametrize(
    "other",
    [
        {"epochs": 1}, {"models": ("lstm",)}, {"seconds": 1.01}, {"n_clips": 12}, {"recipe": Recipe.strong(2)},
        {"sample_rate": 8001}, {"clips": 2}, {"labels": 2}, {"key": 2}, {"code": 2},
    ],
    ids=str,
)  # fmt: skip
def test_nothing_is_taken_that_was_trained_otherwise(
    place: Path, key: Key, other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated(place, key, epochs=2)
    before = (place / "found.part.json").read_text()
    if "clips" in other:
        make_array(place, other.pop("clips"))
    if "labels" in other:
        np.save(place / "labels.npy", np.arange(20) // 2 % other.pop("labels"))
    if "code" in other:
        other.pop("code")
        monkeypatch.setattr("poscuda_fast.evaluation.finished._code", lambda: "of another version")
    its_key = Key(bytes(32)) if other.pop("key", None) else key
    _, told = evaluated(place, its_key, **other)
    assert [line.split("  ")[0] for line in told] == ["1 of 3", "2 of 3", "3 of 3"]
    stored = json.loads((place / "found.part.json").read_text())["trainings"]
    assert len(stored) == 6
    assert json.loads(before)["trainings"].items() < stored.items()


def test_seeds_and_attacks_are_trainings_of_their_own(place: Path, key: Key) -> None:
    evaluated(place, key, epochs=1)
    _, told = evaluated(place, key, epochs=1, seeds=2, attacks=True)
    assert told[0].endswith(": 3 of 7.")
    assert [line.split("  ")[0] for line in told[1:]] == ["4 of 7", "5 of 7", "6 of 7", "7 of 7"]


def test_the_file_holds_accuracies_and_no_secrets(place: Path, key: Key) -> None:
    evaluated(place, key)
    content = json.loads((place / "found.part.json").read_text())
    assert set(content) == {"kind", "version", "trainings"}
    for name, one in content["trainings"].items():
        assert len(bytes.fromhex(name)) == 32
        assert set(one) == {"model", "kind", "seed", "epochs", "history", "seconds"}
        for epoch in one["history"]:
            assert set(epoch) <= {"epoch", "loss", "train", "clean", "keyed", "miskeyed"}
            assert all(isinstance(value, float) for value in epoch.values())
    text = (place / "found.part.json").read_text()
    for secret in (bytes(range(32)).hex(), key.fingerprint, "clips.npy", "my.key"):
        assert secret not in text


@pytest.mark.parametrize("content", ["", "mine", "[]", "{}", '{"kind": "poscuda evaluation, unfinished"}', "[" * 9999])
def test_another_file_is_refused_and_left_alone(place: Path, key: Key, content: str) -> None:
    path = place / "found.part.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match=r"found\.part\.json has the name for finished trainings"):
        evaluated(place, key)
    assert path.read_text() == content
    path.unlink()
    path.symlink_to(place / "my.key")
    with pytest.raises(DatasetError, match="is a link"):
        evaluated(place, key)


DYING = """
import os, signal, sys
from poscuda_fast.evaluation import finished
add = finished.Finished.add
def stop(*given):
    add(*given)
    os.kill(os.getpid(), getattr(signal, os.environ["SIGNAL"]))
finished.Finished.add = stop
from poscuda_fast.cli import main
main()
"""
WORDS = (
    "evaluate", "clips.npy", "--key", "my.key", "--labels", "labels.npy", "--sample-rate", "8000", "-o", "found.json",
    "--epochs", "1", "--no-attacks", "--model", "cnn",
)  # fmt: skip


@pytest.mark.parametrize(
    ("how", "code", "quiet"), [("SIGINT", 130, []), ("SIGKILL", -signal.SIGKILL, ["--quiet"])], ids=["ctrl-c", "kill"]
)
def test_the_same_command_goes_on(place: Path, how: str, code: int, quiet: list[str]) -> None:
    command = ["env", f"SIGNAL={how}", sys.executable, "-W", "error", "-c", DYING, *WORDS, *quiet]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert (place / "found.part.json").exists()
    done = subprocess.run([*COMMAND, *WORDS, *quiet], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if quiet:
        assert (done.stdout, done.stderr) == ("", "")
    else:
        assert done.stderr.splitlines()[:2] == ["Loading PyTorch.", "Reading clips.npy."]
        assert "\nAlready trained, taken from found.part.json: 1 of 3.\n" in done.stderr
        assert "\n1 of 3  " not in done.stderr
    visible = {path.name for path in place.iterdir() if not path.name.startswith(".")}
    assert visible == {"clips.npy", "labels.npy", "my.key", "found.json", "found.svg"}


# Threads and time.


def test_trainings_have_one_thread_and_the_caller_gets_its_own_back(place: Path, key: Key) -> None:
    seen = []
    torch.set_num_threads(3)
    evaluated(place, key, progress=lambda *_: seen.append(torch.get_num_threads()))
    assert seen[-4:] == [1] * 4
    assert torch.get_num_threads() == 3
    with pytest.raises(KeyboardInterrupt), one_thread():
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 3


def test_the_time_left_is_that_of_what_was_trained() -> None:
    assert set(pace.COSTS) == set(study.TITLES)
    assert pace.cost("m5", 10) == pytest.approx(10 * pace.cost("m5", 1))
    assert pace.seconds_left([(2.0, 10.0), (3.0, 20.0)], [1.0, 1.5]) == pytest.approx(15.0)
    assert [pace.in_words(n) for n in (0.2, 99, 100, 840, 9000)] == [
        "about 1 s", "about 99 s", "about 2 min", "about 14 min", "about 2.5 h"
    ]  # fmt: skip
