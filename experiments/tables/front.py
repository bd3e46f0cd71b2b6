"""What README says of protection and its cost to the ear, from the stored results."""

from __future__ import annotations

from typing import Any

from benchmarks import report
from experiments.tables import text
from poscuda_fast.evaluation.names import NAMES, TITLES

SHOWN = (  # condition, and what README calls it
    ("clean", "trained on clean clips"),
    ("strong-1", "trained on protected clips, `strength` 1"),
    ("strong-2", "trained on protected clips, `strength` 2"),
    ("poscuda-0.01", "trained on the paper's patch, b=0.01"),
)


def front() -> str:
    """Accuracies of the best model, plain and default, after an attack, and what one hears."""
    head, rows, used = ["accuracy, %"], [[title] for _, title in SHOWN], []
    for dataset, title in text.DATASETS.items():
        found = text.compared(dataset)
        used += found
        for training in ("plain", "default"):
            head.append(f"{title}, {training}")
            for row, (condition, _) in zip(rows, SHOWN, strict=True):
                row.append(_best([c for c in found if (c["condition"], c["training"]) == (condition, training)]))
    if not used:
        return text.MISSING
    rows += [["`strength` 1, after the strongest attack", *strongest_attacks()]]
    for field, title, unit in (
        ("snr_db", "SNR", " dB"), ("pesq", "PESQ, of at most 4.5", ""), ("tonality_db", "tone-to-noise ratio", " dB"),
    ):  # fmt: skip
        row = [f"`strength` 1, {title}"]
        for dataset in text.DATASETS:
            mine = [c for c in used if (c["dataset"], c["condition"]) == (dataset, "strong-1")]
            cell = text.of_keys(mine, field)
            row += [cell + unit * bool(cell)] * 2
        rows.append(row)
    rows = [[cell or "?" for cell in row] for row in rows]
    attacked, heard = text.cells("attacks", condition="strong-1"), text.cells("distances", condition="strong-1")
    sources = [text.how(used), f"Attacks: {text.how(attacked)}" if attacked else "", *map(report.source, heard[:1])]
    sources.append("?: not measured yet." * any("?" in row for row in rows))
    return "\n".join([text.table(head, rows), "", " ".join(filter(None, sources))])


def _best(found: list[dict[str, Any]]) -> str:
    """The mean over seeds of the model that learns most, at its best epoch; only where all four were trained."""
    if {cell["model"] for cell in found} != set(NAMES):
        return ""
    return f"{max(text.mean([c for c in found if c['model'] == model], 'clean_peak') for model in NAMES):.0f}"


def strongest_attacks() -> list[str]:
    """For each data set the attack on strength 1 that gives back most; attacks train by default."""
    row = []
    for dataset in text.DATASETS:
        found = text.cells("attacks", dataset=dataset, condition="strong-1")
        titles = {cell["attack"]: cell["title"] for cell in found if cell["attack"] != "none"}
        tried = [(text.best_attacked(found, dataset, name), title) for name, title in titles.items()]
        reached = [(best, title) for best, title in tried if best is not None]
        shown = ""
        if reached:
            (peak, model), title = max(reached)
            shown = f"{peak:.0f} ({title}, {TITLES.get(model, 'linear')})"
        row += ["", shown]
    return row
