"""Looks at a few clips before any is marked: whether the mark would protect them, and how loud it would be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels import TOP, Engine, Ints
from poscuda_fast.key import Key
from poscuda_fast.mark.lines import Lines
from poscuda_fast.mark.packed import mark_dense
from poscuda_fast.mark.patches import Patches
from poscuda_fast.mark.plan import Plan
from poscuda_fast.recipe import STRENGTHS, Recipe, check_snr

MOST_CLIPS = 256  # that are looked at, spread over the data
MOST_BYTES = 16 << 20  # that are looked at: of long clips, the beginnings
COPIED_BYTES = 1 << 20  # that are copied at a time: they stay in the cache
MOST_PEAK = 4.0  # of the median clip in float32, whose full scale is 1
MOST_SATURATED = 0.01  # of the samples


class Readable(Protocol):
    """Clips of one dtype; see `arrays.layouts.Clips`."""

    channels: int
    dtype: np.dtype[Any]

    def measure(self, patches: Patches, engine: Engine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The energy and the peak of each patch."""

    def read(self, patches: Patches) -> NDArray[Any]:
        """A dense copy of the patches."""


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
    """

    ratios: NDArray[np.float64]
    peaks: NDArray[np.float64]
    silent: int
    saturated: int
    samples: int

    @staticmethod
    def joined(looks: Iterable[Look]) -> Look:
        """Several looks as one."""
        ratios, peaks, *counts = zip(*[dataclasses.astuple(look) for look in looks], strict=True)
        return Look(np.concatenate(ratios), np.concatenate(peaks), *map(sum, counts))

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


def judged(plan: Plan, key: Key, snr: float | None, look: Callable[[Plan], Look]) -> tuple[Plan, tuple[str, ...]]:
    """The plan, with the strength that `snr` asks for; and notes for the report. `look` looks at some of the clips.

    ValueError if the mark could not protect, or `snr` cannot be reached; and whatever `look` raises.
    """
    if snr is not None:
        snr = check_snr(snr, plan.recipe)
    if not plan.marks.steady or not len(plan.lengths):
        return plan, ()
    seen = look(plan)
    if snr is not None:
        strength = seen.strength(snr, Recipe.strong().strength)
        plan = plan.with_recipe(key, Recipe.strong(strength))
        seen = look(plan)
    seen.refuse(plan.recipe)
    return plan, seen.notes()


def chosen_clips(n_clips: int) -> Ints:
    """The numbers of the clips to look at."""
    return np.unique(np.linspace(0, max(0, n_clips - 1), min(n_clips, MOST_CLIPS)).astype(np.int64))


def look(audio: Readable, plan: Plan, engine: Engine) -> Look:
    """Look at some clips of an array under format 2."""
    return look_at(audio, plan.marks, plan.of_clips(chosen_clips(len(plan.lengths))), engine)


def look_at(audio: Readable, marks: Any, patches: Patches, engine: Engine) -> Look:
    """Look at some whole clips under the lines of format 2."""
    most = max(1, MOST_BYTES // max(1, len(patches) * audio.channels * audio.dtype.itemsize))
    patches = dataclasses.replace(patches, sizes=np.minimum(patches.sizes, most))
    with np.errstate(over="ignore", invalid="ignore"):
        energies, peaks = audio.measure(patches, engine)
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
    )


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
