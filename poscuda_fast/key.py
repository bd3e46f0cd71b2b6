"""The private key: where it comes from, how it is kept, what is derived from it (FORMAT.md, "Secrets")."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import stat
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from poscuda_fast import disk
from poscuda_fast.errors import KeyFileError
from poscuda_fast.secrecy import Secret, discreet

SALT = b"poscuda-fast/1"
MASTER_BYTES = 32
MAX_FILE_BYTES = 4096
KEY_PREFIX = "POSCUDA-KEY-1:"
_KEY_LINE = re.compile(KEY_PREFIX + "([A-Za-z0-9_-]{48})")
_IN_A_FILE = re.compile(KEY_PREFIX.encode() + b"[A-Za-z0-9_-]{8}")
_FINGERPRINT_LINE = re.compile(r"#\s*fingerprint\s+([0-9a-f]{16})\s*")


class Key(Secret):
    """A 32-byte secret from which every position, filter and sound is derived.

    Its repr shows only the fingerprint. It refuses to be pickled or copied, so that it cannot leave the process by
    accident: give workers the path of its file and call `Key.load` there.

    Parameters
    ----------
    master : bytes
        Exactly 32 bytes, from a cryptographic source; `Key.generate` is the usual way.

    Raises
    ------
    TypeError
        `master` is not bytes.
    ValueError
        `master` is not 32 bytes long.
    """

    __slots__ = ("__master", "__prk", "_fingerprint")

    @discreet
    def __init__(self, master: bytes) -> None:
        if not isinstance(master, bytes | bytearray):
            raise TypeError(f"Key takes {MASTER_BYTES} bytes, got {type(master).__name__}; use Key.generate().")
        if len(master) != MASTER_BYTES:
            raise ValueError(f"Key takes exactly {MASTER_BYTES} bytes, got {len(master)}; use Key.generate().")
        self.__master = bytes(master)
        self.__prk = hmac.digest(SALT, self.__master, "sha256")  # HKDF-Extract, RFC 5869
        self._fingerprint = self.derive(b"fingerprint", length=8).hex()

    @classmethod
    @discreet
    def generate(cls) -> Key:
        """A new key from the operating system's random source."""
        return cls(secrets.token_bytes(MASTER_BYTES))

    @classmethod
    @discreet
    def load(cls, path: str | os.PathLike[str]) -> Key:
        """The key in a key file.

        Raises
        ------
        KeyFileError
            The file is a symbolic link or not a regular file, belongs to another user, is readable by others
            (mode & 077), is over 4 KiB, does not have exactly one key line, or its checksum or fingerprint is wrong.
        FileNotFoundError, OSError
            The file does not exist, or cannot be opened or read.
        """
        path = Path(path)
        return _parse(path, _read_private(path))

    @discreet
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a new key file, mode 0600, durably; an existing file is never overwritten.

        Raises
        ------
        FileExistsError
            `path` exists, even as a dangling symbolic link.
        OSError
            The file cannot be written, or its folder does not exist; nothing is left behind.
        """
        path = Path(path)
        body = self.__master + _checksum(self.__master)
        text = (
            "# poscuda-fast key. Keep it secret and backed up: without it there is no undo and no verify.\n"
            f"# fingerprint {self.fingerprint}\n"
            f"{KEY_PREFIX}{base64.urlsafe_b64encode(body).decode('ascii')}\n"
        )
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"The folder of {path} does not exist; make it, or choose another path.")
        try:
            disk.create(path, text.encode("ascii"), mode=0o600)
        except FileExistsError:
            raise FileExistsError(f"{path} exists, and a key file is never overwritten; choose another name.") from None

    @property
    def fingerprint(self) -> str:
        """16 hex digits that name the key without revealing it; beside `commitment`, all that may be shown."""
        return self._fingerprint

    @property
    @discreet
    def commitment(self) -> str:
        """64 hex digits that no other key has, and that reveal nothing: a fingerprint is short enough to be met twice.

        Whoever is shown the key can compute them again.
        """
        return self.derive(b"commitment", length=32).hex()

    @discreet
    def derive(self, *fields: bytes, length: int) -> bytes:
        """`length` secret bytes for one purpose: HKDF-Expand over the fields, each prefixed with its length."""
        info = b"".join([len(field).to_bytes(4, "big") + field for field in fields])
        return HKDFExpand(algorithm=SHA256(), length=length, info=info).derive(self.__prk)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and hmac.compare_digest(self.__master, other.__master)

    def __hash__(self) -> int:
        return hash((Key, self._fingerprint))

    def __repr__(self) -> str:
        return f"Key(fingerprint={self._fingerprint!r})"


def check_key(key: object) -> None:
    """TypeError unless `key` is a Key; the message names only the type that was given."""
    if not isinstance(key, Key):
        raise TypeError(f"key is a {type(key).__name__}; expected a poscuda_fast.Key, for example Key.load(path).")


def holds_key(path: str | os.PathLike[str]) -> bool:
    """Whether a file could be a key file: small, and with what a key line begins with, wherever in it."""
    try:
        with open(os.open(path, disk.READING), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
                return False
            return _IN_A_FILE.search(file.read(MAX_FILE_BYTES)) is not None
    except OSError:
        return False


def _checksum(master: bytes) -> bytes:
    return hashlib.sha256(b"poscuda-fast/1 key" + master).digest()[:4]


def _read_private(path: Path) -> bytes:
    """The bytes of a file that only its owner can read."""
    # NONBLOCK: open must not hang if the path is a FIFO.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if path.is_symlink():
        raise KeyFileError(f"The key file {path} is a symbolic link; give the path of the file itself.")
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"There is no key file {path}; give the path of one, or make one: poscuda keygen {path}"
        ) from None
    try:
        _refuse_public(path, os.fstat(descriptor))
        return os.read(descriptor, MAX_FILE_BYTES)
    finally:
        os.close(descriptor)


def _refuse_public(path: Path, status: os.stat_result) -> None:
    """KeyFileError unless a file is a regular, small one that only its owner can read."""
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"The key file {path} is not a regular file; give the file that keygen wrote.")
    if hasattr(os, "geteuid"):
        if status.st_uid != os.geteuid():
            raise KeyFileError(
                f"The key file {path} belongs to user {status.st_uid}, not to you; use a key file of your own."
            )
        if status.st_mode & 0o077:
            raise KeyFileError(
                f"The key file {path} has mode {stat.S_IMODE(status.st_mode):04o}, so others can read it; "
                f"run chmod 600 on it, and consider the key known to them."
            )
    if status.st_size > MAX_FILE_BYTES:
        raise KeyFileError(
            f"The key file {path} has {status.st_size} bytes, more than {MAX_FILE_BYTES}; it is not a key file."
        )


def _parse(path: Path, content: bytes) -> Key:
    """The key in a key file's content."""
    # Decode without an exception: a UnicodeDecodeError would carry the whole file in it.
    text = content.decode("utf-8", errors="replace")
    if "\N{REPLACEMENT CHARACTER}" in text:
        raise KeyFileError(f"The key file {path} is not text; it is damaged or not a key file.")
    lines = text.splitlines()
    notes = [line for line in lines if not line.strip() or line.startswith("#")]
    rest = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if len(rest) != 1:
        raise KeyFileError(f"The key file {path} has {len(rest)} key lines; a key file has exactly one.")
    match = _KEY_LINE.fullmatch(rest[0])
    if match is None:
        raise KeyFileError(
            f"The key line of {path} is not {KEY_PREFIX!r} followed by 48 base64url characters; restore a backup."
        )
    body = base64.urlsafe_b64decode(match[1])
    master, check = body[:MASTER_BYTES], body[MASTER_BYTES:]
    if not hmac.compare_digest(check, _checksum(master)):
        raise KeyFileError(f"The key in {path} fails its checksum: it was mistyped or damaged; restore a backup.")
    key = Key(master)
    said = [match[1] for match in map(_FINGERPRINT_LINE.fullmatch, notes) if match]
    if any(fingerprint != key.fingerprint for fingerprint in said):
        raise KeyFileError(
            f"The fingerprint noted in {path} is not that of its key ({key.fingerprint}); restore a backup."
        )
    return key
