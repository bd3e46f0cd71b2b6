"""Protecting, restoring and verifying stored arrays, durably."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poscuda_fast.arrays.copying import ArrayCopy
from poscuda_fast.arrays.opening import open_again, open_stored, path_of
from poscuda_fast.arrays.target import ArrayTarget, StoredArray, recorded
from poscuda_fast.disk import PathLike, locked
from poscuda_fast.errors import DatasetError, SidecarError
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key, check_key
from poscuda_fast.mark.judging import judged, look
from poscuda_fast.mark.labels import check_classes
from poscuda_fast.mark.plan import make_plan
from poscuda_fast.recipe import Recipe
from poscuda_fast.results import Progress, Report, Tally, Verdict, Verification
from poscuda_fast.secrecy import discreet
from poscuda_fast.undo import steps
from poscuda_fast.undo.journal import Journal, State
from poscuda_fast.undo.record import notes_of, recorded_recipe, settings_of

_NO_PATCH = 0xFF  # not a verdict: a clip without frames


@discreet
def protect_array(
    arr: Any,
    labels: Any,
    key: Key,
    *,
    dst: PathLike | None = None,
    recipe: Recipe = Recipe.strong(),
    snr: float | None = None,
    sample_rate: int | None = None,
    lengths: Any = None,
    classes: Sequence[str] | None = None,
    backend: str = "auto",
    threads: int | None = None,
    sidecar: PathLike | None = None,
    progress: Progress | None = None,
    dry_run: bool = False,
) -> Report:
    """Protect a stored array of clips, durably: in its file or folder, or as a copy at `dst`.

    The originals are sealed with the key into a sidecar before anything is overwritten. If the process is killed at any
    moment, make the same call again to finish. On a finished array that call compares everything that is marked,
    changes nothing, and reports "already protected". Without its sidecar a protected array cannot be recognised, and a
    second run would mark it again: keep the two together. `protect_memmap` is this function under another name.

    Parameters
    ----------
    arr : np.memmap, path or zarr.Array
        An array mapped from a file with mode "r+" (raw or .npy, or a view of one); the path of a .npy file; or a Zarr
        array of format 3 in a local folder, or that folder's path, with any chunks, shards and lossless codecs. Clips
        are int16 or float32, (n_clips, n_frames) or (n_clips, n_frames, n_channels). Only frames inside patches change.
    labels, key, recipe, snr, sample_rate, lengths, classes, backend
        As for `protect`. The strength that `snr` leads to is recorded: a run that is resumed keeps it.
    dst : path, optional
        Path for a protected copy of the file or folder. It must not exist; the copy appears there once it is protected,
        and `arr` is only read. For a memmap, its whole file is copied.
    threads : int, optional
        CPU threads to use, and shards of a Zarr array to write at a time; all cores by default. Any number gives the
        same bits.
    sidecar : path, optional
        Path of the sidecar, which keeps the originals: by default the file's path with ".poscuda" appended, or
        ".poscuda" inside the folder, which Zarr ignores. It is about as large as what is marked: in format 2, as
        the array.
    progress : callable, optional
        Called with (frames done, frames in all) after every batch.
    dry_run : bool
        Read everything that would be marked, write nothing (mode "r" is enough); the report says what would be done.

    Returns
    -------
    Report
        With state "protected", "already protected" or "untouched" (dry run).

    Raises
    ------
    TypeError, ValueError
        As for `protect`; also if the array is not mapped from a file, or mapped copy-on-write. Nothing was written.
    DatasetError
        `arr` does not exist, or is not an array that can be edited exactly; or `dst` exists (unless an earlier call
        made it of the same array), is or lies inside the source, or its folder does not exist. Nothing was written.
    AudioFileError
        The header of a .npy file contradicts itself or the file's size. Nothing was written.
    SidecarError
        The sidecar is damaged, or made with another key or for other data, labels, lengths or another recipe; the data
        no longer match it; or `arr` is protected already, and its copy would be marked twice. Nothing was written.
    BusyError
        Another run is at work on the array.
    OSError
        The disk is too full, or a write or sync failed; the same call made again in a new process resumes.

    Notes
    -----
    The protocol is in FORMAT.md, "Sidecar". A Zarr array keeps its attributes, chunks, shards and codecs. Compressed
    bytes are those that the installed codecs produce, and a shard that holds only the fill value is not stored, as in
    Zarr. A few decoded rows of shards for each thread are in memory at once.
    """
    check_key(key)
    engine = Engine(backend, threads)
    classes = None if classes is None else check_classes(classes)  # an iterator can be read once

    def target_of(array: StoredArray, progress: Progress | None) -> ArrayTarget:
        plan = make_plan(key, recipe, labels, classes, array.lengths, sample_rate)
        with locked(array.path):
            known = recorded_recipe(array.sidecar, key)
        if known is None:
            plan, notes = judged(plan, key, snr, lambda plan: look(array, plan, engine))
        else:  # the data may be marked in part, so that only the record tells
            plan, notes = plan.recorded(key, known, snr), ()
        return ArrayTarget(array, key, plan.marks, engine, plan, progress, snr=snr, notes=notes)

    def run(arr: Any, sidecar: PathLike | None, progress: Progress | None, *, dry_run: bool) -> Report:
        begun = time.perf_counter()
        array = open_stored(arr, sidecar, lengths=lengths, writing=not dry_run, threads=threads)
        target = target_of(array, progress)
        tally, state, notes = _protect(array, target, key, dry_run=dry_run)
        return tally.report(state, target.settings(), time.perf_counter() - begun, notes)

    if dst is None:
        return run(arr, sidecar, progress, dry_run=dry_run)
    copy = ArrayCopy(path_of(arr), Path(dst), None if sidecar is None else Path(sidecar))

    def refuse_other_copy(sidecar: Path, wanted: tuple[State, ...]) -> None:
        array = open_stored(arr, lengths=lengths, threads=threads)
        with Journal(sidecar, key) as journal, target_of(array, None) as target:
            _refuse_other_copy(copy.dst, journal, wanted, target)

    if copy.is_whole:
        copy.tidy()
        refuse_other_copy(copy.sidecar, (State.COMPLETE, State.FINAL, State.UNDOING))
        return run(open_again(arr, copy.dst), copy.sidecar, progress, dry_run=dry_run)
    if dry_run:
        if not copy.is_begun(key):
            copy.refuse_marked(key)
        return run(arr, None, progress, dry_run=True)
    with copy.alone():
        if copy.is_begun(key):
            refuse_other_copy(copy.sidecar_of_part, (State.APPLYING, State.COMPLETE))
        else:
            copy.refuse_marked(key)
            run(arr, None, None, dry_run=True)  # what can be refused is refused before the copy is made
            copy.begin()
        report = run(open_again(arr, copy.part), copy.sidecar_of_part, progress, dry_run=False)
        copy.finish()
    return report


@discreet
def restore_array(
    arr: Any,
    key: Key,
    *,
    threads: int | None = None,
    sidecar: PathLike | None = None,
    partial: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Put the original samples of a protected array back, bit for bit.

    If the process is killed at any moment, make the same call again to finish. The sidecar stays, in state "undone"; it
    may then be deleted. `restore_memmap` is this function under another name.

    Parameters
    ----------
    arr : np.memmap, path or zarr.Array
        The array as it was given to `protect_array`, or its copy: a memmap of the same shape, dtype and offset in the
        file. A Zarr array may since have been moved, or given other shards or codecs.
    key : Key
        The key it was protected with.
    threads, sidecar
        As for `protect_array`.
    partial : bool
        Restore the other clips even if some have changed since; those can still be restored later, once the change is
        undone.
    progress : callable, optional
        Called with (frames done, frames in all) after every batch.

    Returns
    -------
    Report
        With state "restored", "partly restored" or "already original".

    Raises
    ------
    SidecarError
        The sidecar is missing or damaged, or made with another key or for other data; or, without `partial`, clips have
        changed since. Nothing was written.
    TypeError, ValueError, DatasetError, AudioFileError, BusyError, OSError
        As for `protect_array`.
    """
    check_key(key)
    Engine(threads=threads)  # refuses an impossible number
    begun = time.perf_counter()
    array = open_stored(arr, sidecar, writing=True, threads=threads)
    with locked(array.path), Journal(array.sidecar, key) as journal, recorded(journal, array, key, progress) as target:
        if journal.state is State.UNDONE:
            tally, state = Tally(**journal.summary["counts"]), "already original"
        else:
            left_out = steps.undo(journal, target, partial=partial)
            tally, state = target.tally, "partly restored" if left_out else "restored"
        settings = settings_of(journal)
    return tally.report(state, settings, time.perf_counter() - begun)


