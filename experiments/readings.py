"""Other readings of the paper's text, to see whether any of them reproduces its Table 1.

    python -m experiments.readings DATASET [--readings ...] [--models m5 lstm] [--seeds 0] [--jobs 2]

The paper does not say where in a padded clip the patch lies, on which side clips are padded, which optimiser is
used, how the data are divided, whether the convolution has a bias, or whether clips are scaled afterwards. Each
reading changes one of these.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments import cells
from experiments.conditions import BATCH, TAPS, Clips, Condition, Ints, poscuda, touched
from experiments.dataset import Dataset, load
from experiments.table1 import usual
from poscuda_fast import Key, protect
from poscuda_fast.evaluation.models import NAMES
from poscuda_fast.evaluation.padded import FULL_SCALE

FOLDER = cells.RESULTS / "readings"
COMMAND = "python -m experiments.readings {dataset} --readings {condition} --models {model} --seeds {seed}"
FEW_EPOCHS = 3
MANY_EPOCHS = 100


@dataclasses.dataclass(frozen=True)
class Reading:
    """One way to understand the paper; `training` overrides fields of the training's `Config`."""

    name: str
    title: str
    condition: Condition
    split: str = "official"
    padded_before: bool = False
    training: dict[str, Any] = dataclasses.field(default_factory=dict)


def with_bias(condition: Condition) -> Condition:
    """The patch filtered by a `Conv1d` left with its default bias: a constant for each class is added to it.

    torch draws the bias from U(-1, 1) / sqrt(taps): up to 0.11 of full scale for 80 taps.
    """

    def mark(clips: Clips, labels: Ints, lengths: Ints, key: Key) -> None:
        inside = touched(condition, clips.shape, labels, lengths, key)
        condition.mark(clips, labels, lengths, key)
        constants = np.array([_bias(key, int(label)) for label in labels])  # (n,)
        clips[:] = np.clip(clips + inside * constants[:, None], -32768, 32767)

    settings = condition.settings | {"bias": "U(-1, 1) / sqrt(taps)"}
    return Condition(f"{condition.name}-bias", f"{condition.title}, Conv1d bias", mark, condition.recipe, settings)


def at_full_scale(condition: Condition) -> Condition:
    """Each marked clip divided by its maximum, as CUDA does it: nothing saturates, and all clips are as loud."""
    recipe = condition.recipe
    assert recipe is not None

    def mark(clips: Clips, labels: Ints, lengths: Ints, key: Key) -> None:
        waves = clips.astype(np.float32) / np.float32(FULL_SCALE)
        protect(waves, labels, key, recipe=recipe, lengths=lengths)
        loudest = np.abs(waves).max(axis=1, keepdims=True)  # (n, 1)
        clips[:] = np.rint(waves * (32767 / np.where(loudest > 0, loudest, 1)))

    settings = condition.settings | {"scaled": "clip maximum"}
    return Condition(f"{condition.name}-peak", f"{condition.title}, full scale", mark, recipe, settings)


def _bias(key: Key, label: int) -> int:
    seed = np.frombuffer(key.derive(b"experiments: bias", str(label).encode(), length=32), np.uint32)
    return round(32768 * float(np.random.default_rng(seed).uniform(-1.0, 1.0)) / TAPS**0.5)


def readings() -> tuple[Reading, ...]:
    """All readings; the first is the literal one of Table 1."""
    plain, absolute, louder = poscuda(0.01), poscuda(0.01, absolute=True), poscuda(0.3, absolute=True)
    return (
        Reading("literal", "as in Table 1: place relative to the clip, Adam, cosine", plain),
        Reading("absolute", "place in the padded clip", absolute),
        Reading("padded-before", "zeros before the clip, place in the padded clip", absolute, padded_before=True),
        Reading("70-30", "70/30 split at random", plain, split="70-30"),
        Reading("constant-lr", "Adam, learning rate held at 0.01", plain, training={"schedule": "constant"}),
        Reading("sgd", "SGD with momentum instead of Adam", plain, training={"optimizer": "sgd"}),
        Reading("few-epochs", f"{FEW_EPOCHS} epochs", plain, training={"epochs": FEW_EPOCHS}),
        Reading("many-epochs", f"{MANY_EPOCHS} epochs", plain, training={"epochs": MANY_EPOCHS}),
        Reading("peak", "marked clips divided by their maximum", at_full_scale(plain)),
        Reading("peak-0.3", "marked clips divided by their maximum, b=0.3", at_full_scale(poscuda(0.3))),
        Reading("bias", "Conv1d bias, place relative to the clip", with_bias(plain)),
        Reading("bias-absolute", "Conv1d bias, place in the padded clip", with_bias(absolute)),
        Reading("bias-0.3-absolute", "Conv1d bias, b=0.3, place in the padded clip", with_bias(louder)),
        Reading(
            "bias-padded-before", "Conv1d bias, zeros before the clip, place in the padded clip", with_bias(absolute),
            padded_before=True,
        ),
    )  # fmt: skip


@contextlib.contextmanager
def moved_to_the_end(data: Dataset) -> Iterator[Dataset]:
    """The data set with the zeros before each clip instead of after it; every length is the padded one."""
    n_clips, n_frames = data.clips.shape
    with tempfile.TemporaryDirectory(prefix="poscuda-padded-") as work:
        folder = Path(work)
        clips = np.lib.format.open_memmap(folder / "clips.npy", "w+", np.dtype(np.int16), data.clips.shape)
        frame = np.arange(n_frames)
        for first in range(0, n_clips, BATCH):
            rows = slice(first, first + BATCH)
            from_frame = (frame - (n_frames - data.lengths[rows, None])) % n_frames  # (rows, frames)
            clips[rows] = np.take_along_axis(data.clips[rows], from_frame, axis=1)
        yield dataclasses.replace(data, folder=folder, clips=clips, lengths=np.full_like(data.lengths, n_frames))


def run(data: Dataset, reading: Reading, models: list[str], seed: int, device: str = "auto") -> None:
    """Make the cells of one reading that are not stored yet."""
    condition = dataclasses.replace(
        reading.condition,
        name=reading.name,
        title=reading.title,
        settings=reading.condition.settings | {"padded": "before" if reading.padded_before else "after"},
    )
    with moved_to_the_end(data) if reading.padded_before else contextlib.nullcontext(data) as source:
        group = cells.Group(source, reading.split, condition, seed, FOLDER, COMMAND)
        given = {"device": device} | reading.training
        group.run([usual(model, seed, **given) for model in group.missing(models)])


def main(arguments: list[str] | None = None) -> None:
    """Run every cell that is not stored yet."""
    known = {reading.name: reading for reading in readings()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--readings", nargs="+", choices=list(known), default=list(known))
    parser.add_argument("--models", nargs="+", choices=NAMES, default=["m5", "lstm"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    options = parser.parse_args(arguments)
    work = functools.partial(_run, options.dataset, options.models, options.device)
    cells.in_parallel(work, [(seed, name) for seed in options.seeds for name in options.readings], options.jobs)


def _run(dataset: Path, models: list[str], device: str, seed: int, name: str) -> None:
    run(load(dataset), next(one for one in readings() if one.name == name), models, seed, device)


if __name__ == "__main__":
    main()
