"""The sealed sidecar: its states, its secrecy, and what it refuses."""

from __future__ import annotations

import base64
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes import protect_memmap
from secret_forms import forms_of
from sidecars import edit, edited

from poscuda_fast import BusyError, Key, Recipe, SidecarError, restore_memmap
from poscuda_fast.mark import plan as plans
from poscuda_fast.mark.plan import make_plan
from poscuda_fast.undo.journal import Journal, State

HEADER = {"kind": "test", "recipe": {"patch": 240}}
SMALL = Recipe.paper(patch=40, taps=8, blur=0.3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "clips.npy.poscuda"


def begun(path: Path, key: Key, *payloads: bytes, secret: bytes = b"secret") -> None:
    """A sidecar in state APPLYING with these batches."""
    with Journal(path, key) as journal:
        journal.begin(HEADER, secret)
        for payload in payloads:
            journal.append(payload)


def finished(path: Path, key: Key, *payloads: bytes) -> None:
    begun(path, key, *payloads)
    with Journal(path, key) as journal:
        journal.move(State.COMPLETE, {"counts": {}})


def batches(path: Path) -> list[tuple[int, bytes, bytes]]:
    with edited(path) as database:
        return database.execute("SELECT number, session, sealed FROM batch ORDER BY number").fetchall()


# States and payloads


def test_nothing_is_made_before_a_run_begins(path: Path, key: Key) -> None:
    with Journal(path, key) as journal:
        assert journal.state is State.NEW
        with pytest.raises(SidecarError, match=re.escape(f"There is no sidecar at {path}")):
            journal.n_batches()
    assert not path.exists()


def test_payloads_come_back_in_order(path: Path, key: Key) -> None:
    rng = np.random.default_rng(1)
    payloads = [rng.bytes(n) for n in (0, 1, 4_095, 4_096, 100_000)]
    finished(path, key, *payloads)
    with Journal(path, key) as journal:
        assert list(journal.payloads()) == payloads
        assert journal.n_batches() == len(payloads)
        assert journal.state is State.COMPLETE
        assert {name: journal.header[name] for name in HEADER} == HEADER
        assert journal.header["fingerprint"] == key.fingerprint
        assert journal.secret == b"secret"
        assert journal.summary == {"counts": {}, "batches": len(payloads)}


def test_the_name_of_a_folder_need_not_be_utf_8(tmp_path: Path, key: Key) -> None:
    folder = os.path.join(os.fsencode(tmp_path), b"caf\xe9 %3F?#")
    os.mkdir(folder)
    path = Path(os.fsdecode(folder)) / ".poscuda"
    finished(path, key, b"one")
    with Journal(path, key) as journal:
        assert list(journal.payloads()) == [b"one"]


def test_the_states_of_a_run_and_back(path: Path, key: Key) -> None:
    begun(path, key, b"one")
    for state in (State.COMPLETE, State.UNDOING, State.UNDONE):
        with Journal(path, key) as journal:
            journal.move(state)
        with Journal(path, key) as journal:
            assert journal.state is state
            assert list(journal.payloads()) == [b"one"]
    with Journal(path, key) as journal:
        journal.begin({"kind": "second"}, b"")
        journal.append(b"two")
    with Journal(path, key) as journal:
        assert journal.state is State.APPLYING
        assert journal.header["kind"] == "second"
        assert list(journal.payloads()) == [b"two"]


@pytest.mark.parametrize("state", [State.APPLYING, State.COMPLETE, State.UNDOING])
def test_a_run_does_not_begin_over_another(path: Path, key: Key, state: State) -> None:
    begun(path, key, b"one")
    with Journal(path, key) as journal:
        journal.move(state)
        with pytest.raises(SidecarError, match=f"is in state {state.value}; a run is already there"):
            journal.begin(HEADER, b"")
    with Journal(path, key) as journal:
        assert list(journal.payloads()) == [b"one"]


def test_an_empty_file_is_no_run_yet(path: Path, key: Key) -> None:
    path.touch()
    with Journal(path, key) as journal:
        assert journal.state is State.NEW
        journal.begin(HEADER, b"")
    with Journal(path, key) as journal:
        assert journal.state is State.APPLYING


def test_beginning_drops_the_undone_run_in_one_transaction(path: Path, key: Key, monkeypatch: Any) -> None:
    finished(path, key, b"stale")
    with Journal(path, key) as journal:
        journal.move(State.UNDONE)

    def fail(*_: object) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patching, Journal(path, key) as journal:
        patching.setattr(Journal, "_write_state", fail)
        with pytest.raises(OSError, match="no room"):
            journal.begin(HEADER, b"")
    with Journal(path, key) as journal:
        assert journal.state is State.UNDONE
        assert list(journal.payloads()) == [b"stale"]
        statements: list[str] = []
        journal._connection.set_trace_callback(statements.append)
        journal.begin(HEADER, b"")
        assert journal.n_batches() == 0
    assert sum(statement.startswith("BEGIN") for statement in statements) == 1
    assert sum(statement.startswith("COMMIT") for statement in statements) == 1
    assert statements.index("BEGIN") < statements.index("DELETE FROM batch") < statements.index("COMMIT")


def test_the_file_is_private_and_alone(path: Path, key: Key) -> None:
    old = os.umask(0)
    try:
        begun(path, key, b"one", b"two")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == [path.name]
    with Journal(path, key) as journal:
        journal.move(State.COMPLETE)
    assert os.listdir(path.parent) == [path.name]


# Secrecy


def test_no_key_and_nonce_are_used_twice(path: Path, key: Key) -> None:
    begun(path, key)
    used = set()
    for number in range(20):
        before = path.read_bytes()
        with Journal(path, key) as journal:
            journal.append(b"lost")
        lost = batches(path)[-1]
        path.write_bytes(before)  # a power cut may lose a commit that had been on the disk
        with Journal(path, key) as journal:
            journal.append(b"kept")
        kept = batches(path)[-1]
        assert lost[0] == kept[0] == number
        used |= {lost[:2], kept[:2]}
        assert lost[2] != kept[2]
    assert len(used) == 40
    with Journal(path, key) as journal:
        assert list(journal.payloads()) == [b"kept"] * 20


def test_a_new_run_has_a_new_key(path: Path, key: Key) -> None:
    keys = set()
    for _ in range(5):
        with Journal(path, key) as journal:
            journal.begin(HEADER, b"")
            keys.add(journal._journal_key)
            journal.move(State.UNDONE)
    assert len(keys) == 5


def numbers_in(value: Any) -> set[int]:
    if isinstance(value, dict):
        return set().union(*map(numbers_in, value.values()))
    if isinstance(value, list):
        return set().union(*map(numbers_in, value))
    return {value} if isinstance(value, int) else set()


@pytest.mark.parametrize("undone", [False, True])
def test_nothing_secret_is_in_clear(tmp_path: Path, key: Key, monkeypatch: Any, undone: bool) -> None:
    monkeypatch.setattr(plans, "BATCH_BYTES", 3 * 2 * 240)
    data = tmp_path / "clips.npy"
    sidecar = tmp_path / "clips.npy.poscuda"
    names = ["sheila", "marvin", "bed"]
    labels = np.arange(9) % 3
    np.save(data, np.random.default_rng(3).integers(-20_000, 20_000, (9, 90_000), dtype=np.int16))
    recipe = Recipe.paper(patches=2)
    original = np.load(data)
    arr = np.load(data, mmap_mode="r+")
    protect_memmap(arr, labels, key, recipe=recipe, classes=names)
    filtered = np.load(data)
    if undone:
        restore_memmap(arr, key)
    content = sidecar.read_bytes()
    with Journal(sidecar, key) as journal:
        journal_key, secret, header, summary = journal._journal_key, journal.secret, journal.header, journal.summary

    plan = make_plan(key, recipe, labels, names, np.full(9, 90_000, np.int64))
    patches = plan.of_clips(np.arange(9))
    hidden = [bytes(range(32)), journal_key, secret]
    hidden += [key.derive(b"sidecar", purpose, length=32) for purpose in (b"wrap", b"tag", b"labels", b"identity")]
    hidden += [token for token in plan.labels.tokens if len(token) > 4] + [b"sheila", b"marvin"]
    hidden += [taps[n : n + 2].tobytes() for taps in plan.marks.taps for n in range(0, 80, 2)]
    for clip, start in zip(patches.clips.tolist(), patches.starts.tolist(), strict=True):
        for samples in (original, filtered):
            patch = samples[clip, start : start + 240]
            hidden += [patch[n : n + 8].tobytes() for n in range(0, 240, 4)]
        hidden += [start.to_bytes(8, order) for order in ("little", "big")]
        hidden += [start.to_bytes(4, order) for order in ("little", "big")]
    found = [secret for secret in hidden for form in forms_of(secret) if form in content]
    assert found == []

    starts = set(patches.starts.tolist())
    words = {int(word) for word in re.findall(rb"(?<![0-9A-Za-z.])[0-9]{3,8}(?![0-9A-Za-z])", content)}
    assert not starts & words
    assert not starts & numbers_in([header, summary])


def test_the_search_for_secrets_finds_one() -> None:
    secret = b"a secret of some length"
    for hide in (bytes, lambda s: s.hex().encode(), lambda s: base64.b64encode(b"12" + s + b"345")):
        content = b"before" + hide(secret) + b"after"
        assert any(form in content for form in forms_of(secret))


def test_a_repr_shows_nothing_secret(path: Path, key: Key) -> None:
    begun(path, key, b"payload", secret=b"token")
    with Journal(path, key) as journal:
        assert repr(journal) == f"Journal({str(path)!r}, state='applying')"


# Refusals


def test_another_key_is_refused(path: Path, key: Key) -> None:
    finished(path, key, b"one")
    content = path.read_bytes()
    other = Key(bytes(32))
    with pytest.raises(SidecarError, match=f"was not made with the key {other.fingerprint}, or it is damaged"):
        Journal(path, other)
    assert path.read_bytes() == content
    with Journal(path, key) as journal:
        assert list(journal.payloads()) == [b"one"]


def test_a_newer_format_is_refused(path: Path, key: Key) -> None:
    finished(path, key, b"one")
    edit(path, "PRAGMA user_version = 2")
    with pytest.raises(SidecarError, match=r"has format 2; this version reads format 1\. Use the version"):
        Journal(path, key)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER evil AFTER INSERT ON batch BEGIN DELETE FROM batch; END",
        "CREATE VIEW evil AS SELECT * FROM batch",
        "CREATE TABLE evil (x)",
        "CREATE INDEX evil ON batch (session)",
        "ALTER TABLE batch ADD COLUMN evil",
        "ALTER TABLE batch RENAME TO evil",
        "DROP TABLE batch",
    ],
)
def test_a_foreign_schema_is_refused(path: Path, key: Key, statement: str) -> None:
    finished(path, key, b"one")
    edit(path, statement)
    with pytest.raises(SidecarError, match="has tables that this library did not make"):
        Journal(path, key)


