"""Folders and single files: protected exactly, restored exactly, resumed after a kill, and verified."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import re
import shutil
import signal
import tempfile
from pathlib import Path

import audiofiles
import numpy as np
import pytest
import soundfile
from audiofiles import (
    chunk,
    contents,
    end_of_child,
    in_child,
    killer,
    noise,
    packed,
    patch_bytes,
    patches_of,
    protected,
    read_samples,
    rf64,
    snapshot,
    start_child,
    untouched,
    wav,
    write_tree,
)
from recipes import protect_folder

import poscuda_fast
from poscuda_fast import BusyError, DatasetError, Key, Recipe, SidecarError, drop_undo, restore_folder, verify_folder
from poscuda_fast.files import target as files
from poscuda_fast.files.encoded import probe

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
both_ways = pytest.mark.parametrize("copying", [True, False], ids=["copy", "in place"])

STRONG = Recipe.paper(patch=100, taps=33, blur=0.3, patches=3, identity=True)
RECIPES = {
    "default": Recipe.paper(),
    "loud": STRONG,
    "format 2": Recipe.strong(),
    "every": Recipe.paper(patch=50, blur=0.1, every=400),
}
OTHERS = {"readme.txt": b"about\n", "yes/notes.csv": b"a,b\n", "empty.bin": b"", "no/poscuda.json": b"not a manifest"}
HIDDEN = {".DS_Store": b"\0", "yes/._plain.wav": b"not audio", ".cache/x.wav": b"not audio"}


@dataclasses.dataclass(frozen=True)
class Clip:
    """An audio file of the data set below: its samples, its bytes, and where they hold the samples (WAV only)."""

    label: str
    coding: str
    samples: np.ndarray
    content: bytes
    offset: int | None
    rate: int


@functools.cache
def clips() -> dict[str, Clip]:
    """One file of every kind."""
    made: dict[str, Clip] = {}

    def add_wav(name: str, coding: str, samples: np.ndarray, content: bytes, rate: int = 16000) -> None:
        data = packed(samples, coding)
        made[name] = Clip(name.split("/")[-2], coding, samples, content, content.index(b"data") + 8, rate)
        assert content[made[name].offset :].startswith(data)

    def add_encoded(name: str, container: str, coding: str, samples: np.ndarray, rate: int = 16000) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file"
            audiofiles.encoded(path, samples, container, coding, rate)
            made[name] = Clip(name.split("/")[-2], coding, samples, path.read_bytes(), None, rate)

    extra = chunk(b"LIST", b"INFOodd") + chunk(b"bext", bytes(602))
    samples = noise(4000)
    add_wav("yes/plain.wav", "PCM_16", samples, wav(samples))
    samples = noise(3000, 2, "PCM_24")
    content = wav(samples, "PCM_24", 44100, extensible=True, before=extra, after=chunk(b"id3 ", b"odd"))
    add_wav("yes/stereo.wav", "PCM_24", samples, content, 44100)
    samples = noise(1000, 8, "FLOAT") * 3
    add_wav("yes/eight.WAV", "FLOAT", samples, wav(samples, "FLOAT", extensible=True))
    samples = noise(2001, 1, "PCM_24")
    add_wav("no/rf64.wav", "PCM_24", samples, rf64(samples, "PCM_24"))
    samples = noise(1001, 1, "PCM_24")
    add_wav("no/odd.wav", "PCM_24", samples, wav(samples, "PCM_24") + b"trailing")
    samples = noise(99)
    add_wav("no/short.wav", "PCM_16", samples, wav(samples))
    add_wav("no/empty.wav", "PCM_16", noise(0), wav(noise(0)))
    samples = np.zeros((2000, 2), np.int16)
    add_wav("no/silent.wav", "PCM_16", samples, wav(samples))
    samples = np.where(noise(500) < 0, -(2**15), 2**15 - 1).astype(np.int16)
    add_wav("deep/er/no/loud.wave", "PCM_16", samples, wav(samples, after=extra))

    add_encoded("yes/a.flac", "FLAC", "PCM_16", noise(3000))
    add_encoded("yes/b.flac", "FLAC", "PCM_24", noise(2500, 2, "PCM_24"), 48000)
    add_encoded("yes/short.flac", "FLAC", "PCM_16", noise(70))
    add_encoded("no/silent.flac", "FLAC", "PCM_16", np.zeros((900, 1), np.int16))
    add_encoded("no/c.aiff", "AIFF", "PCM_24", noise(1200, 1, "PCM_24"))
    add_encoded("no/d.AIF", "AIFF", "PCM_16", noise(1100, 2), 8000)
    add_encoded("no/e.caf", "CAF", "FLOAT", noise(1000, 1, "FLOAT"))
    add_encoded("no/f.w64", "W64", "PCM_16", noise(1300))
    add_encoded("no/g.au", "AU", "FLOAT", noise(1400, 2, "FLOAT"))
    return made


@functools.cache
def wet(name: str, recipe: Recipe) -> tuple[np.ndarray, int]:
    """What protecting makes of a clip with the key of the vectors, and its saturated samples."""
    clip = clips()[name]
    return protected(clip.samples, clip.coding, clip.label, Key(bytes(range(32))), recipe, clip.rate)


def write_dataset(root: Path) -> Path:
    """The clips, other files and hidden ones below root/src."""
    src = root / "src"
    write_tree(src, {name: clip.content for name, clip in clips().items()} | OTHERS | HIDDEN)
    return src


def originals() -> dict[str, bytes]:
    return {name: clip.content for name, clip in clips().items()}


def audio_of(root: Path) -> dict[str, bytes]:
    """The bytes of the data set's audio files below a folder."""
    return {name: content for name, content in contents(root).items() if name in clips()}


def n_silent(recipe: Recipe) -> int:
    """Clips that protecting does not change."""
    return sum(wet(name, recipe)[0].tobytes() == clip.samples.tobytes() for name, clip in clips().items())


def assert_protected(root: Path, recipe: Recipe = Recipe.paper()) -> None:
    """Every WAV file equals, byte for byte, its original with filtered samples; every other one decodes to them."""
    for name, clip in clips().items():
        expected = wet(name, recipe)[0]
        if clip.offset is None:
            assert read_samples(root / name, clip.coding).tobytes() == expected.tobytes(), name
        else:
            end = clip.offset + len(packed(clip.samples, clip.coding))
            whole = clip.content[: clip.offset] + packed(expected, clip.coding) + clip.content[end:]
            assert (root / name).read_bytes() == whole, name


