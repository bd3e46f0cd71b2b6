"""Copies of folders, single files and arrays: what they hold, who may read them, kills, errors, repeats and growth."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audiofiles import (
    chunk,
    contents,
    encoded,
    in_child,
    lossy,
    noise,
    protected,
    read_samples,
    untouched,
    wav,
    write_tree,
)
from awkward import awkward_arrays, random_samples
from blake3 import blake3

from poscuda_fast import Key, Recipe, disk
from poscuda_fast.arrays import copying as array_copying
from poscuda_fast.arrays.copying import copy_array
from poscuda_fast.arrays.memory import protect
from poscuda_fast.errors import BusyError, DatasetError, SidecarError, has_stopped
from poscuda_fast.files import copying, making
from poscuda_fast.files.copying import copy_folder, pairs, verify_copy
from poscuda_fast.files.paths import Paths
from poscuda_fast.results import Report, Verification
from poscuda_fast.undo import copies
from poscuda_fast.undo.journal import Journal, State
from poscuda_fast.undo.manifest import Manifest

STRONG, PAPER = Recipe.strong(), Recipe.paper()
RECIPES = pytest.mark.parametrize("recipe", [STRONG, PAPER], ids=["strong", "paper"])


def copy(
    src: Path, dst: Path, key: Key, *, sidecar: Path | None = None, recipe: Recipe = STRONG, **options: Any
) -> Report:
    return copy_folder(Paths.of(src, dst, sidecar), key, recipe, **options)


def verify(dst: Path, key: Key | None = None, source: Path | None = None) -> Verification:
    paths = Paths.of(dst, None, None)
    if key is None:
        return verify_copy(paths, None)
    with Journal(paths.sidecar, key) as journal:
        return verify_copy(paths, journal, source=source)


def state_of(dst: Path, key: Key) -> State:
    with Journal(Paths.of(dst, None, None).sidecar, key) as journal:
        return journal.state


def sample(seed: int, frames: int = 3000, channels: int = 1, coding: str = "PCM_16") -> np.ndarray:
    """A recording that is quiet enough for its mark."""
    found = noise(frames, channels, coding, seed)
    return (found // 16 if coding != "FLOAT" else found / 16).astype(found.dtype)


def small_tree(root: Path, n: int = 2) -> dict[str, bytes]:
    files = {f"{label}/{k}.wav": wav(sample(10 * (label == "no") + k)) for label in ("no", "yes") for k in range(n)}
    files |= {"readme.txt": b"read me", "yes/notes/more.txt": b""}
    write_tree(root, files)
    return files


def mode(path: Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


# What is in a copy.


@RECIPES
def test_a_copy_holds_the_marked_files_and_the_other_files_and_nothing_else(
    tmp_path: Path, key: Key, recipe: Recipe
) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    kinds = {
        "a/mono.wav": ("PCM_16", 1),
        "a/wide.wav": ("PCM_24", 2),
        "b/float.wav": ("FLOAT", 3),
        "b/mono24.wav": ("PCM_24", 1),
    }
    files = {}
    for k, (name, (coding, channels)) in enumerate(kinds.items()):
        files[name] = wav(
            sample(k, 4001 + k, channels, coding), coding, before=chunk(b"odd ", b"123"), after=chunk(b"LIST", b"x" * 7)
        )
    files |= {
        "b/empty.wav": wav(np.zeros((0, 1), np.int16)),
        "a/text.txt": b"plain",
        "b/large.bin": os.urandom(700_001),
    }
    write_tree(src, files)
    with untouched(src):
        report = copy(src, dst, key, recipe=recipe)
    assert (report.state, report.clips, report.classes) == ("protected", 5, 2)
    assert report.frames_changed == (sum(4001 + k for k in range(4)) if recipe is STRONG else 4 * 240)
    assert report.notes[-1] == f"{dst} may be published; {src} is its undo: keep it"
    found = contents(dst, hidden=True)
    assert set(found) == set(files)
    for name in ("a/text.txt", "b/large.bin", "b/empty.wav"):
        assert found[name] == files[name]
    for name, (coding, channels) in kinds.items():
        dry = read_samples(src / name, coding)
        wet, _ = protected(dry, coding, name[0], key, recipe)
        assert read_samples(dst / name, coding).tobytes() == wet.tobytes()
        begin = files[name].index(b"data") + 8
        size = dry.size * {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}[coding]
        assert found[name][:begin] == files[name][:begin]
        assert found[name][begin + size :] == files[name][begin + size :]
        del channels
    manifest = Manifest.read(tmp_path / "dst.poscuda.json")
    assert list(manifest.files) == sorted({*kinds, "b/empty.wav"})
    for name, entry in manifest.files.items():
        assert entry["blake3_before"] == blake3(files[name]).hexdigest()
        assert entry["blake3_after"] == blake3(found[name]).hexdigest()
        assert (entry["label"], entry["bytes_before"]) == (name[0], len(files[name]))
    assert {path.name for path in tmp_path.iterdir()} == {"src", "dst", "dst.poscuda", "dst.poscuda.json"}
    assert verify(dst).ok
    assert verify(dst, key).ok
    assert verify(dst, key, src).ok


@RECIPES
def test_a_file_of_many_pieces_is_marked_as_in_one(
    tmp_path: Path, key: Key, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    src = tmp_path / "src"
    write_tree(src, {"a/long.wav": wav(sample(1, 30_011, 2, "PCM_24"), "PCM_24"), "b/short.wav": wav(sample(2, 100))})
    every = Recipe.paper(every=400) if recipe is PAPER else STRONG
    whole = copy(src, tmp_path / "whole", key, recipe=every)
    monkeypatch.setattr(making, "PIECE_BYTES", 1000)
    parts = copy(src, tmp_path / "parts", key, recipe=every)
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts")
    assert (whole.frames_changed, whole.patches, whole.saturated_samples) == (
        parts.frames_changed, parts.patches, parts.saturated_samples
    )  # fmt: skip
    assert verify(tmp_path / "parts", key, src).ok


@RECIPES
def test_encoded_and_lossy_files_are_encoded_again(tmp_path: Path, key: Key, recipe: Recipe) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    (src / "a").mkdir(parents=True)
    encoded(src / "a/f.flac", sample(1, coding="PCM_24"), "FLAC", "PCM_24", title="a title")
    encoded(src / "a/g.aiff", sample(2, channels=2), "AIFF", "PCM_16")
    lossy(src / "a/h.ogg", "OGG", "VORBIS")
    with pytest.raises(DatasetError, match="lossy"):
        copy(src, dst, key, recipe=recipe)
    with untouched(src):
        report = copy(src, dst, key, recipe=recipe, lossy="flac")
    assert report.clips == 3
    assert set(contents(dst, hidden=True)) == {"a/f.flac", "a/g.aiff", "a/h.flac"}
    for name, coding in {"a/f.flac": "PCM_24", "a/g.aiff": "PCM_16"}.items():
        wet, _ = protected(read_samples(src / name, coding), coding, "a", key, recipe)
        assert read_samples(dst / name, coding).tobytes() == wet.tobytes()
    wet, _ = protected(read_samples(src / "a/h.ogg", "PCM_16"), "PCM_16", "a", key, recipe)
    assert read_samples(dst / "a/h.flac", "PCM_16").tobytes() == wet.tobytes()
    assert verify(dst, key, src).ok
    assert copy(src, dst, key, recipe=recipe, lossy="flac").state == "already protected"
    with Journal(tmp_path / "dst.poscuda", key) as journal:
        found = {pair.name: pair for pair in pairs(Paths.of(dst, None, None), journal)}
    assert found["a/f.flac"].original == (src / "a/f.flac").read_bytes()
    assert found["a/h.flac"].now == (dst / "a/h.flac").read_bytes()
    assert found["a/h.flac"].original[:4] == b"fLaC"


def test_folders_on_the_way_are_made_and_files_are_counted_one_by_one(tmp_path: Path, key: Key) -> None:
    small_tree(tmp_path / "src")
    seen: list[tuple[int, int]] = []
    copy(tmp_path / "src", tmp_path / "made/on/the/way", key, progress=lambda *n: seen.append(n))
    assert seen == [(n, 4) for n in range(1, 5)]
    assert verify(tmp_path / "made/on/the/way", key).ok


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    small_tree(src)
    encoded(src / "no/f.flac", sample(1), "FLAC", "PCM_16")
    with untouched(tmp_path):
        dry = copy(src, tmp_path / "dst", key, dry_run=True)
    wet = copy(src, tmp_path / "dst", key)
    assert dry.state == "untouched"
    assert (dry.clips, dry.classes, dry.frames_changed) == (wet.clips, wet.classes, wet.frames_changed)


def test_one_file_is_copied_beside_its_record(tmp_path: Path, key: Key) -> None:
    write_tree(tmp_path, {"one.wav": wav(sample(1)), "there/keep.txt": b"kept"})
    copy(tmp_path / "one.wav", tmp_path / "two.wav", key)
    copy(tmp_path / "one.wav", tmp_path / "there", key, labels_from={"one.wav": "yes"})
    assert set(contents(tmp_path, hidden=True)) == {
        "one.wav", "two.wav", "two.wav.poscuda", "two.wav.poscuda.json",
        "there/keep.txt", "there/one.wav", "there/one.wav.poscuda", "there/one.wav.poscuda.json",
    }  # fmt: skip
    assert copy(tmp_path / "one.wav", tmp_path / "two.wav", key).state == "already protected"
    assert verify(tmp_path / "two.wav", key, tmp_path / "one.wav").ok
    with Journal(tmp_path / "two.wav.poscuda", key) as journal:
        (pair,) = pairs(Paths.of(tmp_path / "two.wav", None, None), journal)
    assert (pair.label, pair.original) == (tmp_path.name, (tmp_path / "one.wav").read_bytes())
    with pytest.raises(DatasetError, match=r"should end in \.wav"):
        copy(tmp_path / "one.wav", tmp_path / "two.flac", key)


@pytest.mark.real
def test_real_speech_is_copied(tmp_path: Path, key: Key, fsdd: Path) -> None:
    report = copy(fsdd, tmp_path / "dst", key, labels_from=r"regex:^(\d)_")
    assert report.clips == len(list(fsdd.iterdir()))
    assert verify(tmp_path / "dst", key, fsdd).protected == report.clips
    assert copy(fsdd, tmp_path / "dst", key, labels_from=r"regex:^(\d)_").state == "already protected"


def test_the_sidecar_keeps_no_samples_and_shows_nothing(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    write_tree(src, {"secret-label/0.wav": wav(sample(1, 100_000)), "b/1.wav": wav(sample(2, 100_000))})
    copy(src, tmp_path / "dst", key)
    sealed = (tmp_path / "dst.poscuda").read_bytes()
    assert len(sealed) < 4000
    assert b"secret" not in sealed
    assert b"0.wav" not in sealed
    with Journal(tmp_path / "dst.poscuda", key) as journal:
        assert copies.is_copy(journal)
        assert copies.source_of(journal) == src
        with pytest.raises(DatasetError, match=f"your originals are at {src}"):
            copies.refuse_restore(journal, tmp_path / "dst")


# Who may read a copy.


@pytest.mark.guards("I14")
def test_a_copy_is_read_by_those_who_read_its_source(tmp_path: Path, key: Key) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    small_tree(src)
    encoded(src / "no/f.flac", sample(1), "FLAC", "PCM_16")
    modes = {"no/0.wav": 0o600, "no/1.wav": 0o444, "yes/0.wav": 0o640, "no/f.flac": 0o600, "readme.txt": 0o755}
    for name, bits in modes.items():
        (src / name).chmod(bits)
        os.utime(src / name, ns=(10**18 + 1, 10**18 + 3))
    folders = {"": 0o700, "no": 0o750, "yes": 0o500, "yes/notes": 0o755}
    for name, bits in reversed(folders.items()):
        (src / name).chmod(bits)
    before = os.umask(0)
    try:
        copy(src, dst, key)
    finally:
        os.umask(before)
    for name, bits in modes.items():
        assert mode(dst / name) == bits | 0o200 | (0o600 & bits), name
        assert os.stat(dst / name).st_mtime_ns == 10**18 + 3
    assert {name: mode(dst / name) for name in folders} == {"": 0o700, "no": 0o750, "yes": 0o700, "yes/notes": 0o755}
    assert mode(tmp_path / "dst.poscuda") == 0o600
    assert mode(tmp_path / "dst.poscuda.json") == 0o600
    (src / "yes").chmod(0o755)
    src.chmod(0o755)
    for name, bits in (("private files", 0o600), ("open", 0o644)):
        copy(src, tmp_path / name, key)
        assert mode(tmp_path / f"{name}.poscuda") == 0o600
        assert mode(tmp_path / f"{name}.poscuda.json") == bits
        for one in modes:
            (src / one).chmod(0o644)


def test_extended_attributes_are_kept(tmp_path: Path, key: Key) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    small_tree(src)
    try:
        os.setxattr(src / "no/0.wav", "user.source", b"field recorder 7")
        os.setxattr(src / "no", "user.source", b"a folder")
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")
    copy(src, dst, key)
    assert os.getxattr(dst / "no/0.wav", "user.source") == b"field recorder 7"
    assert os.getxattr(dst / "no", "user.source") == b"a folder"


ALLOWED, DENIED = b"\x04\x00", b"\x00\x00"


def access_list(user: int, allowed: bytes) -> bytes:
    """A POSIX access list that gives one more user these rights: linux/posix_acl_xattr.h."""
    nobody = b"\xff\xff\xff\xff"
    entries = [(1, b"\x06\x00", nobody), (2, allowed, user.to_bytes(4, "little")), (4, DENIED, nobody)]
    entries += [(16, ALLOWED, nobody), (32, DENIED, nobody)]
    return b"\x02\x00\x00\x00" + b"".join(tag.to_bytes(2, "little") + rights + who for tag, rights, who in entries)


def test_access_lists_are_kept_and_none_is_inherited(tmp_path: Path, key: Key) -> None:
    src, dst = tmp_path / "src", tmp_path / "folder/dst"
    small_tree(src)
    dst.parent.mkdir()
    (src / "no/1.wav").chmod(0o640)
    try:
        os.setxattr(src / "no/0.wav", "system.posix_acl_access", access_list(1000, ALLOWED))
        os.setxattr(dst.parent, "system.posix_acl_default", access_list(1001, ALLOWED))
    except OSError as error:
        pytest.skip(f"no access lists here: {error}")
    copy(src, dst, key)
    assert os.getxattr(dst / "no/0.wav", "system.posix_acl_access") == access_list(1000, ALLOWED)
    for path in (dst, dst / "no", dst / "no/1.wav"):
        assert not {"system.posix_acl_access", "system.posix_acl_default"} & set(os.listxattr(path))
    assert mode(dst / "no/1.wav") == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_owners_are_kept_where_that_is_permitted(tmp_path: Path, key: Key) -> None:
    src = tmp_path / "src"
    small_tree(src)
    os.chown(src / "no/0.wav", 12345, 23456)
    (src / "no/0.wav").chmod(0o640)
    copy(src, tmp_path / "dst", key)
    status = os.stat(tmp_path / "dst/no/0.wav")
    assert (status.st_uid, status.st_gid, mode(tmp_path / "dst/no/0.wav")) == (12345, 23456, 0o640)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_who_cannot_keep_a_group_gives_nothing_to_another_one(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "no")

    src = tmp_path / "src"
    small_tree(src)
    for name, bits in {"no/0.wav": 0o640, "no/1.wav": 0o644}.items():
        os.chown(src / name, 12345, 23456)
        (src / name).chmod(bits)
    monkeypatch.setattr(os, "fchown", refuse)
    report = copy(src, tmp_path / "dst", key)
    assert mode(tmp_path / "dst/no/0.wav") == 0o600
    assert mode(tmp_path / "dst/no/1.wav") == 0o644
    assert "2 files or folders did not keep their group" in report.notes


def test_a_folder_that_was_there_and_is_open_to_more_people_is_told(tmp_path: Path, key: Key) -> None:
    small_tree(tmp_path / "src")
    (tmp_path / "src").chmod(0o700)
    (tmp_path / "dst").mkdir()
    (tmp_path / "dst").chmod(0o755)
    assert any("more people may look into it" in note for note in copy(tmp_path / "src", tmp_path / "dst", key).notes)


# What is refused, with nothing written.


def refusals(src: Path, dst: Path, key: Key) -> Iterator[tuple[str, Callable[[], object], type[Exception], str]]:
    """(name, call, error, message) of calls that must be refused."""
    beside = dst.parent
    write_tree(beside, {"full/a.txt": b"x", "file.poscuda": b"no sidecar", "taken.poscuda.json": b"{}"})

    def with_sidecar(path: Path) -> Callable[[], object]:
        return lambda: copy(src, dst, key, sidecar=path)

    yield "manifest", with_sidecar(beside / "dst.poscuda.json"), SidecarError, "would be the manifest"
    yield "manifest of the source", with_sidecar(beside / "src.poscuda.json"), SidecarError, "would be the manifest"
    yield "sidecar of the source", with_sidecar(beside / "src.poscuda"), SidecarError, "is the name of the sidecar of"
    yield "the copy", with_sidecar(dst), SidecarError, "would be, or lie inside"
    yield "in the copy", with_sidecar(dst / "no/x"), SidecarError, "does not exist"
    yield "in the source", with_sidecar(src / "no/x"), SidecarError, "would be, or lie inside"
    yield "a stranger's file", with_sidecar(beside / "file.poscuda"), SidecarError, "is not a sidecar"
    yield "a file of the source", with_sidecar(src / "no/0.wav"), SidecarError, "would be, or lie inside"
    yield "not empty", lambda: copy(src, beside / "full", key), DatasetError, "nothing is ever overwritten"
    yield "manifest there", lambda: copy(src, beside / "taken", key), DatasetError, "nothing is ever overwritten"
    yield "inside", lambda: copy(src, src / "no/dst", key), DatasetError, "lies inside the other"
    yield "around", lambda: copy(src / "no", src, key), DatasetError, "lies inside the other"
    yield "itself", lambda: copy(src, src, key), DatasetError, "itself"
    yield "in a file", lambda: copy(src, beside / "full/a.txt/dst", key), DatasetError, "is not a folder"
    yield "long", lambda: copy(src, beside / ("x" * 230), key), DatasetError, "a name there may have"


def test_what_would_fail_later_is_refused_first(tmp_path: Path, key: Key) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    small_tree(src)
    for name, call, error, message in refusals(src, dst, key):
        with untouched(tmp_path), pytest.raises(error, match=message) as caught:
            call()
        assert not has_stopped(caught.value), name


def test_sources_that_cannot_be_copied_are_refused(tmp_path: Path, key: Key) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    files = small_tree(src)
    key.save(src / "my.key")
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"my\.key holds a key"):
        copy(src, dst, key)
    (src / "my.key").unlink()
    (src / "no/bad.wav").write_bytes(b"RIFF")
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"bad\.wav"):
        copy(src, dst, key)
    (src / "no/bad.wav").unlink()
    (src / "no/slow.wav").write_bytes(wav(sample(1), rate=100))
    with untouched(tmp_path), pytest.raises(DatasetError, match="100 Hz"):
        copy(src, dst, key)
    (src / "no/slow.wav").unlink()
    encoded(src / "no/cut.flac", sample(1, 9000), "FLAC", "PCM_16")
    whole = (src / "no/cut.flac").read_bytes()
    (src / "no/cut.flac").write_bytes(whole[: len(whole) // 2])
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"cut\.flac"):
        copy(src, dst, key)
    report = copy(src, dst, key, partial=True)
    assert set(contents(dst, hidden=True)) == set(files)
    assert len(report.left_out) == 1
    assert "no/cut.flac cannot be used" in report.left_out[0]
    (src / "no/cut.flac").write_bytes(whole)
    assert copy(src, dst, key).left_out == ()
    assert set(contents(dst)) == {*files, "no/cut.flac"}


def test_rates_that_flac_cannot_be_written_with_are_refused(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src/a").mkdir(parents=True)
    encoded(tmp_path / "src/a/f.flac", sample(1), "FLAC", "PCM_16")
    odd = copying.encoded.Encoding("FLAC", "PCM_16", 3000, 1, 65537)
    monkeypatch.setattr(copying.encoded, "probe", lambda _: odd)
    with untouched(tmp_path), pytest.raises(DatasetError, match="65,537 Hz"):
        copy(tmp_path / "src", tmp_path / "dst", key)


def test_names_of_any_length_are_copied(tmp_path: Path, key: Key) -> None:
    names = [f"a/{'x' * (n - 4)}.wav" for n in (241, 242, 255)] + [f"a/{'日' * 83}.wav"]
    write_tree(tmp_path / "src", {name: wav(sample(k)) for k, name in enumerate(names)})
    copy(tmp_path / "src", tmp_path / "dst", key)
    assert set(contents(tmp_path / "dst", hidden=True)) == set(names)


def test_what_is_protected_already_is_not_copied(tmp_path: Path, key: Key) -> None:
    small_tree(tmp_path / "src")
    copy(tmp_path / "src", tmp_path / "dst", key)
    with pytest.raises(SidecarError, match="marked twice"):
        copy(tmp_path / "dst", tmp_path / "again", key)
    with pytest.raises(SidecarError, match="marked twice"):
        copy(tmp_path / "dst/no", tmp_path / "again", key)
    with pytest.raises(SidecarError, match="marked twice"):
        copy(tmp_path / "dst/no/0.wav", tmp_path / "again.wav", key)
    (tmp_path / "dst.poscuda").unlink()
    with pytest.raises(DatasetError, match="is protected already"):
        copy(tmp_path / "dst", tmp_path / "again", key)
    small_tree(tmp_path / "other")
    copy(tmp_path / "other", tmp_path / "dst2", key)
    with pytest.raises(SidecarError, match="made with the key"):
        copy(tmp_path / "other", tmp_path / "dst2", Key.generate())


# Repeating, going on, growing.


def test_a_second_call_changes_nothing(tmp_path: Path, key: Key) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    small_tree(src)
    first = copy(src, dst, key)
    with untouched(tmp_path):
        again = copy(src, dst, key)
    assert again.state == "already protected"
    assert (again.clips, again.frames_changed) == (first.clips, first.frames_changed)
    with untouched(tmp_path), pytest.raises(SidecarError, match="was begun with"):
        copy(src, dst, key, recipe=Recipe.strong(2))
    with untouched(tmp_path), pytest.raises(SidecarError, match="was begun with"):
        copy(src, dst, key, snr=20.0)


def test_a_strength_that_an_snr_set_is_kept(tmp_path: Path, key: Key) -> None:
    small_tree(tmp_path / "src")
    first = copy(tmp_path / "src", tmp_path / "dst", key, snr=30.0)
    assert first.recipe["strength"] != 1
    write_tree(tmp_path / "src", {"yes/new.wav": wav(sample(7) * 3)})
    assert copy(tmp_path / "src", tmp_path / "dst", key, snr=30.0).recipe == first.recipe
    assert verify(tmp_path / "dst", key, tmp_path / "src").ok


def test_new_files_are_added_alone(tmp_path: Path, key: Key) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    small_tree(src)
    first = copy(src, dst, key)
    before = {path: os.stat(path).st_ino for path in dst.rglob("*.wav")}
    write_tree(src, {"yes/new.wav": wav(sample(5)), "maybe/new.wav": wav(sample(6), rate=8000), "more.txt": b"more"})
    with untouched(tmp_path):
        assert copy(src, dst, key, dry_run=True).state == "untouched"
    grown = copy(src, dst, key)
    assert (grown.state, grown.clips, grown.classes) == ("protected", 6, 3)
    assert grown.frames_changed == first.frames_changed + 6000
    assert {path: os.stat(path).st_ino for path in before} == before
    copy(src, tmp_path / "whole", key)
    assert contents(dst) == contents(tmp_path / "whole")
    assert verify(dst, key, src).ok
    assert len(Manifest.read(tmp_path / "dst.poscuda.json").files) == 6
    with untouched(tmp_path):
        assert copy(src, dst, key).state == "already protected"


def test_missing_outputs_are_made_again_and_changed_ones_are_refused(tmp_path: Path, key: Key) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    small_tree(src)
    first = copy(src, dst, key)
    whole = contents(dst)
    (dst / "no/0.wav").unlink()
    (dst / "readme.txt").unlink()
    assert verify(dst, key).missing == ("no/0.wav", "readme.txt")
    again = copy(src, dst, key)
    assert (again.state, again.frames_changed) == ("protected", first.frames_changed)
    assert contents(dst) == whole
    (dst / "no/0.wav").write_bytes(b"other")
    with untouched(tmp_path), pytest.raises(SidecarError, match=r"no/0\.wav: its copy no/0\.wav was changed"):
        copy(src, dst, key)
    assert verify(dst, key).neither == ("no/0.wav",)
    (src / "yes/0.wav").write_bytes(wav(sample(99)))
    (src / "yes/1.wav").unlink()
    with untouched(tmp_path), pytest.raises(SidecarError, match="3 files are not as"):
        copy(src, dst, key)
    write_tree(src, {"yes/new.wav": wav(sample(5))})
    report = copy(src, dst, key, partial=True)
    assert [line.partition(":")[0] for line in report.left_out] == ["no/0.wav", "yes/0.wav", "yes/1.wav"]
    assert (dst / "yes/new.wav").exists()
    assert (dst / "no/0.wav").read_bytes() == b"other"


def test_labels_cannot_change_afterwards(tmp_path: Path, key: Key) -> None:
    write_tree(tmp_path / "src", {"a.wav": wav(sample(1)), "b.wav": wav(sample(2))})
    copy(tmp_path / "src", tmp_path / "dst", key, labels_from={"a.wav": "1", "b.wav": "2"})
    for others in ({"a.wav": "2", "b.wav": "2"}, {"a.wav": 1, "b.wav": 2}):
        with untouched(tmp_path), pytest.raises(SidecarError, match="copied with the label '1', and now has"):
            copy(tmp_path / "src", tmp_path / "dst", key, labels_from=others)


def test_a_source_and_a_copy_that_moved_are_known_by_their_digests(tmp_path: Path, key: Key) -> None:
    small_tree(tmp_path / "src")
    copy(tmp_path / "src", tmp_path / "dst", key)
    for old, new in {"src": "src2", "dst": "dst2", "dst.poscuda": "dst2.poscuda"}.items():
        (tmp_path / old).rename(tmp_path / new)
    (tmp_path / "dst.poscuda.json").rename(tmp_path / "dst2.poscuda.json")
    assert verify(tmp_path / "dst2", key, tmp_path / "src2").ok
    copy(tmp_path / "src2", tmp_path / "dst2", key)
    with Journal(tmp_path / "dst2.poscuda", key) as journal:
        assert copies.source_of(journal) == tmp_path / "src2"
        assert len(list(pairs(Paths.of(tmp_path / "dst2", None, None), journal))) == 4


def test_pairs_refuse_files_that_are_not_the_recorded_ones(tmp_path: Path, key: Key) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    small_tree(src)
    copy(src, dst, key)
    paths = Paths.of(dst, None, None)
    with Journal(paths.sidecar, key) as journal:
        assert [pair.name for pair in pairs(paths, journal, ["yes/0.wav"])] == ["yes/0.wav"]
        with pytest.raises(DatasetError, match="is not a file of the copy"):
            list(pairs(paths, journal, ["x.wav"]))
        (src / "yes/0.wav").write_bytes(wav(sample(77)))
        assert [pair.name for pair in pairs(paths, journal, ["yes/1.wav"])] == ["yes/1.wav"]
        with pytest.raises(DatasetError, match="is not the source of the copy any more"):
            list(pairs(paths, journal))
        (dst / "yes/1.wav").unlink()
        with pytest.raises(DatasetError, match="cannot be read"):
            list(pairs(paths, journal, ["yes/1.wav"]))


def test_verify_finds_what_is_wrong(tmp_path: Path, key: Key) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    small_tree(src)
    copy(src, dst, key)
    (dst / "no/0.wav").write_bytes((src / "no/0.wav").read_bytes())
    (dst / "no/1.wav").write_bytes(b"x")
    (dst / "new.wav").write_bytes(b"x")
    (dst / "readme.txt").write_bytes(b"x")
    for found in (verify(dst, key), verify(dst)):
        assert (found.original, found.protected, found.ok) == (1, 2, False)
        assert found.unprotected == ("new.wav",)
    assert verify(dst, key).neither == ("no/1.wav", "readme.txt")
    with pytest.raises(DatasetError, match="are not those that the copy was made of"):
        verify(dst, key, dst)


# Kills and failing calls.

CALLS = ("open", "write", "mkdir", "fchmod", "fsync", "replace", "rename", "link", "unlink", "utime")


def interfere(monkeypatch: pytest.MonkeyPatch, moment: int, act: Callable[[str], object]) -> Callable[[], int]:
    """`act` before call number `moment` that changes a file, or opens one; returns how many calls there were."""
    steps = itertools.count()
    n = [0]

    def intercepted(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            n[0] = next(steps) + 1
            if n[0] - 1 == moment:
                act(name)
            return real(*arguments, **named)

        return step

    for name in CALLS:
        monkeypatch.setattr(os, name, intercepted(getattr(os, name), name))
    for name in ("give_name", "sync_system"):
        monkeypatch.setattr(disk, name, intercepted(getattr(disk, name), name))
    return lambda: n[0]


def kill(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(name: str) -> None:
    raise OSError(errno.ENOSPC, f"no room for {name}")


def assert_no_original(dst: Path, originals: dict[str, bytes]) -> None:
    """No sound of a source lies in the copy, or in a part of it."""
    for path in [path for path in dst.parent.rglob("*") if path.is_file() and "src" not in path.parts]:
        content = path.read_bytes()
        for name, original in originals.items():
            if name.endswith(".wav"):
                assert original[200:300] not in content, (path, name)


def test_a_copy_that_is_killed_at_any_moment_is_finished_by_the_same_call(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    src = tmp_path / "src"
    files = small_tree(src)
    write_tree(src, {"no/long.wav": wav(sample(50, 40_000))})
    encoded(src / "yes/f.flac", sample(51), "FLAC", "PCM_16")
    (src / "no").chmod(0o750)
    monkeypatch.setattr(making, "PIECE_BYTES", 40_000)
    monkeypatch.setattr(copying, "FILES_PER_RECORD", 2)
    (tmp_path / "whole").mkdir()
    copy(src, tmp_path / "whole/dst", key)
    wanted = contents(tmp_path / "whole/dst")
    for moment in itertools.count():
        folder = tmp_path / f"run{moment}"
        folder.mkdir()
        dst = folder / "dst"

        def work(moment: int = moment, dst: Path = dst) -> None:
            with pytest.MonkeyPatch.context() as patch:
                interfere(patch, moment, kill)
                copy(src, dst, key, threads=1)

        code = in_child(work)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert_no_original(dst, files)
        assert (src / "yes/f.flac").read_bytes() not in contents(folder, hidden=True).values()
        begun = (folder / "dst.poscuda").exists()
        assert begun or not dst.exists()
        for path in dst.rglob(f".*{disk.PART_SUFFIX}"):
            assert mode(path) == 0o600 or path.read_bytes() in wanted.values()
        for name, content in contents(dst).items():
            assert content == wanted[name]
            assert mode(dst / name) == mode(src / name) | 0o600
        if begun and dst.exists():
            assert not verify(dst, key).ok or state_of(dst, key) is State.COMPLETE
        report = copy(src, dst, key)
        assert report.frames_changed == 5 * 3000 + 40_000
        assert contents(dst, hidden=True) == wanted
        assert mode(dst / "no") == 0o750
        assert verify(dst, key).ok
        assert copy(src, dst, key).state == "already protected"
        assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {
            "dst", "dst.poscuda", "dst.poscuda.json"
        }  # fmt: skip
    assert moment > 60


def test_a_call_that_fails_at_any_moment_is_told_apart_from_a_refusal(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    src = tmp_path / "src"
    small_tree(src, 1)
    monkeypatch.setattr(copying, "FILES_PER_RECORD", 2)
    for moment in itertools.count():
        folder = tmp_path / f"run{moment}"
        folder.mkdir()
        dst = folder / "dst"
        with pytest.MonkeyPatch.context() as patch:
            count = interfere(patch, moment, fail)
            error: BaseException | None = None
            try:
                copy(src, dst, key, threads=1)
            except (OSError, ValueError) as found:
                error = found
        if moment >= count():
            break
        begun = os.path.lexists(folder / "dst.poscuda")
        if error is not None:
            assert begun or not dst.exists()
            assert has_stopped(error) or not begun or state_of(dst, key) is State.APPLYING
        assert copy(src, dst, key).state in ("protected", "already protected")
        assert verify(dst, key).ok
        assert not [name for name in contents(dst, hidden=True) if name.startswith(".")]
    assert moment > 40


def test_what_a_killed_call_left_unrecorded_is_judged(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    small_tree(src)
    copy(src, tmp_path / "whole", key)
    wanted = contents(tmp_path / "whole")

    def killed(_: Any, *__: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(copies, "append", killed)
        with pytest.raises(MemoryError) as caught:
            copy(src, dst, key)
    assert has_stopped(caught.value)
    assert contents(dst) == wanted
    torn = bytearray(wanted["yes/0.wav"])
    torn[4096:] = bytes(len(torn) - 4096)
    (dst / "yes/0.wav").write_bytes(torn)  # as a power cut leaves it
    (dst / "yes/1.wav").write_bytes(b"")
    (dst / "no/0.wav").write_bytes(b"another file")
    with pytest.raises(SidecarError, match=r"1 files in .* are not what this run would write there") as stopped:
        copy(src, dst, key)
    assert has_stopped(stopped.value)
    assert (dst / "no/0.wav").read_bytes() == b"another file"
    assert not verify(dst, key).ok
    left = copy(src, dst, key, partial=True)
    assert left.left_out == ("no/0.wav: another file has its name in the copy",)
    assert (left.state, left.clips) == ("protected", 3)
    (dst / "no/0.wav").unlink()
    assert copy(src, dst, key).clips == 4
    assert contents(dst, hidden=True) == wanted


def test_a_source_that_changes_meanwhile_stops_the_run(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    files = small_tree(src)
    begin = Journal.begin

    def change(journal: Journal, *arguments: Any) -> None:
        begin(journal, *arguments)
        (src / "no/1.wav").write_bytes(wav(sample(70, 3001)))

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "begin", change)
        with pytest.raises(DatasetError, match="was replaced or changed") as caught:
            copy(src, dst, key)
    assert has_stopped(caught.value)
    (src / "no/1.wav").write_bytes(files["no/1.wav"])
    assert copy(src, dst, key).state == "protected"
    assert verify(dst, key, src).ok


def test_outputs_are_recorded_only_after_they_are_synced(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_tree(tmp_path / "src")
    monkeypatch.setattr(copying, "FILES_PER_RECORD", 2)
    monkeypatch.setattr(making, "FILES_AT_ONCE", 1)
    seen: list[str] = []

    def noted(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            seen.append(name)
            return real(*arguments, **named)

        return call

    for module, name in ((disk, "give_name"), (disk, "sync_system"), (copies, "append"), (Journal, "move")):
        monkeypatch.setattr(module, name, noted(getattr(module, name), name))
    copy(tmp_path / "src", tmp_path / "dst", key, threads=1)
    sidecar = ["give_name"]
    assert seen == sidecar + ["give_name", "give_name", "sync_system", "append"] * 3 + ["move"]


def test_two_calls_do_not_meet(tmp_path: Path, key: Key) -> None:
    small_tree(tmp_path / "src")
    copy(tmp_path / "src", tmp_path / "dst", key)
    with Journal(tmp_path / "dst.poscuda", key), pytest.raises(BusyError):
        copy(tmp_path / "src", tmp_path / "dst", key)


def test_links_that_appear_in_a_copy_are_not_followed(tmp_path: Path, key: Key) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    small_tree(src)
    copy(src, dst, key)
    (tmp_path / "away").mkdir()
    for path in (dst / "no").iterdir():
        path.unlink()
    (dst / "no").rmdir()
    (dst / "no").symlink_to(tmp_path / "away")
    with pytest.raises(OSError, match="no"):
        copy(src, dst, key)
    assert not list((tmp_path / "away").iterdir())


def test_the_command_exits_with_3_once_a_run_has_begun(tmp_path: Path, key: Key) -> None:
    key.save(tmp_path / "key")
    code = f"""
