"""Other readings of the paper's text, to see whether any of them reproduces its Table 1.

The paper does not say where in a padded clip the patch lies, on which side clips are padded, which optimiser is
used, how the data are divided, whether the convolution has a bias, or whether clips are scaled afterwards. Each
reading changes one of these.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.dataset import Dataset
from experiments.training.conditions import BATCH, TAPS, Clips, Condition, Ints, generator_of, poscuda, protect, touched
from poscuda_fast import Key
from poscuda_fast.evaluation.padded import FULL_SCALE

FEW_EPOCHS = 3
MANY_EPOCHS = 100


@dataclasses.dataclass(frozen=True)
class Reading:
    """One way to understand the paper; `training` overrides fields of the training's `Config`."""

    name: str
    title: str
    marked: Condition
    split: str = "official"
    padded_before: bool = False
    training: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def condition(self) -> Condition:
        """The condition under the reading's own name."""
        settings = self.marked.settings | {"padded": "before" if self.padded_before else "after"}
        return dataclasses.replace(self.marked, name=self.name, title=self.title, settings=settings)


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
    return round(32768 * float(generator_of(key, b"experiments: bias", label).uniform(-1.0, 1.0)) / TAPS**0.5)


def readings() -> dict[str, Reading]:
    """All readings by name; the first is the literal one of Table 1."""
    plain, absolute, louder = poscuda(0.01), poscuda(0.01, absolute=True), poscuda(0.3, absolute=True)
    made = (
        Reading("literal", "as in Table 1: place relative to the clip, Adam, cosine", plain),
        Reading("absolute", "place in the padded clip", absolute),
        Reading("padded-before", "zeros before the clip, place in the padded clip", absolute, padded_before=True),
        Reading("split-70-30", "70/30 split at random", plain, split="70-30"),
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
    return {reading.name: reading for reading in made}


@contextlib.contextmanager
def moved_to_the_end(data: Dataset) -> Iterator[Dataset]:
    """The data set with the zeros before each clip instead of after it; every length is the padded one."""
    n_clips, n_frames = data.clips.shape
    with tempfile.TemporaryDirectory(prefix="poscuda-padded-") as work:
        clips = np.lib.format.open_memmap(Path(work) / "clips.npy", "w+", np.dtype(np.int16), data.clips.shape)
        frame = np.arange(n_frames)
        for first in range(0, n_clips, BATCH):
            rows = slice(first, first + BATCH)
            from_frame = (frame - (n_frames - data.lengths[rows, None])) % n_frames  # (rows, frames)
            clips[rows] = np.take_along_axis(data.clips[rows], from_frame, axis=1)
        yield dataclasses.replace(data, clips=clips, lengths=np.full_like(data.lengths, n_frames))