@discreet
def verify_array(arr: Any, key: Key, *, sidecar: PathLike | None = None) -> Verification:
    """Compare everything that was marked in a stored array with its journalled original and with its marked form.

    Nothing is written. Of what format 1 left outside its patches only a sample is compared: the sidecar keeps a digest.
    `verify_memmap` is this function under another name.

    Parameters
    ----------
    arr : np.memmap, path or zarr.Array
        The array as it was given to `protect_array`, or its copy; mode "r" is enough.
    key : Key
        The key it was protected with.
    sidecar : path, optional
        As given to `protect_array`.

    Returns
    -------
    Verification
        Counts of clips, which are named by their numbers.

    Raises
    ------
    SidecarError, TypeError, ValueError, DatasetError, AudioFileError, BusyError, OSError
        As for `restore_array`.
    """
    check_key(key)
    array = open_stored(arr, sidecar)
    with locked(array.path), Journal(array.sidecar, key) as journal, recorded(journal, array, key, None) as target:
        found = np.full(len(array.lengths), _NO_PATCH, np.uint8)
        for payload in journal.payloads():
            np.bitwise_and.at(found, *target.judge(payload))
        counts = np.bincount(found, minlength=_NO_PATCH)
        return Verification(
            original=int(counts[Verdict.ORIGINAL]),
            protected=int(counts[Verdict.PROTECTED]),
            unchanged=int(counts[Verdict.UNCHANGED]),
            neither=tuple(map(str, np.flatnonzero(found == Verdict.NEITHER).tolist())),
            missing=(),
            unlisted=(),
            state=journal.state.value,
        )


