"""The bytes of WAV files: digests of both forms in one pass, patches anywhere, files in memory or in pieces."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from pathlib import Path

import audiofiles
import numpy as np
import pytest
from audiofiles import chunk, contents, noise, wav, write_tree
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import protect_folder

from poscuda_fast import DatasetError, Recipe, restore_folder, verify_folder
from poscuda_fast.files import headers
from poscuda_fast.files import wav as wavedit
from poscuda_fast.files.records import Places, Record
from poscuda_fast.mark.snr import energy

FRAMES = 200
EXTRA = chunk(b"LIST", b"INFO" + bytes(31))


def write(path: Path, coding: str, channels: int, places: list[tuple[int, int]]) -> tuple[bytes, Record]:
    """A WAV file with chunks on both sides of its samples, and its record."""
    content = wav(noise(FRAMES, channels, coding), coding, before=EXTRA, after=EXTRA)
    path.write_bytes(content)
    with open(path, "rb") as file:
        layout = headers.read_wav(file, "a.wav")
    starts, sizes = [start for start, _ in places], [size for _, size in places]
    record = Record("a.wav", 0, coding, channels, FRAMES, layout.offset, len(content), starts, sizes, "")
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


@pytest.mark.parametrize("piece", [1 << 20, 4096, 97, 36])
@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize(("coding", "channels"), [("PCM_16", 1), ("PCM_24", 1), ("PCM_24", 3), ("FLOAT", 2)])
def test_a_survey_is_two_whole_digests(tmp_path, monkeypatch, coding, channels, places, piece):
    monkeypatch.setattr(wavedit, "PIECE_BYTES", piece)
    path = str(tmp_path / "a.wav")
    content, record = write(tmp_path / "a.wav", coding, channels, places)
    other = np.random.default_rng(1).bytes(record.kept)
    edited = exchanged(content, record, other)
    originals = exchanged(content, record, bytes(record.kept))
    assert isinstance(wavedit.read(path, record), wavedit.Whole if piece > len(content) else wavedit.Pieces)

    assert wavedit.read(path, record).now == b"".join(content[place : place + n] for place, n in Places(record))
    assert wavedit.read(path, record).digest() == sha256(content)
    seen = wavedit.read(path, record).digests(other, listening=True)
    assert (seen.as_found, seen.as_edited) == (sha256(content), sha256(edited))
    assert seen.energy == pytest.approx(energy(noise(FRAMES, channels, coding).reshape(-1)), rel=1e-12)
    put_back = wavedit.read(path, record, None, bytes(record.kept))
    assert put_back.digest() == sha256(originals)
    seen = put_back.digests(other)
    assert (seen.as_found, seen.as_edited, seen.energy) == (sha256(originals), sha256(edited), 0.0)
    assert (tmp_path / "a.wav").read_bytes() == content

    wavedit.store(path, record, other)
    assert (tmp_path / "a.wav").read_bytes() == edited


@settings(max_examples=200, deadline=None, database=None)
@given(data=st.data())
def test_digests_of_any_patches_in_any_pieces(data):
    import tempfile

    cuts = sorted(data.draw(st.sets(st.integers(0, FRAMES), min_size=2, max_size=12)))
    places = [(first, end - first) for first, end in zip(cuts[::2], cuts[1::2], strict=False)]
    piece = data.draw(st.integers(6, 1500))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patching:
        patching.setattr(wavedit, "PIECE_BYTES", piece)
        path = Path(folder) / "a.wav"
        content, record = write(path, "PCM_24", 2, places)
        other = np.random.default_rng(1).bytes(record.kept)
        seen = wavedit.read(str(path), record).digests(other)
        assert (seen.as_found, seen.as_edited) == (sha256(content), sha256(exchanged(content, record, other)))


@pytest.mark.parametrize("piece", [1 << 20, 100])
@pytest.mark.parametrize("how", ["cut", "grown", "folder", "link", "touched"])
def test_a_file_that_is_not_the_one_that_was_listed_is_refused(tmp_path, monkeypatch, how, piece):
    monkeypatch.setattr(wavedit, "PIECE_BYTES", piece)
    path = tmp_path / "a.wav"
    content, record = write(path, "PCM_16", 1, [(5, 10)])
    status = path.stat()
    stamp = (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns)
    wavedit.read(str(path), record, stamp)
    if how in ("cut", "grown"):
        path.write_bytes(content[:-2] if how == "cut" else content + b"xx")
    elif how == "touched":
        os.utime(path, ns=(1, 1))
    else:
        path.rename(tmp_path / "b.wav")
        path.mkdir() if how == "folder" else path.symlink_to("b.wav")
    for action in (wavedit.read, lambda *args: wavedit.store(args[0], args[1], bytes(record.kept), args[2])):
        with pytest.raises((DatasetError, OSError), match=r"a\.wav"):
            action(str(path), record, stamp)
    if how != "folder":
        assert b"".join(contents(tmp_path).values()) in (content, content[:-2], content + b"xx")


@pytest.mark.parametrize("copying", [True, False], ids=["copy", "in place"])
def test_files_in_pieces_become_what_they_become_in_memory(tmp_path, key, monkeypatch, copying):
    recipe = Recipe.paper(patch=50, blur=0.2, every=170)
    made = {
        "no/a.wav": wav(noise(3000, 2, "PCM_24"), "PCM_24", before=EXTRA, after=EXTRA),
        "no/b.wav": wav(noise(20)),
        "yes/c.wav": wav(noise(2500, 1, "FLOAT"), "FLOAT"),
        "yes/d.wav": wav(noise(5000)),
    }
    for name in ("whole", "pieces"):
        write_tree(tmp_path / name, made)
    protect_folder(tmp_path / "whole", None, key, recipe=recipe)
    monkeypatch.setattr(wavedit, "PIECE_BYTES", 333)
    root = tmp_path / "copy" if copying else tmp_path / "pieces"
    protect_folder(tmp_path / "pieces", root if copying else None, key, recipe=recipe)
    assert contents(root) == contents(tmp_path / "whole")
    assert verify_folder(root, key).protected == 4
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
        restore_folder(root, key)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
