"""Looks at a few clips first: whether they are marked already, whether the mark would protect, how loud it would be."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.errors import SidecarError, warn_of_labels
from poscuda_fast.kernels import TOP, Engine, Ints
from poscuda_fast.key import Key
from poscuda_fast.mark.labels import label_of
from poscuda_fast.mark.lines import Lines
from poscuda_fast.mark.packed import mark_dense
from poscuda_fast.mark.patches import Patches
from poscuda_fast.mark.plan import Plan
from poscuda_fast.mark.shares import Words, words_of_names, words_of_rows
from poscuda_fast.mark.traces import SURE, Traces, traces
from poscuda_fast.recipe import MILLION, STRENGTHS, Recipe, check_snr

MOST_CLIPS = 256  # that are looked at, spread over the data
MOST_BYTES = 16 << 20  # that are looked at: of long clips, the beginnings
COPIED_BYTES = 1 << 20  # that are copied at a time: they stay in the cache
MOST_PEAK = 4.0  # of the median clip in float32, whose full scale is 1
MOST_SATURATED = 0.01  # of the samples
MOST_TRACED = 1 << 18  # frames in which marks are looked for: a few ms
MOST_TRACED_TO_UNDO = 1 << 22  # likewise, before marks are subtracted
FEWEST_PERIODS = 2  # of each clip, in which they are looked for nevertheless
FIRST = (4, 16, 64)  # clips that are marked first whatever the share, in which marks are looked for
SURE_OF_NONE = 6.0  # errors by which clips of a share must lack half of their marks to be taken for unmarked
FEWEST_FIRST = 2  # of them, of which both look marked
BYTES_OF_FIRST = 1 << 16  # of each of them, in a file
TRACED_OF_FIRST = 1 << 11  # frames
MOST_DRAWN = 1 << 16  # clips of an array among which they are
FEWEST_ALIKE = 8  # clips of a class in memory, by which it is told that it is marked: a batch may hold any clip
LEAST_LEVEL = 0.5  # of its mark, that the median clip of a protected class holds
NAMES_SHOWN = 10
LEAST_OFF = 0.1  # of a strength, that is taken for another one

HOW_UNDONE = (
    "If their sidecar was moved or renamed, give its path (sidecar=PATH); if it is lost, undo first without it "
    "(restore_array or restore_folder with without_sidecar=True)."
)


class Readable(Protocol):
    """Clips of one dtype; see `arrays.layouts.Clips`."""

    channels: int
    dtype: np.dtype[Any]

    def measure(self, patches: Patches, engine: Engine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The energy and the peak of each patch."""

    def read(self, patches: Patches) -> NDArray[Any]:
        """A dense copy of the patches."""


