"""Arrays in .npy files by their paths: copies that get their name when they are protected, and never a mark twice."""

from __future__ import annotations

import os
import signal
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
    drop_undo,
    protect,
    protect_array,
    restore_array,
    verify_array,
)
from poscuda_fast.undo.journal import MANIFEST, SIDECAR

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
    return protect_array(folder / src, LABELS, key, dst=target, recipe=STRONG, **options).state


def test_a_copy_is_protected_and_the_same_call_again_says_so(tmp_path: Path, key: Key, clips: np.ndarray) -> None:
    with untouched(tmp_path):
        assert make(tmp_path, key, dry_run=True) == "untouched"
    assert make(tmp_path, key) == "protected"
    assert np.array_equal(np.load(tmp_path / "a.npy"), clips)
    assert np.array_equal(np.load(tmp_path / "b.npy"), marked(clips, key))
    with untouched(tmp_path):
        assert make(tmp_path, key) == "already protected"
        assert make(tmp_path, key, dry_run=True) == "already protected"
        assert verify_array(tmp_path / "b.npy", key).protected == 7
        assert verify_array(tmp_path / "b.npy", key, source=tmp_path / "a.npy").protected == 7
        found = verify_array(tmp_path / "b.npy")  # by the manifest, which knows the file
        assert (found.protected, found.state, found.ok) == (1, "unknown", True)
        with pytest.raises(DatasetError, match=rf"your originals are at {tmp_path / 'a.npy'};"):
            restore_array(tmp_path / "b.npy", key)
        with pytest.raises(DatasetError, match=rf"its undo is {tmp_path / 'a.npy'}"):
            drop_undo(tmp_path / "b.npy", key)
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.npy", "b.npy", "b.npy.poscuda", "b.npy.poscuda.json"}


@pytest.mark.usefixtures("clips")
def test_a_source_needs_a_key_and_a_copy(tmp_path: Path, key: Key) -> None:
    make(tmp_path, key, dst=None)
    with pytest.raises(ValueError, match="give the key too"):
        verify_array(tmp_path / "a.npy", source=tmp_path / "a.npy")
    with pytest.raises(DatasetError, match="is no copy with a sidecar"):
        verify_array(tmp_path / "a.npy", key, source=tmp_path / "a.npy")
    with pytest.raises(DatasetError, match="There is no manifest"):
        verify_array(tmp_path / "a.npy")


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
        assert in_child(lambda: restore_array(source, key, **undo)) == -signal.SIGKILL
    with untouched(tmp_path):
        for dry_run in (False, True):
            with pytest.raises(SidecarError, match="and would be marked twice"):
                make(tmp_path, key, src=source.name, dst="c.npy", dry_run=dry_run)
        with pytest.raises(SidecarError, match=f"was made with the key of fingerprint {key.fingerprint}"):
            make(tmp_path, Key.generate(), src=source.name, dst="c.npy")
    if state in ("final", "a copy"):
        return
    restore_array(source, key)
    assert make(tmp_path, key, src=source.name, dst="c.npy") == "protected"
    assert np.array_equal(np.load(tmp_path / "c.npy"), marked(clips, key))


@pytest.mark.usefixtures("clips")
def test_a_copy_that_is_gone_is_made_again(tmp_path: Path, key: Key) -> None:
    make(tmp_path, key)
    before = contents(tmp_path)
    (tmp_path / "b.npy").unlink()
    assert make(tmp_path, key) == "protected"
    assert {name: content for name, content in contents(tmp_path).items() if name != "b.npy.poscuda"} == {
        name: content for name, content in before.items() if name != "b.npy.poscuda"
    }


@pytest.mark.usefixtures("clips")
def test_a_copy_is_known_under_a_new_name(tmp_path: Path, key: Key) -> None:
    make(tmp_path, key)
    for ending in ("", SIDECAR, MANIFEST):
        os.rename(tmp_path / f"b.npy{ending}", tmp_path / f"c.npy{ending}")
    with untouched(tmp_path):
        assert verify_array(tmp_path / "c.npy").protected == 1
        assert verify_array(tmp_path / "c.npy", key).protected == 7
        assert make(tmp_path, key, dst="c.npy") == "already protected"


