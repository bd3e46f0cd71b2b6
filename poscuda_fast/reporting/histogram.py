"""The histogram of SNR over files or clips, as the bars and ticks of a drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 360, 190  # of the drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 58, 8, 10, 36  # room for "100,000" on the left
MOST_BARS = 30
STEPS_DB = (0.5, 1, 2, 5, 10, 20, 50, 100)


class Bar(NamedTuple):
    """A bar: its rectangle and its tooltip."""

    x: float
    y: float
    width: float
    height: float
    title: str


class Histogram(NamedTuple):
    """Bars, ticks as (coordinate, text) on both axes, and `median_x`, the coordinate of the median."""

    bars: list[Bar]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    median_x: float


def histogram(ratios: Sequence[float], unit: str) -> Histogram | None:
    """The drawing for ratios in dB, or None if there are none; `unit` is "files" or "clips"."""
    if not ratios:
        return None
    values = np.array(ratios)
    span = float(values.max() - values.min())
    step = next((step for step in STEPS_DB if span / step <= MOST_BARS - 2), span / (MOST_BARS - 2))
    low = math.floor(float(values.min()) / step) * step
    n_bars = max(1, math.floor((float(values.max()) - low) / step) + 1)
    edges = low + step * np.arange(n_bars + 1)
    counts, _ = np.histogram(values, edges)
    most = int(counts.max())
    per_count = (HEIGHT - TOP - BOTTOM) / _ceiling(most)
    per_db = (WIDTH - LEFT - RIGHT) / (n_bars * step)

    def x_of(db: float) -> float:
        return round(LEFT + (db - low) * per_db, 2)

    def y_of(n: float) -> float:
        return round(HEIGHT - BOTTOM - n * per_count, 2)

    bars = [
        Bar(x_of(edge), y_of(n), round(step * per_db - 1, 2), round(n * per_count, 2),
            f"{_text(edge)} to {_text(edge + step)} dB: {n:,} {unit[:-1] if n == 1 else unit}")
        for edge, n in zip(edges[:-1].tolist(), counts.tolist(), strict=True) if n
    ]  # fmt: skip
    every = step * max(1, math.ceil(n_bars / 6))
    ticks = every * np.arange(math.ceil(low / every), math.floor(float(edges[-1]) / every) + 1)
    x_ticks = [(x_of(db), _text(db)) for db in ticks.tolist()]
    y_ticks = [(y_of(n), f"{n:,}") for n in sorted({0, _ceiling(most) // 2, _ceiling(most)})]
    return Histogram(bars, x_ticks, y_ticks, x_of(float(np.median(values))))


def _text(db: float) -> str:
    return f"{db:g}".replace("-", "\N{MINUS SIGN}")


def _ceiling(most: int) -> int:
    """An even round number, `most` or more."""
    if most <= 2:
        return 2
    unit = int(10 ** math.floor(math.log10(most)))
    return next(n for n in (unit, 2 * unit, 4 * unit, 6 * unit, 8 * unit, 10 * unit) if n >= most)