class Looker(Protocol):
    """Looks at some of the clips of a plan; or at `first`, and there for marks alone."""

    def __call__(self, plan: Plan, /, *, first: Ints | None = None) -> Look:
        """What these clips are like."""


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """What some clips are like, and what format 2 would do to them.

    Attributes
    ----------
    ratios : (n,) float64
        Energy of each clip over that of its mark; without clips that are silent or not finite.
    peaks : (n,) float64
        Largest magnitude of each of these in float32; empty for integers.
    silent : int
        Clips that hold only zeros.
    saturated, samples : int
        How many integer samples the mark pushes beyond full scale, and how many were looked at.
    traces : Traces
        How much of their marks the clips hold already.
    """

    ratios: NDArray[np.float64]
    peaks: NDArray[np.float64]
    silent: int
    saturated: int
    samples: int
    traces: Traces

    @staticmethod
    def nothing() -> Look:
        """A look at no clips."""
        return Look(np.empty(0), np.empty(0), 0, 0, 0, Traces.none())

    @staticmethod
    def only(traces: Traces) -> Look:
        """A look for marks alone."""
        return dataclasses.replace(Look.nothing(), traces=traces)

    @staticmethod
    def joined(looks: Iterable[Look]) -> Look:
        """Several looks as one."""
        some = list(looks)
        return Look(
            np.concatenate([look.ratios for look in some]),
            np.concatenate([look.peaks for look in some]),
            sum(look.silent for look in some),
            sum(look.saturated for look in some),
            sum(look.samples for look in some),
            Traces.joined(look.traces for look in some),
        )

    @property
    def snr_db(self) -> float | None:
        """How far the median clip is above its mark, in dB; None if all are silent."""
        return None if not len(self.ratios) else 10 * float(np.log10(np.median(self.ratios)))

    def refuse(self, recipe: Recipe) -> None:
        """ValueError if the mark would be drowned, or would clip the recordings."""
        if len(self.peaks) and float(np.median(self.peaks)) > MOST_PEAK:
            raise ValueError(
                f"The median clip has a peak of {np.median(self.peaks):.4g}, and float32 samples have a full scale of "
                f"1: the mark would be far too quiet to protect. Scale the samples, for example by 1/32768. Nothing "
                f"was written."
            )
        if self.saturated > MOST_SATURATED * self.samples:
            raise ValueError(
                f"{100 * self.saturated / self.samples:.1f} % of the samples would be pushed beyond full scale by "
                f"{recipe!r}; use a lower strength, or make the recordings quieter if they are at full scale already. "
                f"Nothing was written."
            )

    def notes(self) -> tuple[str, ...]:
        """What a user should know before publishing."""
        found = []
        snr, n = self.snr_db, len(self.ratios) + self.silent
        if snr is not None and snr < 0:
            found.append(f"the mark is louder than the recordings: the median clip is {-snr:.1f} dB below its mark")
        elif snr is not None:
            found.append(f"the median clip is {snr:.1f} dB above its mark")
        quiet = int((self.ratios < 1).sum()) + self.silent
        if quiet:
            found.append(f"quieter than their mark: {quiet} of the {n} clips that were looked at")
        return tuple(found)

    def strength(self, snr_db: float, present: float) -> float:
        """The strength at which the median clip is so many dB above its mark; `present` is what was looked at with.

        ValueError if all clips are silent, or no strength reaches that.
        """
        if self.snr_db is None:
            raise ValueError(
                "snr was given, but the clips that were looked at are silent or empty; give a strength instead. "
                "Nothing was written."
            )
        found = float(f"{present * 10 ** ((self.snr_db - snr_db) / 20):.4g}")
        least, most = STRENGTHS
        if not least <= found <= most:
            raise ValueError(
                f"snr is {snr_db:g} dB, for which the strength would be {found:g}; it must be from {least:g} to "
                f"{most:g}, which is an SNR from {self.snr_db - 20 * np.log10(most / present):.1f} to "
                f"{self.snr_db - 20 * np.log10(least / present):.1f} dB here. Nothing was written."
            )
        return found


def judged(
    plan: Plan,
    key: Key,
    snr: float | None,
    look: Looker,
    *,
    known: bool = False,
    in_memory: bool = False,
    names: Sequence[str] | None = None,
) -> tuple[Plan, tuple[str, ...]]:
    """The plan, with the strength that `snr` asks for; and notes for the report. `look` looks at some of the clips.

    `known` says that a sidecar tells whether the clips are marked already. `names` are those of files; the clips of an
    array have none.

    SidecarError, or in memory ValueError, if they are; ValueError if the mark could not protect, or `snr` cannot be
    reached; and whatever `look` raises.
    """
    if snr is not None:
        snr = check_snr(snr, plan.recipe)
    doubt = plan.labels.doubt()
    if doubt is not None:
        warn_of_labels(doubt)
    told = _notes_on_share(plan)
    if not plan.marks.steady or not len(plan.lengths):
        return plan, told
    seen = look(plan)
    if not known:
        refuse_marked(plan, seen.traces, in_memory=in_memory)
        if plan.tags is not None or not in_memory:  # a second look takes as long as marking a hundred clips in memory
            n_drawn = min(len(plan.lengths), MOST_DRAWN)
            words = words_of_rows(key, n_drawn) if names is None else words_of_names(key, names)
            refuse_share_marked(plan, words, look, in_memory=in_memory)
    if snr is not None:
        strength = seen.strength(snr, Recipe.strong().strength)
        plan = plan.with_recipe(key, Recipe.strong(strength))
        seen = look(plan)
    seen.refuse(plan.recipe)
    return plan, (*told, *seen.notes())


