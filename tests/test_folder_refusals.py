"""Keys, labels, recipes and sidecars that do not fit a folder, and data that would be marked twice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import audiofiles
import numpy as np
import pytest
from audiofiles import contents, noise, untouched, wav, write_tree
from folders import both_ways, small_dataset, small_is_protected
from recipes import protect_folder

from poscuda_fast import (
    DatasetError,
    Key,
    Recipe,
    SidecarError,
    disk,
    protect_memmap,
    restore_folder,
    verify_folder,
)


@pytest.mark.guards("I9")
@both_ways
def test_another_key_is_refused_by_every_verb(tmp_path: Path, key: Key, copying: bool) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    root = tmp_path / "dst" if copying else src
    protect_folder(src, root if copying else None, key)
    other = Key(bytes(32))
    sentence = rf"was made with the key of fingerprint {key.fingerprint}, and this one has {other.fingerprint}"
    for verb in (
        lambda: protect_folder(src, root if copying else None, other),
        lambda: restore_folder(root, other),
        lambda: verify_folder(root, other),
    ):
        with untouched(tmp_path), pytest.raises(SidecarError, match=sentence):
            verb()


@pytest.mark.guards("I9")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"recipe": Recipe.paper(blur=0.02)}, r"was made for another recipe\. To change that, restore first"),
        ({"labels_from": r"regex:(\d)"}, r"was made for other labels: no/0\.wav had 'no'\. To change that, restore"),
        ({"labels_from": r"regex:(\.)"}, r"was made for other labels: no/0\.wav had 'no'\. To change that, restore"),
    ],
    ids=["recipe", "more classes", "one class"],
)
def test_another_recipe_or_other_labels_are_refused_in_place(
    tmp_path: Path, key: Key, options: dict[str, Any], sentence: str
) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    protect_folder(src, None, key)
    with untouched(tmp_path), pytest.raises(SidecarError, match=sentence):
        protect_folder(src, None, key, **options)


@pytest.mark.guards("I9")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"recipe": Recipe.paper(blur=0.02)},
            r"was begun with format 1, .*blur 0\.01.*, and this call asks for format 1, .*blur 0\.02",
        ),
        ({"labels_from": r"regex:(\d)"}, r"no/0\.wav: it was copied with the label 'no', and now has '0'"),
    ],
    ids=["recipe", "labels"],
)
def test_another_recipe_or_other_labels_are_refused_in_a_copy(
    tmp_path: Path, key: Key, options: dict[str, Any], sentence: str
) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    protect_folder(src, tmp_path / "dst", key)
    with untouched(tmp_path), pytest.raises(SidecarError, match=sentence):
        protect_folder(src, tmp_path / "dst", key, **options)


def test_the_sidecar_may_lie_elsewhere(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    before = small_dataset(src)
    sidecar = tmp_path / "kept apart.db"
    protect_folder(src, None, key, sidecar=sidecar)
    assert {entry.name for entry in tmp_path.iterdir()} == {"src", "src.poscuda.json", "kept apart.db"}
    assert small_is_protected(src, key)
    assert protect_folder(src, None, key, sidecar=sidecar).state == "already protected"
    assert verify_folder(src, key, sidecar=sidecar).state == "complete"
    with pytest.raises(SidecarError, match=r"src\.poscuda does not exist: nothing can be restored by it.*give its"):
        restore_folder(src, key)
    restore_folder(src, key, sidecar=str(sidecar))
    assert contents(src, hidden=True) == before


def test_a_copy_may_have_its_sidecar_elsewhere(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    before = small_dataset(src)
    sidecar = tmp_path / "kept.db"
    protect_folder(src, tmp_path / "dst", key, sidecar=sidecar)
    assert set(contents(tmp_path / "dst", hidden=True)) == set(before)
    assert not (tmp_path / "dst.poscuda").exists()
    assert protect_folder(src, tmp_path / "dst", key, sidecar=sidecar).state == "already protected"
    assert verify_folder(tmp_path / "dst", key, sidecar=sidecar).protected == 6


def test_a_sidecar_may_be_named_by_a_relative_path(tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert protect_folder("src", None, key, sidecar="src.poscuda").state == "protected"
        assert restore_folder("src", key, sidecar="./src/../src.poscuda").state == "restored"


@both_ways
@pytest.mark.parametrize(
    ("sidecar", "sentence"),
    [
        ("src/inside", r"would be, or lie inside, .*/src;"),
        ("src/.poscuda", r"would be, or lie inside, .*/src;"),
        ("src", r"would be, or lie inside, .*/src;"),
        ("src.poscuda.json", r"would be the manifest of the same data"),
        ("nowhere/x", r"The folder of the sidecar .*nowhere/x does not exist"),
    ],
    ids=["inside", "hidden inside", "the data", "the manifest", "no folder"],
)
def test_a_sidecar_has_a_place_of_its_own(tmp_path: Path, key: Key, sidecar: str, sentence: str, copying: bool) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    for dry_run in (True, False):
        with untouched(tmp_path), pytest.raises(SidecarError, match=sentence):
            protect_folder(src, tmp_path / "dst" if copying else None, key, sidecar=tmp_path / sidecar, dry_run=dry_run)


@pytest.mark.parametrize("name", ["dst.poscuda", "dst.poscuda.json", "dst/mine"])
def test_nothing_that_lies_in_the_place_of_a_copy_is_overwritten(tmp_path: Path, key: Key, name: str) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    write_tree(tmp_path, {name: b"mine"})
    for dry_run in (True, False):
        with untouched(tmp_path), pytest.raises((DatasetError, SidecarError), match=name.removesuffix("/mine")):
            protect_folder(src, tmp_path / "dst", key, dry_run=dry_run)


def test_what_lies_in_the_place_of_a_manifest_must_be_one(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    write_tree(tmp_path, {"src.poscuda.json": b"mine"})
    for dry_run in (True, False):
        with untouched(tmp_path), pytest.raises(DatasetError, match=r"src\.poscuda\.json is damaged"):
            protect_folder(src, None, key, dry_run=dry_run)


def test_what_is_no_recipe_is_refused(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    with untouched(tmp_path), pytest.raises(TypeError, match=r"recipe is a dict; expected a poscuda_fast\.Recipe"):
        protect_folder(src, None, key, recipe={"patch": 240})


@both_ways
def test_what_a_manifest_calls_protected_is_not_protected_again(tmp_path: Path, key: Key, copying: bool) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    protect_folder(src, None, key)
    (tmp_path / "src.poscuda").rename(tmp_path / "moved")
    sentence = r"records a run with the key 847db78bd7fbd1a2; restore it first.*no/0\.wav is protected already"
    for dry_run in (True, False):
        with untouched(tmp_path), pytest.raises(DatasetError, match=re.compile(sentence, re.DOTALL)):
            protect_folder(src, tmp_path / "dst" if copying else None, key, dry_run=dry_run)


@pytest.mark.parametrize("kind", ["array", "folder"])
def test_the_sidecar_of_something_else_is_refused(tmp_path: Path, key: Key, kind: str) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    other = tmp_path / "other"
    if kind == "array":
        arr = np.memmap(other, np.int16, "w+", shape=(3, 400))
        arr[:] = noise(1200).reshape(3, 400)
        protect_memmap(arr, [0, 1, 2], key)
    else:
        write_tree(other, {"yes/a.wav": wav(noise(400))})
        protect_folder(other, None, key)
    sidecar = tmp_path / "other.poscuda"
    with untouched(tmp_path):
        with pytest.raises(SidecarError, match=r"was made for other data|1 files or clips are missing"):
            protect_folder(src, None, key, sidecar=sidecar)
        with pytest.raises(SidecarError, match=r"belongs to an array|1 files or clips are missing"):
            restore_folder(src, key, sidecar=sidecar)


def test_a_copy_is_not_protected_in_place_too(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    small_dataset(src)
    protect_folder(src, tmp_path / "dst", key)
    with untouched(tmp_path), pytest.raises((SidecarError, DatasetError), match=r"is a copy of .*src and is protected"):
        protect_folder(tmp_path / "dst", None, key)
    with untouched(tmp_path), pytest.raises((SidecarError, DatasetError), match="protected already"):
        protect_folder(tmp_path / "dst", tmp_path / "third", key)


# Parts and wholes

NESTED = [("src", "src/no"), ("src", "src/no/0.wav"), ("src/no", "src"), ("src/no/0.wav", "src"),
          ("src/no/0.wav", "src/no"), ("src/no", "src/no/4.flac")]  # fmt: skip


@both_ways
@pytest.mark.parametrize(("first", "second"), NESTED)
def test_what_is_protected_as_part_of_something_else_is_not_protected_again(
    tmp_path: Path, key: Key, first: str, second: str, copying: bool
) -> None:
    before = small_dataset(tmp_path / "src")
    protect_folder(tmp_path / first, None, key)
    dst = tmp_path / f"dst{Path(second).suffix}" if copying else None
    with untouched(tmp_path), pytest.raises((SidecarError, DatasetError), match=r"protect"):
        protect_folder(tmp_path / second, dst, key)
    restore_folder(tmp_path / first, key)
    assert protect_folder(tmp_path / second, dst, key).state == "protected"
    if not copying:
        restore_folder(tmp_path / second, key)
    after = contents(tmp_path / "src")
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("grown", [False, True])
@pytest.mark.parametrize("kind", ["FLAC that cannot be decoded", "NaN in format 1"])
def test_partial_leaves_out_what_headers_do_not_show(tmp_path: Path, key: Key, kind: str, grown: bool) -> None:
    src = tmp_path / "src"
    originals = small_dataset(src)
    recipe = Recipe.strong() if kind.startswith("FLAC") else Recipe.paper(patch=40, blur=0.3)
    if grown:
        protect_folder(src, None, key, recipe=recipe)
    bad = src / "no" / ("bad.flac" if kind.startswith("FLAC") else "bad.wav")
    if kind.startswith("FLAC"):
        audiofiles.encoded(bad, noise(20_000), "FLAC", "PCM_16")
        whole = bad.read_bytes()
        bad.write_bytes(whole[: len(whole) // 2] + bytes(1000) + whole[len(whole) // 2 + 1000 :])
    else:
        bad.write_bytes(wav(np.full((900, 1), np.nan, np.float32), "FLOAT"))
    before = contents(src)
    with untouched(tmp_path), pytest.raises(ValueError, match=r"no/bad\.\w+ (cannot be used|has a NaN)"):
        protect_folder(src, None, key, recipe=recipe)
    report = protect_folder(src, None, key, recipe=recipe, partial=True)
    assert report.state == "partly protected"
    assert [line.split()[0] for line in report.left_out] == [f"no/{bad.name}"]
    after = contents(src)
    assert after[f"no/{bad.name}"] == before[f"no/{bad.name}"]
    bad.unlink()
    assert protect_folder(src, None, key, recipe=recipe).state == "already protected"
    assert small_is_protected(src, key, recipe)
    restore_folder(src, key)
    assert contents(src) == originals


@both_ways
def test_a_folder_under_the_name_that_the_manifest_has_first_is_refused(
    tmp_path: Path, key: Key, copying: bool
) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst" if copying else None
    small_dataset(src)
    part = disk.part_of((dst or src).with_name(f"{(dst or src).name}.poscuda.json"))
    part.mkdir()
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"is a folder, and .* move the folder away"):
        protect_folder(src, dst, key)
    part.rmdir()
    assert protect_folder(src, dst, key).state == "protected"
