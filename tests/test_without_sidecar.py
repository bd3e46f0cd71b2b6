"""Undo without the sidecar: format 2 is subtracted, in place by a sidecar that is computed first, or in a copy."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from audiofiles import contents, in_child, kill_before, untouched
from click.testing import CliRunner

from poscuda_fast import (
    DatasetError,
    Key,
    Recipe,
    SidecarError,
    disk,
    protect_array,
    protect_folder,
    restore_array,
    restore_folder,
    verify_array,
    verify_folder,
)
from poscuda_fast.cli import cli
from poscuda_fast.undo import log
from poscuda_fast.undo.journal import sidecar_of

LABELS = np.arange(24) % 3
UNDO: dict[str, Any] = {"without_sidecar": True}


def noise(level: float, shape: tuple[int, ...] = (24, 8000), dtype: type = np.int16, seed: int = 0) -> np.ndarray:
    """Noise with an RMS relative to full scale."""
    samples = np.random.default_rng(seed).normal(0, level, shape)
    if dtype is np.float32:
        return samples.astype(np.float32)
    return np.clip(np.rint(samples * 2**15), -(2**15), 2**15 - 1).astype(np.int16)


def orphan(path: Path, clips: np.ndarray, key: Key, **options: Any) -> np.ndarray:
    """Save clips, protect them, lose the sidecar; returns what was marked."""
    np.save(path, clips)
    protect_array(path, LABELS, key, **options)
    path.with_name(f"{path.name}.poscuda").unlink()
    return np.load(path)


def folder_of(root: Path, codings: tuple[str, ...] = ("PCM_16", "PCM_24"), suffix: str = "wav") -> Path:
    """Twelve files of two classes, one of them in several pieces, and a text."""
    for number in range(12):
        path = root / f"class{number % 2}" / f"{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = noise(0.03, (300_000 if number == 0 else 9_000, 1 + number % 3), np.float32, number)
        soundfile.write(path, samples, 16_000, codings[number % len(codings)])
    (root / "notes.txt").write_text("not audio")
    return root


def orphan_folder(root: Path, key: Key, **options: Any) -> dict[str, bytes]:
    """Protect a folder, lose its sidecar; returns what was marked."""
    protect_folder(root, None, key, **options)
    root.with_name(f"{root.name}.poscuda").unlink()
    return contents(root)


# Arrays.


@pytest.mark.parametrize("shape", [(24, 8000), (24, 4000, 2)])
def test_int16_comes_back_in_place(shape, tmp_path: Path, key: Key) -> None:
    clips = noise(0.03, shape)
    wet = orphan(path := tmp_path / "clips.npy", clips, key)
    report = restore_array(path, key, labels=LABELS, **UNDO)
    assert (report.state, report.notes, report.frames_changed) == ("restored", (), 24 * shape[1])
    assert np.array_equal(np.load(path), clips)
    assert restore_array(path, key, labels=LABELS, **UNDO).state == "already original"
    assert verify_array(path, key).original == 24
    assert protect_array(path, LABELS, key).state == "protected"
    assert np.array_equal(np.load(path), wet)


def test_a_copy_leaves_the_source_alone(tmp_path: Path, key: Key) -> None:
    clips = noise(0.03)
    wet = orphan(path := tmp_path / "clips.npy", clips, key)
    report = restore_array(path, key, labels=LABELS, dst=tmp_path / "out.npy", **UNDO)
    assert report.state == "restored"
    assert np.array_equal(np.load(tmp_path / "out.npy"), clips)
    assert np.array_equal(np.load(path), wet)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["clips.npy", "out.npy"]


def test_a_memmap_with_lengths_names_and_a_rate(tmp_path: Path, key: Key) -> None:
    clips, lengths = noise(0.03), np.arange(24) * 100 + 5000
    options: dict[str, Any] = {"lengths": lengths, "classes": ["a", "b", "c"], "sample_rate": 8_000}
    orphan(path := tmp_path / "clips.npy", clips, key, recipe=Recipe.strong(2), **options)
    options |= {"labels": LABELS, "recipe": Recipe.strong(2), **UNDO}
    restore_array(np.load(path, mmap_mode="r"), key, dst=tmp_path / "out.npy", **options)
    restore_array(np.load(path, mmap_mode="r+"), key, **options)
    assert np.array_equal(np.load(path), clips)
    assert np.array_equal(np.load(tmp_path / "out.npy"), clips)


def test_a_zarr_array(tmp_path: Path, key: Key) -> None:
    zarr = pytest.importorskip("zarr")
    clips = noise(0.03)
    path = tmp_path / "clips.zarr"
    array = zarr.create_array(path, shape=clips.shape, dtype=clips.dtype, chunks=(5, 3000))
    array[:] = clips
    protect_array(path, LABELS, key)
    (tmp_path / "clips.zarr.poscuda").unlink()
    restore_array(path, key, labels=LABELS, dst=tmp_path / "out.zarr", **UNDO)
    restore_array(path, key, labels=LABELS, **UNDO)
    for found in ("clips.zarr", "out.zarr"):
        assert np.array_equal(zarr.open_array(tmp_path / found, mode="r")[:], clips)


def test_saturated_samples_are_counted(tmp_path: Path, key: Key) -> None:
    """Of what stands at full scale it is not known how far it was pushed; everything else is exact."""
    clips = noise(0.27)
    wet = orphan(path := tmp_path / "clips.npy", clips, key)
    (note,) = restore_array(path, key, labels=LABELS, **UNDO).notes
    found = np.load(path)
    doubtful = ((wet == 2**15 - 1) | (wet == -(2**15))) & (found != wet)
    assert note == f"{doubtful.sum():,} samples were saturated and may differ from the original"
    assert 0 < (found != clips).sum() <= doubtful.sum()
    assert not (found != clips)[~doubtful].any()
    protect_array(path, LABELS, key)
    assert np.array_equal(np.load(path), wet)


def test_float32_is_what_marking_turns_into_what_was_there(tmp_path: Path, key: Key) -> None:
    clips = noise(0.03, dtype=np.float32)
    clips[0, :100] = [np.nan, np.inf, -np.inf, -0.0, 1e-30] * 20
    wet = orphan(path := tmp_path / "clips.npy", clips, key)
    (note,) = restore_array(path, key, labels=LABELS, **UNDO).notes
    assert note.startswith("float samples whose sum with the mark was rounded")
    found = np.load(path)
    finite = np.isfinite(clips)
    assert np.abs(found[finite] - clips[finite]).max() <= 2.0**-24
    assert np.array_equal(found[~finite], clips[~finite], equal_nan=True)
    protect_array(path, LABELS, key)
    assert np.array_equal(np.load(path).view(np.int32), wet.view(np.int32))


# What is refused.


@pytest.mark.parametrize("into", [False, True])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"labels": (LABELS + 1) % 3}, r"3 of the 3 classes that were looked at \(0, 1, 2\) do not hold"),
        ({"labels": np.where(LABELS == 2, 7, LABELS)}, r"1 of the 3 classes that were looked at \(7\) do not hold"),
        ({"labels": LABELS, "sample_rate": 8_000}, r"do not hold their marks"),
        ({"labels": LABELS, "recipe": Recipe.strong(2)}, r"look marked at a strength of about \S+, .* has 2"),
        ({"labels": LABELS, "recipe": Recipe.strong(0.5)}, r"look marked at a strength of about \S+, .* has 0.5"),
        ({"labels": LABELS, "recipe": Recipe.paper()}, r"format 1, whose filters cannot be inverted"),
    ],
)
def test_what_is_not_marked_so_is_refused(options, sentence: str, into: bool, tmp_path: Path, key: Key) -> None:
    orphan(path := tmp_path / "clips.npy", noise(0.03), key)
    with untouched(tmp_path), pytest.raises(SidecarError, match=sentence):
        restore_array(path, key, dst=tmp_path / "out.npy" if into else None, **options, **UNDO)


def test_originals_and_another_key_are_refused(tmp_path: Path, key: Key) -> None:
    np.save(path := tmp_path / "clips.npy", noise(0.03))
    with untouched(tmp_path), pytest.raises(SidecarError, match="do not look marked"):
        restore_array(path, key, labels=LABELS, **UNDO)
    protect_array(path, LABELS, Key(bytes(32)))
    with untouched(tmp_path), pytest.raises(SidecarError, match="key"):
        restore_array(path, key, labels=LABELS, **UNDO)
    (tmp_path / "clips.npy.poscuda").unlink()
    with untouched(tmp_path), pytest.raises(SidecarError, match="do not look marked"):
        restore_array(path, key, labels=LABELS, **UNDO)


def test_clips_that_are_not_marked_among_others_are_refused_in_place(tmp_path: Path, key: Key) -> None:
    clips = noise(0.01)
    wet = orphan(path := tmp_path / "clips.npy", clips, key)
    wet[20:] = clips[20:]  # as if a run had been stopped
    np.save(path, wet)
    with untouched(tmp_path), pytest.raises(SidecarError, match="4 of the 24 clips that were looked at do not"):
        restore_array(path, key, labels=LABELS, **UNDO)
    report = restore_array(path, key, labels=LABELS, dst=tmp_path / "out.npy", **UNDO)
    assert np.array_equal(np.load(tmp_path / "out.npy")[:20], clips[:20])
    assert report.notes[0].startswith("4 of the 24 clips that were looked at do not hold their marks")


@pytest.mark.parametrize("into", [False, True])
def test_clips_that_were_not_looked_at_are_told(tmp_path: Path, key: Key, into: bool) -> None:
    clips, lengths = noise(0.01), np.full(24, 8000)
    lengths[20:] = 300  # less than a period
    np.save(path := tmp_path / "clips.npy", clips)
    protect_array(path, LABELS, key, lengths=lengths)
    (tmp_path / "clips.npy.poscuda").unlink()
    dst = tmp_path / "out.npy" if into else None
    report = restore_array(path, key, labels=LABELS, lengths=lengths, dst=dst, **UNDO)
    assert np.array_equal(np.load(dst or path), clips)
    assert report.notes[0].startswith("20 of 24 clips were looked at for their marks")


def test_what_marking_does_not_give_is_refused_in_place_and_named_in_a_copy(tmp_path: Path, key: Key) -> None:
    wet = orphan(path := tmp_path / "clips.npy", clips := noise(0.03), key)
    wet[7, 100:700] = 2**15 - 1  # where the mark is negative, no sum is there
    np.save(path, wet)
    with untouched(tmp_path), pytest.raises(SidecarError, match=r"1 clips or files .* \(clip 7\).*copy"):
        restore_array(path, key, labels=LABELS, **UNDO)
    report = restore_array(path, key, labels=LABELS, dst=tmp_path / "out.npy", **UNDO)
    assert any("1 (clip 7)" in note for note in report.notes)
    others = np.arange(24) != 7
    assert np.array_equal(np.load(tmp_path / "out.npy")[others], clips[others])


def test_clips_without_a_whole_period_tell_nothing(tmp_path: Path, key: Key) -> None:
    orphan(path := tmp_path / "clips.npy", noise(0.03, (24, 500)), key)
    with pytest.raises(SidecarError, match="32 ms"):
        restore_array(path, key, labels=LABELS, **UNDO)


def test_arguments_of_either_way_are_told_apart(tmp_path: Path, key: Key) -> None:
    orphan(path := tmp_path / "clips.npy", noise(0.03), key)
    for options in ({"labels": LABELS}, {"dst": tmp_path / "out"}, {"recipe": Recipe.strong()}, {"sample_rate": 8000}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} is given, which a sidecar records"):
            restore_array(path, key, **options)
    with pytest.raises(ValueError, match="labels_from is given"):
        restore_folder(tmp_path, key, labels_from="folder")
    with pytest.raises(ValueError, match="partial=True is given"):
        restore_array(path, key, labels=LABELS, partial=True, **UNDO)


def test_a_sidecar_that_is_there_is_used(tmp_path: Path, key: Key) -> None:
    np.save(path := tmp_path / "clips.npy", noise(0.03))
    protect_array(path, LABELS, key)
    for options in ({}, {"sidecar": tmp_path / "other.poscuda"}):
        with untouched(tmp_path), pytest.raises(SidecarError, match=r"has a sidecar, .*restore by it"):
            restore_array(path, key, labels=LABELS, **options, **UNDO)


@pytest.mark.parametrize("taken", ["out.npy", "clips.npy", "no/out.npy"])
def test_nothing_is_overwritten(taken: str, tmp_path: Path, key: Key) -> None:
    orphan(path := tmp_path / "clips.npy", noise(0.03), key)
    (tmp_path / "out.npy").write_bytes(b"mine")
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"exists?[,;]"):
        restore_array(path, key, labels=LABELS, dst=tmp_path / taken, **UNDO)


# Files.


def test_files_come_back_in_place_and_in_a_copy(tmp_path: Path, key: Key) -> None:
    root = folder_of(tmp_path / "set")
    before = contents(root)
    wet = orphan_folder(root, key)
    report = restore_folder(root, key, dst=tmp_path / "out", **UNDO)
    assert (report.state, report.notes) == ("restored", ("confirmed exact by the manifest: 12 of 12 files",))
    assert contents(tmp_path / "out") == before
    assert contents(root) == wet
    again = restore_folder(root, key, **UNDO)
    assert (again.state, again.notes, again.frames_changed) == (report.state, report.notes, report.frames_changed)
    assert contents(root) == before
    assert restore_folder(root, key, **UNDO).state == "already original"
    assert verify_folder(root, key).original == 12
    assert protect_folder(root, None, key).state == "protected"
    assert contents(root) == wet
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_manifest_tells_which_files_are_not_exact(tmp_path: Path, key: Key) -> None:
    root = folder_of(tmp_path / "set", ("PCM_16", "FLOAT"))
    before = contents(root)
    orphan_folder(root, key)
    notes = restore_folder(root, key, **UNDO).notes
    same = [name for name, content in contents(root).items() if content == before[name] and name.endswith(".wav")]
    assert f"confirmed exact by the manifest: {len(same)} of 12 files" in notes
    assert any(note.startswith(f"not the original to the byte: {12 - len(same)} files (class") for note in notes)
    assert 6 <= len(same) < 12


def test_without_a_manifest_nothing_is_confirmed(tmp_path: Path, key: Key) -> None:
    root = folder_of(tmp_path / "set")
    before = contents(root)
    orphan_folder(root, key)
    (tmp_path / "set.poscuda.json").unlink()
    assert restore_folder(root, key, **UNDO).notes == ()
    assert contents(root) == before


def test_one_file(tmp_path: Path, key: Key) -> None:
    path, labels = tmp_path / "a.wav", {"a.wav": "yes"}
    soundfile.write(path, noise(0.01, (30_000,)), 16_000)
    before = path.read_bytes()
    protect_folder(path, None, key, labels_from=labels)
    (tmp_path / "a.wav.poscuda").unlink()
    restore_folder(path, key, labels_from=labels, dst=tmp_path / "out.wav", **UNDO)
    restore_folder(path, key, labels_from=labels, **UNDO)
    assert path.read_bytes() == (tmp_path / "out.wav").read_bytes() == before


@pytest.mark.parametrize(("suffix", "coding"), [("flac", "PCM_16"), ("flac", "PCM_24")])
def test_encoded_files_come_back_in_a_copy(suffix: str, coding: str, tmp_path: Path, key: Key) -> None:
    root = folder_of(tmp_path / "set", (coding,), suffix)
    before = {path.name: soundfile.read(path, dtype="int32")[0] for path in root.rglob(f"*.{suffix}")}
    orphan_folder(root, key)
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"encoded again.*\(dst=PATH\)"):
        restore_folder(root, key, **UNDO)
    notes = restore_folder(root, key, dst=tmp_path / "out", **UNDO).notes
    assert notes[0].startswith("confirmed exact by the manifest: ")
    for path in (tmp_path / "out").rglob(f"*.{suffix}"):
        assert np.array_equal(soundfile.read(path, dtype="int32")[0], before[path.name])


def test_wrong_labels_of_files_are_refused(tmp_path: Path, key: Key) -> None:
    root = folder_of(tmp_path / "set")
    orphan_folder(root, key)
    for options in ({"labels_from": "regex:^(.)"}, {"strength": 3}, {"recipe": Recipe.paper()}):
        with untouched(tmp_path), pytest.raises(SidecarError):
            restore_folder(root, key, **options, **UNDO)


def test_a_folder_that_is_not_empty_is_not_overwritten(tmp_path: Path, key: Key) -> None:
    root = folder_of(tmp_path / "set")
    orphan_folder(root, key)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_bytes(b"mine")
    for dst in (tmp_path / "out", root, root / "inner", tmp_path / "no" / "out"):
        with untouched(tmp_path), pytest.raises(DatasetError):
            restore_folder(root, key, dst=dst, **UNDO)
    (tmp_path / "out" / "mine").unlink()
    restore_folder(root, key, dst=tmp_path / "out", **UNDO)


def test_real_speech(fsdd: Path, tmp_path: Path, key: Key) -> None:
    root = tmp_path / "digits"
    root.mkdir()
    for path in sorted(fsdd.glob("*.wav"))[::30]:
        shutil.copy(path, root)
    before, labels = contents(root), {"labels_from": r"regex:^(\d)_"}
    orphan_folder(root, key, **labels)
    report = restore_folder(root, key, **labels, **UNDO)
    assert "confirmed exact by the manifest: 100 of 100 files" in report.notes
    assert contents(root) == before


# Kills: of an undo in place, at every record and every write.


class Killed(BaseException):
    """From here on, the process does nothing more."""


class Kill:
    """Counts what reaches the disk, and raises at the n-th; what comes after it does not reach the disk either."""

    def __init__(self, at: int) -> None:
        self.at, self.count = at, 0

    def wrap(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            self.count += 1
            if self.count >= self.at:
                raise Killed
            return work(*args, **options)

        return counted


@contextlib.contextmanager
def killed_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kill]:
    kill = Kill(number)
    with monkeypatch.context() as patch:
        patch.setattr(log.Log, "append", kill.wrap(log.Log.append))
        patch.setattr(log.Log, "create", kill.wrap(log.Log.create))
        patch.setattr(disk, "write_at", kill.wrap(disk.write_at))
        with contextlib.suppress(Killed):
            yield kill


def stopped_everywhere(
    monkeypatch: pytest.MonkeyPatch, prepare: Callable[[], None], undo: Callable[[], Any]
) -> Iterator[int]:
    """After each point at which an undo can be stopped, in order."""
    for number in range(1, 1000):
        prepare()
        with killed_at(number, monkeypatch) as kill:
            undo()
        if kill.count < number:
            return
        yield number


@pytest.mark.parametrize("what", ["array", "folder"])
@pytest.mark.parametrize("between", ["nothing", "protect", "restore", "partial"])
def test_the_same_call_finishes_and_no_other_does_harm(
    what: str, between: str, tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poscuda_fast.mark.plan.BATCH_BYTES", 1 << 16)
    monkeypatch.setattr("poscuda_fast.files.target.BATCH_BYTES", 1 << 18)
    data, kept = tmp_path / "data", tmp_path / "kept"
    if what == "array":
        data.mkdir()
        np.save(data / "clips.npy", noise(0.03))
        path, sidecar = data / "clips.npy", data / "clips.npy.poscuda"
        shutil.copytree(data, tmp_path / "before")
        protect_array(path, LABELS, key)
        verbs: dict[str, Callable[[], Any]] = {
            "undo": lambda: restore_array(path, key, labels=LABELS, **UNDO),
            "protect": lambda: protect_array(path, LABELS, key, partial=True),
            "restore": lambda: restore_array(path, key),
            "partial": lambda: restore_array(path, key, partial=True),
            "nothing": lambda: None,
        }
    else:
        folder_of(data / "set")
        path, sidecar = data / "set", data / "set.poscuda"
        shutil.copytree(data, tmp_path / "before")
        protect_folder(path, None, key)
        (data / "set.poscuda.json").unlink()
        verbs = {
            "undo": lambda: restore_folder(path, key, **UNDO),
            "protect": lambda: protect_folder(path, None, key, partial=True),
            "restore": lambda: restore_folder(path, key),
            "partial": lambda: restore_folder(path, key, partial=True),
            "nothing": lambda: None,
        }
    sidecar.unlink()
    shutil.move(data, kept)
    original, marked = contents(tmp_path / "before"), contents(kept)

    def prepare() -> None:
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(kept, data)

    points = 0
    for _ in stopped_everywhere(monkeypatch, prepare, verbs["undo"]):
        points += 1
        done = contextlib.suppress(SidecarError) if between != "nothing" else contextlib.nullcontext()
        with done:
            verbs[between]()
        verbs["undo"]()
        found = {name: content for name, content in contents(data).items() if not name.endswith((".poscuda", ".json"))}
        assert found == original
    assert points > 10
    assert marked.keys() == original.keys()


@pytest.mark.parametrize("what", ["array", "folder"])
def test_a_killed_copy_leaves_the_source_and_can_be_made_again(what: str, tmp_path: Path, key: Key) -> None:
    """A process of its own is killed before each of its calls that opens, syncs or renames a file."""
    (data := tmp_path / "data").mkdir()
    if what == "array":
        path = data / "clips.npy"
        np.save(path, noise(0.03))
        before = path.read_bytes()
        protect_array(path, LABELS, key)
    else:
        path = data / "set"
        soundfile.write(folder_of(path, suffix="flac") / "class0" / "a.wav", noise(0.03, (9_000,)), 16_000)
        before = contents(path)
        protect_folder(path, None, key)
    sidecar_of(path).unlink()

    def undo() -> None:
        if what == "array":
            restore_array(path, key, labels=LABELS, dst=tmp_path / "out", **UNDO)
        else:
            restore_folder(path, key, dst=tmp_path / "out", **UNDO)

    def killed(moment: int) -> None:
        kill_before(moment)
        undo()

    for moment in range(0, 1000, 3):
        with untouched(data):
            end = in_child(functools.partial(killed, moment))
        assert end in (0, -signal.SIGKILL)
        if not (tmp_path / "out").exists():
            undo()
        assert ((tmp_path / "out").read_bytes() if what == "array" else contents(tmp_path / "out")) == before
        for left in tmp_path.iterdir():
            if left != data:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        if end == 0:
            break
    assert moment > 2


def test_an_unfinished_sidecar_is_told_and_may_be_deleted(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poscuda_fast.mark.plan.BATCH_BYTES", 1 << 17)
    clips = noise(0.03)
    wet = orphan(path := tmp_path / "clips.npy", clips, key)
    with killed_at(3, monkeypatch):
        restore_array(path, key, labels=LABELS, **UNDO)
    for verb in (
        lambda: protect_array(path, LABELS, key),
        lambda: protect_array(path, LABELS, key, partial=True),
        lambda: restore_array(path, key),
        lambda: restore_array(path, key, partial=True),
    ):
        with untouched(tmp_path), pytest.raises(SidecarError, match="without a sidecar, which was stopped"):
            verb()
    with untouched(tmp_path), pytest.raises(SidecarError, match="other labels"):
        restore_array(path, key, labels=(LABELS + 1) % 3, **UNDO)
    assert np.array_equal(np.load(path), wet)
    (tmp_path / "clips.npy.poscuda").unlink()
    restore_array(path, key, labels=LABELS, **UNDO)
    assert np.array_equal(np.load(path), clips)


def test_a_copy_of_a_half_marked_array_is_refused(tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poscuda_fast.mark.plan.BATCH_BYTES", 1 << 17)
    np.save(path := tmp_path / "clips.npy", noise(0.03))
    with killed_at(6, monkeypatch):
        protect_array(path, LABELS, key)
    with untouched(tmp_path), pytest.raises(SidecarError, match="only a part of the data is marked"):
        restore_array(path, key, labels=LABELS, dst=tmp_path / "out.npy", **UNDO)


# The command line.


def run(*words: object) -> Any:
    return CliRunner().invoke(cli, [str(word) for word in words])


def test_the_command(tmp_path: Path, key: Key) -> None:
    key.save(mine := tmp_path / "k")
    root = folder_of(tmp_path / "set")
    before = contents(root)
    orphan_folder(root, key, strength=2)
    np.save(tmp_path / "labels.npy", LABELS)
    clips = noise(0.03)
    orphan(array := tmp_path / "clips.npy", clips, key)
    found = run("restore", root, "--key", mine, "--without-sidecar")
    assert "strength of about 2" in str(found.exception)
    assert run("restore", root, tmp_path / "out", "--key", mine, "--without-sidecar", "--strength", 2).exit_code == 0
    assert contents(tmp_path / "out") == before
    done = run("restore", root, "--key", mine, "--without-sidecar", "--strength", 2, "--json")
    assert json.loads(done.output)["state"] == "restored"
    assert contents(root) == before
    assert run("restore", array, "--key", mine, "--labels", tmp_path / "labels.npy").exit_code == 2
    assert run("restore", array, tmp_path / "o.npy", "--key", mine).exit_code == 2
    assert run("restore", array, "--key", mine, "--without-sidecar").exit_code == 2
    done = run("restore", array, "--key", mine, "--without-sidecar", "--labels", tmp_path / "labels.npy")
    assert done.exit_code == 0, done.output
    assert np.array_equal(np.load(array), clips)