def _notes_on_share(plan: Plan) -> tuple[str, ...]:
    """What a user should know where only a share of the clips is marked."""
    if plan.tags is None:
        return ()
    chosen = np.flatnonzero(plan.tags.chosen)
    told = (
        f"a share of {plan.tags.share / MILLION:g} is marked, {len(chosen):,} of {len(plan.lengths):,} clips: that is "
        f"to prove use, and does not make the data unlearnable"
    )
    bare = len(plan.labels.tokens) - len(np.unique(plan.labels.rows_of(chosen)))
    n_classes = len(plan.labels.tokens)
    return told, *[f"no clip is marked in {bare:,} of the {n_classes:,} classes: give a larger share"] * bool(bare)


def refuse_marked(plan: Plan, traces: Traces, *, in_memory: bool = False) -> None:
    """SidecarError if clips of any class are marked with this key already: they would be marked twice.

    In memory, ValueError, and only by classes of which several clips were looked at.
    """
    found = _by_class(plan, traces)
    marked = found.some(found.sure & (found.clips >= (FEWEST_ALIKE if in_memory else 1)))
    if not len(marked.rows):
        return
    what = (
        f"The data are marked with this key already: {len(marked.rows)} of the {len(found.rows)} classes that were "
        f"looked at ({_names(plan, marked)}) hold their marks, and would be marked twice."
    )
    if in_memory:
        raise ValueError(f"{what} Protect a fresh copy of the originals. Nothing was written.")
    raise SidecarError(f"{what} {HOW_UNDONE} Nothing was written.")


def refuse_share_marked(
    plan: Plan, words: Words, look: Looker, among: Ints | None = None, *, in_memory: bool = False
) -> None:
    """SidecarError, or in memory ValueError, if a share of the clips is marked already, however small.

    `words` are those of the first clips, or of `among`. Clips with the lowest words are marked in any share.
    """
    if in_memory and len(words) < FEWEST_ALIKE:
        return
    numbers = np.arange(len(words)) if among is None else among
    order = np.argsort(words, kind="stable")
    fewest = FEWEST_ALIKE if in_memory else FEWEST_FIRST
    if not any(found.sure.all() for found in _of_first(plan, numbers[order], look, fewest)):
        return
    what = (
        "Some clips of the data are marked with this key already, as where only a share of them was to be (share), "
        "and would be marked twice."
    )
    if in_memory:
        raise ValueError(f"{what} Protect a fresh copy of the originals. Nothing was written.")
    raise SidecarError(f"{what} {HOW_UNDONE} Nothing was written.")


def refuse_other_share(plan: Plan, whole: Plan, words: Words, look: Looker, *, all_clips: bool) -> None:
    """SidecarError if more clips are marked than a plan says; or, if all of its clips must be, fewer.

    `whole` is the plan of all clips, of the first of which `words` are.
    """
    order = np.argsort(words, kind="stable")
    chosen = plan.lengths[order] > 0
    if any(found.sure.all() for found in _of_first(whole, order[~chosen], look, FEWEST_FIRST)):
        raise SidecarError(
            "More clips are marked than those of this share: give the one that they were protected with (share=NUMBER; "
            "without it, all clips). Nothing was written."
        )
    last = _of_first(whole, order[chosen][::-1], look, FEWEST_FIRST) if all_clips else ()
    if any(found.levels[0] <= LEAST_LEVEL and found.errors.max() < LEAST_LEVEL / SURE_OF_NONE for found in last):
        raise SidecarError(
            "Fewer clips are marked than those of this share, or than all if none is given: give the one that they "
            "were protected with (share=NUMBER), or a new path for a copy (dst=PATH). Nothing was written."
        )


def _of_first(plan: Plan, numbers: Ints, look: Looker, fewest: int) -> Iterator[Traces]:
    """The medians over the first few of some clips and over more of them, if `fewest` tell, whatever their class."""
    first = numbers[plan.lengths[numbers] > 0][: FIRST[-1]]
    seen, begin = Traces.none(), 0
    for end in FIRST:
        if len(first) <= begin:
            return
        seen = Traces.joined([seen, look(plan, first=first[begin:end]).traces])
        begin = end
        if len(seen.rows) >= fewest:
            yield seen.by_class(np.zeros(len(seen.rows), np.int64))


