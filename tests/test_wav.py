"""The bytes of WAV files: patches anywhere, files whole or in pieces."""

from __future__ import annotations

import contextlib
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import audiofiles
import numpy as np
import pytest
from audiofiles import chunk, contents, noise, untouched, wav, write_tree
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import protect_folder

from poscuda_fast import DatasetError, Key, Recipe, restore_folder, verify_folder
from poscuda_fast.files import containers, pieces
from poscuda_fast.files.listing import read_layout
from poscuda_fast.files.paths import Paths
from poscuda_fast.files.records import Places, Record
from poscuda_fast.files.table import FileTable
from poscuda_fast.files.target import FileTarget, Job
from poscuda_fast.kernels import Engine
from poscuda_fast.undo.journal import Journal

FRAMES = 200
EXTRA = chunk(b"LIST", b"INFO" + bytes(31))


def write(path: Path, coding: str, channels: int, places: list[tuple[int, int]]) -> tuple[bytes, Record]:
    """A WAV file with chunks on both sides of its samples, and its record."""
    content = wav(noise(FRAMES, channels, coding), coding, before=EXTRA, after=EXTRA)
    path.write_bytes(content)
    layout = containers.parse(content, len(content), "a.wav")
    assert layout is not None
    starts, sizes = [start for start, _ in places], [size for _, size in places]
    record = Record(
        "a.wav", 0, coding, channels, FRAMES, layout.offset, len(content), 0, len(content), starts, sizes
    )  # fmt: skip
    return content, record


def exchanged(content: bytes, record: Record, patches: bytes) -> bytes:
    """A file's bytes with other patches."""
    edited = bytearray(content)
    done = 0
    for place, n in Places(record):
        edited[place : place + n] = patches[done : done + n]
        done += n
    assert done == len(patches) == record.kept
    return bytes(edited)


PLACES = {
    "none": [],
    "first frame": [(0, 1)],
    "last frame": [(FRAMES - 1, 1)],
    "all": [(0, FRAMES)],
    "middle": [(50, 60)],
    "neighbours": [(10, 20), (30, 1), (31, 100)],
    "many": [(start, 3) for start in range(0, FRAMES, 7)],
}


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize(("coding", "channels"), [("PCM_16", 1), ("PCM_24", 1), ("PCM_24", 3), ("FLOAT", 2)])
def test_patches_are_taken_put_and_woven(tmp_path, coding, channels, places):
    content, record = write(tmp_path / "a.wav", coding, channels, places)
    other = np.random.default_rng(1).bytes(record.kept)
    edited = exchanged(content, record, other)
    kept = b"".join(content[place : place + n] for place, n in Places(record))
    assert bytes(Places(record).take(content)) == kept
    assert b"".join(Places(record).woven(content, other)) == edited
    written = bytearray(content)
    Places(record).put(written, other)
    assert bytes(written) == edited
    behind = content[record.begin + 20 :]  # the file's bytes from there on
    assert bytes(Places(record).take(behind, 20)) == kept
    assert content[record.sound] == content[record.offset : record.offset + FRAMES * record.frame_bytes]


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
def test_only_patches_are_stored(tmp_path, key, places):
    content, record = write(tmp_path / "a.wav", "PCM_16", 2, places)
    other = np.random.default_rng(1).bytes(record.kept)
    with target_of(tmp_path, key) as target:
        assert bytes(target.read(record)) == content
        target.store(record, memoryview(other))
        assert (tmp_path / "a.wav").read_bytes() == exchanged(content, record, other)
        part = record._replace(begin=30, end=77)
        assert bytes(target.read(part)) == exchanged(content, record, other)[30:77]


@contextlib.contextmanager
def target_of(root: Path, key: Key) -> Iterator[FileTarget]:
    """The target of a run over the WAV files in a folder, before it begins."""
    files = FileTable([read_layout(root, "a.wav")])
    plan = audiofiles.plan_of(files[0].frames, "yes", key, Recipe.strong())
    paths = Paths.of(root, None, None)
    with Journal(paths.sidecar, key) as journal:
        job = Job(files, plan, ["yes"], None, ())
        target = FileTarget(paths, journal, plan.recipe, Engine(), None, job)
        with contextlib.closing(target):
            yield target


