"""How far protected clips are from their originals: quality, tonality and Frechet distances for each condition and key.

    python -m experiments.measures DATASET [--conditions strong-1 ...] [--seeds 0] [--metrics snr_db ...]
        [--results FOLDER]

Results go to results/distances, and their medians into the cells of experiments.training of the same clips and key.
Nothing is trained.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import stored
from experiments.asking import parser_of, sentences
from experiments.data.dataset import TRAIN, Dataset, load, results_of
from experiments.measures.embeddings import NAME, describe, embed
from experiments.measures.frechet import frechet_distance, half_against_half, paired_bootstrap, scalar_distance
from experiments.training.conditions import Condition, mark_rows, named, study_key
from experiments.training.trial import spaced
from poscuda_fast import StrongRecipe
from poscuda_fast.evaluation import quality

CLIPS = 400  # training clips, drawn at random: the embedding takes a quarter of a second for each
BY_PACKAGES = 100  # of them, for metrics of packages: ViSQOL takes half a second for each
FIELDS = {  # of a cell, and the metric whose median it holds
    "pesq": "pesq", "visqol": "visqol", "stoi": "stoi", "lsd_db": "log_spectral_distance_db",
    "tonality_db": "tonality_db",
}  # fmt: skip

Sample = tuple[NDArray[np.int16], NDArray[np.int64], NDArray[np.int64]]  # clips, labels, lengths


def sample(data: Dataset) -> Sample:
    """The same clips for every condition."""
    rows = np.sort(np.random.default_rng(0).permutation(data.rows(TRAIN))[:CLIPS])
    return data.clips[rows], data.labels[rows], data.lengths[rows]


def measure(
    data: Dataset, drawn: Sample, clean: NDArray[np.float32], condition: Condition, seed: int, metrics: list[str]
) -> dict[str, Any]:
    """The fields of one result."""
    clips, labels, lengths = drawn
    key = study_key(seed)
    marked = clips.copy()
    mark_rows(condition, marked, np.arange(len(clips)), labels, lengths, key)
    embedded = embed(marked, lengths, data.sample_rate)
    low, high = paired_bootstrap(clean, embedded, np.random.default_rng(0))
    return {
        "dataset": data.name,
        "digest": data.digest,
        "condition": condition.name,
        "title": condition.title,
        "strength": condition.recipe.strength if isinstance(condition.recipe, StrongRecipe) else None,
        "seed": seed,
        "key_fingerprint": key.fingerprint,
        "clips": len(clips),
        **describe(),
        "fad": frechet_distance(clean, embedded),
        "fad_95": [low, high],
        "half_against_half": half_against_half(clean, np.random.default_rng(0)),
        "scalar_distance": scalar_distance(clean, embedded),
        "quality": _quality(clips, marked, lengths, data.sample_rate, metrics),
    }


def _quality(
    clips: NDArray[np.int16], marked: NDArray[np.int16], lengths: NDArray[np.int64], rate: int, metrics: list[str]
) -> dict[str, Any]:
    """The summary of each metric, those of packages over fewer clips."""
    some = spaced(np.arange(len(clips)), BY_PACKAGES)
    found: dict[str, Any] = {}
    for name in metrics:
        rows = None if name in quality.OWN else some
        found |= quality.measure(clips, marked, lengths, rate, rows, [name])
    return found


def fill_in(result: dict[str, Any], folder: Path) -> int:
    """Write a result's medians into the cells of its data set, condition and key; returns how many there are."""
    known = {"fad": result["fad"], "embedding": f"{result['embedding']}, {result['clips']} clips"}
    for field, metric in FIELDS.items():
        median = result["quality"].get(metric, {}).get("median")
        known[field] = None if median is None else round(median, 4)
    filled = 0
    for path in sorted(folder.glob("*.json")):
        cell = json.loads(path.read_text())
        if all(cell[name] == result[name] for name in ("dataset", "digest", "condition", "seed")):
            stored.write(path, cell | known)
            filled += 1
    return filled


@sentences
def main(arguments: list[str] | None = None) -> None:
    """Measure whatever is not stored yet, and fill in the cells."""
    parser = parser_of(__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--conditions", nargs="+", default=["poscuda-0.01", "poscuda-0.3", "strong-1"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--metrics", nargs="+", choices=list(quality.METRICS), default=list(quality.installed()))
    parser.add_argument("--results", type=Path, help="a folder for the results of all commands")
    options = parser.parse_args(arguments)
    data = load(options.dataset)
    folder = (options.results or results_of(data, "")) / "distances"
    drawn = sample(data)
    clean: NDArray[np.float32] | None = None
    for seed in options.seeds:
        for name in options.conditions:
            path = folder / f"{data.name}_{name}_s{seed}.json"
            if path.exists() and json.loads(path.read_text())["digest"] == data.digest:
                print(f"Already stored, skipped: {path}", flush=True)
            else:
                clean = embed(drawn[0], drawn[2], data.sample_rate) if clean is None else clean
                command = f"python -m experiments.measures {data.name.upper()} --conditions {name} --seeds {seed}"
                condition = named(name, data.sample_rate)
                fields = measure(data, drawn, clean, condition, seed, options.metrics)
                stored.store(folder, path.stem, command, fields)
            result = json.loads(path.read_text())
            filled = fill_in(result, folder.parent / "protection")
            print(f"{name} s{seed}: FAD[{NAME}] {result['fad']:.3g}; {filled} cells filled in", flush=True)


if __name__ == "__main__":
    main()
