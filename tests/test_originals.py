"""Originals beside what protecting made of them: exact, checked, and nothing on the disk is changed."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
import traceback
from pathlib import Path

import numpy as np
import pytest
from audiofiles import encoded, noise, untouched, wav, write_tree
from recipes import protect_folder, protect_memmap
from secret_forms import forms_of

from poscuda_fast import BusyError, DatasetError, Key, Recipe, SidecarError, Verdict, disk, drop_undo, restore_folder
from poscuda_fast import protect_folder as protect_strongly
from poscuda_fast import protect_memmap as protect_array_strongly
from poscuda_fast.arrays import originals
from poscuda_fast.arrays.originals import open_array, originals_of_array
from poscuda_fast.cli import synth
from poscuda_fast.files.originals import open_files, originals_of_folder
from poscuda_fast.mark.labels import encode, integer_token, label_of, name_token

KINDS = ("PCM_16", "PCM_24", "FLOAT")


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Files of every kind: 16 and 24 bits, float, stereo, FLAC, AIFF, silence, short and empty ones."""
    root = tmp_path / "audio"
    files = {f"{label}/{coding}.wav": wav(noise(900, 1 + n, coding), coding)
             for n, coding in enumerate(KINDS) for label in ("no", "yes")}  # fmt: skip
    files["yes/silent.wav"] = wav(np.zeros((700, 1), np.int16))
    files["yes/tiny.wav"] = wav(noise(7))
    files["no/empty.wav"] = wav(noise(0))
    files["no/large.wav"] = wav(noise(400_000, 2))
    write_tree(root, files)
    encoded(root / "no" / "a.flac", noise(1200, 2), "FLAC", "PCM_16", title="a")
    encoded(root / "yes" / "b.aiff", noise(800, 1, "PCM_24"), "AIFF", "PCM_24")
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".json"
    }


@pytest.mark.parametrize("recipe", [Recipe.paper(), Recipe.strong(), Recipe.paper(patch=100, every=150)])
@pytest.mark.parametrize("copying", [True, False])
def test_every_original_of_a_folder_is_given_beside_its_protected_form(
    audio: Path, tmp_path: Path, key: Key, recipe: Recipe, copying: bool
) -> None:
    before = contents(audio)
    where = tmp_path / "copy" if copying else audio
    protect_strongly(audio, where if copying else None, key, recipe=recipe)
    after = contents(where)
    with untouched(where):
        found = list(originals_of_folder(where, key))
    assert [name for name, *_ in found] == sorted(before)
    for name, label, original, now in found:
        assert label == name.split("/")[0]
        assert original == before[name]
        assert now == after[name]
    assert sum(original != now for _, _, original, now in found) >= 9


def test_one_file_and_some_names(audio: Path, tmp_path: Path, key: Key) -> None:
    out, beside = tmp_path / "one.wav", tmp_path / "kept"
    source = audio / "yes" / "PCM_16.wav"
    protect_folder(source, out, key, labels_from={"PCM_16.wav": 7}, sidecar=beside)
    ((name, label, original, now),) = originals_of_folder(out, key, sidecar=beside)
    assert (name, label, original, now) == ("one.wav", 7, source.read_bytes(), out.read_bytes())

    protect_folder(audio, tmp_path / "copy", key)
    asked = {"yes/tiny.wav", "no/a.flac"}
    assert {name for name, *_ in originals_of_folder(tmp_path / "copy", key, asked)} == asked
    assert not list(originals_of_folder(tmp_path / "copy", key, []))
    with pytest.raises(DatasetError, match=r"maybe/c\.wav is not a file of the run"):
        list(originals_of_folder(tmp_path / "copy", key, ["yes/tiny.wav", "maybe/c.wav"]))