@settings(max_examples=200, deadline=None, database=None)
@given(data=st.data())
def test_a_file_is_divided_into_whole_frames_and_whole_patches(data):
    import tempfile

    key = Key(bytes(range(32)))
    every = data.draw(st.integers(5, 60))
    recipe = data.draw(st.sampled_from([Recipe.strong(), Recipe.paper(patch=5, every=every), Recipe.paper(patch=150)]))
    frames, piece = data.draw(st.integers(0, 300)), data.draw(st.integers(1, 1500))
    coding, channels = data.draw(st.sampled_from([("PCM_16", 1), ("PCM_24", 2), ("FLOAT", 3)]))
    content = wav(noise(frames, channels, coding), coding, before=EXTRA, after=EXTRA)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patching:
        patching.setattr(pieces, "PIECE_BYTES", piece)
        (Path(folder) / "a.wav").write_bytes(content)
        file = read_layout(Path(folder), "a.wav")
        plan = audiofiles.plan_of(frames, "yes", key, recipe)
        found = list(pieces.uncompressed_pieces(file, plan, 0))
        later = data.draw(st.sampled_from(found)).begin
        assert list(pieces.uncompressed_pieces(file, plan, 0, later)) == [one for one in found if one.begin >= later]
    assert [one.begin for one in found[1:]] == [one.end for one in found[:-1]]
    assert (found[0].begin, found[-1].end, found[0].row) == (0, len(content), 0)
    places = [(start, size) for one in found for start, size in zip(one.starts, one.sizes, strict=True)]
    (whole,) = pieces.whole_files([file], plan, [0])
    if recipe == Recipe.strong():
        assert sum(size for _, size in places) == frames
        assert [start for start, _ in places] == [sum(size for _, size in places[:n]) for n in range(len(places))]
    else:
        assert places == list(zip(whole.starts, whole.sizes, strict=True))
    for one in found:
        assert all(one.begin <= first and first + n <= one.end for first, n in Places(one))
        assert (
            b"".join(Places(one).woven(content[one.begin : one.end], Places(one).take(content), one.begin))
            == (content[one.begin : one.end])
        )
    sound = b"".join(content[one.begin : one.end][one.sound] for one in found)
    assert sound == content[whole.offset : whole.offset + frames * whole.frame_bytes]


@pytest.mark.parametrize("how", ["cut", "grown", "folder", "link", "touched", "exchanged"])
def test_a_file_that_is_not_the_one_that_was_listed_is_not_stored_into(tmp_path, key, how):
    path = tmp_path / "a.wav"
    content, record = write(path, "PCM_16", 1, [(5, 10)])
    with target_of(tmp_path, key) as target:
        if how in ("cut", "grown"):
            path.write_bytes(content[:-2] if how == "cut" else content + b"xx")
        elif how == "touched":
            os.utime(path, ns=(1, 1))
        else:
            path.rename(tmp_path / "b.wav")
            if how == "folder":
                path.mkdir()
            elif how == "link":
                path.symlink_to("b.wav")
            else:
                path.write_bytes(content)
        assert (target.read(record) is None) == (how not in ("touched", "exchanged"))
        with untouched(tmp_path), pytest.raises((DatasetError, OSError), match=r"a\.wav"):
            target.store(record, memoryview(bytes(record.kept)))


def test_a_file_that_this_run_wrote_may_be_written_again(tmp_path, key):
    content, record = write(tmp_path / "a.wav", "PCM_16", 1, [(5, 10)])
    with target_of(tmp_path, key) as target:
        for filling in (b"x", b"y"):
            target.store(record, memoryview(filling * record.kept))
        assert (tmp_path / "a.wav").read_bytes() == exchanged(content, record, b"y" * record.kept)
        os.utime(tmp_path / "a.wav", ns=(1, 1))
        with pytest.raises(DatasetError, match="was replaced or changed since this run began"):
            target.store(record, memoryview(bytes(record.kept)))


@pytest.mark.parametrize("copying", [True, False], ids=["copy", "in place"])
@pytest.mark.parametrize("recipe", [Recipe.strong(), Recipe.paper(patch=50, blur=0.2, every=170)], ids=str)
def test_files_in_pieces_become_what_they_become_in_memory(tmp_path, key, monkeypatch, recipe, copying):
    made = {
        "no/a.wav": wav(noise(3000, 2, "PCM_24"), "PCM_24", before=EXTRA, after=EXTRA),
        "no/b.wav": wav(noise(20)),
        "yes/c.wav": wav(noise(2500, 1, "FLOAT"), "FLOAT"),
        "yes/d.wav": wav(noise(5000)),
    }
    for name in ("whole", "pieces"):
        write_tree(tmp_path / name, made)
    protect_folder(tmp_path / "whole", None, key, recipe=recipe)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 333)
    root = tmp_path / "copy" if copying else tmp_path / "pieces"
    protect_folder(tmp_path / "pieces", root if copying else None, key, recipe=recipe)
    assert contents(root) == contents(tmp_path / "whole")
    assert verify_folder(root, key).protected == 4
    if not copying:
        restore_folder(root, key)
        assert {name: contents(root)[name] for name in made} == made
        assert verify_folder(root, key).original == 4


@pytest.mark.parametrize("copying", [True, False], ids=["copy", "in place"])
def test_a_large_file_is_never_in_memory(tmp_path, key, copying):
    samples = np.random.default_rng(2).integers(-9000, 9000, (12_000_000, 1), dtype=np.int16)
    audiofiles.encoded(tmp_path / "src.wav", samples, "WAV", "PCM_16")
    root = tmp_path / "dst.wav" if copying else tmp_path / "src.wav"
    protect_folder(tmp_path / "src.wav", root if copying else None, key, dry_run=True)  # what is imported stays
    del samples
    tracemalloc.start()
    try:
        protect_folder(tmp_path / "src.wav", root if copying else None, key)
        verify_folder(root, key)
        if not copying:
            restore_folder(root, key)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20  # of 24 MB: a batch is read while two others are marked and stored
