"""The sidecar of a run: its records and states, its secrecy, and what it refuses."""

from __future__ import annotations

import base64
import os
import re
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audiofiles import in_child, kill_before, untouched
from recipes import protect_memmap
from secret_forms import forms_of

from poscuda_fast import BusyError, Key, Recipe, SidecarError, restore_memmap
from poscuda_fast.mark import plan as plans
from poscuda_fast.mark.plan import make_plan
from poscuda_fast.undo.journal import Journal, Kind, State, pack_json, sidecar_of, unpack_json

HEADER = {"kind": "test", "recipe": {"patch": 240}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "clips.npy.poscuda"


def begun(path: Path, key: Key, *payloads: bytes, rest: bytes = b"") -> None:
    """A sidecar in state APPLYING with these batches."""
    with Journal(path, key) as journal:
        journal.begin(HEADER, rest)
        for payload in payloads:
            journal.append(Kind.BATCH, payload)


def in_state(path: Path, key: Key, state: State, *payloads: bytes) -> None:
    begun(path, key, *payloads)
    with Journal(path, key) as journal:
        journal.move(state, {"counts": {"clips": 3}})


def batches(path: Path, key: Key) -> list[bytes]:
    with Journal(path, key) as journal:
        return [record.payload for record in journal.records(Kind.BATCH)]


def described(journal: Journal) -> dict[str, Any]:
    """The header without the name of the run."""
    return {name: value for name, value in journal.header.items() if name != "run"}


# States and records


def test_nothing_is_made_before_a_run_begins(path: Path, key: Key) -> None:
    with Journal(path, key) as journal:
        assert (journal.state, journal.header, journal.summary) == (State.NEW, {}, {})
        assert list(journal.records()) == []
        for call in (
            lambda: journal.append(Kind.BATCH, b""),
            lambda: journal.move(State.COMPLETE),
            journal.settle,
        ):
            with pytest.raises(SidecarError, match=re.escape(f"There is no sidecar at {path}")):
                call()
        with pytest.raises(SidecarError, match="in state new; only a finished run can be made final"):
            journal.make_final()
    assert not path.exists()


def test_the_sidecar_lies_beside_its_data() -> None:
    assert sidecar_of(Path("/data/clips.npy")) == Path("/data/clips.npy.poscuda")
    assert sidecar_of(Path("folder")) == Path("folder.poscuda")


def test_records_come_back_in_order(path: Path, key: Key) -> None:
    rng = np.random.default_rng(1)
    payloads = [rng.bytes(n) for n in (0, 1, 4_095, 4_096, 100_000)]
    begun(path, key, *payloads, rest=b"rest")
    with Journal(path, key) as journal:
        journal.append(Kind.TORN, b"torn")
        journal.move(State.COMPLETE, {"counts": {}})
    with Journal(path, key) as journal:
        assert [record.payload for record in journal.records(Kind.BATCH)] == payloads
        kinds = [Kind.BEGIN, *[Kind.BATCH] * 5, Kind.TORN, Kind.STATE]
        assert [record.kind for record in journal.records()] == kinds
        (first,) = journal.records(Kind.BEGIN)
        fields, rest = unpack_json(first.payload)
        assert (fields, bytes(rest)) == (journal.header, b"rest")
        assert described(journal) == HEADER
        assert (journal.state, journal.summary) == (State.COMPLETE, {"counts": {}})


def test_a_record_is_read_again_from_its_place(path: Path, key: Key) -> None:
    begun(path, key, b"one")
    with Journal(path, key) as journal:  # a session of its own
        journal.append(Kind.BATCH, b"two")
        journal.append(Kind.TORN, b"torn")
        journal.append(Kind.BATCH, b"three")
        for record in journal.records(Kind.BATCH):
            found = [again.payload for again in journal.records(Kind.BATCH, since=record.place)]
            assert found == [b"one", b"two", b"three"][-len(found) :]
            assert found[0] == record.payload


def test_the_states_of_a_run_and_back(path: Path, key: Key) -> None:
    begun(path, key, b"one")
    for state in (State.COMPLETE, State.UNDOING, State.UNDONE, State.APPLYING, State.COMPLETE):
        with Journal(path, key) as journal:
            journal.move(state)
            assert journal.state is state
        with Journal(path, key) as journal:
            assert journal.state is state
        assert batches(path, key) == [b"one"]


def test_counts_stay_until_they_are_replaced(path: Path, key: Key) -> None:
    in_state(path, key, State.COMPLETE)
    with Journal(path, key) as journal:
        journal.move(State.UNDOING)
    with Journal(path, key) as journal:
        assert journal.summary == {"counts": {"clips": 3}}
        journal.move(State.UNDONE, {"counts": {"clips": 2}, "note": 1})
    with Journal(path, key) as journal:
        assert journal.summary == {"counts": {"clips": 2}, "note": 1}


@pytest.mark.parametrize("state", [State.APPLYING, State.COMPLETE, State.UNDOING, State.FINAL])
def test_a_run_does_not_begin_over_another(path: Path, key: Key, state: State) -> None:
    in_state(path, key, state, b"one")
    message = f"is in state {state.value}; a run is already there"
    with untouched(path.parent), Journal(path, key) as journal, pytest.raises(SidecarError, match=message):
        journal.begin(HEADER)


def test_a_run_goes_on_with_another_header(path: Path, key: Key) -> None:
    in_state(path, key, State.COMPLETE, b"one")
    with Journal(path, key) as journal:
        run = journal.header["run"]
        journal.extend({"kind": "more"}, b"rest")
        assert (journal.state, journal.header) == (State.APPLYING, {"kind": "more", "run": run})
        journal.append(Kind.BATCH, b"two")
    with Journal(path, key) as journal:
        assert (journal.state, journal.header) == (State.APPLYING, {"kind": "more", "run": run})
        (more,) = journal.records(Kind.MORE)
        assert bytes(unpack_json(more.payload)[1]) == b"rest"
    assert batches(path, key) == [b"one", b"two"]


def test_json_comes_back_and_what_lies_behind_it() -> None:
    for fields in ({}, {"é": [1, None, True, "x"]}, [], "text"):
        for rest in (b"", b"rest"):
            found, behind = unpack_json(pack_json(fields) + rest)
            assert (found, bytes(behind)) == (fields, rest)


def test_the_name_of_a_folder_need_not_be_utf_8(tmp_path: Path, key: Key) -> None:
    folder = os.path.join(os.fsencode(tmp_path), b"caf\xe9 %3F?#")
    os.mkdir(folder)
    path = Path(os.fsdecode(folder)) / "clips.poscuda"
    begun(path, key, b"one")
    assert batches(path, key) == [b"one"]


def test_the_folder_of_a_sidecar_must_exist(tmp_path: Path, key: Key) -> None:
    message = r"The folder of the sidecar .*kept does not exist; make it, or choose"
    path = tmp_path / "missing" / "kept"
    with untouched(tmp_path), Journal(path, key) as journal, pytest.raises(SidecarError, match=message):
        journal.begin(HEADER)


def test_the_file_is_private_and_alone(path: Path, key: Key) -> None:
    old = os.umask(0)
    try:
        in_state(path, key, State.UNDONE, b"one")
        begun(path, key, b"two")
        in_state(path.with_name("other"), key, State.COMPLETE)
        with Journal(path.with_name("other"), key) as journal:
            journal.make_final()
    finally:
        os.umask(old)
    assert sorted(os.listdir(path.parent)) == [path.name, "other"]
    assert {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == {0o600}


# A new run after one that was undone


def test_a_new_run_has_a_file_of_its_own(path: Path, key: Key) -> None:
    in_state(path, key, State.UNDONE, b"stale")
    os.link(path, path.with_name("old"))
    old = path.read_bytes()
    with Journal(path, key) as journal:
        run = journal.header["run"]
        journal.begin({"kind": "second"}, b"")
        assert (journal.state, journal.summary) == (State.APPLYING, {})
        journal.append(Kind.BATCH, b"new")
        assert journal.header["run"] != run
        with pytest.raises(BusyError):
            Journal(path, key)
    assert path.with_name("old").read_bytes() == old
    with Journal(path, key) as journal:
        assert (journal.state, described(journal)) == (State.APPLYING, {"kind": "second"})
    assert batches(path, key) == [b"new"]


@pytest.mark.parametrize("name", ["open", "fsync", "replace"])
def test_a_new_run_that_cannot_begin_leaves_the_undone_one(
    path: Path, key: Key, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    in_state(path, key, State.UNDONE, b"stale")
    content = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError("no room")

    with Journal(path, key) as journal, monkeypatch.context() as patching:
        patching.setattr(os, name, fail)
        with pytest.raises(OSError, match="no room"):
            journal.begin(HEADER)
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == [path.name]


def test_a_beginning_that_is_killed_leaves_either_run(path: Path, key: Key) -> None:
    in_state(path, key, State.UNDONE, b"stale")
    content = path.read_bytes()
    found = []
    for moment in range(30):
        path.write_bytes(content)

        def stopped(moment: int = moment) -> None:
            with Journal(path, key) as journal:
                kill_before(moment)
                journal.begin(HEADER)

        ended = in_child(stopped)
        with Journal(path, key) as journal:
            found.append(journal.state)
            assert [record.payload for record in journal.records(Kind.BATCH)] == [b"stale"] * (
                journal.state is State.UNDONE
            )
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
    n = found.count(State.UNDONE)
    assert found == [State.UNDONE] * n + [State.APPLYING] * (len(found) - n)
    assert 0 < n < len(found)


def test_a_sidecar_that_appears_before_a_run_begins_is_not_written(path: Path, key: Key) -> None:
    with Journal(path, key) as late:
        in_state(path, key, State.COMPLETE, b"one")
        with untouched(path.parent), pytest.raises(BusyError, match="appeared just now"):
            late.begin(HEADER)


# Making a run final; `test_final` kills it at every call


def test_a_final_run_has_its_header_and_counts_and_nothing_else(path: Path, key: Key) -> None:
    in_state(path, key, State.COMPLETE, b"one", b"two")
    with Journal(path, key) as journal:
        header = journal.header
        journal.make_final()
        assert journal.state is State.FINAL
    for _ in range(2):
        with Journal(path, key) as journal:
            assert (journal.state, journal.header) == (State.FINAL, header)
            assert journal.summary == {"counts": {"clips": 3}}
            assert [record.kind for record in journal.records()] == [Kind.BEGIN, Kind.STATE]
            journal.make_final()
    assert os.listdir(path.parent) == [path.name]


def test_the_old_run_cannot_be_opened_by_any_name(path: Path, key: Key) -> None:
    in_state(path, key, State.COMPLETE, b"one")
    os.link(path, path.with_name("kept"))
    with Journal(path, key) as journal:
        journal.make_final()
    with pytest.raises(SidecarError, match="kept is damaged: its header was changed"):
        Journal(path.with_name("kept"), key)


def test_a_hidden_name_that_a_killed_call_left_is_finished(path: Path, key: Key) -> None:
    """The new file is there, and the key of the old one was not overwritten yet."""
    in_state(path, key, State.COMPLETE, b"one")
    hidden = path.with_name(f".{path.name}.poscuda-part")
    kept = path.read_bytes()
    with Journal(path, key) as journal:
        journal.make_final()
    hidden.write_bytes(kept)
    os.link(hidden, path.with_name("kept"))
    with Journal(path, key) as journal:
        journal.make_final()
    assert not hidden.exists()
    with pytest.raises(SidecarError, match="kept is damaged"):
        Journal(path.with_name("kept"), key)


def test_a_link_in_the_place_of_the_hidden_name_is_not_followed(path: Path, key: Key) -> None:
    other = path.with_name("other")
    in_state(other, key, State.COMPLETE, b"precious")
    content = other.read_bytes()
    hidden = path.with_name(f".{path.name}.poscuda-part")
    for state in (State.COMPLETE, State.FINAL):
        in_state(path, key, state, b"one")
        hidden.symlink_to(other)
        with Journal(path, key) as journal:
            journal.make_final()
        assert other.read_bytes() == content
        assert sorted(os.listdir(path.parent)) == [path.name, "other"]
        path.unlink()


# Secrecy


def numbers_in(value: Any) -> set[int]:
    if isinstance(value, dict):
        return set().union(*map(numbers_in, value.values()))
    if isinstance(value, list):
        return set().union(*map(numbers_in, value))
    return {value} if isinstance(value, int) else set()


@pytest.mark.parametrize("undone", [False, True])
@pytest.mark.parametrize("recipe", [Recipe.paper(patches=2), Recipe.strong()], ids=["paper", "strong"])
def test_nothing_secret_is_in_clear(tmp_path: Path, key: Key, monkeypatch: Any, undone: bool, recipe: Recipe) -> None:
    monkeypatch.setattr(plans, "BATCH_BYTES", 3 * 2 * 240)
    data = tmp_path / "clips.npy"
    sidecar = tmp_path / "clips.npy.poscuda"
    names = ["sheila", "marvin", "bed"]
    labels = np.arange(9) % 3
    frames = 90_000 if recipe.format == 1 else 900
    np.save(data, np.random.default_rng(3).integers(-20_000, 20_000, (9, frames), dtype=np.int16))
    original = np.load(data)
    arr = np.load(data, mmap_mode="r+")
    protect_memmap(arr, labels, key, recipe=recipe, classes=names)
    marked = np.load(data)
    if undone:
        restore_memmap(arr, key)
    content = sidecar.read_bytes()
    plan = make_plan(key, recipe, labels, names, np.full(9, frames, np.int64))
    patches = plan.of_clips(np.arange(9))
    hidden = [bytes(range(32)), *plan.labels.tokens, *map(str.encode, names)]
    hidden += [key.derive(b"sidecar", b"wrap", length=32), key.derive(b"sidecar", b"pieces", length=64)]
    hidden += [key.derive(b"sidecar", b"labels", length=32)]
    if recipe.format == 1:
        hidden += [taps[n : n + 2].tobytes() for taps in plan.marks.taps for n in range(0, 80, 2)]
    for clip, start, size in zip(patches.clips, patches.starts, patches.sizes, strict=True):
        for samples in (original, marked, marked - original):
            patch = samples[clip, start : start + size]
            hidden += [patch[n : n + 8].tobytes() for n in range(0, int(size) - 8, 4) if patch[n : n + 8].any()]
        if start > 1_000:
            hidden += [int(start).to_bytes(n, order) for order in ("little", "big") for n in (4, 8)]
    found = [secret for secret in hidden if len(secret) > 3 for form in forms_of(secret) if form in content]
    assert found == []
    starts = set(patches.starts.tolist()) - {0}
    words = {int(word) for word in re.findall(rb"(?<![0-9A-Za-z.])[0-9]{3,8}(?![0-9A-Za-z])", content)}
    assert not starts & words
    with Journal(sidecar, key) as journal:
        assert not starts & numbers_in([journal.header, journal.summary])


def test_the_search_for_secrets_finds_one() -> None:
    secret = b"a secret of some length"
    for hide in (bytes, lambda s: s.hex().encode(), lambda s: base64.b64encode(b"12" + s + b"345")):
        content = b"before" + hide(secret) + b"after"
        assert any(form in content for form in forms_of(secret))


def test_the_same_record_is_never_sealed_alike(path: Path, key: Key) -> None:
    """In two files, in two sessions of one, and after a power cut that loses what had been on the disk."""
    payload = b"payload " * 9
    begun(path, key)
    lost, sealed = path.read_bytes(), []
    for _ in range(5):
        path.write_bytes(lost)
        for _ in range(2):
            with Journal(path, key) as journal:
                journal.append(Kind.BATCH, payload)
            sealed.append(path.read_bytes()[-len(payload) - 16 :])
    path.unlink()
    begun(path, key, payload)
    sealed.append(path.read_bytes()[-len(payload) - 16 :])
    runs = [one[n : n + 16] for one in sealed for n in range(len(one) - 15)]
    assert len(set(runs)) == len(runs)


def test_a_repr_shows_nothing_secret(path: Path, key: Key) -> None:
    begun(path, key, b"payload", rest=b"token")
    with Journal(path, key) as journal:
        assert repr(journal) == f"Journal({str(path)!r}, state='applying')"
        shown = repr(list(journal.records()))
        assert "payload" not in shown
        assert "token" not in shown


# Refusals


def test_another_key_is_refused(path: Path, key: Key) -> None:
    in_state(path, key, State.COMPLETE, b"one")
    other = Key(bytes(32))
    wanted = f"made with the key of fingerprint {key.fingerprint}, and this one has {other.fingerprint}; give that key"
    with untouched(path.parent), pytest.raises(SidecarError, match=wanted):
        Journal(path, other)
    assert batches(path, key) == [b"one"]


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"These are my notes, not a sidecar.\n" * 100, b"SQLite format 3\0" + bytes(4_080), b"POSCUDA\x03" * 9],
    ids=["empty", "short", "text", "database", "newer"],
)
def test_a_foreign_file_is_refused_and_left_alone(path: Path, key: Key, content: bytes) -> None:
    path.write_bytes(content)
    with untouched(path.parent), pytest.raises(SidecarError, match=re.escape(f"{path} is not a sidecar of this vers")):
        Journal(path, key)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (os.mkdir, "is a folder, not a file"),
        (os.mkfifo, "is not a regular file of your own"),
        (lambda path: path.symlink_to(path.with_name("target")), "is a link; it is not followed"),
    ],
)
def test_what_is_not_a_regular_file_is_refused(path: Path, key: Key, make: Callable[[Path], None], what: str) -> None:
    begun(path.with_name("target"), key)
    make(path)
    with untouched(path.parent), pytest.raises(SidecarError, match=re.escape(f"The sidecar {path} {what}")):
        Journal(path, key)


def test_a_dangling_link_is_refused(path: Path, key: Key) -> None:
    path.symlink_to(path.with_name("target"))
    with pytest.raises(SidecarError, match="is a link; it is not followed"):
        Journal(path, key)
    assert not path.with_name("target").exists()


# One writer


def test_two_journals_of_one_file_exclude_each_other(path: Path, key: Key) -> None:
    begun(path, key, b"one")
    with Journal(path, key), pytest.raises(BusyError, match="is in use"):
        Journal(path, key)
    assert batches(path, key) == [b"one"]


def test_an_open_journal_keeps_other_processes_out(path: Path, key: Key) -> None:
    begun(path, key, b"one")

    def other() -> None:
        with pytest.raises(BusyError, match="another run is at work"):
            Journal(path, key)

    with Journal(path, key):
        assert in_child(other) == 0
    assert in_child(lambda: Journal(path, key).close()) == 0
