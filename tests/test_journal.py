"""The sealed sidecar: its states, its secrecy, and what it refuses."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes import protect_memmap

from poscuda_fast import (
    BusyError,
    Key,
    PoscudaError,
    Recipe,
    SidecarError,
    memmap,
    memory,
    restore_memmap,
    verify_memmap,
)
from poscuda_fast.journal import APPLICATION_ID, SCHEMA, Journal, State
from poscuda_fast.labels import encode
from poscuda_fast.plan import Plan

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


class edited:
    """The database of a sidecar, as somebody without the key would open it."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)

    def __enter__(self) -> sqlite3.Connection:
        return self._database

    def __exit__(self, *_: object) -> None:
        self._database.close()


def edit(path: Path, *statements: str) -> None:
    with edited(path) as database:
        for statement in statements:
            database.execute(statement)


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


def encodings(secret: bytes) -> Iterator[bytes]:
    """A secret as it is, in hexadecimal, and inside base64 text at each of the three places it may begin."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for lead in range(3):
        text = base64.b64encode(bytes(lead) + secret)
        inner = text[-(-lead * 8 // 6) : (lead + len(secret)) * 8 // 6]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))


def numbers_in(value: Any) -> set[int]:
    if isinstance(value, dict):
        return set().union(*map(numbers_in, value.values()))
    if isinstance(value, list):
        return set().union(*map(numbers_in, value))
    return {value} if isinstance(value, int) else set()


@pytest.mark.parametrize("undone", [False, True])
def test_nothing_secret_is_in_clear(tmp_path: Path, key: Key, monkeypatch: Any, undone: bool) -> None:
    monkeypatch.setattr(memory, "BATCH_BYTES", 3 * 2 * 240)
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

    plan = Plan(key, recipe, encode(labels, names, 9), np.full(9, 90_000, np.int64))
    (patches,) = plan.batches(100)
    hidden = [bytes(range(32)), journal_key, secret]
    hidden += [key.derive(b"sidecar", purpose, length=32) for purpose in (b"wrap", b"tag", b"labels", b"identity")]
    hidden += [token for token in plan.labels.tokens if len(token) > 4] + [b"sheila", b"marvin"]
    hidden += [taps[n : n + 2].tobytes() for taps in plan.marks.table for n in range(0, 80, 2)]
    for clip, start in zip(patches.clips.tolist(), patches.starts.tolist(), strict=True):
        for samples in (original, filtered):
            patch = samples[clip, start : start + 240]
            hidden += [patch[n : n + 8].tobytes() for n in range(0, 240, 4)]
        hidden += [start.to_bytes(8, order) for order in ("little", "big")]
        hidden += [start.to_bytes(4, order) for order in ("little", "big")]
    found = [secret for secret in hidden for form in encodings(secret) if form in content]
    assert found == []

    starts = set(patches.starts.tolist())
    words = {int(word) for word in re.findall(rb"(?<![0-9A-Za-z.])[0-9]{3,8}(?![0-9A-Za-z])", content)}
    assert not starts & words
    assert not starts & numbers_in([header, summary])


def test_the_search_for_secrets_finds_one() -> None:
    secret = b"a secret of some length"
    for hide in (bytes, lambda s: s.hex().encode(), lambda s: base64.b64encode(b"12" + s + b"345")):
        content = b"before" + hide(secret) + b"after"
        assert any(form in content for form in encodings(secret))


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


# Tampering


@pytest.fixture
def array(tmp_path: Path, key: Key, monkeypatch: Any) -> Iterator[Array]:
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield Array(tmp_path, key, monkeypatch)
        return
    with tempfile.TemporaryDirectory(dir=shared) as folder:  # in memory: thousands of copies are tried
        yield Array(Path(folder), key, monkeypatch)


class Array:
    """A small protected array, four batches, and its sidecar."""

    def __init__(self, folder: Path, key: Key, monkeypatch: Any) -> None:
        monkeypatch.setattr(memory, "BATCH_BYTES", 3 * 40 * 2)
        self.path = folder / "clips.npy"
        self.key = key
        np.save(self.path, np.random.default_rng(7).integers(-20_000, 20_000, (11, 120), dtype=np.int16))
        self.original = self.path.read_bytes()
        self.arr = np.load(self.path, mmap_mode="r+")
        self.protect()
        self.protected = self.path.read_bytes()
        self.sidecar = folder / "clips.npy.poscuda"
        self.sealed = self.sidecar.read_bytes()

    def protect(self) -> str:
        return protect_memmap(self.arr, np.arange(11) % 3, self.key, recipe=SMALL).state

    def restore(self) -> str:
        return restore_memmap(self.arr, self.key).state

    def set(self, data: bytes, sidecar: bytes) -> None:
        self.arr.reshape(-1).view(np.uint8)[:] = np.frombuffer(data[-self.arr.nbytes :], np.uint8)
        self.sidecar.write_bytes(sidecar)

    def refuses_to_restore(self, message: str) -> None:
        """Neither restoring nor protecting nor verifying believes the sidecar; the data stays as it is."""
        with pytest.raises(SidecarError, match=message):
            self.restore()
        assert self.path.read_bytes() == self.protected
        with pytest.raises(SidecarError, match=message):
            verify_memmap(self.arr, self.key)


def outcome(array: Array) -> str:
    """What restoring does with a damaged sidecar: "refused" with the data untouched, or "restored" rightly."""
    try:
        array.restore()
    except (PoscudaError, OSError):
        assert array.path.read_bytes() == array.protected
        return "refused"
    assert array.path.read_bytes() == array.original
    return "restored"


def reading(array: Array) -> Any:
    """All that a sidecar says, or None if it is refused."""
    try:
        with Journal(array.sidecar, array.key) as journal:
            return journal.state, journal.header, journal.secret, journal.summary, list(journal.payloads())
    except (PoscudaError, OSError):
        return None


def damaged(content: bytes, places: Iterable[int], masks: Iterable[int]) -> Iterator[tuple[str, bytes]]:
    """A name and a copy of some content for each place and mask that is flipped there."""
    for place, mask in itertools.product(places, masks):
        yield f"byte {place} ^ {mask:#04x}", content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :]


def check_damaged(array: Array, copies: Iterator[tuple[str, bytes]], *, every: int) -> None:
    """Each copy is refused, or says what the sidecar said and restores the original (every n-th one is tried)."""
    truth = reading(array)
    problems = []
    harmless = 0
    for name, content in copies:
        array.sidecar.write_bytes(content)
        try:
            read = reading(array)
        except Exception as error:  # noqa: BLE001 - anything but a refusal is what is looked for
            problems.append(f"{name}: {error!r}")
            continue
        if read is None:
            continue
        if read != truth:
            problems.append(f"{name}: another reading")
        elif harmless % every == 0:
            array.set(array.protected, content)
            assert outcome(array) in ("refused", "restored"), name
        harmless += 1
    assert problems == []
    assert harmless > 0


def test_every_flipped_byte_is_refused_or_harmless(array: Array) -> None:
    check_damaged(array, damaged(array.sealed, range(len(array.sealed)), [0xFF]), every=40)


def test_every_flipped_bit_of_a_page_header_is_refused_or_harmless(array: Array) -> None:
    size = len(array.sealed)
    places = [place for place in range(size) if place % 4096 < 16 or place < 116]
    check_damaged(array, damaged(array.sealed, places, [1 << bit for bit in range(8)]), every=4)


def test_every_truncation_is_refused_or_harmless(array: Array) -> None:
    lengths = [1, 15, 16, 99, 100, 511, 512, 4095, 4096, 4097, 8191, 8192, 8193, *range(0, len(array.sealed), 301)]
    for length in lengths:
        array.set(array.protected, array.sealed[:length])
        assert outcome(array) == "refused", f"{length} bytes"
        if length:  # an empty file is no run yet
            array.set(array.protected, array.sealed[:length])
            with contextlib.suppress(PoscudaError, OSError):
                assert array.protect() == "already protected", f"{length} bytes"
            assert array.path.read_bytes() == array.protected, f"{length} bytes"


def test_a_sidecar_whose_tables_are_hidden_by_a_flipped_bit_is_no_new_one(array: Array) -> None:
    place = 100 + 4  # of SQLite's first page: how many tables there are
    assert array.sealed[place] == 2
    array.set(array.protected, array.sealed[:place] + b"\0" + array.sealed[place + 1 :])
    with pytest.raises(SidecarError):
        array.protect()
    assert array.path.read_bytes() == array.protected


def test_bytes_behind_the_end_do_no_harm(array: Array) -> None:
    array.set(array.protected, array.sealed + bytes(5_000))
    assert outcome(array) in ("refused", "restored")


def second_run(array: Array) -> bytes:
    """The sidecar of another run over the same data, with the same key."""
    array.restore()
    array.protect()
    assert array.path.read_bytes() == array.protected
    return array.sidecar.read_bytes()


def splice(array: Array, statement: str) -> None:
    """Run a statement on the first run's sidecar, with the second run's attached as `other`."""
    other = array.sidecar.with_name("other")
    other.write_bytes(second_run(array))
    array.sidecar.write_bytes(array.sealed)
    edit(array.sidecar, f"ATTACH '{other}' AS other", statement)
    assert array.sidecar.read_bytes() != array.sealed


@pytest.mark.parametrize("number", range(4))
def test_a_batch_of_another_run_is_refused(array: Array, number: int) -> None:
    splice(array, f"REPLACE INTO main.batch SELECT * FROM other.batch WHERE number = {number}")
    array.refuses_to_restore(f"Batch {number} of the sidecar .* is damaged")


def test_all_batches_of_another_run_are_refused(array: Array) -> None:
    splice(array, "REPLACE INTO main.batch SELECT * FROM other.batch")
    array.refuses_to_restore("Batch 0 of the sidecar .* is damaged")


def test_the_run_of_another_sidecar_is_refused(array: Array) -> None:
    splice(array, "REPLACE INTO main.run SELECT * FROM other.run")
    array.refuses_to_restore("Batch 0 of the sidecar .* is damaged")


@pytest.mark.parametrize("field", ["header", "wrapped", "tag"])
def test_a_field_of_another_run_is_refused(array: Array, field: str) -> None:
    splice(array, f"UPDATE main.run SET {field} = (SELECT {field} FROM other.run)")
    array.refuses_to_restore("was not made with the key .* or it is damaged")


def test_exchanged_batches_are_refused(array: Array) -> None:
    edit(
        array.sidecar,
        "UPDATE batch SET number = 99 WHERE number = 1",
        "UPDATE batch SET number = 1 WHERE number = 2",
        "UPDATE batch SET number = 2 WHERE number = 99",
    )
    array.refuses_to_restore("Batch 1 of the sidecar .* is damaged")


@pytest.mark.parametrize("number", range(4))
def test_a_lost_batch_of_a_finished_run_is_refused(array: Array, number: int) -> None:
    edit(array.sidecar, f"DELETE FROM batch WHERE number = {number}")
    array.refuses_to_restore("has lost batches")


def test_a_repeated_batch_is_refused(array: Array) -> None:
    edit(array.sidecar, "INSERT INTO batch SELECT 4, session, sealed FROM batch WHERE number = 3")
    array.refuses_to_restore("has lost batches")


@pytest.mark.parametrize("number", range(4))
def test_a_lost_batch_of_an_interrupted_run_is_refused(array: Array, monkeypatch: Any, number: int) -> None:
    def fail(_: object) -> None:
        raise OSError("no sync")

    array.restore()
    with monkeypatch.context() as patching:
        patching.setattr(memmap.MappedFile, "sync", fail)
        with pytest.raises(OSError, match="no sync"):
            array.protect()
    assert array.path.read_bytes() == array.protected
    edit(array.sidecar, f"DELETE FROM batch WHERE number = {number}")
    array.refuses_to_restore("has lost batches")
    with pytest.raises(SidecarError, match="has lost batches"):
        array.protect()
    assert array.path.read_bytes() == array.protected


@pytest.mark.parametrize("state", ["applying", "undoing", "undone", "new", "neither", ""])
def test_a_changed_state_is_refused(array: Array, state: str) -> None:
    edit(array.sidecar, f"UPDATE run SET state = '{state}'")
    array.refuses_to_restore("was not made with the key .* or it is damaged")
    with pytest.raises(SidecarError, match="is damaged"):
        array.protect()
    assert array.path.read_bytes() == array.protected


@pytest.mark.parametrize(
    "statement",
    [
        'UPDATE run SET summary = \'{"batches": 4, "counts": {}}\'',
        'UPDATE run SET summary = CAST(\'{"batches": 4, "counts": {}}\' AS BLOB)',
        "UPDATE run SET header = CAST(replace(CAST(header AS TEXT), '\"patch\": 40', '\"patch\": 39') AS BLOB)",
        "UPDATE run SET header = 7",
        "UPDATE run SET wrapped = zeroblob(60)",
        "UPDATE run SET wrapped = zeroblob(0)",
        "UPDATE run SET tag = zeroblob(32)",
        "UPDATE run SET tag = zeroblob(0)",
        "UPDATE run SET state = CAST('complete' AS BLOB)",
    ],
)
def test_a_changed_field_is_refused(array: Array, statement: str) -> None:
    edit(array.sidecar, statement)
    array.refuses_to_restore("was not made with the key .* or it is damaged")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE batch SET session = zeroblob(16) WHERE number = 2",
        "UPDATE batch SET session = 'text' WHERE number = 2",
        "UPDATE batch SET sealed = 5 WHERE number = 2",
        "UPDATE batch SET sealed = zeroblob(0) WHERE number = 2",
        "UPDATE batch SET sealed = zeroblob(15) WHERE number = 2",
        "UPDATE batch SET sealed = CAST(sealed || 'x' AS BLOB) WHERE number = 2",
    ],
)
def test_a_changed_batch_is_refused(array: Array, statement: str) -> None:
    edit(array.sidecar, statement)
    array.refuses_to_restore("Batch 2 of the sidecar .* is damaged")


def test_a_sidecar_without_its_run_is_refused(array: Array) -> None:
    edit(array.sidecar, "DELETE FROM run")
    array.refuses_to_restore("has lost its run")


def test_another_application_id_is_refused(array: Array) -> None:
    edit(array.sidecar, f"PRAGMA application_id = {APPLICATION_ID + 1}")
    array.refuses_to_restore("is not a sidecar, or it is damaged; move it away")


def test_a_forged_sidecar_without_the_key_is_refused(array: Array) -> None:
    array.sidecar.unlink()
    header = {"kind": "array", "fingerprint": array.key.fingerprint, "run": "0" * 32}
    edit(array.sidecar, f"PRAGMA application_id = {APPLICATION_ID}", "PRAGMA user_version = 1", *SCHEMA.values())
    with edited(array.sidecar) as database:
        database.execute(
            "INSERT INTO run VALUES (1, ?, ?, 'complete', ?, ?)",
            (json.dumps(header).encode(), bytes(60), b"{}", bytes(32)),
        )
    array.refuses_to_restore("was not made with the key .* or it is damaged")


# One writer

HOLD = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold() -> Iterator[Callable[[Path], None]]:
    """Let another process hold a SQLite file until the test ends."""
    processes = []

    def hold(path: Path) -> None:
        arguments = [sys.executable, "-S", "-c", HOLD, str(path)]
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout.readline() == b"held\n"

    yield hold
    for process in processes:
        process.communicate()


def test_a_sidecar_that_another_process_holds_is_busy(array: Array, hold: Callable[[Path], None]) -> None:
    hold(array.sidecar)
    for verb in (array.restore, array.protect, lambda: verify_memmap(array.arr, array.key)):
        with pytest.raises(BusyError, match=re.escape(f"The sidecar {array.sidecar} is in use")):
            verb()
    assert array.path.read_bytes() == array.protected


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


def test_of_two_threads_one_wins(array: Array) -> None:
    array.restore()
    at_work, go_on = threading.Event(), threading.Event()
    states = []

    def wait(done: int, total: int) -> None:
        at_work.set()
        assert go_on.wait(60)

    def work() -> None:
        states.append(protect_memmap(array.arr, np.arange(11) % 3, array.key, recipe=SMALL, progress=wait).state)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert at_work.wait(60)
        second = np.load(array.path, mmap_mode="r+")
        for verb in (
            lambda: protect_memmap(second, np.arange(11) % 3, array.key, recipe=SMALL),
            lambda: restore_memmap(second, array.key),
            lambda: verify_memmap(second, array.key),
            # Another sidecar does not make it another file.
            lambda: protect_memmap(
                second, np.arange(11) % 3, array.key, recipe=SMALL, sidecar=array.path.with_name("other")
            ),
        ):
            with pytest.raises(BusyError, match=re.escape(f"{array.path} is in use")):
                verb()
    finally:
        go_on.set()
        thread.join()
    assert states == ["protected"]
    assert array.path.read_bytes() == array.protected
    assert not array.path.with_name("other").exists()


def test_many_threads_protect_once(array: Array) -> None:
    array.restore()
    barrier = threading.Barrier(8, timeout=20)
    outcomes = []

    def work() -> None:
        arr = np.load(array.path, mmap_mode="r+")
        barrier.wait()
        try:
            outcomes.append(protect_memmap(arr, np.arange(11) % 3, array.key, recipe=SMALL).state)
        except BusyError:
            outcomes.append("busy")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 8
    assert outcomes.count("protected") == 1
    assert set(outcomes) <= {"protected", "already protected", "busy"}
    assert array.path.read_bytes() == array.protected
