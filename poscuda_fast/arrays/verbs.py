"""Protecting, restoring and verifying stored arrays, durably."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from poscuda_fast import attributes
from poscuda_fast.arrays.copying import copy_array, verify_copy
from poscuda_fast.arrays.opening import open_stored, path_of
from poscuda_fast.arrays.target import ArrayTarget, StoredArray, recorded
from poscuda_fast.arrays.unmarking import undo_in_place, undo_into
from poscuda_fast.disk import PathLike, locked, refuse_linked
from poscuda_fast.errors import DatasetError
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key, check_key
from poscuda_fast.mark.forms import verdicts_of
from poscuda_fast.mark.judging import judged, look
from poscuda_fast.mark.labels import check_classes
from poscuda_fast.mark.plan import Plan, make_plan
from poscuda_fast.mark.shares import of_rows
from poscuda_fast.recipe import Recipe, check_share
from poscuda_fast.results import Progress, Report, Tally, Verdict, Verification
from poscuda_fast.secrecy import discreet
from poscuda_fast.undo import copies, steps
from poscuda_fast.undo.journal import Journal, State, sidecar_of
from poscuda_fast.undo.record import (
    notes_of,
    rebuilt_notes,
    recorded_recipe,
    refuse_closed,
    refuse_long,
    refuse_mounted,
    refuse_partial,
    refuse_protected,
    refuse_unfinished_rebuild,
    refuse_unless_without,
    settings_of,
)

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
    partial: bool = False,
    dry_run: bool = False,
    share: float = 1.0,
) -> Report:
    """Protect a stored array of clips, durably: in its file or folder, or as a copy at `dst`.

    What tells the originals, and gives them back, is sealed with the key into a sidecar before anything is overwritten.
    If the process is killed at any moment, make the same call again to finish. On a finished array that call compares
    everything that is marked, changes nothing, and reports "already protected". An array of format 2 that is protected,
    but not beside its sidecar, is recognised by some of its clips, and refused. `protect_memmap` is this function under
    another name.

    Parameters
    ----------
    arr : np.memmap, path or zarr.Array
        An array mapped from a file with mode "r+" (raw or .npy, or a view of one); the path of a .npy file; or a Zarr
        array of format 3 in a local folder, or that folder's path, with any chunks, shards and lossless codecs. Clips
        are int16 or float32, (n_clips, n_frames) or (n_clips, n_frames, n_channels). Format 2 changes
        all frames of a clip but no padding, format 1 those of its patches.
    labels, key, recipe, snr, sample_rate, lengths, classes, backend
        As for `protect`. The strength that `snr` leads to is recorded: a run that is resumed keeps it.
    dst : path, optional
        Path for a protected copy of the file or folder. It must not exist; the copy appears there once it is protected,
        and `arr` is only read. For a memmap, its whole file is copied.
    threads : int, optional
        CPU threads to use, and shards of a Zarr array to write at a time; all cores by default. Any number gives the
        same bits.
    sidecar : path, optional
        Path of the sidecar: by default NAME.poscuda beside the file or folder NAME; of an array in a Zarr group,
        beside the outermost group. In place it keeps what subtracting the mark does not bring back, and a hash of each
        512 bytes: about 2 % of int16 samples. In format 1 it keeps what is in the patches. That of a copy is small.
    progress : callable, optional
        Called with (frames done, frames in all) after every batch; frames that an earlier call recorded are looked at
        first, and count twice.
    partial : bool
        In place: leave out clips that were changed since they were recorded, and protect the others; the report names
        them, and the same call takes them once they are put right.
    dry_run : bool
        Read everything that would be marked, write nothing (mode "r" is enough); the report says what would be done.
    share : float
        Mark only this share of the clips, above 0 and in millionths, to prove use of them: that does not make the data
        unlearnable. The key and a clip's number alone decide which, so that any call, and any copy of the same clips,
        marks the same ones. The others stay as they are; the report counts them as `untagged`.

    Returns
    -------
    Report
        With state "protected", "partly protected", "already protected" or "untouched" (dry run).

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
        no longer match it; or `arr` is protected already, and would be marked twice. Nothing was written.
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
    begun = time.perf_counter()
    engine = Engine(backend, threads)
    classes = None if classes is None else check_classes(classes)  # an iterator can be read once
    part = check_share(share)
    if dst is not None:
        return copy_array(
            arr,
            labels,
            key,
            dst,
            recipe=recipe,
            snr=snr,
            sample_rate=sample_rate,
            lengths=lengths,
            classes=classes,
            backend=backend,
            threads=threads,
            sidecar=sidecar,
            progress=progress,
            dry_run=dry_run,
            share=part,
        )
    array = open_stored(arr, sidecar, lengths=lengths, writing=not dry_run, threads=threads)
    try:
        tags = of_rows(key, part, len(array.lengths))
        plan = make_plan(key, recipe, labels, classes, array.lengths, sample_rate, tags)
        refuse_linked(array.path)
        refuse_mounted(array.path, array.sidecar)
        refuse_long(array.sidecar)
        if not dry_run or not array.sidecar.exists():
            refuse_closed(array.sidecar)
        copies.refuse_sidecar(array.sidecar, array.path, array.path)
        with locked(array.path), Journal(array.sidecar, key) as journal:
            refuse_protected(array.path, _others(array), key)
            copies.refuse_in_place(journal, array.path)
            refuse_unfinished_rebuild(journal)
            known = recorded_recipe(journal)
            if known is None:
                undone = journal.state is State.UNDONE  # then its records tell what the data are
                plan, notes = judged(plan, key, snr, functools.partial(look, array, engine=engine), known=undone)
            else:  # the data may be marked in part, so that only the record tells
                plan, notes = plan.recorded(key, known, snr), notes_of(journal)
            target = ArrayTarget(array, key, plan.marks, engine, plan, progress, snr=snr, notes=notes)
            state, left_out = _protect(journal, array, target, partial=partial, dry_run=dry_run)
            tally = Tally(**journal.summary["counts"]) if state == "already protected" else target.tally
    finally:
        array.close()
    notes = (*notes, *attributes.notes(array.lost))
    return tally.report(state, plan.settings(), time.perf_counter() - begun, notes, left_out)