def small_dataset(src: Path) -> dict[str, bytes]:
    """Three WAV and three FLAC files, in two classes."""
    for number in range(6):
        label = "yes" if number % 2 else "no"
        samples = noise(700 + number, 1 + number // 4, seed=number)
        name = f"{label}/{number}.{'wav' if number < 3 else 'flac'}"
        (src / label).mkdir(parents=True, exist_ok=True)
        if number < 3:
            (src / name).write_bytes(wav(samples))
        else:
            audiofiles.encoded(src / name, samples, "FLAC", "PCM_16")
    (src / "readme.txt").write_bytes(b"about")
    return contents(src)


def small_is_protected(root: Path, key: Key, recipe: Recipe = Recipe.paper()) -> bool:
    for number in range(6):
        label = "yes" if number % 2 else "no"
        samples = noise(700 + number, 1 + number // 4, seed=number)
        path = root / f"{label}/{number}.{'wav' if number < 3 else 'flac'}"
        if read_samples(path, "PCM_16").tobytes() != protected(samples, "PCM_16", label, key, recipe)[0].tobytes():
            return False
    return True


def without(tree: dict[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: content for name, content in tree.items() if name not in names}


# What protecting does to files


@both_ways
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_every_kind_of_file_is_protected_exactly(tmp_path, key, recipe, copying):
    src = write_dataset(tmp_path)
    root = tmp_path / "dst" if copying else src
    report = protect_folder(src, root if copying else None, key, recipe=recipe)
    assert report.state == "protected"
    assert_protected(root, recipe)
    for name, clip in clips().items():
        if clip.offset is None:
            assert probe(root / name) == probe(_written(tmp_path / "original", clip.content))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_only_bytes_of_patches_change_in_wav_files(tmp_path, key, recipe):
    src = write_dataset(tmp_path)
    protect_folder(src, None, key, recipe=recipe)
    for name, clip in clips().items():
        if clip.offset is None:
            continue
        after = (src / name).read_bytes()
        assert len(after) == len(clip.content)
        changed = {place for place in range(len(after)) if after[place] != clip.content[place]}
        allowed = patch_bytes(clip.offset, clip.samples, clip.coding, clip.label, key, recipe)
        assert changed <= allowed, name
        assert bool(changed) == bool(allowed if recipe == Recipe.strong() else clip.samples.any()), name


@both_ways
def test_nothing_else_is_changed_or_made(tmp_path, key, copying):
    src = write_dataset(tmp_path)
    before = snapshot(src)
    root = tmp_path / "dst" if copying else src
    protect_folder(src, root if copying else None, key)
    made = {".poscuda", "poscuda.json"}
    assert set(contents(root, hidden=True)) == {*clips(), *OTHERS, *made, *(() if copying else HIDDEN)}
    after = contents(root, hidden=True)
    assert {name: after[name] for name in OTHERS} == OTHERS
    if copying:
        assert snapshot(src) == before
    else:
        for name in (*OTHERS, *HIDDEN, "no/silent.wav", "no/empty.wav"):
            assert after[name] == (OTHERS | HIDDEN | originals())[name]


def test_inodes_stay_for_wav_files_in_place(tmp_path, key):
    src = write_dataset(tmp_path)
    wavs = [name for name, clip in clips().items() if clip.offset is not None]
    before = {name: (src / name).stat().st_ino for name in wavs}
    protect_folder(src, None, key)
    restore_folder(src, key)
    assert {name: (src / name).stat().st_ino for name in wavs} == before


@both_ways
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_the_report_counts_what_was_done(tmp_path, key, recipe, copying):
    src = write_dataset(tmp_path)
    report = protect_folder(src, tmp_path / "dst" if copying else None, key, recipe=recipe)
    steady = recipe == Recipe.strong()
    patches = silent = frames = 0
    for clip in clips().values():
        for _, start, size in patches_of(len(clip.samples), clip.label, key, recipe).places():
            has_sound = bool(clip.samples[start : start + size].any())
            patches += not steady
            silent += not (has_sound or steady)
            frames += size * (has_sound or steady)
    assert report.to_dict() == {
        "clips": len(clips()),
        "classes": 2,
        "patches": patches,
        "frames_changed": frames,
        "silent_patches": silent,
        "saturated_samples": sum(wet(name, recipe)[1] for name in clips()),
        "not_finite_samples": 0,
        "short_clips": 0 if steady else sum(len(clip.samples) < recipe.patch for clip in clips().values()),
        "recipe": recipe.to_dict(),
        "sample_rates": (8000, 16000, 44100, 48000) if steady else (),
        "rate_assumed": False,
        "notes": report.notes,
        "seconds": report.seconds,
        "fingerprint": key.fingerprint,
        "state": "protected",
    }
    assert report.seconds > 0
    assert len(report.notes) == (2 if steady else 0)  # the level, and some quiet clips
    assert steady or silent > 0
    if recipe is STRONG:
        assert report.saturated_samples > 0


@both_ways
def test_a_second_call_does_nothing_and_says_so(tmp_path, key, copying):
    src = write_dataset(tmp_path)
    dst = tmp_path / "dst" if copying else None
    first = protect_folder(src, dst, key, recipe=STRONG)
    before = contents(tmp_path, hidden=True)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    second = protect_folder(src, dst, key, recipe=STRONG)
    assert second == dataclasses.replace(first, state="already protected", seconds=second.seconds)
    assert contents(tmp_path, hidden=True) == before
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == times


@both_ways
def test_a_rehearsal_writes_nothing_and_counts_the_same(tmp_path, key, copying):
    src = write_dataset(tmp_path)
    dst = tmp_path / "dst" if copying else None
    with untouched(tmp_path):
        rehearsed = protect_folder(src, dst, key, recipe=STRONG, dry_run=True)
    assert rehearsed.state == "untouched"
    real = protect_folder(src, dst, key, recipe=STRONG)
    assert real == dataclasses.replace(rehearsed, state="protected", seconds=real.seconds)


@both_ways
def test_a_rehearsal_after_the_run_changes_nothing_and_says_so(tmp_path, key, copying):
    src = tmp_path / "src"
    small_dataset(src)
    dst = tmp_path / "dst" if copying else None
    done = protect_folder(src, dst, key)
    before = contents(tmp_path, hidden=True)
    rehearsed = protect_folder(src, dst, key, dry_run=True)
    assert rehearsed == dataclasses.replace(done, state="already protected", seconds=rehearsed.seconds)
    with pytest.raises(SidecarError, match="was made for another recipe"):
        protect_folder(src, dst, key, recipe=STRONG, dry_run=True)
    assert contents(tmp_path, hidden=True) == before


def test_backends_and_threads_give_the_same_files(tmp_path, key):
    src = write_dataset(tmp_path)
    protect_folder(src, tmp_path / "a", key, backend="reference", threads=1)
    protect_folder(src, tmp_path / "b", key, backend="cpu", threads=3)
    assert_protected(tmp_path / "a")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("batch", [1, 4, 6])
def test_the_division_into_batches_does_not_show(tmp_path, key, monkeypatch, batch):
    src = tmp_path / "src"
    before = small_dataset(src)
    monkeypatch.setattr(files, "PIECES_PER_BATCH", batch)
    protect_folder(src, None, key)
    assert small_is_protected(src, key)
    restore_folder(src, key)
    assert without(contents(src), "poscuda.json") == before


@both_ways
def test_progress_counts_every_file_once(tmp_path, key, copying):
    src = write_dataset(tmp_path)
    root = tmp_path / "dst" if copying else src
    seen: list[tuple[int, int]] = []
    protect_folder(src, root if copying else None, key, progress=lambda *counts: seen.append(counts))
    everything = [(number, len(clips())) for number in range(1, len(clips()) + 1)]
    assert seen == everything
    seen.clear()
    restore_folder(root, key, progress=lambda *counts: seen.append(counts))
    n = len(clips())  # each is looked at before the first is put back
    assert {total for _, total in seen} == {2 * n}
    steps = [done for done, _ in seen]
    assert steps == sorted(set(steps))
    assert steps[-n:] == list(range(n + 1, 2 * n + 1))
    assert len(steps) > n


def test_a_folder_is_known_by_a_link_and_by_a_relative_path(tmp_path, key, monkeypatch):
    src = write_dataset(tmp_path)
    (tmp_path / "link").symlink_to(src)
    protect_folder(tmp_path / "link", None, key)
    monkeypatch.chdir(src)
    assert protect_folder(".", None, key).state == "already protected"
    assert_protected(src)


def test_paths_may_be_text(tmp_path, key):
    src = write_dataset(tmp_path)
    protect_folder(str(src), str(tmp_path / "made/on/the/way"), key)
    assert_protected(tmp_path / "made/on/the/way")
    assert verify_folder(str(tmp_path / "made/on/the/way"), key).ok
    assert restore_folder(str(tmp_path / "made/on/the/way"), key).state == "restored"


@both_ways
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664], ids=oct)
def test_permissions_are_kept(tmp_path, key, mode, copying):
    src = tmp_path / "src"
    names = small_dataset(src)
    for name in names:
        (src / name).chmod(mode)
    root = tmp_path / "dst" if copying else src
    old = os.umask(0o022)
    try:
        protect_folder(src, root if copying else None, key)
        assert {name: (root / name).stat().st_mode & 0o7777 for name in names} == dict.fromkeys(names, mode)
        restore_folder(root, key)
        assert {name: (root / name).stat().st_mode & 0o7777 for name in names} == dict.fromkeys(names, mode)
    finally:
        os.umask(old)


def test_labels_decide_the_class_wherever_they_come_from(tmp_path, key):
    made = {"1_a.wav": wav(noise(900, seed=1)), "2_b.wav": wav(noise(900, seed=2))}
    expected = {}
    for name, label in (("1_a.wav", "1"), ("2_b.wav", "2")):
        expected[name] = wav(protected(noise(900, seed=int(label)), "PCM_16", label, key)[0])
    write_tree(tmp_path, {"labels.csv": b"label,path\n2,2_b.wav\n1,1_a.wav\n"})
    sources = {
        "csv": f"csv:{tmp_path}/labels.csv",
        "regex": r"regex:^(\d)_",
        "mapping": {"1_a.wav": "1", "2_b.wav": "2"},
    }
    for name, source in sources.items():
        write_tree(tmp_path / name, made)
        protect_folder(tmp_path / name, None, key, labels_from=source)
        assert without(contents(tmp_path / name), "poscuda.json") == expected
    write_tree(tmp_path / "1", {"1_a.wav": made["1_a.wav"]})
    protect_folder(tmp_path / "1", None, key)
    assert (tmp_path / "1/1_a.wav").read_bytes() == expected["1_a.wav"]


# Restore


@both_ways
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_restore_brings_back_every_byte(tmp_path, key, recipe, copying):
    src = write_dataset(tmp_path)
    root = tmp_path / "dst" if copying else src
    done = protect_folder(src, root if copying else None, key, recipe=recipe)
    report = restore_folder(root, key)
    counts = dataclasses.replace(done, saturated_samples=0, state="restored", seconds=report.seconds, notes=())
    assert report == counts
    assert audio_of(root) == originals()
    assert {name: (root / name).read_bytes() for name in OTHERS} == OTHERS
    digests = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in clips()}
    fields = json.loads((root / "poscuda.json").read_text(encoding="utf-8"))
    assert digests == {name: entry["sha256_before"] for name, entry in fields["files"].items()}


