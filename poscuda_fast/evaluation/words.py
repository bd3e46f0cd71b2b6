"""An evaluation as plain text for a terminal, as JSON, and as a plot."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

BAR = 25  # characters for 100 %
COLUMNS = {
    "clean": "learnt from clean clips",
    "plain": "from protected ones, plainly",
    "default": "from protected ones, as usual",
    "keyed": "keyed, last epoch",
    "miskeyed": "mis-keyed, last epoch",
}
MEASURES = {
    "snr_db": "SNR",
    "changed_snr_db": "SNR over changed frames",
    "log_spectral_distance_db": "log-spectral distance",
    "tonality_db": "tonality",
    "visqol": "ViSQOL",
    "stoi": "STOI",
    "pesq": "PESQ",
}


def text(found: dict[str, Any]) -> str:
    """The result of an evaluation, in lines of text."""
    data, verdict = found["data"], found["verdict"]
    lines = [
        f"Training: {data['training_clips']} clips, {data['classes']} classes, up to {data['seconds_heard']:g} s each.",
        data["split"],
        "",
        f"Accuracy in %; always naming the commonest class gives {data['chance']:.1f}.",
        "Clean: trained on clean clips. Plain, default: trained on protected clips as they are, and as most people do,",
        "with random shifts, noise and SpecAugment; 95 %: of the better of the two.",
        f"All after the best epoch, on {data['test_clips']} clean test clips.",
        "Keyed, mis-keyed: plain training, after the last epoch, on test clips with the mark of their own class, or of",
        "another.",
        "",
        f"{'':<16}{'clean':>8}{'plain':>8}{'default':>9}  {'95 %':<14}{'keyed':>7}{'mis-keyed':>11}",
    ]
    for row in found["models"]:
        lines.append(
            f"{row['model']:<16}{row['clean']:>8.1f}{row['plain']:>8.1f}{row['default']:>9.1f}  {_range(row):<14}"
            f"{row['keyed']:>7.1f}{row['miskeyed']:>11.1f}"
        )
        lines += [f"{'':<18}{_bar(row[name])} {name}" for name in ("clean", "plain", "default")]
    if found["attacks"]:
        lines += ["", "Attack on the protected clips, accuracy on clean test clips, best epoch:"]
        lines += [
            f"  {row['attack']}, {row['model']}: {row['protected']:.1f} ({_range(row)})" for row in found["attacks"]
        ]
    lines += [f"  {row['attack']}: not tried, because {row['because']}" for row in found["attacks_not_tried"]]
    lines += ["", f"Quality of the protected clips at {data['sample_rate']} Hz (median, worst 5 %):"]
    lines += [
        f"  {MEASURES[name]}: {one['median']:.2f}, {one['worst_5_percent']:.2f} {one['unit']}".rstrip()
        for name, one in found["quality"].items()
    ]
    lines += ["", f"Verdict: {verdict['word']}.", verdict["sentence"], verdict["uncertainty"]]
    return "\n".join(lines)


def stored(found: dict[str, Any]) -> bytes:
    """The content of an evaluation's JSON file."""
    return (json.dumps(found, indent=1) + "\n").encode()


def plot(found: dict[str, Any], file: BinaryIO) -> None:
    """Draw the accuracies, with their intervals, as SVG into an open binary file."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415 - an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(8.5, 4), layout="constrained")
    panel = figure.add_subplot()
    for number, (name, title) in enumerate(COLUMNS.items()):
        places = [place + (number - 2) * 0.17 for place in range(len(found["models"]))]
        panel.bar(places, [row[name] for row in found["models"]], 0.17, label=title)
        if name in ("plain", "default"):  # of the better one
            better = [(place, row) for place, row in zip(places, found["models"], strict=True) if _better(row) == name]
            _whiskers(panel, [place for place, _ in better], [row for _, row in better])
    if found["attacks"]:
        places = [len(found["models"]) + place for place in range(len(found["attacks"]))]
        panel.bar(places, [row["protected"] for row in found["attacks"]], 0.4, color="grey", label="attacked")
        _whiskers(panel, places, found["attacks"])
    names = [row["model"] for row in found["models"]]
    names += [f"{row['model']},\n{row['attack']}" for row in found["attacks"]]
    panel.set_xticks(range(len(names)), names, fontsize="small")
    panel.axhline(found["data"]["chance"], linestyle=":", color="black", linewidth=0.8, label="chance")
    panel.set(ylabel="accuracy, %", ylim=(0, 102), title=f"Protection: {found['verdict']['word']}")
    panel.legend(fontsize="small", ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    FigureCanvasSVG(figure)
    figure.savefig(file, format="svg")


def _whiskers(panel: Any, places: list[float], rows: list[dict[str, Any]]) -> None:
    """Draw the intervals of the protected accuracies."""
    for place, row in zip(places, rows, strict=True):
        low, high = row["protected_interval"]
        panel.plot([place, place], [low, high], color="black", marker="_", markersize=7)


def _better(row: dict[str, Any]) -> str:
    return "default" if row["default"] > row["plain"] else "plain"


def _range(row: dict[str, Any]) -> str:
    low, high = row["protected_interval"]
    return f"{low:.1f} to {high:.1f}"


def _bar(share: float) -> str:
    return ("#" * round(BAR * share / 100)).ljust(BAR, ".")
