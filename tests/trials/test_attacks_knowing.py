from __future__ import annotations

import numpy as np
import pytest
from scenes import FRAMES, N

from experiments.attacks.scene import places
from experiments.attacks.table import attacked, choose


def test_partial_puts_originals_back(scene):
    after, details = attacked(choose("partial-20")[0], scene, seed=0)
    mixed = after.clips
    back = (mixed == scene.original).all(axis=1)
    assert details["unprotected"] == back.sum() == round(0.2 * N)
    np.testing.assert_array_equal(mixed[~back], scene.clips[~back])


def test_places_are_where_the_mark_is(scene):
    mask = places(scene)
    assert (scene.clips != scene.original)[~mask].sum() == 0
    for name in ("noise-at-places", "fill-places"):
        changed = attacked(choose(name)[0], scene, seed=0)[0].clips != scene.clips
        assert changed[mask].mean() > 0.9
        # Gaps that a filter leaves by accident are filled as well.
        assert changed[~mask].sum() <= (16 * N if name == "fill-places" else 0)


def test_noise_at_places_is_as_loud_as_the_mark(scene):
    noisy = attacked(choose("noise-at-places")[0], scene, seed=0)[0].clips
    inside = (np.arange(FRAMES) < scene.lengths[:, None]) & places(scene)
    noise = np.sqrt((((noisy.astype(float) - scene.clips) ** 2) * inside).sum())
    mark = np.sqrt((((scene.clips.astype(float) - scene.original) ** 2) * inside).sum())
    # The energy of n normal numbers, n near 9,600 in parts of unequal level: within a few per cent.
    assert noise == pytest.approx(mark, rel=0.1)