@both_ways
def test_a_second_restore_does_nothing_and_says_so(tmp_path, key, copying):
    src = write_dataset(tmp_path)
    root = tmp_path / "dst" if copying else src
    protect_folder(src, root if copying else None, key)
    first = restore_folder(root, key)
    before = contents(root, hidden=True)
    second = restore_folder(root, key)
    assert second == dataclasses.replace(first, state="already original", seconds=second.seconds)
    assert contents(root, hidden=True) == before


def test_protect_again_after_restore_in_place_with_another_recipe(tmp_path, key):
    src = write_dataset(tmp_path)
    protect_folder(src, None, key)
    restore_folder(src, key)
    assert protect_folder(src, None, key, recipe=STRONG).state == "protected"
    assert_protected(src, STRONG)
    assert verify_folder(src, key).ok
    assert restore_folder(src, key).state == "restored"
    assert audio_of(src) == originals()


def test_another_key_after_restore_once_the_old_sidecar_is_gone(tmp_path, key):
    src = tmp_path / "src"
    small_dataset(src)
    other = Key(bytes(32))
    protect_folder(src, None, key)
    restore_folder(src, key)
    with pytest.raises(SidecarError, match="was not made with the key"):
        protect_folder(src, None, other)
    (src / ".poscuda").unlink()
    assert protect_folder(src, None, other).state == "protected"
    assert small_is_protected(src, other)


def test_files_may_come_and_go_between_restore_and_the_next_protect(tmp_path, key):
    src = tmp_path / "src"
    small_dataset(src)
    protect_folder(src, None, key)
    restore_folder(src, key)
    (src / "no/0.wav").unlink()
    write_tree(src, {"no/new.wav": wav(noise(800))})
    before = without(contents(src), "poscuda.json")
    assert protect_folder(src, None, key).clips == 6
    assert (src / "no/new.wav").read_bytes() == wav(protected(noise(800), "PCM_16", "no", key)[0])
    restore_folder(src, key)
    assert without(contents(src), "poscuda.json") == before


def test_a_restored_copy_is_not_copied_onto_again(tmp_path, key):
    src = tmp_path / "src"
    small_dataset(src)
    protect_folder(src, tmp_path / "dst", key)
    restore_folder(tmp_path / "dst", key)
    with untouched(src), pytest.raises(SidecarError, match=r"holds a copy that was restored .*; copy to another path"):
        protect_folder(src, tmp_path / "dst", key)
    assert protect_folder(tmp_path / "dst", None, key).state == "protected"
    assert small_is_protected(tmp_path / "dst", key)


@pytest.mark.parametrize("final", [False, True])
def test_a_finished_copy_is_that_of_its_source_only(tmp_path, key, final):
    """A file of the same name and length, but with other samples, WAV or FLAC."""
    small_dataset(tmp_path / "src")
    protect_folder(tmp_path / "src", tmp_path / "dst", key)
    if final:
        drop_undo(tmp_path / "dst", key)
    for name in ("no/2.wav", "yes/3.flac"):
        path = tmp_path / "src" / name
        before = path.read_bytes()
        path.write_bytes(other_samples(before))
        with untouched(tmp_path), pytest.raises(SidecarError, match="1 of the files are not those that it was made of"):
            protect_folder(tmp_path / "src", tmp_path / "dst", key)
        path.write_bytes(before)
    assert protect_folder(tmp_path / "src", tmp_path / "dst", key).state == "already protected"


