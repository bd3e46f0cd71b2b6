"""One training loop for all models, data and attacks, on a CPU or a GPU."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from poscuda_fast.evaluation.augmenting import PLAIN, Regime, Step, step_of
from poscuda_fast.evaluation.models import MODELS, Model, build
from poscuda_fast.evaluation.padded import FULL_SCALE

CACHE_BYTES = 2 << 30  # features and, on a GPU, clips are held in memory up to this size
EVALUATION_BATCH = 512
EPOCHS = {name: kind.epochs for name, kind in MODELS.items()}


@dataclasses.dataclass(frozen=True)
class Config:
    """How a model is trained.

    All models train with the paper's learning rate of 0.01; it falls to zero along a half cosine unless `schedule` is
    "constant". `device="auto"` is CUDA if available.
    """

    model: str = "m5"
    epochs: int = 100
    batch: int = 128
    lr: float = 0.01
    optimizer: str = "adam"
    schedule: str = "cosine"
    seed: int = 0
    device: str = "auto"
    regime: Regime = PLAIN


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
    tests: Mapping[str, Part],
    n_classes: int,
    sample_rate: int,
    *,
    at_end: Mapping[str, Part] | None = None,
    step: Step | None = None,
    front: nn.Module | None = None,
    start: Model | None = None,
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
    at_end : dict of Part, optional
        Further clips to test on after the last epoch alone.
    step : Step, optional
        The loss of a batch of waveforms, in place of the regime's own.
    front : nn.Module, optional
        Replaces the model's own front end; it is not trained.
    start : Model, optional
        A trained model of the same kind whose weights the training begins with; it is left as it is.
    log : callable, optional
        Called with each epoch's dict: epoch, loss, train (on the clips as they were trained on), and a key
        for each of `tests`.

    Returns
    -------
    Result
        `history[-1]["train"]` is measured again after the last epoch, with the finished model, and so is `at_end`.
    """
    # The caller's random numbers go on as if nothing had been trained.
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        begun = time.perf_counter()
        device = torch.device(_device(config.device))
        torch.manual_seed(config.seed)
        model = build(config.model, n_classes, sample_rate, mean_off=config.regime.mean_off)
        model.front = front or model.front
        if start is not None:
            model.load_state_dict(start.state_dict())
        model.to(device)
        if step is None and config.regime.changes:
            step = step_of(config.regime, sample_rate)
        history = _train(config, model, training, tests, step, log)
        for name, part in (at_end or {}).items():
            history[-1][name] = accuracy(predict(model, part), part.labels)
    return Result(history, time.perf_counter() - begun, model)


def _train(
    config: Config,
    model: Model,
    training: Part,
    tests: Mapping[str, Part],
    step: Step | None,
    log: Callable[[dict[str, float]], None] | None,
) -> list[dict[str, float]]:
    device = next(model.parameters()).device
    order = torch.Generator().manual_seed(config.seed)
    generator = order if device.type == "cpu" else torch.Generator(device).manual_seed(config.seed)
    optimizer = _optimizer(config, model.body)
    batches = max(1, -(-len(training) // config.batch))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _curve(config.schedule, config.epochs * batches))
    clips = _Features(model, training, device, keep=step is None)
    held = {name: _Features(model, part, device) for name, part in tests.items()}
    labels = torch.from_numpy(training.labels).to(device)
    history: list[dict[str, float]] = []
    for epoch in range(1, config.epochs + 1):
        model.train()
        losses, right = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
        for chosen in torch.randperm(len(training), generator=order).split(config.batch):
            wanted = labels[chosen.to(device)]
            if step is None:
                scores = model.body(clips.batch(chosen))
                loss = nn.functional.cross_entropy(scores, wanted)
                right += (scores.argmax(1) == wanted).sum()
            else:
                loss = step(model, clips.waves(chosen), wanted, generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses += loss.detach() * len(chosen)
        result = {
            "epoch": float(epoch),
            "loss": losses.item() / max(1, len(training)),
            "train": 100.0 * right.item() / max(1, len(training)),
        }
        model.eval()
        result |= {
            name: accuracy(predict_features(model, features), tests[name].labels) for name, features in held.items()
        }
        history.append(result)
        if log is not None:
            log(result)
    history[-1]["train"] = accuracy(predict_features(model, clips), training.labels)
    return history


def predict(model: Model, part: Part) -> NDArray[np.int64]:
    """(n,) the class that a model predicts for each clip, in evaluation mode."""
    device = next(model.parameters()).device
    return predict_features(model.eval(), _Features(model, part, device, keep=False))


def accuracy(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Share of right predictions in %, to two digits."""
    return round(100.0 * float(np.mean(predicted == labels)), 2)


class _Features:
    """The clips of a part on the model's device, and their features: held if they fit, else made on each call."""

    def __init__(self, model: Model, part: Part, device: torch.device, *, keep: bool = True) -> None:
        self.model, self.part, self.device = model, part, device
        self.held: Tensor | None = None  # the clips, on a GPU
        if device.type != "cpu" and len(part) * part.audio[:1].nbytes <= CACHE_BYTES:
            self.held = torch.from_numpy(np.ascontiguousarray(part.audio[part.rows])).to(device)
        self.kept: Tensor | None = None  # their features
        if keep and not isinstance(model.front, nn.Identity) and len(part):
            one = self.batch(torch.zeros(1, dtype=torch.int64))
            if one.nbytes * len(part) <= CACHE_BYTES:
                kept = one.new_empty((len(part), *one.shape[1:]))
                for rows in self.steps():
                    kept[rows.to(device)] = self.batch(rows)
                self.kept = kept

    def steps(self) -> Iterator[Tensor]:
        """All clips in batches."""
        yield from torch.arange(len(self.part)).split(EVALUATION_BATCH)

    def waves(self, chosen: Tensor) -> Tensor:
        """Some clips as (n, frames) float32 in [-1, 1), by their places in the part: int64, on the CPU."""
        if self.held is not None:
            return self.held[chosen.to(self.device)].float() / FULL_SCALE
        clips = self.part.audio[self.part.rows[chosen.numpy()]].astype(np.float32) / np.float32(FULL_SCALE)
        return torch.from_numpy(clips).to(self.device)

    def batch(self, chosen: Tensor) -> Tensor:
        """The features of some of the clips."""
        if self.kept is not None:
            return self.kept[chosen.to(self.device)]
        with torch.no_grad():
            features: Tensor = self.model.front(self.waves(chosen))
        return features


@torch.no_grad()
def predict_features(model: Model, features: _Features) -> NDArray[np.int64]:
    """(n,) predicted classes."""
    found = [model.body(features.batch(rows)).argmax(1).cpu().numpy() for rows in features.steps() if len(rows)]
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
