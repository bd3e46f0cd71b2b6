"""What leaked pairs, clips before and after protection, reveal about their class, and how far that undoes the mark.

The method is public, only the key is secret: the attacker knows the recipe, and so where in a clip each patch
can lie. One pair gives the exact places in that clip, the class's filter by least squares, and a few candidate places
in every other clip of the class. The likeliest of these is filtered back by the Wiener inverse under the clip's own
spectrum.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, toeplitz

from experiments.attacks.audio import Clips, Ints, rounded
from experiments.attacks.inpaint import fill
from poscuda_fast import Key, PaperRecipe, protect

ROUNDING = 1 / 12  # variance of rounding to int16
MOST_CANDIDATES = 16  # places tried for one patch; evenly spread where more are possible

Wave = NDArray[Any]  # (frames,), in any scale
Pair = tuple[Wave, Wave]  # before and after
Taps = NDArray[np.float64]  # (taps,)


@dataclasses.dataclass(frozen=True)
class Leak:
    """What leaked pairs of one class reveal.

    Attributes
    ----------
    fractions : list of (float, float)
        For each patch, the bounds of its place within the places it may have: low <= place < high.
    taps : array of float64, shape (taps,)
        The filter by least squares.
    starts : list of list of int
        For each pair, the patches' places in its clip; -1 where nothing changed.
    """

    fractions: list[tuple[float, float]]
    taps: Taps
    starts: list[list[int]]


def slots(recipe: PaperRecipe, length: int) -> tuple[int, list[tuple[int, int]]]:
    """Frames of a patch, and for each patch of a clip the first place it may have and how many there are."""
    size = min(recipe.patch, length)
    if not length:
        return 0, []
    count = min(recipe.patches, length // size) if recipe.every is None else max(1, length // recipe.every)
    free = length - count * size + 1
    lows = [free * patch // count for patch in range(count + 1)]
    # A patch whose share of the free places is empty has its first place all the same.
    return size, [
        (patch * size + low, max(1, high - low)) for patch, (low, high) in enumerate(itertools.pairwise(lows))
    ]


def locate(before: Wave, after: Wave, recipe: PaperRecipe) -> list[int]:
    """The exact place of each patch of a leaked clip; -1 where nothing changed.

    A filter may leave frames unchanged by chance, so there are a few candidates: the one that a filter explains best
    is chosen.
    """
    size, places = slots(recipe, len(before))
    changed = np.flatnonzero(before != after)
    starts = []
    for first, count in places:
        own = changed[(changed >= first) & (changed < first + count - 1 + size)]
        if not own.size:
            starts.append(-1)
            continue
        candidates = range(max(first, int(own[-1]) - size + 1), min(first + count - 1, int(own[0])) + 1)
        misfits = [_misfit(before[start : start + size], after[start : start + size], recipe) for start in candidates]
        starts.append(candidates[int(np.argmin(misfits))] if misfits else -1)
    return starts


def estimate(pairs: Sequence[Pair], starts: Sequence[list[int]], recipe: PaperRecipe) -> Taps:
    """The filter that turns the original patches of a class's clips into the protected ones, by least squares.

    Parameters
    ----------
    pairs : sequence of (before, after)
    starts : sequence of list of int
        The places of the patches of each pair; those of -1 are left out.
    recipe : PaperRecipe

    Returns
    -------
    array of float64, shape (taps,)
        One tap at the centre, which changes nothing, if there is no patch to learn from.
    """
    designs, wets = [], []
    for (before, after), places in zip(pairs, starts, strict=True):
        size = min(recipe.patch, len(before))
        for start in places:
            if start >= 0:
                designs.append(_design(before[start : start + size], recipe.taps))
                wets.append(after[start : start + size].astype(np.float64))
    if not designs:
        return np.eye(1, recipe.taps, (recipe.taps - 1) // 2)[0]
    taps: Taps = np.linalg.lstsq(np.concatenate(designs), np.concatenate(wets), rcond=None)[0]
    return taps


def learn(pairs: Sequence[Pair], recipe: PaperRecipe) -> Leak:
    """Everything that leaked pairs of one class reveal.

    Parameters
    ----------
    pairs : sequence of (before, after)
        Each two arrays of shape (frames,): a clip's true frames, in any scale.
    recipe : PaperRecipe
    """
    starts = [locate(before, after, recipe) for before, after in pairs]
    fractions: list[tuple[float, float]] = []
    for (before, _), found in zip(pairs, starts, strict=True):
        for patch, (start, (first, count)) in enumerate(zip(found, slots(recipe, len(before))[1], strict=True)):
            low, high = ((start - first) / count, (start - first + 1) / count) if start >= 0 else (0.0, 1.0)
            if patch == len(fractions):
                fractions.append((low, high))
            else:  # a place of one class is one number: every pair narrows it
                fractions[patch] = (max(low, fractions[patch][0]), min(high, fractions[patch][1]))
    return Leak(fractions, estimate(pairs, starts, recipe), starts)


def relative_error(found: Taps, true: Taps) -> float:
    """The norm of the error relative to that of the filter."""
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def true_filter(key: Key, label: int, recipe: PaperRecipe) -> Taps:
    """(taps,) a class's filter, read from the impulse response in a clip that is one single patch."""
    probe = np.zeros((1, 3 * recipe.taps), np.float32)
    probe[0, recipe.taps] = 1.0
    one = dataclasses.replace(recipe, patch=probe.shape[1], patches=1, every=None)
    protect(probe, [label], key, recipe=one)
    first = recipe.taps - (recipe.taps - 1) // 2
    return probe[0, first : first + recipe.taps].astype(np.float64)


