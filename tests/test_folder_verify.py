"""Verifying folders: with the key and the sidecar, by the manifest alone, and copies against their source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from audiofiles import noise, patches_of, untouched, wav, write_tree
from blake3 import blake3
from folders import both_ways, clips, harm, n_silent, small_dataset, write_dataset
from recipes import protect_folder

from poscuda_fast import DatasetError, Key, Recipe, SidecarError, restore_folder, verify_folder

believing = pytest.mark.parametrize("with_key", [True, False], ids=["sidecar", "manifest"])


@both_ways
def test_verify_finds_everything_protected(tmp_path: Path, key: Key, copying: bool) -> None:
    src = write_dataset(tmp_path)
    root = tmp_path / "dst" if copying else src
    protect_folder(src, root if copying else None, key)
    still = n_silent(Recipe.paper())
    assert still == 3
    with untouched(tmp_path):
        for given, state in ((None, "unknown"), (key, "complete")):
            found = verify_folder(root, given)
            assert (found.original, found.protected, found.unchanged) == (0, len(clips()) - still, still)
            assert (found.neither, found.missing, found.unprotected, found.state) == ((), (), (), state)
            assert found.ok


def test_verify_finds_everything_original_again(tmp_path: Path, key: Key) -> None:
    src = write_dataset(tmp_path)
    protect_folder(src, None, key)
    restore_folder(src, key)
    for given, state in ((None, "unknown"), (key, "undone")):
        found = verify_folder(src, given)
        assert (found.original, found.protected, found.unchanged) == (len(clips()) - 3, 0, 3)
        assert found.state == state
        assert found.ok


SEEN_BY_BOTH = [("no/0.wav", damage) for damage in ("inside", "half", "gone", "longer")]
SEEN_BY_BOTH += [("yes/3.flac", damage) for damage in ("outside", "inside", "half", "gone", "header")]


@believing
@pytest.mark.parametrize(("name", "damage"), SEEN_BY_BOTH)
def test_verify_names_what_was_harmed(tmp_path: Path, key: Key, name: str, damage: str, with_key: bool) -> None:
    src = tmp_path / "src"
    before = small_dataset(src)
    protect_folder(src, None, key)
    (tmp_path / f"src.poscuda{'.json' if with_key else ''}").unlink()
    frames = 700 if name == "no/0.wav" else 703
    harm(src / name, damage, patches_of(frames, name.split("/", maxsplit=1)[0], key), before[name])
    found = verify_folder(src, key if with_key else None)
    gone = damage == "gone" or (with_key and (name, damage) == ("no/0.wav", "longer"))  # not the file that it was
    assert found.missing == ((name,) if gone else ())
    assert found.neither == (() if gone else (name,))
    assert (found.protected, found.original, found.unprotected, found.ok) == (5, 0, (), False)
    assert name in str(found)


@both_ways
@believing
def test_verify_tells_of_files_that_no_run_knows(tmp_path: Path, key: Key, with_key: bool, copying: bool) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    root = tmp_path / "dst" if copying else src
    protect_folder(src, root if copying else None, key)
    write_tree(root, {"yes/new.wav": wav(noise(500)), "yes/new.txt": b"", "yes/.new.wav": b""})
    found = verify_folder(root, key if with_key else None)
    assert (found.unprotected, found.protected, found.ok) == (("yes/new.wav",), 6, False)
    assert "  left unprotected yes/new.wav" in str(found)


@both_ways
@believing
@pytest.mark.parametrize("name", ["no/0.wav", "yes/3.flac"])
def test_verify_does_not_call_a_mixture_whole(
    tmp_path: Path, key: Key, name: str, with_key: bool, copying: bool
) -> None:
    src = tmp_path / "src"
    before = small_dataset(src)
    root = tmp_path / "dst" if copying else src
    protect_folder(src, root if copying else None, key)
    (root / name).write_bytes(before[name])
    found = verify_folder(root, key if with_key else None)
    assert (found.original, found.protected, found.neither, found.ok) == (1, 5, (), False)


@both_ways
def test_without_a_key_the_manifest_alone_is_used(tmp_path: Path, key: Key, copying: bool) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    root = tmp_path / "dst" if copying else src
    protect_folder(src, root if copying else None, key)
    sidecar, manifest = (tmp_path / f"{root.name}.poscuda{suffix}" for suffix in ("", ".json"))
    kept = manifest.read_bytes()
    manifest.unlink()
    found = verify_folder(root, key)
    assert (found.protected, found.state, found.ok) == (6, "complete", True)
    with pytest.raises(DatasetError, match=rf"There is no manifest {manifest}; give the key, to verify with the side"):
        verify_folder(root)
    manifest.write_bytes(kept)
    sidecar.unlink()
    found = verify_folder(root)
    assert (found.protected, found.state, found.ok) == (6, "unknown", True)
    with pytest.raises(SidecarError, match=rf"The sidecar {sidecar} does not exist"):
        verify_folder(root, key)


def test_verify_of_a_folder_that_was_never_protected(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    with untouched(tmp_path):
        with pytest.raises(DatasetError, match="There is no manifest"):
            verify_folder(src)
        with pytest.raises(SidecarError, match=r"src\.poscuda does not exist"):
            verify_folder(src, key)


def test_verify_says_so_if_the_sidecar_it_was_given_is_not_there(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    protect_folder(src, None, key)
    with pytest.raises(SidecarError, match="gone does not exist"):
        verify_folder(src, key, sidecar=tmp_path / "gone")


@both_ways
def test_a_forged_manifest_does_not_deceive_verify_with_the_key(tmp_path: Path, key: Key, copying: bool) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    root = tmp_path / "dst" if copying else src
    protect_folder(src, root if copying else None, key)
    harm(root / "no/0.wav", "inside", patches_of(700, "no", key))
    path = tmp_path / f"{root.name}.poscuda.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["files"]["no/0.wav"]["blake3_after"] = blake3((root / "no/0.wav").read_bytes()).hexdigest()
    path.write_text(json.dumps(fields))
    assert verify_folder(root).ok
    assert verify_folder(root, key).neither == ("no/0.wav",)


def test_a_file_left_out_of_the_manifest_is_unprotected(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    protect_folder(src, None, key)
    path = tmp_path / "src.poscuda.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    del fields["files"]["no/0.wav"]
    path.write_text(json.dumps(fields))
    assert verify_folder(src).unprotected == ("no/0.wav",)
    assert verify_folder(src, key).ok


def test_a_copy_is_compared_with_its_source_marked_again(tmp_path: Path, key: Key) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    before = small_dataset(src)
    protect_folder(src, dst, key)
    src.rename(tmp_path / "moved")
    found = verify_folder(dst, key, source=tmp_path / "moved")
    assert (found.protected, found.ok) == (6, True)
    (tmp_path / "moved/no/0.wav").write_bytes(before["yes/1.wav"])
    with pytest.raises(DatasetError, match=r"1 files of .*moved are not those that the copy was made of"):
        verify_folder(dst, key, source=tmp_path / "moved")


def test_what_was_protected_in_place_has_no_source_to_compare_with(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    protect_folder(src, None, key)
    with pytest.raises(DatasetError, match="is no copy with a sidecar, so that there is no source"):
        verify_folder(src, key, source=tmp_path)
    with pytest.raises(ValueError, match="key"):
        verify_folder(src, source=tmp_path)
