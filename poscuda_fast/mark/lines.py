"""Format 2: the two lines of each class, as a table that is added round and round (FORMAT.md, "Format 2")."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels import BITS, WRAP, Engine, Ints, LineTable
from poscuda_fast.key import Key
from poscuda_fast.mark.patches import Patches, Steps
from poscuda_fast.recipe import StrongRecipe
from poscuda_fast.secrecy import Secret

UNIT_LEVEL = 0.005  # RMS of the mark of strength 1, relative to full scale
LOWEST, HIGHEST = 20, 124  # harmonics: 625 to 3,875 Hz
_UNIT = 1 << 30  # of a cosine
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
    _tables: dict[tuple[str, int], LineTable] = dataclasses.field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        return f"Lines({len(self.pairs)} rows)"

    def apply(self, engine: Engine, samples: NDArray[Any], firsts: Ints, patches: Patches, steps: Steps) -> int:
        """Add the lines of its class to each patch, in place; see `Marks.apply`."""
        if steps.packed:
            n = steps.channels
            table = self.table(samples.dtype, n)
            return engine.add_lines(samples, firsts, patches.sizes * n, patches.starts * n, patches.rows, table, 1)
        starts, sizes, phases, rows = steps.by_channel(firsts, patches.sizes, patches.starts, patches.rows)
        return engine.add_lines(samples, starts, sizes, phases, rows, self.table(samples.dtype, 1), steps.frame)

    def table(self, dtype: np.dtype[Any], channels: int) -> LineTable:
        """The mark of each row for samples of a dtype, each value repeated for so many channels."""
        key = dtype.str, channels
        if key not in self._tables:
            periods = np.repeat(np.array(self.periods, np.int64), len(self.pairs) // len(self.periods))
            marks = [_wrapped(self.mark(row, dtype), channels) for row in range(len(self.pairs))]
            lengths = np.array([len(one) for one in marks], np.int64)
            values = np.concatenate([*marks, np.empty(0, table_dtype(dtype))])
            self._tables[key] = LineTable(values, np.cumsum(lengths) - lengths, periods * channels)
        return self._tables[key]

    def mark(self, row: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """(P,) one period of the mark of a row, in units of samples of a dtype."""
        period = self.periods[row // (len(self.pairs) // len(self.periods))]
        pair, cosines, t = self.pairs[row], cosine_table(period), np.arange(period)
        total = cosines[(pair.h * t + pair.a) % period] + cosines[(pair.g * t + pair.b) % period]
        full_scale = 2.0 ** (BITS[dtype] - 1)
        rounded = np.rint((self.strength * UNIT_LEVEL * full_scale) * (total * 2.0**-30))
        if dtype.kind == "f":
            return (rounded / full_scale).astype(np.float32)
        return rounded.astype(table_dtype(dtype))


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
def cosine_table(period: int) -> NDArray[np.int64]:
    """(period,) the integers nearest to 2^30 cos(2 pi k / period)."""
    exact = _UNIT * np.cos(2 * np.pi / period * np.arange(period))
    rounded = np.rint(exact).astype(np.int64)
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


def _wrapped(mark: NDArray[Any], channels: int) -> NDArray[Any]:
    """A period with its beginning repeated behind it, so that kernels can read whole registers across its end."""
    return np.repeat(np.concatenate([mark, mark[:WRAP]]), channels)
