"""Key, recipe, labels and lengths -> where every patch is and which mark it gets.

The only file that knows where patches are (FORMAT.md, "Where the patches are").
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels import Ints
from poscuda_fast.key import Key, check_key
from poscuda_fast.mark.draw import draw_marks, draw_words
from poscuda_fast.mark.labels import ClassRows, encode
from poscuda_fast.recipe import PaperRecipe, Recipe, StrongRecipe
from poscuda_fast.secrecy import Secret

CLIPS_PER_STEP = 1 << 16  # bounds a plan's temporary arrays


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Patches(Secret):
    """Some patches, in order: clip number, first frame in the clip, frames, row of `Plan.marks`; all (n,) int64."""

    clips: Ints
    starts: Ints
    sizes: Ints
    rows: Ints

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def n_frames(self) -> int:
        """Frames in all patches together."""
        return int(self.sizes.sum())

    def __repr__(self) -> str:
        return f"Patches({len(self)} patches)"  # their places are secret


class Plan(Secret):
    """Where the patches of a data set are, computed in steps so that any number of clips fits in memory.

    Parameters
    ----------
    key, recipe
        As for `protect`.
    labels : ClassRows
        From `labels.encode`.
    lengths : (n_clips,) int64
        True length of each clip in frames.

    Attributes
    ----------
    marks : Marks
        The mark of each class; secret.
    n_patches, n_frames, n_short : int
        Patches, frames inside them, and clips shorter than `recipe.patch`.
    """

    def __init__(self, key: Key, recipe: Recipe, labels: ClassRows, lengths: Ints) -> None:
        self.marks = draw_marks(key, labels.tokens, recipe)
        self.recipe = recipe
        self.labels = labels
        self.lengths = lengths
        self.n_patches = self.n_frames = self.n_short = 0
        most = np.zeros(len(labels.tokens), np.int64)
        for clips in self._steps():
            sizes, counts = shape(recipe, lengths[clips])
            self.n_patches += int(counts.sum())
            self.n_frames += int((sizes * counts).sum())
            self.n_short += int((lengths[clips] < recipe.patch).sum())
            words = np.minimum(counts, 1) if isinstance(recipe, StrongRecipe) else counts
            np.maximum.at(most, labels.rows_of(clips), words)
        drawn = [draw_words(key, token, int(n)) for token, n in zip(labels.tokens, most, strict=True)]
        self._words = np.concatenate([*drawn, np.empty(0, np.uint32)])
        self._first_word = np.cumsum(most) - most

    def __repr__(self) -> str:
        return f"Plan({len(self.lengths)} clips, {self.n_patches} patches)"

    def counts(self) -> dict[str, int]:
        """The counts of a report that are known before any sample is read."""
        return {"clips": len(self.lengths), "classes": len(self.labels.tokens), "short_clips": self.n_short}

    def batches(self, most: int, *, skip: int = 0) -> Iterator[Patches]:
        """All patches in clip order except the first `skip`, at most `most` at a time."""
        for clips in self._steps():
            sizes, counts = shape(self.recipe, self.lengths[clips])
            ends = np.cumsum(counts)
            total = int(ends[-1]) if ends.size else 0
            for first in range(min(skip, total), total, most):
                order = np.arange(first, min(first + most, total))
                local = np.searchsorted(ends, order, side="right")
                yield self._place(local + clips.start, order - (ends - counts)[local], sizes[local], counts[local])
            skip = max(0, skip - total)

    def of_clip(self, clip: int) -> Patches:
        """The patches of one clip."""
        return self.of_clips(np.array([clip]))

    def of_clips(self, clips: Ints) -> Patches:
        """The patches of some clips, clip after clip."""
        sizes, counts = shape(self.recipe, self.lengths[clips])
        order = np.repeat(np.arange(len(clips)), counts)
        numbers = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self._place(clips[order], numbers, sizes[order], counts[order])

    def rows_of(self, clips: Ints) -> Ints:
        """The row of `marks` that belongs to each of `clips`."""
        return self.labels.rows_of(clips)

    def digest(self) -> bytes:
        """SHA-256 over every clip's class and length: equal only for equal labels and lengths."""
        state = hashlib.sha256()
        for token in self.labels.tokens:
            state.update(len(token).to_bytes(4, "big") + token)
        for clips in self._steps():
            state.update(self.labels.rows_of(clips).astype("<i8").tobytes())
            state.update(self.lengths[clips].astype("<i8").tobytes())
        return state.digest()

    def _steps(self) -> Iterator[slice]:
        for first in range(0, len(self.lengths), CLIPS_PER_STEP):
            yield slice(first, min(first + CLIPS_PER_STEP, len(self.lengths)))

    def _place(self, clips: Ints, numbers: Ints, sizes: Ints, counts: Ints) -> Patches:
        """Patch `numbers[i]` of the `counts[i]` patches of `clips[i]`."""
        rows = self.rows_of(clips)
        if isinstance(self.recipe, StrongRecipe):
            starts = self._in_step(self.recipe.every, clips, numbers, sizes, rows)
        else:
            starts = self._scattered(clips, numbers, sizes, counts, rows)
        return Patches(clips, starts, sizes, rows)

    def _scattered(self, clips: Ints, numbers: Ints, sizes: Ints, counts: Ints, rows: Ints) -> Ints:
        """Format 1: each patch anywhere in its share of the clip."""
        free = self.lengths[clips] - counts * sizes + 1
        lo = _multiply_divide(free, numbers, counts)
        hi = _multiply_divide(free, numbers + 1, counts)
        words = self._words[self._first_word[rows] + numbers]
        starts: Ints = numbers * sizes + lo + _scale(words, hi - lo)
        return starts

    def _in_step(self, every: int, clips: Ints, numbers: Ints, sizes: Ints, rows: Ints) -> Ints:
        """Format 2: a patch every `every` frames, the first anywhere in its share."""
        words = self._words[self._first_word[rows]]
        starts: Ints = numbers * every + _scale(words, np.minimum(self.lengths[clips], every) - sizes + 1)
        return starts


