"""How loud the lines of format 2 are in some clips: whether they are marked (FORMAT.md, "Without the sidecar").

A mark repeats every 32 ms, so in each period of a marked clip the harmonics of its two lines are the mark's, plus what
the recording has there. Quiet periods tell most. What the recording may have there is judged by the harmonics beside
them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels import Ints
from poscuda_fast.mark.lines import Lines
from poscuda_fast.mark.patches import Patches

BESIDE = np.array([n for n in range(-8, 9) if n])  # harmonics that tell what a recording has without a mark
LEAST_ERROR = 0.02  # of the mark: silence would otherwise outweigh everything
MEDIAN_ERROR = 1.25  # of a median, over that of a mean
SURE = 12.0  # errors that a line must be loud to be taken for a mark
ALIKE = 0.3  # of their mean, by which the two lines may differ from it
MOST_SUMMED = 1e12  # of a sample: squares of larger ones overflow in sums of float32

Complex = NDArray[np.complex128]


@dataclasses.dataclass(frozen=True, slots=True)
class Traces:
    """What was found of the mark in some clips, or in the clips of some classes.

    Attributes
    ----------
    rows : (n,) int64
        The row of the mark.
    lines : (n, 2) complex128
        Each of the two lines over that of the mark: 1 where it was added, around 0 where it was not.
    errors : (n, 2) float64
        Standard error of the real part, and of the imaginary part, of `lines`.
    clips : (n,) int64
        How many clips each is the median of.
    """

    rows: Ints
    lines: Complex
    errors: NDArray[np.float64]
    clips: Ints

    @staticmethod
    def none() -> Traces:
        """Of no clips."""
        return Traces(np.empty(0, np.int64), np.empty((0, 2), np.complex128), np.empty((0, 2)), np.empty(0, np.int64))

    @staticmethod
    def joined(some: Iterable[Traces]) -> Traces:
        """Those of several lots of clips as one."""
        return Traces(*(np.concatenate(fields) for fields in zip(*map(_fields, [Traces.none(), *some]), strict=True)))

    def some(self, which: NDArray[np.bool_]) -> Traces:
        """Some of them."""
        return Traces(*(field[which] for field in _fields(self)))

    @property
    def levels(self) -> NDArray[np.float64]:
        """(n,) how much of the mark is there: 1 after protecting, around 0 before."""
        weights = self.errors**-2
        found: NDArray[np.float64] = (self.lines.real * weights).sum(axis=1) / weights.sum(axis=1)
        return found

    @property
    def sure(self) -> NDArray[np.bool_]:
        """(n,) where both lines are there beyond doubt, alike loud and each in its phase, at whatever strength."""
        levels = self.levels[:, None]
        close = np.abs(self.lines - levels) < ALIKE * levels
        sure: NDArray[np.bool_] = np.all(close & (levels > SURE * self.errors), axis=1)
        return sure

    @property
    def absent(self) -> NDArray[np.bool_]:
        """(n,) where neither line is there, beyond doubt."""
        absent: NDArray[np.bool_] = np.all((self.lines.real < 0.5) & (self.errors < 0.5 / SURE), axis=1)
        return absent

    def by_class(self, classes: Ints) -> Traces:
        """The median over the clips of each class; `classes` has the class of each clip, which becomes its row."""
        found = []
        for number in np.unique(classes).tolist():
            own = self.some(classes == number)
            n = len(own.rows)
            median = np.median(own.lines.real, axis=0) + 1j * np.median(own.lines.imag, axis=0)
            error = np.median(own.errors, axis=0) * (MEDIAN_ERROR / np.sqrt(n) if n > 1 else 1)
            found.append(Traces(np.array([number]), median[None], error[None], np.array([n])))
        return Traces.joined(found)


def traces(marks: Lines, dense: NDArray[Any], patches: Patches, channels: int) -> Traces:
    """What is found in a dense buffer of the beginnings of clips; those without one whole period are left out."""
    periods = np.array(marks.periods)[patches.rows // (len(marks.pairs) // len(marks.periods))]
    ends = np.cumsum(patches.sizes) * channels
    frames = dense.reshape(-1, channels)
    found = []
    for period in np.unique(periods).tolist():
        chosen = np.flatnonzero((periods == period) & (patches.sizes >= period))
        if len(chosen):
            counts = patches.sizes[chosen] // period
            firsts = ends[chosen] // channels - patches.sizes[chosen]
            pieces = [frames[a : a + n * period] for a, n in zip(firsts.tolist(), counts.tolist(), strict=True)]
            whole = np.concatenate(pieces).astype(np.float32)
            whole = whole[:, 0] if channels == 1 else whole.mean(axis=1)
            found.append(_found(marks, whole.reshape(-1, period), counts, patches.rows[chosen], dense.dtype))
    return Traces.joined(found)


def _found(marks: Lines, periods: NDArray[np.float32], counts: Ints, rows: Ints, dtype: np.dtype[Any]) -> Traces:
    """The traces of clips of which so many periods each lie one behind the other."""
    if dtype.kind == "f":  # what is not finite stayed as it was; beside what is too loud for a sum nothing is seen
        periods = np.where(np.abs(periods) < MOST_SUMMED, periods, 0)
    spectrum = np.fft.rfft(periods)
    distinct, own = np.unique(rows, return_inverse=True)
    harmonics = np.array([marks.pairs[row][:2] for row in distinct.tolist()])
    mark = np.fft.rfft([marks.mark(row, dtype).astype(np.float64) for row in distinct.tolist()])
    added = np.take_along_axis(mark, harmonics, axis=1)[own]
    harmonics = harmonics[own]
    lines, errors = np.empty((len(rows), 2), np.complex128), np.empty((len(rows), 2))
    for n in range(2):
        lines[:, n], errors[:, n] = _line(spectrum, counts, harmonics[:, n], harmonics[:, 1 - n], added[:, n])
    return Traces(rows, lines, errors, np.ones(len(rows), np.int64))


def _line(
    spectrum: Complex, counts: Ints, harmonics: Ints, others: Ints, added: Complex
) -> tuple[Complex, NDArray[np.float64]]:
    """How loud one line is in each clip, over what was added, and the error of that.

    The mean over the clip's periods, in which each counts by how quiet it is beside the line.
    """
    owners, edges = np.repeat(np.arange(len(counts)), counts), np.cumsum(counts) - counts
    beside = harmonics[:, None] + BESIDE
    use = (beside > 0) & (beside < spectrum.shape[1]) & (beside != others[:, None])
    parts = 2 * use.sum(axis=1)  # real and imaginary ones
    beside = np.where(use, beside, 0)[owners]
    around: Complex = np.take_along_axis(spectrum, beside, axis=1) * (use / added[:, None])[owners]
    here: Complex = np.take_along_axis(spectrum, harmonics[owners, None], axis=1)[:, 0] / added[owners]
    weights = 1 / (_energy(around) / parts[owners] + LEAST_ERROR**2)
    total = np.add.reduceat(weights, edges)
    line = np.asarray(np.add.reduceat(here * weights, edges) / total, np.complex128)
    # The same is done beside the line, where there is no mark; and periods may differ by more than that tells.
    means = np.asarray(np.add.reduceat(around * weights[:, None], edges) / total[:, None], np.complex128)
    alike = _energy(means) / parts
    spread = np.add.reduceat((weights * np.abs(here - line[owners])) ** 2, edges) / (2 * total**2)
    return line, np.sqrt(np.maximum.reduce([alike, spread, 1 / total, np.full(len(total), LEAST_ERROR**2 / 4)]))


def _energy(rows: NDArray[Any]) -> NDArray[np.float64]:
    energy: NDArray[np.float64] = (rows.real**2 + rows.imag**2).sum(axis=1)
    return energy


def _fields(one: Traces) -> Iterator[NDArray[Any]]:
    return (getattr(one, field.name) for field in dataclasses.fields(one))
