"""Keys and their files: nothing leaks, nothing damaged is believed."""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import os
import pickle
import socket
import stat
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from poscuda_fast import Key, KeyFileError, PoscudaError

MASTER = bytes(range(32))
KEY_LINE = "POSCUDA-KEY-1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-aXD7-"
OTHER_LINE = "POSCUDA-KEY-1:" + base64.urlsafe_b64encode(
    bytes(32) + hashlib.sha256(b"poscuda-fast/1 key" + bytes(32)).digest()[:4]
).decode("ascii")


def write_private(path: Path, content: str | bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def assert_hides(text: str, master: bytes = MASTER) -> None:
    """No run of 6 bytes of the key in any usual spelling: 5 bytes can meet in a path or a fingerprint by chance."""
    whole = text.encode("utf-8", "surrogateescape")
    numbers = text.replace(" ", "")
    for first in range(len(master) - 5):
        part = master[first : first + 6]
        assert part not in whole
        assert repr(part)[2:-1] not in text
        assert part.hex() not in text.lower()
        assert ",".join(str(byte) for byte in part) not in numbers
    for padding in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode, base64.b32encode):
            letters = encode(bytes(padding) + master).decode("ascii").rstrip("=")[4 * (padding > 0) :]
            for first in range(len(letters) - 7):
                assert letters[first : first + 8] not in text


@contextlib.contextmanager
def refused(match: str, error: type[Exception] = KeyFileError) -> Iterator[pytest.ExceptionInfo]:
    """An error that shows nothing of the key, neither alone nor in a traceback."""
    with pytest.raises(error, match=match) as caught:
        yield caught
    assert_hides(repr(caught.value))
    assert_hides("".join(traceback.format_exception(caught.value)))


def test_the_leak_check_sees_leaks() -> None:
    for leak in (
        repr(MASTER),
        MASTER.hex(),
        MASTER.hex().upper(),
        str(list(MASTER)),
        base64.b64encode(MASTER).decode(),
        base64.urlsafe_b64encode(b"xy" + MASTER).decode(),
        KEY_LINE,
        KEY_LINE[20:40],
    ):
        with pytest.raises(AssertionError):
            assert_hides(f"the key is {leak}")
    assert_hides("847db78bd7fbd1a2")


# The object.


def test_generated_keys_differ() -> None:
    keys = [Key.generate() for _ in range(20)]
    assert len({key.fingerprint for key in keys}) == 20
    assert all(len(bytes.fromhex(key.fingerprint)) == 8 for key in keys)


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_master_of_another_length_is_refused(length) -> None:
    with refused(f"exactly 32 bytes, got {length}", ValueError):
        Key((MASTER * 2)[:length])


@pytest.mark.parametrize("master", [MASTER.hex(), None, 32, list(MASTER), memoryview(MASTER), KEY_LINE, Path("key")])
def test_a_master_that_is_not_bytes_is_refused(master) -> None:
    with refused(f"got {type(master).__name__}", TypeError):
        Key(master)


def test_a_bytearray_is_copied() -> None:
    master = bytearray(MASTER)
    key = Key(master)
    master[:] = bytes(32)
    assert key == Key(MASTER)


def test_equal_and_hash() -> None:
    assert Key(MASTER) == Key(MASTER)
    assert hash(Key(MASTER)) == hash(Key(MASTER))
    for place in range(32):
        other = bytearray(MASTER)
        other[place] ^= 1
        assert Key(MASTER) != Key(bytes(other))
    assert Key(MASTER) != MASTER
    assert Key(MASTER) != Key(MASTER).fingerprint


def test_nothing_shows_more_than_the_fingerprint(key: Key) -> None:
    shown = "Key(fingerprint='847db78bd7fbd1a2')"
    assert repr(key) == str(key) == f"{key}" == f"{key!s}" == format(key) == shown
    assert f"{[key]}" == f"[{shown}]"
    assert_hides(repr(dir(key)))
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize(
    "leave",
    [copy.copy, copy.deepcopy, lambda key: copy.deepcopy([key])]
    + [lambda key, protocol=protocol: pickle.dumps(key, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)],
)
def test_a_key_is_neither_copied_nor_pickled(key: Key, leave) -> None:
    with refused("cannot be pickled or copied", TypeError):
        leave(key)


def test_attributes_cannot_be_added(key: Key) -> None:
    with pytest.raises(AttributeError):
        key.note = "mine"
    with pytest.raises(AttributeError):
        key.fingerprint = "0" * 16


def test_derived_bytes_depend_on_where_fields_end(key: Key) -> None:
    drawn = [key.derive(*fields, length=32) for fields in [(b"ab", b"c"), (b"a", b"bc"), (b"abc",), (b"abc", b""), ()]]
    assert len(set(drawn)) == 5
    assert key.derive(b"abc", length=9) == drawn[2][:9]


# Its file.


