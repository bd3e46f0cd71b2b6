"""What protecting a folder does to its files, and what the report says of it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from pathlib import Path

import pytest
from audiofiles import (
    contents,
    noise,
    patch_bytes,
    patches_of,
    protected,
    read_samples,
    snapshot,
    untouched,
    wav,
    write_tree,
)
from folders import (
    HIDDEN,
    OTHERS,
    RECIPES,
    STRONG,
    assert_protected,
    both_ways,
    clips,
    counted,
    originals,
    small_dataset,
    small_is_protected,
    wet,
    write_dataset,
)
from recipes import protect_folder

from poscuda_fast import Key, Recipe, SidecarError, restore_folder, verify_folder
from poscuda_fast.files import target as files
from poscuda_fast.files.layouts import of_file


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@both_ways
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_every_kind_of_file_is_protected_exactly(tmp_path: Path, key: Key, recipe: Recipe, copying: bool) -> None:
    src = write_dataset(tmp_path)
    root = tmp_path / "dst" if copying else src
    report = protect_folder(src, root if copying else None, key, recipe=recipe)
    assert report.state == "protected"
    assert_protected(root, recipe)
    for name, clip in clips().items():
        if clip.offset is None:
            original = written(tmp_path / "original", clip.content)
            assert of_file(str(root / name), name)[0] == of_file(str(original), name)[0]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_only_bytes_of_patches_change_in_wav_files(tmp_path: Path, key: Key, recipe: Recipe) -> None:
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
def test_nothing_else_is_changed_and_nothing_is_made_inside(tmp_path: Path, key: Key, copying: bool) -> None:
    src = write_dataset(tmp_path)
    before = snapshot(src)
    root = tmp_path / "dst" if copying else src
    protect_folder(src, root if copying else None, key)
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "src",
        root.name,
        f"{root.name}.poscuda",
        f"{root.name}.poscuda.json",
    }
    after = contents(root, hidden=True)
    assert set(after) == {*clips(), *OTHERS, *(() if copying else HIDDEN)}
    assert {name: after[name] for name in OTHERS} == OTHERS
    if copying:
        assert snapshot(src) == before
    else:
        for name in (*OTHERS, *HIDDEN, "no/silent.wav", "no/empty.wav"):
            assert after[name] == (OTHERS | HIDDEN | originals())[name]


def test_inodes_stay_for_wav_files_in_place(tmp_path: Path, key: Key) -> None:
    src = write_dataset(tmp_path)
    wavs = [name for name, clip in clips().items() if clip.offset is not None]
    before = {name: (src / name).stat().st_ino for name in wavs}
    protect_folder(src, None, key)
    restore_folder(src, key)
    assert {name: (src / name).stat().st_ino for name in wavs} == before


@both_ways
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_the_report_counts_what_was_done(tmp_path: Path, key: Key, recipe: Recipe, copying: bool) -> None:
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
        "left_out": (),
        "unprotected": (),
        "class_sizes": (("no", 12), ("yes", 6)),
        "snr_db_median": report.snr_db_median,
        "snr_db_lowest": report.snr_db_lowest,
        "lowest_snr_file": report.lowest_snr_file,
        "untagged": 0,
    }
    assert report.snr_db_lowest < report.snr_db_median
    assert report.lowest_snr_file in clips()
    assert report.seconds > 0
    # Level and quiet clips; hidden files; what may be published.
    assert len(report.notes) == 2 * steady + 1 + copying
    if copying:
        assert report.notes[-1] == f"{tmp_path / 'dst'} may be published; {src} is its undo: keep it"
    assert steady or silent > 0
    if recipe is STRONG:
        assert report.saturated_samples > 0


@both_ways
def test_a_second_call_does_nothing_and_says_so(tmp_path: Path, key: Key, copying: bool) -> None:
    src = write_dataset(tmp_path)
    dst = tmp_path / "dst" if copying else None
    first = protect_folder(src, dst, key, recipe=STRONG)
    with untouched(tmp_path):
        second = protect_folder(src, dst, key, recipe=STRONG)
    assert counted(second) == dataclasses.replace(counted(first), state="already protected", seconds=second.seconds)


@both_ways
def test_a_dry_run_writes_nothing_and_counts_the_same(tmp_path: Path, key: Key, copying: bool) -> None:
    src = write_dataset(tmp_path)
    dst = tmp_path / "dst" if copying else None
    with untouched(tmp_path):
        rehearsed = protect_folder(src, dst, key, recipe=STRONG, dry_run=True)
    assert rehearsed.state == "untouched"
    real = protect_folder(src, dst, key, recipe=STRONG)
    of_copy = real.notes[len(rehearsed.notes) :]
    assert len(of_copy) == copying
    notes = (*rehearsed.notes, *of_copy)
    assert real == dataclasses.replace(rehearsed, state="protected", seconds=real.seconds, notes=notes)


@both_ways
def test_a_dry_run_after_the_run_changes_nothing_and_says_so(tmp_path: Path, key: Key, copying: bool) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    dst = tmp_path / "dst" if copying else None
    done = protect_folder(src, dst, key)
    with untouched(tmp_path):
        rehearsed = protect_folder(src, dst, key, dry_run=True)
        told = dataclasses.replace(counted(done), state="already protected", seconds=rehearsed.seconds)
        assert counted(rehearsed) == told
        with pytest.raises(SidecarError, match="was begun with" if copying else "was made for another recipe"):
            protect_folder(src, dst, key, recipe=STRONG, dry_run=True)


def test_backends_and_threads_give_the_same_files(tmp_path: Path, key: Key) -> None:
    src = write_dataset(tmp_path)
    protect_folder(src, tmp_path / "a", key, backend="reference", threads=1)
    protect_folder(src, tmp_path / "b", key, backend="cpu", threads=3)
    assert_protected(tmp_path / "a")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("batch", [1, 4, 6])
def test_the_division_into_batches_does_not_show(tmp_path: Path, key: Key, monkeypatch, batch: int) -> None:
    src = tmp_path / "src"
    before = small_dataset(src)
    monkeypatch.setattr(files, "PIECES_PER_BATCH", batch)
    protect_folder(src, None, key)
    assert small_is_protected(src, key)
    restore_folder(src, key)
    assert contents(src) == before


def test_progress_counts_every_file_once_and_looking_at_it_too(tmp_path: Path, key: Key) -> None:
    src, n = write_dataset(tmp_path), len(clips())
    seen: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        seen.append((done, total))

    protect_folder(src, None, key, progress=note)
    assert {total for _, total in seen} == {n}
    assert seen[-1] == (n, n)
    assert seen == sorted(set(seen))
    seen.clear()
    restore_folder(src, key, progress=note)
    assert {total for _, total in seen} == {2 * n}  # all are looked at before the first is put back
    assert seen[-1] == (2 * n, 2 * n)
    assert seen == sorted(set(seen))
    assert n in [done for done, _ in seen]


def test_progress_of_a_copy_counts_every_audio_file(tmp_path: Path, key: Key) -> None:
    src = write_dataset(tmp_path)
    seen: list[tuple[int, int]] = []
    protect_folder(src, tmp_path / "dst", key, progress=lambda done, total: seen.append((done, total)))
    n = len(clips())
    assert {total for _, total in seen} == {n}
    assert seen[-1] == (n, n)
    assert seen == sorted(set(seen))


def test_a_folder_is_known_by_a_link_and_by_a_relative_path(tmp_path: Path, key: Key, monkeypatch) -> None:
    src = write_dataset(tmp_path)
    (tmp_path / "link").symlink_to(src)
    protect_folder(tmp_path / "link", None, key)
    monkeypatch.chdir(src)
    assert protect_folder(".", None, key).state == "already protected"
    assert_protected(src)
    assert not (tmp_path / "link.poscuda").exists()


def test_paths_may_be_text(tmp_path: Path, key: Key) -> None:
    src = write_dataset(tmp_path)
    protect_folder(str(src), str(tmp_path / "dst"), key)
    assert_protected(tmp_path / "dst")
    assert verify_folder(str(tmp_path / "dst"), key).ok
    protect_folder(str(src), None, key)
    assert restore_folder(str(src), key).state == "restored"


@both_ways
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664], ids=oct)
def test_permissions_are_kept(tmp_path: Path, key: Key, mode: int, copying: bool) -> None:
    src = tmp_path / "src"
    names = small_dataset(src)
    for name in names:
        (src / name).chmod(mode)
    root = tmp_path / "dst" if copying else src
    old = os.umask(0o022)
    try:
        protect_folder(src, root if copying else None, key)
        assert {name: (root / name).stat().st_mode & 0o7777 for name in names} == dict.fromkeys(names, mode)
        if not copying:
            restore_folder(root, key)
            assert {name: (root / name).stat().st_mode & 0o7777 for name in names} == dict.fromkeys(names, mode)
    finally:
        os.umask(old)


def test_labels_decide_the_class_wherever_they_come_from(tmp_path: Path, key: Key) -> None:
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
        assert contents(tmp_path / name) == expected
    write_tree(tmp_path / "1", {"1_a.wav": made["1_a.wav"]})
    protect_folder(tmp_path / "1", None, key)
    assert (tmp_path / "1/1_a.wav").read_bytes() == expected["1_a.wav"]


@both_ways
def test_new_files_are_marked_alone(tmp_path: Path, key: Key, copying: bool) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    root = tmp_path / "dst" if copying else src
    dst = root if copying else None
    protect_folder(src, dst, key)
    before = contents(root)
    write_tree(src, {"no/new.wav": wav(noise(800)), "yes/new.txt": b"text"})
    report = protect_folder(src, dst, key)
    assert (report.state, report.clips) == ("protected", 7)
    expected = wav(protected(noise(800), "PCM_16", "no", key)[0])
    assert contents(root) == {**before, "no/new.wav": expected, "yes/new.txt": b"text"}
    assert verify_folder(root, key).protected == verify_folder(root).protected == 7
    assert protect_folder(src, dst, key).state == "already protected"
    if not copying:
        assert restore_folder(src, key).clips == 7
        assert (src / "no/new.wav").read_bytes() == wav(noise(800))


# Real speech


@pytest.mark.real
def test_real_speech_in_wav_files_in_place(tmp_path: Path, key: Key, fsdd: Path) -> None:
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
    assert {name: hashlib.sha256(content).hexdigest() for name, content in contents(src).items()} == before
    assert verify_folder(src, key).original + found.unchanged == 300


@pytest.mark.real
def test_real_speech_in_flac_files_copied(tmp_path: Path, key: Key, speech_commands: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    for word in ("cat", "go", "left", "up"):
        (src / word).mkdir(parents=True)
        for path in sorted((speech_commands / word).glob("*.flac"))[:15]:
            shutil.copyfile(path, src / word / path.name)
    for path in speech_commands.glob("*.txt"):
        shutil.copyfile(path, src / path.name)
    with untouched(src):
        report = protect_folder(src, dst, key)
    assert (report.clips, report.patches) == (60, 60)
    for path in src.rglob("*.flac"):
        name = path.relative_to(src)
        expected, _ = protected(read_samples(path, "PCM_16"), "PCM_16", path.parent.name, key)
        assert read_samples(dst / name, "PCM_16").tobytes() == expected.tobytes()
    for given, source in ((None, None), (key, None), (key, src)):
        found = verify_folder(dst, given, source=source)
        assert (found.protected + found.unchanged, found.ok) == (60, True)
