"""One training loop for all models, data and attacks."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from poscuda_fast.evaluation.models import Model, build
from poscuda_fast.evaluation.padded import FULL_SCALE

CACHE_BYTES = 2 << 30  # features are cached in memory up to this size, and computed batch by batch beyond it
EVALUATION_BATCH = 512
EPOCHS = {"m5": 40, "lstm": 30, "transformer": 12, "cnn": 20}  # enough for each model to settle


@dataclasses.dataclass(frozen=True)
class Config:
    """How a model is trained.

    All four models train with the paper's learning rate of 0.01; it falls to zero along a half cosine
    unless `schedule` is "constant". `device="auto"` is CUDA if available.
    """

    model: str = "m5"
    epochs: int = 100
    batch: int = 128
    lr: float = 0.01
    optimizer: str = "adam"
    schedule: str = "cosine"
    seed: int = 0
    device: str = "auto"


@dataclasses.dataclass(frozen=True)
class Part:
    """Some clips of an array, which may be memory-mapped: only one batch at a time is copied.

    Attributes
    ----------
    audio : (N, frames) int16
    rows : (n,) int64
        Which clips.
    labels : (n,) int64
        The class of each of `rows`.
    """

    audio: NDArray[np.int16]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def waves(self, chosen: slice | NDArray[np.int64]) -> Tensor:
        """The chosen clips as (n, frames) float32 in [-1, 1)."""
        return torch.from_numpy(self.audio[self.rows[chosen]].astype(np.float32) / np.float32(FULL_SCALE))


class Step(Protocol):
    """Computes the loss of one batch; an attack on the training is such a step."""

    def __call__(self, model: Model, waves: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor: ...


@dataclasses.dataclass
class Curve:
    """The history of a training, one dict an epoch with accuracies in %, and the seconds that it took."""

    history: list[dict[str, float]]
    seconds: float

    def final(self, name: str) -> float:
        """The accuracy after the last epoch."""
        return self.history[-1][name]

    def peak(self, name: str) -> float:
        """The best accuracy after any epoch."""
        return max(epoch[name] for epoch in self.history)


@dataclasses.dataclass
class Result(Curve):
    """A trained model and its history."""

    model: Model


def train(
    config: Config,
    training: Part,
    tests: dict[str, Part],
    n_classes: int,
    sample_rate: int,
    step: Step | None = None,
    front: nn.Module | None = None,
    log: Callable[[dict[str, float]], None] | None = None,
) -> Result:
    """Train one model and test it after every epoch.

    Parameters
    ----------
    config : Config
        All settings; equal ones on one machine, with the same number of threads, give equal models.
    training : Part
        The clips to train on.
    tests : dict of Part
        The clips to test on, by name.
    n_classes, sample_rate : int
        Of the data set (Hz).
    step : Step, optional
        The loss of a batch of waveforms; cross-entropy of the model's scores by default.
    front : nn.Module, optional
        Replaces the model's own front end; it is not trained.
    log : callable, optional
        Called with each epoch's dict: epoch, loss, train (on the clips as they were trained on), and a key
        for each of `tests`.

    Returns
    -------
    Result
        `history[-1]["train"]` is measured again after the last epoch, with the finished model.
    """
    # The caller's random numbers go on as if nothing had been trained.
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        return _train(config, training, tests, n_classes, sample_rate, step, front, log)


def _train(
    config: Config,
    training: Part,
    tests: dict[str, Part],
    n_classes: int,
    sample_rate: int,
    step: Step | None,
    front: nn.Module | None,
    log: Callable[[dict[str, float]], None] | None,
) -> Result:
    begun = time.perf_counter()
    device = torch.device(_device(config.device))
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    model = build(config.model, n_classes, sample_rate)
    model.front = front or model.front
    model.to(device)
    optimizer = _optimizer(config, model.body)
    batches = max(1, -(-len(training) // config.batch))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _curve(config.schedule, config.epochs * batches))
    fixed = None if step is not None else _Features(model, training, device)
    held = {name: _Features(model, part, device) for name, part in tests.items()}
    labels = torch.from_numpy(training.labels)
    history: list[dict[str, float]] = []
    for epoch in range(1, config.epochs + 1):
        model.train()
        losses, right = 0.0, 0
        for chosen in torch.randperm(len(training), generator=generator).split(config.batch):
            wanted = labels[chosen].to(device)
            if fixed is not None:
                scores = model.body(fixed.batch(chosen.numpy()))
                loss = nn.functional.cross_entropy(scores, wanted)
                right += int((scores.argmax(1) == wanted).sum())
            elif step is not None:
                loss = step(model, training.waves(chosen.numpy()).to(device), wanted, generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses += loss.item() * len(chosen)
        result = {
            "epoch": float(epoch),
            "loss": losses / max(1, len(training)),
            "train": 100.0 * right / max(1, len(training)),
        }
        model.eval()
        result |= {
            name: accuracy(predict_features(model, features), tests[name].labels) for name, features in held.items()
        }
        history.append(result)
        if log is not None:
            log(result)
    final = fixed if fixed is not None else _Features(model, training, device)
    history[-1]["train"] = accuracy(predict_features(model, final), training.labels)
    return Result(history, time.perf_counter() - begun, model)


def predict(model: Model, part: Part) -> NDArray[np.int64]:
    """(n,) the class that a model predicts for each clip, in evaluation mode."""
    device = next(model.parameters()).device
    return predict_features(model.eval(), _Features(model, part, device, keep=False))


def accuracy(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Share of right predictions in %, to two digits."""
    return round(100.0 * float(np.mean(predicted == labels)), 2)


