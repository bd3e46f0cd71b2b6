"""`ownership_statement`: what it says to the bit, what it refuses, and how an ownership test refers to it."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folders
import numpy as np
import pytest
import soundfile
from audiofiles import contents
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

import poscuda_fast as pf
from poscuda_fast.errors import DatasetError, SidecarError
from poscuda_fast.statement import Statement

LABELS = ["yes", "no", "2 3", "café"]


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-2000, 2000, n).astype(np.int16)


def folder(place: Path, labels: list[str] = LABELS) -> Path:
    """A folder with clips of every label, one of them FLAC, one silent and one empty, and a file that is no audio."""
    data = place / "data"
    for seed, label in enumerate(labels):
        (data / label).mkdir(parents=True)
        soundfile.write(data / label / "a b.wav", noise(3000, seed), 16000)
        soundfile.write(data / label / "ü.flac", noise(2000, seed), 16000)
        soundfile.write(data / label / "empty.wav", noise(0), 16000)
    (data / "notes.txt").write_text("about")
    return data


def array(place: Path, dtype: str = "<f4") -> Path:
    clips = (np.random.default_rng(0).normal(0, 0.1, (6, 700, 2))).astype(dtype)
    np.save(place / "clips.npy", clips)
    return place / "clips.npy"


def naive_digest(fields: dict[str, Any]) -> str:
    rest = {name: value for name, value in fields.items() if name != "digest"}
    return blake3(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def listed(clips: list[tuple[str, bytes, str | int]], key: bytes | None = None) -> str:
    lines = [f"{json.dumps([name, blake3(content).hexdigest(), label])}\n" for name, content, label in clips]
    return blake3("".join(sorted(lines)).encode(), key=key).hexdigest()


def hidden(master: bytes, token: bytes) -> str:
    """A label that is hidden, from FORMAT.md alone."""

    def expand(*fields: bytes) -> bytes:
        prk = hmac.digest(b"poscuda-fast/1", master, "sha256")
        info = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
        return hmac.digest(prk, info + b"\1", "sha256")

    return hmac.new(expand(b"statement", b"labels"), token, hashlib.sha256).hexdigest()


@pytest.fixture(params=["copy", "in place"])
def protected(request: pytest.FixtureRequest, tmp_path: Path, key: pf.Key) -> Path:
    data = folder(tmp_path)
    copy = tmp_path / "copy" if request.param == "copy" else None
    pf.protect_folder(data, copy, key)
    return data if copy is None else copy


def test_it_states_a_folder_to_the_bit(protected: Path, key: pf.Key) -> None:
    before = dt.datetime.now(dt.timezone.utc).replace(microsecond=0)
    fields = pf.ownership_statement(protected, key).to_dict()
    date = dt.datetime.strptime(fields.pop("date"), "%Y-%m-%dT%H:%M:%S%z")
    assert before <= date <= dt.datetime.now(dt.timezone.utc)
    whole = {**fields, "date": date.strftime("%Y-%m-%dT%H:%M:%SZ")}
    clips = [
        (f"{label}/{name}", (protected / label / name).read_bytes(), unicodedata.normalize("NFC", label))
        for label in LABELS
        for name in ("a b.wav", "ü.flac")
    ]
    assert fields == {
        "poscuda_statement": 1,
        "fingerprint": key.fingerprint,
        "commitment": key.derive(b"commitment", length=32).hex(),
        "recipe": {"format": 2, "strength": 1.0},
        "sample_rates": [16000],
        "labels": sorted(LABELS),
        "labels_hidden": False,
        "clips": 8,
        "content": listed(clips),
        "digest": naive_digest(whole),
    }


@pytest.mark.parametrize("copying", [True, False])
def test_it_states_an_array_to_the_bit(tmp_path: Path, key: pf.Key, copying: bool) -> None:
    data, copy = array(tmp_path), tmp_path / "copy.npy" if copying else None
    lengths = [700, 0, 1, 700, 350, 700]
    pf.protect_array(data, [10, 9, 10, 7, 9, 10], key, dst=copy, lengths=lengths, sample_rate=8000)
    data = copy or data
    found = pf.ownership_statement(data, key)
    samples = np.load(data)
    labels = {0: 10, 3: 7, 4: 9, 5: 10, 2: 10}
    original = np.random.default_rng(0).normal(0, 0.1, (6, 700, 2)).astype(np.float32)
    changed = {n: label for n, label in labels.items() if (samples[n] != original[n]).any()}
    assert set(changed) >= {0, 3, 4, 5}
    assert found.content == listed([(str(n), samples[n].tobytes(), label) for n, label in changed.items()])
    assert (found.clips, found.labels, found.sample_rates) == (len(changed), (7, 9, 10), (8000,))


@pytest.mark.parametrize("hide", [False, True])
@pytest.mark.parametrize("kind", ["folder", "array"])
def test_which_clips_are_a_marked_share_cannot_be_tried(tmp_path: Path, key: pf.Key, kind: str, hide: bool) -> None:
    if kind == "folder":
        data = folder(tmp_path)
        before = contents(data)
        pf.protect_folder(data, None, key, share=0.5)
        changed = sorted(name for name, content in contents(data).items() if content != before[name])
        clips = [(name, (data / name).read_bytes(), name.partition("/")[0]) for name in changed]
    else:
        data = array(tmp_path)
        original = np.load(data)
        pf.protect_array(data, ["yes", "no"] * 3, key, share=0.5)
        now = np.load(data)
        rows = np.flatnonzero((now != original).reshape(6, -1).any(axis=1)).tolist()
        clips = [(str(n), now[n].tobytes(), ["yes", "no"][n % 2]) for n in rows]
    assert clips
    found = pf.ownership_statement(data, key, hide_labels=hide)
    secret = key.derive(b"statement", b"content", length=32)
    if hide:
        clips = [(name, content, hidden(bytes(range(32)), b"n" + label.encode())) for name, content, label in clips]
    assert found.clips == len(clips)
    assert found.content == listed(clips, secret)
    assert found.content != listed(clips)


def test_format_1_has_no_sample_rates_and_counts_what_it_changed(tmp_path: Path, key: pf.Key) -> None:
    data = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.int16, (3, 500))
    data[:2] = noise(1000).reshape(2, 500)
    pf.protect_memmap(data, ["b", "a", "c"], key, recipe=pf.Recipe.paper())
    found = pf.ownership_statement(data, key)
    assert (found.clips, found.labels, found.sample_rates) == (2, ("a", "b"), ())
    assert found.recipe == pf.Recipe.paper().to_dict()


def test_after_the_undo_was_dropped_a_folder_can_be_stated(tmp_path: Path, key: pf.Key) -> None:
    data = folder(tmp_path)
    pf.protect_folder(data, None, key)
    before = pf.ownership_statement(data, key)
    pf.drop_undo(data, key)
    assert pf.ownership_statement(data, key).content == before.content


def test_hidden_labels_are_told_by_the_key_alone(protected: Path, key: pf.Key) -> None:
    open_one, found = pf.ownership_statement(protected, key), pf.ownership_statement(protected, key, hide_labels=True)
    assert found.labels == tuple(sorted(hidden(bytes(range(32)), b"n" + label.encode()) for label in LABELS))
    assert found.labels_hidden
    assert found.content != open_one.content
    assert "yes" not in json.dumps(found.to_dict())
    shown = str(found)
    assert "(hidden)" in shown
    assert found.digest in shown


def test_it_has_no_secret(protected: Path, key: pf.Key) -> None:
    told = json.dumps(pf.ownership_statement(protected, key).to_dict())
    assert key.commitment in told
    assert bytes(range(32)).hex() not in told
    for purpose in (b"lines", b"taps", b"position", b"sidecar"):
        assert key.derive(purpose, length=32).hex()[:32] not in told


# What it refuses.


def test_what_is_not_protected_is_not_stated(tmp_path: Path, key: pf.Key) -> None:
    data = folder(tmp_path)
    with pytest.raises(SidecarError, match="does not exist"):
        pf.ownership_statement(data, key)
    pf.protect_folder(data, None, key)
    with pytest.raises(SidecarError):
        pf.ownership_statement(data, pf.Key(bytes(32)))
    whole = (data / "yes" / "a b.wav").read_bytes()
    (data / "yes" / "a b.wav").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DatasetError, match=r"is not protected.*1 neither"):
        pf.ownership_statement(data, key)
    (data / "yes" / "a b.wav").write_bytes(whole)
    manifest = tmp_path / "data.poscuda.json"
    there = manifest.read_bytes()
    manifest.write_bytes(there.replace(key.fingerprint.encode(), b"0" * 16))
    with pytest.raises(DatasetError, match="is not that of"):
        pf.ownership_statement(data, key)
    manifest.unlink()
    with pytest.raises(DatasetError, match="no manifest"):
        pf.ownership_statement(data, key)
    manifest.write_bytes(there)
    assert pf.ownership_statement(data, key).clips == 8
    pf.restore_folder(data, key)
    with pytest.raises(DatasetError, match="0 of its clips or files are protected, 8 original"):
        pf.ownership_statement(data, key)


def test_a_save_that_is_killed_leaves_no_half_statement(tmp_path: Path) -> None:
    """Its name would be taken, and the same command refused."""
    script = (
        "import os, sys\n"
        "from poscuda_fast.statement import Statement\n"
        "one = Statement.load(sys.argv[1])\n"
        "os.fsync = lambda _: os.kill(os.getpid(), 9)\n"
        "one.save(sys.argv[2])\n"
    )
    (tmp_path / "good.json").write_text(json.dumps(sealed()))
    ended = subprocess.run([sys.executable, "-c", script, tmp_path / "good.json", tmp_path / "s.json"], check=False)
    assert ended.returncode == -9
    assert not (tmp_path / "s.json").exists()
    Statement.load(tmp_path / "good.json").save(tmp_path / "s.json")
    assert Statement.load(tmp_path / "s.json").to_dict() == sealed()


def edited(manifest: Path, how: str) -> str:
    """The text of a manifest that was edited."""
    fields = json.loads(manifest.read_text(encoding="utf-8"))
    one = fields["files"]["yes/a b.wav"]
    if how == "gone":
        del fields["files"]["yes/a b.wav"]
    elif how == "empty":
        fields["files"] = {}
    elif how == "added":
        fields["files"]["notes.txt"] = {**one, "blake3_after": blake3(b"about").hexdigest()}
    elif how == "unchanged":
        one["blake3_before"] = one["blake3_after"]
    else:
        one["label"] = {"other class": "no", "new class": "maybe", "none": None}[how]
    return json.dumps(fields)


EDITS = ["gone", "empty", "added", "unchanged", "other class", "new class", "none"]


@pytest.mark.parametrize("how", EDITS)
def test_a_manifest_that_was_edited_is_not_believed(protected: Path, key: pf.Key, how: str) -> None:
    manifest = protected.with_name(f"{protected.name}.poscuda.json")
    manifest.write_text(edited(manifest, how))
    with pytest.raises(DatasetError, match="is not that of"):
        pf.ownership_statement(protected, key)


@pytest.mark.parametrize("how", sorted({*EDITS} - {"unchanged", "other class"}))
def test_nor_is_it_after_the_undo_was_dropped(tmp_path: Path, key: pf.Key, how: str) -> None:
    """The sidecar then tells no more than how many files there are, and their classes."""
    data = folder(tmp_path)
    pf.protect_folder(data, None, key)
    pf.drop_undo(data, key)
    manifest = tmp_path / "data.poscuda.json"
    manifest.write_text(edited(manifest, how))
    with pytest.raises(DatasetError, match=r"is not that of|is not protected"):
        pf.ownership_statement(data, key)


@pytest.mark.parametrize("copying", [True, False])
def test_one_file_that_was_renamed_is_stated_by_its_name(tmp_path: Path, key: pf.Key, copying: bool) -> None:
    soundfile.write(tmp_path / "a.flac", noise(3000), 16000)
    data = tmp_path / "c.flac" if copying else tmp_path / "a.flac"
    pf.protect_folder(tmp_path / "a.flac", data if copying else None, key, labels_from={"a.flac": "yes"})
    for end in ("", ".poscuda", ".poscuda.json"):
        data.with_name(data.name + end).rename(tmp_path / f"b.flac{end}")
    found = pf.ownership_statement(tmp_path / "b.flac", key)
    assert found.content == listed([("b.flac", (tmp_path / "b.flac").read_bytes(), "yes")])


@pytest.mark.parametrize("recipe", ["default", "loud"])
@pytest.mark.parametrize("share", [1, 0.6])
def test_files_that_format_1_leaves_alone_are_not_stated(
    tmp_path: Path, key: pf.Key, recipe: str, share: float
) -> None:
    """Every kind of file, silent and empty ones too."""
    src = folders.write_dataset(tmp_path)
    (src / "deep/er/no/loud.wave").unlink()
    before = contents(src)
    pf.protect_folder(src, None, key, recipe=folders.RECIPES[recipe], share=share)
    changed = sum(content != before[name] for name, content in contents(src).items())
    assert pf.ownership_statement(src, key).clips == changed


def test_clips_that_were_changed_or_undone_are_not_stated(tmp_path: Path, key: pf.Key) -> None:
    data = array(tmp_path)
    pf.protect_array(data, [0, 1] * 3, key)
    clips = np.load(data, mmap_mode="r+")
    clips[2, 3] = 0
    with pytest.raises(DatasetError, match="1 neither"):
        pf.ownership_statement(clips, key)
    pf.restore_array(data, key, partial=True)
    with pytest.raises(DatasetError, match="0 of its clips or files are protected"):
        pf.ownership_statement(data, key)


def test_it_is_written_once_and_read_back(tmp_path: Path, protected: Path, key: pf.Key) -> None:
    found = pf.ownership_statement(protected, key)
    found.save(tmp_path / "s.json")
    content = (tmp_path / "s.json").read_bytes()
    assert Statement.load(tmp_path / "s.json") == found == Statement.from_dict(json.loads(content))
    with pytest.raises(FileExistsError, match="nothing is overwritten"):
        found.save(tmp_path / "s.json")
    with pytest.raises(FileNotFoundError, match="The folder of"):
        found.save(tmp_path / "no" / "s.json")
    assert (tmp_path / "s.json").read_bytes() == content
    os.symlink(tmp_path / "nowhere", tmp_path / "link")
    with pytest.raises(FileExistsError):
        found.save(tmp_path / "link")


GOOD = {
    "date": "2026-01-02T03:04:05Z",
    "fingerprint": "0" * 16,
    "commitment": "0" * 64,
    "recipe": {"format": 2, "strength": 1.0},
    "sample_rates": [16000],
    "labels": [3, "yes"],
    "labels_hidden": False,
    "clips": 7,
    "content": "f" * 64,
}


def sealed(**changes: Any) -> dict[str, Any]:
    """A statement whose digest is right, whatever else is wrong."""
    fields = {"poscuda_statement": 1, **GOOD, **changes}
    return {**fields, "digest": naive_digest(fields)}


def test_one_that_was_changed_is_refused_and_no_order_of_fields_matters() -> None:
    fields = sealed()
    good = Statement.from_dict(dict(reversed(fields.items())))
    assert good.to_dict() == fields
    for name in GOOD:
        for value in (None, [], "x", 0, True, 7.0, {"a": float("inf")}):
            with pytest.raises(DatasetError, match="was changed"):
                Statement.from_dict({**fields, name: value})
        without = {other: value for other, value in fields.items() if other != name}
        with pytest.raises(DatasetError, match="was changed"):
            Statement.from_dict(without)


@pytest.mark.parametrize(
    "changes",
    [
        {"date": "yesterday"}, {"date": "2026-01-02T03:04:05Z\n"}, {"fingerprint": "A" * 16}, {"commitment": "0" * 63},
        {"labels": [True]}, {"labels": [["yes"]]}, {"sample_rates": [16000.0]}, {"clips": True}, {"more": 1},
        {"labels_hidden": 0}, {"recipe": []}, {"recipe": {"strength": 1.0}}, {"date": "٢٠٢٦-01-02T03:04:05Z"},
    ],
    ids=str,
)  # fmt: skip
def test_one_that_could_not_have_been_made_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match="was changed"):
        Statement.from_dict(sealed(**changes))


@pytest.mark.parametrize(
    "given",
    [
        {},
        [],
        None,
        "x",
        {"poscuda_statement": 2},
        {"poscuda_statement": "1" * 999},
        {**GOOD, "poscuda_statement": True},
        {**GOOD, "poscuda_statement": 1.0},
    ],
)
def test_what_is_no_statement_is_refused(tmp_path: Path, given: Any) -> None:
    with pytest.raises(DatasetError, match=r"not a statement|has version"):
        Statement.from_dict(given)
    (tmp_path / "s.json").write_text(json.dumps(given))
    with pytest.raises(DatasetError, match=r"s\.json: "):
        Statement.load(tmp_path / "s.json")
    (tmp_path / "s.json").write_bytes(b"\xff[" * 100_000)
    with pytest.raises(DatasetError, match="is not JSON"):
        Statement.load(tmp_path / "s.json")


def test_one_with_a_field_twice_is_refused(tmp_path: Path) -> None:
    """Of two labels some programs read the first, and Python the last."""
    text = json.dumps(sealed())
    (tmp_path / "s.json").write_text(text.replace('"labels"', '"labels": ["other"], "labels"'))
    with pytest.raises(DatasetError, match="a field twice"):
        Statement.load(tmp_path / "s.json")


@given(
    labels=st.lists(st.integers(0, 2**64 - 1) | st.text(), max_size=5),
    clips=st.integers(0, 2**70),
    strength=st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_statement_is_read_back(labels: list[int | str], clips: int, strength: float) -> None:
    made = Statement(**{**GOOD, "labels": tuple(labels), "sample_rates": (), "clips": clips,
                        "recipe": {"format": 2, "strength": strength}})  # fmt: skip
    assert Statement.from_dict(json.loads(json.dumps(made.to_dict()))) == made


# How a test refers to it.


@pytest.fixture
def stated(tmp_path: Path, key: pf.Key) -> Iterator[Path]:
    data = np.lib.format.open_memmap(tmp_path / "d.npy", "w+", np.int16, (40, 600))
    data[:] = noise(24_000).reshape(40, 600)
    pf.protect_memmap(data, ["yes", "no", 7, "8"] * 10, key, sample_rate=8000)
    pf.ownership_statement(data, key).save(tmp_path / "s.json")
    return tmp_path / "s.json"


def ask(key: pf.Key, labels: list[Any], statement: Any, **options: Any) -> pf.Ownership:
    clips = noise(600 * len(labels), 1).reshape(-1, 600)
    options = {"sample_rate": 8000, "decoys": 9, **options}
    return pf.ownership_test(lambda batch: ["yes"] * len(batch), clips, labels, key, statement=statement, **options)


def test_its_result_names_the_statement(stated: Path, key: pf.Key) -> None:
    made = Statement.load(stated)
    for form in (stated, str(stated), json.loads(stated.read_text()), made):
        found = ask(key, ["7", " no", "yes", 8], form)
        assert (found.statement, found.stated) == (made.digest, made.date)
        assert found.to_dict()["statement"] == made.digest
        assert made.digest in str(found)
    alone = ask(key, ["7", "no", "yes", 8], None)
    assert (alone.statement, alone.stated) == (None, None)
    assert "statement" not in str(alone)


@pytest.mark.parametrize("hide", [False, True])
def test_a_test_with_something_else_is_refused(tmp_path: Path, stated: Path, key: pf.Key, hide: bool) -> None:
    data = np.load(tmp_path / "d.npy", mmap_mode="r")
    statement = pf.ownership_statement(data, key, hide_labels=hide)
    labels = ["7", "no", "yes", 8]
    with pytest.raises(ValueError, match="with another key"):
        ask(pf.Key(bytes(32)), labels, statement)
    with pytest.raises(ValueError, match="recipe is format 2, strength 2, and statement says format 2, strength 1"):
        ask(key, labels, statement, recipe=pf.Recipe.strong(2))
    with pytest.raises(ValueError, match=r"does not have: 'maybe'; leave"):
        ask(key, [*labels, "maybe"], statement)
    with pytest.raises(ValueError, match="lacks 2 of the 4 classes of statement" + ("" if hide else r" \('no', 7\)")):
        ask(key, ["yes", 8, 8], statement)
    with pytest.raises(ValueError, match="sample_rate is 16000, and statement says 8000 Hz"):
        ask(key, labels, statement, sample_rate=None)
    with pytest.raises(TypeError, match="statement is a int"):
        ask(key, labels, 3)
    with pytest.raises(DatasetError, match="was changed"):
        ask(key, labels, {**statement.to_dict(), "clips": 1})


def test_a_key_of_the_same_fingerprint_is_another_key(stated: Path, key: pf.Key) -> None:
    """Two keys of one fingerprint can be made; the commitment tells them apart."""
    other = pf.Key(bytes(32))
    made = Statement.load(stated)
    alike = Statement(**{**{name: getattr(made, name) for name in GOOD}, "fingerprint": other.fingerprint})
    with pytest.raises(ValueError, match="with another key"):
        ask(other, ["7", "no", "yes", 8], alike)
    assert ask(key, ["7", "no", "yes", 8], alike).statement == alike.digest
