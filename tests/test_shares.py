"""`share`: a keyed share of the clips is marked, the others stay as they are, in every verb."""

from __future__ import annotations

import hmac
import json
import math
import os
import unicodedata
from fractions import Fraction
from pathlib import Path
from typing import Any

import folders
import numpy as np
import pytest
import soundfile
from audiofiles import contents
from folders import RECIPES, both_ways
from hypothesis import given
from hypothesis import strategies as st

import poscuda_fast as pf
from poscuda_fast.errors import DatasetError, SidecarError
from poscuda_fast.mark import shares
from poscuda_fast.recipe import check_share

MASTER = bytes(range(32))
AUDIO = (".wav", ".wave", ".flac", ".aiff", ".aif", ".caf", ".w64", ".au")


def expand(master: bytes, length: int, *fields: bytes) -> bytes:
    """`derive` of FORMAT.md, by hand."""
    prk = hmac.digest(b"poscuda-fast/1", master, "sha256")
    info = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    found, block = b"", b""
    while len(found) < length:
        block = hmac.digest(prk, block + info + bytes([len(found) // 32 + 1]), "sha256")
        found += block
    return found[:length]


def word_of_row(master: bytes, row: int) -> int:
    block = expand(master, 4096, b"share", b"row", (row // 1024).to_bytes(8, "big"))
    return int.from_bytes(block[4 * (row % 1024) :][:4], "little")


def word_of_file(master: bytes, name: str) -> int:
    return int.from_bytes(expand(master, 4, b"share", b"file", unicodedata.normalize("NFC", name).encode()), "little")


def rows(n: int, share: float, master: bytes = MASTER) -> list[int]:
    """The rows that are marked."""
    part = round(share * 10**6)
    return [row for row in range(n) if word_of_row(master, row) * 10**6 < part * 2**32]


def is_taken(name: str, share: float) -> bool:
    return word_of_file(MASTER, name) * 10**6 < round(share * 10**6) * 2**32


# Which clips.


def test_the_words_are_those_of_the_vectors() -> None:
    assert [f"{word_of_row(MASTER, row):08x}" for row in (0, 1, 2, 3, 1024)] == [
        "b65f5dd8", "b3f885d9", "480f4831", "7eb7d8cb", "e5ecbdd7",
    ]  # fmt: skip
    assert [f"{word_of_file(MASTER, name):08x}" for name in ("yes/a.wav", "café/1.wav")] == ["457004a9", "13216279"]


@given(master=st.binary(min_size=32, max_size=32), n=st.integers(0, 3000), share=st.integers(1, 999_999))
def test_rows_are_chosen_to_the_bit(master: bytes, n: int, share: int) -> None:
    tags = shares.of_rows(pf.Key(master), share, n)
    assert tags is not None
    assert tags.chosen.shape == (n,)
    for row in {0, 1, 1023, 1024, n - 1}:
        if 0 <= row < n:
            assert tags.chosen[row] == (word_of_row(master, row) * 10**6 < share * 2**32)
    more, fewer = shares.of_rows(pf.Key(master), share, n + 1025), shares.of_rows(pf.Key(master), share, n // 2)
    assert more is not None
    assert fewer is not None
    assert (more.chosen[:n] == tags.chosen).all()  # stable when data grow
    assert (tags.chosen[: n // 2] == fewer.chosen).all()
    wider = shares.of_rows(pf.Key(master), min(999_999, share + 1000), n)
    assert wider is not None
    assert not (tags.chosen & ~wider.chosen).any()  # a larger share has the smaller one


@given(names=st.lists(st.text(st.characters(codec="utf-8"), min_size=1), max_size=20), share=st.integers(1, 999_999))
def test_files_are_chosen_to_the_bit_in_any_spelling(names: list[str], share: int) -> None:
    key = pf.Key(MASTER)
    expected = [word_of_file(MASTER, name) * 10**6 < share * 2**32 for name in names]
    for form in ("NFC", "NFD"):
        tags = shares.of_names(key, share, [unicodedata.normalize(form, name) for name in names])
        assert tags is not None
        assert tags.chosen.tolist() == expected
        assert repr(tags) == f"Tags({share})"


def test_about_the_share_is_chosen() -> None:
    for key in (pf.Key(MASTER), pf.Key(bytes(32))):
        tags = shares.of_rows(key, 50_000, 100_000)
        assert tags is not None
        assert abs(tags.chosen.sum() - 5000) < 6 * math.sqrt(100_000 * 0.05 * 0.95)


@pytest.mark.parametrize(
    ("share", "millionths"),
    [
        (1, None), (1.0, None), (True + 0, None), (np.float32(0.5), 500_000), (0.05, 50_000), (1e-6, 1),
        (Fraction(1, 3), 333_333), (0.999_999_9, None), (np.float64(0.25), 250_000),
    ],
)  # fmt: skip
def test_a_share_is_taken_in_millionths(share: Any, millionths: int | None) -> None:
    assert check_share(share) == millionths


@pytest.mark.parametrize("share", [0, -0.1, 1.01, 5, math.nan, math.inf, -math.inf, 10**400, 1e-9])
def test_a_share_out_of_range_is_refused(share: Any) -> None:
    with pytest.raises(ValueError, match="share is "):
        check_share(share)


@pytest.mark.parametrize("share", [True, "0.05", None, [0.1], 1j])
def test_a_share_that_is_no_number_is_refused(share: Any) -> None:
    with pytest.raises(TypeError, match="share is "):
        check_share(share)


# Arrays.


N, SHARE = 24, 0.3
LABELS = ["yes", "no", 3] * 8
LENGTHS = [500, 0, 1, 499] * 6


def samples(kind: str) -> np.ndarray:
    clips = np.random.default_rng(5).normal(0, 2000, (N, 500, 2))
    return clips.astype(np.int16) if kind == "int16" else (clips / 32768).astype(np.float32)


def expected(kind: str, key: pf.Key, **options: Any) -> np.ndarray:
    """What is marked as without a share, and the other clips as they were."""
    clips, whole = samples(kind), samples(kind)
    pf.protect(whole, LABELS, key, **options)
    chosen = rows(N, SHARE)
    assert 2 < len(chosen) < N / 2
    clips[chosen] = whole[chosen]
    return clips


each = pytest.mark.parametrize("recipe", ["format 2", "loud", "every"])
kinds = pytest.mark.parametrize("kind", ["int16", "float32"])


@each
@kinds
def test_an_array_in_memory(recipe: str, kind: str, key: pf.Key) -> None:
    options = {"recipe": RECIPES[recipe], "lengths": LENGTHS}
    wanted = expected(kind, key, **options)
    clips = samples(kind)
    report = pf.protect(clips, LABELS, key, share=SHARE, **options)
    assert clips.tobytes() == wanted.tobytes()
    chosen = rows(N, SHARE)
    assert (report.clips, report.untagged) == (N, N - len(chosen))
    alone = samples(kind)[chosen]
    lengths = [LENGTHS[row] for row in chosen]
    only = pf.protect(alone, [LABELS[row] for row in chosen], key, recipe=RECIPES[recipe], lengths=lengths)
    assert (report.frames_changed, report.patches, report.short_clips, report.saturated_samples) == (
        only.frames_changed, only.patches, only.short_clips, only.saturated_samples,
    )  # fmt: skip
    assert any("does not make the data unlearnable" in note for note in report.notes)
    assert "untagged" in str(report)
    listed = [clip[:length].copy() for clip, length in zip(samples(kind), LENGTHS, strict=True)]
    pf.protect(listed, LABELS, key, share=SHARE, recipe=RECIPES[recipe])
    assert all((one == clip[: len(one)]).all() for one, clip in zip(listed, wanted, strict=True))


@each
@kinds
@both_ways
@pytest.mark.parametrize("store", ["npy", "zarr", "fortran"])
def test_a_stored_array(tmp_path: Path, recipe: str, kind: str, copying: bool, store: str, key: pf.Key) -> None:
    data = tmp_path / f"clips.{'zarr' if store == 'zarr' else 'npy'}"
    original = samples(kind)

    def read(path: Path) -> np.ndarray:
        return np.array(zarr.open_array(path)) if store == "zarr" else np.load(path)

    if store == "zarr":
        zarr = pytest.importorskip("zarr")
        array = zarr.create_array(data, shape=original.shape, dtype=kind, chunks=(1, 100, 2), shards=(4, 500, 2))
        array[:] = original
    else:
        np.save(data, np.asfortranarray(original) if store == "fortran" else original)
    options: dict[str, Any] = {"recipe": RECIPES[recipe], "lengths": LENGTHS, "sample_rate": 8000}
    wanted = expected(kind, key, **options)
    dst = data.with_name(f"copy{data.suffix}") if copying else None
    again = {**options, "dst": dst, "share": SHARE}
    assert pf.protect_array(data, LABELS, key, **again, dry_run=True).untagged == N - len(rows(N, SHARE))
    report = pf.protect_array(data, LABELS, key, **again)
    target = dst or data
    assert read(target).tobytes() == wanted.tobytes()
    assert (report.state, report.clips, report.untagged) == ("protected", N, N - len(rows(N, SHARE)))
    repeated = pf.protect_array(data, LABELS, key, **again)
    assert (repeated.state, repeated.untagged, repeated.notes[:1]) == (
        "already protected", report.untagged, report.notes[:1],
    )  # fmt: skip
    for share in (1, 0.31, 0.2):
        with pytest.raises(SidecarError, match=r"another share of the clips|marks a share of 0\.3"):
            pf.protect_array(data, LABELS, key, **{**again, "share": share})
    found = pf.verify_array(target, key)
    n_marked = int((wanted != original).reshape(N, -1).any(axis=1).sum())  # a filter may leave a single frame alone
    n_tagged = sum(LENGTHS[row] > 0 for row in rows(N, SHARE))
    if copying:
        assert (found.protected, found.unchanged) == (N - report.untagged, report.untagged)
        assert pf.verify_array(target, key, source=data).protected == n_marked
    else:
        assert (found.protected, found.unchanged) == (n_marked, report.untagged + n_tagged - n_marked)
    assert found.ok
    seen = [number for number, *_ in pf.originals_of_array(target, key)]
    assert seen == [row for row in rows(N, SHARE) if LENGTHS[row]]
    assert pf.ownership_statement(target, key).clips == n_marked
    if copying:
        assert read(data).tobytes() == original.tobytes()
    else:
        restored = pf.restore_array(data, key)
        assert (restored.state, restored.untagged) == ("restored", report.untagged)
        assert read(data).tobytes() == original.tobytes()
        assert pf.protect_array(data, LABELS, key, **{**again, "share": 0.7}).state == "protected"
        assert pf.restore_array(data, key).state == "restored"
        assert read(data).tobytes() == original.tobytes()


@pytest.mark.parametrize("copying", [True, False])
def test_an_array_without_its_sidecar(tmp_path: Path, copying: bool, key: pf.Key) -> None:
    """Long clips, whose marks can be told."""
    original = np.random.default_rng(1).normal(0, 300, (60, 4000)).astype(np.int16)
    data, labels = tmp_path / "clips.npy", ["yes", "no"] * 30
    np.save(data, original)
    pf.protect_array(data, labels, key, share=SHARE)
    marked = np.load(data)
    (tmp_path / "clips.npy.poscuda").unlink()
    with pytest.raises(SidecarError, match="marked with this key already"):
        pf.protect_array(data, labels, key, share=SHARE)
    dst = tmp_path / "back.npy" if copying else None
    with pytest.raises(SidecarError, match="do not look marked"):
        pf.restore_array(data, key, without_sidecar=True, labels=labels, dst=dst)
    report = pf.restore_array(data, key, without_sidecar=True, labels=labels, dst=dst, share=SHARE)
    assert report.state == "restored"
    assert np.load(dst or data).tobytes() == original.tobytes()
    assert not copying or np.load(data).tobytes() == marked.tobytes()
    if not copying:
        assert pf.protect_array(data, labels, key, share=SHARE).state == "protected"
        assert np.load(data).tobytes() == marked.tobytes()
    with pytest.raises(ValueError, match="share is given, which a sidecar records"):
        pf.restore_array(data, key, share=SHARE)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_marked_share_of_an_array_is_not_marked_twice(tmp_path: Path, in_memory: bool, key: pf.Key) -> None:
    """Few of the clips are marked, and all or more are to be: their medians do not tell."""
    clips = np.random.default_rng(1).normal(0, 300, (400, 4000)).astype(np.int16)
    labels = ["yes", "no"] * 200
    assert pf.protect(clips.copy(), labels, key).clips == 400
    pf.protect(clips, labels, key, share=0.03)
    assert 8 < len(rows(400, 0.03)) < 20
    np.save(tmp_path / "clips.npy", clips)
    for share in (1, 0.5, 0.1):
        if in_memory and share < 1:
            again = clips.copy()
            with pytest.raises(ValueError, match="Some clips of the data are marked with this key already"):
                pf.protect(again, labels, key, share=share)
            assert again.tobytes() == clips.tobytes()
        for dst in () if in_memory else (None, tmp_path / "copy.npy"):
            with pytest.raises(SidecarError, match="Some clips of the data are marked with this key already"):
                pf.protect_array(tmp_path / "clips.npy", labels, key, dst=dst, share=share)
    assert os.listdir(tmp_path) == ["clips.npy"]


@pytest.mark.parametrize("copying", [True, False])
@pytest.mark.parametrize(("was", "given"), [(1, 0.5), (0.5, 0.3), (0.05, 0.02), (0.6, 1), (0.3, 0.5), (0.9, 1)])
def test_a_wrong_share_is_not_undone(tmp_path: Path, copying: bool, was: float, given: float, key: pf.Key) -> None:
    clips = np.random.default_rng(1).normal(0, 100, (400, 4000)).astype(np.int16)
    pf.protect(clips, ["yes", "no"] * 200, key, share=was)
    np.save(tmp_path / "clips.npy", clips)
    dst = tmp_path / "back.npy" if copying else None
    options: dict[str, Any] = {"labels": ["yes", "no"] * 200, "dst": dst, "without_sidecar": True}
    if copying and given > was:  # of a copy the report tells what is not marked
        assert "do not hold their marks" in str(pf.restore_array(tmp_path / "clips.npy", key, share=given, **options))
        return
    with pytest.raises(SidecarError, match=r"do not hold their marks|clips are marked than those of this share"):
        pf.restore_array(tmp_path / "clips.npy", key, share=given, **options)
    assert os.listdir(tmp_path) == ["clips.npy"]
    assert np.load(tmp_path / "clips.npy").tobytes() == clips.tobytes()


# Files.


def few_marked(place: Path, key: pf.Key) -> Path:
    """A folder with 100 files of which few are marked, without its sidecar."""
    for n in range(100):
        (place / "yn"[n % 2]).mkdir(parents=True, exist_ok=True)
        sound = np.random.default_rng(n).normal(0, 300, 4000).astype(np.int16)
        soundfile.write(place / "yn"[n % 2] / f"{n}.{'flac' if n % 3 == 0 else 'wav'}", sound, 16000)
    report = pf.protect_folder(place, None, key, share=0.08)
    assert 2 < report.clips - report.untagged < 15
    for end in (".poscuda", ".poscuda.json"):
        place.with_name(place.name + end).unlink()
    return place


@both_ways
def test_a_marked_share_of_files_is_not_marked_twice(tmp_path: Path, copying: bool, key: pf.Key) -> None:
    src, dst = few_marked(tmp_path / "src", key), tmp_path / "copy" if copying else None
    before = contents(tmp_path)
    for share in (1, 0.5, 0.2):
        with pytest.raises(SidecarError, match="Some clips of the data are marked with this key already"):
            pf.protect_folder(src, dst, key, share=share)
    assert contents(tmp_path) == before


@both_ways
def test_nor_is_it_where_it_is_added(tmp_path: Path, copying: bool, key: pf.Key) -> None:
    more, src, dst = few_marked(tmp_path / "more", key), tmp_path / "src", tmp_path / "copy" if copying else None
    for n in range(4):
        (src / "yn"[n % 2]).mkdir(parents=True, exist_ok=True)
        soundfile.write(src / "yn"[n % 2] / f"new{n}.wav", np.arange(4000, dtype=np.int16), 16000)
    pf.protect_folder(src, dst, key)
    for path in sorted(more.rglob("*.*")):
        path.rename(src / path.relative_to(more))
    before = contents(tmp_path)
    with pytest.raises(SidecarError, match="Some clips of the data are marked with this key already"):
        pf.protect_folder(src, dst, key)
    assert contents(tmp_path) == before


def write_dataset(root: Path) -> Path:
    """Files of every kind, but one that is at full scale throughout: of few files, that is too much of it."""
    src = folders.write_dataset(root)
    (src / "deep/er/no/loud.wave").unlink()
    return src


def audio(place: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(place).items() if name.lower().endswith(AUDIO)}


@each
@both_ways
def test_a_folder_of_every_kind_of_file(tmp_path: Path, recipe: str, copying: bool, key: pf.Key) -> None:
    for place in ("one", "all"):
        (tmp_path / place).mkdir()
    whole, src = write_dataset(tmp_path / "all"), write_dataset(tmp_path / "one")
    before, options = contents(src), {"recipe": RECIPES[recipe], "share": 0.6}
    pf.protect_folder(whole, None, key, recipe=RECIPES[recipe])
    names = [name for name in audio(src) if not name.startswith((".", "yes/._"))]
    others = [name for name in names if not is_taken(name, 0.6)]
    assert {Path(name).suffix for name in others} >= {".wav", ".flac"}
    assert len(others) < len(names) - 5
    for n, name in enumerate(names):
        os.utime(src / name, ns=(10**18 + n, 10**18 + n))
    dst = tmp_path / "copy" if copying else None
    dry = pf.protect_folder(src, dst, key, **options, dry_run=True)
    assert contents(src) == before
    report = pf.protect_folder(src, dst, key, **options)
    target = dst or src
    marked = contents(whole)
    assert {name: (target / name).read_bytes() for name in names} == {
        name: before[name] if name in others else marked[name] for name in names
    }
    assert (report.state, report.clips, report.untagged) == ("protected", len(names), len(others))
    assert (dry.clips, dry.untagged, dry.frames_changed) == (report.clips, report.untagged, report.frames_changed)
    for n, name in enumerate(names):
        assert os.stat(src / name).st_mtime_ns == 10**18 + n or not (copying or name in others)
    for found in (pf.verify_folder(target, key), pf.verify_folder(target)):
        assert found.ok
        assert found.protected + found.unchanged == len(names)
        assert found.unchanged >= len(others)
    if copying:
        assert pf.verify_folder(target, key, source=src).ok
    entries = json.loads(target.with_name(f"{target.name}.poscuda.json").read_text())["files"]
    assert entries.keys() == set(names)
    for name in others:
        assert entries[name]["blake3_before"] == entries[name]["blake3_after"]
        assert entries[name]["snr_db"] is None
    again = pf.protect_folder(src, dst, key, **options)
    assert (again.state, again.untagged) == ("already protected", report.untagged)
    for share in (1, 0.5):
        with pytest.raises(SidecarError, match=r"another share of the clips|marks a share of 0\.6"):
            pf.protect_folder(src, dst, key, **{**options, "share": share})
    shown = {name: (original, now) for name, _, original, now in pf.originals_of_folder(target, key)}
    assert all(shown[name] == (before[name], (target / name).read_bytes()) for name in names)
    if not copying:
        assert pf.restore_folder(src, key).untagged == len(others)
        assert contents(src) == before
        for n, name in enumerate(names):
            assert os.stat(src / name).st_mtime_ns == 10**18 + n or marked[name] == before[name]


@both_ways
def test_files_that_are_added_are_chosen_as_in_a_new_run(tmp_path: Path, copying: bool, key: pf.Key) -> None:
    (tmp_path / "one").mkdir()
    src, dst = write_dataset(tmp_path / "one"), tmp_path / "copy" if copying else None
    names = sorted(audio(src))
    late = {name: (src / name).read_bytes() for name in names[::2]}
    for name in late:
        (src / name).unlink()
    pf.protect_folder(src, dst, key, share=0.5)
    for name, content in late.items():
        (src / name).write_bytes(content)
    report = pf.protect_folder(src, dst, key, share=0.5)
    kept = [name for name in names if not name.startswith((".", "yes/._"))]
    assert (report.clips, report.untagged) == (len(kept), sum(not is_taken(name, 0.5) for name in kept))
    (tmp_path / "two").mkdir()
    other = write_dataset(tmp_path / "two")
    pf.protect_folder(other, None, key, share=0.5)
    assert audio(dst or src) == audio(other)
    assert pf.verify_folder(dst or src, key).ok
    if not copying:
        pf.drop_undo(src, key)
        assert pf.protect_folder(src, None, key, share=0.5).state == "already protected"
        assert pf.verify_folder(src, key).ok


@both_ways
def test_partial_runs_count_what_is_recorded(tmp_path: Path, copying: bool, key: pf.Key) -> None:
    """A file that is away while others are added still counts, and so does its class."""
    src, dst = tmp_path / "src", tmp_path / "copy" if copying else None

    def add(name: str) -> None:
        (src / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(src / name, np.arange(500, dtype=np.int16), 16000)

    for n in range(6):
        add(f"{'no' if n == 1 else 'yes'}/{n}.wav")
    assert not is_taken("no/1.wav", 0.3)
    pf.protect_folder(src, dst, key, share=0.3)
    (src / "no/1.wav").rename(tmp_path / "away")
    add("yes/new.wav")
    pf.protect_folder(src, dst, key, share=0.3, partial=True)
    (tmp_path / "away").rename(src / "no/1.wav")
    for _ in range(2):
        report = pf.protect_folder(src, dst, key, share=0.3)
        untagged = sum(not is_taken(name, 0.3) for name in audio(src))
        assert (report.clips, report.classes, report.untagged) == (7, 2, untagged)


def test_a_folder_without_its_sidecar(tmp_path: Path, key: pf.Key) -> None:
    src = tmp_path / "src"
    for n in range(40):
        (src / "yn"[n % 2]).mkdir(parents=True, exist_ok=True)
        sound = np.random.default_rng(n).normal(0, 300, 4000).astype(np.int16)
        soundfile.write(src / "yn"[n % 2] / f"{n}.{'flac' if n % 5 == 0 else 'wav'}", sound, 16000)
    before = contents(src)
    pf.protect_folder(src, None, key, share=0.4)
    (tmp_path / "src.poscuda").unlink()
    with pytest.raises(SidecarError, match="do not look marked"):
        pf.restore_folder(src, key, without_sidecar=True, dst=tmp_path / "back")
    with pytest.raises(SidecarError, match="More clips are marked than those of this share"):
        pf.restore_folder(src, key, without_sidecar=True, dst=tmp_path / "back", share=0.2)
    pf.restore_folder(src, key, without_sidecar=True, dst=tmp_path / "back", share=0.4)
    back = contents(tmp_path / "back")
    assert {name for name in before if back[name] != before[name]} <= {
        name for name in before if name.endswith(".flac") and is_taken(name, 0.4)
    }
    for name in before:
        assert (
            soundfile.read(src.with_name("back") / name)[0] == soundfile.read(_written(tmp_path, before, name))[0]
        ).all()


def _written(place: Path, files: dict[str, bytes], name: str) -> Path:
    path = place / f"original{Path(name).suffix}"
    path.write_bytes(files[name])
    return path


@both_ways
def test_a_share_that_marks_nothing_is_told(tmp_path: Path, copying: bool, key: pf.Key) -> None:
    (tmp_path / "one").mkdir()
    src, dst = write_dataset(tmp_path / "one"), tmp_path / "copy" if copying else None
    before = audio(src)
    report = pf.protect_folder(src, dst, key, share=1e-6)
    assert (report.frames_changed, report.untagged) == (0, report.clips)
    assert any("no clip is marked in 2 of the 2 classes: give a larger share" in note for note in report.notes)
    assert audio(dst or src) == before
    assert pf.verify_folder(dst or src, key).ok
    with pytest.raises(DatasetError, match="is not protected, so that there is nothing to state"):
        pf.ownership_statement(dst or src, key)
    clips = np.ones((5, 300), np.int16)
    assert pf.protect(clips, [0] * 5, key, share=1e-6).frames_changed == 0
    assert (clips == 1).all()


def test_what_a_share_cannot_be_of_is_refused(tmp_path: Path, key: pf.Key) -> None:
    (tmp_path / "one").mkdir()
    src = write_dataset(tmp_path / "one")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="is one file; give a folder"):
        pf.protect_folder(src / "yes/plain.wav", None, key, share=0.5)
    with pytest.raises(ValueError, match="turn them into FLAC first"):
        pf.protect_folder(src, tmp_path / "copy", key, share=0.5, lossy="flac")
    with pytest.raises(ValueError, match="share is given, which a sidecar records"):
        pf.restore_folder(src, key, share=0.5)
    assert contents(tmp_path) == before
    pf.protect_folder(src, None, key, share=1.0)
    assert pf.protect_folder(src, None, key).state == "already protected"


# What looks at the data later.


@both_ways
@pytest.mark.parametrize("kind", ["files", "array"])
def test_the_private_page_and_evaluation(tmp_path: Path, kind: str, copying: bool, key: pf.Key) -> None:
    for package in ("jinja2", "matplotlib", "torch"):
        pytest.importorskip(package)
    from poscuda_fast import reporting
    from poscuda_fast.evaluation import sources

    src, dst = tmp_path / ("src" if kind == "files" else "src.npy"), None
    sound = np.random.default_rng(1).normal(0, 300, (20, 4000)).astype(np.int16)
    if kind == "files":
        for n, clip in enumerate(sound):
            (src / "yn"[n % 2]).mkdir(parents=True, exist_ok=True)
            soundfile.write(src / "yn"[n % 2] / f"{n}.{'flac' if n % 3 == 0 else 'wav'}", clip, 16000)
        dst = tmp_path / "copy" if copying else None
        report = pf.protect_folder(src, dst, key, share=0.4)
    else:
        np.save(src, sound)
        np.save(tmp_path / "labels.npy", np.arange(20) % 2)
        dst = tmp_path / "copy.npy" if copying else None
        report = pf.protect_array(src, np.arange(20) % 2, key, dst=dst, share=0.4)
    reporting.write_report(dst or src, key, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    rest = "unchanged by protection" if kind == "files" else "not in the share that is marked, or empty"
    assert f"{20 - report.untagged} protected, {report.untagged} {rest}" in page
    source = sources.Folder if kind == "files" else sources.Array
    labels = () if kind == "files" else (tmp_path / "labels.npy",)
    with pytest.raises(DatasetError, match="Only a share of the clips is marked"):
        source(dst or src, key, *labels)
    with pytest.raises(DatasetError, match="leave the evaluation out"):  # even if it is of these very clips, all marked
        reporting.write_report(dst or src, key, tmp_path / "other.html", evaluation=tmp_path / "evaluation.json")
    assert not (tmp_path / "other.html").exists()
