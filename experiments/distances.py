"""How far protected clips are from their originals: SNR, quality and Frechet distances for each condition and key.

    python -m experiments.distances DATASET [--conditions ...] [--seeds 0 1 2] [--metrics snr ...]

Results go to results/distances. Their `fad` and `embedding` are also written into the cells of the same clips in
results/table1 and results/baselines, and with `visqol` and `lsd_db` into those in results/protection. Nothing is
trained.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import stored
from experiments import baselines, cells, protection
from experiments.conditions import Condition, mark_rows, strong, study_key, table1
from experiments.dataset import TRAIN, Dataset, load
from experiments.embeddings import describe, embed
from experiments.frechet import frechet_distance, half_against_half, paired_bootstrap, scalar_distance
from poscuda_fast.evaluation import quality

FOLDER = cells.RESULTS / "distances"
CLIPS = 400  # training clips, drawn at random: the embedding takes a quarter of a second for each
EMBEDDING = "dnsmos-128"

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
    embedded = embed(EMBEDDING, marked, lengths, data.sample_rate)
    low, high = paired_bootstrap(clean, embedded, np.random.default_rng(0))
    return {
        "dataset": data.name,
        "condition": condition.name,
        "title": condition.title,
        "seed": seed,
        "key_fingerprint": key.fingerprint,
        "clips": len(clips),
        **describe(EMBEDDING),
        "fad": frechet_distance(clean, embedded),
        "fad_95": [low, high],
        "half_against_half": half_against_half(clean, np.random.default_rng(0)),
        "scalar_distance": scalar_distance(clean, embedded),
        "quality": quality.measure(clips, marked, lengths, data.sample_rate, metrics=metrics),
    }


def fill_in(result: dict[str, Any], folder: Path) -> int:
    """Write a result's distances into the cells of its data set, condition and key; returns how many."""
    known = {"fad": result["fad"], "embedding": f"{result['embedding']}, {result['clips']} clips"}
    if folder == protection.FOLDER:
        medians = {name: one["median"] for name, one in result["quality"].items()}
        known |= {"visqol": medians.get("visqol"), "lsd_db": medians.get("log_spectral_distance_db")}
    changed = 0
    for path in sorted(folder.glob(f"{result['dataset']}-*_{result['condition']}_s{result['seed']}.json")):
        stored.write(path, json.loads(path.read_text()) | known)
        changed += 1
    return changed


def main(arguments: list[str] | None = None) -> None:
    """Measure whatever is not stored yet, and fill in the cells."""
    names = [one.name for one in table1() if one.name != "clean"] + list(baselines.NAMES_OF_CONDITIONS)
    names += protection.CONDITIONS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--conditions", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--metrics", nargs="+", choices=list(quality.METRICS), default=list(quality.installed()))
    options = parser.parse_args(arguments)
    data = load(options.dataset)
    drawn = sample(data)
    clean: NDArray[np.float32] | None = None
    for seed in options.seeds:
        for name in options.conditions:
            path = FOLDER / f"{data.name}_{name}_s{seed}.json"
            if not path.exists():
                clean = embed(EMBEDDING, drawn[0], drawn[2], data.sample_rate) if clean is None else clean
                command = f"python -m experiments.distances {data.name.upper()} --conditions {name} --seeds {seed}"
                condition = _condition(name, data, seed)
                stored.store(FOLDER, path.stem, command, measure(data, drawn, clean, condition, seed, options.metrics))
            result = json.loads(path.read_text())
            filled = fill_in(result, cells.RESULTS / "table1") + fill_in(result, baselines.FOLDER)
            filled += fill_in(result, protection.FOLDER)
            print(
                f"{data.name} {name} s{seed}: FAD[{EMBEDDING}] {result['fad']:.3g}; {filled} cells filled in",
                flush=True,
            )


def _condition(name: str, data: Dataset, seed: int) -> Condition:
    if name in baselines.NAMES_OF_CONDITIONS:
        return baselines.make(name, data, data.rows(TRAIN), seed)
    known = [*table1(), *(strong(strength, data.sample_rate) for strength in protection.STRENGTHS)]
    return next(one for one in known if one.name == name)


if __name__ == "__main__":
    main()
