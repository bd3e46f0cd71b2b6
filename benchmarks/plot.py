"""Draw throughput from the stored results.

python -m benchmarks.plot
"""

from __future__ import annotations

from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

from benchmarks import stored

TITLES = {"clips": "clips of 0.1 s", "frames": "frames in each of 2,000 clips", "threads": "threads, 20,000 clips"}


def draw(result: dict[str, Any]) -> None:
    """One panel for each axis."""
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), sharey=True, layout="constrained")
    for panel, (axis, title) in zip(panels, TITLES.items(), strict=True):
        points = [point for point in result["points"] if point["axis"] == axis]
        for name in dict.fromkeys(point["contender"] for point in result["points"]):
            mine = [point for point in points if point["contender"] == name]
            rates = [point["clips"] / point["seconds"] / 1e6 for point in mine]
            panel.plot([point["value"] for point in mine], rates, marker="o", label=name)
        if axis == "threads":
            panel.set_xticks([1, 2])
        else:
            panel.set_xscale("log")
        panel.set_xlabel(title)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("million patches a second")
    panels[0].set_ylim(bottom=0)
    panels[0].legend(fontsize="small")
    # Without a date or random names the same result gives the same file.
    mpl.rcParams["svg.hashsalt"] = "poscuda"
    figure.savefig(stored.BENCHMARKS / "throughput.svg", metadata={"Date": None})


if __name__ == "__main__":
    draw(stored.load(stored.BENCHMARKS, "scaling"))
