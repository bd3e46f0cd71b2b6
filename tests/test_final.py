"""Dropping the undo: the originals and what sealed them are gone, and the rest is as it was."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from audiofiles import contents, in_child, kill_before, killer, noise, untouched, wav, write_tree
from click.testing import CliRunner
from recipes import protect_folder, protect_memmap

from poscuda_fast import (
    DatasetError,
    Key,
    SidecarError,
    drop_undo,
    restore_folder,
    restore_memmap,
    verify_folder,
    verify_memmap,
)
from poscuda_fast.cli import cli
from poscuda_fast.undo.journal import Journal, Kind

FILES = {f"{'yes' if n % 2 else 'no'}/{n}.wav": wav(noise(600 + n, seed=n)) for n in range(4)}


@pytest.fixture
def array(tmp_path: Path) -> np.memmap:
    path = tmp_path / "clips.npy"
    np.save(path, noise(60 * 700).reshape(60, 700))
    return np.load(path, mmap_mode="r+")


def labels(array: np.memmap) -> np.ndarray:
    return np.arange(len(array)) % 3


WRAPPED = slice(28, 76)  # of a sidecar: the key of the journal, which opens everything with the key's help


def runs_of(secret: bytes) -> list[bytes]:
    return [secret[n : n + 16] for n in range(len(secret) - 15)]


def test_the_array_stays_and_what_undo_needs_is_gone(array: np.memmap, key: Key) -> None:
    protected = protect_memmap(array, labels(array), key)
    sidecar = Path(f"{array.filename}.poscuda")
    before, sealed = array.tobytes(), sidecar.read_bytes()
    os.link(sidecar, sidecar.with_name("kept"))
    report = drop_undo(array.filename, key)
    assert report.state == "final"
    assert (report.clips, report.patches) == (protected.clips, protected.patches)
    assert array.tobytes() == before
    old, new = sidecar.with_name("kept").read_bytes(), sidecar.read_bytes()
    assert (old[: WRAPPED.start], old[WRAPPED.stop :]) == (sealed[: WRAPPED.start], sealed[WRAPPED.stop :])
    assert not any(run in old + new for run in runs_of(sealed[WRAPPED]))
    with pytest.raises(SidecarError, match="its header was changed"):
        Journal(sidecar.with_name("kept"), key)
    assert len(new) < 4_000
    assert sorted(os.listdir(sidecar.parent)) == ["clips.npy", "clips.npy.poscuda", "kept"]
    for verb in (restore_memmap, verify_memmap):
        with untouched(sidecar.parent), pytest.raises(SidecarError, match=r"undo in .* was dropped"):
            verb(array, key)


def test_what_is_final_is_still_recognised(array: np.memmap, key: Key) -> None:
    protect_memmap(array, labels(array), key)
    drop_undo(array.filename, key)
    before = array.tobytes()
    again = protect_memmap(array, labels(array), key)
    assert (again.state, again.clips) == ("already protected", 60)
    assert drop_undo(array.filename, key).state == "final"
    assert array.tobytes() == before
    with pytest.raises(SidecarError, match="other labels"):
        protect_memmap(array, labels(array)[::-1], key)
    with pytest.raises(SidecarError, match="another shape"):
        protect_memmap(array[:30], labels(array)[:30], key)


def test_a_folder_is_verified_by_its_manifest_from_then_on(tmp_path: Path, key: Key) -> None:
    root = tmp_path / "src"
    write_tree(root, FILES)
    protect_folder(root, None, key)
    before = contents(root)
    assert drop_undo(root, key).state == "final"
    assert contents(root) == before
    found = verify_folder(root, key)
    assert (found.protected, found.state, found.ok) == (4, "final", True)
    with pytest.raises(SidecarError, match=r"undo in .* was dropped"):
        restore_folder(root, key)
    (root / "yes/1.wav").write_bytes(FILES["no/0.wav"])
    assert verify_folder(root, key).neither == ("yes/1.wav",)
    (tmp_path / "src.poscuda.json").unlink()
    with pytest.raises(SidecarError, match=r"undo in .* was dropped"):
        verify_folder(root, key)


def test_a_part_of_what_is_final_is_not_marked_twice(tmp_path: Path, key: Key) -> None:
    write_tree(tmp_path / "src", FILES)
    protect_folder(tmp_path / "src", None, key)
    drop_undo(tmp_path / "src", key)
    with untouched(tmp_path), pytest.raises(SidecarError, match="marked twice"):
        protect_folder(tmp_path / "src/yes", None, key, labels_from={"1.wav": "a", "3.wav": "b"})


def test_a_single_file_and_a_sidecar_elsewhere(tmp_path: Path, key: Key) -> None:
    (tmp_path / "a.wav").write_bytes(FILES["no/0.wav"])
    protect_folder(tmp_path / "a.wav", None, key, labels_from={"a.wav": "a"}, sidecar=tmp_path / "kept")
    with untouched(tmp_path), pytest.raises(SidecarError, match="does not exist: nothing can be restored by it"):
        drop_undo(tmp_path / "a.wav", key)
    assert drop_undo(tmp_path / "a.wav", key, sidecar=tmp_path / "kept").clips == 1


def interrupted(root: Path, key: Key) -> None:
    assert in_child(lambda: protect_folder(root, None, key, progress=killer(len(FILES)))) == -signal.SIGKILL


def half_restored(root: Path, key: Key) -> None:
    protect_folder(root, None, key)
    assert in_child(lambda: restore_folder(root, key, progress=killer(2 * len(FILES)))) == -signal.SIGKILL


def restored(root: Path, key: Key) -> None:
    protect_folder(root, None, key)
    restore_folder(root, key)


@pytest.mark.parametrize(
    ("reach", "state"),
    [(interrupted, "applying"), (half_restored, "undoing"), (restored, "undone")],
    ids=["applying", "undoing", "undone"],
)
def test_only_a_finished_run_can_be_made_final(
    tmp_path: Path, key: Key, reach: Callable[[Path, Key], None], state: str
) -> None:
    write_tree(tmp_path / "src", FILES)
    reach(tmp_path / "src", key)
    with untouched(tmp_path), pytest.raises(SidecarError, match=f"in state {state}; only a finished run can be made"):
        drop_undo(tmp_path / "src", key)


def test_what_was_never_protected_has_no_undo_to_drop(tmp_path: Path, key: Key) -> None:
    write_tree(tmp_path / "src", FILES)
    with untouched(tmp_path), pytest.raises(SidecarError, match="does not exist: nothing can be restored by it"):
        drop_undo(tmp_path / "src", key)


def test_another_key_drops_nothing(tmp_path: Path, key: Key) -> None:
    write_tree(tmp_path / "src", FILES)
    protect_folder(tmp_path / "src", None, key)
    with untouched(tmp_path), pytest.raises(SidecarError, match=f"made with the key of fingerprint {key.fingerprint}"):
        drop_undo(tmp_path / "src", Key.generate())
    with untouched(tmp_path), pytest.raises(TypeError, match="key is"):
        drop_undo(tmp_path / "src", b"secret")
    with pytest.raises(DatasetError, match="does not exist"):
        drop_undo(tmp_path / "missing", key)


def test_a_record_of_the_finished_run_does_not_open_the_final_one(array: np.memmap, key: Key) -> None:
    protect_memmap(array, labels(array), key)
    sidecar = Path(f"{array.filename}.poscuda")
    sealed = sidecar.read_bytes()
    drop_undo(array.filename, key)
    sidecar.write_bytes(sidecar.read_bytes()[: WRAPPED.stop] + sealed[WRAPPED.stop :])
    with pytest.raises(SidecarError, match="damaged"):
        Journal(sidecar, key)


def test_whatever_call_it_is_killed_before_the_undo_is_complete_or_gone(tmp_path: Path, key: Key) -> None:
    """Its call made again finishes, until then everything can be restored, and no name stays that opens the old run."""
    original = noise(6 * 700).reshape(6, 700)
    states = []
    for moment in range(100):
        path = tmp_path / f"{moment}" / "clips.npy"
        path.parent.mkdir()
        np.save(path, original)
        before = path.read_bytes()
        protect_memmap(np.load(path, mmap_mode="r+"), np.arange(6) % 3, key)
        protected = path.read_bytes()

        def stopped(path: Path = path, moment: int = moment) -> None:
            kill_before(moment)
            drop_undo(path, key)

        ended = in_child(stopped)
        assert path.read_bytes() == protected
        sidecar = Path(f"{path}.poscuda")
        with Journal(sidecar, key) as journal:
            states.append(journal.state.value)
        if states[-1] == "complete":
            copied = path.with_name("copy.npy")
            copied.write_bytes(protected)
            restore_memmap(np.load(copied, mmap_mode="r+"), key, sidecar=sidecar)
            assert copied.read_bytes() == before
            copied.unlink()
            protect_memmap(np.load(path, mmap_mode="r+"), np.arange(6) % 3, key)
        assert drop_undo(path, key).state == "final"
        for left in set(path.parent.iterdir()) - {path}:
            with contextlib.suppress(SidecarError), Journal(left, key) as journal:
                assert not list(journal.records(Kind.BATCH))
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
    assert states[0] == "complete"
    assert states[-2:] == ["final", "final"]
    assert states == sorted(states)  # "complete" comes before "final"


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2), ("", 130)])
def test_the_command_asks_first(tmp_path: Path, key: Key, answer: str, code: int) -> None:
    from poscuda_fast import cli as module

    write_tree(tmp_path / "src", FILES)
    key.save(tmp_path / "my.key")
    protect_folder(tmp_path / "src", None, key)
    arguments = ["drop-undo", str(tmp_path / "src"), "--key", str(tmp_path / "my.key")]
    done = CliRunner().invoke(cli, arguments, input=answer)
    assert "can then not be restored by its sidecar, not even with the key" in done.stderr
    with Journal(tmp_path / "src.poscuda", key) as journal:
        assert journal.state.value == ("final" if code == 0 else "complete")
    assert (done.exit_code == 0) == (code == 0)
    assert module.REFUSED == 2
    assert CliRunner().invoke(cli, [*arguments, "--yes", "--json"]).exit_code == 0


@pytest.mark.parametrize("kind", ["new", "missing", "new, and no manifest"])
def test_a_final_folder_says_which_files_it_does_not_know(tmp_path: Path, key: Key, kind: str) -> None:
    root = tmp_path / "src"
    write_tree(root, FILES)
    protect_folder(root, None, key)
    drop_undo(root, key)
    if kind == "missing":
        (root / "no/0.wav").unlink()
        told = "no/0.wav is missing"
    else:
        (root / "no/new.wav").write_bytes(FILES["no/0.wav"])
        told = "no/new.wav is new, and not protected"
    if kind.endswith("no manifest"):
        (tmp_path / "src.poscuda.json").unlink()
        told = "there were 4 files, and there are 5 now"
    with untouched(tmp_path), pytest.raises(SidecarError, match=rf"undo of .* was dropped.*\n  {told}"):
        protect_folder(root, None, key)
    with untouched(tmp_path):
        report = protect_folder(root, None, key, partial=True)
    assert (report.state, report.left_out) == ("already protected", (told,))
