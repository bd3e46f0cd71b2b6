"""Format 2: the two lines of each class, as a table that is added round and round (FORMAT.md, "Format 2")."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels import BITS, WRAP, Engine, Flags, Ints, LineTable, default_arithmetic
from poscuda_fast.key import Key
from poscuda_fast.mark.patches import Patches, Steps
from poscuda_fast.recipe import StrongRecipe
from poscuda_fast.secrecy import Secret

UNIT_LEVEL = 0.005  # RMS of the mark of strength 1, relative to full scale
LOWEST, HIGHEST = 20, 124  # harmonics: 625 to 3,875 Hz
_UNIT = 1 << 30  # of a cosine
VALUES_AT_ONCE = 1 << 17  # whose temporary arrays are in memory together
CLIPS_ACROSS = 1024  # whose turned table stays in the second cache
_DOUBT = 1e-5  # float64 cosines this close to a half are rounded by exact integers


class Pair(NamedTuple):
    """Two harmonics of the comb, and the frame that each begins with."""

    h: int
    g: int
    a: int
    b: int


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Lines(Secret):
    """The lines of some classes at some sample rates; secret.

    Attributes
    ----------
    strength : float
        Of the recipe.
    periods : tuple of int
        Frames in a period, for each sample rate.
    pairs : tuple of Pair
        The two lines of each class at each rate: first those of all classes at the first rate, and so on.
    """

    strength: float
    periods: tuple[int, ...]
    pairs: tuple[Pair, ...]
    steady: ClassVar[bool] = True
    _tables: dict[tuple[str, int, int], LineTable] = dataclasses.field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        return f"Lines({len(self.pairs)} rows)"

    def apply(
        self,
        engine: Engine,
        samples: NDArray[Any],
        firsts: Ints,
        patches: Patches,
        steps: Steps,
        flags: Flags | None = None,
    ) -> int:
        """Add the lines of its class to each patch, in place; see `Marks.apply`."""
        del flags  # a survey counts silence, which lines do not leave
        return self._add(engine, samples, firsts, patches, steps, 1)

    def remove(self, engine: Engine, samples: NDArray[Any], firsts: Ints, patches: Patches, steps: Steps) -> int:
        """Subtract the lines of its class from each patch, in place; arguments and result are those of `apply`.

        What was there before `apply` comes back, except integers that were saturated, and of float32 some whose sum was
        rounded and, as 0.0, what was -0.0.
        """
        return self._add(engine, samples, firsts, patches, steps, -1)

    def _add(
        self, engine: Engine, samples: NDArray[Any], firsts: Ints, patches: Patches, steps: Steps, sign: int
    ) -> int:
        """Add the lines of its class, multiplied by `sign`, to each patch."""
        if steps.packed:
            n = steps.channels
            table = self.table(samples.dtype, n, sign)
            return engine.add_lines(samples, firsts, patches.sizes * n, patches.starts * n, patches.rows, table, 1)
        side_by_side = steps.side_by_side(firsts, patches)
        if side_by_side:
            return self._add_across(engine, samples, firsts, patches, steps, side_by_side, sign)
        starts, sizes, phases, rows = steps.by_channel(firsts, patches.sizes, patches.starts, patches.rows)
        return engine.add_lines(samples, starts, sizes, phases, rows, self.table(samples.dtype, 1, sign), steps.frame)

    def _add_across(
        self,
        engine: Engine,
        samples: NDArray[Any],
        firsts: Ints,
        patches: Patches,
        steps: Steps,
        width: int,
        sign: int,
    ) -> int:
        """Where clips lie side by side, a frame of many clips is one run of samples: add a turned table to it.

        Clip by clip, each sample would be on another page. `width` is the number of samples that a clip has in a run.
        """
        start, size = int(patches.starts[0]), int(patches.sizes[0])
        odd = 0
        for first in range(0, len(patches), CLIPS_ACROSS):
            some = slice(first, first + CLIPS_ACROSS)
            turned = self._turned(samples.dtype, patches.rows[some], width, sign)
            length = turned.periods[0]
            rows = (start + np.arange(size)) % len(turned.firsts)
            for channel in range(0, steps.channels, width):
                places = firsts[first] + channel * steps.channel + np.arange(size) * steps.frame
                sizes, phases = np.full(size, length), np.zeros(size, np.int64)
                odd += engine.add_lines(samples, places, sizes, phases, rows, turned, 1)
        return odd

    def _turned(self, dtype: np.dtype[Any], rows: Ints, width: int, sign: int) -> LineTable:
        """A table with a row for each frame of the period: the values of some clips, each repeated `width` times."""
        values, firsts, periods = self.table(dtype, 1, sign)
        period, length = int(periods[0]), len(rows) * width
        by_clip = values.reshape(len(firsts), -1)[rows, :period]
        turned = np.empty((period, length + WRAP), values.dtype)
        turned[:, :length].reshape(period, len(rows), width)[...] = by_clip.T[:, :, None]
        return LineTable(turned.reshape(-1), np.arange(period) * (length + WRAP), np.full(period, length))

    def table(self, dtype: np.dtype[Any], channels: int, sign: int = 1) -> LineTable:
        """The mark of each row for samples of a dtype, each value repeated for so many channels, times 1 or -1."""
        key = dtype.str, channels, sign
        if key not in self._tables and sign < 0:
            values, firsts, periods = self.table(dtype, channels)
            # At strength 50 a mark has half of full scale: no integer is the lowest, whose negative does not exist.
            self._tables[key] = LineTable(-values, firsts, periods)
        elif key not in self._tables:
            n_classes = len(self.pairs) // len(self.periods)
            periods = np.repeat(np.array(self.periods, np.int64), n_classes) * channels
            lengths = periods + WRAP * channels
            ends = np.cumsum(lengths)
            values = np.empty(lengths.sum(), table_dtype(dtype))
            for rate, period in enumerate(self.periods):
                step, last = max(1, VALUES_AT_ONCE // period), (rate + 1) * n_classes
                for begin in range(rate * n_classes, last, step):
                    end = min(begin + step, last)
                    marks = _wrapped(self._marks(begin, end, period, dtype), channels)
                    values[ends[begin] - lengths[begin] : ends[end - 1]] = marks.reshape(-1)
            self._tables[key] = LineTable(values, ends - lengths, periods)
        return self._tables[key]

    def mark(self, row: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """(P,) one period of the mark of a row, in units of samples of a dtype."""
        values, firsts, periods = self.table(dtype, 1)
        period: NDArray[Any] = values[firsts[row] : firsts[row] + periods[row]]
        return period

    @default_arithmetic()
    def _marks(self, begin: int, end: int, period: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """(end - begin, period) one period of the marks of some rows, in units of samples of a dtype."""
        pairs = np.array(self.pairs[begin:end], np.int32).reshape(-1, 4, 1)
        cosines, t = cosine_table(period), np.arange(period, dtype=np.int32)
        h, g, a, b = pairs[:, 0], pairs[:, 1], pairs[:, 2], pairs[:, 3]
        total = cosines[(h * t + a) % period] + cosines[(g * t + b) % period]
        full_scale = 2.0 ** (BITS[dtype] - 1)
        rounded = np.rint((self.strength * UNIT_LEVEL * full_scale) * (total * 2.0**-30))
        if dtype.kind == "f":
            rounded /= full_scale
        marks: NDArray[Any] = rounded.astype(table_dtype(dtype))
        return marks


def level_db(recipe: StrongRecipe) -> float:
    """RMS of the mark relative to full scale, in dB."""
    return 20 * math.log10(recipe.strength * UNIT_LEVEL)


def table_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of the marks for samples of a dtype; packed 24-bit samples are bytes, and their marks int32."""
    return np.dtype(np.int32) if dtype == np.uint8 else dtype