@pytest.mark.usefixtures("clips")
def test_a_second_run_waits_outside_while_the_copy_is_made(tmp_path: Path, key: Key) -> None:
    tried = []

    def try_too(done: int, total: int) -> None:
        with pytest.raises(BusyError):
            make(tmp_path, key)
        tried.append(done)

    assert make(tmp_path, key, progress=try_too) == "protected"
    assert tried == [7 * 900]
    assert make(tmp_path, key) == "already protected"


@pytest.mark.usefixtures("clips")
def test_no_copy_is_made_where_it_does_not_belong(tmp_path: Path, key: Key) -> None:
    make(tmp_path, key, dst=None)
    restore_array(tmp_path / "a.npy", key)  # its sidecar is there, in state "undone"
    (tmp_path / "taken.npy").write_bytes(b"something")
    (tmp_path / "link.npy").symlink_to("a.npy")
    with untouched(tmp_path):
        for dst, sentence in (
            ("a.npy", "is .* itself, or one lies inside the other; choose another path"),
            ("link.npy", "is .* itself, or one lies inside the other; choose another path"),
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
            assert verify_array(folder / "b.npy", key, sidecar=sidecar).ok
            assert (folder / "a.npy").read_bytes() == src
            beside = {"b.npy.poscuda"} if sidecar is None else set()
            assert set(contents(folder)) == {"a.npy", "b.npy", "b.npy.poscuda.json"} | beside
            if sidecar is not None:
                sidecar.unlink()
            moment += 1
        assert ended == 0
        assert moment > 5


@pytest.mark.parametrize("view", ["whole", "part", "backwards", "by columns"])
def test_a_copy_of_a_raw_memmap_is_a_copy_of_its_file(tmp_path: Path, key: Key, view: str) -> None:
    """The array lies at the same place in the copy; what is around it in the file comes along as it is."""
    raw = np.random.default_rng(3).integers(-9000, 9000, (10, 900)).astype(np.int16)
    (tmp_path / "a.raw").write_bytes(b"head" + raw.tobytes())

    def mapped(name: str, mode: str) -> np.ndarray:
        order = "F" if view == "by columns" else "C"
        whole = np.memmap(tmp_path / name, np.int16, mode, 4, (10, 900), order)
        return {"part": whole[2:9, 50:], "backwards": whole[::-1, ::-1]}.get(view, whole)

    arr = mapped("a.raw", "r")
    labels = np.arange(len(arr)) % 2
    wet, before = np.array(arr), (tmp_path / "a.raw").read_bytes()
    protect(wet, labels, key)
    assert protect_array(arr, labels, key, dst=tmp_path / "b.raw", dry_run=True).state == "untouched"
    for state in ("protected", "already protected"):
        assert protect_array(arr, labels, key, dst=tmp_path / "b.raw").state == state
    assert (tmp_path / "a.raw").read_bytes() == before
    assert (tmp_path / "b.raw").read_bytes()[:4] == b"head"
    copy = mapped("b.raw", "r+")
    assert np.array_equal(copy, wet)
    assert verify_array(copy, key).protected == len(arr)
    assert verify_array(copy, key, source=arr).protected == len(arr)
    with pytest.raises(DatasetError, match="your originals are at"):
        restore_array(copy, key)


@pytest.mark.parametrize(
    ("arr", "sentence"),
    [
        ([[1, 2]], r"arr is a list; expected an array that is mapped from a file \(numpy\.memmap\), the path of"),
        (np.zeros((1, 9), np.int16), "arr is a ndarray that is not mapped from a file"),
        (None, "arr is a NoneType; expected"),
    ],
)
def test_what_is_not_stored_is_refused(tmp_path: Path, key: Key, arr: Any, sentence: str) -> None:
    for dst in (None, tmp_path / "b"):
        with untouched(tmp_path), pytest.raises(TypeError, match=sentence):
            protect_array(arr, [0], key, dst=dst)
    for verb in (restore_array, verify_array):
        with pytest.raises(TypeError, match=sentence):
            verb(arr, key)


def test_a_path_where_nothing_is(tmp_path: Path, key: Key) -> None:
    for verb in (lambda path: protect_array(path, [0], key), lambda path: restore_array(path, key)):
        with untouched(tmp_path), pytest.raises(DatasetError, match="does not exist"):
            verb(tmp_path / "a.npy")
        with untouched(tmp_path), pytest.raises(DatasetError, match="is not the folder of a Zarr array"):
            verb(str(tmp_path))


def test_a_finished_copy_is_that_of_its_source_only(tmp_path: Path, key: Key, clips: np.ndarray) -> None:
    """Another array of the same shape, one of another, one of another type, and none at all."""
    np.save(tmp_path / "other.npy", clips[::-1])
    np.save(tmp_path / "wide.npy", np.repeat(clips, 2, axis=1))
    np.save(tmp_path / "double.npy", clips.astype(np.float64))
    make(tmp_path, key)
    with untouched(tmp_path):
        for dry_run in (False, True):
            for src, error, sentence in (
                ("other.npy", SidecarError, "of an array with other samples"),
                ("wide.npy", SidecarError, r"is of an array of shape \(7, 900\), dtype <i2"),
                ("double.npy", AudioFileError, "its samples are float64"),
                ("none.npy", DatasetError, "does not exist"),
            ):
                with pytest.raises(error, match=sentence):
                    make(tmp_path, key, src=src, dry_run=dry_run)
        assert make(tmp_path, key) == "already protected"


def test_a_copy_is_not_protected_in_place_too(tmp_path: Path, key: Key, clips: np.ndarray) -> None:
    make(tmp_path, key)
    with (
        untouched(tmp_path),
        pytest.raises(SidecarError, match=r"b\.npy is a copy of .*a\.npy and is protected already"),
    ):
        make(tmp_path, key, src="b.npy", dst=None)


@pytest.mark.usefixtures("clips")
def test_a_stray_sidecar_does_not_make_a_copy_of_what_is_there(tmp_path: Path, key: Key) -> None:
    np.save(tmp_path / "b.npy", np.ones((7, 900), np.int16))
    (tmp_path / "b.npy.poscuda").touch()
    with untouched(tmp_path), pytest.raises(SidecarError, match="is not a sidecar of this version; move it away"):
        make(tmp_path, key)
    (tmp_path / "b.npy.poscuda").unlink()
    with untouched(tmp_path), pytest.raises(DatasetError, match="nothing is ever overwritten"):
        make(tmp_path, key)


def test_a_link_to_what_is_protected_is_not_marked_twice(tmp_path: Path, key: Key, clips: np.ndarray) -> None:
    """The sidecar lies beside the file, not beside the link; a memmap may keep the link's name."""
    (tmp_path / "link.npy").symlink_to("a.npy")
    make(tmp_path, key, dst=None)
    mapped = np.load(str(tmp_path / "link.npy"), mmap_mode="r")
    for source in (tmp_path / "link.npy", mapped):
        for dry_run in (False, True):
            with untouched(tmp_path), pytest.raises(SidecarError, match="would be marked twice"):
                protect_array(source, LABELS, key, dst=tmp_path / "c.npy", dry_run=dry_run)


def test_a_copy_that_was_stopped_is_made_anew(tmp_path: Path, key: Key, clips: np.ndarray) -> None:
    """Nothing of it was there but its sidecar and a hidden file, which is removed."""
    assert in_child(lambda: make(tmp_path, key, progress=kill)) == -signal.SIGKILL
    left = {entry.name for entry in tmp_path.iterdir()} - {"a.npy", "b.npy.poscuda"}
    assert [name.endswith(".poscuda-part") for name in left] == [True]
    found = protect_array(tmp_path / "a.npy", LABELS, key, dst=tmp_path / "b.npy", recipe=STRONG, dry_run=True)
    assert found.state == "untouched"
    with untouched(tmp_path), pytest.raises(SidecarError, match="was made with other labels"):
        protect_array(tmp_path / "a.npy", LABELS[::-1] * 2, key, dst=tmp_path / "b.npy", recipe=STRONG)
    assert make(tmp_path, key) == "protected"
    assert np.array_equal(np.load(tmp_path / "b.npy"), marked(clips, key))
    assert not left & {entry.name for entry in tmp_path.iterdir()}


@pytest.mark.usefixtures("clips")
def test_a_copy_and_its_sidecar_have_places_of_their_own(tmp_path: Path, key: Key) -> None:
    (tmp_path / "link").symlink_to(".")
    with untouched(tmp_path):
        for sidecar, sentence in (
            ("b.npy", "would be, or lie inside"),
            ("link/b.npy", "would be, or lie inside"),
            ("a.npy", "would be, or lie inside"),
            ("b.npy.poscuda.json", "would be the manifest of the same data"),
            ("a.npy.poscuda", r"is the name of the sidecar of .*a\.npy itself"),
            ("no/side", "The folder of the sidecar .*no/side does not exist"),
        ):
            with pytest.raises(SidecarError, match=sentence):
                make(tmp_path, key, sidecar=tmp_path / sidecar)


def test_an_iterator_of_class_names_serves_the_copy_too(tmp_path: Path, key: Key, clips: np.ndarray) -> None:
    made = make(tmp_path, key, classes=iter(["yes", "no"]))
    assert made == "protected"
    wet = clips.copy()
    protect(wet, LABELS, key, classes=["yes", "no"])
    assert np.array_equal(np.load(tmp_path / "b.npy"), wet)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_an_impossible_number_of_threads_is_refused(tmp_path: Path, key: Key, clips: np.ndarray, threads: Any) -> None:
    make(tmp_path, key, dst=None)
    for verb in (
        lambda: restore_array(tmp_path / "a.npy", key, threads=threads),
        lambda: make(tmp_path, key, dst=None, threads=threads),
    ):
        with untouched(tmp_path), pytest.raises(ValueError, match="threads is"):
            verb()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path: Path, key: Key) -> None:
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(DatasetError, match="is not a regular file"):
        protect_array(tmp_path / "a.npy", [0], key)