def true_starts(key: Key, label: int, recipe: PaperRecipe, length: int) -> list[int]:
    """The places of a class's patches in a clip, read from a probe in which every marked frame changes."""
    size, places = slots(recipe, length)
    found = []
    for first, count in places:
        # One tap scales a patch of a constant as a whole, and nothing else changes.
        probe = np.ones((1, length), np.float32)
        protect(probe, [label], key, recipe=dataclasses.replace(recipe, taps=1, identity=False))
        found.append(first + int(np.argmax(probe[0, first : first + count - 1 + size] != 1.0)))
    return found


def undo(clip: Clips, leak: Leak, recipe: PaperRecipe) -> None:
    """Filter a protected clip's patches back, in place; `clip` is its true frames."""
    size, places = slots(recipe, len(clip))
    answer = _answer(leak.taps, size)
    for (low, high), (first, count) in zip(leak.fractions, places, strict=False):
        candidates = first + _candidates(low, high, count)
        spectrum = _correlation(np.delete(clip, np.arange(candidates[0], candidates[-1] + size)), size)
        wet_spread = answer @ spectrum @ answer.T + ROUNDING * np.eye(size)
        factor = cho_factor(wet_spread, check_finite=False)
        # The likeliest place under a Gaussian: the covariance is the same for all, so its determinant does not matter.
        wets = np.stack([clip[start : start + size].astype(np.float64) for start in candidates], axis=1)
        solved = cho_solve(factor, wets, check_finite=False)
        chosen = int(np.argmin((wets * solved).sum(axis=0)))
        clip[candidates[chosen] : candidates[chosen] + size] = rounded(spectrum @ answer.T @ solved[:, chosen])


def cover(clip: Clips, leak: Leak, recipe: PaperRecipe, how: str, rng: np.random.Generator) -> None:
    """Inpaint every frame that a clip's patches may touch, in place."""
    size, places = slots(recipe, len(clip))
    for (low, high), (first, count) in zip(leak.fractions, places, strict=False):
        candidates = first + _candidates(low, high, count)
        fill(clip, int(candidates[0]), int(candidates[-1]) + size, how, rng)


def _candidates(low: float, high: float, count: int) -> Ints:
    """The places, out of `count`, of a patch whose fraction lies between two bounds."""
    first = min(int(low * count), count - 1)
    last = min(max(first, int(np.ceil(high * count)) - 1), count - 1)
    spread: Ints = np.unique(np.linspace(first, last, min(last - first + 1, MOST_CANDIDATES)).astype(np.int64))
    return spread


def _design(dry: Wave, taps: int) -> NDArray[np.float64]:
    """(size, taps) such that design @ filter is the dry patch convolved as the method does: zero outside itself."""
    centre = (taps - 1) // 2
    padded = np.concatenate([np.zeros(taps), dry.astype(np.float64), np.zeros(taps)])
    shifted: NDArray[np.float64] = np.stack(
        [padded[taps + centre - tap : taps + centre - tap + len(dry)] for tap in range(taps)], axis=1
    )
    return shifted


def _answer(taps: Taps, size: int) -> NDArray[np.float64]:
    """(size, size) the matrix that filters a patch."""
    centre = (len(taps) - 1) // 2
    padded = np.concatenate([taps, np.zeros(max(0, size - len(taps)) + centre + 1)])
    column, row = padded[centre : centre + size], np.zeros(size)
    row[: min(size, centre + 1)] = taps[centre::-1][:size]
    matrix: NDArray[np.float64] = toeplitz(column, row)
    return matrix


def _misfit(dry: Wave, wet: Wave, recipe: PaperRecipe) -> float:
    """The squared error of a patch that no filter explains."""
    design = _design(dry, recipe.taps)
    taps = np.linalg.lstsq(design, wet.astype(np.float64), rcond=None)[0]
    return float(np.sum((wet - design @ taps) ** 2))


def _correlation(around: Clips, size: int) -> NDArray[np.float64]:
    """(size, size) the covariance of `size` frames in a row, from frames that are not marked."""
    wave = around.astype(np.float64)
    frames = 1 << int(np.ceil(np.log2(max(2, len(wave) + size))))
    power = np.abs(np.fft.rfft(wave, frames)) ** 2
    lags = np.fft.irfft(power, frames)[:size] / max(1, len(wave))
    lags[0] = 1.001 * lags[0] + 1.0  # never singular, not even for silence
    covariance: NDArray[np.float64] = toeplitz(lags)
    return covariance