def other_samples(content: bytes) -> bytes:
    """A file of the same header with its samples backwards."""
    samples, rate = soundfile.read(io.BytesIO(content), dtype="int16")
    out = io.BytesIO()
    info = soundfile.info(io.BytesIO(content))
    soundfile.write(out, samples[::-1], rate, info.subtype, format=info.format)
    return out.getvalue()


def test_restore_needs_a_sidecar(tmp_path, key):
    src = tmp_path / "src"
    small_dataset(src)
    with (
        untouched(src),
        pytest.raises(SidecarError, match=r"\.poscuda does not exist: nothing can be restored.*give its path"),
    ):
        restore_folder(src, key)


def test_a_folder_can_be_moved_before_it_is_restored(tmp_path, key):
    src = write_dataset(tmp_path)
    protect_folder(src, None, key)
    src.rename(tmp_path / "moved")
    assert verify_folder(tmp_path / "moved", key).ok
    restore_folder(tmp_path / "moved", key)
    assert audio_of(tmp_path / "moved") == originals()


@pytest.mark.parametrize(("name", "damage"), [("no/0.wav", "inside"), ("yes/3.flac", "longer")])
def test_restore_needs_no_more_than_a_proof_that_it_is_the_same_file(tmp_path, key, name, damage):
    # Of a WAV file all bytes outside its patches are that proof, of an encoded file its decoded samples.
    src = tmp_path / "src"
    before = small_dataset(src)
    protect_folder(src, None, key)
    harm(src / name, damage, patches_of(700 if name == "no/0.wav" else 703, name.split("/")[0], key))
    assert restore_folder(src, key).state == "restored"
    assert without(contents(src), "poscuda.json") == before


HARMS = [("no/0.wav", damage) for damage in ("outside", "gone", "longer", "header")]
HARMS += [("yes/3.flac", damage) for damage in ("outside", "inside", "gone", "half")]


@both_ways
@pytest.mark.parametrize(("name", "damage"), HARMS)
def test_partial_restore_leaves_out_what_has_changed_until_it_is_put_back(tmp_path, key, name, damage, copying):
    src = tmp_path / "src"
    before = small_dataset(src)
    root = tmp_path / "dst" if copying else src
    protect_folder(src, root if copying else None, key)
    protected_bytes = (root / name).read_bytes()
    harm(root / name, damage, patches_of(700 if name == "no/0.wav" else 703, name.split("/")[0], key))
    harmed = contents(root)
    sentence = rf"1 files or clips are .*:\n  {name}$"
    with untouched(root / "yes", root / "no"), pytest.raises(SidecarError, match=sentence):
        restore_folder(root, key)
    report = restore_folder(root, key, partial=True)
    assert (report.state, report.patches) == ("partly restored", 5)
    after = contents(root)
    assert after.get(name) == harmed.get(name)
    assert without(after, name, "poscuda.json") == without(before, name)
    with pytest.raises(SidecarError, match="run restore again"):
        protect_folder(src, root if copying else None, key)
    (root / name).write_bytes(protected_bytes)
    assert restore_folder(root, key).state == "restored"
    assert without(contents(root), "poscuda.json") == before


def test_a_refusal_shows_ten_names(tmp_path, key):
    src = tmp_path / "yes"
    write_tree(src, {f"{number:02}.wav": wav(noise(300, seed=number)) for number in range(15)})
    protect_folder(src, None, key)
    for number in range(13):
        (src / f"{number:02}.wav").unlink()
    with pytest.raises(SidecarError) as caught:
        restore_folder(src, key)
    lines = str(caught.value).split("\n  ")
    assert lines[0].startswith("13 files or clips are missing or were changed since ")
    assert lines[1:] == [f"{number:02}.wav" for number in range(10)] + ["and 3 more"]


# Keys, labels, recipes and sidecars that do not fit


@pytest.mark.guards("I9")
@both_ways
def test_another_key_is_refused_by_every_verb(tmp_path, key, copying):
    src = tmp_path / "src"
    small_dataset(src)
    root = tmp_path / "dst" if copying else src
    protect_folder(src, root if copying else None, key)
    other = Key(bytes(32))
    for verb in (
        lambda: protect_folder(src, root if copying else None, other),
        lambda: restore_folder(root, other),
        lambda: verify_folder(root, other),
    ):
        before = contents(tmp_path, hidden=True)
        with pytest.raises(SidecarError, match=rf"was not made with the key {other.fingerprint}, or it is damaged"):
            verb()
        assert contents(tmp_path, hidden=True) == before


@pytest.mark.guards("I9")
@both_ways
@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"recipe": Recipe.paper(blur=0.02)}, "recipe"),
        ({"labels_from": r"regex:(\d)"}, "labels or lengths"),
        ({"labels_from": r"regex:(\.)"}, "labels or lengths"),
    ],
    ids=["recipe", "more classes", "one class"],
)
def test_another_recipe_or_other_labels_are_refused(tmp_path, key, options, word, copying):
    src = tmp_path / "src"
    small_dataset(src)
    dst = tmp_path / "dst" if copying else None
    protect_folder(src, dst, key)
    before = contents(tmp_path, hidden=True)
    with pytest.raises(
        SidecarError, match=f"was made for (an)?other {word}. To change that, restore first and protect again"
    ):
        protect_folder(src, dst, key, **options)
    assert contents(tmp_path, hidden=True) == before


def test_the_sidecar_may_lie_elsewhere(tmp_path, key):
    src = tmp_path / "src"
    before = small_dataset(src)
    sidecar = tmp_path / "kept apart.db"
    protect_folder(src, None, key, sidecar=sidecar)
    assert set(contents(src, hidden=True)) == {*before, "poscuda.json"}
    assert small_is_protected(src, key)
    assert protect_folder(src, None, key, sidecar=sidecar).state == "already protected"
    assert verify_folder(src, key, sidecar=sidecar).state == "complete"
    with pytest.raises(SidecarError, match=r"\.poscuda does not exist: nothing can be restored.*give its path"):
        restore_folder(src, key)
    restore_folder(src, key, sidecar=str(sidecar))
    assert without(contents(src, hidden=True), "poscuda.json") == before


def test_a_copy_may_have_its_sidecar_elsewhere(tmp_path, key):
    src = tmp_path / "src"
    before = small_dataset(src)
    sidecar = tmp_path / "kept.db"
    protect_folder(src, tmp_path / "dst", key, sidecar=sidecar)
    assert set(contents(tmp_path / "dst", hidden=True)) == {*before, "poscuda.json"}
    assert protect_folder(src, tmp_path / "dst", key, sidecar=sidecar).state == "already protected"
    restore_folder(tmp_path / "dst", key, sidecar=sidecar)
    assert without(contents(tmp_path / "dst"), "poscuda.json") == before


def test_a_sidecar_may_be_named_by_a_relative_path(tmp_path, key, monkeypatch):
    src = tmp_path / "src"
    small_dataset(src)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert protect_folder("src", None, key, sidecar="src/.poscuda").state == "protected"
        assert restore_folder("src", key, sidecar="./src/../src/.poscuda").state == "restored"


def test_what_is_no_recipe_is_refused(tmp_path, key):
    src = tmp_path / "src"
    small_dataset(src)
    with untouched(tmp_path), pytest.raises(TypeError, match=r"recipe is a dict; expected a poscuda_fast\.Recipe"):
        protect_folder(src, None, key, recipe={"patch": 240})


def test_verify_says_so_if_the_sidecar_it_was_given_is_not_there(tmp_path, key):
    src = tmp_path / "src"
    small_dataset(src)
    protect_folder(src, None, key)
    with pytest.raises((SidecarError, DatasetError, OSError), match="gone"):
        verify_folder(src, key, sidecar=tmp_path / "gone")


@both_ways
def test_what_a_manifest_calls_protected_is_not_protected_again(tmp_path, key, copying):
    src = tmp_path / "src"
    small_dataset(src)
    protect_folder(src, None, key)
    (src / ".poscuda").rename(tmp_path / "moved")
    sentence = r"records a run with the key 847db78bd7fbd1a2; restore it first.*no/0\.wav is protected already"
    for dry_run in (True, False):
        with untouched(tmp_path), pytest.raises(DatasetError, match=re.compile(sentence, re.DOTALL)):
            protect_folder(src, tmp_path / "dst" if copying else None, key, dry_run=dry_run)


@pytest.mark.parametrize("kind", ["array", "folder"])
def test_the_sidecar_of_something_else_is_refused(tmp_path, key, kind):
    from poscuda_fast import protect_memmap

    src = tmp_path / "src"
    small_dataset(src)
    other = tmp_path / "other"
    if kind == "array":
        arr = np.memmap(other, np.int16, "w+", shape=(3, 400))
        protect_memmap(arr, [0, 1, 2], key)
        sidecar = tmp_path / "other.poscuda"
    else:
        write_tree(other, {"yes/a.wav": wav(noise(400))})
        protect_folder(other, None, key)
        sidecar = other / ".poscuda"
    before = contents(tmp_path, hidden=True)
    with pytest.raises(SidecarError, match=r"was made for other|belongs to"):
        protect_folder(src, None, key, sidecar=sidecar)
    with pytest.raises(SidecarError, match=r"belongs to an array|1 files or clips are missing"):
        restore_folder(src, key, sidecar=sidecar)
    assert contents(tmp_path, hidden=True) == before


# Verify


@both_ways
def test_verify_finds_everything_protected(tmp_path, key, copying):
    src = write_dataset(tmp_path)
    root = tmp_path / "dst" if copying else src
    protect_folder(src, root if copying else None, key)
    still = n_silent(Recipe.paper())
    assert still == 3
    with untouched(src):
        for given, state in ((None, "unknown"), (key, "complete")):
            found = verify_folder(root, given)
            assert (found.original, found.protected, found.unchanged) == (0, len(clips()) - still, still)
            assert (found.neither, found.missing, found.unlisted, found.state) == ((), (), (), state)
            assert found.ok


@both_ways
def test_verify_finds_everything_original_again(tmp_path, key, copying):
    src = write_dataset(tmp_path)
    root = tmp_path / "dst" if copying else src
    protect_folder(src, root if copying else None, key)
    restore_folder(root, key)
    for given, state in ((None, "unknown"), (key, "undone")):
        found = verify_folder(root, given)
        assert (found.original, found.protected, found.unchanged) == (len(clips()) - 3, 0, 3)
        assert found.state == state
        assert found.ok


MORE_HARMS = [("no/0.wav", "inside"), ("no/0.wav", "half"), ("yes/3.flac", "header")]


@pytest.mark.parametrize("believed", ["sidecar", "manifest", "both"])
@pytest.mark.parametrize(("name", "damage"), HARMS + MORE_HARMS)
def test_verify_names_what_was_harmed(tmp_path, key, name, damage, believed):
    src = tmp_path / "src"
    before = small_dataset(src)
    protect_folder(src, None, key)
    if believed == "sidecar":
        (src / "poscuda.json").unlink()
    frames = 700 if name == "no/0.wav" else 703
    harm(src / name, damage, patches_of(frames, name.split("/")[0], key), before[name])
    found = verify_folder(src, None if believed == "manifest" else key)
    assert found.missing == ((name,) if damage == "gone" else ())
    assert found.neither == (() if damage == "gone" else (name,))
    assert (found.protected, found.original, found.unlisted, found.ok) == (5, 0, (), False)
    assert name in str(found)


@pytest.mark.parametrize("with_key", [True, False], ids=["key", "no key"])
def test_verify_tells_of_files_that_no_run_knows(tmp_path, key, with_key):
    src = tmp_path / "src"
    small_dataset(src)
    protect_folder(src, None, key)
    write_tree(src, {"yes/new.wav": wav(noise(500)), "yes/new.txt": b"", "yes/.new.wav": b""})
    found = verify_folder(src, key if with_key else None)
    assert (found.unlisted, found.protected, found.ok) == (("yes/new.wav",), 6, False)
    assert "  unlisted         yes/new.wav" in str(found)


@pytest.mark.parametrize("with_key", [True, False], ids=["key", "no key"])
@pytest.mark.parametrize("name", ["no/0.wav", "yes/3.flac"])
def test_verify_does_not_call_a_mixture_whole(tmp_path, key, name, with_key):
    src = tmp_path / "src"
    before = small_dataset(src)
    protect_folder(src, None, key)
    (src / name).write_bytes(before[name])
    found = verify_folder(src, key if with_key else None)
    assert (found.original, found.protected, found.neither, found.ok) == (1, 5, (), False)


def test_verify_without_the_manifest_needs_the_key(tmp_path, key):
    src = tmp_path / "src"
    small_dataset(src)
    protect_folder(src, None, key)
    (src / "poscuda.json").unlink()
    found = verify_folder(src, key)
    assert (found.protected, found.state, found.ok) == (6, "complete", True)
    with pytest.raises(DatasetError, match=r"There is no manifest .*poscuda\.json; give the key, to verify against"):
        verify_folder(src)


def test_verify_without_the_sidecar_believes_the_manifest_of_the_same_key(tmp_path, key):
    src = tmp_path / "src"
    small_dataset(src)
    protect_folder(src, None, key)
    (src / ".poscuda").unlink()
    found = verify_folder(src, key)
    assert (found.protected, found.state, found.ok) == (6, "unknown", True)
    with pytest.raises(DatasetError, match=f"is of the key {key.fingerprint}, not {Key(bytes(32)).fingerprint}"):
        verify_folder(src, Key(bytes(32)))


def test_verify_of_a_folder_that_was_never_protected(tmp_path, key):
    src = tmp_path / "src"
    small_dataset(src)
    with untouched(src):
        with pytest.raises(DatasetError, match="There is no manifest"):
            verify_folder(src)
        with pytest.raises(DatasetError, match=r"There is neither a manifest .* nor a sidecar"):
            verify_folder(src, key)