class _Features:
    """The features of clips from a model's front end: cached if they fit, else computed on each call."""

    def __init__(self, model: Model, part: Part, device: torch.device, *, keep: bool = True) -> None:
        self.model, self.part, self.device = model, part, device
        self.kept: Tensor | None = None
        if keep and not isinstance(model.front, nn.Identity) and len(part):
            one = self.batch(slice(0, 1))
            if one.nbytes * len(part) <= CACHE_BYTES:
                self.kept = one.new_empty((len(part), *one.shape[1:]))
                for rows in self.steps():
                    self.kept[rows] = self.batch(rows, fresh=True)

    def __len__(self) -> int:
        return len(self.part)

    def steps(self) -> Iterator[slice]:
        """All clips in batches."""
        for first in range(0, len(self.part), EVALUATION_BATCH):
            yield slice(first, min(first + EVALUATION_BATCH, len(self.part)))

    def batch(self, chosen: slice | NDArray[np.int64], *, fresh: bool = False) -> Tensor:
        """The features of some of the clips."""
        if self.kept is not None and not fresh:
            return self.kept[chosen]
        with torch.no_grad():
            features: Tensor = self.model.front(self.part.waves(chosen).to(self.device))
        return features


@torch.no_grad()
def predict_features(model: Model, features: _Features) -> NDArray[np.int64]:
    """(n,) predicted classes."""
    found = [model.body(features.batch(rows)).argmax(1).cpu().numpy() for rows in features.steps()]
    return np.concatenate([*found, np.empty(0, np.int64)])


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _optimizer(config: Config, body: nn.Module) -> torch.optim.Optimizer:
    if config.optimizer == "adam":
        return torch.optim.Adam(body.parameters(), lr=config.lr)
    if config.optimizer == "sgd":
        return torch.optim.SGD(body.parameters(), lr=config.lr, momentum=0.9)
    raise ValueError(f"There is no optimizer {config.optimizer!r}; choose adam or sgd.")


def _curve(schedule: str, n_steps: int) -> Callable[[int], float]:
    if schedule == "cosine":
        return lambda step: 0.5 * (1.0 + np.cos(np.pi * min(step, n_steps) / n_steps))
    if schedule == "constant":
        return lambda _: 1.0
    raise ValueError(f"There is no schedule {schedule!r}; choose cosine or constant.")
