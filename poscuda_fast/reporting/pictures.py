"""Waveforms and spectrograms of a clip before, after and of the difference, as PNG in data: URIs."""

from __future__ import annotations

import base64
import contextlib
import io
import math
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.reporting.survey import Excerpt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Samples = NDArray[np.float64]

WINDOW_SECONDS = 0.032
OVERLAP = 8  # columns are a window / OVERLAP apart, or more in a long clip
MOST_COLUMNS = 240  # a picture shows no more
RANGE_DB = 80.0
FLOOR = 1e-7  # of full scale: below a sample's last bit
SIZE, SCALE_SIZE = (3.7, 3.5), (3.7, 0.66)  # inches
DPI = 170
INK, GRID = "#1b1f24", "#d5d9de"
WAVE = {"before": "#1f6f8b", "after": "#b3541e", "difference": "#6a4c93"}
_STYLE = {
    "font.size": 10, "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.linewidth": 0.6, "axes.axisbelow": True, "xtick.major.width": 0.6,
    "ytick.major.width": 0.6, "xtick.labelsize": 9.5, "ytick.labelsize": 9.5,
}  # fmt: skip
_STYLING = threading.Lock()


class Picture(NamedTuple):
    """One picture: a title of one word, its data: URI, and its alternative text."""

    title: str
    uri: str
    alt: str


def top_of(excerpts: Iterable[Excerpt]) -> float:
    """The level in dB that the colours of all spectrograms end at: a round one, reached by none or by the loudest."""
    loudest = (
        float(spectrogram(wave, excerpt.sample_rate)[0].max())
        for excerpt in excerpts
        for wave in _waves(excerpt).values()
    )
    return 10.0 * math.ceil(max(loudest, default=0.0) / 10)


def draw(excerpt: Excerpt, top: float) -> list[Picture]:
    """Pictures of a clip's first channel before, after and of the difference.

    The three share one scale of amplitudes; the colours of their levels end at `top` dB.
    """
    waves = _waves(excerpt)
    highest = max(float(np.abs(wave).max(initial=0)) for wave in waves.values()) * 1.05 or 1.0
    pictures = []
    with _styled():
        for name, wave in waves.items():
            figure = _figure(SIZE)
            upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
            _draw_wave(upper, wave, excerpt.sample_rate, highest, WAVE[name])
            _draw_levels(lower, *spectrogram(wave, excerpt.sample_rate), excerpt.sample_rate, len(wave), top)
            figure.subplots_adjust(0.185, 0.14, 0.97, 0.965, hspace=0.1)
            pictures.append(Picture(name.capitalize(), _png(figure), _describe(name, wave, excerpt)))
    return pictures


def scale_to(top: float) -> Picture:
    """The colours of all spectrograms, labelled."""
    with _styled():
        uri = _png(_scale(top))
    return Picture("Level", uri, f"Colours from {top - RANGE_DB:.0f} dB, dark, to {top:.0f} dB, light.")


@contextlib.contextmanager
def _styled() -> Iterator[None]:
    """Independent of the user's style, which is the whole process's: two threads would put back each other's."""
    import matplotlib.style  # noqa: PLC0415 - only a report needs it, and it is slow to load

    with _STYLING, matplotlib.style.context(["default", _STYLE]):
        yield


def _waves(excerpt: Excerpt) -> dict[str, Samples]:
    before, after = (samples[:, 0].astype(np.float64) for samples in (excerpt.before, excerpt.after))
    return {"before": before, "after": after, "difference": after - before}


def _describe(name: str, wave: Samples, excerpt: Excerpt) -> str:
    seconds, loudest = len(wave) / excerpt.sample_rate, np.abs(wave).max(initial=0)
    return (
        f"{name.capitalize()}: waveform and spectrogram of {excerpt.name}, {seconds:.2f} s, 0 to "
        f"{excerpt.sample_rate / 2000:g} kHz; its loudest sample is {loudest:.3f} of full scale."
    )


def spectrogram(wave: Samples, sample_rate: int) -> tuple[Samples, float]:
    """Levels (frequencies, columns) in dB of a full-scale sine, and the seconds between two columns."""
    exponent = round(float(np.log2(max(16.0, WINDOW_SECONDS * sample_rate))))
    n = 2 ** min(exponent, 13)
    step = max(n // OVERLAP, -(-len(wave) // MOST_COLUMNS))
    window = np.hanning(n + 1)[:-1]
    padded = np.pad(wave, (n // 2, n // 2 + step))
    columns = np.lib.stride_tricks.sliding_window_view(padded, n)[: max(1, len(wave)) : step]
    amplitude = np.abs(np.fft.rfft(columns * window, axis=1)) * (2 / window.sum())
    return 20 * np.log10(np.maximum(amplitude, FLOOR)).T, step / sample_rate


def _draw_wave(axes: Axes, wave: Samples, sample_rate: int, highest: float, colour: str) -> None:
    """The wave itself, or in a long clip the band between its lowest and highest samples."""
    step = max(1, len(wave) // (2 * MOST_COLUMNS))
    if step == 1:
        axes.plot(np.arange(len(wave)) / sample_rate, wave, color=colour, linewidth=0.8)
    else:
        blocks = wave[: len(wave) // step * step].reshape(-1, step)
        times = np.arange(len(blocks)) * step / sample_rate
        axes.fill_between(times, blocks.min(1), blocks.max(1), color=colour, linewidth=0.6)
    axes.set_ylim(-highest, highest)
    axes.set_ylabel("full scale", labelpad=2)
    axes.grid(visible=True, color=GRID, linewidth=0.5)
    axes.tick_params(labelbottom=False, length=0)


def _draw_levels(axes: Axes, levels: Samples, step: float, sample_rate: int, frames: int, top: float) -> None:
    extent = (-step / 2, (levels.shape[1] - 0.5) * step, 0, sample_rate / 2000)
    axes.imshow(
        levels, cmap="magma", vmin=top - RANGE_DB, vmax=top, origin="lower", aspect="auto", extent=extent,
        interpolation="nearest",
    )  # fmt: skip
    axes.set_xlim(0, frames / sample_rate)
    axes.set_xlabel("seconds", labelpad=2)
    axes.set_ylabel("kHz", labelpad=6)


def _scale(top: float) -> Figure:
    from matplotlib import cm, colors  # noqa: PLC0415

    figure = _figure(SCALE_SIZE)
    axes = figure.add_axes((0.06, 0.7, 0.88, 0.2))
    mapped = cm.ScalarMappable(colors.Normalize(top - RANGE_DB, top), "magma")
    figure.colorbar(mapped, cax=axes, orientation="horizontal", label="dB of a full-scale sine")
    return figure


def _figure(size: tuple[float, float]) -> Figure:
    """A figure that opens no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure: Figure = Figure(figsize=size, dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> str:
    """A figure as PNG in a data: URI."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode("ascii")