def test_a_forged_manifest_does_not_deceive_verify_with_the_key(tmp_path, key):
    src = tmp_path / "src"
    small_dataset(src)
    protect_folder(src, None, key)
    harm(src / "no/0.wav", "outside", patches_of(700, "no", key))
    path = src / "poscuda.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["files"]["no/0.wav"]["sha256_after"] = hashlib.sha256((src / "no/0.wav").read_bytes()).hexdigest()
    path.write_text(json.dumps(fields))
    assert verify_folder(src).ok
    assert verify_folder(src, key).neither == ("no/0.wav",)


def test_a_file_left_out_of_the_manifest_is_unlisted(tmp_path, key):
    src = tmp_path / "src"
    small_dataset(src)
    protect_folder(src, None, key)
    path = src / "poscuda.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    del fields["files"]["no/0.wav"]
    path.write_text(json.dumps(fields))
    assert verify_folder(src).unlisted == ("no/0.wav",)
    assert verify_folder(src, key).ok


def harm(path: Path, damage: str, patches, original: bytes = b"") -> None:
    """Change a protected mono file of 16-bit samples."""
    content = bytearray(path.read_bytes())
    start, size = int(patches.starts[0]), int(patches.sizes[0])
    if damage == "gone":
        path.unlink()
        return
    if damage == "longer":
        path.write_bytes(content + b"\0\0")
        return
    if path.suffix == ".wav":
        first = 44 + 2 * start
        if damage == "half":  # as if the writing of the patch had stopped
            half = first + size
            content[half : first + 2 * size] = original[half : first + 2 * size]
        else:
            outside = 44 if start > 0 else len(content) - 1
            content[{"outside": outside, "inside": first + 10, "header": 24}[damage]] ^= 0x55
        path.write_bytes(content)
        return
    samples = read_samples(path, "PCM_16")
    if damage == "half":
        content = content[: len(content) // 2]
    elif damage == "header":
        content[4] ^= 0xFF
    else:
        samples[{"outside": 0 if start > 0 else -1, "inside": start + 5}[damage]] ^= 0x55
        audiofiles.encoded(path, samples, "FLAC", "PCM_16")
        return
    path.write_bytes(content)


# One file


@pytest.mark.parametrize("name", ["yes/stereo.wav", "yes/b.flac", "no/c.aiff", "no/silent.wav"])
def test_a_single_file_in_place(tmp_path, key, name):
    src = write_dataset(tmp_path)
    clip = clips()[name]
    before = contents(src, hidden=True)
    report = protect_folder(src / name, None, key)
    assert (report.clips, report.state) == (1, "protected")
    assert read_samples(src / name, clip.coding).tobytes() == wet(name, Recipe.paper())[0].tobytes()
    after = contents(src, hidden=True)
    assert set(after) - set(before) == {f"{name}.poscuda", f"{name}.poscuda.json"}
    assert {n: c for n, c in after.items() if n in before and n != name} == without(before, name)
    fields = json.loads(after[f"{name}.poscuda.json"])
    assert [(n, entry["label"]) for n, entry in fields["files"].items()] == [(Path(name).name, clip.label)]
    for given in (None, key):
        found = verify_folder(src / name, given)
        assert found.protected + found.unchanged == 1
        assert found.ok
    assert protect_folder(src / name, None, key).state == "already protected"
    assert restore_folder(src / name, key).state == "restored"
    assert (src / name).read_bytes() == clip.content
    assert restore_folder(src / name, key).state == "already original"


@pytest.mark.parametrize("target", ["new.wav", "new.WAV", "folder/", "made/on/the/way.wav"])
def test_a_single_file_copied(tmp_path, key, target):
    src = write_dataset(tmp_path)
    name = "yes/plain.wav"
    (tmp_path / "folder").mkdir()
    with untouched(src):
        assert protect_folder(src / name, tmp_path / target, key).state == "protected"
    copy = tmp_path / "folder/plain.wav" if target == "folder/" else tmp_path / target
    assert copy.read_bytes() == wav(wet(name, Recipe.paper())[0])
    assert {path.name for path in copy.parent.iterdir() if path.name.startswith(copy.name)} == {
        copy.name,
        f"{copy.name}.poscuda",
        f"{copy.name}.poscuda.json",
    }
    assert list(json.loads(copy.with_name(f"{copy.name}.poscuda.json").read_text())["files"]) == [copy.name]
    with untouched(src):
        assert protect_folder(src / name, tmp_path / target, key).state == "already protected"
    assert verify_folder(copy, key).ok
    assert verify_folder(copy).ok
    restore_folder(copy, key)
    assert copy.read_bytes() == clips()[name].content


@pytest.mark.parametrize("name", ["yes/plain.wav", "yes/a.flac"])
def test_a_single_file_copied_beside_itself_stays_as_it_is(tmp_path, key, name):
    src = write_dataset(tmp_path)
    clip = clips()[name]
    copy = (src / name).with_stem("copy")
    assert protect_folder(src / name, copy, key).state == "protected"
    assert (src / name).read_bytes() == clip.content
    assert read_samples(copy, clip.coding).tobytes() == wet(name, Recipe.paper())[0].tobytes()


def test_a_single_lossy_file_copied_into_a_folder_becomes_flac(tmp_path, key):
    audiofiles.lossy(tmp_path / "a.mp3", "MP3", "MPEG_LAYER_III")
    (tmp_path / "folder").mkdir()
    protect_folder(tmp_path / "a.mp3", tmp_path / "folder", key, lossy="flac")
    assert probe(tmp_path / "folder/a.flac").format == "FLAC"


def test_a_single_lossy_file_copied_under_a_name_in_flac(tmp_path, key):
    audiofiles.lossy(tmp_path / "a.mp3", "MP3", "MPEG_LAYER_III")
    protect_folder(tmp_path / "a.mp3", tmp_path / "out/b.flac", key, lossy="flac", labels_from={"a.mp3": 3})
    plain = read_samples(tmp_path / "a.mp3", "PCM_16")
    assert read_samples(tmp_path / "out/b.flac", "PCM_16").tobytes() == protected(plain, "PCM_16", 3, key)[0].tobytes()
    restore_folder(tmp_path / "out/b.flac", key)
    assert read_samples(tmp_path / "out/b.flac", "PCM_16").tobytes() == plain.tobytes()


@pytest.mark.parametrize(
    ("name", "target", "sentence"),
    [
        ("yes/plain.wav", "new.flac", "new.flac should end in .wav, the format of the copy"),
        ("yes/plain.wav", "new", "new should end in .wav, the format of the copy"),
        ("yes/a.flac", "new.wav", "new.wav should end in .flac, the format of the copy"),
        ("yes/plain.wav", "taken.wav", "taken.wav exists, and nothing is ever overwritten"),
        ("yes/plain.wav", "full", "plain.wav exists, and nothing is ever overwritten"),
    ],
    ids=["WAV as FLAC", "no suffix", "FLAC as WAV", "taken", "taken in a folder"],
)
def test_targets_of_a_single_file_that_are_refused(tmp_path, key, name, target, sentence):
    src = write_dataset(tmp_path)
    write_tree(tmp_path, {"taken.wav": b"precious", "full/plain.wav": b"precious"})
    for dry_run in (True, False):
        with untouched(tmp_path), pytest.raises(DatasetError, match=re.escape(sentence)):
            protect_folder(src / name, tmp_path / target, key, dry_run=dry_run)


def test_a_single_file_onto_itself_is_refused(tmp_path, key):
    src = write_dataset(tmp_path)
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"plain\.wav"):
        protect_folder(src / "yes/plain.wav", src / "yes/plain.wav", key)


