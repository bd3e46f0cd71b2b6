"""Train models on a data set, clean and marked, and test them on clean clips.

    python -m experiments.training DATASET [--conditions strong clean ...] [--trainings plain default mean-off]
        [--models ...] [--seeds 0 1 2] [--split official] [--clips N] [--epochs N] [--jobs N] [--results FOLDER]

DATASET is a folder made by experiments.data. Conditions are names such as clean, poscuda-0.01, whole-0.3, strong-1,
cuda-0.3 and emin-14, or the groups table1, strong, others and readings. Every cell is stored as soon as it is
finished, and stored cells are skipped: call it as often as you like. Seed n trains with key n, so the spread is over
both. A table of what was asked for is printed at the end. Cells of FSDD and Speech Commands go to the project's
results, others to DATASET/results.
"""

from __future__ import annotations

import itertools

from experiments.asking import sentences, trainer_of
from experiments.data.dataset import load, results_of
from experiments.parallel import run_missing
from experiments.tables.text import TABLE1, own_table
from experiments.training import baselines
from experiments.training.cells import Cell, load_all
from experiments.training.conditions import named
from experiments.training.readings import readings
from experiments.training.trial import SPLITS
from poscuda_fast.evaluation.augmenting import REGIMES
from poscuda_fast.evaluation.models import MODELS
from poscuda_fast.evaluation.names import NAMES

GROUPS = {
    "table1": TABLE1,
    "strong": ("strong-0.5", "strong-1", "strong-1.4", "strong-2"),
    "others": ("cuda-0.01", "cuda-0.3", *baselines.NAMES),
    "readings": tuple(readings()),
}  # fmt: skip


@sentences
def main(arguments: list[str] | None = None) -> None:
    """Run every cell that is not stored yet."""
    parser = trainer_of(__doc__, [0, 1, 2], "as many as each model needs to settle")
    parser.add_argument("--conditions", nargs="+", default=["clean", "poscuda-0.01", "poscuda-0.3", "strong"])
    parser.add_argument("--trainings", nargs="+", choices=list(REGIMES), default=["plain", "default"])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(NAMES))
    parser.add_argument("--split", choices=SPLITS, default="official")
    options = parser.parse_args(arguments)
    data = load(options.dataset)
    results = options.results or results_of(data, "protection")
    conditions = list(dict.fromkeys(name for word in options.conditions for name in GROUPS.get(word, (word,))))
    for name in conditions:
        if name not in baselines.NAMES and name not in readings():
            named(name)  # refuses an unknown one before anything is trained
    asked = [
        Cell(options.dataset, condition, model, training, seed, options.split, options.clips, options.epochs,
             options.device)
        for seed, training, condition, model in itertools.product(
            options.seeds, options.trainings, conditions, options.models
        )
        if training != "mean-off" or MODELS[model].spectral
    ]  # fmt: skip
    run_missing(asked, data, results, options.jobs)
    names = {cell.name(data) for cell in asked}
    print(own_table([cell for cell in load_all(results) if cell["name"] in names]))


if __name__ == "__main__":
    main()
