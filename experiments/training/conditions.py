"""What is done to a data set before a model is trained on it: the paper's recipe, format 2, and others' methods.

A condition changes int16 clips in place. One key makes all tests: marking the test clips gives the keyed test,
marking them with exchanged classes the mis-keyed test, and adding random noise at the places that the key gives
(Gokul and Dubnov, sec. 4) the noise test.
"""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import oaconvolve

from poscuda_fast import Key, LabelWarning, Recipe, StrongRecipe
from poscuda_fast import protect as protect_clips

BATCH = 512  # clips in memory at a time
TAPS = 80
PROBES = 4  # a faint filter leaves one sample in some thousands unchanged, by chance

Clips = NDArray[np.int16]  # (n, frames)
Ints = NDArray[np.int64]  # (n,)


@dataclasses.dataclass(frozen=True)
class Condition:
    """One way of marking clips: ``mark(clips, labels, lengths, key)`` changes (n, frames) int16 clips in place."""

    name: str  # in results
    title: str  # in tables
    mark: Callable[[Clips, Ints, Ints, Key], None]
    recipe: Recipe | None = None  # what the library marks with, if it does the marking
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)  # what a result stores


def protect(*arguments: Any, **options: Any) -> None:
    """The library's `protect`, for a batch, which may be of one class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LabelWarning)
        protect_clips(*arguments, **options)


def study_key(seed: int) -> Key:
    """The key of one repetition: public, so that results can be reproduced. Never protect your own data with it."""
    return Key(hashlib.sha256(f"poscuda_fast experiments, repetition {seed}".encode()).digest())


def clean() -> Condition:
    """Clips as they are."""
    return Condition("clean", "clean", lambda clips, labels, lengths, key: None)


def poscuda(blur: float, *, identity: bool = False, absolute: bool = False) -> Condition:
    """The paper's method: one patch a clip.

    `identity` puts 1.0 on the centre tap. `absolute` draws the place in the padded clip, the same for every clip of
    a class, instead of relative to each clip's own length.
    """
    recipe = Recipe.paper(blur=blur, identity=identity)

    def mark(clips: Clips, labels: Ints, lengths: Ints, key: Key) -> None:
        protect(clips, labels, key, recipe=recipe, lengths=None if absolute else lengths)

    name = f"poscuda-{blur:g}" + "-identity" * identity + "-absolute" * absolute
    title = f"PosCUDA b={blur:g}" + ", identity tap" * identity + ", absolute place" * absolute
    return Condition(name, title, mark, recipe, recipe.to_dict() | {"place": "padded" if absolute else "clip"})


def strong(strength: float, sample_rate: int = 16_000) -> Condition:
    """Format 2 of the library, for clips of a sample rate in Hz."""
    recipe = Recipe.strong(strength)

    def mark(clips: Clips, labels: Ints, lengths: Ints, key: Key) -> None:
        protect(clips, labels, key, recipe=recipe, sample_rate=sample_rate, lengths=lengths)

    settings = recipe.to_dict() | {"sample_rate": sample_rate}
    return Condition(f"strong-{strength:g}", f"format 2, strength {strength:g}", mark, recipe, settings)


def whole_clip(blur: float, *, identity: bool = False) -> Condition:
    """The paper's comparison: the whole clip convolved with its class's filter, without a position."""

    def mark(clips: Clips, labels: Ints, lengths: Ints, key: Key) -> None:
        filters = {int(label): class_filter(key, int(label), blur, identity=identity) for label in np.unique(labels)}
        for row, (label, length) in enumerate(zip(labels, lengths, strict=True)):
            wet = oaconvolve(clips[row, :length].astype(np.float64), filters[int(label)], mode="same")
            clips[row, :length] = np.clip(np.rint(wet), -32768, 32767)

    name = f"whole-{blur:g}" + "-identity" * identity
    title = f"whole clip b={blur:g}" + ", identity tap" * identity
    return Condition(name, title, mark, None, {"taps": TAPS, "blur": blur, "identity": identity})


def class_filter(key: Key, label: int, blur: float, *, identity: bool = False) -> NDArray[np.float64]:
    """(TAPS,) drawn from U(0, blur) for one class, from a seed that the key gives."""
    taps = generator_of(key, b"experiments: whole clip", label).uniform(0.0, blur, TAPS)
    if identity:
        taps[(TAPS - 1) // 2] = 1.0
    return taps


def cuda(blur: float) -> Condition:
    """CUDA (Sadasivan et al. 2023) brought to audio as its authors describe it, on whole clips.

    Each class's filter is drawn from U(0, blur) with one tap at a random place set to 1; the clip is convolved and
    divided by its maximum.
    """

    def mark(clips: Clips, labels: Ints, lengths: Ints, key: Key) -> None:
        filters = {int(label): _spiked(key, int(label), blur) for label in np.unique(labels)}
        for row, (label, length) in enumerate(zip(labels, lengths, strict=True)):
            wet = oaconvolve(clips[row, :length].astype(np.float64), filters[int(label)], mode="same")
            loudest = np.abs(wet).max(initial=0.0)
            clips[row, :length] = np.rint(wet * (32767.0 / loudest)) if loudest else 0

    return Condition(f"cuda-{blur:g}", f"CUDA b={blur:g}", mark, None, {"taps": TAPS, "blur": blur})


def _spiked(key: Key, label: int, blur: float) -> NDArray[np.float64]:
    rng = generator_of(key, b"experiments: CUDA", label)
    taps = rng.uniform(0.0, blur, TAPS)
    taps[rng.integers(TAPS)] = 1.0
    return taps


def generator_of(key: Key, purpose: bytes, label: int) -> np.random.Generator:
    """Random numbers that depend on the key, the purpose and the class."""
    return np.random.default_rng(np.frombuffer(key.derive(purpose, str(label).encode(), length=32), np.uint32))


def named(name: str, sample_rate: int = 16_000) -> Condition:
    """A condition by its name: clean, strong-S, poscuda-B[-identity][-absolute], whole-B[-identity] or cuda-B.

    Raises
    ------
    ValueError
        No condition has this name.
    """
    kind, *words = name.split("-")
    try:
        if kind == "clean" and not words:
            return clean()
        value, options = float(words[0]), dict.fromkeys(words[1:], True)
        kinds = {"strong": lambda value: strong(value, sample_rate), "poscuda": poscuda, "whole": whole_clip,
                 "cuda": cuda}  # fmt: skip
        made: Condition | None = kinds[kind](value, **options)
    except (KeyError, IndexError, TypeError, ValueError):
        made = None
    if made is None or made.name != name:
        raise ValueError(
            f"There is no condition {name!r}; expected clean, strong-S, poscuda-B[-identity][-absolute], "
            f"whole-B[-identity] or cuda-B, such as strong-1."
        )
    return made


def mark_rows(condition: Condition, clips: Clips, rows: Ints, labels: Ints, lengths: Ints, key: Key) -> None:
    """Mark some rows of an array, which may be memory-mapped, a batch at a time.

    `labels` and `lengths` are those of `rows`: (n,) each, in the same order.
    """
    for first in range(0, len(rows), BATCH):
        part = slice(first, first + BATCH)
        batch = np.ascontiguousarray(clips[rows[part]])
        condition.mark(batch, labels[part], lengths[part], key)
        clips[rows[part]] = batch


def exchanged(labels: Ints, n_classes: int) -> Ints:
    """Every label replaced by the next class's: a permutation that leaves no class in its place."""
    return (labels + 1) % n_classes


