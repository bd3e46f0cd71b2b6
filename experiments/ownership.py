"""The ownership test on models trained on data of which a share is marked, and on models that were not.

    python -m experiments.ownership DATASET [--models m5 lstm cnn] [--keys 100] [--jobs N] [--results FOLDER]

Each model is trained on clips of which 1 to 100 % carry format 2, and tested with their key; so are a model
fine-tuned on clean clips afterwards, one that only learnt the first one's answers, and one whose clips two owners
marked. A model trained on clean clips is tested with many keys that it never saw, where p-values must not be smaller
than by chance. The test asks for labels alone. Every result is stored as soon as it is finished, and stored ones are
skipped.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import stored
from experiments.asking import parser_of, sentences
from experiments.data.dataset import TEST, TRAIN, Dataset, load, results_of
from experiments.parallel import run_missing
from experiments.training.conditions import Clips, Ints, mark_rows, named, study_key
from experiments.training.trial import spaced
from poscuda_fast import Key, Recipe, ownership_test
from poscuda_fast.evaluation.models import MODELS, Model
from poscuda_fast.evaluation.pace import cost
from poscuda_fast.evaluation.training import Config, Part, predict, train

SHARES = (1.0, 2.0, 5.0, 10.0, 100.0)  # % of the clips
AFTER = 5.0  # % marked, where something is done to the model afterwards
HOWS = ("fine-tuned", "distilled", "two owners")
LEVELS = (0.013, 0.071, 0.264, 0.652)  # ten classes give p-values just below these: 4, 3, 2, 1 hits
FIRST_FOREIGN_KEY = 1000
TRAIN_CLIPS, ASKED_CLIPS = 2700, 200
RECIPE = Recipe.strong()


@dataclasses.dataclass(frozen=True)
class Suspect:
    """One model that is asked: `share` % of its training clips are marked, none of an innocent one's.

    `how` is "", or one of `HOWS`; `keys` is how many foreign keys an innocent model is asked about.
    """

    folder: Path
    model: str
    share: float
    how: str = ""
    keys: int = 0

    @property
    def cost(self) -> float:
        """The work, in a unit of its own."""
        return cost(self.model, MODELS[self.model].epochs) * (1 + bool(self.how)) + self.keys

    def name(self, data: Dataset) -> str:
        """The name of its result's file."""
        return f"{data.name}_{self.model}_{self.share:g}" + f"_{self.how.replace(' ', '-')}" * bool(self.how)

    def run(self, results: Path) -> str:
        """Train the model, ask it, and store the result; returns a line about it."""
        data = load(self.folder)
        rows = spaced(data.rows(TRAIN), TRAIN_CLIPS)
        model = self._trained(data, rows)
        asked = spaced(data.rows(TEST), ASKED_CLIPS)
        fields: dict[str, Any] = {
            "dataset": data.name, "digest": data.digest, "model": self.model, "share": self.share, "how": self.how,
            "recipe": RECIPE.to_dict(), "train_clips": len(rows), "asked_clips": len(asked),
        }  # fmt: skip
        if self.share:
            fields |= ask(model, data, asked, study_key(0))
            if self.how == "two owners":
                fields["second_p_value"] = ask(model, data, asked, study_key(1))["p_value"]
            line = f"{self.model}, {self.share:g} % marked {self.how}: p {fields['p_value']:.2g}"
        else:
            keys = [study_key(FIRST_FOREIGN_KEY + number) for number in range(self.keys)]
            values = np.array([ask(model, data, asked, key)["p_value"] for key in keys])
            fields |= {"keys": self.keys, "lowest_p_value": float(values.min())}
            fields["share_at_most"] = {str(level): round(float(np.mean(values <= level)), 4) for level in LEVELS}
            line = f"{self.model}, clean clips, {self.keys} keys: lowest p {values.min():.2g}"
        command = f"python -m experiments.ownership {data.name.upper()} --models {self.model}"
        stored.store(results, self.name(data), command, fields)
        return line

    def _trained(self, data: Dataset, rows: Ints) -> Model:
        clips, labels = np.array(data.clips[rows]), data.labels[rows]
        n_marked = round(len(rows) * self.share / 100)
        order = np.random.default_rng(0).permutation(len(rows))
        owners = 2 if self.how == "two owners" else 1
        for owner in range(owners):
            mine = np.sort(order[owner * n_marked : (owner + 1) * n_marked])
            if len(mine):
                marks = named("strong-1", data.sample_rate)
                mark_rows(marks, clips, mine, labels[mine], data.lengths[rows[mine]], study_key(owner))
        model = self._train(data, clips, labels)
        if self.how == "fine-tuned":  # on the other clips, which are clean
            rest = np.sort(order[n_marked:])
            return self._train(data, np.array(data.clips[rows[rest]]), labels[rest], start=model)
        if self.how == "distilled":
            answers = predict(model, Part(clips, np.arange(len(clips)), labels))
            return self._train(data, clips, answers)
        return model

    def _train(self, data: Dataset, clips: Clips, labels: Ints, start: Model | None = None) -> Model:
        epochs = MODELS[self.model].epochs
        config = Config(self.model, epochs if start is None else epochs // 4)
        part = Part(clips, np.arange(len(clips)), labels)
        return train(config, part, {}, len(data.classes), data.sample_rate, start=start).model


def ask(model: Model, data: Dataset, rows: Ints, key: Key) -> dict[str, Any]:
    """The ownership test's result, on unprotected clips that the model was not trained on."""

    def answer(clips: NDArray[np.int16]) -> NDArray[np.int64]:
        return predict(model, Part(clips, np.arange(len(clips)), np.zeros(len(clips), np.int64)))

    return ownership_test(
        answer,
        data.clips[rows],
        data.labels[rows],
        key,
        recipe=RECIPE,
        sample_rate=data.sample_rate,
        lengths=data.lengths[rows],
    ).to_dict()


@sentences
def main(arguments: list[str] | None = None) -> None:
    """Train, ask and store whatever is not stored yet."""
    parser = parser_of(__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["m5", "lstm", "cnn"])
    parser.add_argument("--keys", type=int, default=100, help="foreign keys; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--results", type=Path, help="a folder for the results")
    options = parser.parse_args(arguments)
    data = load(options.dataset)
    results = options.results or results_of(data, "ownership")
    suspects = []
    for model in options.models:
        suspects += [Suspect(options.dataset, model, share) for share in SHARES]
        suspects += [Suspect(options.dataset, model, AFTER, how) for how in HOWS]
        suspects += [Suspect(options.dataset, model, 0.0, keys=options.keys)]
    run_missing(suspects, data, results, options.jobs)


if __name__ == "__main__":
    main()