def refuse_unmarked(plan: Plan, traces: Traces, *, all_clips: bool) -> None:
    """SidecarError unless clips of every class hold the mark of this key, label and strength; or unless all do."""
    found = _by_class(plan, traces)
    if not len(found.rows):
        raise SidecarError(
            "No clip is long enough to tell whether it is marked: that takes 32 ms. Nothing was written."
        )
    levels = found.levels
    level, error = float(np.median(levels)), float(np.median(found.errors)) / len(levels) ** 0.5
    least = LEAST_LEVEL * min(1.0, level) if level > SURE * error else LEAST_LEVEL  # of another strength, all are less
    unmarked = found.some(levels <= least)
    if len(unmarked.rows):
        raise SidecarError(
            f"The data do not look marked with this key, these labels and this recipe: {len(unmarked.rows)} of the "
            f"{len(found.rows)} classes that were looked at ({_names(plan, unmarked)}) do not hold their marks. Give "
            f"the key, labels and sample rate that they were protected with. Nothing was written."
        )
    if abs(level - 1) > max(LEAST_OFF, 3 * error):
        strength = plan.recipe.to_dict()["strength"]
        raise SidecarError(
            f"The data look marked at a strength of about {level * strength:.2g}, and the recipe has {strength:g}; "
            f"give the recipe that they were protected with (strength=NUMBER). Nothing was written."
        )
    absent = int(traces.absent.sum())
    if absent and all_clips:
        raise SidecarError(
            f"{absent} of the {len(traces.rows)} clips that were looked at do not hold their marks, as where a run was "
            f"stopped or files were added; in place, nothing could be told apart later. Leave them out, or give a new "
            f"path for a copy (dst=PATH). Nothing was written."
        )


def notes_on_traces(plan: Plan, traces: Traces) -> tuple[str, ...]:
    """What the report of an undo without a sidecar says of clips that may not be marked."""
    n, absent = len(plan.lengths), int(traces.absent.sum())
    notes = []
    if absent:
        notes.append(
            f"{absent} of the {len(traces.rows):,} clips that were looked at do not hold their marks; these were "
            f"subtracted all the same, so that they are not the originals"
        )
    if len(traces.rows) < n:
        notes.append(
            f"{len(traces.rows):,} of {n:,} clips were looked at for their marks, which were subtracted from all: what "
            f"was not marked is not the original now"
        )
    return tuple(notes)


def _by_class(plan: Plan, traces: Traces) -> Traces:
    """What was found in each class, at whatever sample rate."""
    return traces.by_class(traces.rows % len(plan.labels.tokens))


def _names(plan: Plan, classes: Traces) -> str:
    """Some classes by their labels."""
    labels = [repr(label_of(plan.labels.tokens[row])) for row in classes.rows.tolist()]
    return ", ".join(labels[:NAMES_SHOWN]) + (", ..." if len(labels) > NAMES_SHOWN else "")


def clips_to_look_at(plan: Plan, among: Ints | None = None) -> Ints:
    """The numbers of some clips that are to be marked, `among` all or those with some numbers."""
    if plan.tags is not None:
        among = np.flatnonzero(plan.tags.chosen) if among is None else among[plan.tags.chosen[among]]
    return chosen_clips(len(plan.lengths)) if among is None else among[chosen_clips(len(among))]


def chosen_clips(n_clips: int) -> Ints:
    """The numbers of so many clips that are looked at."""
    return np.unique(np.linspace(0, max(0, n_clips - 1), min(n_clips, MOST_CLIPS)).astype(np.int64))