def test_a_file_that_changed_is_named_and_no_original_is_made_up(audio: Path, tmp_path: Path, key: Key) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(audio, copy)
    protect_folder(copy, None, key)
    wav_file, cut, flac = copy / "no" / "PCM_16.wav", copy / "no" / "PCM_24.wav", copy / "no" / "a.flac"
    wav_file.write_bytes(wav_file.read_bytes()[:44] + bytes(byte ^ 1 for byte in wav_file.read_bytes()[44:]))
    cut.write_bytes(cut.read_bytes()[:-3])
    flac.write_bytes(b"fLaC" + bytes(60))
    (copy / "yes" / "tiny.wav").unlink()
    (copy / "yes" / "FLOAT.wav").unlink()
    (copy / "yes" / "FLOAT.wav").mkdir()
    original = (audio / "yes" / "PCM_16.wav").read_bytes()
    (copy / "yes" / "PCM_16.wav").write_bytes(original)
    with open_files(copy, key) as run:
        clips = {clip.name: clip for clip in run.clips()}
    assert {name: clip.verdict for name, clip in clips.items() if clip.verdict is not Verdict.PROTECTED} == {
        "no/PCM_16.wav": Verdict.NEITHER, "no/PCM_24.wav": Verdict.NEITHER, "no/a.flac": Verdict.NEITHER,
        "no/empty.wav": Verdict.UNCHANGED, "yes/FLOAT.wav": Verdict.MISSING, "yes/PCM_16.wav": Verdict.ORIGINAL,
        "yes/silent.wav": Verdict.UNCHANGED, "yes/tiny.wav": Verdict.MISSING,
    }  # fmt: skip
    assert clips["no/PCM_16.wav"].original is None
    assert clips["no/PCM_24.wav"].original is None
    assert clips["no/a.flac"].original == (audio / "no" / "a.flac").read_bytes()  # was kept whole
    assert clips["yes/PCM_16.wav"].now == original
    assert clips["yes/silent.wav"].tally.silent_patches == 1
    for name, message in (("no/PCM_16.wav", "neither"), ("no/a.flac", "neither"), ("yes/tiny.wav", "is missing")):
        with pytest.raises(DatasetError, match=f"{name} is.*{message}|{name} {message}"):
            list(originals_of_folder(copy, key, [name]))
    assert len(list(originals_of_folder(copy, key, ["yes/PCM_16.wav", "yes/silent.wav", "no/large.wav"]))) == 3