def test_a_single_file_that_is_no_audio_is_refused(tmp_path, key):
    write_tree(tmp_path, {"notes.txt": b"text"})
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"notes\.txt cannot be used"):
        protect_folder(tmp_path / "notes.txt", None, key)


# Parts and wholes

NESTED = [("src", "src/no"), ("src", "src/no/0.wav"), ("src/no", "src"), ("src/no/0.wav", "src"),
          ("src/no/0.wav", "src/no"), ("src/no", "src/no/4.flac")]  # fmt: skip


@both_ways
@pytest.mark.parametrize(("first", "second"), NESTED)
def test_what_is_protected_as_part_of_something_else_is_not_protected_again(tmp_path, key, first, second, copying):
    originals = small_dataset(tmp_path / "src")
    protect_folder(tmp_path / first, None, key)
    before = contents(tmp_path, hidden=True)
    dst = tmp_path / f"dst{Path(second).suffix}" if copying else None
    with pytest.raises((SidecarError, DatasetError), match=r"protect"):
        protect_folder(tmp_path / second, dst, key)
    assert contents(tmp_path, hidden=True) == before
    restore_folder(tmp_path / first, key)
    assert protect_folder(tmp_path / second, dst, key).state == "protected"
    restore_folder(dst or tmp_path / second, key)
    after = contents(tmp_path / "src")
    assert {name: after[name] for name in originals} == originals


# Kills and other runs


@needs_fork
@both_ways
@pytest.mark.parametrize(("at", "batch"), [(1, 1), (1, 100), (3, 2), (4, 2), (5, 100), (6, 1)])
def test_a_run_that_was_killed_is_finished_by_the_same_call(tmp_path, key, monkeypatch, at, batch, copying):
    src = tmp_path / "src"
    before = small_dataset(src)
    monkeypatch.setattr(files, "PIECES_PER_BATCH", batch)
    root = tmp_path / "dst" if copying else src
    call = functools.partial(protect_folder, src, root if copying else None, key)
    assert in_child(lambda: call(progress=killer(at))) == -signal.SIGKILL
    assert verify_folder(root, key).state == "applying"

    report = call()
    whole = protect_folder(_fresh_copy(before, tmp_path / "fresh"), None, key)
    assert report == dataclasses.replace(whole, seconds=report.seconds)
    assert small_is_protected(root, key)
    assert contents(root) == contents(tmp_path / "fresh")
    assert set(contents(root, hidden=True)) == {*before, ".poscuda", "poscuda.json"}
    found = verify_folder(root, key)
    assert (found.protected, found.ok, found.state) == (6, True, "complete")
    assert verify_folder(root).ok
    assert call().state == "already protected"
    restore_folder(root, key)
    assert without(contents(root), "poscuda.json") == before
    if copying:
        assert contents(src) == before


@needs_fork
@both_ways
def test_a_run_that_was_killed_again_and_again(tmp_path, key, monkeypatch, copying):
    src = tmp_path / "src"
    before = small_dataset(src)
    monkeypatch.setattr(files, "PIECES_PER_BATCH", 2)
    root = tmp_path / "dst" if copying else src
    call = functools.partial(protect_folder, src, root if copying else None, key)
    for at in (1, 2, 1, 5, 3, 6):
        assert in_child(functools.partial(call, progress=killer(at))) == -signal.SIGKILL
    assert call().state == "protected"
    assert small_is_protected(root, key)
    assert set(contents(root, hidden=True)) == {*before, ".poscuda", "poscuda.json"}
    for at in (1, 2, 1, 5, 3, 6):
        undo = functools.partial(restore_folder, root, key, progress=killer(6 + at))
        assert in_child(undo) == -signal.SIGKILL
    assert restore_folder(root, key).state == "restored"
    assert without(contents(root), "poscuda.json") == before


@needs_fork
@both_ways
@pytest.mark.parametrize(("at", "batch"), [(1, 1), (2, 100), (4, 2), (6, 1)])
def test_a_run_that_was_killed_can_be_restored(tmp_path, key, monkeypatch, at, batch, copying):
    src = tmp_path / "src"
    before = small_dataset(src)
    monkeypatch.setattr(files, "PIECES_PER_BATCH", batch)
    root = tmp_path / "dst" if copying else src
    assert in_child(lambda: protect_folder(src, root if copying else None, key, progress=killer(at))) == -signal.SIGKILL
    assert restore_folder(root, key).state == "restored"
    after = contents(root)
    assert after == {name: before[name] for name in after}
    assert set(after) == set(before) or copying
    assert restore_folder(root, key).state == "already original"


@needs_fork
@both_ways
@pytest.mark.parametrize("at", [1, 3, 4, 6])
def test_a_restore_that_was_killed_is_finished_by_the_same_call(tmp_path, key, monkeypatch, at, copying):
    src = tmp_path / "src"
    before = small_dataset(src)
    monkeypatch.setattr(files, "PIECES_PER_BATCH", 2)
    root = tmp_path / "dst" if copying else src
    protect_folder(src, root if copying else None, key)
    assert in_child(lambda: restore_folder(root, key, progress=killer(6 + at))) == -signal.SIGKILL
    assert verify_folder(root, key).state == "undoing"
    with pytest.raises(SidecarError, match="was interrupted; run restore again to finish it, then protect"):
        protect_folder(src, root if copying else None, key)
    report = restore_folder(root, key)
    assert (report.state, report.patches, report.clips) == ("restored", 6, 6)
    assert without(contents(root), "poscuda.json") == before
    assert set(contents(root, hidden=True)) == {*before, ".poscuda", "poscuda.json"}


@both_ways
@pytest.mark.parametrize("left", [(".poscuda",), (".poscuda", ".poscuda-journal")], ids=["sidecar", "and its journal"])
def test_a_run_killed_before_it_wrote_anything_is_begun_again(tmp_path, key, left, copying):
    src = tmp_path / "src"
    small_dataset(src)
    root = tmp_path / "dst" if copying else src
    root.mkdir(exist_ok=True)
    for name in left:
        (root / name).touch(0o600)
    assert protect_folder(src, root if copying else None, key).state == "protected"
    assert small_is_protected(root, key)
    assert verify_folder(root, key).ok


def test_an_interrupt_leaves_a_run_that_can_be_finished(tmp_path, key, monkeypatch):
    src = tmp_path / "src"
    before = small_dataset(src)
    monkeypatch.setattr(files, "PIECES_PER_BATCH", 2)

    def interrupt(done: int, total: int) -> None:
        if done == (3 if total == 6 else 9):  # a restore takes two steps for each file
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        protect_folder(src, None, key, progress=interrupt)
    assert protect_folder(src, None, key).state == "protected"
    with pytest.raises(KeyboardInterrupt):
        restore_folder(src, key, progress=interrupt)
    assert restore_folder(src, key).state == "restored"
    assert without(contents(src), "poscuda.json") == before


