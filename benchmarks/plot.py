"""Draw throughput by either format from the stored results.

python -m benchmarks.plot
"""

from __future__ import annotations

from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

from benchmarks import stored

TITLES = {"clips": "clips of 0.1 s", "frames": "frames in each clip", "threads": "threads, 20,000 clips of 0.1 s"}
# What is counted of each point, in millions a second.
COUNTED = {
    "default": ("default: million samples a second", lambda point: point["clips"] * point["frames"]),
    "paper": ("paper: million patches a second", lambda point: point["clips"]),
}


def draw(results: dict[str, dict[str, Any]]) -> None:
    """A row of panels for each recipe, one for each axis."""
    figure, rows = plt.subplots(2, 3, figsize=(11, 6.6), sharey="row", layout="constrained")
    for panels, (recipe, (unit, count)) in zip(rows, COUNTED.items(), strict=True):
        result = results[recipe]
        for panel, (axis, title) in zip(panels, TITLES.items(), strict=True):
            points = [point for point in result["points"] if point["axis"] == axis]
            for name in dict.fromkeys(point["contender"] for point in result["points"]):
                mine = [point for point in points if point["contender"] == name]
                rates = [count(point) / point["seconds"] / 1e6 for point in mine]
                panel.plot([point["value"] for point in mine], rates, marker="o", label=name)
            if axis == "threads":
                panel.set_xticks([1, 2])
            else:
                panel.set_xscale("log")
            panel.set_xlabel(title)
            panel.grid(alpha=0.3)
        panels[0].set_ylabel(unit)
        panels[0].set_ylim(bottom=0)
        panels[0].legend(fontsize="small")
    # Without a date or random names the same result gives the same file.
    mpl.rcParams["svg.hashsalt"] = "poscuda"
    figure.savefig(stored.BENCHMARKS / "throughput.svg", metadata={"Date": None})


if __name__ == "__main__":
    draw({recipe: stored.load(stored.BENCHMARKS, f"scaling_{recipe}") for recipe in COUNTED})
