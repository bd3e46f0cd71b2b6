"""Arrays mapped from a file: which bytes of it are read, stored, asked for ahead and written back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from awkward import awkward_arrays, random_samples
from recipes import protect_memmap

from poscuda_fast import DatasetError, Key, Recipe, disk, restore_memmap, verify_memmap
from poscuda_fast.arrays import mapped, memory
from poscuda_fast.arrays.layouts import ArrayClips
from poscuda_fast.arrays.mapped import MappedArray
from poscuda_fast.kernels import will_need
from poscuda_fast.mark import plan as plans
from poscuda_fast.mark.patches import Patches
from poscuda_fast.mark.plan import make_plan

RECIPE = Recipe.paper(patch=8, taps=5, patches=2)


def patches_of(audio: ArrayClips, labels: Any = None) -> Patches:
    labels = np.arange(len(audio.lengths)) % 3 if labels is None else labels
    plan = make_plan(Key(bytes(range(32))), RECIPE, labels, None, audio.lengths)
    return next(plan.batches(None))


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_the_reach_of_a_patch_covers_its_samples_and_no_more(channels) -> None:
    """In any layout: compared with the addresses of the samples themselves."""
    for name, clips in awkward_arrays(np.int16, 4, 50, channels):
        if clips.shape[:2] != (4, 50):
            continue
        audio = ArrayClips(clips, None)
        patches = patches_of(audio)
        first, n_bytes = audio.reach(patches)
        lowest = np.lib.array_utils.byte_bounds(clips)[0]
        for number, (clip, start, size) in enumerate(zip(patches.clips, patches.starts, patches.sizes, strict=True)):
            low, high = np.lib.array_utils.byte_bounds(clips[clip, start : start + size])
            assert (low - lowest, high - low) == (first[number], n_bytes), name


def mapped_array(path: Path, n_clips: int = 40, frames: int = 600) -> tuple[np.memmap, MappedArray]:
    random_samples(np.int16, (n_clips, frames)).tofile(path)
    arr = np.memmap(path, np.int16, "r+", shape=(n_clips, frames))
    return arr, MappedArray(arr, None)


def batches(audio: ArrayClips, n: int) -> list[Patches]:
    plan = make_plan(Key(bytes(range(32))), RECIPE, np.arange(len(audio.lengths)) % 3, None, audio.lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "PATCHES_PER_BATCH", 2)
        return list(plan.batches(None))[:n]


VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "whole": lambda arr: arr,
    "part": lambda arr: arr[3:, 100:],
    "every second clip": lambda arr: arr[::2],
    "clips reversed": lambda arr: arr[::-1],
    "stereo": lambda arr: arr.reshape(len(arr), -1, 2),
    "frames reversed": lambda arr: arr[:, ::-1],
    "every second frame": lambda arr: arr[:, ::2],
    "frames first": lambda arr: arr.reshape(600, -1).T,
}
each_view = pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
PACKED = ["whole", "part", "every second clip", "clips reversed", "stereo"]


@pytest.fixture(params=[1, 4096], ids=["past the mapping", "through the mapping"])
def page_bytes(request, monkeypatch) -> int:
    """What decides whether small patches are read and stored past the mapping."""
    monkeypatch.setattr(mapped, "FEW_RUNS", 0)
    monkeypatch.setattr(mapped, "PAGE_BYTES", request.param)
    return request.param


@each_view
def test_patches_are_read_and_stored_where_they_lie_in_the_file(view, tmp_path, page_bytes) -> None:
    """Compared with indexing."""
    arr, _ = mapped_array(tmp_path / "clips")
    part = view(arr)
    audio = MappedArray(part, None)
    twin = view(np.array(arr))
    for patches in batches(audio, 9):
        dense = audio.read(patches)
        places = [slice(start, start + size) for _, start, size in patches.places()]
        expected = [part[clip, place].reshape(-1) for clip, place in zip(patches.clips, places, strict=True)]
        assert np.array_equal(dense, np.concatenate(expected))
        audio.write(patches, dense + np.int16(3))
        for clip, place in zip(patches.clips, places, strict=True):
            twin[clip, place] += 3
    audio.sync()
    assert np.array_equal(part, twin)
    whole = np.fromfile(tmp_path / "clips", np.int16).reshape(arr.shape)
    assert np.array_equal(view(whole), twin)
    audio.close()


@each_view
def test_the_first_byte_of_a_patch_is_that_of_its_lowest_sample(view, tmp_path, request) -> None:
    arr, _ = mapped_array(tmp_path / "clips")
    part = view(arr)
    audio = MappedArray(part, None)
    assert audio.computed == (request.node.callspec.id in PACKED)
    low = np.lib.array_utils.byte_bounds(arr)[0]
    patches = patches_of(audio)
    first = [part[clip, start : start + 1].__array_interface__["data"][0] - low for clip, start, _ in patches.places()]
    assert audio.firsts(patches).tolist() == first
    audio.close()


@pytest.mark.parametrize("view", ["whole", "frames reversed"])
def test_only_what_is_read_through_the_mapping_is_asked_for_ahead(view, tmp_path, page_bytes, monkeypatch) -> None:
    """A plain read takes no fault for each page."""
    arr, _ = mapped_array(tmp_path / "clips")
    audio = MappedArray(VIEWS[view](arr), None)
    asked: list[int] = []
    monkeypatch.setattr(mapped, "will_need", lambda flat, first, n_bytes: asked.append(len(first)))
    for patches in batches(audio, 3):
        audio.read(patches)
    assert len(asked) == (0 if view == "whole" and page_bytes == 1 else 3)
    audio.close()


def test_few_or_large_patches_are_read_and_stored_past_the_mapping(tmp_path, monkeypatch) -> None:
    _, audio = mapped_array(tmp_path / "clips", n_clips=131, frames=4000)
    even, zeros = np.arange(0, 131, 2), np.zeros(66, np.int64)
    large, small = (Patches(even, zeros, zeros + size, zeros) for size in (2048, 2047))
    monkeypatch.setattr(ArrayClips, "read", lambda *_: pytest.fail("read through the mapping"))
    audio.write(large, audio.read(large))
    few = small.some(slice(2, 66))
    audio.write(few, audio.read(few))
    with pytest.raises(pytest.fail.Exception):
        audio.read(small)
    audio.close()


def test_patches_that_meet_are_one_run_and_write_back_begins_at_once(tmp_path, monkeypatch) -> None:
    _, audio = mapped_array(tmp_path / "clips")
    zeros = np.zeros(5, np.int64)
    patches = Patches(np.array([0, 0, 1, 1, 7]), np.array([10, 20, 0, 9, 0]), np.array([10, 7, 9, 100, 1]), zeros)
    started: list[tuple[int, int]] = []
    monkeypatch.setattr(mapped, "PAGE_BYTES", 1)
    monkeypatch.setattr(disk, "start_writing", lambda _, begin, size: started.append((begin, size)))
    audio.write(patches, audio.read(patches))
    assert started == [(2 * 10, 2 * 17), (2 * 600, 2 * 109), (2 * 7 * 600, 2)]
    audio.close()


def test_a_file_that_was_cut_after_it_was_mapped_is_an_error_and_no_signal(tmp_path, page_bytes) -> None:
    _, audio = mapped_array(tmp_path / "clips")
    patches = patches_of(audio)
    dense = audio.read(patches)
    os.truncate(tmp_path / "clips", 600)
    cut = "has 600 bytes, fewer than the 48000 that arr maps"
    with pytest.raises((DatasetError, ValueError), match=cut if page_bytes > 1 else "clips ends .* bytes early"):
        audio.read(patches)
    if page_bytes > 1:
        with pytest.raises(ValueError, match=cut):
            audio.write(patches, dense)
    with pytest.raises(ValueError, match=cut):
        audio.refuse_cut()
    audio.close()


def test_no_descriptor_stays_open(tmp_path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    arr, audio = mapped_array(tmp_path / "clips")
    audio.close()
    audio.close()
    other = MappedArray(arr, None)
    del other, audio, arr
    assert len(os.listdir("/proc/self/fd")) == before


def test_advice_changes_nothing(tmp_path) -> None:
    """Stretches at both ends of the mapping, overlapping, of one byte, and beyond the end."""
    arr, _ = mapped_array(tmp_path / "clips")
    before = arr.tobytes()
    flat = arr.reshape(-1)
    for first, n_bytes in (([0], 1), ([0, 1, arr.nbytes - 1], 1), ([0, 100], arr.nbytes), ([arr.nbytes - 1], 1 << 20)):
        will_need(flat, np.array(first, np.int64), n_bytes)
    will_need(flat, np.empty(0, np.int64), 100)
    flat.flags.writeable = False
    will_need(flat, np.array([0], np.int64), 100)
    assert arr.tobytes() == before


@pytest.mark.parametrize("view", ["whole", "part", "reversed"])
def test_a_run_over_many_batches_writes_the_right_bytes(view, tmp_path, monkeypatch) -> None:
    """With more batches than are read ahead, through views that begin elsewhere in the file."""
    monkeypatch.setattr(plans, "BATCH_BYTES", 100)
    arr, _ = mapped_array(tmp_path / "clips")
    part = {"whole": arr, "part": arr[3:, 100:], "reversed": arr[::-1, ::-1]}[view]
    original, twin = arr.tobytes(), np.array(part)
    key, labels = Key(bytes(range(32))), np.arange(len(part)) % 3
    memory.protect(twin, labels, key, recipe=RECIPE)
    report = protect_memmap(part, labels, key, recipe=RECIPE)
    assert report.patches == 2 * len(part)
    assert np.array_equal(part, twin)
    assert verify_memmap(part, key).protected == len(part)
    restore_memmap(part, key)
    assert arr.tobytes() == original
