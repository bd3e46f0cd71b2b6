"""Table 1 of the paper, measured: data set x model x condition, with several seeds and keys.

    python -m experiments.table1 DATASET [--split official] [--models ...] [--conditions ...] [--seeds 0 1 2]

DATASET is a folder made by experiments.prepare. Every cell is stored as soon as it is finished, and stored cells are
skipped: call it as often as you like. Seed n trains with key n, so the spread is over both.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import cells
from experiments.conditions import table1
from experiments.dataset import load
from experiments.trial import SPLITS
from poscuda_fast.evaluation.models import NAMES
from poscuda_fast.evaluation.training import EPOCHS, Config

FOLDER = cells.RESULTS / "table1"
CELL_OPTIONS = "{dataset} --split {split} --models {model} --conditions {condition} --seeds {seed} --epochs {epochs}"


def main(arguments: list[str] | None = None) -> None:
    """Run every cell that is not stored yet."""
    parser = shared_options(__doc__, [condition.name for condition in table1()])
    options = parser.parse_args(arguments)
    given: dict[str, Any] = {"device": options.device}
    if options.epochs is not None:
        given["epochs"] = options.epochs
    work = functools.partial(_run, options.dataset, options.split, options.models, given)
    cells.in_parallel(work, [(seed, name) for seed in options.seeds for name in options.conditions], options.jobs)


def _run(dataset: Path, split: str, models: list[str], given: dict[str, Any], seed: int, name: str) -> None:
    condition = next(one for one in table1() if one.name == name)
    group = cells.Group(load(dataset), split, condition, seed, FOLDER, f"python -m experiments.table1 {CELL_OPTIONS}")
    group.run([usual(model, seed, **given) for model in group.missing(models)])


def shared_options(text: str | None, names: Sequence[str]) -> argparse.ArgumentParser:
    """The command line of a table of cells over conditions of these names."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--split", choices=SPLITS, default="official")
    parser.add_argument("--models", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--conditions", nargs="+", choices=names, default=list(names))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help=f"default: {EPOCHS}")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    return parser


def usual(model: str, seed: int, **given: Any) -> Config:
    """The settings of a model in all tables; `given` overrides some of them."""
    return dataclasses.replace(Config(model=model, seed=seed, epochs=EPOCHS[model]), **given)


if __name__ == "__main__":
    main()
