"""Key, recipe, labels and lengths -> which frames of every clip are marked, and with which row of the marks.

The only file that knows where patches are (FORMAT.md, "Where the patches are").
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels import Ints, Scattering
from poscuda_fast.key import Key, check_key
from poscuda_fast.mark.filters import Filters, draw_words
from poscuda_fast.mark.labels import ClassRows, encode
from poscuda_fast.mark.lines import Lines
from poscuda_fast.mark.marks import draw_marks
from poscuda_fast.mark.patches import Patches
from poscuda_fast.mark.shares import Tags
from poscuda_fast.recipe import USUAL_RATE, PaperRecipe, Recipe, check_rate, check_snr
from poscuda_fast.results import Settings
from poscuda_fast.secrecy import Secret

CLIPS_PER_STEP = 1 << 16  # bounds a plan's temporary arrays
PATCHES_PER_BATCH = 1 << 16  # their places take 32 bytes each: 2 MiB at most
BATCH_BYTES = 4 << 20  # several forms of a batch are in memory at once, and must stay below 64 MiB together


Rates = Ints | int | None  # Hz, of each clip or of all; None if nobody said


class Plan(Secret, ABC):
    """Which frames of a data set are marked, computed in steps so that any number of clips fits in memory.

    Attributes
    ----------
    recipe : Recipe
    marks : Marks
        What each class is marked with; secret.
    labels : ClassRows
    lengths : (n_clips,) int64
        True length of each clip in frames.
    rates : tuple of int
        The different sample rates of the clips in Hz, ascending.
    rate_assumed : bool
        Whether nobody gave a rate.
    n_frames : int
        Frames that are marked.
    n_patches : int
        Patches, in format 1; in format 2 clips that are not empty.
    tags : Tags or None
        Which clips are marked, if only a share of them is. The others have no patch, and a length of 0 here.
    """

    n_frames: int
    n_patches: int

    def __init__(
        self, key: Key, recipe: Recipe, labels: ClassRows, lengths: Ints, rates: Rates, tags: Tags | None = None
    ) -> None:
        self.recipe = recipe
        self.labels = labels
        self.tags = tags
        self.lengths = lengths if tags is None else np.where(tags.chosen, lengths, 0)
        found, which = np.unique(USUAL_RATE if rates is None else rates, return_inverse=True)
        self.rates = tuple(map(check_rate, found.tolist())) or (USUAL_RATE,)
        self.rate_assumed = rates is None
        self._rates_given = rates
        self._rate_of = which.astype(np.int32) if len(found) > 1 else None
        self.marks = draw_marks(key, labels.tokens, recipe, self.rates)
        self._fingerprint = key.fingerprint

    def __repr__(self) -> str:
        return f"Plan({len(self.lengths)} clips)"

    def settings(self) -> Settings:
        """What a report says of the run."""
        return Settings(self._fingerprint, self.recipe.to_dict(), self.rates, self.rate_assumed, self.labels.sizes())

    def marks_clip(self, clip: int) -> bool:
        """Whether a clip is one of those that are marked: all, unless only a share is."""
        return self.tags is None or bool(self.tags.chosen[clip])

    @property
    def untagged(self) -> int:
        """How many clips are left as they are, since only a share is marked."""
        return 0 if self.tags is None else self.tags.untagged

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """The counts of a report that are known before any sample is read."""

    @abstractmethod
    def batches(self, frame_bytes: int | None, *, skip: int = 0) -> Iterator[Patches]:
        """All patches in clip order except the first ones with `skip` frames, in batches.

        A batch has at most `PATCHES_PER_BATCH` patches, and about `BATCH_BYTES` if the bytes of a frame are given.
        """

    @abstractmethod
    def of_clips(self, clips: Ints) -> Patches:
        """The patches of some clips, clip after clip."""

    def of_clip(self, clip: int) -> Patches:
        """The patches of one clip."""
        return self.of_clips(np.array([clip]))

    def parts_of(self, clip: int) -> Iterator[Patches]:
        """The patches of one clip in order, in groups of at most `PATCHES_PER_BATCH`."""
        yield self.of_clip(clip)

    def with_recipe(self, key: Key, recipe: Recipe) -> Plan:
        """The same clips under another recipe of the same format."""
        return type(self)(key, recipe, self.labels, self.lengths, self._rates_given, self.tags)

    def of_all(self, key: Key, lengths: Ints) -> Plan:
        """The plan of all clips, which have these lengths, where only a share is marked."""
        return self if self.tags is None else type(self)(key, self.recipe, self.labels, lengths, self._rates_given)

    def recorded(self, key: Key, recipe: Recipe, snr: float | None) -> Plan:
        """The same plan, with the strength of a recorded run if `snr` asks for one."""
        if snr is None or type(recipe) is not type(self.recipe):
            return self
        check_snr(snr, self.recipe)
        return self.with_recipe(key, recipe)

    def rows_of(self, clips: slice | Ints) -> Ints:
        """The row of `marks` that belongs to each of `clips`."""
        rows = self.labels.rows_of(clips)
        return rows if self._rate_of is None else rows + self._rate_of[clips] * np.int64(len(self.labels.tokens))

    def rows_of_all(self) -> NDArray[np.int32]:
        """The row of `marks` that belongs to each clip."""
        rows: NDArray[np.int32] = np.take(self.labels.table, self.labels.values)
        return rows if self._rate_of is None else rows + self._rate_of * np.int32(len(self.labels.tokens))

    def digest(self) -> bytes:
        """SHA-256 over every clip's class, length and sample rate: equal only if these are."""
        state = hashlib.sha256()
        for token in self.labels.tokens:
            state.update(len(token).to_bytes(4, "big") + token)
        state.update(repr(self.rates).encode())
        for clips in self._steps():
            state.update(self.rows_of(clips).astype("<i8").tobytes())
            state.update(self.lengths[clips].astype("<i8").tobytes())
        return state.digest()

    def _steps(self) -> Iterator[slice]:
        for first in range(0, len(self.lengths), CLIPS_PER_STEP):
            yield slice(first, min(first + CLIPS_PER_STEP, len(self.lengths)))


