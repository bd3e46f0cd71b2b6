"""Attacks by somebody who has more than the published clips: the places of the marks, originals, or leaked pairs.

Each is ``attack(scene, strength, rng) -> (clips, details)``: new (n, L) int16 training clips, and what was found out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.attacks import leak
from experiments.attacks.audio import Clips, rounded
from experiments.attacks.inpaint import fill
from experiments.attacks.scene import Scene, places
from experiments.conditions import Condition, noisy
from poscuda_fast import Key, PaperRecipe, protect
from poscuda_fast.evaluation.padded import FULL_SCALE


def noise_at_places(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    """Add noise wherever the mark is, `strength` times as strong as the mark in that clip."""
    seed = int(rng.integers(2**32))
    noise = noisy(scene.condition, scene.original, scene.labels, scene.lengths, scene.key, seed).astype(np.float64)
    return rounded(scene.clips + strength * (noise - scene.original)), {}


def fill_places(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    """Inpaint every stretch that the mark touches, and `strength` frames on each side."""
    cleaned = scene.clips.copy()
    for row, (mask, length) in enumerate(zip(places(scene), scene.lengths, strict=True)):
        edges = np.flatnonzero(np.diff(mask[:length].astype(np.int8), prepend=0, append=0))
        for start, stop in _joined(edges.reshape(-1, 2)):
            fill(cleaned[row, :length], int(start - strength), int(stop + strength), "mirror", rng)
    return cleaned, {}


def partial(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    """Replace `strength` % of the clips by their originals."""
    chosen = rng.permutation(len(scene.clips))[: round(len(scene.clips) * strength / 100)]
    mixed = scene.clips.copy()
    mixed[chosen] = scene.original[chosen]
    return mixed, {"unprotected": len(chosen)}


def leaked(how: str) -> Callable[[Scene, float, np.random.Generator], tuple[Clips, dict[str, Any]]]:
    """`strength` leaked pairs per class: "filter" filters all its clips back, a name of inpaint.FILLS inpaints them."""

    def act(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
        recipe = scene.condition.recipe
        assert isinstance(recipe, PaperRecipe)
        cleaned = scene.clips.copy()
        frames = np.full_like(scene.lengths, scene.clips.shape[1]) if _padded(scene.condition) else scene.lengths
        details: dict[str, Any] = {"filter_error_int16": [], "filter_error_float32": [], "pairs_exactly_placed": 0}
        for label in np.unique(scene.labels):
            own = np.flatnonzero(scene.labels == label)
            rows = rng.permutation(own)[: int(strength)]
            pairs = [(scene.original[row, : frames[row]], scene.clips[row, : frames[row]]) for row in rows]
            told = leak.learn(pairs, recipe)
            true = leak.true_filter(scene.key, int(label), recipe)
            details["filter_error_int16"].append(_short(leak.relative_error(told.taps, true)))
            floats = [_float_pair(before, int(label), scene.key, recipe) for before, _ in pairs]
            taps = leak.estimate(floats, [leak.locate(*pair, recipe) for pair in floats], recipe)
            details["filter_error_float32"].append(_short(leak.relative_error(taps, true)))
            details["pairs_exactly_placed"] += sum(
                starts == leak.true_starts(scene.key, int(label), recipe, len(before))
                for starts, (before, _) in zip(told.starts, pairs, strict=True)
            )
            for row in own:
                if how == "filter":
                    leak.undo(cleaned[row, : frames[row]], told, recipe)
                else:
                    leak.cover(cleaned[row, : frames[row]], told, recipe, how, rng)
        return cleaned, details

    return act


def _float_pair(before: Clips, label: int, key: Key, recipe: PaperRecipe) -> leak.Pair:
    """The pair that leaks if the data are stored as float32."""
    dry = before.astype(np.float32) / np.float32(FULL_SCALE)
    wet = dry[None].copy()
    protect(wet, [label], key, recipe=recipe)
    return dry, wet[0]


def _padded(condition: Condition) -> bool:
    """Whether places are drawn in the padded clip."""
    return condition.settings.get("place") == "padded"


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def _joined(runs: NDArray[np.int64], gap: int = 16) -> list[tuple[int, int]]:
    """Runs of touched frames, joined if less than `gap` apart: a filter may leave a frame unchanged by chance."""
    joined: list[tuple[int, int]] = []
    for start, stop in runs.tolist():
        if joined and start - joined[-1][1] < gap:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined
