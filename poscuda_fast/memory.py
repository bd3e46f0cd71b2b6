"""Protecting arrays in memory: check, plan, run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import dense
from poscuda_fast.arrays import Clips, open_clips
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key
from poscuda_fast.labels import encode
from poscuda_fast.plan import Patches, Plan
from poscuda_fast.recipe import Recipe
from poscuda_fast.report import Report, Tally

BATCH_BYTES = 8 << 20


def protect(
    clips: NDArray[Any] | Sequence[NDArray[Any]],
    labels: Any,
    key: Key,
    *,
    recipe: Recipe = Recipe(),
    lengths: Any = None,
    classes: Sequence[str] | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> Report:
    """Protect clips in memory, in place.

    Nothing is journalled: there is no undo once the call has returned. On any error the samples are
    as they were before. For a file use `protect_memmap`, which can undo and survives a crash.

    Parameters
    ----------
    clips : array or list of arrays, int16 or float32
        (n_clips, n_frames) or (n_clips, n_frames, n_channels) with any strides; or a list of
        (n_frames,) or (n_frames, n_channels) arrays of unequal length. float32 samples may have any
        scale. Only frames inside patches change.
    labels : (n_clips,) integers or names
        The class of each clip; with `classes`, indexes into it. A class is known by its number or by
        its name: label 3 and label "3" are different classes with different filters.
    key : Key
        The secret.
    recipe : Recipe
        Patch, filter length, blur and so on.
    lengths : (n_clips,) integers, optional
        True length of each clip in frames, where the rest is padding.
    classes : sequence of str, optional
        Class names that `labels` indexes.
    backend : str
        "auto", "cpu" (numba) or "reference" (NumPy); all give the same bits.
    threads : int, optional
        Threads to use; all cores by default. Any number gives the same bits.

    Returns
    -------
    Report
        With state "protected".

    Raises
    ------
    TypeError
        Wrong dtype or byte order, labels of a wrong kind, or not an array.
    ValueError
        Wrong shape, read-only or self-overlapping memory, too few or negative labels, impossible
        lengths, or a NaN or infinite sample inside a patch. Nothing was written.
    ImportError
        The backend asked for is not installed.

    Notes
    -----
    Gokul and Dubnov, sec. 3.1; to the bit: FORMAT.md.
    """
    begun = time.perf_counter()
    audio = open_clips(clips, lengths)
    plan = make_plan(key, recipe, labels, classes, audio)
    engine = Engine(backend, threads)
    tally = Tally(**plan.counts())
    originals = [(patches, audio.read(patches)) for patches in plan.batches(patches_per_batch(recipe, audio))]
    for patches, dry in originals:
        dense.refuse_non_finite(dry, patches, audio.channels)
        count(tally, patches, dry, audio.channels)
    try:
        for patches, _ in originals:
            tally.saturated_samples += audio.filter(patches, plan.taps, engine)
    except BaseException:
        for patches, dry in originals:
            audio.write(patches, dry)
        raise
    return tally.report("protected", key.fingerprint, time.perf_counter() - begun)


def make_plan(key: Key, recipe: Recipe, labels: Any, classes: Sequence[str] | None, audio: Clips) -> Plan:
    """The plan for some clips, every argument checked."""
    check_key(key)
    return Plan(key, recipe, encode(labels, classes, len(audio.lengths)), audio.lengths)


def check_key(key: object) -> None:
    """TypeError unless `key` is a Key; the message does not show what was given."""
    if not isinstance(key, Key):
        raise TypeError(f"key is a {type(key).__name__}; expected a poscuda_fast.Key, for example Key.load(path).")


def patches_per_batch(recipe: Recipe, audio: Clips) -> int:
    """How many patches make a batch of about `BATCH_BYTES`."""
    frame_bytes = max(1, audio.channels) * audio.dtype.itemsize
    return max(1, BATCH_BYTES // (recipe.patch * frame_bytes))


def count(tally: Tally, patches: Patches, dry: NDArray[Any], channels: int) -> None:
    """Add a batch of original patches to a tally."""
    silent = dense.is_silent(dry, patches, channels)
    tally.patches += len(patches)
    tally.silent_patches += int(silent.sum())
    tally.frames_changed += int(np.where(silent, 0, patches.sizes).sum())
