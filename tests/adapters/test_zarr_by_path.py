"""Zarr arrays on the command line: looked at, protected in place and as a copy, checked, shown, evaluated, restored."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import zarr
from audiofiles import contents, end_of_child, kill_before, start_child, untouched
from test_cli import poscuda
from test_zarr_arrays import LABELS, LENGTHS, layouts, marked, read, samples, store

from poscuda_fast import DatasetError, Key, Recipe, SidecarError
from poscuda_fast.arrays.originals import originals_of_array
from poscuda_fast.arrays.verbs import protect_array, restore_array, verify_array

STRONG = Recipe.strong()


@pytest.fixture
def options(tmp_path: Path, key_file: Path) -> list[object]:
    np.save(tmp_path / "labels.npy", LABELS[:11])
    np.save(tmp_path / "lengths.npy", LENGTHS)
    return ["--key", key_file, "--labels", tmp_path / "labels.npy", "--lengths", tmp_path / "lengths.npy"]


@layouts
def test_a_copy_goes_through_all_commands(tmp_path: Path, key: Key, key_file: Path, options, layout) -> None:
    clips = samples()
    src, dst = store(tmp_path / "a.zarr", clips, **layout), tmp_path / "b.zarr"
    before = contents(src, hidden=True)
    with untouched(tmp_path):
        facts = json.loads(poscuda("inspect", src, "--json").stdout)
        assert (facts["kind"], facts["clips"], facts["written_by"]) == (
            "zarr_array",
            11,
            "shards" if layout.get("shards") else "chunks",
        )
        assert json.loads(poscuda("protect", src, dst, *options, "--dry-run", "--json").stdout)["state"] == "untouched"
    done = poscuda("protect", src, dst, *options)
    assert done.returncode == 0, done.stderr
    assert contents(src, hidden=True) == before
    assert read(dst).tobytes() == marked(clips, key, STRONG, LENGTHS).tobytes()
    assert json.loads(poscuda("protect", src, dst, *options, "--json").stdout)["state"] == "already protected"
    found = poscuda("verify", dst, "--key", key_file, "--json")
    assert found.returncode == 0
    assert json.loads(found.stdout)["neither"] == []
    found = poscuda("verify", dst, "--key", key_file, "--source", src, "--json")
    assert (found.returncode, json.loads(found.stdout)["neither"]) == (0, [])
    assert f"your originals are at {src};" in poscuda("restore", dst, "--key", key_file).stderr
    assert poscuda("protect", src, "--in-place", *options).returncode == 0
    assert read(src).tobytes() == read(dst).tobytes()
    assert poscuda("restore", src, "--key", key_file).returncode == 0
    assert contents(src, hidden=True) == before
    assert poscuda("protect", src, "--in-place", *options).returncode == 0
    assert poscuda("drop-undo", src, "--key", key_file, "--yes").returncode == 0
    assert "was dropped" in poscuda("restore", src, "--key", key_file).stderr


def test_what_is_no_array_or_would_be_marked_twice_is_refused(tmp_path: Path, key: Key, options) -> None:
    src = store(tmp_path / "a.zarr", samples(), chunks=(4, 600))
    zarr.create_group(tmp_path / "group").create_array("a", shape=(2, 600), dtype="int16", chunks=(1, 600))
    zarr.create_group(tmp_path / "old", zarr_format=2)
    with untouched(tmp_path):
        for name, sentence in (("group", "give the array itself, not its group"), ("old", "copy arrays of format 2")):
            done = poscuda("protect", tmp_path / name, tmp_path / "b.zarr", *options)
            assert done.returncode == 2
            assert sentence in done.stderr
        with pytest.raises(DatasetError, match="lies inside"):
            protect_array(src, LABELS[:11], key, dst=src / "b.zarr")
    protect_array(src, LABELS[:11], key)
    with untouched(tmp_path), pytest.raises(SidecarError, match="would be marked twice"):
        protect_array(src, LABELS[:11], key, dst=tmp_path / "b.zarr")
    restore_array(src, key)
    protect_array(src, LABELS[:11], key, dst=tmp_path / "b.zarr")
    assert read(tmp_path / "b.zarr").tobytes() == marked(samples(), key, STRONG).tobytes()
    assert verify_array(src, key).original == 11  # the copy has a sidecar of its own


def test_a_copy_that_was_killed_is_finished_by_the_same_call(tmp_path: Path, key: Key) -> None:
    """Killed before each file is opened, synced or renamed, every third time."""
    clips = samples()
    wet = marked(clips, key, STRONG)
    src = store(tmp_path / "a.zarr", clips, chunks=(6, 600))
    before = contents(src)
    ended, moment = -signal.SIGKILL, 0
    while ended == -signal.SIGKILL:
        dst = tmp_path / f"{moment}.zarr"

        def work(dst: Path = dst, moment: int = moment) -> None:
            kill_before(moment)
            protect_array(src, LABELS[:11], key, dst=dst, threads=1)

        ended = end_of_child(start_child(work))
        if dst.exists():
            assert read(dst).tobytes() == wet.tobytes()
        protect_array(src, LABELS[:11], key, dst=dst)
        assert read(dst).tobytes() == wet.tobytes()
        assert verify_array(dst, key).ok
        assert contents(src) == before
        moment += 3
    assert ended == 0
    assert moment > 15
    left = {path.name.partition(".zarr")[2] for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert left == {"", ".poscuda", ".poscuda.json"}


@layouts
def test_originals_beside_what_is_there_now(tmp_path: Path, key: Key, layout) -> None:
    clips = samples(np.float32, channels=2)
    path = store(tmp_path / "a.zarr", clips, **layout)
    protect_array(path, LABELS[:11], key, lengths=LENGTHS)
    wet = marked(clips, key, STRONG, LENGTHS)
    with untouched(tmp_path):
        found = list(originals_of_array(path, key))
    assert [number for number, *_ in found] == [0, *range(2, 11)]  # one clip has no frames
    for number, label, original, now in found:
        assert label == LABELS[number]
        assert original.tobytes() == clips[number].tobytes()
        assert now.tobytes() == wet[number].tobytes()


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("jinja2", "matplotlib"))
    and os.environ.get("POSCUDA_REQUIRE_ADAPTERS") != "1",
    reason="the page needs pip install '.[report]'",
)
def test_the_page_of_an_array_is_that_of_its_npy_file(tmp_path: Path, key_file: Path, options) -> None:
    (tmp_path / "npy").mkdir()
    (tmp_path / "zarr").mkdir()
    np.save(tmp_path / "npy/clips.npy", samples())
    store(tmp_path / "zarr/clips.npy", samples(), chunks=(3, 600))  # a folder may have any name
    pages = {}
    for kind in ("npy", "zarr"):
        path, out = tmp_path / kind / "clips.npy", tmp_path / f"{kind}.html"
        assert poscuda("protect", path, "--in-place", *options).returncode == 0
        with untouched(tmp_path / kind):
            done = poscuda("report", path, "--key", key_file, "-o", out)
        assert done.returncode == 0, done.stderr
        pages[kind] = re.sub(r"\d\d:\d\d UTC", "", out.read_text(encoding="utf-8"))  # the minute may pass
    assert pages["zarr"] == pages["npy"]