def test_a_mapped_file_that_is_gone_is_told_of(tmp_path: Path, key: Key, clips: np.ndarray) -> None:
    arr = np.load(tmp_path / "a.npy", mmap_mode="r+")
    (tmp_path / "a.npy").unlink()
    with pytest.raises(ValueError, match="was deleted or replaced after it was mapped"):
        protect_array(arr, LABELS, key)


@pytest.mark.usefixtures("clips")
def test_after_restore_every_other_recipe_and_other_labels_may_follow(tmp_path: Path, key: Key) -> None:
    before, path = (tmp_path / "a.npy").read_bytes(), tmp_path / "a.npy"
    recipes = {"strong": Recipe.strong(), "louder": Recipe.strong(2.0), "paper": Recipe.paper()}
    for name in ("strong", "paper", "louder", "strong", "louder", "paper", "strong"):
        for labels in (LABELS, [f"word {n}" for n in range(7)], np.zeros(7, int)):
            assert protect_array(path, labels, key, recipe=recipes[name]).state == "protected"
            for other in {*recipes} - {name}:
                with pytest.raises(SidecarError, match="was made for another recipe"):
                    protect_array(path, labels, key, recipe=recipes[other])
            with pytest.raises(SidecarError, match="was made for other labels"):
                protect_array(path, np.arange(7), key, recipe=recipes[name])
            assert verify_array(path, key).protected == 7
            assert restore_array(path, key).state == "restored"
            assert path.read_bytes() == before
