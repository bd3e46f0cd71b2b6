"""Results of trainings: one JSON file per cell, each made once."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import stored
from experiments.conditions import Condition, study_key
from experiments.dataset import Dataset
from experiments.trial import Trial, lay_out, rows_of
from poscuda_fast.evaluation.training import Config, Part, Result, predict, train

RESULTS = Path(__file__).parent / "results"


def load_all(folder: Path) -> list[dict[str, Any]]:
    """Every stored cell of a folder, in the order of their names."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def accuracies(result: Result) -> dict[str, Any]:
    """What every cell stores of a training: accuracies in %, final and peak.

    A condition without a mark has no keyed, mis-keyed or noise test; these are null.
    """
    fields: dict[str, Any] = {"clean_final": result.final("clean"), "clean_peak": result.peak("clean")}
    for name in ("keyed", "miskeyed", "noise"):
        known = name in result.history[-1]
        fields |= {name: result.final(name) if known else None, f"{name}_peak": result.peak(name) if known else None}
    return fields | {"train": result.final("train"), "train_peak": result.peak("train")}


def curves(result: Result) -> dict[str, list[float]]:
    """The history by name, one number per epoch."""
    return {name: [round(epoch[name], 4) for epoch in result.history] for name in result.history[0] if name != "epoch"}


def settings(config: Config, condition: Condition) -> dict[str, Any]:
    """All settings of a training and its condition."""
    return dataclasses.asdict(config) | {"condition": condition.settings}


def confusion(predicted: Any, labels: Any, n_classes: int) -> list[list[int]]:
    """How often each class (row) was taken for each class (column)."""
    table = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(table, (labels, predicted), 1)
    return [[int(count) for count in row] for row in table]


def cell_name(dataset: str, split: str, model: str, condition: str, seed: int) -> str:
    """The name of one cell's file."""
    return f"{dataset}-{split}_{model}_{condition}_s{seed}"


@dataclasses.dataclass(frozen=True)
class Group:
    """Cells that share their clips: one data set, split, condition, and seed with its key.

    Attributes
    ----------
    data : Dataset
    split : str
        One of `trial.SPLITS`.
    condition : Condition
    seed : int
        Of the training; the key is `study_key(seed)`.
    folder : Path
        Where the cells are stored.
    command : str
        The command line that a result names, with {dataset}, {split}, {model}, {condition}, {seed} and {epochs}.
    more : dict
        Further fields of every cell.
    """

    data: Dataset
    split: str
    condition: Condition
    seed: int
    folder: Path
    command: str
    more: dict[str, Any] = dataclasses.field(default_factory=dict)

    def missing(self, models: Sequence[str]) -> list[str]:
        """The models whose cells are not stored yet."""
        return [model for model in models if not self._path(model).exists()]

    def run(self, configs: Sequence[Config]) -> None:
        """Mark the clips once, train every model on them, and store a cell for each."""
        if not configs:
            return
        key = study_key(self.seed)
        train_rows, test_rows = rows_of(self.data, self.split, self.seed)
        with tempfile.TemporaryDirectory(prefix="poscuda-trial-") as work:
            trial = lay_out(self.data, train_rows, test_rows, self.condition, key, self.seed, Path(work))
            shared = {
                "dataset": self.data.name,
                "split": self.split,
                "condition": self.condition.name,
                "title": self.condition.title,
                "seed": self.seed,
                "key_fingerprint": None if self.condition.name == "clean" else key.fingerprint,
                "snr_db": median_snr_db(self.data, trial.training),
                **self.more,
                "train_clips": len(train_rows),
                "test_clips": len(test_rows),
            }
            for config in configs:
                result = train(config, trial.training, trial.tests, len(self.data.classes), self.data.sample_rate)
                self._store(config, result, trial, shared)

    def _path(self, model: str) -> Path:
        name = cell_name(self.data.name, self.split, model, self.condition.name, self.seed)
        return self.folder / f"{name}.json"

    def _store(self, config: Config, result: Result, trial: Trial, shared: dict[str, Any]) -> None:
        clean = trial.tests["clean"]
        fields = shared | {
            "model": config.model,
            "epochs": config.epochs,
            **accuracies(result),
            "fad": None,  # experiments.distances fills these in
            "embedding": None,
            "settings": settings(config, self.condition),
            "seconds": round(result.seconds, 1),
            "device": str(next(result.model.parameters()).device),
            "confusion": confusion(predict(result.model, clean), clean.labels, len(self.data.classes)),
            "curves": curves(result),
        }
        command = self.command.format(
            dataset=self.data.name.upper(),
            split=self.split,
            model=config.model,
            condition=self.condition.name,
            seed=self.seed,
            epochs=config.epochs,
        )
        stored.store(self.folder, self._path(config.model).stem, command, fields)
        print(
            f"{self.data.name} {self.split} {self.condition.name} s{self.seed} {config.model}: "
            f"clean {fields['clean_final']} (peak {fields['clean_peak']}) keyed {fields['keyed']} "
            f"mis-keyed {fields['miskeyed']} noise {fields['noise']} train {fields['train']}, {result.seconds:.0f} s",
            flush=True,
        )


def median_snr_db(data: Dataset, marked: Part) -> float | None:
    """Median SNR of the marked clips in dB; None if most clips are unchanged."""
    values = []
    for row in marked.rows:
        before = data.clips[row, : data.lengths[row]].astype(np.float64)
        change = float(((marked.audio[row, : data.lengths[row]] - before) ** 2).sum())
        values.append(10.0 * np.log10(float((before**2).sum()) / change) if change and before.any() else np.inf)
    middle = float(np.median(values))
    return round(middle, 2) if np.isfinite(middle) else None


def in_parallel(work: Callable[..., object], tasks: Iterable[tuple[Any, ...]], jobs: int) -> None:
    """``work(*task)`` for every task, `jobs` at a time.

    Each gets one thread: small trainings in parallel are faster than one after another on all cores.
    """
    if jobs == 1:
        for task in tasks:
            work(*task)
        return
    # Spawned, not forked: a forked child may not use kernels whose threads its parent has started.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, context, initializer=_begin) as pool:
        for future in [pool.submit(work, *task) for task in tasks]:
            future.result()


def _begin() -> None:
    """Set up a worker: one compute thread, and one that ends the worker when its parent was killed."""
    torch.set_num_threads(1)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
