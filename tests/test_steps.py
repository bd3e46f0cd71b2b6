"""The engine of undo over data in memory: each rule, from every state, after a crash at every event."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_memory import Crash, Events, MemoryTarget, NotingJournal, marked

from poscuda_fast import Key, SidecarError
from poscuda_fast.errors import has_stopped
from poscuda_fast.results import Verdict
from poscuda_fast.undo import steps
from poscuda_fast.undo.journal import Journal, Kind, State, pack_json
from poscuda_fast.undo.log import Log

ORIGINALS = {name: bytes([ord(name)]) * 3 + bytes(range(5)) for name in "abcde"}
MARKED = {name: marked(content) for name, content in ORIGINALS.items()}
KEY = Key(bytes(range(32)))


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here needs to survive a power cut, and thousands of runs are made."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


class Scene:
    """Data, their sidecar, and the verbs."""

    def __init__(self, path: Path, clips: dict[str, bytes] | None = None) -> None:
        self.path = path
        self.clips = dict(ORIGINALS if clips is None else clips)
        self.events = Events()

    def protect(
        self, crash: int | None = None, *, partial: bool = False, **options: Any
    ) -> tuple[str, tuple[str, ...]]:
        return self._run(lambda *both: steps.protect(*both, partial=partial), crash, options)

    def restore(
        self, crash: int | None = None, *, partial: bool = False, **options: Any
    ) -> tuple[str, tuple[str, ...]]:
        return self._run(lambda *both: steps.restore(*both, partial=partial), crash, options)

    def verify(self) -> dict[str, Verdict]:
        return dict(self._run(lambda *both: list(steps.verdicts(*both)), None, {}))

    def _run(self, verb: Callable[..., Any], crash: int | None, options: dict[str, Any]) -> Any:
        self.events = Events(crash)
        with NotingJournal(self.path, KEY, self.events) as journal:
            return verb(journal, MemoryTarget(self.clips, self.events, **options))

    @property
    def state(self) -> State:
        with Journal(self.path, KEY) as journal:
            return journal.state

    def crashed(self, verb: str, at: int) -> bool:
        """Whether a verb was stopped at an event; otherwise it ended before."""
        try:
            getattr(self, verb)(at)
        except Crash:
            return True
        return False

    def copy(self, path: Path) -> Scene:
        """The same data and sidecar elsewhere."""
        other = Scene(path, self.clips)
        path.unlink(missing_ok=True)
        if self.path.exists():
            path.write_bytes(self.path.read_bytes())
        return other

    def refuses(self, verb: str, message: str, **options: Any) -> None:
        """A verb is refused, and changes neither data nor sidecar."""
        before = dict(self.clips), self.path.read_bytes()
        with pytest.raises(SidecarError, match=message):
            getattr(self, verb)(**options)
        assert (self.clips, self.path.read_bytes()) == before
        assert all(event.startswith("looked") for event in self.events.seen)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "data.poscuda")


# The order of events


@pytest.mark.guards("I1", "I5")
def test_a_record_is_durable_before_its_first_byte_is_stored_and_all_is_synced_before_the_end(scene: Scene) -> None:
    assert scene.protect() == ("protected", ())
    assert scene.clips == MARKED
    assert scene.events.seen == [
        "begin",
        "batch", "store a", "store b", "did a b",
        "batch", "store c", "store d", "did c d",
        "batch", "store e", "did e",
        "sync", "complete",
    ]  # fmt: skip
    assert scene.restore() == ("restored", ())
    assert scene.clips == ORIGINALS
    assert scene.events.seen == [
        "looked a b", "looked c d", "looked e", "undoing",
        "store a", "store b", "did a b", "store c", "store d", "did c d", "store e", "did e",
        "sync", "undone",
    ]  # fmt: skip


def test_nothing_to_protect_is_protected(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "kept", {})
    assert scene.protect() == ("protected", ())
    assert scene.protect() == ("already protected", ())
    assert scene.verify() == {}
    assert scene.restore() == ("restored", ())
    assert scene.restore() == ("already original", ())
    assert scene.protect() == ("protected", ())


@pytest.mark.guards("I6")
def test_the_same_call_again_changes_nothing(scene: Scene) -> None:
    for verb, done, again, clips in (
        ("protect", "protected", "already protected", MARKED),
        ("restore", "restored", "already original", ORIGINALS),
    ):
        assert getattr(scene, verb)() == (done, ())
        sealed = scene.path.read_bytes()
        for _ in range(2):
            assert getattr(scene, verb)() == (again, ())
        assert scene.events.seen == ["looked a b", "looked c d", "looked e"]
        assert (scene.clips, scene.path.read_bytes()) == (clips, sealed)


@pytest.mark.guards("I1")
def test_a_record_that_cannot_be_written_stops_the_run_before_its_batch(scene: Scene, monkeypatch: Any) -> None:
    append = NotingJournal.append
    count = itertools.count()

    def fail(self: NotingJournal, kind: Kind, payload: bytes) -> None:
        if kind == Kind.BATCH and next(count) == 1:
            raise OSError("no room")
        append(self, kind, payload)

    monkeypatch.setattr(NotingJournal, "append", fail)
    with pytest.raises(OSError, match="no room"):
        scene.protect()
    assert scene.clips == {**ORIGINALS, "a": MARKED["a"], "b": MARKED["b"]}
    assert scene.protect() == ("protected", ())
    assert scene.clips == MARKED


def test_without_threads_the_caller_writes_the_records(scene: Scene, monkeypatch: Any) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert scene.protect() == ("protected", ())
    assert scene.events.seen[:5] == ["begin", "batch", "store a", "store b", "did a b"]
    assert scene.clips == MARKED


# Crashes


def finishes(scene: Scene, path: Path) -> None:
    """From here, the run can be finished, and it can be undone; each clip is the original, marked or half written."""
    for verb, clips in (("protect", MARKED), ("restore", ORIGINALS)):
        other = scene.copy(path)
        if verb == "restore" and not path.exists():
            assert other.clips == ORIGINALS
            continue
        getattr(other, verb)()
        assert other.clips == clips
        assert getattr(other, verb)()[0].startswith("already")


@pytest.mark.guards("I6", "I7")
@pytest.mark.parametrize("first", ["protect", "restore"])
def test_a_crash_at_any_event(scene: Scene, tmp_path: Path, first: str) -> None:
    if first == "restore":
        scene.protect()
    for moment in itertools.count():
        other = scene.copy(tmp_path / "one")
        crashed = other.crashed(first, moment)
        finishes(other, tmp_path / "two")
        if not crashed:
            break
    assert moment > 12


@pytest.mark.guards("I6", "I7")
@pytest.mark.parametrize("verbs", [*itertools.product(["protect", "restore"], repeat=3)], ids="-".join)
def test_a_crash_at_any_event_of_what_follows_a_crash(tmp_path: Path, verbs: tuple[str, ...]) -> None:
    """Three verbs, each stopped; of the third every third event, so that all are met from one state or another."""
    originals = {name: ORIGINALS[name] for name in "abc"}
    scene = Scene(tmp_path / "zero", originals)
    if verbs[0] == "restore":
        scene.protect()
    for one in itertools.count():
        first = scene.copy(tmp_path / "one")
        if not first.crashed(verbs[0], one):
            break
        for two in itertools.count():
            second = first.copy(tmp_path / "two")
            if verbs[1] == "restore" and not second.path.exists():
                break
            stopped = second.crashed(verbs[1], two)
            for three in range((one + two) % 3, 30, 3):
                third = second.copy(tmp_path / "three")
                if verbs[2] == "restore" and not third.path.exists():
                    break
                if not third.crashed(verbs[2], three):
                    break
                third.protect()
                assert third.clips == {name: MARKED[name] for name in "abc"}
                third.restore()
                assert third.clips == originals
            if not stopped:
                break


def test_the_original_of_a_torn_piece_is_recorded_before_anything_is_stored_there(scene: Scene) -> None:
    at = scene_event(scene, "store c")
    assert scene.crashed("protect", at)
    assert scene.clips["c"] not in (ORIGINALS["c"], MARKED["c"])
    assert scene.verify()["c"] is Verdict.TORN
    scene.protect()
    seen = scene.events.seen
    assert seen.index("torn") < seen.index("store c")
    assert seen.count("torn") == 1
    assert scene.clips == MARKED
    # Any mixture of both forms is known from then on.
    scene.clips["c"] = bytes(
        a if n % 2 else b for n, (a, b) in enumerate(zip(ORIGINALS["c"], MARKED["c"], strict=True))
    )
    assert scene.verify()["c"] is Verdict.TORN
    scene.restore()
    assert "torn" not in scene.events.seen
    assert scene.clips == ORIGINALS


def scene_event(scene: Scene, wanted: str) -> int:
    """The number of an event of protecting."""
    trial = Scene(scene.path.with_name("trial"), scene.clips)
    trial.protect()
    return trial.events.seen.index(wanted)


# What the data are decides, not what was recorded


@pytest.mark.parametrize("state", ["applying", "complete", "undoing", "undone"])
@pytest.mark.parametrize("names", ["", "a", "abc", "de", "abcde"])
def test_data_that_came_back_in_either_form_are_finished_either_way(scene: Scene, state: str, names: str) -> None:
    scene.protect()
    with Journal(scene.path, KEY) as journal:
        journal.move(State(state))
    for verb, clips in (("protect", MARKED), ("restore", ORIGINALS)):
        for other in (names, "".join(set("abcde") - set(names))):
            scene.clips.update({name: MARKED[name] if name in other else ORIGINALS[name] for name in "abcde"})
            assert scene.verify() == {
                name: Verdict.PROTECTED if name in other else Verdict.ORIGINAL for name in "abcde"
            }
            was = scene.state
            done, left_out = getattr(scene, verb)()
            assert left_out == ()
            assert scene.clips == clips
            whole = {"protect": "abcde", "restore": ""}[verb]
            if set(other) == set(whole) and was is {"protect": State.COMPLETE, "restore": State.UNDONE}[verb]:
                assert done.startswith("already")
            else:
                assert done == f"{verb}ed" if verb == "protect" else "restored"


def test_a_run_over_an_undone_one_has_a_new_sidecar(scene: Scene) -> None:
    scene.protect()
    scene.restore()
    with Journal(scene.path, KEY) as journal:
        run = journal.header["run"]
    assert scene.protect(labels="others", recipe="other") == ("protected", ())
    assert scene.clips == MARKED
    with Journal(scene.path, KEY) as journal:
        assert journal.header["run"] != run
        assert journal.header["labels"] == "others"
        assert len(list(journal.records(Kind.BATCH))) == 3


def test_over_an_undone_run_other_arguments_are_refused_unless_all_is_original(scene: Scene) -> None:
    scene.protect()
    scene.restore()
    scene.clips["d"] = MARKED["d"]
    scene.refuses("protect", "made for other labels", labels="others")
    assert scene.protect() == ("protected", ())
    assert scene.clips == MARKED


OTHER_DATA = {
    "kind": "files, an array or a copy",
    "dtype": "another dtype",
    "shape": "another shape",
    "place": "another part",
}
OTHER_RUN = {"recipe": "another recipe", "snr": "another SNR", "rate": "another sample rate", "labels": "other labels"}


@pytest.mark.parametrize("field", [*OTHER_DATA, *OTHER_RUN])
def test_another_run_or_other_data_are_refused(scene: Scene, field: str) -> None:
    known = dict.fromkeys((*OTHER_DATA, *OTHER_RUN), 1)
    message = {**OTHER_DATA, **OTHER_RUN}[field]
    scene.protect(**known)
    scene.refuses("protect", message, **{**known, field: 2})
    assert scene.protect(**known) == ("already protected", ())
    scene.restore(**known)
    if field in OTHER_DATA:
        scene.refuses("protect", message, **{**known, field: 2})
    else:
        assert scene.protect(**{**known, field: 2}) == ("protected", ())


def test_what_is_final_is_recognised_without_a_look_at_the_data(scene: Scene) -> None:
    scene.protect(labels=1)
    with Journal(scene.path, KEY) as journal:
        journal.make_final()
    assert scene.protect(labels=1) == ("already protected", ())
    assert scene.events.seen == []
    scene.refuses("protect", "other labels", labels=2)


# Changed data


@pytest.mark.guards("I9")
@pytest.mark.parametrize("verb", ["protect", "restore"])
@pytest.mark.parametrize("started", ["protected", "stopped", "undone"])
def test_changed_data_are_named_and_only_what_is_known_is_edited(scene: Scene, verb: str, started: str) -> None:
    if started == "stopped":
        assert scene.crashed("protect", scene_event(scene, "store e"))
    else:
        scene.protect()
        if started == "undone":
            scene.restore()
    kept = dict(scene.clips)
    scene.clips.update(b=b"somebody", d=b"else has")
    scene.refuses(verb, r"2 files or clips are missing, .*or were changed since .*nothing was written.*\n  b\n  d$")
    verdicts = scene.verify()
    assert [name for name, verdict in verdicts.items() if verdict is Verdict.NEITHER] == ["b", "d"]
    done, left_out = getattr(scene, verb)(partial=True)
    assert (done, left_out) == (f"partly {verb}ed" if verb == "protect" else "partly restored", ("b", "d"))
    wanted = MARKED if verb == "protect" else ORIGINALS
    assert scene.clips == {**wanted, "b": b"somebody", "d": b"else has"}
    assert scene.state is (State.APPLYING if verb == "protect" else State.UNDOING)
    assert getattr(scene, verb)(partial=True)[1] == ("b", "d")
    scene.clips.update(b=kept["b"], d=kept["d"])
    assert getattr(scene, verb)() == ("protected" if verb == "protect" else "restored", ())
    assert scene.clips == wanted


def test_over_an_undone_run_it_is_said_how_to_go_on_without_what_is_gone(scene: Scene) -> None:
    scene.protect()
    scene.restore()
    scene.clips["b"] = b"somebody"
    scene.refuses("protect", "if that is meant, move the sidecar away, for its run was undone and all others are orig")
    scene.clips["a"] = MARKED["a"]
    with pytest.raises(SidecarError) as caught:
        scene.protect()
    assert "move the sidecar away" not in str(caught.value)


@pytest.mark.parametrize("verb", ["protect", "restore"])
def test_what_may_not_be_written_is_named_before_anything_is(scene: Scene, monkeypatch: Any, verb: str) -> None:
    scene.protect()
    if verb == "protect":
        scene.restore()
        scene.clips["a"] = MARKED["a"]
    monkeypatch.setattr(MemoryTarget, "unwritable", lambda _, batch: [name for name in batch if name in "ce"])
    scene.refuses(verb, r"2 files or clips .*may not be written.*\n  c\n  e$")
    kept = {name: scene.clips[name] for name in "ce"}
    assert getattr(scene, verb)(partial=True)[1] == ("c", "e")
    assert scene.clips == {**(MARKED if verb == "protect" else ORIGINALS), **kept}


@pytest.mark.guards("I8")
@pytest.mark.parametrize("verb", ["protect", "restore"])
@pytest.mark.parametrize("state", [State.APPLYING, State.UNDOING])
def test_after_an_interruption_everything_is_stored_again(scene: Scene, verb: str, state: State) -> None:
    """Its sync may have failed; the system then shows what is not on the disk, and never writes it."""
    scene.protect()
    if verb == "restore":
        scene.restore()
    with Journal(scene.path, KEY) as journal:
        journal.move(state)
    getattr(scene, verb)()
    assert [event for event in scene.events.seen if event.startswith("store")] == [f"store {name}" for name in "abcde"]


@pytest.mark.parametrize("verb", ["protect", "restore"])
def test_an_error_says_whether_the_run_had_begun(scene: Scene, monkeypatch: Any, verb: str) -> None:
    if verb == "restore":
        scene.protect()

    def fail(*_: object) -> None:
        raise OSError("no sync")

    with monkeypatch.context() as patching:
        patching.setattr(MemoryTarget, "sync", fail)
        with pytest.raises(OSError, match="no sync") as caught:
            getattr(scene, verb)()
    assert has_stopped(caught.value)
    assert scene.state is (State.APPLYING if verb == "protect" else State.UNDOING)
    scene.clips["b"] = b"somebody"
    with pytest.raises(SidecarError) as refused:
        getattr(scene, verb)()
    assert not has_stopped(refused.value)


def test_many_names_are_cut_and_odd_ones_are_quoted(tmp_path: Path) -> None:
    names = [f"{n}.wav" for n in range(14)] + ["a\nb"]
    scene = Scene(tmp_path / "kept", {name: bytes(8) for name in names})
    scene.protect()
    scene.clips.update(dict.fromkeys(names[4:], b"changed"))
    with pytest.raises(SidecarError) as caught:
        scene.restore()
    lines = str(caught.value).splitlines()
    assert lines[1:] == [*(f"  {n}.wav" for n in range(4, 14)), "  and 1 more"]
    scene.clips.update({name: marked(bytes(8)) for name in names[4:14]})
    with pytest.raises(SidecarError, match=r"\n  'a\\nb'$"):
        scene.restore()


# The batch that was announced


def stopped_before(scene: Scene, event: str) -> None:
    assert scene.crashed("protect", scene_event(scene, event))


@pytest.mark.guards("I9")
@pytest.mark.parametrize("verb", ["protect", "restore"])
def test_an_announced_batch_that_changed_is_refused_since_the_log_may_be_older(scene: Scene, verb: str) -> None:
    stopped_before(scene, "store a")  # its record is durable, and announces c and d
    scene.clips["a"] = ORIGINALS["a"]
    scene.clips["d"] = b"somebody"
    scene.refuses(verb, r"1 files or clips are missing, .*or were changed.*\n  d$")
    done, left_out = getattr(scene, verb)(partial=True)
    assert left_out == ("d",)
    assert done.startswith("partly")
    wanted = MARKED if verb == "protect" else ORIGINALS
    assert scene.clips == {**wanted, "d": b"somebody"}
    scene.clips["d"] = ORIGINALS["d"]
    getattr(scene, verb)()
    assert scene.clips == wanted


def test_an_older_log_is_refused_at_every_record(scene: Scene, tmp_path: Path) -> None:
    """No cut of it marks anything twice, nor calls something original that is marked."""
    scene.protect()
    whole = scene.path.read_bytes()
    with Log(scene.path, KEY) as log:
        ends = [record.place.begin for record in log.records()][1:]
    assert len(ends) == 4  # batches and the last state
    for number, end in enumerate(ends):
        for verb in ("protect", "restore"):
            older = Scene(tmp_path / "older", MARKED)
            older.path.write_bytes(whole[:end])
            if number == 3:  # only the last state is missing
                getattr(older, verb)()
                assert older.clips == (MARKED if verb == "protect" else ORIGINALS)
                continue
            pending = "; or the sidecar is an older copy of itself" if verb == "protect" else ""
            older.refuses(verb, f"were changed since .* was made{pending}; nothing")


def test_another_size_of_batches_goes_on(scene: Scene) -> None:
    stopped_before(scene, "store c")
    assert scene.protect(per_batch=4) == ("protected", ())
    assert scene.clips == MARKED
    scene.restore(per_batch=1)
    assert scene.clips == ORIGINALS


# New data in a finished run


def test_what_is_new_is_marked_and_nothing_else(scene: Scene) -> None:
    scene.protect()
    scene.clips.update(f=b"original", g=b"originals"[:8])
    assert scene.protect() == ("protected", ())
    assert scene.events.seen == [
        "looked a b", "looked c d", "looked e", "applying",
        "did a b", "did c d", "did e", "more", "batch", "store f", "store g", "did f g", "sync", "complete",
    ]  # fmt: skip
    assert scene.clips == {**MARKED, "f": marked(b"original"), "g": marked(b"original")}
    with Journal(scene.path, KEY) as journal:
        assert journal.header["n"] == 7
    assert scene.protect() == ("already protected", ())
    scene.restore()
    assert scene.clips == {**ORIGINALS, "f": b"original", "g": b"original"}


def test_a_stopped_run_goes_on_without_a_new_header_unless_it_grew(scene: Scene) -> None:
    stopped_before(scene, "store c")
    other = scene.copy(scene.path.with_name("other"))
    scene.protect()
    assert "more" not in scene.events.seen
    other.clips["f"] = b"original"
    other.protect()
    assert other.events.seen.count("more") == 1
    assert other.clips == {**MARKED, "f": marked(b"original")}
    with Journal(other.path, KEY) as journal:
        assert journal.header["n"] == 6


@pytest.mark.guards("I6", "I7")
def test_a_crash_at_any_event_while_it_grows(scene: Scene, tmp_path: Path) -> None:
    scene.protect()
    scene.clips.update(f=b"original", g=b"together"[:8], h=b"more ...")
    originals = {**ORIGINALS, "f": b"original", "g": b"together", "h": b"more ..."}
    for moment in itertools.count():
        other = scene.copy(tmp_path / "one")
        crashed = other.crashed("protect", moment)
        for verb, wanted in (("protect", {n: marked(c) for n, c in originals.items()}), ("restore", originals)):
            third = other.copy(tmp_path / "two")
            getattr(third, verb)()
            assert third.clips == wanted
        if not crashed:
            break


# Records that cannot be


def test_a_batch_that_was_not_announced_is_refused(scene: Scene) -> None:
    scene.protect()
    with Journal(scene.path, KEY) as journal:
        journal.append(Kind.BATCH, bytes(4))
    for verb in ("protect", "restore", "verify"):
        with pytest.raises(SidecarError, match="has a batch too many; restore a backup of it"):
            getattr(scene, verb)()


def test_what_is_secret_is_not_shown(scene: Scene) -> None:
    fresh = MemoryTarget(ORIGINALS, Events()).fresh(["a"])
    assert repr(fresh) == "Fresh()"
    scene.protect()
    with Journal(scene.path, KEY) as journal:
        records = steps.Records(journal, MemoryTarget(scene.clips, Events()))
        assert [repr(one) for one in records] == ["Recorded(0)", "Recorded(1)", "Recorded(2)"]


def test_the_announcement_of_a_beginning_lies_behind_its_header(scene: Scene) -> None:
    scene.protect()
    with Journal(scene.path, KEY) as journal:
        (first,) = journal.records(Kind.BEGIN)
    assert first.payload.startswith(pack_json(journal.header))


def test_a_batch_of_equal_content_is_not_taken_for_the_announced_one(scene: Scene) -> None:
    scene.clips["c"] = scene.clips["b"]
    twin = Scene(scene.path.with_name("twin"), scene.clips)
    twin.protect(per_batch=1)
    with pytest.raises(Crash):
        scene.protect(twin.events.seen.index("store a"), per_batch=1)  # its record is durable, and announces b
    scene.clips["a"] = ORIGINALS["a"]
    scene.clips["b"] = b"somebody"
    assert scene.protect(partial=True, per_batch=1) == ("partly protected", ("b",))
    assert scene.clips == {**MARKED, "b": b"somebody", "c": MARKED["b"]}
    scene.clips["b"] = ORIGINALS["b"]
    assert scene.restore(per_batch=1) == ("restored", ())
    assert scene.clips == {**ORIGINALS, "c": ORIGINALS["b"]}


def test_no_more_of_what_is_left_out_is_marked_because_it_was_announced(scene: Scene) -> None:
    """The batch that comes next is planned anew if anything that is recorded has changed."""
    stopped_before(scene, "store a")
    scene.clips["a"] = b"somebody"
    assert scene.protect(partial=True) == ("partly protected", ("a",))
    assert scene.clips == {**MARKED, "a": b"somebody"}
    scene.clips["a"] = ORIGINALS["a"]
    assert scene.protect() == ("protected", ())
    assert scene.restore() == ("restored", ())
    assert scene.clips == ORIGINALS
