"""Train one model on a prepared data set as it is, and print the accuracies of every epoch.

python -m experiments.train DATASET [--model m5] [--epochs 100] [--seed 0]
"""

from __future__ import annotations

import argparse
from typing import Any

from experiments.dataset import TEST, TRAIN, load
from poscuda_fast.evaluation.models import NAMES
from poscuda_fast.evaluation.training import Config, Part, train


def main(arguments: list[str] | None = None) -> None:
    """Train on a prepared data set and print every epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--model", choices=NAMES, default="m5")
    parser.add_argument("--epochs", type=int, default=Config.epochs)
    parser.add_argument("--lr", type=float, default=Config.lr)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    given: dict[str, Any] = vars(parser.parse_args(arguments))
    data = load(given.pop("dataset"))
    parts = {split: Part(data.clips, data.rows(split), data.labels[data.rows(split)]) for split in (TRAIN, TEST)}

    def show(epoch: dict[str, float]) -> None:
        print(" ".join(f"{name} {value:g}" for name, value in epoch.items()), flush=True)

    result = train(Config(**given), parts[TRAIN], {"clean": parts[TEST]}, len(data.classes), data.sample_rate, log=show)
    print(f"final {result.final('clean')} peak {result.peak('clean')} in {result.seconds:.0f} s")


if __name__ == "__main__":
    main()
