"""One training on attacked clips, and its result: a JSON file made once, known by everything that changes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import stored
from experiments.attacks.probe import probe, transferred
from experiments.attacks.scene import Scene, make_scene
from experiments.attacks.table import Chosen, attacked, choose, heard, made_for
from experiments.data.dataset import Dataset, load
from experiments.training.cells import named_by, of_size
from experiments.training.conditions import named
from experiments.training.trial import rows_of
from poscuda_fast.evaluation.augmenting import REGIMES
from poscuda_fast.evaluation.models import MODELS
from poscuda_fast.evaluation.pace import cost
from poscuda_fast.evaluation.training import Config, Part, train

LINEAR = "linear"  # the model of a probe
TRAINING = "default"  # of all attacks that do not change the training themselves
EPOCHS = {name: max(8, kind.epochs // 2) for name, kind in MODELS.items()}


@dataclasses.dataclass(frozen=True)
class Attacked:
    """One cell: plain values, which another process can have.

    They are those of `training.cells.Cell`, with half the epochs by default; `attack` is a name for `table.choose`,
    `model` may be `LINEAR`, and `other` is a data set that a probe's embedding is trained on.
    """

    folder: Path
    condition: str
    attack: str
    model: str
    seed: int = 0
    clips: int | None = None
    epochs: int | None = None
    other: Path | None = None
    device: str = "auto"

    @property
    def chosen(self) -> Chosen:
        """The attack."""
        return choose(self.attack)[0]

    @property
    def config(self) -> Config:
        """All settings of the training."""
        plain = self.chosen.attack.kind == "training"
        regime = REGIMES["plain" if plain else TRAINING]
        return Config(self.model, self.epochs or EPOCHS[self.model], seed=self.seed, regime=regime)

    @property
    def cost(self) -> float:
        """The work, in a unit of its own."""
        return 5.0 if self.model == LINEAR else cost(self.model, self.config.epochs, changing=True)

    def name(self, data: Dataset) -> str:
        """The name of the cell's file."""
        return named_by(self._identity(data), data.name, self.attack, self.condition, self.model, f"s{self.seed}")

    def run(self, results: Path) -> str:
        """Mark and attack the clips, train the model, and store the cell; returns a line about it."""
        data = load(self.folder)
        train_rows, test_rows = rows_of(data, "official", self.seed, self.clips)
        scene = make_scene(data, train_rows, named(self.condition, data.sample_rate), self.seed)
        scene, details = attacked(self.chosen, scene, self.seed)
        asked = heard(self.chosen, data.clips[test_rows], data.lengths[test_rows], data.sample_rate, self.seed)
        history, seconds = self._train(data, scene, asked, test_rows)
        fields = {
            **self._identity(data),
            "title": self.chosen.title,
            "kind": self.chosen.attack.kind,
            "strength": self.chosen.strength,
            "train_clips": len(train_rows),
            "test_clips": len(test_rows),
            "clean_final": history[-1]["clean"],
            "clean_peak": max(epoch["clean"] for epoch in history),
            "train": history[-1]["train"],
            "details": details,
            "seconds": round(seconds, 1),
        }
        stored.store(results, self.name(data), self._command(data), fields)
        said = f"{self.attack} on {self.condition}, {self.model}"
        return f"{said}: {fields['clean_final']:.1f} [{fields['clean_peak']:.1f}] in {seconds:.0f} s"

    def _train(self, data: Dataset, scene: Scene, asked: Any, test_rows: Any) -> tuple[list[dict[str, float]], float]:
        labels = data.labels[test_rows]
        if self.model == LINEAR:
            assert self.other is not None
            embedding = transferred(self.other, self.seed)
            seen = embedding(scene.clips, scene.lengths, scene.sample_rate)
            tested = embedding(asked, data.lengths[test_rows], data.sample_rate)
            return probe(seen, scene.labels, tested, labels, scene.n_classes)
        result = train(
            dataclasses.replace(self.config, device=self.device),
            Part(scene.clips, np.arange(len(scene.clips)), scene.labels),
            {"clean": Part(asked, np.arange(len(asked)), labels)},
            scene.n_classes,
            scene.sample_rate,
            step=made_for(self.chosen, "training", scene, self.model, self.seed),
            front=made_for(self.chosen, "front", scene, self.model, self.seed),
        )
        return result.history, result.seconds

    def _identity(self, data: Dataset) -> dict[str, Any]:
        config: dict[str, Any] = {}
        if self.model != LINEAR:
            config = dataclasses.asdict(self.config)
            del config["device"]
        return {
            "dataset": data.name,
            "digest": data.digest,
            "clips": self.clips,
            "condition": self.condition,
            "attack": self.attack,
            "model": self.model,
            "seed": self.seed,
            "epochs": config.get("epochs", 0),
            "training": self.attack if self.chosen.attack.kind == "training" else TRAINING,
            "other": load(self.other).digest if self.other is not None and self.model == LINEAR else None,
            "settings": {
                "attack": [self.chosen.attack.name, self.chosen.strength],
                "config": config,
                "condition": named(self.condition, data.sample_rate).settings,
            },
        }

    def _command(self, data: Dataset) -> str:
        said = f"--attacks {self.attack} --conditions {self.condition}"
        said += f" --models {self.model}" if self.model != LINEAR else " --other OTHER"
        said += f" --seeds {self.seed}" * bool(self.seed) + of_size(self.clips, self.epochs)
        return f"python -m experiments.attacks {data.name.upper()} {said}"
