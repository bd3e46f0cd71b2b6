"""Dropping the undo: the originals and what sealed them are gone, and the rest is as it was."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from audiofiles import contents, in_child, killer, noise, untouched, wav, write_tree
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
from poscuda_fast.undo.journal import Journal

FILES = {f"{'yes' if n % 2 else 'no'}/{n}.wav": wav(noise(600 + n, seed=n)) for n in range(4)}


@pytest.fixture
def array(tmp_path: Path) -> np.memmap:
    path = tmp_path / "clips.npy"
    np.save(path, noise(60 * 700).reshape(60, 700))
    return np.load(path, mmap_mode="r+")


def labels(array: np.memmap) -> np.ndarray:
    return np.arange(len(array)) % 3


def wrapped(sidecar: Path) -> bytes:
    """The wrapped key of the journal, which opens everything with the key's help."""
    with sqlite3.connect(sidecar) as database:
        (found,) = database.execute("SELECT wrapped FROM run").fetchone()
    database.close()
    return found


def pieces_of(secret: bytes) -> list[bytes]:
    """All runs of 16 bytes, since SQLite spreads a value over pages."""
    return [secret[n : n + 16] for n in range(len(secret) - 15)]


def test_the_array_stays_and_what_undo_needs_is_gone(array: np.memmap, key: Key) -> None:
    protected = protect_memmap(array, labels(array), key)
    sidecar = Path(f"{array.filename}.poscuda")
    before = array.tobytes()
    pieces = pieces_of(wrapped(sidecar))
    assert any(piece in sidecar.read_bytes() for piece in pieces)
    report = drop_undo(array.filename, key)
    assert report.state == "final"
    assert (report.clips, report.patches) == (protected.clips, protected.patches)
    assert array.tobytes() == before
    assert wrapped(sidecar) == b""
    assert not any(piece in sidecar.read_bytes() for piece in pieces)
    assert sidecar.stat().st_size < 20_000
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
    array[0, :] = 5
    with pytest.raises(SidecarError, match="other data"):
        protect_memmap(array, labels(array), key)


@pytest.mark.parametrize("copying", [True, False], ids=["copy", "in place"])
def test_a_folder_is_verified_by_its_manifest_from_then_on(tmp_path: Path, key: Key, copying: bool) -> None:
    write_tree(tmp_path / "src", FILES)
    root = tmp_path / "dst" if copying else tmp_path / "src"
    protect_folder(tmp_path / "src", root if copying else None, key)
    before = contents(root)
    assert drop_undo(root, key).state == "final"
    assert contents(root) == before
    found = verify_folder(root, key)
    assert (found.protected, found.state, found.ok) == (4, "final", True)
    with pytest.raises(SidecarError, match=r"undo in .* was dropped"):
        restore_folder(root, key)
    (root / "yes/1.wav").write_bytes(FILES["no/0.wav"])
    assert verify_folder(root, key).neither == ("yes/1.wav",)
    (root / "poscuda.json").unlink()
    with pytest.raises(SidecarError, match=r"undo in .* was dropped"):
        verify_folder(root, key)


def test_a_part_of_what_is_final_is_not_marked_twice(tmp_path: Path, key: Key) -> None:
    write_tree(tmp_path, FILES)
    protect_folder(tmp_path, None, key)
    drop_undo(tmp_path, key)
    with untouched(tmp_path), pytest.raises(SidecarError, match="marked twice"):
        protect_folder(tmp_path / "yes", None, key, labels_from={"1.wav": "a", "3.wav": "b"})


def test_a_single_file_and_a_sidecar_elsewhere(tmp_path: Path, key: Key) -> None:
    (tmp_path / "a.wav").write_bytes(FILES["no/0.wav"])
    protect_folder(tmp_path / "a.wav", None, key, labels_from={"a.wav": "a"}, sidecar=tmp_path / "kept")
    with untouched(tmp_path), pytest.raises(SidecarError, match="does not exist: nothing can be restored"):
        drop_undo(tmp_path / "a.wav", key)
    assert drop_undo(tmp_path / "a.wav", key, sidecar=tmp_path / "kept").clips == 1


def interrupted(root: Path, key: Key) -> None:
    in_child(lambda: protect_folder(root, None, key, progress=killer(1)))


def half_restored(root: Path, key: Key) -> None:
    protect_folder(root, None, key)
    in_child(lambda: restore_folder(root, key, progress=killer(len(FILES) + 1)))


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
    write_tree(tmp_path, FILES)
    reach(tmp_path, key)
    before = contents(tmp_path, hidden=True)
    with pytest.raises(SidecarError, match=f"in state {state}; only a finished run can be made final"):
        drop_undo(tmp_path, key)
    after = contents(tmp_path, hidden=True)  # a killed run's rollback journal may go
    assert {**before, ".poscuda-journal": b""} == {**after, ".poscuda-journal": b""}


def test_what_was_never_protected_has_no_undo_to_drop(tmp_path: Path, key: Key) -> None:
    write_tree(tmp_path, FILES)
    with untouched(tmp_path), pytest.raises(SidecarError, match="does not exist: nothing can be restored"):
        drop_undo(tmp_path, key)


def test_another_key_drops_nothing(tmp_path: Path, key: Key) -> None:
    write_tree(tmp_path, FILES)
    protect_folder(tmp_path, None, key)
    with untouched(tmp_path), pytest.raises(SidecarError, match="not made with the key"):
        drop_undo(tmp_path, Key.generate())
    with untouched(tmp_path), pytest.raises(TypeError, match="key is"):
        drop_undo(tmp_path, b"secret")
    with pytest.raises(DatasetError, match="does not exist"):
        drop_undo(tmp_path / "missing", key)


def test_a_final_sidecar_whose_state_is_changed_back_is_refused(array: np.memmap, key: Key) -> None:
    protect_memmap(array, labels(array), key)
    drop_undo(array.filename, key)
    sidecar = Path(f"{array.filename}.poscuda")
    with sqlite3.connect(sidecar) as database:
        database.execute("UPDATE run SET state = 'complete'")
    database.close()
    with pytest.raises(SidecarError, match="damaged"):
        Journal(sidecar, key)


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2), ("", 130)])
def test_the_command_asks_first(tmp_path: Path, key: Key, answer: str, code: int) -> None:
    from poscuda_fast import cli as module

    write_tree(tmp_path / "src", FILES)
    key.save(tmp_path / "my.key")
    protect_folder(tmp_path / "src", None, key)
    arguments = ["drop-undo", str(tmp_path / "src"), "--key", str(tmp_path / "my.key")]
    done = CliRunner().invoke(cli, arguments, input=answer)
    assert "can then never be restored" in done.stderr
    with Journal(tmp_path / "src/.poscuda", key) as journal:
        assert journal.state.value == ("final" if code == 0 else "complete")
    assert (done.exit_code == 0) == (code == 0)
    assert module.REFUSED == 2
    assert CliRunner().invoke(cli, [*arguments, "--yes", "--json"]).exit_code == 0