import sys
import poscuda_fast
from poscuda_fast.errors import DatasetError, stopping
def protect_folder(*_, **__):
    with stopping():
        raise DatasetError("changed meanwhile")
poscuda_fast.protect_folder = protect_folder
from poscuda_fast.cli import main
sys.argv = ["poscuda", "protect", {str(tmp_path)!r}, "x", "--key", {str(tmp_path / "key")!r}]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if "ImportError" in done.stderr:
        pytest.skip("the command line cannot be imported")
    assert done.returncode == 3, done.stderr
    assert "Run the same command again" in done.stderr


def test_memory_stays_flat(tmp_path: Path, key: Key) -> None:
    (tmp_path / "src/a").mkdir(parents=True)
    content = wav(sample(1, 1_000_000))
    head, sound = content[:44], content[44:]
    n = 100
    size = (len(sound) * n).to_bytes(4, "little")
    with open(tmp_path / "src/a/long.wav", "wb") as file:
        file.write(head[:4] + (len(sound) * n + 36).to_bytes(4, "little") + head[8:40] + size)
        file.writelines([sound] * n)
    big = np.lib.format.open_memmap(tmp_path / "big.npy", "w+", np.int16, (100, 1_000_000))
    big[...] = np.frombuffer(sound, np.int16)
    del big

    def work() -> None:
        copy(tmp_path / "src", tmp_path / "warm", key, dry_run=True)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        copy(tmp_path / "src", tmp_path / "dst", key)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10
        seen = [anonymous_memory()]  # of the file's own pages any number may be mapped
        labels = [0, 1] * 50
        copy_array(
            tmp_path / "big.npy", labels, key, tmp_path / "big2.npy", recipe=STRONG, threads=1,
            progress=lambda *_: seen.append(anonymous_memory()),
        )  # fmt: skip
        assert max(seen) - seen[0] < 32 << 10

    assert in_child(work) == 0


