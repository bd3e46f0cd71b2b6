"""The sealed undo journal beside the data: a SQLite file of originals that only the key can open.

It knows batches and bytes, not audio. FORMAT.md, "Sidecar", says what is kept and why that is enough for crash recovery
and for undo.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from poscuda_fast import disk
from poscuda_fast.errors import BusyError, SidecarError
from poscuda_fast.key import Key

SIDECAR = ".poscuda"
APPLICATION_ID = int.from_bytes(b"PCFJ", "big")
VERSION = 1
SCHEMA = {
    "run": (
        "CREATE TABLE run (id INTEGER PRIMARY KEY CHECK (id = 1), header BLOB NOT NULL, wrapped BLOB NOT NULL, "
        "state TEXT NOT NULL, summary BLOB NOT NULL, tag BLOB NOT NULL)"
    ),
    "batch": "CREATE TABLE batch (number INTEGER PRIMARY KEY, session BLOB NOT NULL, sealed BLOB NOT NULL)",
}
_NONCE_BYTES = 12


class State(str, enum.Enum):
    """The state of a run; the order in which states are committed makes a crash harmless."""

    NEW = "new"
    APPLYING = "applying"
    COMPLETE = "complete"
    UNDOING = "undoing"
    UNDONE = "undone"
    FINAL = "final"  # complete, and the originals are gone


def sidecar_of(data: Path, *, folder: bool) -> Path:
    """The default path of a sidecar: inside a folder, beside a file."""
    return data / SIDECAR if folder else data.with_name(data.name + SIDECAR)


class Journal:
    """A sidecar, locked against every other process until `close`; `begin` makes it if it does not exist.

    Attributes
    ----------
    state : State
        The state that the sidecar records, authenticated.
    key : Key
        The key that seals it.
    header : dict
        Describes the run and its data: authenticated, readable without the key, and without secrets.
    secret : bytes
        The sealed part of that description.
    summary : dict
        Counts stored with the last state, and the number of batches once it is known.
    """

    def __init__(self, path: Path, key: Key) -> None:
        self.path = path
        self.state = State.NEW
        self.header: dict[str, Any] = {}
        self.secret = b""
        self.summary: dict[str, Any] = {}
        self.key = key
        self._journal_key = b""
        self._header_bytes = b""
        self._wrapped = b""
        self._session = secrets.token_bytes(16)  # a fresh one at every open: no nonce is ever used twice
        self._connection: sqlite3.Connection | None = None
        if os.path.lexists(path):
            self._open()

    def _open(self) -> None:
        self._connection = _connect(self.path)
        try:
            # A run that was stopped before it began leaves an empty file; anything else must be complete.
            if os.stat(self.path).st_size:
                self._check_schema()
                self._read_run()
        except BaseException as error:
            self.close()
            if isinstance(error, _FROM_SQLITE):
                raise _translate(self.path, error) from None
            raise

    @property
    def _database(self) -> sqlite3.Connection:
        if self._connection is None:
            raise SidecarError(
                f"There is no sidecar at {self.path}; without it the originals cannot be put back and a run cannot "
                f"be recognised. If it was moved, give its path."
            )
        return self._connection

    def begin(self, header: dict[str, Any], secret: bytes) -> None:
        """Start a run: commit state APPLYING, and in the same transaction drop what an undone run left."""
        if self.state not in (State.NEW, State.UNDONE):
            raise SidecarError(f"The sidecar {self.path} is in state {self.state.value}; a run is already there.")
        if self._connection is None:
            _create(self.path)
            self._open()
        self.header = {**header, "run": secrets.token_hex(16), "fingerprint": self.key.fingerprint}
        self.secret = secret
        self._header_bytes = json.dumps(self.header, sort_keys=True).encode()
        self._journal_key = secrets.token_bytes(32)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._wrapper().encrypt(nonce, self._journal_key + secret, self._header_bytes)
        self._wrapped = nonce + sealed
        with self._transaction() as database:
            if self.state is State.NEW:
                database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                database.execute(f"PRAGMA user_version = {VERSION}")
                for statement in SCHEMA.values():
                    database.execute(statement)
            _drop_batches(database)
            database.execute("DELETE FROM run")
            self._write_state(State.APPLYING, {"batches": 0})
        self.state, self.summary = State.APPLYING, {"batches": 0}

    def append(self, payload: bytes) -> None:
        """Seal one batch of originals and commit it; on return it is durable."""
        session, self._session = self._session, secrets.token_bytes(16)
        with self._transaction() as database:
            number = self.n_batches()
            sealed = self._cipher(session).encrypt(_nonce(number), payload, self._context(number, session))
            database.execute("INSERT INTO batch VALUES (?, ?, ?)", (number, session, sealed))
            self._write_state(State.APPLYING, {"batches": number + 1})
        self.summary = {"batches": number + 1}
        self._session = session  # only now: after a failed commit the number is used again, with another session

    def n_batches(self) -> int:
        """Batches that are durable."""
        return int(self._database.execute("SELECT count(*) FROM batch").fetchone()[0])

    def payloads(self) -> Iterator[bytes]:
        """Every batch that `append` committed, decrypted, in order."""
        for number in range(self.n_batches()):
            yield self.payload(number)

    def payload(self, number: int) -> bytes:
        """One batch that `append` committed, decrypted."""
        try:
            row = self._database.execute("SELECT session, sealed FROM batch WHERE number = ?", (number,)).fetchone()
            session, sealed = row
            return self._cipher(session).decrypt(_nonce(number), sealed, self._context(number, session))
        except _FROM_SQLITE as error:
            raise _translate(self.path, error) from None
        except (InvalidTag, TypeError, ValueError):
            raise SidecarError(f"Batch {number} of the sidecar {self.path} is damaged; restore a backup.") from None

    def move(self, state: State, summary: dict[str, Any] | None = None) -> None:
        """Commit a new state, with its counts."""
        fields = {**self.summary, **(summary or {}), "batches": self.n_batches()}
        with self._transaction():
            self._write_state(state, fields)
        self.state, self.summary = state, fields

    def make_final(self) -> None:
        """Destroy the originals and the key that seals them; the file still records what was done."""
        if self.state not in (State.COMPLETE, State.FINAL):
            raise SidecarError(
                f"The run in {self.path} is in state {self.state.value}; only a finished run can be made final. "
                f"Finish protecting first. Nothing was written."
            )
        if self.state is State.COMPLETE:
            summary = {**self.summary, "batches": 0}
            with self._transaction() as database:
                _drop_batches(database)
                self._wrapped = b""
                self._write_state(State.FINAL, summary)
            self.state, self.summary = State.FINAL, summary
            self._journal_key = self.secret = b""
        try:
            self._database.execute("VACUUM")  # also if already final: a crash before this left the file large
        except _FROM_SQLITE as error:
            raise _translate(self.path, error) from None

    def close(self) -> None:
        """Release the lock."""
        if self._connection is None:
            return
        try:
            with contextlib.suppress(*_FROM_SQLITE):  # removes SQLite's empty rollback journal
                self._connection.execute("PRAGMA journal_mode = DELETE").fetchall()
        finally:
            self._connection.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Journal({str(self.path)!r}, state={self.state.value!r})"

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """BEGIN, then a durable COMMIT, or ROLLBACK on an error."""
        database = self._database
        try:
            database.execute("BEGIN")
            yield database
            database.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(*_FROM_SQLITE):
                database.execute("ROLLBACK")
            if isinstance(error, _FROM_SQLITE):
                raise _translate(self.path, error) from None
            raise

    def _check_schema(self) -> None:
        """Refuse anything but exactly our tables: a foreign schema could run code of its own."""
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if self._database.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise SidecarError(f"{self.path} is a SQLite file of another program, not a sidecar; move it away.")
        if version != VERSION:
            raise SidecarError(
                f"The sidecar {self.path} has format {version}; this version reads format {VERSION}. "
                f"Use the version of poscuda-fast that made it, or a newer one."
            )
        found = self._database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
        if sorted(found) != sorted(("table", name, name, sql) for name, sql in SCHEMA.items()):
            raise SidecarError(f"The sidecar {self.path} has tables that this library did not make; it is not used.")

    def _read_run(self) -> None:
        rows = self._database.execute("SELECT header, wrapped, state, summary, tag FROM run").fetchall()
        if not rows:
            raise SidecarError(f"The sidecar {self.path} has lost its run; restore it from a backup.")
        header, wrapped, state, summary, tag = rows[0]
        refusal = SidecarError(
            f"The sidecar {self.path} was not made with the key {self.key.fingerprint}, or it is damaged; "
            f"give the key that protected the data. Nothing was written."
        )
        if [type(field) for field in (header, wrapped, state, summary, tag)] != [bytes, bytes, str, bytes, bytes]:
            raise refusal
        if not hmac.compare_digest(tag, self._tag(header, wrapped, state, summary)):
            raise refusal
        self._header_bytes, self._wrapped, self.state = header, wrapped, State(state)
        self.header, self.summary = json.loads(header), json.loads(summary)
        if self.state is not State.FINAL:
            try:
                opened = self._wrapper().decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], header)
            except InvalidTag:
                raise refusal from None
            self._journal_key, self.secret = opened[:32], opened[32:]
        last = self._database.execute("SELECT max(number) FROM batch").fetchone()[0]
        n_batches = self.n_batches()
        if not n_batches == self.summary["batches"] == (0 if last is None else last + 1):
            raise SidecarError(f"The sidecar {self.path} has lost batches; restore it from a backup.")

    def _write_state(self, state: State, summary: dict[str, Any]) -> None:
        fields = json.dumps(summary, sort_keys=True).encode()
        tag = self._tag(self._header_bytes, self._wrapped, state.value, fields)
        self._database.execute(
            "INSERT OR REPLACE INTO run VALUES (1, ?, ?, ?, ?, ?)",
            (self._header_bytes, self._wrapped, state.value, fields, tag),
        )

    def _tag(self, header: bytes, wrapped: bytes, state: str, summary: bytes) -> bytes:
        mac = hmac.new(self.key.derive(b"sidecar", b"tag", length=32), digestmod=hashlib.sha256)
        for field in (header, wrapped, state.encode(), summary):
            mac.update(len(field).to_bytes(8, "big") + field)
        return mac.digest()

    def _wrapper(self) -> ChaCha20Poly1305:
        return ChaCha20Poly1305(self.key.derive(b"sidecar", b"wrap", length=32))

    def _cipher(self, session: bytes) -> ChaCha20Poly1305:
        expand = HKDFExpand(algorithm=SHA256(), length=32, info=b"session" + session)
        return ChaCha20Poly1305(expand.derive(self._journal_key))

    def _context(self, number: int, session: bytes) -> bytes:
        """What a sealed batch is bound to: the run's header, the session and the batch's number."""
        return hashlib.sha256(self._header_bytes).digest() + session + number.to_bytes(8, "big")


def _drop_batches(database: sqlite3.Connection) -> None:
    """Delete all batches without overwriting their bytes: the same commit drops the key that opens them."""
    database.execute("PRAGMA secure_delete = FAST").fetchall()
    database.execute("DELETE FROM batch")
    database.execute("PRAGMA secure_delete = ON").fetchall()


def _nonce(number: int) -> bytes:
    return number.to_bytes(_NONCE_BYTES, "big")


def _create(path: Path) -> None:
    """An empty file under a new name."""
    if not path.absolute().parent.is_dir():
        raise SidecarError(f"The folder of the sidecar {path} does not exist; make it, or choose another path.")
    try:
        disk.create(path, b"", mode=0o600)
    except FileExistsError:
        raise BusyError(f"The sidecar {path} appeared just now; another run is at work on this data.") from None


def _connect(path: Path) -> sqlite3.Connection:
    """An exclusive connection to an existing file."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise SidecarError(f"The sidecar {path} is not a regular file; it is not used.")
    # Only SQLite opens the file: closing any other descriptor of it would drop SQLite's POSIX locks.
    uri = f"file:{quote(os.fsencode(path.absolute()))}"
    _refuse_foreign(path, uri)
    try:
        database = sqlite3.connect(f"{uri}?mode=rw", uri=True, timeout=0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise _translate(path, error) from None
    try:
        for pragma in (
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "locking_mode = EXCLUSIVE",
            "journal_mode = TRUNCATE",
            "synchronous = EXTRA",
            "secure_delete = ON",  # a replaced run row holds the wrapped journal key
        ):
            database.execute(f"PRAGMA {pragma}").fetchall()
        database.execute("BEGIN EXCLUSIVE")
        database.execute("ROLLBACK")  # keeps the lock; a COMMIT would write a page into an empty file
    except BaseException as error:
        database.close()
        if isinstance(error, _FROM_SQLITE):
            raise _translate(path, error) from None
        raise
    return database


def _refuse_foreign(path: Path, uri: str) -> None:
    """SidecarError for another program's database, before anything can change it."""
    rollback = path.with_name(path.name + "-journal")
    if os.stat(path).st_size == 0 or (rollback.exists() and rollback.stat().st_size):
        return  # empty, or a crash cut off a commit, which SQLite will undo
    try:
        found = _application_of(f"{uri}?mode=ro&immutable=1")
    except _FROM_SQLITE:
        try:  # immutable takes no lock: another run may be in the middle of its first commit
            found = _application_of(f"{uri}?mode=ro")
        except _FROM_SQLITE as error:
            raise _translate(path, error) from None
    if found != APPLICATION_ID:
        raise SidecarError(f"{path} is not a sidecar, or it is damaged; move it away or restore a backup.")


def _application_of(uri: str) -> Any:
    """The program that a database says it belongs to."""
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=0)) as database:
        return database.execute("PRAGMA application_id").fetchone()[0]


# Where a damaged file's text is not UTF-8, sqlite3 fails to decode SQLite's message about it.
_FROM_SQLITE = (sqlite3.DatabaseError, UnicodeDecodeError)


def _translate(path: Path, error: BaseException) -> SidecarError | OSError:
    """An error of SQLite as one of this library's."""
    text = str(error)
    if "locked" in text:
        return BusyError(f"The sidecar {path} is in use: another run is at work on this data. Wait for it to end.")
    if isinstance(error, sqlite3.OperationalError) and ("disk" in text or "open" in text or "readonly" in text):
        return OSError(f"The sidecar {path} cannot be read or written: {text}.")
    return SidecarError(f"The sidecar {path} is damaged or not a sidecar ({text[:200]}); restore a backup.")
