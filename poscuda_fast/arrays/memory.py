"""Protecting arrays in memory: check, plan, run."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from poscuda_fast.arrays.device import DeviceClips, is_on_device
from poscuda_fast.arrays.layouts import ArrayClips, ListClips, open_clips
from poscuda_fast.interrupts import interrupts_held_back
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key, check_key
from poscuda_fast.mark import packed
from poscuda_fast.mark.judging import FEWEST_ALIKE, MOST_TRACED, judged, look
from poscuda_fast.mark.plan import Plan, make_plan
from poscuda_fast.mark.shares import of_rows
from poscuda_fast.recipe import Recipe, check_share
from poscuda_fast.results import Report, Tally
from poscuda_fast.secrecy import discreet


@discreet
def protect(
    clips: Any,
    labels: Any,
    key: Key,
    *,
    recipe: Recipe = Recipe.strong(),
    snr: float | None = None,
    sample_rate: int | None = None,
    lengths: Any = None,
    classes: Sequence[str] | None = None,
    backend: str = "auto",
    threads: int | None = None,
    share: float = 1.0,
) -> Report:
    """Protect clips in memory, in place.

    There is no undo: nothing is journalled or copied. Every error below is raised before the first sample is written,
    and an interrupt takes effect after the last one. Only a backend that fails midway (a lost GPU, exhausted memory)
    leaves some clips marked and others not; its own error is raised. For an array in a file use `protect_array`, which
    can be undone and survives a crash.

    Parameters
    ----------
    clips : array or list of arrays, int16 or float32
        (n_clips, n_frames) or (n_clips, n_frames, n_channels) with any strides; or a list of (n_frames,) or
        (n_frames, n_channels) arrays of unequal length. float32 has a full scale of 1; in format 1 it may have any.
        Padding never changes, nor, in format 1, any frame outside the patches. Or one contiguous array of these shapes
        on the current NVIDIA GPU, with `__cuda_array_interface__` (CuPy, torch, numba): it is marked there, after the
        work queued on the stream that its interface names. torch names none: first wait for work that you
        queued on a stream other than torch's default.
    labels : (n_clips,) integers or names
        The class of each clip; with `classes`, indexes into it. A class is known by its number or by
        its name: label 3 and label "3" are one class.
    key : Key
        The secret that positions and marks are derived from.
    recipe : Recipe
        From `Recipe.strong` or `Recipe.paper`.
    snr : float, optional
        Set the strength of the default recipe so that the median clip is so many dB above its mark, judged by at most
        256 clips. The report gives the strength.
    sample_rate : int, optional
        Sample rate of the clips in Hz, from 2,000 to 512,000; 16,000 is assumed otherwise. Format 1 has no use for it.
    lengths : (n_clips,) integers, optional
        True length of each clip in frames, if the rest is padding.
    classes : sequence of str, optional
        Class names that `labels` indexes.
    backend : str
        "auto", "native" (C++), "cpu" (numba), "reference" (NumPy) or "cuda" (numba-cuda); all give the same
        bits. Clips on a GPU need "auto" or "cuda"; for others "auto" is never "cuda".
    threads : int, optional
        CPU threads to use; all cores by default. Any number gives the same bits.
    share : float
        Mark only this share of the clips, above 0, as for `protect_array`.

    Returns
    -------
    Report
        With state "protected".

    Raises
    ------
    TypeError
        Wrong dtype or byte order, labels of a wrong kind, not an array, or `key` or `recipe` of another type.
    ValueError
        Wrong shape, read-only or self-overlapping memory, too few or negative labels, impossible lengths, a NaN or
        infinite sample inside a patch of format 1, a `backend` that is unknown or cannot reach a GPU's memory, or
        `threads` below 1. In format 2 also a median peak above 4 of float32, more than 1 % of samples beyond full
        scale, an `snr` out of reach, or classes that are marked with this key already, of which at least 8 clips were
        looked at: judged by the beginnings of at most 256 clips. Nothing was written.
    ImportError
        The backend asked for is not installed.

    Notes
    -----
    Gokul and Dubnov, sec. 3.1; to the bit: FORMAT.md.
    """
    begun = time.perf_counter()
    audio = DeviceClips(clips, lengths) if is_on_device(clips) else open_clips(clips, lengths)
    engine = Engine(backend, threads, on_device=isinstance(audio, DeviceClips))
    check_key(key)
    tags = of_rows(key, check_share(share), len(audio.lengths))
    plan = make_plan(key, recipe, labels, classes, audio.lengths, sample_rate, tags)
    traced = MOST_TRACED if len(plan.lengths) >= FEWEST_ALIKE else 0
    looker = functools.partial(look, audio, engine=engine, most_traced=traced)
    plan, notes = judged(plan, key, snr, looker, in_memory=True)
    tally = _mark_all(audio, plan, engine)
    return tally.report("protected", plan.settings(), time.perf_counter() - begun, notes)


def mark_batch(
    clips: Any,
    labels: Any,
    key: Key,
    *,
    recipe: Recipe,
    engine: Engine,
    sample_rate: int | None = None,
    lengths: Any = None,
    classes: Sequence[str] | None = None,
) -> Tally:
    """Protect one batch of a data set, as `protect` does but without judging the whole by it; returns the counts.

    Clips on a GPU need an engine that was made for them.
    """
    audio = DeviceClips(clips, lengths) if is_on_device(clips) else open_clips(clips, lengths)
    return _mark_all(audio, make_plan(key, recipe, labels, classes, audio.lengths, sample_rate), engine)


def _mark_all(audio: ArrayClips | ListClips | DeviceClips, plan: Plan, engine: Engine) -> Tally:
    tally = Tally(**plan.counts())
    if isinstance(audio, DeviceClips):
        with interrupts_held_back():
            audio.mark_all(plan, tally)
        return tally
    surveyed = audio.dtype.kind == "f" and not plan.marks.steady
    if surveyed:  # refuse before the first write; integers need no pass of their own
        for patches in plan.batches(audio.copied_bytes):
            found = audio.survey(patches, engine)
            packed.refuse_non_finite(found, patches)
            packed.count_patches(tally, patches, found)
    with interrupts_held_back():
        for patches in plan.batches(audio.copied_bytes):
            flags = None if surveyed or plan.marks.steady else np.empty(len(patches), np.uint8)
            packed.count_odd(tally, audio.dtype, audio.mark(patches, plan.marks, engine, flags))
            if not surveyed:
                packed.count_marked(tally, patches, flags)
    return tally