def anonymous_memory() -> int:
    """KiB of this process's memory that are no file's pages."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))


# Arrays.


def array_copy(arr: Any, dst: Path, key: Key, labels: Any = None, *, recipe: Recipe = STRONG, **options: Any) -> Report:
    n = np.load(arr, mmap_mode="r") if isinstance(arr, Path) and arr.suffix == ".npy" else arr
    labels = [k % 3 for k in range(len(n))] if labels is None else labels
    return copy_array(arr, labels, key, dst, recipe=recipe, **options)


def expected(content: np.ndarray, key: Key, recipe: Recipe = STRONG, **options: Any) -> np.ndarray:
    wet = content.copy()
    protect(wet, [k % 3 for k in range(len(wet))], key, recipe=recipe, **options)
    return wet


def verify_array(dst: Path, key: Key | None, source: Any = None) -> Verification:
    if key is None:
        return array_copying.verify_copy(dst, None)
    with Journal(dst.with_name(dst.name + ".poscuda"), key) as journal:
        return array_copying.verify_copy(dst, journal, source=source)


def quiet(dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    found = random_samples(dtype, shape)
    return (found // 32 if found.dtype.kind == "i" else found / 32).astype(dtype)


@RECIPES
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_npy_file_is_copied(tmp_path: Path, key: Key, recipe: Recipe, dtype: Any) -> None:
    content = quiet(dtype, (7, 900, 2))
    np.save(tmp_path / "c.npy", content)
    (tmp_path / "c.npy").chmod(0o640)
    lengths = np.array([900, 900, 0, 10, 899, 500, 900])
    seen: list[tuple[int, int]] = []
    options: dict[str, Any] = {"recipe": recipe, "lengths": lengths, "sample_rate": 8000}
    with untouched(tmp_path):
        dry = array_copy(tmp_path / "c.npy", tmp_path / "d.npy", key, dry_run=True, **options)
    report = array_copy(tmp_path / "c.npy", tmp_path / "d.npy", key, progress=lambda *n: seen.append(n), **options)
    assert (dry.state, report.state, report.clips) == ("untouched", "protected", 7)
    assert dry.frames_changed == report.frames_changed
    wet = expected(content, key, recipe, lengths=lengths, sample_rate=8000)
    assert np.load(tmp_path / "d.npy").tobytes() == wet.tobytes()
    assert seen[-1] == (6300, 6300)
    assert mode(tmp_path / "d.npy") == 0o640
    assert {path.name for path in tmp_path.iterdir()} == {"c.npy", "d.npy", "d.npy.poscuda", "d.npy.poscuda.json"}
    with untouched(tmp_path):
        assert array_copy(tmp_path / "c.npy", tmp_path / "d.npy", key, **options).state == "already protected"
        assert verify_array(tmp_path / "d.npy", key).protected == 7
        assert verify_array(tmp_path / "d.npy", None).protected == 1
        assert verify_array(tmp_path / "d.npy", key, tmp_path / "c.npy").ok
        with Journal(tmp_path / "d.npy.poscuda", key) as journal:
            found = list(array_copying.pairs(tmp_path / "d.npy", journal))
    assert [(number, label) for number, label, *_ in found] == [(k, k % 3) for k in range(7) if k != 2]
    for number, _, original, now in found:
        assert original.tobytes() == content[number].tobytes()
        assert now.tobytes() == wet[number].tobytes()


@RECIPES
@pytest.mark.parametrize("channels", [None, 2])
def test_arrays_of_any_layout_are_copied_in_blocks(
    tmp_path: Path, key: Key, recipe: Recipe, channels: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_copying, "BLOCK_BYTES", 700)
    layouts = dict(awkward_arrays(np.int16, 5, 600, channels, tmp_path))
    mapped = {name: array for name, array in layouts.items() if "memmap" in name}
    assert len(mapped) == 5
    for name, array in mapped.items():
        np.floor_divide(array, 32, out=array)
        path = array_copying.mapped.file_of(array)
        dst = tmp_path / f"copy of {name}"
        report = array_copy(array, dst, key, recipe=recipe)
        raw = bytearray(path.read_bytes())
        offset = array_copying._offset_of(array)
        there = np.ndarray(array.shape, array.dtype, raw, offset, array.strides)
        there[...] = expected(array.copy(order="C"), key, recipe)
        assert dst.read_bytes() == raw, name
        counted = protect(array.copy(order="C"), [k % 3 for k in range(5)], key, recipe=recipe)
        assert report.frames_changed == counted.frames_changed, name
        assert report.saturated_samples == counted.saturated_samples
        assert verify_array(dst, key, path).ok
        with Journal(dst.with_name(dst.name + ".poscuda"), key) as journal:
            for number, _, original, now in array_copying.pairs(dst, journal):
                assert original.tobytes() == array[number].tobytes()
                assert now.tobytes() == there[number].tobytes()


def test_array_copies_refuse_what_would_fail_later(tmp_path: Path, key: Key) -> None:
    np.save(tmp_path / "c.npy", quiet(np.int16, (4, 600)))
    (tmp_path / "taken.npy").write_bytes(b"x")
    calls: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"dst": tmp_path / "taken.npy"}, DatasetError, "nothing is ever overwritten"),
        ({"dst": tmp_path / "c.npy"}, DatasetError, "itself"),
        ({"dst": tmp_path / "none/d.npy"}, DatasetError, "does not exist"),
        ({"sidecar": tmp_path / "d.npy"}, SidecarError, "would be, or lie inside"),
        ({"sidecar": tmp_path / "d.npy.poscuda.json"}, SidecarError, "manifest"),
        ({"sidecar": tmp_path / "taken.npy"}, SidecarError, "is not a sidecar"),
        ({"labels": [0, 1]}, ValueError, "labels has 2 entries"),
    ]
    for options, error, message in calls:
        with untouched(tmp_path), pytest.raises(error, match=message) as caught:
            array_copy(tmp_path / "c.npy", options.pop("dst", tmp_path / "d.npy"), key, **options)
        assert not has_stopped(caught.value)
    array_copy(tmp_path / "c.npy", tmp_path / "d.npy", key)
    with pytest.raises(SidecarError, match="marked twice"):
        array_copy(tmp_path / "d.npy", tmp_path / "e.npy", key)
    for options, message in [({"labels": [0, 1, 0, 1]}, "other labels"), ({"recipe": PAPER}, "was begun with")]:
        with untouched(tmp_path), pytest.raises(SidecarError, match=message):
            array_copy(tmp_path / "c.npy", tmp_path / "d.npy", key, **options)
    found = np.load(tmp_path / "d.npy", mmap_mode="r+")
    found[2, 5] += 1
    found.flush()
    assert verify_array(tmp_path / "d.npy", key).neither == ("d.npy",)
    assert verify_array(tmp_path / "d.npy", key, tmp_path / "c.npy").neither == ("2",)
    with pytest.raises(SidecarError, match="it was changed since"):
        array_copy(tmp_path / "c.npy", tmp_path / "d.npy", key)
    (tmp_path / "d.npy").unlink()
    assert array_copy(tmp_path / "c.npy", tmp_path / "d.npy", key).state == "protected"
    np.save(tmp_path / "c.npy", quiet(np.int16, (4, 600)) + np.int16(1))
    with pytest.raises(SidecarError, match="with other samples"):
        array_copy(tmp_path / "c.npy", tmp_path / "d.npy", key)


def zarr_array(path: Path, content: np.ndarray) -> None:
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(path, shape=content.shape, chunks=(2, 250), shards=(4, 500), dtype=content.dtype)
    array[:] = content
    array.attrs["made by"] = "a test"


@RECIPES
def test_a_zarr_array_is_copied_shard_by_shard(tmp_path: Path, key: Key, recipe: Recipe) -> None:
    content = quiet(np.int16, (10, 900))
    content[4:8, 500:] = 0
    zarr_array(tmp_path / "c.zarr", content)
    (tmp_path / "c.zarr/old.txt").write_text("not copied: it may hold what was not marked")
    for path in (tmp_path / "c.zarr").rglob("*"):
        path.chmod(0o600 if path.is_file() else 0o700)
    (tmp_path / "c.zarr").chmod(0o700)
    dst = tmp_path / "d.zarr"
    with untouched(tmp_path / "c.zarr"):
        report = copy_array(tmp_path / "c.zarr", [k % 3 for k in range(10)], key, dst, recipe=recipe)
    assert (report.state, report.clips) == ("protected", 10)
    import zarr

    wet = expected(content, key, recipe)
    assert zarr.open_array(dst, mode="r")[:].tobytes() == wet.tobytes()
    assert zarr.open_array(dst, mode="r").attrs["made by"] == "a test"
    assert not (dst / "old.txt").exists()
    assert {mode(path) for path in dst.rglob("*") if path.is_file()} == {0o600}
    assert {mode(path) for path in (dst, dst / "c", dst / "c/0")} == {0o700}
    assert not [name for name in contents(dst, hidden=True) if "poscuda" in name]
    again = copy_array(tmp_path / "c.zarr", [k % 3 for k in range(10)], key, dst, recipe=recipe)
    assert again.state == "already protected"
    assert verify_array(dst, key, tmp_path / "c.zarr").protected + verify_array(dst, key).unchanged == 10
    whole = zarr.open_array(dst, mode="r")[:]
    zarr.create_array(tmp_path / "other", shape=whole.shape, chunks=(5, 300), dtype=whole.dtype)[:] = whole
    assert array_copying._digest_of(tmp_path / "other") == array_copying._digest_of(dst)


@pytest.mark.parametrize("kind", ["npy", pytest.param("zarr", marks=pytest.mark.slow)])
def test_an_array_copy_that_is_killed_at_any_moment_is_finished_by_the_same_call(
    tmp_path: Path, key: Key, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_copying, "BLOCK_BYTES", 2000)
    content = quiet(np.int16, (6, 700))
    src = tmp_path / f"src.{kind}"
    if kind == "npy":
        np.save(src, content)
    else:
        zarr_array(src, content)
    wet, labels = expected(content, key), [k % 3 for k in range(6)]
    for moment in itertools.count():
        folder = tmp_path / f"run{moment}"
        folder.mkdir()
        dst = folder / f"dst.{kind}"

        def work(moment: int = moment, dst: Path = dst) -> None:
            with pytest.MonkeyPatch.context() as patch:
                interfere(patch, moment, kill)
                copy_array(src, labels, key, dst, recipe=STRONG, threads=1)

        code = in_child(work)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        if kind == "npy":
            for path in folder.rglob("*"):
                assert content[5, 100:150].tobytes() not in path.read_bytes()
        report = copy_array(src, labels, key, dst, recipe=STRONG)
        assert (report.frames_changed, report.clips) == (6 * 700, 6)
        found = np.load(dst) if kind == "npy" else pytest.importorskip("zarr").open_array(dst, mode="r")[:]
        assert found.tobytes() == wet.tobytes()
        assert verify_array(dst, key, src).ok
        left = {path.name for path in folder.iterdir() if not path.name.endswith(disk.PART_SUFFIX)}
        assert left == {dst.name, f"{dst.name}.poscuda", f"{dst.name}.poscuda.json"}
        hidden = [path for path in folder.iterdir() if path.name.startswith(".")]
        assert not [path for path in hidden if "dst" not in path.name]
    assert moment > 15
