"""The lines of format 2 are found without the key, and its mark in leaked pairs."""

from __future__ import annotations

import numpy as np
import pytest
from experiments.conditions import strong
from scenes import RATE, N, marked, padding

from experiments.attacks import lines
from experiments.attacks.table import attacked, choose


def test_fold_is_the_mean_turn_of_whole_turns():
    edits = np.arange(24.0).reshape(2, 12)
    assert lines.fold(edits, np.array([8, 4]), 4).tolist() == [(0 + 4 + 12) / 3, (1 + 5 + 13) / 3, 22 / 3, 25 / 3]
    assert lines.fold(edits, np.array([3, 0]), 4).tolist() == [0.0] * 4


@pytest.mark.parametrize("name", ["notch", "leak-mark"])
def test_the_mark_of_format_2_is_taken_away(name):
    scene = marked(strong(3.0, RATE), n=240)
    (chosen,) = choose(name)
    after, details = attacked(chosen, scene, seed=0)
    edit = np.square(scene.clips - scene.original.astype(float)).sum()
    left = np.square(after.clips - scene.original.astype(float)).sum()
    assert details == {"energy_of_the_edit_left": round(100 * left / edit, 2)}
    assert left < (0.1 if name == "notch" else 0.01) * edit
    assert not padding(after.clips, scene.lengths).any()


def test_cutting_closes_the_gap():
    scene = marked(strong(1.0, RATE))
    after = attacked(choose("cut-0.3")[0], scene, seed=0)[0].clips
    for row in range(N):
        length = int(scene.lengths[row])
        size = int(0.3 * length)
        kept = after[row, : length - size]
        same = np.flatnonzero(kept != scene.clips[row, : length - size])
        start = same[0] if same.size else length - size
        assert np.array_equal(kept[start:], scene.clips[row, start + size : length])
        assert not after[row, length - size :].any()