class SteadyPlan(Plan):
    """Format 2: every frame of every clip."""

    marks: Lines

    def __init__(
        self, key: Key, recipe: Recipe, labels: ClassRows, lengths: Ints, rates: Rates, tags: Tags | None = None
    ) -> None:
        super().__init__(key, recipe, labels, lengths, rates, tags)
        same, times = _told_apart(self.lengths)
        self.n_frames = times * int(same.sum())
        self.n_patches = times * int(np.count_nonzero(same))

    def counts(self) -> dict[str, int]:
        return {"clips": len(self.lengths), "classes": len(self.labels.tokens), "untagged": self.untagged}

    def batches(self, frame_bytes: int | None, *, skip: int = 0) -> Iterator[Patches]:
        most = self.n_frames if frame_bytes is None else max(1, BATCH_BYTES // max(1, frame_bytes))
        for clips in self._steps():
            ends = np.cumsum(self.lengths[clips])
            total = int(ends[-1])
            first = min(skip, total)
            skip -= first
            while first < total:
                # As many whole clips as fit; only a clip that does not fit alone is cut.
                whole = int(np.searchsorted(ends, first + most, side="right"))
                last = int(ends[whole - 1]) if whole and ends[whole - 1] > first else min(first + most, total)
                yield self._between(clips, ends, first, last)
                first = last

    def of_clips(self, clips: Ints) -> Patches:
        clips = clips[self.lengths[clips] > 0]
        return Patches(clips, np.zeros(len(clips), np.int64), self.lengths[clips], self.rows_of(clips))

    def _between(self, clips: slice, ends: Ints, first: int, last: int) -> Patches:
        """Frames first..last-1 of the clips of one step, laid end to end."""
        chosen = slice(np.searchsorted(ends, first, side="right"), np.searchsorted(ends, last, side="left") + 1)
        begins = ends[chosen] - self.lengths[clips][chosen]
        starts = np.maximum(first - begins, 0)
        sizes = np.minimum(last, ends[chosen]) - begins - starts
        numbers = np.arange(clips.start, clips.stop)[chosen]
        full = sizes > 0  # clips of no frames have no patch
        if not full.all():
            numbers, starts, sizes = numbers[full], starts[full], sizes[full]
        return Patches(numbers, starts, sizes, self.rows_of(numbers))


class ScatteredPlan(Plan):
    """Format 1: short patches at places that the key gives."""

    recipe: PaperRecipe
    marks: Filters

    def __init__(
        self, key: Key, recipe: PaperRecipe, labels: ClassRows, lengths: Ints, rates: Rates, tags: Tags | None = None
    ) -> None:
        super().__init__(key, recipe, labels, lengths, USUAL_RATE, tags)  # filters are the same at every rate
        del rates
        self.n_patches = self.n_frames = self._n_short = 0
        most = np.zeros(len(labels.tokens), np.int64)
        same, times = _told_apart(self.lengths)
        for first in range(0, len(same), CLIPS_PER_STEP):
            some = same[first : first + CLIPS_PER_STEP]
            sizes, counts = shape(recipe, some)
            self.n_patches += times * int(counts.sum())
            self.n_frames += times * int((sizes * counts).sum())
            self._n_short += times * int(np.count_nonzero(some < recipe.patch))
            if recipe.every is None or times > 1:
                np.maximum(most, counts.max(), out=most)
            else:
                np.maximum.at(most, labels.rows_of(slice(first, first + len(some))), counts)
        drawn = [draw_words(key, token, int(n)) for token, n in zip(labels.tokens, most, strict=True)]
        self._words = np.concatenate([*drawn, np.empty(0, np.uint32)])
        self._first_word = np.cumsum(most) - most

    @property
    def scattering(self) -> Scattering:
        """What a GPU computes the places of all patches from."""
        recipe = self.recipe
        return Scattering(self._words, self._first_word, recipe.patch, recipe.patches, recipe.every or 0)

    def counts(self) -> dict[str, int]:
        n_short = self._n_short - self.untagged  # which have a length of 0 here
        n_classes = len(self.labels.tokens)
        return {"clips": len(self.lengths), "classes": n_classes, "short_clips": n_short, "untagged": self.untagged}

    def batches(self, frame_bytes: int | None, *, skip: int = 0) -> Iterator[Patches]:
        most = PATCHES_PER_BATCH
        if frame_bytes is not None:
            most = max(1, min(most, BATCH_BYTES // (self.recipe.patch * max(1, frame_bytes))))
        for clips in self._steps():
            sizes, counts = shape(self.recipe, self.lengths[clips])
            ends = np.cumsum(counts)
            total = int(ends[-1])
            frames = int((sizes * counts).sum())
            if skip >= frames:
                skip -= frames
                continue
            begin = 0
            if skip:
                begin = int(np.searchsorted(np.cumsum(np.repeat(sizes, counts)), skip, side="left")) + 1
                skip = 0
            for first in range(begin, total, most):
                if counts.max() == total // len(counts) == 1:  # one for each clip, as is usual
                    yield self._place_one(slice(clips.start + first, clips.start + min(first + most, total)))
                    continue
                order = np.arange(first, min(first + most, total))
                local = np.searchsorted(ends, order, side="right")
                yield self._place(local + clips.start, order - (ends - counts)[local], sizes[local], counts[local])

    def of_clips(self, clips: Ints) -> Patches:
        sizes, counts = shape(self.recipe, self.lengths[clips])
        order = np.repeat(np.arange(len(clips)), counts)
        numbers = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self._place(clips[order], numbers, sizes[order], counts[order])

    def parts_of(self, clip: int) -> Iterator[Patches]:
        sizes, counts = shape(self.recipe, self.lengths[[clip]])
        for first in range(0, int(counts[0]), PATCHES_PER_BATCH):
            numbers = np.arange(first, min(first + PATCHES_PER_BATCH, int(counts[0])))
            one = np.zeros_like(numbers)
            yield self._place(one + clip, numbers, one + sizes[0], one + counts[0])

    def _place_one(self, clips: slice) -> Patches:
        """The patch of each of some clips that have one."""
        lengths, rows = self.lengths[clips], self.rows_of(clips)
        sizes = np.minimum(self.recipe.patch, lengths)
        starts = _scale(self._words[self._first_word[rows]], lengths - sizes + 1)
        return Patches(np.arange(clips.start, clips.stop), starts, sizes, rows)

    def _place(self, clips: Ints, numbers: Ints, sizes: Ints, counts: Ints) -> Patches:
        """Patch `numbers[i]` of the `counts[i]` patches of `clips[i]`: each anywhere in its share of the clip."""
        rows = self.rows_of(clips)
        free = self.lengths[clips] - counts * sizes + 1
        lo = _multiply_divide(free, numbers, counts)
        hi = _multiply_divide(free, numbers + 1, counts)
        words = self._words[self._first_word[rows] + numbers]
        return Patches(clips, numbers * sizes + lo + _scale(words, hi - lo), sizes, rows)


def make_plan(
    key: Key,
    recipe: Recipe,
    labels: Any,
    classes: Sequence[str] | None,
    lengths: Ints,
    rates: Rates = None,
    tags: Tags | None = None,
) -> Plan:
    """The plan for clips of these lengths in frames and rates in Hz; checks the other arguments, which are a user's.

    `tags` says which clips are marked, if only a share is.
    """
    check_key(key)
    return plan_of(key, recipe, encode(labels, classes, len(lengths)), lengths, rates, tags)


def plan_of(
    key: Key, recipe: Recipe, labels: ClassRows, lengths: Ints, rates: Rates = None, tags: Tags | None = None
) -> Plan:
    """The plan for clips whose labels are encoded already."""
    if isinstance(recipe, PaperRecipe):
        return ScatteredPlan(key, recipe, labels, lengths, rates, tags)
    return SteadyPlan(key, recipe, labels, lengths, rates, tags)


def _told_apart(lengths: Ints) -> tuple[Ints, int]:
    """Lengths, and how often each counts: of clips of one length, as those of an array, one that stands for all."""
    return (lengths[:1], len(lengths)) if lengths.strides == (0,) and len(lengths) else (lengths, 1)


def shape(recipe: PaperRecipe, lengths: Ints) -> tuple[Ints, Ints]:
    """Format 1: for each clip, the frames in each of its patches and the number of patches."""
    sizes = np.minimum(recipe.patch, lengths)
    if recipe.every is None and recipe.patches == 1:
        return sizes, np.minimum(1, lengths)
    if recipe.every is None:
        return sizes, np.minimum(recipe.patches, lengths // np.maximum(sizes, 1))
    return sizes, np.where(lengths > 0, np.maximum(1, lengths // recipe.every), 0)


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
    if int(spans.max(initial=0)) >> 32 == 0:
        wide *= span
        wide >>= np.uint64(32)
        return wide.view(np.int64)
    high = wide * (span >> np.uint64(32))
    low = wide * (span & np.uint64(0xFFFFFFFF)) >> np.uint64(32)
    scaled: Ints = (high + low).astype(np.int64)
    return scaled
