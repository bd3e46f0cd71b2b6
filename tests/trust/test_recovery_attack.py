"""Why the originals are sealed: one in clear gives the key away, and the sidecar gives none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from poscuda_fast import Key, Recipe, protect_memmap
from poscuda_fast.mark.filters import draw_filters
from poscuda_fast.mark.plan import make_plan

N_CLIPS, FRAMES = 12, 4000
PAPER = Recipe.paper(blur=0.3)
STRONG = Recipe.strong()
TOKEN = b"n" + b"yes"


def find_patches(dry: np.ndarray, wet: np.ndarray) -> tuple[int, int]:
    """The first frame that an edit changed, and the one behind the last."""
    changed = np.flatnonzero((dry != wet).any(axis=0))
    return int(changed[0]), int(changed[-1]) + 1


def solve_filter(dry: np.ndarray, wet: np.ndarray, taps: int) -> np.ndarray:
    """The filter that turns patches into what they became, by least squares; zeros stand around each patch."""
    centre = (taps - 1) // 2
    rows, answers = [], []
    for before, after in zip(dry.astype(float), wet.astype(float), strict=True):
        padded = np.concatenate([np.zeros(taps), before, np.zeros(taps)])
        for j in range(len(before)):
            first = j + centre + taps  # where tap 0 reads
            rows.append(padded[first - taps + 1 : first + 1][::-1])
            answers.append(after[j])
    return np.linalg.lstsq(np.array(rows), np.array(answers), rcond=None)[0]


def protected_pair(tmp_path: Path, key: Key, recipe: Recipe) -> tuple[np.ndarray, np.ndarray, bytes]:
    """Clips of one class before and after, and the sidecar between them."""
    rng = np.random.default_rng(21)
    dry = rng.normal(0, 3000, (N_CLIPS, FRAMES)).astype(np.int16)
    np.save(tmp_path / "clips.npy", dry)
    arr = np.load(tmp_path / "clips.npy", mmap_mode="r+")
    protect_memmap(arr, ["yes"] * N_CLIPS, key, recipe=recipe)
    return dry, np.array(arr), (tmp_path / "clips.npy.poscuda").read_bytes()


def test_an_original_in_clear_gives_position_and_filter_away(tmp_path: Path, key: Key) -> None:
    dry, wet, _ = protected_pair(tmp_path, key, PAPER)
    start, end = find_patches(dry, wet)
    plan = make_plan(key, PAPER, ["yes"], None, np.array([FRAMES]))
    assert (start, end - start) == (plan.of_clip(0).starts[0], PAPER.patch)
    found = solve_filter(dry[:, start:end], wet[:, start:end], PAPER.taps)
    taps = draw_filters(key, [TOKEN], PAPER).taps[0]
    assert np.abs(found - taps).max() < 0.003 * taps.max()


def test_an_original_in_clear_gives_the_lines_away(tmp_path: Path, key: Key) -> None:
    dry, wet, _ = protected_pair(tmp_path, key, STRONG)
    plan = make_plan(key, STRONG, ["yes"], None, np.array([FRAMES]))
    mark = plan.marks.mark(0, dry.dtype)
    added = wet.astype(int) - dry
    assert (added == np.resize(mark, FRAMES)).all()


@pytest.mark.guards("I11")
@pytest.mark.parametrize("recipe", [PAPER, STRONG], ids=["format 1", "format 2"])
def test_the_sidecar_holds_no_original_for_the_attack(tmp_path: Path, key: Key, recipe: Recipe) -> None:
    dry, wet, sidecar = protected_pair(tmp_path, key, recipe)
    start, end = find_patches(dry, wet)
    if recipe is PAPER:
        assert len(sidecar) > N_CLIPS * (end - start) * 2  # the originals are in there
    plain = b"".join(dry[n, a:b].tobytes() for n in range(N_CLIPS) for a, b in [find_patches(dry, wet)])
    assert resemble(plain, dry, wet) == N_CLIPS
    assert resemble(sidecar, dry, wet) == 0


def resemble(content: bytes, dry: np.ndarray, wet: np.ndarray) -> int:
    """For how many clips eight original samples in a row stand in some content, at any byte."""
    start, _ = find_patches(dry, wet)
    return sum(clip[start : start + 8].tobytes() in content for clip in dry)