@pytest.mark.guards("I12")
@needs_fork
@both_ways
def test_two_runs_at_once_on_one_folder(tmp_path, key, copying):
    src = tmp_path / "src"
    small_dataset(src)
    root = tmp_path / "dst" if copying else src
    call = functools.partial(protect_folder, src, root if copying else None, key)
    has_begun, begun = os.pipe()
    may_go_on, go_on = os.pipe()

    def pause(done: int, total: int) -> None:
        if done == 1:
            os.write(begun, b"1")
            os.read(may_go_on, 1)

    child = start_child(lambda: call(progress=pause))
    try:
        assert os.read(has_begun, 1) == b"1"
        for verb in (call, functools.partial(restore_folder, root, key), functools.partial(verify_folder, root, key)):
            with pytest.raises(BusyError, match=r"is in use: another run is at work on .*Wait for it to end"):
                verb()
    finally:
        os.write(go_on, b"1")
        ended = end_of_child(child)
        for descriptor in (has_begun, begun, may_go_on, go_on):
            os.close(descriptor)
    assert ended == 0
    assert small_is_protected(root, key)
    assert verify_folder(root, key).ok


def test_a_run_inside_a_run_is_refused(tmp_path, key):
    src = tmp_path / "src"
    small_dataset(src)
    refused = []

    def again(done: int, total: int) -> None:
        with pytest.raises(BusyError, match="in use") as caught:
            protect_folder(src, None, key)
        refused.append(caught.value)

    protect_folder(src, None, key, progress=again)
    assert len(refused) == 6
    assert small_is_protected(src, key)


@pytest.mark.guards("I12")
@pytest.mark.parametrize(
    ("name", "sidecar"), [("", "elsewhere"), ("no/0.wav", None)], ids=["another sidecar", "one of its files"]
)
def test_a_run_on_the_same_files_with_another_sidecar_is_refused(tmp_path, key, name, sidecar):
    src = tmp_path / "src"
    before = small_dataset(src)
    other = None if sidecar is None else tmp_path / sidecar
    refused = []

    def again(done: int, total: int) -> None:
        if done != 3:
            return
        with pytest.raises((BusyError, DatasetError)) as caught:
            protect_folder(src / name, None, key, sidecar=other)
        refused.append(caught.value)

    protect_folder(src, None, key, progress=again)
    assert len(refused) == 1
    assert small_is_protected(src, key)
    restore_folder(src, key)
    assert {name: contents(src)[name] for name in before} == before


# Real speech


@pytest.mark.real
def test_real_speech_in_wav_files_in_place(tmp_path, key, fsdd):
    src = tmp_path / "fsdd"
    src.mkdir()
    for path in sorted(fsdd.glob("*.wav"))[::10]:
        shutil.copyfile(path, src / path.name)
    before = {name: hashlib.sha256(content).hexdigest() for name, content in contents(src).items()}
    assert len(before) == 300

    report = protect_folder(src, None, key, labels_from=r"regex:^(\d)_")
    assert (report.clips, report.patches, report.short_clips) == (300, 300, 0)
    for path in sorted(src.glob("*.wav"))[::25]:
        original = read_samples(fsdd / path.name, "PCM_16")
        expected, _ = protected(original, "PCM_16", path.name[0], key)
        assert read_samples(path, "PCM_16").tobytes() == expected.tobytes()
    for given in (None, key):
        found = verify_folder(src, given)
        assert (found.protected + found.unchanged, found.ok) == (300, True)

    assert restore_folder(src, key).state == "restored"
    after = without(contents(src), "poscuda.json")
    assert {name: hashlib.sha256(content).hexdigest() for name, content in after.items()} == before
    assert verify_folder(src, key).original + found.unchanged == 300


@pytest.mark.real
def test_real_speech_in_flac_files_copied(tmp_path, key, speech_commands):
    src, dst = tmp_path / "src", tmp_path / "dst"
    for word in ("cat", "go", "left", "up"):
        (src / word).mkdir(parents=True)
        for path in sorted((speech_commands / word).glob("*.flac"))[:15]:
            shutil.copyfile(path, src / word / path.name)
    for path in speech_commands.glob("*.txt"):
        shutil.copyfile(path, src / path.name)
    before = contents(src)

    report = protect_folder(src, dst, key)
    assert (report.clips, report.patches) == (60, 60)
    assert contents(src) == before
    for path in src.rglob("*.flac"):
        name = path.relative_to(src)
        expected, _ = protected(read_samples(path, "PCM_16"), "PCM_16", path.parent.name, key)
        assert read_samples(dst / name, "PCM_16").tobytes() == expected.tobytes()
    found = verify_folder(dst, key)
    assert (found.protected + found.unchanged, found.ok) == (60, True)

    restore_folder(dst, key)
    assert without(contents(dst), "poscuda.json") == before


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _fresh_copy(tree: dict[str, bytes], root: Path) -> Path:
    write_tree(root, tree)
    return root


def test_files_that_were_put_back_are_not_called_protected(tmp_path, key):
    files = {"a/1.wav": wav(noise(500)), "b/2.wav": wav(noise(400))}
    write_tree(tmp_path, files)
    protect_folder(tmp_path, None, key)
    (tmp_path / "b/2.wav").write_bytes(files["b/2.wav"])
    with (
        untouched(tmp_path),
        pytest.raises(SidecarError, match=r"1 clips or files are not as it left them \(b/2\.wav\)"),
    ):
        protect_folder(tmp_path, None, key)
    restore_folder(tmp_path, key)
    assert protect_folder(tmp_path, None, key).state == "protected"


@pytest.mark.parametrize("stopped", [False, True], ids=["finished", "stopped"])
def test_a_users_own_edit_of_a_steadily_marked_file_is_never_overwritten(
    tmp_path: Path, key: Key, stopped: bool
) -> None:
    """Of the same length, so that only the samples tell: format 2 leaves no byte of them as it was."""
    root = tmp_path / "root"
    write_tree(root, {f"{'ab'[n % 2]}/{n}.wav": wav(noise(900 + n, seed=n)) for n in range(6)})

    def wavs() -> dict[str, bytes]:
        return {name: content for name, content in contents(root).items() if name.endswith(".wav")}

    original = wavs()

    def stop(done: int, total: int) -> None:
        if stopped and done == 6:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        poscuda_fast.protect_folder(root, None, key, progress=stop)
    mine = bytearray((root / "a/2.wav").read_bytes())
    mine[44:] = mine[44:][::-1]
    (root / "a/2.wav").write_bytes(mine)
    edited = wavs()
    assert not poscuda_fast.verify_folder(root, key).ok
    with pytest.raises(SidecarError, match=r"1 files or clips are missing or were changed .*:\n  a/2\.wav$"):
        restore_folder(root, key)
    if stopped:
        with pytest.raises(SidecarError, match=r"a/2\.wav"):
            poscuda_fast.protect_folder(root, None, key)
    assert wavs() == edited
    assert restore_folder(root, key, partial=True).state == "partly restored"
    assert wavs() == {**original, "a/2.wav": bytes(mine)}
