"""The ownership test on models trained on protected clips, and on models that were not.

    python -m experiments.ownership DATASET [--keys 30] [--models m5 lstm]

Each model is trained on protected clips and tested with their key; it is also trained on clean clips and tested with
many keys that it never saw, where p-values must not be smaller than by chance.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import stored
from experiments import cells
from experiments.conditions import Clips, Condition, Ints, clean, poscuda, study_key
from experiments.dataset import TEST, TRAIN, Dataset, load
from experiments.trial import lay_out
from poscuda_fast import Key, Recipe, ownership_test, protect
from poscuda_fast.evaluation.models import NAMES, Model
from poscuda_fast.evaluation.training import EPOCHS, Config, Part, predict, train

LEVELS = (0.013, 0.071, 0.264, 0.652)  # ten classes give p-values just below these: 4, 3, 2, 1 hits
FIRST_FOREIGN_KEY = 1000
DENSE = Recipe.paper(every=240)  # the whole clip is marked, so that every model learns it


def dense() -> Condition:
    """The paper's filters, on patches side by side over the whole clip."""

    def mark(clips: Clips, labels: Ints, lengths: Ints, key: Key) -> None:
        protect(clips, labels, key, recipe=DENSE, lengths=lengths)

    return Condition("dense", "a patch every 240 frames, b=0.01", mark, DENSE, DENSE.to_dict())


def trained(data: Dataset, condition: Condition, model: str, epochs: int, key: Key) -> Model:
    """A model trained on the training clips as the condition leaves them."""
    with tempfile.TemporaryDirectory(prefix="poscuda-ownership-") as work:
        trial = lay_out(data, data.rows(TRAIN), data.rows(TEST), condition, key, 0, Path(work))
        config = Config(model=model, epochs=epochs)
        return train(config, trial.training, {"clean": trial.tests["clean"]}, len(data.classes), data.sample_rate).model


def ask(model: Model, data: Dataset, rows: NDArray[np.int64], key: Key, recipe: Recipe) -> dict[str, Any]:
    """The ownership test's result, on unprotected clips that the model was not trained on."""

    def answer(clips: NDArray[np.int16]) -> NDArray[np.int64]:
        return predict(model, Part(clips, np.arange(len(clips)), np.zeros(len(clips), np.int64)))

    found = ownership_test(
        answer,
        data.clips[rows],
        data.labels[rows],
        key,
        recipe=recipe,
        sample_rate=data.sample_rate,
        lengths=data.lengths[rows],
    )
    return found.to_dict()


def measure(data: Dataset, models: list[str], n_keys: int, epochs: int | None = None) -> dict[str, Any]:
    """The fields of the result."""
    rows, key = data.rows(TEST), study_key(0)
    conditions = [poscuda(0.01), dense()]
    found: list[dict[str, Any]] = []
    null: list[dict[str, Any]] = []
    for model in models:
        few = epochs or EPOCHS[model]
        for condition in conditions:
            assert condition.recipe is not None
            result = ask(trained(data, condition, model, few, key), data, rows, key, condition.recipe)
            found.append({"title": condition.title, "model": model, "epochs": few, **result})
            print(f"{condition.name} {model}: {result['hits']} classes, p {result['p_value']:.3g}", flush=True)
        innocent = trained(data, clean(), model, few, key)
        result = ask(innocent, data, rows, key, conditions[0].recipe or Recipe.paper())
        found.append({"title": "clean clips", "model": model, "epochs": few, **result})
        for condition in conditions:
            recipe = condition.recipe or Recipe.paper()
            keys = [study_key(FIRST_FOREIGN_KEY + number) for number in range(n_keys)]
            values = np.array([ask(innocent, data, rows, one, recipe)["p_value"] for one in keys])
            shares = {str(level): round(float(np.mean(values <= level)), 4) for level in LEVELS}
            null.append({"model": model, "recipe": condition.title, "keys": n_keys, "share_at_most": shares})
            print(f"clean {model}, {condition.title}, {n_keys} keys: {shares}", flush=True)
    return {"dataset": data.name, "tested_clips": len(rows), "rows": found, "null": null}


def main(arguments: list[str] | None = None) -> None:
    """Train, test, and store the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--models", nargs="+", choices=NAMES, default=["m5", "lstm"])
    parser.add_argument("--keys", type=int, default=30)
    parser.add_argument("--epochs", type=int, help=f"default: {EPOCHS}")
    options = parser.parse_args(arguments)
    data = load(options.dataset)
    command = f"python -m experiments.ownership {data.name.upper()} --keys {options.keys}"
    stored.store(cells.RESULTS, "ownership", command, measure(data, options.models, options.keys, options.epochs))


if __name__ == "__main__":
    main()