def look(
    audio: Readable, plan: Plan, engine: Engine, most_traced: int = MOST_TRACED, first: Ints | None = None
) -> Look:
    """Look at some clips of an array under format 2, and for marks in so many frames of them; or only at `first`."""
    patches = plan.of_clips(clips_to_look_at(plan) if first is None else first)
    if first is not None:
        return Look.only(traces_of(audio, plan.marks, patches, TRACED_OF_FIRST))
    return look_at(audio, plan.marks, patches, engine, most_traced // max(1, len(patches)))


def look_at(audio: Readable, marks: Any, patches: Patches, engine: Engine, traced: int) -> Look:
    """Look at some whole clips under the lines of format 2, and for marks in so many frames of each."""
    most = max(1, MOST_BYTES // max(1, len(patches) * audio.channels * audio.dtype.itemsize))
    patches = _beginnings(patches, most)
    with np.errstate(over="ignore", invalid="ignore"):
        energies, peaks = audio.measure(patches, engine)
    most_energy = peaks**2 * patches.sizes * audio.channels  # of clips so loud that a backend's sum is infinite
    energies = np.where(np.isinf(energies) & np.isfinite(peaks), most_energy, energies)
    added, loudest = _marks_of(marks, patches, audio.dtype)
    added *= audio.channels
    known = np.isfinite(energies) & (added > 0)
    heard = known & (energies > 0)
    is_float = audio.dtype.kind == "f"
    return Look(
        energies[heard] / added[heard],
        peaks[heard] if is_float else peaks[:0],
        int((known & ~heard).sum()),
        0 if is_float else _saturated(audio, marks, patches, energies, peaks, loudest, engine),
        0 if is_float else patches.n_frames * audio.channels,
        traces_of(audio, marks, patches, traced),
    )


def traces_of(audio: Readable, marks: Any, patches: Patches, most: int) -> Traces:
    """How much of their marks the beginnings of some clips hold, judged by so many frames of each; 0 is not to look."""
    if not most:
        return Traces.none()
    patches = _beginnings(patches, max(most, FEWEST_PERIODS * max(marks.periods)))
    step = max(1, COPIED_BYTES * len(patches) // max(1, patches.n_frames * audio.channels * audio.dtype.itemsize))
    parts = (patches.some(slice(first, first + step)) for first in range(0, len(patches), step))
    return Traces.joined(traces(marks, audio.read(part), part, audio.channels) for part in parts)


def _beginnings(patches: Patches, most: int) -> Patches:
    """At most so many frames of each."""
    return dataclasses.replace(patches, sizes=np.minimum(patches.sizes, most))


def _marks_of(marks: Lines, patches: Patches, dtype: np.dtype[Any]) -> tuple[NDArray[np.float64], float]:
    """(n,) the energy of one channel of the mark of each patch, all of which begin their clips; and their peak."""
    table = marks.table(dtype, 1)
    rows, own = np.unique(patches.rows, return_inverse=True)
    energies, loudest = np.zeros(len(patches)), 0.0
    for period in np.unique(table.periods[rows]).tolist():
        alike, step = np.flatnonzero(table.periods[rows] == period), max(1, COPIED_BYTES // (8 * period))
        for some in (alike[first : first + step] for first in range(0, len(alike), step)):
            mark = table.values[table.firsts[rows[some], None] + np.arange(period)].astype(np.float64)
            until = np.zeros((len(some), period + 1))  # energy of the first frames of a period
            np.cumsum(mark * mark, axis=1, out=until[:, 1:])
            here = np.isin(own, some)
            whole, rest = np.divmod(patches.sizes[here], period)
            row = np.searchsorted(some, own[here])
            energies[here] = whole * until[row, -1] + until[row, rest]
            loudest = max(loudest, float(np.abs(mark).max()))
    return energies, loudest


def _saturated(
    audio: Readable,
    marks: Lines,
    patches: Patches,
    energies: NDArray[np.float64],
    peaks: NDArray[np.float64],
    loudest: float,
    engine: Engine,
) -> int:
    """How many samples would be saturated: 0 if it cannot be too many."""
    top = TOP[audio.dtype]
    near = max(1.0, top - loudest)
    loud = patches.some(peaks >= near)
    # No more samples than this can be so large (Chebyshev); most data are settled without a copy.
    if energies[peaks >= near].sum() / near**2 <= MOST_SATURATED * patches.n_frames * audio.channels:
        return 0
    step = max(1, COPIED_BYTES * len(loud) // max(1, loud.n_frames * audio.channels * audio.dtype.itemsize))
    parts = (loud.some(slice(first, first + step)) for first in range(0, len(loud), step))
    return sum(mark_dense(audio.read(part), part, audio.channels, marks, engine) for part in parts)
