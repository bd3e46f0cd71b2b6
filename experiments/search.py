"""Search for a mark that protects: families of marks, each at several signal-to-noise ratios, in short trainings.

    python -m experiments.search DATASET [--sweeps carriers ...] [--models m5 lstm] [--jobs 2]

Every result is kept, good or bad, and is made once. There is one key and seed, and fewer epochs than in the tables:
what looks good here is measured properly by experiments.protection.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import tempfile
from pathlib import Path

from benchmarks import stored
from experiments import cells, families
from experiments.conditions import study_key
from experiments.dataset import TEST, TRAIN, load
from experiments.families import Family
from experiments.sweeps import SWEEPS
from experiments.trial import lay_out
from poscuda_fast.evaluation.models import NAMES
from poscuda_fast.evaluation.training import Config, train

FOLDER = cells.RESULTS / "search"
EPOCHS = {"m5": 16, "lstm": 10, "transformer": 6, "cnn": 8}


def main(arguments: list[str] | None = None) -> None:
    """Train on every point of the sweeps that is not stored yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--sweeps", nargs="+", choices=list(SWEEPS), default=list(SWEEPS))
    parser.add_argument("--models", nargs="+", choices=NAMES, default=["m5", "lstm"])
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    data = load(options.dataset)
    rows = data.rows(TRAIN)
    energies = families.energies_of(data.clips, rows, data.lengths)
    points = [
        (options.dataset, sweep, families.at_snr(family, energies, data.lengths[rows], snr), snr, options.models)
        for sweep in options.sweeps
        for family, snr in SWEEPS[sweep]
    ]
    cells.in_parallel(measure, points, options.jobs)


def measure(dataset: Path, sweep: str, family: Family, snr_db: float, models: list[str]) -> None:
    """Mark with one family at one level, train, and store a result for each model."""
    data = load(dataset)
    nominal = dataclasses.replace(family, level=Family.level)
    name = f"{data.name}_{sweep}_{hashlib.sha256(nominal.name.encode()).hexdigest()[:8]}_{snr_db:g}dB"
    missing = [model for model in models if not (FOLDER / f"{name}_{model}.json").exists()]
    if not missing:
        return
    condition, key = families.condition(family), study_key(0)
    with tempfile.TemporaryDirectory(prefix="poscuda-search-") as work:
        trial = lay_out(data, data.rows(TRAIN), data.rows(TEST), condition, key, 0, Path(work))
        tests = {which: trial.tests[which] for which in ("clean", "keyed")}
        snr = cells.median_snr_db(data, trial.training)
        for model in missing:
            config = Config(model=model, epochs=EPOCHS[model], seed=0)
            result = train(config, trial.training, tests, len(data.classes), data.sample_rate)
            fields = {
                "dataset": data.name,
                "sweep": sweep,
                "model": model,
                "epochs": config.epochs,
                "family": dataclasses.asdict(family),
                "asked_snr_db": snr_db,
                "snr_db": snr,
                **{
                    key: value
                    for key, value in cells.accuracies(result).items()
                    if key.startswith(("clean", "keyed", "train"))
                },
                "seconds": round(result.seconds, 1),
            }
            stored.store(
                FOLDER,
                f"{name}_{model}",
                f"python -m experiments.search {data.name.upper()} --sweeps {sweep} --models {model}",
                fields,
            )
            print(
                f"{sweep} {nominal.name} {snr} dB {model}: clean {fields['clean_final']} (peak {fields['clean_peak']}) "
                f"keyed {fields['keyed']}, {result.seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
