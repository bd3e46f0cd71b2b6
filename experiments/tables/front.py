"""What README says of protection, its cost to the ear, and speed, from the stored results."""

from __future__ import annotations

from typing import Any

from benchmarks import report, stored
from experiments.tables import text
from poscuda_fast.evaluation.names import NAMES, TITLES

SHOWN = (  # condition, and what README calls it
    ("clean", "trained on clean clips"),
    ("strong-1", "trained on protected clips, `strength` 1"),
    ("strong-2", "trained on protected clips, `strength` 2"),
    ("poscuda-0.01", "trained on the paper's patch, b=0.01"),
)


def front() -> str:
    """Two small tables: how well it protects, and what that costs."""
    return f"{_protection()}\n\n{_costs()}"


def paper() -> str:
    """A sentence on the speed of the paper's recipe."""
    result = stored.load(stored.BENCHMARKS, "paper_int16")
    times = result["medians"]
    peer = min(("scipy fftconvolve", "scipy oaconvolve", "torch conv1d", "torchaudio fftconvolve", "numpy convolve"),
               key=lambda name: times[name])  # fmt: skip
    said = f"`protect` takes {times['protect']:.2f} µs for a patch of 240 samples and 80 taps, the fastest peer"
    return f"{said} ({peer}) {times[peer]:.2f} µs.\n\n{report.source(result)}"


def _protection() -> str:
    head, rows, used = ["accuracy, %"], [[title] for _, title in SHOWN], []
    for dataset, title in text.DATASETS.items():
        found = text.compared(dataset)
        used += found
        for training in ("plain", "default"):
            head.append(f"{title}, {training}")
            for row, (condition, _) in zip(rows, SHOWN, strict=True):
                row.append(_best([c for c in found if (c["condition"], c["training"]) == (condition, training)]))
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
    missing = " ?: not measured yet." * any("?" in row for row in rows)
    return "\n".join([text.table(head, rows), "", text.how(used) + missing]) if used else text.MISSING


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
        reached = [(text.best_attacked(found, dataset, name), title) for name, title in titles.items()]
        peak, title = max(((best, title) for best, title in reached if best), default=((0.0, ""), ""))
        row += ["", f"{peak[0]:.0f} ({title}, {TITLES.get(peak[1], 'linear')})" if title else ""]
    return row


def _costs() -> str:
    rows = []
    for name, title in (("default_int16", "int16"), ("default_float32", "float32")):
        times = stored.load(stored.BENCHMARKS, name)["medians"]
        said = ", ".join(f"{who} {times[name]:.1f}" for who, name in (("NumPy", "numpy"), ("torch", "torch")))
        said = f"{times['protect']:.1f} µs; {said}, adding 1 to each sample {times['touch']:.1f}"
        rows.append([f"`protect` in memory, {title}, a second at 16 kHz, one thread", said])
    warm, undo = (stored.load(stored.BENCHMARKS, name)["medians"] for name in ("warm_file_default", "restore_default"))
    limit = "touch + msync"
    over = "times as long as adding 1 and syncing"
    rows.append([f"`protect_memmap` with undo, durably, {over}", f"{warm['protect_memmap'] / warm[limit]:.1f}"])
    rows.append([f"`restore_memmap`, {over}", f"{undo['restore_memmap'] / undo[limit]:.1f}"])
    sidecar = stored.load(stored.BENCHMARKS, "sidecar_int16")
    rows.append(["sidecar of 16-bit WAV files; FLAC is kept whole", f"{sidecar['figures'][0]['ours']} of the data"])
    return "\n".join([text.table(["cost", ""], rows), "", report.source(sidecar)])