protect_memmap, restore_memmap, verify_memmap = protect_array, restore_array, verify_array  # names that users look for


def _refuse_other_copy(dst: Path, journal: Journal, wanted: tuple[State, ...], target: ArrayTarget) -> None:
    """DatasetError or SidecarError unless what stands at `dst`, or was begun for it, is the copy of the target."""
    if journal.state is State.UNDONE:
        raise DatasetError(
            f"{dst} holds a copy that was restored ({journal.path}); copy to another path, or protect it in place."
        )
    if journal.state not in wanted:
        raise DatasetError(f"{dst} exists, and nothing is ever overwritten; choose another path for the copy.")
    steps.refuse_other_run(journal, target.header())
    if not all(map(target.holds_originals, journal.payloads())):
        raise SidecarError(
            f"{dst} is a copy, or the beginning of one, of an array with other samples ({journal.path}). Copy to "
            f"another path; nothing was written."
        )


def _protect(array: StoredArray, target: ArrayTarget, key: Key, *, dry_run: bool) -> tuple[Tally, str, tuple[str, ...]]:
    """Protect an array in place, or go on where a run was stopped; returns counts, state and notes of the report."""
    with locked(array.path), Journal(array.sidecar, key) as journal, target:
        steps.refuse_if_undoing(journal)
        if journal.state in (State.APPLYING, State.COMPLETE, State.FINAL):
            steps.refuse_other_run(journal, target.header())
        else:
            target.preflight()
        if journal.state in (State.COMPLETE, State.FINAL):
            steps.refuse_unprotected(journal, target)
            return Tally(**journal.summary["counts"]), "already protected", notes_of(journal)
        if dry_run:
            target.rehearse()
            return target.tally, "untouched", target.notes
        steps.apply(journal, target)
        return target.tally, "protected", notes_of(journal)
