"""A file of sealed records, each durable before the next, of which nothing is believed before it is authenticated.

It knows bytes, not audio. FORMAT.md, "Sidecar", defines it to the bit.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hmac
import itertools
import os
import secrets
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from poscuda_fast import disk
from poscuda_fast.errors import BusyError, SidecarError
from poscuda_fast.key import Key

MAGIC = b"POSCUDA\x02"
SECTOR = 512  # bytes that a disk writes whole or not at all
MOST_BYTES = 1 << 26  # in a record
SALT_BYTES = 32  # of a session
SESSION = 0  # the kind of the records that begin a session; the caller's kinds are 1 to 255

_TAG = 16  # bytes in a tag
_HEADER = struct.Struct(f"8s8s12s{32 + _TAG}s")  # magic, fingerprint, nonce, wrapped key
_HEAD = struct.Struct(f">QIB3x{_TAG}s")  # number, bytes in the body, kind, tag


class Record(NamedTuple):
    """What was sealed, and the place from which `Log.records` can read it again; secret."""

    kind: int
    payload: bytes
    place: Bookmark

    def __repr__(self) -> str:
        return f"Record(kind {self.kind}, {len(self.payload)} bytes)"


class Bookmark(NamedTuple):
    """Where a record begins, its number, the tag before it, and what opens its session."""

    begin: int
    number: int
    tag: bytes
    cipher: ChaCha20Poly1305 | None

    def __repr__(self) -> str:
        return f"Bookmark({self.number})"


class _Place(NamedTuple):
    """Where a record lies, as its authenticated head says."""

    number: int
    kind: int
    head: bytes
    begin: int  # of its body
    end: int


class Log:
    """An existing log, locked against every other process until `close`.

    A last record that a crash tore is left out, and is cut off before another is appended. Where the file may only be
    read, so may the log.

    Raises
    ------
    SidecarError
        The file is no log, was made with another key, or is damaged.
    BusyError
        It is open in another process.
    OSError
        It cannot be read or written.
    """

    def __init__(self, path: Path, key: Key) -> None:
        self.path = path
        self._process = os.getpid()
        self._file = _open(path)
        try:
            self._keys = _Keys(path, key, os.pread(self._file.fileno(), _HEADER.size, 0))
            self._end = os.fstat(self._file.fileno()).st_size
            self._last, self._end, number, tag = self._find_end()
        except BaseException:
            self.close()
            raise
        self._seal = _Seal(self._keys, number, tag)  # a session of its own: no nonce is ever used twice
        self._unwritten = self._seal.beginning

    @classmethod
    def create(cls, path: Path, key: Key, *records: tuple[int, bytes], replacing: bool = False) -> Log:
        """A new log, which appears at `path` once its first records, each a kind and a payload, are durable.

        FileExistsError if the name is taken, unless `replacing`.
        """
        header = _new_header(key)
        keys = _Keys(path, key, header)
        seal = _Seal(keys, 0, keys.tag)
        with disk.appearing(path, mode=0o600, replacing=replacing) as file:
            _lock(file.fileno(), path)  # before it appears: where there are no locks, nothing is written
            file.write(b"".join([header, seal.beginning, *(seal(*record) for record in records)]))
        return cls(path, key)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file and its lock."""
        self._file.close()

    def records(self, *kinds: int, since: Bookmark | None = None) -> Iterator[Record]:
        """Every record that was durable when the log was opened, or appended since, from the first.

        With `kinds` only these, and the others are not read; with `since` from that record on.
        """
        at = since or Bookmark(_HEADER.size, 0, self._keys.tag, None)
        tag, cipher = at.tag, at.cipher
        for place in self._places(at.begin, at.number):
            if place.kind == SESSION:
                body = self._read(place.begin, place.end)
                cipher = self._session_of(place, tag)
                if cipher is None:
                    raise _damaged(self.path, f"record {place.number} was changed")
            elif not kinds or place.kind in kinds:
                body = self._read(place.begin, place.end)
                try:
                    payload = _opened(cipher, place, body, tag)
                except InvalidTag:
                    raise _damaged(self.path, f"record {place.number} was changed") from None
                yield Record(place.kind, payload, Bookmark(place.begin - _HEAD.size, place.number, tag, cipher))
            else:
                body = self._read(place.end - _TAG, place.end)
            tag = body[-_TAG:]

    def refuse_read_only(self) -> None:
        """SidecarError if the file, or its file system, may only be read."""
        if fcntl.fcntl(self._file.fileno(), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise SidecarError(
                f"The sidecar {self.path} may only be read, and what is done to the data is recorded in it. Make it "
                f"writable (chmod u+w), or copy it to where it may be written and name the copy (sidecar=PATH). "
                f"Nothing was written."
            )

    def destroy_key(self) -> None:
        """Overwrite the wrapped key, durably: nothing in the file can be opened again. The log is then closed."""
        descriptor = self._file.fileno()
        try:
            self.refuse_read_only()
            os.lseek(descriptor, _HEADER.size - 32 - _TAG, os.SEEK_SET)
            disk.write_all(descriptor, secrets.token_bytes(32 + _TAG))
            os.fsync(descriptor)
        finally:
            self.close()

    def settle(self) -> None:
        """Make durable what is there, with its name.

        A process that was killed may not have come to do that. Or it failed, and the system takes the last append to be
        on the disk: only what is written again is.
        """
        disk.refuse_fork(self._process)
        descriptor = self._file.fileno()
        os.lseek(descriptor, self._last, os.SEEK_SET)
        disk.write_all(descriptor, self._read(self._last, self._end))
        os.fsync(descriptor)
        disk.sync_folder(self.path.absolute().parent)

    def append(self, kind: int, payload: bytes) -> None:
        """Add a record, which is durable on return. After an error the log must be opened again."""
        disk.refuse_fork(self._process)
        descriptor = self._file.fileno()
        with contextlib.ExitStack() as closing:
            closing.callback(self.close)
            if self._unwritten:
                os.ftruncate(descriptor, self._end)  # what a crash tore
                os.fsync(descriptor)
            added = self._unwritten + self._seal(kind, payload)
            os.lseek(descriptor, self._end, os.SEEK_SET)
            disk.write_all(descriptor, added)
            os.fsync(descriptor)
            closing.pop_all()
        self._unwritten = b""
        self._end += len(added)

    def _places(self, begin: int = _HEADER.size, number: int = 0) -> Iterator[_Place]:
        """The records by their heads alone, from one on, up to the first that is not there as a whole.

        What a crash tore behind the last of them may be cut off meanwhile, by a thread that appends.
        """
        while begin + _HEAD.size <= self._end:
            place = self._keys.place(self._read(begin, begin + _HEAD.size), begin, number)
            if place is None or place.end > self._end:
                return
            yield place
            begin, number = place.end, number + 1

    def _find_end(self) -> tuple[int, int, int, bytes]:
        """Where the last append begins and ends, how many records there are, and the tag of the last.

        SidecarError if what follows, or the last record, is not what a crash leaves of one append. The bodies of those
        before it are left to `records`.
        """
        end, number, tag = _HEADER.size, 0, self._keys.tag
        cipher, last = None, None
        append = end
        for place in self._places():
            if place.kind == SESSION:
                cipher = self._session_of(place, tag)
                if cipher is None:
                    break
            if place.kind == SESSION or last is None or last[0].kind != SESSION:  # else both were appended at once
                append = end
            last = place, cipher, (end, number, tag)
            end, number, tag = place.end, place.number + 1, self._read(place.end - _TAG, place.end)
        if last is not None and last[0].kind != SESSION:
            place, cipher, before = last
            try:
                _opened(cipher, place, self._read(place.begin, place.end), before[2])
            except InvalidTag:
                end, number, tag = before
        if number < 2:
            raise _damaged(self.path, "its first record is missing")
        self._refuse_unless_torn(end, number)
        return append, end, number, tag

    def _session_of(self, place: _Place, tag: bytes) -> ChaCha20Poly1305 | None:
        try:
            return self._keys.session(place.head, self._read(place.begin, place.end), tag)
        except InvalidTag:
            return None

    def _refuse_unless_torn(self, begin: int, number: int) -> None:
        """SidecarError if there is anything from `begin` on but an append of which some sectors are missing.

        `number` is that of its first record.
        """
        size = os.fstat(self._file.fileno()).st_size
        if size - begin < _HEAD.size:
            return
        place = self._place_at(begin)
        if place is not None and place.end > size:
            return
        if size - begin <= MOST_BYTES + SECTOR:
            edges = [begin, *range(begin // SECTOR * SECTOR + SECTOR, size, SECTOR), size]
            tail, own = self._read(begin, size), [*self._zeros_of_numbers(begin, number)]
            missing = [(a, b) for a, b in itertools.pairwise(edges) if not any(tail[a - begin : b - begin])]
            if any(not any(low <= a and b <= high for low, high in own) for a, b in missing):
                return
        raise _damaged(self.path, "its last record was changed")

    def _zeros_of_numbers(self, begin: int, number: int) -> Iterator[tuple[int, int]]:
        """Where zeros lie in an append because the numbers of its records begin with them: they are not missing."""
        yield begin, begin + _leading_zeros(number)
        second = begin + _HEAD.size + SALT_BYTES + _TAG  # a session was begun, and then a record was appended
        first = self._place_at(begin)
        if (first is not None and first.kind == SESSION) or self._place_at(second) is not None:
            yield second, second + _leading_zeros(number + 1)

    def _place_at(self, begin: int) -> _Place | None:
        """The record whose head lies there and authenticates."""
        if begin + _HEAD.size > os.fstat(self._file.fileno()).st_size:
            return None
        return self._keys.place(self._read(begin, begin + _HEAD.size), begin, None)

    def _read(self, begin: int, end: int) -> bytes:
        disk.refuse_fork(self._process)
        found = bytearray()
        while len(found) < end - begin:
            some = os.pread(self._file.fileno(), end - begin - len(found), begin + len(found))
            if not some:
                raise _damaged(self.path, "it became shorter while it was read")
            found += some
        return bytes(found)


class _Keys:
    """What authenticates a log; secret."""

    def __init__(self, path: Path, key: Key, header: bytes) -> None:
        if len(header) < _HEADER.size or not header.startswith(MAGIC):
            raise _foreign(path)
        _, fingerprint, nonce, wrapped = _HEADER.unpack(header)
        if fingerprint.hex() != key.fingerprint:
            raise SidecarError(
                f"The sidecar {path} was made with the key of fingerprint {fingerprint.hex()}, and this one has "
                f"{key.fingerprint}; give that key."
            )
        try:
            self._journal = _wrapper(key).decrypt(nonce, wrapped, header[: -len(wrapped)])
        except InvalidTag:
            raise _damaged(path, "its header was changed") from None
        self._head = self._derive(b"head")
        self.tag = wrapped[-_TAG:]

    def __repr__(self) -> str:
        return "_Keys()"

    def head(self, number: int, kind: int, length: int) -> bytes:
        """The head of a record with a body of so many bytes."""
        plain = _HEAD.pack(number, length, kind, b"")[:-_TAG]
        return plain + hmac.digest(self._head, plain, "sha256")[:_TAG]

    def place(self, head: bytes, begin: int, number: int | None) -> _Place | None:
        """Where record `number`, or any, lies whose head is at `begin`; None if this is not its head."""
        found, length, kind, _ = _HEAD.unpack(head)
        if number not in (None, found) or not hmac.compare_digest(head, self.head(found, kind, length)):
            return None
        return _Place(found, kind, head, begin + _HEAD.size, begin + _HEAD.size + length)

    def session(self, head: bytes, body: bytes, tag: bytes) -> ChaCha20Poly1305:
        """What opens the records of a session; InvalidTag if its record was changed."""
        salt, found = body[:-_TAG], body[-_TAG:]
        if not hmac.compare_digest(found, self.session_tag(head, salt, tag)):
            raise InvalidTag
        return ChaCha20Poly1305(self._derive(b"session" + salt))

    def session_tag(self, head: bytes, salt: bytes, tag: bytes) -> bytes:
        """The tag of the record that begins a session, after a record with the tag `tag`."""
        return hmac.digest(self._derive(b"begin" + salt), head + tag, "sha256")[:_TAG]

    def _derive(self, purpose: bytes) -> bytes:
        return HKDFExpand(algorithm=SHA256(), length=32, info=purpose).derive(self._journal)


class _Seal:
    """Seals the records of one session, in order."""

    def __init__(self, keys: _Keys, number: int, tag: bytes) -> None:
        self._keys, self._number = keys, number + 1
        salt = secrets.token_bytes(SALT_BYTES)
        head = keys.head(number, SESSION, len(salt) + _TAG)
        self._tag = keys.session_tag(head, salt, tag)
        self._cipher = keys.session(head, salt + self._tag, tag)
        self.beginning = head + salt + self._tag  # the record that begins the session

    def __call__(self, kind: int, payload: bytes) -> bytes:
        """The next record."""
        if not 0 < kind < 256 or len(payload) > MOST_BYTES:
            raise ValueError(f"kind is {kind} and the payload has {len(payload)} bytes; at most 255 and {MOST_BYTES}")
        head = self._keys.head(self._number, kind, len(payload) + _TAG)
        body = self._cipher.encrypt(_nonce(self._number), payload, head + self._tag)
        self._number, self._tag = self._number + 1, body[-_TAG:]
        return head + body


def _opened(cipher: ChaCha20Poly1305 | None, place: _Place, body: bytes, tag: bytes) -> bytes:
    """The payload of a record that follows one with the tag `tag`; InvalidTag if it was changed."""
    if cipher is None:
        raise InvalidTag
    return cipher.decrypt(_nonce(place.number), body, place.head + tag)


def _new_header(key: Key) -> bytes:
    """A header with a random journal key."""
    nonce = secrets.token_bytes(12)
    plain = MAGIC + bytes.fromhex(key.fingerprint) + nonce
    return plain + _wrapper(key).encrypt(nonce, secrets.token_bytes(32), plain)


def _wrapper(key: Key) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(key.derive(b"sidecar", b"wrap", length=32))


def _leading_zeros(number: int) -> int:
    """Bytes of zeros with which a number begins in a head."""
    return 8 - (number.bit_length() + 7) // 8


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _foreign(path: Path) -> SidecarError:
    return SidecarError(f"{path} is not a sidecar of this version; move it away, or restore a backup of it.")


def _damaged(path: Path, what: str) -> SidecarError:
    return SidecarError(f"The sidecar {path} is damaged: {what}. Restore a backup of it. Nothing was written.")


def _open(path: Path) -> disk.Descriptor:
    """A locked descriptor of a regular file of the user's own."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe does not wait for its other end
    try:
        opened = disk.Descriptor(path, os.O_RDWR | flags)
    except PermissionError:
        opened = disk.Descriptor(path, os.O_RDONLY | flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise SidecarError(
                f"The sidecar {path} is a link; it is not followed. Give the path of the file."
            ) from None
        if error.errno == errno.EISDIR:
            raise SidecarError(f"The sidecar {path} is a folder, not a file; it is not used.") from None
        if error.errno != errno.EROFS:
            raise
        opened = disk.Descriptor(path, os.O_RDONLY | flags)
    with contextlib.ExitStack() as closing:
        closing.callback(opened.close)
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise SidecarError(f"The sidecar {path} is not a regular file of your own; it is not used.")
        _lock(opened.fileno(), path)
        closing.pop_all()
    return opened


def _lock(descriptor: int, path: Path) -> None:
    """Lock a sidecar that is open; SidecarError if that cannot be done."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if os.pread(descriptor, len(MAGIC), 0) != MAGIC:  # the data themselves, for one
            raise _foreign(path) from None
        raise BusyError(f"The sidecar {path} is in use: another run is at work. Wait for it to end.") from None
    except OSError as error:
        if error.errno not in disk.NO_LOCKS:
            raise
        raise SidecarError(
            f"The sidecar {path} lies on a file system that gives no locks ({error.strerror}), and two runs at once "
            f"would spoil it. Mount it with locks (Lustre: -o flock), or give a path elsewhere (sidecar=PATH). "
            f"Nothing was written."
        ) from None