def make_plan(key: Key, recipe: Recipe, labels: Any, classes: Sequence[str] | None, lengths: Ints) -> Plan:
    """The plan for clips of these lengths; checks the other arguments, which are as the user gave them."""
    check_key(key)
    rows = encode(labels, classes, len(lengths))
    return Plan(key, recipe, rows, lengths)


def shape(recipe: Recipe, lengths: Ints) -> tuple[Ints, Ints]:
    """For each clip, the frames in each of its patches and the number of patches."""
    sizes = np.minimum(recipe.patch, lengths)
    if isinstance(recipe, PaperRecipe) and recipe.every is None:
        counts = np.minimum(recipe.patches, lengths // np.maximum(sizes, 1))
    else:
        counts = np.where(lengths > 0, np.maximum(1, lengths // (recipe.every or 1)), 0)
    return sizes, counts


def _multiply_divide(a: Ints, b: Ints, n: Ints) -> Ints:
    """a*b div n for 0 <= b <= n, exact where a*b would not fit 64 bits."""
    if bool((n == 1).all()):  # one patch a clip: the usual case, without four slow divisions
        return a * b
    quotient: Ints = np.asarray(a // n * b + a % n * b // n)
    return quotient


def _scale(words: NDArray[np.uint32], spans: Ints) -> Ints:
    """word*span >> 32, exact for spans of any length: the product is taken in two halves."""
    wide = words.astype(np.uint64)
    span = spans.astype(np.uint64)
    high = wide * (span >> np.uint64(32))
    low = wide * (span & np.uint64(0xFFFFFFFF)) >> np.uint64(32)
    scaled: Ints = (high + low).astype(np.int64)
    return scaled
