"""How long the trainings that are left take, by those that are done."""

from __future__ import annotations

from collections.abc import Iterable

# Of an epoch, relative to each other, on one thread.
COSTS = {
    "m5": 1.3, "lstm": 0.9, "transformer": 2.4, "cnn": 1.3, "cnn-tf": 2.0, "cnn-kaldi": 2.4, "bc-resnet": 5.0,
    "small-strides": 2.6,
}  # fmt: skip
CHANGING = 1.3  # times as much where clips are changed at every step


def cost(model: str, epochs: int, *, changing: bool = False) -> float:
    """The work of a training, in a unit of its own; `changing` says whether its clips are changed at every step."""
    return COSTS[model] * epochs * (CHANGING if changing else 1.0)


def seconds_left(done: Iterable[tuple[float, float]], left: Iterable[float]) -> float:
    """Seconds for what is left, by (cost, seconds) of each that is done; one or more are."""
    costs, seconds = (sum(column) for column in zip(*done, strict=True))
    return sum(left) * seconds / costs


def in_words(seconds: float) -> str:
    """A time to wait, such as "about 14 min"."""
    if seconds < 100:
        return f"about {max(1, round(seconds))} s"
    return f"about {round(seconds / 60)} min" if seconds < 6000 else f"about {seconds / 3600:.1f} h"
