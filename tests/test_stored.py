"""Arrays in .npy files by their paths: copies that get their name when they are protected, and never a mark twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audiofiles import contents, end_of_child, in_child, kill_before, start_child, untouched

from poscuda_fast import (
    AudioFileError,
    BusyError,
    DatasetError,
    Key,
    Recipe,
    SidecarError,
    array_runs,
    drop_undo,
    durability,
    protect,
    stored,
)

STRONG = Recipe.strong()
LABELS = np.arange(7) % 2


@pytest.fixture
def clips(tmp_path: Path) -> np.ndarray:
    made = np.random.default_rng(2).integers(-9000, 9000, (7, 900)).astype(np.int16)
    np.save(tmp_path / "a.npy", made)
    return made


def marked(clips: np.ndarray, key: Key) -> np.ndarray:
    wet = clips.copy()
    protect(wet, LABELS, key)
    return wet


def make(folder: Path, key: Key, src: str = "a.npy", dst: str | None = "b.npy", **options: Any) -> str:
    target = None if dst is None else folder / dst
    return stored.protect(folder / src, target, LABELS, key, recipe=STRONG, **options).state


def test_a_copy_is_protected_and_the_same_call_again_says_so(tmp_path: Path, key: Key, clips: np.ndarray) -> None:
    with untouched(tmp_path):
        assert make(tmp_path, key, dry_run=True) == "untouched"
    assert make(tmp_path, key) == "protected"
    assert np.array_equal(np.load(tmp_path / "a.npy"), clips)
    assert np.array_equal(np.load(tmp_path / "b.npy"), marked(clips, key))
    with untouched(tmp_path):
        assert make(tmp_path, key) == "already protected"
        assert make(tmp_path, key, dry_run=True) == "already protected"
        assert stored.verify(tmp_path / "b.npy", key, sidecar=None).protected == 7
    assert stored.restore(tmp_path / "b.npy", key, sidecar=None, progress=None).state == "restored"
    assert (tmp_path / "b.npy").read_bytes() == (tmp_path / "a.npy").read_bytes()


def kill(done: int, total: int) -> None:
    """Progress that is never told of."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("state", ["complete", "final", "applying", "undoing", "a copy"])
def test_a_copy_of_what_is_protected_would_be_marked_twice(tmp_path: Path, key: Key, clips: np.ndarray, state) -> None:
    source = tmp_path / ("b.npy" if state == "a copy" else "a.npy")
    if state == "applying":
        assert in_child(lambda: make(tmp_path, key, dst=None, progress=kill)) == -signal.SIGKILL
    else:
        make(tmp_path, key, dst=source.name if state == "a copy" else None)
    if state == "final":
        drop_undo(source, key)
    if state == "undoing":
        undo = {"sidecar": None, "progress": kill}
        assert in_child(lambda: stored.restore(source, key, **undo)) == -signal.SIGKILL
    with untouched(tmp_path):
        for dry_run in (False, True):
            with pytest.raises(SidecarError, match="it would be marked twice"):
                make(tmp_path, key, src=source.name, dst="c.npy", dry_run=dry_run)
        with pytest.raises(SidecarError, match="was not made with the key"):
            make(tmp_path, Key.generate(), src=source.name, dst="c.npy")
    if state != "final":
        stored.restore(source, key, sidecar=None, progress=None)
        assert make(tmp_path, key, src=source.name, dst="c.npy") == "protected"
        assert np.array_equal(np.load(tmp_path / "c.npy"), marked(clips, key))


def test_a_sidecar_without_its_copy_is_not_taken_for_that_of_a_new_one(tmp_path: Path, key: Key, clips) -> None:
    make(tmp_path, key)
    (tmp_path / "b.npy").unlink()
    with untouched(tmp_path), pytest.raises(SidecarError, match="move the sidecar away"):
        make(tmp_path, key)
    (tmp_path / "b.npy.poscuda").unlink()
    make(tmp_path, key)
    assert np.array_equal(np.load(tmp_path / "b.npy"), marked(clips, key))


@pytest.mark.usefixtures("clips")
def test_a_second_run_waits_outside_from_the_first_byte_on(tmp_path: Path, key: Key, monkeypatch) -> None:
    tried: list[str] = []

    def try_too(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            if not tried or tried[-1] != real.__name__:
                tried.append(real.__name__)
                with pytest.raises(BusyError):
                    make(tmp_path, key)
            return real(*arguments, **named)

        return wrapped

    for module, name in ((durability, "copy"), (durability, "sync_files"), (array_runs, "protect")):
        monkeypatch.setattr(module, name, try_too(getattr(module, name)))
    assert make(tmp_path, key) == "protected"
    assert tried == ["protect", "copy", "sync_files", "protect"]
    assert make(tmp_path, key) == "already protected"


@pytest.mark.usefixtures("clips")
def test_no_copy_is_made_where_it_does_not_belong(tmp_path: Path, key: Key) -> None:
    make(tmp_path, key, dst=None)
    stored.restore(tmp_path / "a.npy", key, sidecar=None, progress=None)  # its sidecar is there, in state "undone"
    (tmp_path / "taken.npy").write_bytes(b"something")
    (tmp_path / "link.npy").symlink_to("a.npy")
    with untouched(tmp_path):
        for dst, sentence in (
            ("a.npy", "is .* itself; to edit in place, ask for that"),
            ("link.npy", "is .* itself; to edit in place, ask for that"),
            ("taken.npy", "exists, and nothing is ever overwritten"),
            ("nowhere/b.npy", "The folder of .* does not exist; make it"),
        ):
            with pytest.raises(DatasetError, match=sentence):
                make(tmp_path, key, dst=dst)
        with pytest.raises(AudioFileError, match="cannot be used"):
            make(tmp_path, key, src="taken.npy")


def test_a_copy_that_was_killed_is_finished_by_the_same_call(tmp_path: Path, key: Key, clips: np.ndarray) -> None:
    """Killed before each step that others could see, with the sidecar in its own place and in another."""
    wet, src = marked(clips, key), (tmp_path / "a.npy").read_bytes()
    for sidecar in (None, tmp_path / "elsewhere.poscuda"):
        ended, moment = -signal.SIGKILL, 0
        while ended == -signal.SIGKILL:
            folder = tmp_path / f"{moment} {sidecar is None}"
            folder.mkdir()
            (folder / "a.npy").write_bytes(src)

            def work(folder: Path = folder, moment: int = moment, sidecar: Path | None = sidecar) -> None:
                kill_before(moment)
                make(folder, key, sidecar=sidecar)

            ended = end_of_child(start_child(work))
            if (folder / "b.npy").exists():
                assert np.array_equal(np.load(folder / "b.npy"), wet)
            make(folder, key, sidecar=sidecar)
            assert np.array_equal(np.load(folder / "b.npy"), wet)
            stored.restore(folder / "b.npy", key, sidecar=sidecar, progress=None)
            assert (folder / "b.npy").read_bytes() == src == (folder / "a.npy").read_bytes()
            assert set(contents(folder)) == {"a.npy", "b.npy"} | ({"b.npy.poscuda"} if sidecar is None else set())
            if sidecar is not None:
                sidecar.unlink()
            moment += 1
        assert ended == 0
        assert moment > 5