@discreet
def restore_array(
    arr: Any,
    key: Key,
    *,
    threads: int | None = None,
    sidecar: PathLike | None = None,
    partial: bool = False,
    progress: Progress | None = None,
    without_sidecar: bool = False,
    labels: Any = None,
    classes: Sequence[str] | None = None,
    lengths: Any = None,
    sample_rate: int | None = None,
    recipe: Recipe | None = None,
    dst: PathLike | None = None,
    share: float | None = None,
) -> Report:
    """Put the original samples of a protected array back, bit for bit.

    If the process is killed at any moment, make the same call again to finish. The sidecar stays, in state "undone"; it
    may then be deleted. `restore_memmap` is this function under another name.

    Where the sidecar is lost, `without_sidecar` computes the originals of format 2 by subtracting the mark. In place, a
    sidecar is made first, and then all is as with one: protecting again gives back what was there. The result is the
    original but for samples that were saturated, which are counted, and for last bits of float32. FORMAT.md,
    "Without the sidecar".

    Parameters
    ----------
    arr : np.memmap, path or zarr.Array
        The array as it was given to `protect_array`, or its copy: a memmap of the same shape, dtype and offset in the
        file. A Zarr array may since have been moved, or given other shards or codecs.
    key : Key
        The key it was protected with.
    threads, sidecar
        As for `protect_array`; without a sidecar, where one is made.
    partial : bool
        Restore the other clips even if some have changed since; those can still be restored later, once the change is
        undone.
    progress : callable, optional
        Called with (frames done, frames in all) after every batch.
    without_sidecar : bool
        Compute the originals; the sidecar must not exist.
    labels, classes, lengths, sample_rate, recipe, share
        As given to `protect_array`; only for `without_sidecar`. `recipe` is by default `Recipe.strong()`; where `snr`
        was given, the strength is in the report.
    dst : path, optional
        For `without_sidecar`: make a copy there without the marks, and change nothing else. It appears once it is
        complete.

    Returns
    -------
    Report
        With state "restored", "partly restored" or "already original".

    Raises
    ------
    SidecarError
        The sidecar is missing or damaged, or made with another key or for other data; or, without `partial`, clips have
        changed since. With `without_sidecar`: there is one, the recipe is of format 1, clips are not marked with this
        key, their labels and this recipe, or, in place, are not what marking gives. Nothing was written.
    DatasetError
        Also: `dst` exists, or its folder does not.
    TypeError, ValueError, AudioFileError, BusyError, OSError
        As for `protect_array`; also arguments for `without_sidecar` without it.
    """
    check_key(key)
    engine = Engine(threads=threads)  # refuses an impossible number
    begun = time.perf_counter()
    if without_sidecar:
        refuse_partial(partial=partial)
        array = open_stored(arr, sidecar, lengths=lengths, writing=dst is None, threads=threads)
        try:
            recipe = Recipe.strong() if recipe is None else recipe
            tags = of_rows(key, check_share(1.0 if share is None else share), len(array.lengths))
            plan = make_plan(key, recipe, labels, classes, array.lengths, sample_rate, tags)
            state, tally, notes = _undo(arr, array, key, plan, engine, dst, progress)
        finally:
            array.close()
        notes = (*notes, *attributes.notes(array.lost))
        return tally.report(state, plan.settings(), time.perf_counter() - begun, notes)
    refuse_unless_without(
        labels=labels, classes=classes, lengths=lengths, sample_rate=sample_rate, recipe=recipe, dst=dst, share=share
    )
    array = open_stored(arr, sidecar, writing=True, threads=threads)
    if array.path.is_dir():
        refuse_linked(array.path)
    with closing(array), locked(array.path), Journal(array.sidecar, key) as journal:
        if copies.is_copy(journal):
            copies.refuse_restore(journal, array.path)
        refuse_unfinished_rebuild(journal)
        target = recorded(journal, array, key, progress)
        state, left_out = steps.restore(journal, target, partial=partial)
        tally = Tally(**journal.summary["counts"]) if state == "already original" else target.tally
        settings, notes = settings_of(journal), (*rebuilt_notes(journal), *attributes.notes(array.lost))
    return tally.report(state, settings, time.perf_counter() - begun, notes, left_out)


