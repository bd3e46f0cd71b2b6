"""Results of trainings: one JSON a cell, never made twice."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import stored
from experiments.conditions import Condition
from experiments.dataset import Dataset
from experiments.train import Config, Result
from poscuda_fast import Key

RESULTS = Path(__file__).parent / "results"


def path_of(folder: Path, name: str) -> Path:
    """Where a cell lies."""
    return folder / f"{name}.json"


def load_all(folder: Path) -> list[dict[str, Any]]:
    """Every stored cell of a folder, in the order of their names."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def accuracies(result: Result) -> dict[str, Any]:
    """What every cell tells of a training: accuracies in %, final and peak.

    A condition without a mark has no keyed, mis-keyed or noise test: null.
    """
    fields: dict[str, Any] = {"clean_final": result.final("clean"), "clean_peak": result.peak("clean")}
    for name in ("keyed", "miskeyed", "noise"):
        known = name in result.history[-1]
        fields |= {name: result.final(name) if known else None, f"{name}_peak": result.peak(name) if known else None}
    return fields | {"train": result.final("train"), "train_peak": result.peak("train")}


def curves(result: Result) -> dict[str, list[float]]:
    """The history by name, one number an epoch."""
    return {name: [round(epoch[name], 4) for epoch in result.history] for name in result.history[0] if name != "epoch"}


def settings(config: Config, condition: Condition) -> dict[str, Any]:
    """Everything that was chosen."""
    return {
        **dataclasses.asdict(config),
        "lr": config.learning_rate,
        "condition": condition.settings,
    }


def confusion(predicted: Any, labels: Any, n_classes: int) -> list[list[int]]:
    """How often each class (row) was taken for each class (column)."""
    table = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(table, (labels, predicted), 1)
    return [[int(count) for count in row] for row in table]
