"""Format 2 at several strengths, measured in the same way as Table 1; the cells are stored in results/protection.

    python -m experiments.protection DATASET [--conditions strong-1 ...] [--models ...] [--seeds 0 1 2]
    python -m experiments.distances DATASET --conditions strong-1 ...     (fills in quality and distances)

Seed n trains with key n. The cells of the default recipe are marked as chosen.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from experiments import cells
from experiments.conditions import strong
from experiments.dataset import load
from experiments.table1 import CELL_OPTIONS, shared_options, usual
from poscuda_fast import Recipe

FOLDER = cells.RESULTS / "protection"
STRENGTHS = (0.25, 0.5, 0.7, 1.0, 1.4, 2.0)
CONDITIONS = tuple(strong(strength).name for strength in STRENGTHS)


def main(arguments: list[str] | None = None) -> None:
    """Run every cell that is not stored yet."""
    options = shared_options(__doc__, CONDITIONS).parse_args(arguments)
    given: dict[str, Any] = {"device": options.device}
    if options.epochs is not None:
        given["epochs"] = options.epochs
    work = functools.partial(_run, options.dataset, options.split, options.models, given)
    cells.in_parallel(work, [(seed, name) for seed in options.seeds for name in options.conditions], options.jobs)


def _run(dataset: Path, split: str, models: list[str], given: dict[str, Any], seed: int, name: str) -> None:
    data, strength = load(dataset), STRENGTHS[CONDITIONS.index(name)]
    recipe = Recipe.strong(strength)
    more = {
        "recipe": recipe.to_dict(),
        "strength": strength,
        "chosen": recipe == Recipe.strong(),
        "visqol": None,  # experiments.distances fills these in
        "lsd_db": None,
    }
    command = f"python -m experiments.protection {CELL_OPTIONS}"
    group = cells.Group(data, split, strong(strength, data.sample_rate), seed, FOLDER, command, more)
    group.run([usual(model, seed, **given) for model in group.missing(models)])


if __name__ == "__main__":
    main()
