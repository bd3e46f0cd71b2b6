"""Protecting, restoring and verifying arrays that are mapped from a file, durably."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from poscuda_fast import array_runs
from poscuda_fast.discretion import discreet
from poscuda_fast.inplace import Progress
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key
from poscuda_fast.memory import check_key
from poscuda_fast.pages import open_mapped
from poscuda_fast.recipe import Recipe
from poscuda_fast.report import Report
from poscuda_fast.verification import Verification


@discreet
def protect_memmap(
    arr: NDArray[Any],
    labels: Any,
    key: Key,
    *,
    recipe: Recipe = Recipe.strong(),
    lengths: Any = None,
    classes: Sequence[str] | None = None,
    backend: str = "auto",
    threads: int | None = None,
    sidecar: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    dry_run: bool = False,
) -> Report:
    """Protect a memory-mapped array of clips in its file, durably.

    The original patches are sealed with the key into a sidecar before anything is overwritten. Killed
    at any moment, the same call made again finishes the job; on a finished file it compares every patch,
    changes nothing, and its report says "already protected". Without its sidecar a protected file cannot
    be recognised, and a second run would mark it again: keep the two together.

    Parameters
    ----------
    arr : np.memmap, int16 or float32
        (n_clips, n_frames) or (n_clips, n_frames, n_channels), opened with mode "r+"; raw or .npy,
        also a view of one. Only frames inside patches change, in the file.
    labels, key, recipe, lengths, classes, backend, threads
        As for `protect`.
    sidecar : path, optional
        Where the originals are kept: by default the file's own path with ".poscuda" behind it. It
        takes about the bytes of the patches and 24 more for each.
    progress : callable, optional
        Called with (patches done, patches in all) after every batch.
    dry_run : bool
        Read every patch, write nothing (mode "r" is enough); the report is what would be done.

    Returns
    -------
    Report
        With state "protected", "already protected" or "untouched" (dry run).

    Raises
    ------
    TypeError, ValueError
        As for `protect`; also an array that is not mapped from a file, or mapped copy-on-write.
        Nothing was written.
    SidecarError
        The sidecar is damaged, of another key, or made for other data, labels, lengths or another
        recipe; or what it says is protected is so no more. Nothing was written.
    BusyError
        Another run is at work on the file.
    OSError
        Not enough room for the sidecar, or a write or sync failed; the same call made again in a new
        process resumes.

    Notes
    -----
    The protocol is in FORMAT.md, "Sidecar".
    """
    storage, audio = open_mapped(arr, sidecar, lengths=lengths, writing=not dry_run)
    engine = Engine(backend, threads)
    return array_runs.protect(storage, audio, labels, key, recipe, classes, engine, progress, dry_run=dry_run)


@discreet
def restore_memmap(
    arr: NDArray[Any], key: Key, *, sidecar: str | os.PathLike[str] | None = None, progress: Progress | None = None
) -> Report:
    """Put the original samples of a protected memory-mapped array back, bit for bit.

    Killed at any moment, the same call made again finishes the job. The sidecar stays, in state
    "undone"; it may then be deleted.

    Parameters
    ----------
    arr : np.memmap
        The array as it was given to `protect_memmap`: same shape, dtype and place in the file.
    key : Key
        The key it was protected with.
    sidecar : path, optional
        As given to `protect_memmap`.
    progress : callable, optional
        Called with (patches done, patches in all) after every batch.

    Returns
    -------
    Report
        With state "restored" or "already original".

    Raises
    ------
    SidecarError
        There is none, or it is damaged, of another key, or made for other data. Nothing was written.
    TypeError, ValueError, BusyError, OSError
        As for `protect_memmap`.
    """
    check_key(key)
    return array_runs.restore(*open_mapped(arr, sidecar), key, progress)


@discreet
def verify_memmap(arr: NDArray[Any], key: Key, *, sidecar: str | os.PathLike[str] | None = None) -> Verification:
    """Compare every patch of a memory-mapped array with its journalled original and that one's marked form.

    Nothing is written. Bytes outside patches are compared by sample only, as the sidecar keeps no more
    of them.

    Parameters
    ----------
    arr : np.memmap
        The array as it was given to `protect_memmap`; mode "r" is enough.
    key : Key
        The key it was protected with.
    sidecar : path, optional
        As given to `protect_memmap`.

    Returns
    -------
    Verification
        Of clips, named by their numbers.

    Raises
    ------
    SidecarError, BusyError, TypeError, ValueError
        As for `restore_memmap`.
    """
    check_key(key)
    return array_runs.verify(*open_mapped(arr, sidecar, writing=False), key)
