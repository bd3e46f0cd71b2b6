"""Table 1 of the paper, measured: data set x model x condition, several seeds and keys.

    python -m experiments.table1 DATASET [--split official] [--models ...] [--conditions ...] [--seeds 0 1 2]

DATASET is a folder made by experiments.prepare. Every cell is stored as it is finished and is not run
again: call it as often as you like. Seed n trains with key n, so the spread is over both.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import multiprocessing
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks import stored
from experiments import cells
from experiments.conditions import Condition, study_key, table1
from experiments.dataset import load
from experiments.models import NAMES
from experiments.train import Config, predict, train
from experiments.trial import SPLITS, Trial, lay_out, rows_of

EPOCHS = {"m5": 40, "lstm": 30, "transformer": 12, "cnn": 20}
FOLDER = cells.RESULTS / "table1"


def cell_name(dataset: str, split: str, model: str, condition: str, seed: int) -> str:
    """The name of one cell's file."""
    return f"{dataset}-{split}_{model}_{condition}_s{seed}"


def run_group(dataset: Path, split: str, condition: Condition, seed: int, models: list[str], given: dict[str, object]) -> None:
    """The cells of one condition, seed and key: the clips are marked once, and every model is trained on them."""
    data = load(dataset)
    todo = [m for m in models if not cells.path_of(FOLDER, cell_name(data.name, split, m, condition.name, seed)).exists()]
    if not todo:
        return
    torch.set_num_threads(1)  # two trainings on two cores are quicker than one on both
    key = study_key(seed)
    train_rows, test_rows = rows_of(data, split, seed)
    with tempfile.TemporaryDirectory(prefix="poscuda-trial-") as folder:
        trial = lay_out(data, train_rows, test_rows, condition, key, seed, Path(folder))
        snr = median_snr(data.clips, trial, data.lengths)
        for model in todo:
            config = Config(model=model, seed=seed, **{"epochs": EPOCHS[model], **given})  # type: ignore[arg-type]
            result = train(config, trial.training, trial.tests, len(data.classes), data.sample_rate)
            found = predict(result.model, trial.tests["clean"])
            fields = {
                "dataset": data.name,
                "split": split,
                "model": model,
                "condition": condition.name,
                "title": condition.title,
                "seed": seed,
                "key_fingerprint": None if condition.name == "clean" else key.fingerprint,
                "epochs": config.epochs,
                **cells.accuracies(result),
                "snr_db": snr,
                "fad": None,
                "embedding": None,
                "train_clips": len(train_rows),
                "test_clips": len(test_rows),
                "settings": cells.settings(config, condition),
                "seconds": round(result.seconds, 1),
                "device": str(next(result.model.parameters()).device),
                "confusion": cells.confusion(found, trial.tests["clean"].labels, len(data.classes)),
                "curves": cells.curves(result),
            }
            command = (
                f"python -m experiments.table1 {data.name.upper()} --split {split} --models {model} "
                f"--conditions {condition.name} --seeds {seed} --epochs {config.epochs}"
            )
            stored.store(FOLDER, cell_name(data.name, split, model, condition.name, seed), command, fields)
            print(
                f"{data.name} {split} {condition.name} s{seed} {model}: clean {fields['clean_final']} "
                f"(peak {fields['clean_peak']}) keyed {fields['keyed']} mis-keyed {fields['miskeyed']} "
                f"noise {fields['noise']} train {fields['train']}, {result.seconds:.0f} s",
                flush=True,
            )


def median_snr(clean: np.ndarray, trial: Trial, lengths: np.ndarray) -> float | None:
    """Median over the training clips of the clip's energy over its change's, dB; None where most are unchanged."""
    values = []
    for row in trial.training.rows:
        before = clean[row, : lengths[row]].astype(np.float64)
        change = float(((trial.training.audio[row, : lengths[row]] - before) ** 2).sum())
        values.append(10.0 * np.log10(float((before**2).sum()) / change) if change and before.any() else np.inf)
    middle = float(np.median(values))
    return round(middle, 2) if np.isfinite(middle) else None


def main(arguments: list[str] | None = None) -> None:
    """Run every cell that is not stored yet."""
    known = {condition.name: condition for condition in table1()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--split", choices=SPLITS, default="official")
    parser.add_argument("--models", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--conditions", nargs="+", choices=list(known), default=list(known))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help=f"default: {EPOCHS}")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    options = parser.parse_args(arguments)
    given: dict[str, object] = {"device": options.device}
    if options.epochs is not None:
        given["epochs"] = options.epochs
    groups = [(seed, name) for seed in options.seeds for name in options.conditions]
    run = functools.partial(_run, options.dataset, options.split, options.models, given)
    if options.jobs == 1:
        for group in groups:
            run(*group)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(options.jobs, context) as pool:
        for future in [pool.submit(run, *group) for group in groups]:
            future.result()


def _run(dataset: Path, split: str, models: list[str], given: dict[str, object], seed: int, name: str) -> None:
    condition = next(one for one in table1() if one.name == name)
    run_group(dataset, split, condition, seed, models, given)


if __name__ == "__main__":
    main()
