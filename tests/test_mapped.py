"""Which pages are read ahead and written back: advice, but for the right bytes and in the right order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from awkward import awkward_arrays, random_samples
from recipes import protect_memmap

from poscuda_fast import Key, Recipe, restore_memmap, verify_memmap
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


@pytest.mark.parametrize("n", [0, 1, mapped.BATCHES_AHEAD, mapped.BATCHES_AHEAD + 1, 20])
def test_every_batch_is_asked_for_before_its_turn(n, tmp_path, monkeypatch) -> None:
    _, ahead = mapped_array(tmp_path / "clips")
    asked: list[Patches] = []
    monkeypatch.setattr(ahead, "will_read", asked.append)
    given = batches(ahead, n)
    found = []
    for number, patches in enumerate(ahead.read_ahead(iter(given))):
        assert len(asked) == min(n, number + mapped.BATCHES_AHEAD + 1)
        found.append(patches)
    assert all(a is b for a, b in zip(found, given, strict=True))
    assert len(asked) == n


def test_writing_back_begins_when_all_is_read_and_covers_every_patch(tmp_path, monkeypatch) -> None:
    arr, ahead = mapped_array(tmp_path / "clips")
    spans: list[tuple[int, int]] = []
    monkeypatch.setattr(mapped, "_write_back", lambda path, begin, n: spans.append((begin, begin + n)))
    given = batches(ahead, 15)
    for number, patches in enumerate(ahead.read_ahead(iter(given))):
        ahead.write(patches, ahead.read(patches))
        if number < 15 - mapped.BATCHES_AHEAD:
            assert not spans
    ahead._background.shutdown()
    for patches in given:
        for clip, start, size in zip(patches.clips, patches.starts, patches.sizes, strict=True):
            begin = (clip * arr.shape[1] + start) * 2
            assert any(low <= begin and begin + 2 * size <= high for low, high in spans)
    assert len(spans) == mapped.BATCHES_AHEAD  # the batches that were still waiting when all had been asked for


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