def draw_lines(key: Key, tokens: Sequence[bytes], recipe: StrongRecipe, rates: Sequence[int]) -> Lines:
    """The lines of some classes at some sample rates in Hz."""
    periods = tuple(period_of(rate) for rate in rates)
    words = [np.frombuffer(key.derive(b"lines", token, length=16), "<u4").tolist() for token in tokens]
    return Lines(recipe.strength, periods, tuple(pair_of(four, period) for period in periods for four in words))


def period_of(sample_rate: int) -> int:
    """Frames in a period at a sample rate in Hz: 32 ms."""
    return (32 * sample_rate + 500) // 1000


def pair_of(words: Sequence[int], period: int) -> Pair:
    """The lines that a class's four words choose."""
    n = min(HIGHEST, (period - 1) // 2) - LOWEST + 1
    i, j = words[0] * n >> 32, words[1] * (n - 1) >> 32
    j += j >= i
    return Pair(LOWEST + i, LOWEST + j, words[2] * period >> 32, words[3] * period >> 32)


@functools.lru_cache(maxsize=8)
@default_arithmetic()
def cosine_table(period: int) -> NDArray[np.int64]:
    """(period,) the integers nearest to 2^30 cos(2 pi k / period)."""
    exact = _UNIT * np.cos(2 * np.pi / period * np.arange(period))
    rounded: NDArray[np.int64] = np.rint(exact).astype(np.int64)
    for k in np.flatnonzero(np.abs(np.abs(exact - np.rint(exact)) - 0.5) < _DOUBT).tolist():
        rounded[k] = _nearest_cosine(k, period)
    rounded.flags.writeable = False
    return rounded


def _nearest_cosine(k: int, period: int) -> int:
    """The integer nearest to 2^30 cos(2 pi k / period), by the cosine's series in integers of 2^-200."""
    unit = 1 << 200
    angle = 2 * (16 * _inverse_tangent(5, unit) - 4 * _inverse_tangent(239, unit)) * k // period
    term, total, n = unit, unit, 0
    while term:
        n += 2
        term = -term * angle // unit * angle // unit // (n * (n - 1))
        total += term
        if term == -1:  # floor division never gets from -1 to 0
            break
    return (2 * total * _UNIT + unit) // (2 * unit)


def _inverse_tangent(n: int, unit: int) -> int:
    """arctan(1 / n), in units of 1 / unit."""
    power, total, k = unit // n, 0, 1
    while power:
        total += (power if k % 4 == 1 else -power) // k
        power //= n * n
        k += 2
    return total


def _wrapped(marks: NDArray[Any], channels: int) -> NDArray[Any]:
    """Periods with their beginnings repeated behind them: kernels read whole registers across the end."""
    return np.repeat(np.concatenate([marks, marks[:, :WRAP]], axis=1), channels, axis=1)