def test_a_half_written_file_has_an_original(audio: Path, key: Key) -> None:
    before = (audio / "no" / "large.wav").read_bytes()
    protect_folder(audio, None, key, recipe=Recipe.paper(every=1000))
    after = (audio / "no" / "large.wav").read_bytes()
    (audio / "no" / "large.wav").write_bytes(before[: len(before) // 2] + after[len(before) // 2 :])
    with open_files(audio, key) as run:
        (clip,) = run.clips(["no/large.wav"])
    assert (clip.verdict, clip.original) == (Verdict.TORN, before)
    with pytest.raises(DatasetError, match=r"large\.wav is neither"):
        list(originals_of_folder(audio, key))


def test_files_that_the_run_does_not_know_are_told(audio: Path, tmp_path: Path, key: Key) -> None:
    copy = tmp_path / "copy"
    protect_folder(audio, copy, key)
    (copy / "new.wav").write_bytes(wav(noise(10)))
    with open_files(copy, key) as run:
        assert run.unprotected({clip.name for clip in run.clips()}) == ["new.wav"]
        assert (run.n_clips, run.labels) == (12, ["no", "yes"])


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("channels", [None, 2])
@pytest.mark.parametrize("recipe", [Recipe.paper(), Recipe.strong(), Recipe.paper(patch=300, every=500)])
def test_every_original_of_an_array_is_given(tmp_path: Path, key: Key, dtype, channels, recipe: Recipe) -> None:
    rng = np.random.default_rng(5)
    shape = (9, 1500) if channels is None else (9, 1500, channels)
    clips = rng.integers(-9000, 9000, shape).astype(dtype)
    if dtype is np.float32:
        clips /= 32768
    clips[3] = 0
    lengths = np.array([1500, 1500, 0, 1400, 20, 1500, 1500, 1, 1500])
    np.save(tmp_path / "clips.npy", clips)
    mapped = np.load(tmp_path / "clips.npy", mmap_mode="r+")
    labels = np.array(["b", "a", "a"] * 3)
    protect_array_strongly(mapped, labels, key, recipe=recipe, lengths=lengths)
    wet = np.array(mapped)
    with untouched(tmp_path):
        found = list(originals_of_array(np.load(tmp_path / "clips.npy", mmap_mode="r"), key))
    assert [number for number, *_ in found] == [0, 1, 3, 4, 5, 6, 7, 8]
    for number, label, original, now in found:
        assert label == labels[number]
        assert original.dtype == now.dtype == dtype
        assert original.tobytes() == clips[number].tobytes()
        assert now.tobytes() == wet[number].tobytes()
        assert (original.tobytes() == now.tobytes()) == (number == 3 and recipe.format == 1)


def test_a_clip_may_be_cut_by_the_end_of_a_batch(tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poscuda_fast.mark.plan.BATCH_BYTES", 5000)
    clips = np.random.default_rng(1).integers(-900, 900, (5, 2000)).astype(np.int16)
    np.save(tmp_path / "clips.npy", clips)
    mapped = np.load(tmp_path / "clips.npy", mmap_mode="r+")
    protect_array_strongly(mapped, np.array([2, 0, 2, 5, 0]), key)
    found = list(originals_of_array(mapped, key))
    assert [label for _, label, *_ in found] == [2, 0, 2, 5, 0]
    assert np.array_equal([original for *_, original, _ in found], clips)
    assert np.array_equal([now for *_, now in found], mapped)


@pytest.mark.parametrize("recipe", [Recipe.paper(), Recipe.strong(), Recipe.paper(patch=300, every=500)])
def test_what_the_sidecar_tells_of_lengths(tmp_path: Path, key: Key, recipe: Recipe) -> None:
    lengths = np.array([1500, 1300, 200, 1100, 1500])
    patch = getattr(recipe, "patch", 1500)  # format 2 marks clips whole
    for name, given in (("full", None), ("other", lengths), ("empty", [1500, 0, 1500, 1500, 1500])):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(1).integers(-900, 900, (5, 1500)).astype(np.int16))
        mapped = np.load(tmp_path / f"{name}.npy", mmap_mode="r+")
        protect_array_strongly(mapped, np.array(["b", "a", "b", "c", "a"]), key, recipe=recipe, lengths=given)
        with open_array(mapped, key) as run:
            assert run.is_full() == (name == "full")
            clips = list(run.clips())
        if name == "other":
            least = [min(patch, length) for length in lengths.tolist()]
            assert all(few <= clip.frames <= n for few, clip, n in zip(least, clips, lengths, strict=True))
        for clip in clips:
            changed = np.flatnonzero(clip.now != clip.original)
            assert changed.max() < clip.frames
            assert changed.size <= clip.patch_frames
            assert clip.patch_frames == clip.tally.frames_changed


def test_lengths_are_not_known_of_a_run_that_was_stopped(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poscuda_fast.mark.plan.BATCH_BYTES", 6000)
    np.save(tmp_path / "clips.npy", np.ones((9, 1500), np.int16))
    mapped = np.load(tmp_path / "clips.npy", mmap_mode="r+")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        protect_array_strongly(mapped, np.arange(9) % 2, key, progress=stop)
    with open_array(mapped, key) as run:
        assert not run.is_full()
        assert 0 < len(list(run.clips())) < 9


def test_a_clip_that_changed_is_named(tmp_path: Path, key: Key) -> None:
    np.save(tmp_path / "clips.npy", np.random.default_rng(1).integers(-900, 900, (5, 240)).astype(np.int16))
    mapped = np.load(tmp_path / "clips.npy", mmap_mode="r+")
    protect_memmap(mapped, np.arange(5), key)
    mapped[2, 100] += 1
    with open_array(mapped, key) as run:
        assert {clip.frames for clip in run.clips()} == {240}
        assert [clip.verdict for clip in run.clips()] == [Verdict.PROTECTED] * 2 + [Verdict.NEITHER] + [
            Verdict.PROTECTED
        ] * 2
    with pytest.raises(DatasetError, match="Clip 2 is neither"):
        list(originals_of_array(mapped, key))


def test_what_has_no_originals_is_refused(audio: Path, tmp_path: Path, key: Key) -> None:
    copy = tmp_path / "copy"
    with pytest.raises(SidecarError, match="does not exist: nothing can be restored by it"):
        next(originals_of_folder(audio, key))
    with pytest.raises(DatasetError, match="does not exist"):
        next(originals_of_folder(copy, key))
    with pytest.raises(TypeError, match=r"expected a poscuda_fast\.Key"):
        next(originals_of_folder(audio, b"secret"))
    protect_folder(audio, copy, key)
    with pytest.raises(SidecarError, match=f"was made with the key of fingerprint {key.fingerprint}"):
        next(originals_of_folder(copy, Key.generate()))
    undone, final = tmp_path / "undone", tmp_path / "final"
    for folder in (undone, final):
        shutil.copytree(audio, folder)
        protect_folder(folder, None, key)
    restore_folder(undone, key)
    with pytest.raises(SidecarError, match="was undone"):
        next(originals_of_folder(undone, key))
    drop_undo(final, key)
    with pytest.raises(SidecarError, match="was dropped"):
        next(originals_of_folder(final, key))
    np.save(tmp_path / "clips.npy", np.ones((2, 300), np.int16))
    with pytest.raises(SidecarError, match="does not exist: nothing can be restored by it"):
        next(originals_of_array(np.load(tmp_path / "clips.npy", mmap_mode="r"), key))


def test_nobody_writes_meanwhile_and_the_lock_ends_with_the_reading(audio: Path, tmp_path: Path, key: Key) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(audio, copy)
    protect_folder(copy, None, key)
    reading = originals_of_folder(copy, key)
    next(reading)
    with pytest.raises(BusyError):
        restore_folder(copy, key)
    with disk.locked(copy, shared=True):
        pass
    with pytest.raises(BusyError), disk.locked(copy):  # the folder itself, whatever sidecar others have
        pass
    reading.close()
    restore_folder(copy, key)

    path = tmp_path / "clips.npy"
    np.save(path, np.ones((2, 300), np.int16))
    mapped = np.load(path, mmap_mode="r+")
    protect_memmap(mapped, np.arange(2), key)
    with open_array(mapped, key), pytest.raises(BusyError), disk.locked(path):
        pass
    with disk.locked(path):
        pass


def test_errors_and_representations_give_nothing_away(audio: Path, tmp_path: Path, key: Key) -> None:
    copy = tmp_path / "copy"
    protect_folder(audio, copy, key)
    (copy / "yes" / "PCM_16.wav").write_bytes(b"changed")
    with pytest.raises(DatasetError) as caught:
        list(originals_of_folder(copy, key))
    for frame, _ in traceback.walk_tb(caught.value.__traceback__):
        if frame.f_globals["__name__"] not in (__name__, "poscuda_fast.secrecy"):
            assert not frame.f_locals
    with open_files(copy, key) as run:
        clip = next(run.clips())
        shown = (repr(clip) + repr(run)).encode()
        assert not any(form in shown for form in forms_of((audio / clip.name).read_bytes()[-40:]))
    for secret in (clip, originals.ArrayClip(0, 0, Verdict.NEITHER, np.zeros(1), np.zeros(1), 1, 1, clip.tally)):
        with pytest.raises(TypeError, match="is secret"):
            pickle.dumps(secret)
    assert dataclasses.is_dataclass(clip)


def test_labels_come_back_from_tokens() -> None:
    for label in (0, 7, 2**63, "yes", "ja\u0308"):
        (token,) = encode([label], None, 1).tokens
        assert label_of(token) == ("j\u00e4" if label == "ja\u0308" else label)
    assert label_of(name_token("i2")) == "i2"
    assert label_of(integer_token(5)) == 5


def test_speech(tmp_path: Path, key: Key) -> None:
    clips = [synth.speak(word, 0, 0) for word in ("yes", "no")]
    write_tree(tmp_path, {f"in/{n}/a.wav": wav(clip[:, None]) for n, clip in enumerate(clips)})
    protect_strongly(tmp_path / "in", tmp_path / "out", key)
    for name, label, original, now in originals_of_folder(tmp_path / "out", key):
        assert original == (tmp_path / "in" / name).read_bytes()
        assert now == (tmp_path / "out" / name).read_bytes() != original
        assert label == name[0]
