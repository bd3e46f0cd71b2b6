"""Train models on protected clips after every attack, and beside it on clean clips after the same attack.

    python -m experiments.attacks DATASET [--attacks all] [--conditions strong-1 clean] [--models m5 cnn] [--seeds 0]
        [--clips N] [--epochs N] [--other DATASET] [--jobs N] [--results FOLDER]

The same attack on clean clips shows what the attack itself costs; where it makes no sense there, it has no cell.
Attacks are names of experiments.attacks.table, with -STRENGTH where there are several, kinds (audio, data, front,
training, probe), or all; a probe needs --other, a prepared data set that its network is trained on. Test clips go
through what an attacker can put in front of a model: a filter, a codec, a projection. Every cell is stored as soon as
it is finished, and stored cells are skipped.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from experiments.asking import sentences, trainer_of
from experiments.attacks.cells import LINEAR, Attacked
from experiments.attacks.table import choose
from experiments.data.dataset import load, results_of
from experiments.parallel import run_missing
from experiments.training.conditions import named
from poscuda_fast.evaluation.models import MODELS


@sentences
def main(arguments: list[str] | None = None) -> None:
    """Run every cell that is not stored yet."""
    parser = trainer_of(__doc__, [0], "half of what each model needs to settle")
    parser.add_argument("--attacks", nargs="+", default=["all"])
    parser.add_argument("--conditions", nargs="+", default=["strong-1", "clean"])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["m5", "cnn"])
    parser.add_argument("--other", type=Path, help="a prepared data set for the probe's network")
    options = parser.parse_args(arguments)
    data = load(options.dataset)
    results = options.results or results_of(data, "attacks")
    attacks = {one.name: one for text in options.attacks for one in choose(text)}
    for condition in options.conditions:
        named(condition)
    cells = []
    for seed, (name, chosen) in itertools.product(options.seeds, attacks.items()):
        probed = chosen.attack.kind == "probe"
        if probed and options.other is None:
            print(f"{name} is left out: it needs --other, a prepared data set.")
            continue
        cells += [
            Attacked(options.dataset, condition, name, model, seed, options.clips, options.epochs, options.other,
                     options.device)
            for condition in options.conditions
            for model in ([LINEAR] if probed else options.models)
            if probed or chosen.applies(condition, model)
        ]  # fmt: skip
    run_missing(cells, data, results, options.jobs)


if __name__ == "__main__":
    main()