def test_a_view_in_the_place_of_a_table_is_refused(path: Path, key: Key) -> None:
    finished(path, key, b"one")
    edit(path, "ALTER TABLE batch RENAME TO kept", "CREATE VIEW batch AS SELECT * FROM kept")
    with pytest.raises(SidecarError, match="has tables that this library did not make"):
        Journal(path, key)


def foreign_text(path: Path) -> None:
    path.write_text("These are my notes, not a sidecar.\n" * 100)


def foreign_database(path: Path) -> None:
    edit(path, "CREATE TABLE notes (line TEXT)", "INSERT INTO notes VALUES ('mine')")


def foreign_wal_database(path: Path) -> None:
    edit(path, "PRAGMA journal_mode = WAL", "CREATE TABLE notes (line TEXT)", "INSERT INTO notes VALUES ('mine')")


@pytest.mark.parametrize("make", [foreign_text, foreign_database, foreign_wal_database])
def test_a_foreign_file_is_refused_and_left_alone(path: Path, key: Key, make: Callable[[Path], None]) -> None:
    make(path)
    content = path.read_bytes()
    with pytest.raises(SidecarError, match=re.escape(str(path))):
        Journal(path, key)
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: path.symlink_to(path.with_name("target"))])
def test_what_is_not_a_regular_file_is_refused(path: Path, key: Key, make: Callable[[Path], None]) -> None:
    path.with_name("target").touch()
    make(path)
    with pytest.raises(SidecarError, match=re.escape(f"The sidecar {path} is not a regular file")):
        Journal(path, key)


