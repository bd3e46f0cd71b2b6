"""Folders are restored bit for bit, and what was changed since is left alone; copies and new data."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import pytest
from audiofiles import contents, noise, patches_of, protected, untouched, wav, write_tree
from blake3 import blake3
from folders import (
    OTHERS,
    RECIPES,
    assert_protected,
    audio_of,
    clips,
    counted,
    harm,
    originals,
    small_dataset,
    small_is_protected,
    without,
    write_dataset,
)
from recipes import protect_folder

import poscuda_fast
from poscuda_fast import DatasetError, Key, Recipe, SidecarError, restore_folder, verify_folder
from poscuda_fast.undo.journal import manifest_of
from poscuda_fast.undo.manifest import Manifest


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_restore_brings_back_every_byte(tmp_path: Path, key: Key, recipe: Recipe) -> None:
    src = write_dataset(tmp_path)
    done = protect_folder(src, None, key, recipe=recipe)
    report = restore_folder(src, key)
    told = {"saturated_samples": 0, "state": "restored", "seconds": report.seconds, "notes": ()}
    assert report == dataclasses.replace(counted(done), **told)
    assert audio_of(src) == originals()
    assert {name: (src / name).read_bytes() for name in OTHERS} == OTHERS
    digests = {name: blake3((src / name).read_bytes()).hexdigest() for name in clips()}
    entries = Manifest.read(manifest_of(src)).files
    assert digests == {name: entry["blake3_before"] for name, entry in entries.items()}


def test_a_second_restore_does_nothing_and_says_so(tmp_path: Path, key: Key) -> None:
    src = write_dataset(tmp_path)
    protect_folder(src, None, key)
    first = restore_folder(src, key)
    with untouched(tmp_path):
        second = restore_folder(src, key)
    assert second == dataclasses.replace(first, state="already original", seconds=second.seconds)


def test_a_copy_is_not_restored_and_says_where_its_originals_are(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    protect_folder(src, tmp_path / "dst", key)
    for options in ({}, {"partial": True}):
        with untouched(tmp_path), pytest.raises(DatasetError, match=f"no originals: your originals are at {src};"):
            restore_folder(tmp_path / "dst", key, **options)


def test_after_restore_every_other_recipe_may_follow(tmp_path: Path, key: Key) -> None:
    src = write_dataset(tmp_path)
    order = ["default", "format 2", "loud", "every", "format 2", "default"]
    for name in order:
        assert protect_folder(src, None, key, recipe=RECIPES[name]).state == "protected"
        assert_protected(src, RECIPES[name])
        for other in {*RECIPES} - {name}:
            with pytest.raises(SidecarError, match="was made for another recipe"):
                protect_folder(src, None, key, recipe=RECIPES[other])
        assert verify_folder(src, key).ok
        assert restore_folder(src, key).state == "restored"
        assert audio_of(src) == originals()


def test_after_restore_other_labels_may_follow(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    before = small_dataset(src)
    for source in ("folder", r"regex:(\d)", r"regex:(\.)", "folder"):
        assert poscuda_fast.protect_folder(src, None, key, labels_from=source).state == "protected"
        assert restore_folder(src, key).state == "restored"
        assert contents(src) == before


def test_another_key_after_restore_once_the_old_sidecar_is_gone(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    other = Key(bytes(32))
    protect_folder(src, None, key)
    restore_folder(src, key)
    with pytest.raises(SidecarError, match=f"was made with the key of fingerprint {key.fingerprint}"):
        protect_folder(src, None, other)
    (tmp_path / "src.poscuda").unlink()
    assert protect_folder(src, None, other).state == "protected"
    assert small_is_protected(src, other)


def test_files_may_come_and_go_between_restore_and_the_next_protect(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    protect_folder(src, None, key)
    restore_folder(src, key)
    write_tree(src, {"no/new.wav": wav(noise(800))})
    assert protect_folder(src, None, key).clips == 7
    restore_folder(src, key)
    (src / "no/0.wav").unlink()
    before = contents(src)
    sentence = r"1 files or clips are missing, .*; if that is meant, move the sidecar away.*:\n  no/0\.wav$"
    with untouched(tmp_path), pytest.raises(SidecarError, match=sentence):
        protect_folder(src, None, key)
    (tmp_path / "src.poscuda").rename(tmp_path / "old")
    assert protect_folder(src, None, key).clips == 6
    assert (src / "no/new.wav").read_bytes() == wav(protected(noise(800), "PCM_16", "no", key)[0])
    restore_folder(src, key)
    assert contents(src) == before


def test_restore_needs_a_sidecar(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    sentence = r"src\.poscuda does not exist: nothing can be restored by it.*give its path"
    with untouched(tmp_path), pytest.raises(SidecarError, match=sentence):
        restore_folder(src, key)


def test_a_folder_can_be_moved_with_its_sidecar_before_it_is_restored(tmp_path: Path, key: Key) -> None:
    src = write_dataset(tmp_path)
    protect_folder(src, None, key)
    for suffix in ("", ".poscuda", ".poscuda.json"):
        (tmp_path / f"src{suffix}").rename(tmp_path / f"moved{suffix}")
    assert verify_folder(tmp_path / "moved", key).ok
    restore_folder(tmp_path / "moved", key)
    assert audio_of(tmp_path / "moved") == originals()


# What was changed since


@pytest.mark.parametrize("damage", ["outside", "header"])
def test_format_1_does_not_watch_bytes_outside_its_patches(tmp_path: Path, key: Key, damage: str) -> None:
    src = tmp_path / "src"
    before = small_dataset(src)
    protect_folder(src, None, key)
    harm(src / "no/0.wav", damage, patches_of(700, "no", key))
    mine = (src / "no/0.wav").read_bytes()
    assert verify_folder(src, key).ok
    assert not verify_folder(src).ok  # digests are of whole files
    assert restore_folder(src, key).state == "restored"
    after = contents(src)
    assert without(after, "no/0.wav") == without(before, "no/0.wav")
    original = before["no/0.wav"]
    assert [n for n in range(len(mine)) if after["no/0.wav"][n] != original[n]] == [24 if damage == "header" else 44]


def test_of_an_encoded_file_samples_count_and_not_bytes(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    before = small_dataset(src)
    protect_folder(src, None, key)
    harm(src / "yes/3.flac", "longer", patches_of(703, "yes", key))
    assert restore_folder(src, key).state == "restored"
    assert contents(src) == before


HARMS = [("no/0.wav", damage) for damage in ("inside", "gone", "longer")]
HARMS += [("yes/3.flac", damage) for damage in ("outside", "inside", "gone", "half")]


@pytest.mark.parametrize(("name", "damage"), HARMS)
def test_partial_restore_leaves_out_what_has_changed_until_it_is_put_back(
    tmp_path: Path, key: Key, name: str, damage: str
) -> None:
    src = tmp_path / "src"
    before = small_dataset(src)
    protect_folder(src, None, key)
    protected_bytes = (src / name).read_bytes()
    harm(src / name, damage, patches_of(700 if name == "no/0.wav" else 703, name.split("/", maxsplit=1)[0], key))
    harmed = contents(src)
    sentence = rf"(?s)^1 files or clips .*; nothing was written\. Put them back, .*\(partial=True\):\n  {name}$"
    with untouched(tmp_path), pytest.raises(SidecarError, match=sentence):
        restore_folder(src, key)
    report = restore_folder(src, key, partial=True)
    assert (report.state, report.clips, report.left_out) == ("partly restored", 6, (name,))
    after = contents(src)
    assert after.get(name) == harmed.get(name)
    assert without(after, name) == without(before, name)
    (src / name).write_bytes(protected_bytes)
    assert not verify_folder(src, key).ok
    assert restore_folder(src, key).state == "restored"
    assert contents(src) == before


def test_partial_protect_leaves_out_what_has_changed_until_it_is_put_back(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    before = small_dataset(src)
    protect_folder(src, None, key)
    wet = contents(src)
    (src / "yes/1.wav").write_bytes(before["yes/1.wav"])
    harm(src / "no/0.wav", "inside", patches_of(700, "no", key))
    mine = (src / "no/0.wav").read_bytes()
    with (
        untouched(tmp_path),
        pytest.raises(SidecarError, match=r"1 files or clips are missing, may not be written, or were changed"),
    ):
        protect_folder(src, None, key)
    report = protect_folder(src, None, key, partial=True)
    assert (report.state, report.left_out) == ("partly protected", ("no/0.wav",))
    assert contents(src) == {**wet, "no/0.wav": mine}
    (src / "no/0.wav").write_bytes(before["no/0.wav"])
    assert protect_folder(src, None, key).state == "protected"
    assert contents(src) == wet


def test_a_refusal_shows_ten_names(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "yes"
    write_tree(src, {f"{number:02}.wav": wav(noise(300, seed=number)) for number in range(15)})
    protect_folder(src, None, key)
    for number in range(13):
        (src / f"{number:02}.wav").unlink()
    with pytest.raises(SidecarError) as caught:
        restore_folder(src, key)
    lines = str(caught.value).split("\n  ")
    assert lines[0].startswith("13 files or clips are missing, may not be written, or were changed since ")
    assert lines[1:] == [f"{number:02}.wav" for number in range(10)] + ["and 3 more"]


@pytest.mark.parametrize("name", ["no/0.wav", "yes/3.flac"])
def test_originals_that_were_put_back_are_marked_again(tmp_path: Path, key: Key, name: str) -> None:
    src = tmp_path / "src"
    before = small_dataset(src)
    protect_folder(src, None, key)
    wet = contents(src)
    (src / name).write_bytes(before[name])
    assert not verify_folder(src, key).ok
    assert protect_folder(src, None, key).state == "protected"
    assert contents(src) == wet
    assert protect_folder(src, None, key).state == "already protected"


@pytest.mark.parametrize("name", ["no/0.wav", "yes/3.flac"])
def test_files_that_come_back_protected_are_restored_again(tmp_path: Path, key: Key, name: str) -> None:
    src = tmp_path / "src"
    before = small_dataset(src)
    protect_folder(src, None, key)
    wet = contents(src)
    restore_folder(src, key)
    (src / name).write_bytes(wet[name])
    assert not verify_folder(src, key).ok
    assert restore_folder(src, key).state == "restored"
    assert contents(src) == before
    assert restore_folder(src, key).state == "already original"


@pytest.mark.parametrize("stopped", [False, True], ids=["finished", "stopped"])
def test_a_users_own_edit_of_a_steadily_marked_file_is_never_overwritten(
    tmp_path: Path, key: Key, stopped: bool
) -> None:
    """Of the same length, so that only the samples tell: format 2 leaves no byte of them as it was."""
    root = tmp_path / "root"
    write_tree(root, {f"{'ab'[n % 2]}/{n}.wav": wav(noise(900 + n, seed=n)) for n in range(6)})
    original = contents(root)

    def stop(done: int, total: int) -> None:
        if stopped and done == 6:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        poscuda_fast.protect_folder(root, None, key, progress=stop)
    mine = bytearray((root / "a/2.wav").read_bytes())
    mine[44:] = mine[44:][::-1]
    (root / "a/2.wav").write_bytes(mine)
    edited = contents(root)
    assert not poscuda_fast.verify_folder(root, key).ok
    for verb in (lambda: restore_folder(root, key), lambda: poscuda_fast.protect_folder(root, None, key)):
        with pytest.raises(
            SidecarError, match=r"1 files or clips are missing, may not be written, or were changed .*:\n  a/2\.wav$"
        ):
            verb()
    assert contents(root) == edited
    assert restore_folder(root, key, partial=True).state == "partly restored"
    assert contents(root) == {**original, "a/2.wav": bytes(mine)}
