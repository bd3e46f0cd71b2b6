"""The sealed log: what is appended is read again, and nothing else is ever read."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poscuda_fast import Key
from poscuda_fast.errors import BusyError, SidecarError
from poscuda_fast.undo.log import SECTOR, Log

PAYLOADS = [b"begin", b"", bytes(range(256)) * 5, b"x" * 700, b"end"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.poscuda"


def write(path: Path, key: Key, payloads: list[bytes]) -> list[int]:
    """A log with these payloads, each appended by an opening of its own; returns the size after each."""
    with Log.create(path, key, (1, payloads[0])):
        pass
    sizes = [path.stat().st_size]
    for payload in payloads[1:]:
        with Log(path, key) as log:
            log.append(2, payload)
        sizes.append(path.stat().st_size)
    return sizes


def read(path: Path, key: Key) -> list[bytes]:
    with Log(path, key) as log:
        return [record.payload for record in log.records()]


def test_what_is_appended_is_read(path: Path, key: Key) -> None:
    with Log.create(path, key, (1, b"first")) as log:
        for n in range(5):
            log.append(n + 2, bytes([n]) * n * 1000)
            assert [record.kind for record in log.records()] == [1, *range(2, n + 3)]
    with Log(path, key) as log:
        log.append(9, b"last")
        found = [(record.kind, record.payload) for record in log.records()]
    assert found == [(1, b"first"), *((n + 2, bytes([n]) * n * 1000) for n in range(5)), (9, b"last")]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("session", [False, True], ids=["in a session", "beginning one"])
@pytest.mark.parametrize("before", [1, 4, 8])
def test_a_last_record_whose_number_ends_a_sector_is_not_taken_for_torn(
    path: Path, key: Key, before: int, session: bool
) -> None:
    """The first bytes of a number are zeros, as are those of a sector that a crash lost."""
    beginning = 32 + 48 if session else 0
    with Log.create(path, key, (1, b"begin")) as log:
        log.append(2, b"")
        filled = path.stat().st_size + 48 + beginning
        log.append(2, bytes(-(filled + before) % SECTOR))
        if not session:
            log.append(2, b"end of some length")
    if session:
        with Log(path, key) as log:
            log.append(2, b"end of some length")
    whole = path.read_bytes()
    begin = len(whole) - 48 - 18
    assert begin % SECTOR == SECTOR - before
    assert read(path, key)[-1] == b"end of some length"
    for place in range(begin, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(SidecarError, match="its last record was changed"):
            read(path, key)


def test_several_first_records_appear_together(path: Path, key: Key) -> None:
    with Log.create(path, key, (1, b"one"), (2, b""), (3, b"three")) as log:
        log.append(4, b"four")
    with Log(path, key) as log:
        assert [(one.kind, one.payload) for one in log.records()] == [
            (1, b"one"),
            (2, b""),
            (3, b"three"),
            (4, b"four"),
        ]


def test_a_log_cut_anywhere_ends_with_a_whole_record(path: Path, key: Key) -> None:
    sizes, whole = write(path, key, PAYLOADS), path.read_bytes()
    for size in sorted({*range(sizes[0], len(whole), 11), *(end + n for end in sizes[:-1] for n in (0, 1, 31, 32))}):
        path.write_bytes(whole[:size])
        n = sum(end <= size for end in sizes)
        assert read(path, key) == PAYLOADS[:n]
        if size % 5 == 0:
            with Log(path, key) as log:
                log.append(3, b"after")
            assert read(path, key) == [*PAYLOADS[:n], b"after"]
    for size in range(sizes[0] - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(SidecarError):
            read(path, key)


def test_any_sectors_of_the_last_append_may_be_missing(path: Path, key: Key) -> None:
    sizes, whole = write(path, key, PAYLOADS[:4]), path.read_bytes()
    begin = sizes[-2]
    edges = [begin, *range(begin // SECTOR * SECTOR + SECTOR, len(whole), SECTOR), len(whole)]
    sectors = list(itertools.pairwise(edges))
    for chosen in range(1, 1 << len(sectors)):
        torn = bytearray(whole)
        for n, (a, b) in enumerate(sectors):
            if chosen >> n & 1:
                torn[a:b] = bytes(b - a)
        path.write_bytes(torn)
        assert read(path, key) == PAYLOADS[:3]
        with Log(path, key) as log:
            log.append(2, PAYLOADS[3])
        assert read(path, key) == PAYLOADS[:4]


def test_a_flipped_bit_is_refused_or_was_in_no_record(path: Path, key: Key) -> None:
    write(path, key, PAYLOADS)
    whole = path.read_bytes()
    for n in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[n] ^= 1 << n % 8
        path.write_bytes(changed)
        with pytest.raises(SidecarError):
            read(path, key)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_records_that_are_moved_are_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    key, path = Key(bytes(range(32))), tmp_path_factory.mktemp("log") / "log"
    sizes = [0, *write(path, key, [bytes([n]) * 40 for n in range(6)])]
    whole = path.read_bytes()
    parts = [whole[a:b] for a, b in itertools.pairwise(sizes)]
    order = data.draw(st.lists(st.sampled_from(range(6)), min_size=1, max_size=8))
    path.write_bytes(b"".join(parts[n] for n in order))
    if order == list(range(len(order))):
        assert read(path, key) == [bytes([n]) * 40 for n in range(len(order))]
    else:
        with pytest.raises(SidecarError):
            read(path, key)


def test_records_of_another_log_are_refused(path: Path, tmp_path: Path, key: Key) -> None:
    sizes = write(path, key, PAYLOADS)
    write(tmp_path / "other", key, PAYLOADS)
    path.write_bytes(path.read_bytes()[: sizes[2]] + (tmp_path / "other").read_bytes()[sizes[2] :])
    with pytest.raises(SidecarError, match="damaged"):
        read(path, key)


def test_another_key_is_told_by_its_fingerprint(path: Path, key: Key) -> None:
    write(path, key, PAYLOADS)
    other = Key.generate()
    with pytest.raises(SidecarError, match=f"fingerprint {key.fingerprint}, and this one has {other.fingerprint}"):
        Log(path, other)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("data")])
def test_what_is_no_file_is_refused(path: Path, key: Key, make) -> None:
    write(path.with_name("data"), key, PAYLOADS)
    make(path)
    with pytest.raises((SidecarError, IsADirectoryError)):
        Log(path, key)


def test_one_process_at_a_time(path: Path, key: Key) -> None:
    write(path, key, PAYLOADS)
    code = (
        "import sys; from poscuda_fast import Key; from poscuda_fast.undo.log import Log\n"
        "Log(sys.argv[1], Key(bytes.fromhex(sys.stdin.read())))"
    )
    with Log(path, key), pytest.raises(BusyError):
        Log(path, key)
    with Log(path, key):
        done = subprocess.run(
            [sys.executable, "-c", code, path],
            input=bytes(range(32)).hex(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert "BusyError" in done.stderr


def test_a_fork_can_neither_go_on_nor_keep_the_lock(path: Path, key: Key) -> None:
    write(path, key, PAYLOADS)
    to_parent, from_child = os.pipe()
    to_child, from_parent = os.pipe()
    log = Log(path, key)
    child = os.fork()
    if not child:
        try:
            log.append(2, b"x")
        except SidecarError:
            os.write(from_child, b"refused")
        os.read(to_child, 1)
        os._exit(0)
    assert os.read(to_parent, 7) == b"refused"
    log.append(2, b"mine")
    log.close()
    with Log(path, key) as again:  # although the child is alive
        assert [record.payload for record in again.records()] == [*PAYLOADS, b"mine"]
    os.write(from_parent, b".")
    os.waitpid(child, 0)


def test_nothing_is_in_clear(path: Path, key: Key) -> None:
    write(path, key, [b"original " * 9, b"original " * 9])
    content = path.read_bytes()
    assert b"orig" not in content
    with Log(path, key) as log:
        assert "original" not in repr(list(log.records()))
