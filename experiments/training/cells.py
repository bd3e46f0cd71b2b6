"""Results of trainings: one JSON file per cell, made once, and known by everything that changes it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from benchmarks import stored
from experiments.data.dataset import Dataset, load
from experiments.training import baselines
from experiments.training.conditions import Condition, named, study_key
from experiments.training.readings import Reading, moved_to_the_end, readings
from experiments.training.trial import lay_out, rows_of
from poscuda_fast import Recipe, StrongRecipe
from poscuda_fast.evaluation.augmenting import REGIMES
from poscuda_fast.evaluation.models import MODELS
from poscuda_fast.evaluation.names import TITLES
from poscuda_fast.evaluation.pace import cost
from poscuda_fast.evaluation.training import Config, Part, Result, train

MEASURED = ("fad", "embedding", "visqol", "lsd_db", "stoi", "pesq", "tonality_db")  # by experiments.measures


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training: plain values, which another process can have.

    Attributes
    ----------
    folder : Path
        A data set made by `experiments.data`.
    condition, model, training, split : str
        A name for `conditions.named`, of a baseline or of a reading; one of `MODELS`, of `REGIMES` and `trial.SPLITS`.
    seed : int
        Of the training; the key is `study_key(seed)`.
    clips, epochs : int or None
        The most clips, three of four for training; by default all, for as many epochs as the model needs to settle.
    device : str
    """

    folder: Path
    condition: str
    model: str
    training: str = "plain"
    seed: int = 0
    split: str = "official"
    clips: int | None = None
    epochs: int | None = None
    device: str = "auto"

    @property
    def config(self) -> Config:
        """All settings of the training."""
        epochs = self.epochs or MODELS[self.model].epochs
        config = Config(self.model, epochs, seed=self.seed, regime=REGIMES[self.training])
        reading = self._reading()
        return dataclasses.replace(config, **reading.training) if reading else config

    @property
    def cost(self) -> float:
        """The work, in a unit of its own."""
        return cost(self.model, self.config.epochs, changing=self.config.regime.changes)

    def name(self, data: Dataset) -> str:
        """The name of the cell's file, with a digest of everything that changes its result."""
        return named_by(self._identity(data), data.name, self.condition, self.training, self.model, f"s{self.seed}")

    def run(self, results: Path) -> str:
        """Mark the clips, train the model, and store the cell; returns a line about it."""
        data = load(self.folder)
        name, split = self.name(data), self._split()
        key, reading = study_key(self.seed), self._reading()
        config = dataclasses.replace(self.config, device=self.device)
        with contextlib.ExitStack() as stack:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="poscuda-trial-")))
            heard = stack.enter_context(moved_to_the_end(data)) if reading and reading.padded_before else data
            train_rows, test_rows = rows_of(heard, split, self.seed, self.clips)
            condition = self._condition(heard, train_rows)
            trial = lay_out(heard, train_rows, test_rows, condition, key, self.seed, work)
            result = train(
                config, trial.training, {"clean": trial.clean}, len(data.classes), data.sample_rate, at_end=trial.side
            )
            fields = {
                **self._identity(data),
                "title": condition.title,
                "key_fingerprint": None if self.condition == "clean" else key.fingerprint,
                "snr_db": median_snr_db(heard, train_rows, trial.training),
                **_of_recipe(condition),
                "train_clips": len(train_rows),
                "test_clips": len(test_rows),
                **accuracies(result),
                **dict.fromkeys(MEASURED),
                "seconds": round(result.seconds, 1),
                "device": str(next(result.model.parameters()).device),
                "curves": curves(result),
            }
        stored.store(results, name, self._command(data), fields)
        said = f"{self.condition} {self.training} s{self.seed} {TITLES[self.model]}: "
        return f"{said}{fields['clean_final']:.1f} [{fields['clean_peak']:.1f}] in {result.seconds:.0f} s"

    def _identity(self, data: Dataset) -> dict[str, Any]:
        config = dataclasses.asdict(self.config)
        del config["device"]
        named_again = ("model", "epochs", "seed")
        return {
            "dataset": data.name,
            "digest": data.digest,
            "split": self._split(),
            "clips": self.clips,
            "condition": self.condition,
            "training": self.training,
            **{name: config.pop(name) for name in named_again},
            "settings": config | {"condition": self._settings(data)},
        }

    def _settings(self, data: Dataset) -> dict[str, Any]:
        if self.condition in baselines.NAMES:
            return {"rounds": baselines.ROUNDS, "train_steps": baselines.TRAIN_STEPS, "stop_percent": baselines.STOP}
        reading = self._reading()
        return reading.condition.settings if reading else named(self.condition, data.sample_rate).settings

    def _condition(self, data: Dataset, rows: Any) -> Condition:
        if self.condition in baselines.NAMES:
            return baselines.error_minimising(data, rows, float(self.condition.split("-")[1]), self.seed)
        reading = self._reading()
        return reading.condition if reading else named(self.condition, data.sample_rate)

    def _reading(self) -> Reading | None:
        return readings().get(self.condition)

    def _split(self) -> str:
        reading = self._reading()
        return reading.split if reading else self.split

    def _command(self, data: Dataset) -> str:
        said = f"--conditions {self.condition} --trainings {self.training} --models {self.model} --seeds {self.seed}"
        said += f" --split {self.split}" * (self.split != "official") + of_size(self.clips, self.epochs)
        return f"python -m experiments.training {data.name.upper()} {said}"


def named_by(identity: dict[str, Any], *words: str) -> str:
    """The name of a cell's file: some words, and a digest of everything that changes its result."""
    digest = blake3(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    return "_".join([*words, digest])


def of_size(clips: int | None, epochs: int | None) -> str:
    """The options of a command for fewer clips and epochs than usual."""
    return f" --clips {clips}" * (clips is not None) + f" --epochs {epochs}" * (epochs is not None)


def _of_recipe(condition: Condition) -> dict[str, Any]:
    """The fields of a cell of format 2."""
    if not isinstance(condition.recipe, StrongRecipe):
        return {}
    recipe = condition.recipe
    return {"recipe": recipe.to_dict(), "strength": recipe.strength, "chosen": recipe == Recipe.strong()}


def accuracies(result: Result) -> dict[str, Any]:
    """What every cell stores of a training: accuracies in %, after the last epoch and after the best.

    A condition without a mark has no keyed, mis-keyed or noise test; these are null.
    """
    return {
        "clean_final": result.final("clean"),
        "clean_peak": result.peak("clean"),
        **{name: result.history[-1].get(name) for name in ("keyed", "miskeyed", "noise")},
        "train": result.final("train"),
    }


def curves(result: Result) -> dict[str, list[float]]:
    """The history by name, one number per epoch."""
    return {name: [round(epoch[name], 4) for epoch in result.history] for name in ("loss", "train", "clean")}


def median_snr_db(data: Dataset, rows: Any, marked: Part) -> float | None:
    """Median SNR of the marked clips in dB; None if most clips are unchanged."""
    values = []
    for row, place in zip(rows, marked.rows, strict=True):
        before = data.clips[row, : data.lengths[row]].astype(np.float64)
        change = float(((marked.audio[place, : data.lengths[row]] - before) ** 2).sum())
        values.append(10.0 * np.log10(float((before**2).sum()) / change) if change and before.any() else np.inf)
    middle = float(np.median(values))
    return round(middle, 2) if np.isfinite(middle) else None


def load_all(folder: Path) -> list[dict[str, Any]]:
    """Every stored cell of a folder, in the order of their names."""
    return [{"name": path.stem, **json.loads(path.read_text())} for path in sorted(folder.glob("*.json"))]