def touched(condition: Condition, shape: tuple[int, int], labels: Ints, lengths: Ints, key: Key) -> NDArray[np.bool_]:
    """(n, frames) the frames that a condition may change; where not known, found by marking full-scale noise."""
    if isinstance(condition.recipe, StrongRecipe):  # all; and the library refuses to saturate probes
        return np.arange(shape[1]) < lengths[:, None]
    rng = np.random.default_rng(0)
    mask = np.zeros(shape, np.bool_)
    for _ in range(PROBES):
        probe = rng.integers(-32768, 32768, shape).astype(np.int16)
        marked = probe.copy()
        condition.mark(marked, labels, lengths, key)
        mask |= marked != probe
    return mask


def noisy(condition: Condition, clips: Clips, labels: Ints, lengths: Ints, key: Key, seed: int) -> Clips:
    """Copies with random noise wherever the condition touches them, as strong as the mark is in that clip.

    An attacker who knows the places, but neither filter nor lines, can add that much.
    """
    marked = clips.copy()
    condition.mark(marked, labels, lengths, key)
    change = marked.astype(np.float64) - clips
    mask = touched(condition, clips.shape, labels, lengths, key)
    frames = np.maximum(mask.sum(axis=1), 1)
    level = np.sqrt((change**2 * mask).sum(axis=1) / frames)  # (n,)
    noise = np.random.default_rng(seed).standard_normal(clips.shape) * level[:, None] * mask
    mixed: Clips = np.clip(np.rint(clips + noise), -32768, 32767).astype(np.int16)
    return mixed
