"""The sidecar of a run, as records of a sealed log (FORMAT.md, "Sidecar").

It knows records and states, not audio, nor what the data are now: `steps` asks the data.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import secrets
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from poscuda_fast import disk
from poscuda_fast.errors import BusyError, SidecarError
from poscuda_fast.key import Key
from poscuda_fast.undo.log import Bookmark, Log, Record

SIDECAR = ".poscuda"
ZARR_METADATA = "zarr.json"
MANIFEST = f"{SIDECAR}.json"  # both behind the name of the data


class Kind(enum.IntEnum):
    """The kinds of records in a sidecar."""

    BEGIN = 1  # what is done to which data; of a run in place also which batch comes first
    BATCH = 2  # how to tell the originals of a batch, and which batch comes next
    STATE = 3
    TORN = 4  # the original of a block that a crash left half written
    OUTPUTS = 5  # files of a copy
    MORE = 6  # a run that was finished goes on with new files


class State(str, enum.Enum):
    """What a run was last known to do. The data decide what they are; this only says whether a run ended."""

    NEW = "new"
    APPLYING = "applying"
    COMPLETE = "complete"
    UNDOING = "undoing"
    UNDONE = "undone"
    FINAL = "final"  # complete, and what undo needs is gone


def sidecar_of(data: Path) -> Path:
    """The default path of a sidecar: beside the file or folder, and never inside what may be published."""
    return beside(data, SIDECAR)


def manifest_of(data: Path) -> Path:
    """The path of a manifest: beside the file or folder."""
    return beside(data, MANIFEST)


def beside(data: Path, suffix: str) -> Path:
    """A path beside data; of an array in a Zarr group, beside the outermost group, with the names of all in it."""
    outermost, name = data, data.name
    while (outermost.parent / ZARR_METADATA).is_file():
        outermost = outermost.parent
        name = f"{outermost.name}.{name}"
    return outermost.with_name(name + suffix)


class Journal:
    """A sidecar, locked against every other process until `close`; `begin` makes it if it does not exist.

    Attributes
    ----------
    state : State
        The last state that was recorded.
    key : Key
        The key that seals it.
    header : dict
        Describes the run and its data; sealed.
    summary : dict
        Counts stored with the last state.
    """

    def __init__(self, path: Path, key: Key) -> None:
        self.path = path
        self.key = key
        self.state = State.NEW
        self.header: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self._log: Log | None = None
        if os.path.lexists(path):
            self._log = Log(path, key)
            try:
                self._read()
            except BaseException:
                self.close()
                raise

    def begin(self, header: dict[str, Any], rest: bytes = b"") -> None:
        """Start a run in state APPLYING, durably: in a new file, which replaces that of a run that was undone."""
        if self.state not in (State.NEW, State.UNDONE):
            raise SidecarError(f"The sidecar {self.path} is in state {self.state.value}; a run is already there.")
        if not self.path.absolute().parent.is_dir():
            raise SidecarError(
                f"The folder of the sidecar {self.path} does not exist; make it, or choose another path."
            )
        header = {**header, "run": secrets.token_hex(16)}
        old = self._log
        try:
            first = Kind.BEGIN, pack_json(header) + rest
            self._log = Log.create(self.path, self.key, first, replacing=old is not None)
        except FileExistsError:
            raise BusyError(
                f"The sidecar {self.path} appeared just now; another run is at work on this data."
            ) from None
        if old is not None:
            old.close()
        self.header, self.state, self.summary = header, State.APPLYING, {}

    def extend(self, header: dict[str, Any], rest: bytes) -> None:
        """Go on in state APPLYING with a header that replaces the one before, durably."""
        header = {**header, "run": self.header["run"]}
        self.append(Kind.MORE, pack_json(header) + rest)
        self.header, self.state = header, State.APPLYING

    def refuse_read_only(self) -> None:
        """SidecarError if there is a sidecar, and it may only be read."""
        if self._log is not None:
            self._log.refuse_read_only()

    def settle(self) -> None:
        """Make durable what a killed run recorded, before data are changed by it."""
        self._opened.settle()

    def append(self, kind: Kind, payload: bytes) -> None:
        """Seal one record; on return it is durable."""
        self._opened.append(kind, payload)

    def records(self, *kinds: Kind, since: Bookmark | None = None) -> Iterator[Record]:
        """The records of some kinds, opened, in order."""
        if self._log is not None:
            yield from self._log.records(*kinds, since=since)

    def move(self, state: State, summary: dict[str, Any] | None = None) -> None:
        """Record a new state, with its counts, durably."""
        fields = {**self.summary, **(summary or {})}
        self.append(Kind.STATE, _pack_state(state, fields))
        self.state, self.summary = state, fields

    def make_final(self) -> None:
        """Destroy what undo keeps and the key that seals it; a new file still records what was done.

        The old file keeps a hidden name until its key is overwritten, so that a call that was killed can be made again.
        """
        if self.state not in (State.COMPLETE, State.FINAL):
            raise SidecarError(
                f"The run in {self.path} is in state {self.state.value}; only a finished run can be made final. "
                f"Finish protecting first. Nothing was written."
            )
        hidden = disk.part_of(self.path)
        if self.state is State.COMPLETE:
            log = self._opened
            log.refuse_read_only()
            hidden.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a file system without links
                os.link(self.path, hidden)
            begun = Kind.BEGIN, pack_json(self.header)
            ended = Kind.STATE, _pack_state(State.FINAL, self.summary)
            self._log = Log.create(self.path, self.key, begun, ended, replacing=True)
            self.state = State.FINAL
            log.destroy_key()
        elif hidden.is_file():
            with contextlib.suppress(SidecarError):  # its key was overwritten just before the call was killed
                Log(hidden, self.key).destroy_key()
        hidden.unlink(missing_ok=True)
        disk.sync_folder(self.path.absolute().parent)

    def close(self) -> None:
        """Release the lock."""
        if self._log is not None:
            self._log.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Journal({str(self.path)!r}, state={self.state.value!r})"

    @property
    def _opened(self) -> Log:
        if self._log is None:
            raise SidecarError(f"There is no sidecar at {self.path}; if it was moved, give its path.")
        return self._log

    def _read(self) -> None:
        """Take header and state from the records."""
        for record in self.records(Kind.BEGIN, Kind.STATE, Kind.MORE):
            fields, _ = unpack_json(record.payload)
            if record.kind == Kind.STATE:
                self.state, self.summary = State(fields["state"]), fields["summary"]
            else:
                self.header, self.state = fields, State.APPLYING


def _pack_state(state: State, summary: dict[str, Any]) -> bytes:
    return pack_json({"state": state.value, "summary": summary})


def pack_json(fields: Any) -> bytes:
    """A JSON value with its length before it."""
    text = json.dumps(fields, separators=(",", ":")).encode()
    return struct.pack("<I", len(text)) + text


def unpack_json(payload: bytes | memoryview) -> tuple[Any, memoryview]:
    """What `pack_json` packed, and the bytes behind it."""
    view = memoryview(payload)
    (size,) = struct.unpack_from("<I", view)
    return json.loads(bytes(view[4 : 4 + size])), view[4 + size :]