def _undo(
    arr: Any,
    array: StoredArray,
    key: Key,
    plan: Plan,
    engine: Engine,
    dst: PathLike | None,
    progress: Progress | None,
) -> tuple[str, Tally, tuple[str, ...]]:
    """`restore_array` without a sidecar: (state, counts, notes)."""
    if dst is not None:
        with locked(array.path, shared=True):
            return "restored", *undo_into(Path(dst), arr, array, key, plan, engine, progress)
    refuse_linked(array.path)
    with locked(array.path), Journal(array.sidecar, key) as journal:
        return undo_in_place(journal, array, key, plan, engine, progress)


@discreet
def verify_array(
    arr: Any, key: Key | None = None, *, sidecar: PathLike | None = None, source: PathLike | None = None
) -> Verification:
    """Compare everything that was marked in a stored array with its original and with its marked form.

    Nothing is written. The sidecar tells the originals of what was protected in place, block by block, and the digest
    of a copy. What format 1 left outside its patches in place is not compared. `verify_memmap` is this function under
    another name.

    Parameters
    ----------
    arr : np.memmap, path or zarr.Array
        The array as it was given to `protect_array`, or its copy; mode "r" is enough.
    key : Key, optional
        The key it was protected with. Without it, a copy is compared with its manifest alone.
    sidecar : path, optional
        As given to `protect_array`.
    source : path, optional
        For a copy: what it was made of, wherever that lies now. Each clip is marked again and compared.

    Returns
    -------
    Verification
        Counts of clips, which are named by their numbers.

    Raises
    ------
    SidecarError, TypeError, ValueError, DatasetError, AudioFileError, BusyError, OSError
        As for `restore_array`.
    """
    if key is None:
        if source is not None:
            raise ValueError("source is given without a key, and it is compared by marking it again; give the key too.")
        return verify_copy(path_of(arr), None)
    check_key(key)
    array = open_stored(arr, sidecar)
    with closing(array), locked(array.path, shared=True), Journal(array.sidecar, key) as journal:
        if copies.is_copy(journal):
            return verify_copy(array.path, journal, source=source)
        if source is not None:
            raise DatasetError(
                f"{array.path} is no copy with a sidecar, so that there is no source to compare it with."
            )
        target = recorded(journal, array, key, None)
        held = np.ones((3, len(array.lengths)), np.bool_)
        seen = np.zeros(len(array.lengths), np.bool_)
        records = steps.Records(journal, target)
        for one in records:
            answer = target.examine(one.batch, one.content, records.torn_of(one), one.place)
            seen[one.batch.clips] = True
            for kind, found in zip(held, answer.forms.held(), strict=True):
                np.logical_and.at(kind, one.batch.clips, found)
        verdicts = np.where(seen, verdicts_of(*held), _NO_PATCH)
        counts = np.bincount(verdicts, minlength=_NO_PATCH)
        changed = np.isin(verdicts, (Verdict.NEITHER, Verdict.TORN))
        return Verification(
            original=int(counts[Verdict.ORIGINAL]),
            protected=int(counts[Verdict.PROTECTED]),
            unchanged=int(counts[Verdict.UNCHANGED]) + journal.header["counts"].get("untagged", 0),
            neither=tuple(map(str, np.flatnonzero(changed).tolist())),
            missing=(),
            unprotected=(),
            state=journal.state.value,
        )


protect_memmap, restore_memmap, verify_memmap = protect_array, restore_array, verify_array  # names that users look for


def _others(array: StoredArray) -> list[Path]:
    """The sidecars, other than its own, by which an array may be protected already."""
    around = [sidecar_of(path) for path in (array.path, *array.path.parents) if path.name]
    return [path for path in around if path != array.sidecar]


def _protect(
    journal: Journal, array: StoredArray, target: ArrayTarget, *, partial: bool, dry_run: bool
) -> tuple[str, tuple[str, ...]]:
    if journal.state in (State.NEW, State.UNDONE):
        target.preflight()
        if dry_run:
            target.rehearse()
            return "untouched", ()
    elif dry_run:
        steps.refuse_other_run(journal, target.header(journal.header))
        return ("already protected" if journal.state in (State.COMPLETE, State.FINAL) else "untouched"), ()
    undone = None
    if journal.state is State.UNDONE:
        steps.refuse_other_data(journal, target.header(journal.header))
        undone = recorded(journal, array, journal.key, None)
    return steps.protect(journal, target, partial=partial, undone=undone)
