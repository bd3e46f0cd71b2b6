"""Draw an edit, and the stored results of the trainings."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks import stored
from experiments.tables.text import DATASETS, Cell, by_condition, cells
from experiments.training.conditions import study_key
from poscuda_fast import protect
from poscuda_fast.cli import synth
from poscuda_fast.evaluation.names import NAMES, TITLES

FOLDER = stored.EXPERIMENTS / "plots"
LITERAL = ("poscuda-0.01", "poscuda-0.3")
CHANCE = 10.0  # %: both data sets have ten classes


def edit() -> Figure:
    """A speech-like word before and after protection by the default recipe, and the difference."""
    before = synth.speak("yes", 0, 0)
    after = before.copy()
    protect(after[None], ["yes"], study_key(0), sample_rate=synth.SAMPLE_RATE)
    seconds = len(before) / synth.SAMPLE_RATE
    figure, panels = plt.subplots(2, 3, figsize=(10, 3.6), sharex=True, sharey="row", layout="constrained")
    titles = ("as recorded", "protected", "the difference")
    for (above, below), title, clip in zip(panels.T, titles, (before, after, after - before), strict=True):
        wave = clip / 32768
        above.plot(np.arange(len(wave)) / synth.SAMPLE_RATE, wave, linewidth=0.4, color="C0")
        above.set(title=title, xlim=(0, seconds))
        _, _, _, picture = below.specgram(
            wave + 1e-7, NFFT=256, Fs=synth.SAMPLE_RATE, noverlap=192, vmin=-110, vmax=-30
        )
        below.set(xlabel="seconds", ylim=(0, synth.SAMPLE_RATE / 2))
        below.yaxis.set_major_formatter(lambda hertz, _: f"{hertz / 1000:g}")
    panels[0, 0].set(ylabel="full scale")
    panels[1, 0].set(ylabel="kHz")
    figure.colorbar(picture, ax=panels[1], label="dB", pad=0.01)
    return figure


def frontier() -> Figure | None:
    """The best clean-test accuracy of any epoch, default training, against SNR: format 2, and the paper's recipe.

    None while format 2 has not been measured.
    """
    if not any("strength" in one for one in cells("protection", training="default")):
        return None
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for panel, (dataset, title) in zip(panels, DATASETS.items(), strict=True):
        for number, model in enumerate(NAMES):
            mine = cells("protection", dataset=dataset, split="official", training="default", model=model)
            ours = _points([one for one in mine if "strength" in one])
            if ours:
                panel.plot(*zip(*ours, strict=True), "o-", color=f"C{number}")
            for point in _points([one for one in mine if one["condition"] in LITERAL]):
                panel.plot(*point, "s", color=f"C{number}", markerfacecolor="none")
        panel.axhline(CHANCE, linestyle=":", linewidth=0.8, color="black")
        panel.set(title=title, xlabel="median SNR of the edit, dB (better to the right)")
        panel.grid(alpha=0.3)
    panels[0].set(ylabel="best accuracy on clean test clips, %", ylim=(0, 102))
    entries = [Line2D([], [], marker="o", color=f"C{n}", label=TITLES[name]) for n, name in enumerate(NAMES)]
    entries.append(Line2D([], [], marker="s", linestyle="", color="grey", markerfacecolor="none", label="the paper's"))
    panels[1].legend(handles=entries, fontsize="small", loc="upper left")
    return figure


def _points(found: list[Cell]) -> list[tuple[float, float]]:
    """(SNR, best accuracy), the mean over seeds for each condition, by SNR."""
    return sorted(
        (statistics.fmean(c["snr_db"] for c in mine), statistics.fmean(c["clean_peak"] for c in mine))
        for mine in by_condition(found)
        if all(c["snr_db"] is not None for c in mine)
    )


PLOTS: dict[str, Callable[[], Figure | None]] = {
    "edit": edit,
    "frontier": frontier,
}


def main(folder: Path = FOLDER) -> None:
    """Draw all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    mpl.rcParams["svg.hashsalt"] = "poscuda"  # without a date or random names the same result gives the same file
    for name, draw in PLOTS.items():
        figure = draw()
        if figure is None:
            continue
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)
