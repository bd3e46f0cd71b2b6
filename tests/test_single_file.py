"""One audio file, protected in place or copied to a path of its own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import audiofiles
import pytest
from audiofiles import contents, protected, read_samples, untouched, wav, write_tree
from folders import clips, wet, without, write_dataset
from recipes import protect_folder

from poscuda_fast import DatasetError, Key, Recipe, SidecarError, restore_folder, verify_folder
from poscuda_fast.files.encoded import probe
from poscuda_fast.undo.journal import MANIFEST, SIDECAR


@pytest.mark.parametrize("name", ["yes/stereo.wav", "yes/b.flac", "no/c.aiff", "no/silent.wav"])
def test_a_single_file_in_place(tmp_path: Path, key: Key, name: str) -> None:
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
def test_a_single_file_copied(tmp_path: Path, key: Key, target: str) -> None:
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
    with untouched(tmp_path):
        assert protect_folder(src / name, tmp_path / target, key).state == "already protected"
        assert verify_folder(copy, key).ok
        assert verify_folder(copy).ok
        assert verify_folder(copy, key, source=src / name).protected == 1
        with pytest.raises(DatasetError, match=f"your originals are at {src / name}"):
            restore_folder(copy, key)


@pytest.mark.parametrize("name", ["yes/plain.wav", "yes/b.flac"])
def test_a_copy_of_a_single_file_is_known_under_a_new_name(tmp_path: Path, key: Key, name: str) -> None:
    source = write_dataset(tmp_path) / name
    old, new = ((tmp_path / stem).with_suffix(source.suffix) for stem in ("old", "new"))
    protect_folder(source, old, key)
    for ending in ("", SIDECAR, MANIFEST):
        old.with_name(old.name + ending).rename(new.with_name(new.name + ending))
    with untouched(tmp_path):
        assert verify_folder(new).protected == verify_folder(new, key).protected == 1
        assert verify_folder(new, key, source=source).protected == 1
        assert protect_folder(source, new, key).state == "already protected"
        with pytest.raises(SidecarError, match="is protected already"):
            protect_folder(new, None, key)
        new.with_name(new.name + SIDECAR).rename(tmp_path / "aside.poscuda")
        with pytest.raises(DatasetError, match="is protected already"):
            protect_folder(new, None, Key(bytes(32)))
        (tmp_path / "aside.poscuda").rename(new.with_name(new.name + SIDECAR))


@pytest.mark.parametrize("name", ["yes/plain.wav", "yes/a.flac"])
def test_a_single_file_copied_beside_itself_stays_as_it_is(tmp_path: Path, key: Key, name: str) -> None:
    src = write_dataset(tmp_path)
    clip = clips()[name]
    copy = (src / name).with_stem("copy")
    assert protect_folder(src / name, copy, key).state == "protected"
    assert (src / name).read_bytes() == clip.content
    assert read_samples(copy, clip.coding).tobytes() == wet(name, Recipe.paper())[0].tobytes()


def test_a_single_lossy_file_copied_into_a_folder_becomes_flac(tmp_path: Path, key: Key) -> None:
    audiofiles.lossy(tmp_path / "a.mp3", "MP3", "MPEG_LAYER_III")
    (tmp_path / "folder").mkdir()
    protect_folder(tmp_path / "a.mp3", tmp_path / "folder", key, lossy="flac")
    with open(tmp_path / "folder/a.flac", "rb") as file:
        assert probe(file).format == "FLAC"


def test_a_single_lossy_file_copied_under_a_name_in_flac(tmp_path: Path, key: Key) -> None:
    audiofiles.lossy(tmp_path / "a.mp3", "MP3", "MPEG_LAYER_III")
    protect_folder(tmp_path / "a.mp3", tmp_path / "b.flac", key, lossy="flac", labels_from={"a.mp3": 3})
    plain = read_samples(tmp_path / "a.mp3", "PCM_16")
    assert read_samples(tmp_path / "b.flac", "PCM_16").tobytes() == protected(plain, "PCM_16", 3, key)[0].tobytes()
    assert verify_folder(tmp_path / "b.flac", key, source=tmp_path / "a.mp3").protected == 1


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
def test_targets_of_a_single_file_that_are_refused(
    tmp_path: Path, key: Key, name: str, target: str, sentence: str
) -> None:
    src = write_dataset(tmp_path)
    write_tree(tmp_path, {"taken.wav": b"precious", "full/plain.wav": b"precious"})
    for dry_run in (True, False):
        with untouched(tmp_path), pytest.raises(DatasetError, match=re.escape(sentence)):
            protect_folder(src / name, tmp_path / target, key, dry_run=dry_run)


def test_a_single_file_onto_itself_is_refused(tmp_path: Path, key: Key) -> None:
    src = write_dataset(tmp_path)
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"plain\.wav"):
        protect_folder(src / "yes/plain.wav", src / "yes/plain.wav", key)


def test_a_single_file_that_is_no_audio_is_refused(tmp_path: Path, key: Key) -> None:
    write_tree(tmp_path, {"notes.txt": b"text"})
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"notes\.txt cannot be used"):
        protect_folder(tmp_path / "notes.txt", None, key)