def test_a_dangling_link_is_refused(path: Path, key: Key) -> None:
    path.symlink_to(path.with_name("target"))
    with pytest.raises(SidecarError, match="is not a regular file"):
        Journal(path, key)
    assert not path.with_name("target").exists()


def test_a_sidecar_that_appears_before_a_run_begins_is_not_written(path: Path, key: Key) -> None:
    with Journal(path, key) as late:
        finished(path, key, b"one")
        content = path.read_bytes()
        with pytest.raises(BusyError, match="appeared just now"):
            late.begin(HEADER, b"")
    assert path.read_bytes() == content


# One writer


def test_an_open_journal_keeps_other_processes_out(path: Path, key: Key) -> None:
    begun(path, key, b"one")
    script = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('SELECT * FROM batch').fetchall()"
    arguments = [sys.executable, "-S", "-c", script, str(path)]
    with Journal(path, key):
        seen = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert "database is locked" in seen.stderr
    assert subprocess.run(arguments, check=False).returncode == 0


def test_two_journals_of_one_file_exclude_each_other(path: Path, key: Key) -> None:
    begun(path, key, b"one")
    with Journal(path, key), pytest.raises(BusyError, match="is in use"):
        Journal(path, key)
    with Journal(path, key) as journal:
        assert journal.n_batches() == 1