@settings(max_examples=15, deadline=None)  # each is synced to the disk
@given(st.binary(min_size=32, max_size=32))
@example(bytes(32))
@example(b"\xff" * 32)  # a base64 text of "_" only
def test_a_saved_key_loads(tmp_path_factory, master) -> None:
    path = tmp_path_factory.mktemp("keys") / "key"
    Key(master).save(path)
    assert Key.load(path) == Key(master)
    assert Key.load(str(path)).fingerprint == Key(master).fingerprint


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_saved_key_is_for_its_owner_alone(key: Key, tmp_path, umask) -> None:
    before = os.umask(umask)
    try:
        key.save(tmp_path / "key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["key"]


def test_nothing_is_overwritten(key: Key, tmp_path) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    Key.generate().save(tmp_path / "other key")
    other = (tmp_path / "other key").read_bytes()
    for name in ("file", "folder", "link", "dangling", "other key"):
        with refused(f"{name} exists, and a key file is never overwritten", FileExistsError):
            key.save(tmp_path / name)
    assert (tmp_path / "file").read_bytes() == b"precious"
    assert (tmp_path / "other key").read_bytes() == other
    assert not (tmp_path / "nowhere").exists()
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file", "folder", "link", "other key"]


def test_a_missing_folder_or_file_is_said(key: Key, tmp_path) -> None:
    with refused("nowhere", FileNotFoundError):
        key.save(tmp_path / "nowhere" / "key")
    with refused("nowhere", FileNotFoundError):
        Key.load(tmp_path / "nowhere")


def test_a_refusal_is_a_value_error_of_the_library(tmp_path) -> None:
    with pytest.raises(PoscudaError) as caught:
        Key.load(write_private(tmp_path / "key", "nothing"))
    assert isinstance(caught.value, ValueError)


def test_a_symbolic_link_is_refused(key: Key, tmp_path) -> None:
    key.save(tmp_path / "key")
    (tmp_path / "link").symlink_to(tmp_path / "key")
    with refused("link is a symbolic link"):
        Key.load(tmp_path / "link")


def test_a_folder_is_refused(tmp_path) -> None:
    with refused(f"{tmp_path.name} is not a regular file"):
        Key.load(tmp_path)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no list of this process's open files")
def test_refusals_leave_no_file_open(tmp_path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    write_private(tmp_path / "big", "#" * 5000)
    write_private(tmp_path / "open to others", KEY_LINE).chmod(0o644)
    before = sorted(os.listdir("/proc/self/fd"))
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "big", tmp_path / "open to others"):
        with pytest.raises((KeyFileError, OSError)):
            Key.load(path)
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("writer", [False, True])
def test_a_fifo_is_refused_and_does_not_hang(tmp_path, writer) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    held = os.open(tmp_path / "fifo", os.O_RDWR) if writer else None
    said: list[str] = []

    def run() -> None:
        try:
            Key.load(tmp_path / "fifo")
        except KeyFileError as error:
            said.append(str(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    if held is not None:
        os.close(held)
    assert len(said) == 1
    assert "fifo is not a regular file" in said[0]


def test_a_socket_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises((KeyFileError, OSError), match="socket"):
            Key.load("socket")


@pytest.mark.parametrize("bit", [0o001, 0o002, 0o004, 0o010, 0o020, 0o040, 0o077])
def test_a_file_open_to_others_is_refused(key: Key, tmp_path, bit) -> None:
    key.save(tmp_path / "key")
    (tmp_path / "key").chmod(0o600 | bit)
    with refused(f"mode {0o600 | bit:04o}, so others can read it; run chmod 600"):
        Key.load(tmp_path / "key")
    (tmp_path / "key").chmod(0o400)
    assert Key.load(tmp_path / "key") == key


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(key: Key, tmp_path) -> None:
    key.save(tmp_path / "key")
    os.chown(tmp_path / "key", 12345, -1)
    with refused("belongs to user 12345, not to you"):
        Key.load(tmp_path / "key")


def test_size_limit(tmp_path) -> None:
    def padded(size: int) -> str:
        return "#" * (size - len(KEY_LINE) - 1) + "\n" + KEY_LINE

    assert Key.load(write_private(tmp_path / "fits", padded(4096))) == Key(MASTER)
    with refused("has 4097 bytes, more than 4096"):
        Key.load(write_private(tmp_path / "too big", padded(4097)))


NONE, TWO = "has 0 key lines", "has 2 key lines"
FORM = "is not 'POSCUDA-KEY-1:' followed by 48 base64url characters"
NOTE = "fingerprint noted in .* is not that of its key"
WRONG = {
    "empty": ("", NONE),
    "blank": ("\n\n  \n", NONE),
    "key in a comment": ("# " + KEY_LINE, NONE),
    "same key twice": (f"{KEY_LINE}\n{KEY_LINE}\n", TWO),
    "two keys": (f"{KEY_LINE}\n{OTHER_LINE}\n", TWO),
    "text around": (f"backup of\nmy key\n{KEY_LINE}\n", "has 3 key lines"),
    "two keys in a line": (f"{KEY_LINE} {KEY_LINE}", FORM),
    "version 2": (KEY_LINE.replace("KEY-1", "KEY-2"), FORM),
    "version 11": (KEY_LINE.replace("KEY-1", "KEY-11"), FORM),
    "lower case": (KEY_LINE.lower(), FORM),
    "space inside": (KEY_LINE.replace("1:", "1: "), FORM),
    "padding": (KEY_LINE + "=", FORM),
    "longer": (KEY_LINE + "AAAA", FORM),
    "plain base64": (KEY_LINE.replace("-aXD7-", "+aXD7+"), FORM),
    "no key": (KEY_LINE[:-48], FORM),
    "hex": (MASTER.hex(), FORM),
    "byte order mark": ("\ufeff" + KEY_LINE, FORM),
    "wrong note": (f"# fingerprint 847db78bd7fbd1a3\n{KEY_LINE}\n", NOTE),
    "wrong note behind": (f"{KEY_LINE}\n# fingerprint 0000000000000000\n", NOTE),
    "note of another key": (f"# fingerprint 847db78bd7fbd1a2\n{OTHER_LINE}\n", NOTE),
    "right and wrong note": (f"# fingerprint 847db78bd7fbd1a2\n# fingerprint {'0' * 16}\n{KEY_LINE}\n", NOTE),
    "latin-1": (f"# caf\xe9\n{KEY_LINE}\n".encode("latin-1"), "is not text"),
    "UTF-16": (KEY_LINE.encode("utf-16"), "is not text"),
    "binary": (b"\xff" * 100, "is not text"),
    "raw key": (MASTER, r"has \d key lines"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_file_is_refused(tmp_path, wrong) -> None:
    content, match = WRONG[wrong]
    path = write_private(tmp_path / "some key", content)
    with refused(match) as caught:
        Key.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("wrong", WRONG)
def test_no_error_carries_the_key_out_of_sight(tmp_path, wrong) -> None:
    """`raise ... from None` hides an inner error from tracebacks, but a logger can still reach it."""
    path = write_private(tmp_path / "some key", WRONG[wrong][0])
    with pytest.raises(KeyFileError) as caught:
        Key.load(path)
    link: BaseException | None = caught.value
    while link is not None:
        assert_hides(repr(link) + repr(link.args))
        link = link.__cause__ or link.__context__


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(KEY_LINE, id="no newline"),
        pytest.param(f"# note\r\n# fingerprint 847db78bd7fbd1a2\r\n{KEY_LINE}\r\n", id="CRLF"),
        pytest.param(f"\n# clé de Zoë\n\n  {KEY_LINE}\t\n\n# end", id="other notes and blanks"),
        pytest.param(
            f"# fingerprint 847db78bd7fbd1a2\n{KEY_LINE}\n#fingerprint 847db78bd7fbd1a2", id="two right notes"
        ),
    ],
)
def test_harmless_differences_are_read(tmp_path, content) -> None:
    assert Key.load(write_private(tmp_path / "key", content)) == Key(MASTER)


def test_a_file_cut_anywhere_is_refused(key: Key, tmp_path) -> None:
    key.save(tmp_path / "key")
    whole = (tmp_path / "key").read_bytes()
    path = write_private(tmp_path / "cut", b"")
    for end in range(len(whole) - 1):  # the last character is a newline
        path.write_bytes(whole[:end])
        with refused("has 0 key lines|is not 'POSCUDA-KEY-1:' followed by 48"):
            Key.load(path)


def test_flipped_bits_of_the_key_line_are_noticed(tmp_path) -> None:
    path = write_private(tmp_path / "key", "")
    for place in range(len(KEY_LINE)):
        for bit in (0, 2, 5, 7):
            flipped = bytearray(KEY_LINE, "ascii")
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            with refused("fails its checksum|is not 'POSCUDA-KEY-1:' followed by 48|is not text|has 2 key lines"):
                Key.load(path)


def test_other_letters_in_the_key_line_are_noticed(tmp_path) -> None:
    path = write_private(tmp_path / "key", "")
    for place in range(KEY_LINE.index(":") + 1, len(KEY_LINE)):
        for letter in "Az9_":
            if letter != KEY_LINE[place]:
                path.write_text(KEY_LINE[:place] + letter + KEY_LINE[place + 1 :])
                with refused("fails its checksum"):
                    Key.load(path)


@pytest.mark.parametrize("path", [None, 3, 1.5, MASTER])
def test_a_path_of_a_wrong_type_is_refused(key: Key, path) -> None:
    with pytest.raises(TypeError):
        Key.load(path)
    with pytest.raises(TypeError):
        key.save(path)
