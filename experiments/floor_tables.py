"""The tables of experiments.floors: what a floor under each clip's SNR spares quiet clips, and what it costs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import report, stored
from experiments.tables import MODELS as TITLES
from experiments.tables import table

STRENGTHS = (1.0, 1.4, 2.0)
FLOORS: tuple[tuple[float | None, ...], ...] = ((None, 3.0, 6.0), (0.0, 9.0))  # dB, in the order of the trainings
EPOCHS = {"m5": 20, "cnn": 20}  # with fewer, the CNN has not yet learnt FSDD without a mark
EXPECTED_NOISE = 5.0  # accuracy points between equal trainings with other seeds and keys
MEASURES = (  # at which floors are compared; PESQ hardly falls any more once a mark is as loud as the clip
    ("pesq", "worst_twentieth", "PESQ of the worst twentieth"),
    ("pesq", "median", "median PESQ"),
    ("snr_db", "worst_twentieth", "SNR of the worst twentieth"),
)

Cell = dict[str, Any]


def floors() -> str:
    """The section of the experiments' README: every stored cell."""
    found = [json.loads(path.read_text()) for path in sorted((stored.EXPERIMENTS / "floors").glob("*.json"))]
    seeds = sorted({cell["seed"] for cell in found if "seed" in cell})
    return f"{summary(found, seeds)}\n\n{report.source(found[0])}"


def text_of(floor: float | None) -> str:
    """A floor as names and tables have it."""
    return "none" if floor is None else f"{floor:g}"


def summary(found: Sequence[Cell], seeds: Sequence[int] = (0,)) -> str:
    """For each data set the cells of these seeds as a table in Markdown, and which floors are worth their cost."""
    found = [cell for cell in found if cell.get("seed") in {None, *seeds}]
    parts = []
    for name in sorted({cell["dataset"] for cell in found}):
        mine = [cell for cell in found if cell["dataset"] == name]
        parts += [f"**{name}**", _table(mine), *("\n".join(_decision(mine, *measure)) for measure in MEASURES)]
    return "\n\n".join(parts)


HEAD = (
    "floor, dB", "strength", "median SNR, dB", "SNR of the worst twentieth, dB", "PESQ of the worst twentieth / median",
    "clips by gain step, %", *(f"{TITLES[model]} final [peak], % (seeds)" for model in EPOCHS),
)  # fmt: skip


def _table(found: Sequence[Cell]) -> str:
    """One row a recipe; a dash where nothing is stored."""
    recipes = {(cell["floor"], cell["strength"]) for cell in found}
    rows = []
    for floor, strength in sorted(recipes, key=lambda recipe: (recipe[0] is not None, recipe[0] or 0, recipe[1])):
        quality_cells = _cells(found, floor, strength, "quality")
        row = [text_of(floor), f"{strength:g}" if strength else "no mark", *(["-"] * 4)]
        if quality_cells:
            snr, pesq = quality_cells[0]["snr_db"], quality_cells[0]["pesq"]
            shares = [f"{100 * share:.1f}" for share in quality_cells[0]["gain_shares"]]
            row[2:] = [
                f"{snr['median']:.1f}", f"{snr['worst_twentieth']:.1f}",
                f"{pesq['worst_twentieth']:.2f} / {pesq['median']:.2f}", " ".join(shares),
            ]  # fmt: skip
        for model in EPOCHS:
            trained = _cells(found, floor, strength, model)
            final, peak = _mean(trained, "clean_final"), _mean(trained, "clean_peak")
            row.append("-" if final is None else f"{final:.1f} [{peak:.1f}] ({len(trained)})")
        rows.append(row)
    return table(HEAD, rows)


def _decision(found: Sequence[Cell], metric: str, part: str, title: str) -> Iterator[str]:
    """What each floor protects at the quality of strength 1 without one: the mean of the models' best epochs."""
    plain = {point[2]: point for point in _points(found, None, metric, part)}
    if STRENGTHS[0] not in plain:
        yield f"At equal {title}: nothing to compare with, strength 1 without a floor is not measured."
        return
    target, wanted, _ = plain[STRENGTHS[0]]
    yield f"At equal {title}, {target:.2f} at strength 1 without a floor, which gives {wanted:.1f} %:\n"
    for strength, (score, accuracy, _) in sorted(plain.items())[1:]:
        yield f"- no floor, at strength {strength:g}, {score:.2f}: {accuracy:.1f} %, {_verdict(accuracy - wanted)}"
    for floor in sorted(floor for group in FLOORS for floor in group if floor is not None):
        points = _points(found, floor, metric, part)
        if not points:
            continue
        scores, accuracies = [point[0] for point in points], [point[1] for point in points]
        nearest = min(points, key=lambda point: abs(point[0] - target))
        if scores[0] <= target <= scores[-1]:
            accuracy, where = float(np.interp(target, scores, accuracies)), "there"
        else:
            accuracy, where = nearest[1], f"at strength {nearest[2]:g}, {nearest[0]:.2f}, the nearest measured"
        yield f"- floor {floor:g} dB, {where}: {accuracy:.1f} %, {_verdict(accuracy - wanted)}"


def _verdict(difference: float) -> str:
    if abs(difference) <= EXPECTED_NOISE:
        return f"{difference:+.1f}: within the expected noise of {EXPECTED_NOISE:g} points"
    return f"{difference:+.1f}: protects {'more' if difference < 0 else 'less'}"


def _points(found: Sequence[Cell], floor: float | None, metric: str, part: str) -> list[tuple[float, float, float]]:
    """(quality, accuracy, strength) of each strength that is measured in full, by quality."""
    points = []
    for strength in STRENGTHS:
        heard = _cells(found, floor, strength, "quality")
        peaks = [_mean(_cells(found, floor, strength, model), "clean_peak") for model in EPOCHS]
        known = [peak for peak in peaks if peak is not None]
        if heard and len(known) == len(EPOCHS):
            points.append((heard[0][metric][part], statistics.fmean(known), strength))
    return sorted(points)


def _cells(found: Sequence[Cell], floor: float | None, strength: float, what: str) -> list[Cell]:
    wanted = {"floor": floor, "strength": strength, "what": what}
    return [cell for cell in found if all(cell[name] == value for name, value in wanted.items())]


def _mean(found: Sequence[Cell], name: str) -> float | None:
    return statistics.fmean(cell[name] for cell in found) if found else None
