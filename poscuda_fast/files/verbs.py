"""Protecting, restoring and verifying audio files: a folder of them, or one."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import heapq
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from poscuda_fast import attributes, disk
from poscuda_fast.disk import PathLike
from poscuda_fast.errors import DatasetError, SidecarError
from poscuda_fast.files import listing, looking, preflight
from poscuda_fast.files.copying import copy_folder, verify_copy
from poscuda_fast.files.gathering import Gathered, gather
from poscuda_fast.files.paths import Paths
from poscuda_fast.files.pieces import bytes_kept
from poscuda_fast.files.table import FileTable
from poscuda_fast.files.target import FileTarget, Job, recorded
from poscuda_fast.files.unmarking import undo_in_place, undo_into
from poscuda_fast.kernels import Engine, Ints
from poscuda_fast.key import Key, check_key
from poscuda_fast.mark.judging import NAMES_SHOWN, judged, refuse_marked, refuse_share_marked
from poscuda_fast.mark.plan import make_plan
from poscuda_fast.mark.shares import of_names, words_of_names
from poscuda_fast.recipe import Recipe, check_share, check_snr, chosen_recipe
from poscuda_fast.results import Progress, Report, Tally, Verdict, Verification
from poscuda_fast.secrecy import discreet
from poscuda_fast.undo import copies, steps
from poscuda_fast.undo.journal import Journal, State
from poscuda_fast.undo.manifest import Manifest
from poscuda_fast.undo.record import (
    notes_of,
    rebuilt_notes,
    recorded_recipe,
    refuse_closed,
    refuse_long,
    refuse_mounted,
    refuse_part_folders,
    refuse_partial,
    refuse_protected,
    refuse_unfinished_rebuild,
    refuse_unless,
    refuse_unless_without,
    refuse_without_run,
    settings_of,
)


@discreet
def protect_folder(
    folder: PathLike,
    dst: PathLike | None,
    key: Key,
    *,
    recipe: Recipe | None = None,
    strength: float | None = None,
    snr: float | None = None,
    labels_from: str | Mapping[str, str | int] = "folder",
    lossy: str = "refuse",
    backend: str = "auto",
    threads: int | None = None,
    sidecar: PathLike | None = None,
    progress: Progress | None = None,
    partial: bool = False,
    skip_unusable: bool = False,
    dry_run: bool = False,
    share: float = 1.0,
) -> Report:
    """Protect audio files, as a copy or in place, durably.

    In uncompressed files (WAV, AIFF, CAF, AU, W64, NIST SPHERE of 16- or 24-bit PCM or 32-bit float) only samples
    change, in format 1 only those of the patches; FLAC is decoded and encoded again, and keeps all that it carries.
    Each file is marked for its own sample rate. In place, what undo needs is sealed with the key into a sidecar before
    anything is overwritten, so that `restore_folder` can bring every file back bit for bit. A copy keeps no originals:
    its source is its undo. The sidecar and a readable manifest lie beside what is protected, and nothing is written
    inside it but the files. If the process is killed, the same call made again finishes the job. Files that were added
    later are marked alone by it. Files may have any length: a few MiB of them are in memory.

    Parameters
    ----------
    folder : path
        A folder, or one audio file. Hidden files are skipped; a copy gets all other files that are not audio,
        unchanged.
    dst : path or None
        A folder that does not exist yet or is empty, or the copy that the same call has begun (for one file: its new
        path); None to edit in place. Nothing that exists is ever overwritten.
    key : Key
        The secret.
    recipe : Recipe, optional
        From `Recipe.strong` or `Recipe.paper`; by default `Recipe.strong()`.
    strength : float, optional
        Strength of the default recipe, 1 if not given. Give either `recipe` or `strength`.
    snr : float, optional
        Instead: set the strength so that the median file is so many dB above its mark, judged by the beginnings of at
        most 256 files. The report gives the strength; it is recorded, and a run that is resumed keeps it.
    labels_from : str or mapping
        "folder" (the parent folder's name), "csv:FILE" (columns path and label, paths relative to
        `folder`), "regex:RE" (its first group, on the file's name), or a mapping from relative paths.
    lossy : str
        "refuse" refuses MP3 and Ogg files; "flac" turns them into 16-bit FLAC, in a copy only.
    backend, threads
        As for `protect`.
    sidecar : path, optional
        By default NAME.poscuda beside the folder or file NAME that is protected. It is sealed, but belongs to the
        key's owner: do not publish it, and keep it.
    progress : callable, optional
        Called with (steps done, steps in all): one for each file, and in place another one for each that an earlier
        call recorded, which is looked at first.
    partial : bool
        Leave out files that were changed since they were recorded, or of which no copy can be made, and protect the
        others; the report names them, and the same call takes them once they are put right.
    skip_unusable : bool
        Leave audio that cannot be marked unprotected, such as MP3 or 8-bit PCM: in place and in a copy it stays as it
        is. The report names it.
    dry_run : bool
        Read everything, write nothing; the report says what would be done.
    share : float
        Mark only this share of the files of a folder, above 0 and in millionths, to prove use of them: that does not
        make the data unlearnable. The key and a file's path below the folder alone decide which, so that the choice is
        the same in every call, in a copy, and when files are added. The others stay byte for byte, but must be such
        that they could be marked; the report counts them as `untagged`. The manifest tells which they are.

    Returns
    -------
    Report
        With state "protected", "partly protected", "already protected" or "untouched" (dry run).

    Raises
    ------
    DatasetError
        Before anything is written: there is no audio, a file has no label, names collide, `dst` is in use, files are
        links or cannot be edited, a manifest says that they are protected already, a key among them would be published
        with them, or, in format 2, a sample rate is not from 2,000 to 512,000 Hz. Later: a file was changed meanwhile;
        put it back and make the same call again.
    AudioFileError
        An encoded file cannot be decoded, or encoding it again would not keep every sample.
    ValueError
        Format 1: a NaN or infinite sample inside a patch. Format 2: most float files have peaks above 4, more than 1 %
        of the samples would be pushed beyond full scale, or `snr` cannot be reached. Or more than one of `recipe`,
        `strength` and `snr` is given, or `share` is given for one file or with `lossy`, which it could not leave as
        they are. Nothing was written.
    SidecarError, BusyError, OSError
        As for `protect_array`.

    Notes
    -----
    The manifest, NAME.poscuda.json, lists labels, recipe, sizes, BLAKE3 before and after, and the edit's SNR, but no
    key and no positions. See FORMAT.md, "Manifest".
    """
    begun = time.perf_counter()
    check_key(key)
    if lossy not in ("refuse", "flac"):
        raise ValueError(f"lossy is {lossy!r}; expected 'refuse' or 'flac'.")
    recipe = chosen_recipe(recipe, strength)  # refuses a contradiction before reading anything
    if snr is not None:
        if strength is not None:
            raise ValueError(f"strength is {strength!r} and snr is {snr!r}, which sets the strength; give one of them.")
        snr = check_snr(snr, recipe)
    paths = Paths.of(Path(folder), None if dst is None else Path(dst), sidecar)
    part = _checked_share(share, paths, lossy)
    if paths.copying:
        return copy_folder(
            paths,
            key,
            recipe,
            snr=snr,
            labels_from=labels_from,
            lossy=lossy,
            backend=backend,
            threads=threads,
            progress=progress,
            dry_run=dry_run,
            partial=partial,
            skip_unusable=skip_unusable,
            share=part,
        )
    engine = Engine(backend, threads)
    gathered = gather(paths, labels_from, recipe, editing=True, partial=partial, skip_unusable=skip_unusable)
    unusable = dict(gathered.left_out)
    with disk.locked(paths.data), Journal(paths.sidecar, key) as journal:
        copies.refuse_in_place(journal, paths.data)
        refuse_unfinished_rebuild(journal)
        known = recorded_recipe(journal)
        if known is None:
            _preflight(journal, paths)
        job = _job(key, recipe, gathered, part)
        if known is not None:
            job = dataclasses.replace(job, plan=job.plan.recorded(key, known, snr))
        job, added, apart = _usable(journal, paths, key, job, engine, unusable if partial else None)
        plan, notes = job.plan, notes_of(journal) if known is not None else ()
        if known is None:
            undone = journal.state is State.UNDONE  # then its records tell what its files are
            look = functools.partial(looking.look, paths.source, job.files, engine=engine)
            plan, notes = judged(plan, key, snr, look, known=undone, names=job.files.names)
        job = dataclasses.replace(job, plan=plan, snr=snr, notes=notes)
        target = FileTarget(paths, journal, plan.recipe, engine, progress, job)
        with contextlib.closing(target):
            state, left_out = _protect(journal, target, paths, job, added, apart, partial=partial, dry_run=dry_run)
            done = state == "already protected" and "counts" in journal.summary
            tally = Tally(**journal.summary["counts"]) if done else target.tally
            hidden = listing.notes_on_hidden(paths.source, copying=False) if paths.only is None else []
            others = listing.notes_on_others(paths.source, gathered.others)
            notes = (*notes, *attributes.notes(target.lost), *hidden, *others)
            ratios = target.accounts.ratios
    left_out = (*(name for name in left_out if name not in unusable), *unusable.values())
    if unusable and not dry_run:
        state = "partly protected"
    unprotected = tuple(gathered.unprotected.values())
    return tally.report(state, plan.settings(), time.perf_counter() - begun, notes, left_out, unprotected, ratios)


@discreet
def restore_folder(
    folder: PathLike,
    key: Key,
    *,
    sidecar: PathLike | None = None,
    partial: bool = False,
    progress: Progress | None = None,
    without_sidecar: bool = False,
    labels_from: str | Mapping[str, str | int] | None = None,
    recipe: Recipe | None = None,
    strength: float | None = None,
    dst: PathLike | None = None,
    share: float | None = None,
) -> Report:
    """Put the original bytes of protected audio files back, bit for bit.

    Where the sidecar is lost, `without_sidecar` computes the originals of format 2 by subtracting the mark. In place,
    which uncompressed files allow, a sidecar is made first, and then all is as with one: protecting again gives back
    what was there. The result is the original but for samples that were saturated, which are counted, and for last bits
    of float32; if the manifest lies beside the files, the report says which are confirmed by it. FORMAT.md, "Without
    the sidecar".

    Parameters
    ----------
    folder : path
        What was protected in place: a folder, or one audio file. Of a copy, the error says where its originals are.
    key : Key
        The key it was protected with.
    sidecar : path, optional
        As given to `protect_folder`; without a sidecar, where one is made.
    partial : bool
        Restore what can be restored even if some files are missing or have changed since; those can
        still be restored later, once they are put back.
    progress : callable, optional
        Called with (steps done, steps in all), two for each file: all are checked before the first is put back.
    without_sidecar : bool
        Compute the originals; the sidecar must not exist.
    labels_from, recipe, strength, share
        As given to `protect_folder`; only for `without_sidecar`. Where `snr` was given, the strength is in the report.
    dst : path, optional
        For `without_sidecar`: make a copy there without the marks, and change nothing else. It appears once it is
        complete. Encoded files, such as FLAC, need this: their samples come back, and their bytes may be others.

    Returns
    -------
    Report
        With state "restored", "partly restored" or "already original".

    Raises
    ------
    SidecarError
        There is no sidecar, or it is damaged or of another key; or, without `partial`, files have changed since. With
        `without_sidecar`: there is one, the recipe is of format 1, files are not marked with this key, their labels and
        this recipe, or, in place, are not what marking gives. Nothing was written.
    DatasetError
        `folder` does not exist or is not a regular file, or a file was changed meanwhile. With `without_sidecar`:
        encoded files in place, or `dst` exists. Nothing was written.
    ValueError
        Arguments for `without_sidecar` without it, or `partial` with it.
    BusyError, OSError
        As for `protect_array`.
    """
    begun = time.perf_counter()
    check_key(key)
    if without_sidecar:
        refuse_partial(partial=partial)
        labels_from = "folder" if labels_from is None else labels_from
        out = None if dst is None else Path(dst)
        share = 1.0 if share is None else share
        return _undo(Path(folder), out, key, chosen_recipe(recipe, strength), labels_from, sidecar, progress, share)
    refuse_unless_without(labels_from=labels_from, recipe=recipe, strength=strength, dst=dst, share=share)
    paths = Paths.of(Path(folder), None, sidecar)
    with disk.locked(paths.data), Journal(paths.sidecar, key) as journal:
        if copies.is_copy(journal):
            copies.refuse_restore(journal, paths.data)
        refuse_unfinished_rebuild(journal)
        with contextlib.closing(recorded(journal, paths, progress)) as target:
            state, left_out = steps.restore(journal, target, partial=partial)
            if state == "already original":  # a run that was killed before it began
                target.clear()
            tally = Tally(**journal.summary["counts"]) if state == "already original" else target.tally
        settings, notes = settings_of(journal), (*rebuilt_notes(journal), *attributes.notes(target.lost))
    return tally.report(state, settings, time.perf_counter() - begun, notes, left_out)


def _undo(
    folder: Path,
    dst: Path | None,
    key: Key,
    recipe: Recipe,
    labels_from: str | Mapping[str, str | int],
    sidecar: PathLike | None,
    progress: Progress | None,
    share: float,
) -> Report:
    """`restore_folder` without a sidecar."""
    begun = time.perf_counter()
    paths = Paths.of(folder, None, sidecar)
    part = _checked_share(share, paths)
    gathered = gather(paths, labels_from, recipe, editing=dst is None)
    job, engine = _job(key, recipe, gathered, part), Engine()
    if dst is not None:
        with disk.locked(paths.data, shared=True):
            tally, notes = undo_into(dst, paths, job, gathered.others, key, engine, progress)
        state = "restored"
    else:
        with disk.locked(paths.data), Journal(paths.sidecar, key) as journal:
            state, tally, notes = undo_in_place(journal, paths, job, engine, progress)
    return tally.report(state, job.plan.settings(), time.perf_counter() - begun, notes)


@discreet
def verify_folder(
    folder: PathLike, key: Key | None = None, *, sidecar: PathLike | None = None, source: PathLike | None = None
) -> Verification:
    """Check which files are original, which are protected, and which are neither; nothing is written.

    Without a key, each file's BLAKE3 is compared with the manifest. With the key, the sidecar is used, and the manifest
    need not be trusted: it tells the originals of what was protected in place, which are marked again, and the digests
    of a copy. After `drop_undo`, only the manifest is left to compare with.

    Parameters
    ----------
    folder : path
        What was protected in place, or the copy: a folder, or one audio file.
    key : Key, optional
        The key it was protected with.
    sidecar : path, optional
        As given to `protect_folder`.
    source : path, optional
        For a copy: what it was made of, wherever that lies now. Each file is marked again and compared.

    Returns
    -------
    Verification
        Of files, named by their paths below the folder.

    Raises
    ------
    DatasetError
        `folder` does not exist; without a key, there is no manifest, or it is damaged; `source` is not what the copy
        was made of, or there is no copy.
    SidecarError
        The sidecar is missing, damaged or of another key.
    ValueError
        `source` is given without a key.
    BusyError
        Another run is at work on the files.
    """
    paths = Paths.of(Path(folder), None, sidecar)
    if key is None:
        if source is not None:
            raise ValueError("source is given without a key, and it is compared by marking it again; give the key too.")
        return verify_copy(paths, None)
    check_key(key)
    with disk.locked(paths.data, shared=True), Journal(paths.sidecar, key) as journal:
        if copies.is_copy(journal):
            return verify_copy(paths, journal, source=source)
        if source is not None:
            raise DatasetError(f"{folder} is no copy with a sidecar, so that there is no source to compare it with.")
        refuse_without_run(journal)
        if journal.state is State.FINAL:
            if not paths.manifest.is_file():
                refuse_unless(journal, "files")  # nothing is left to compare with
            found: Verification = dataclasses.replace(verify_copy(paths, None), state=journal.state.value)
            return found
        names = paths.find(may_be_empty=True)[0]
        verdicts: list[Verdict | None] = [None] * len(names)
        gone: dict[str, Verdict] = {}
        with contextlib.closing(recorded(journal, paths, None)) as target:
            for name, verdict in steps.verdicts(journal, target):
                number = names.find(name)
                if number is None:
                    gone[name] = verdict.joined(gone.get(name, verdict))
                else:
                    before = verdicts[number]
                    verdicts[number] = verdict if before is None else verdict.joined(before)
        here = ((name, verdict) for name, verdict in zip(names, verdicts, strict=True) if verdict is not None)
        unprotected = (name for name, verdict in zip(names, verdicts, strict=True) if verdict is None)
        return Verification.of(heapq.merge(here, sorted(gone.items())), journal.state.value, unprotected)


def _checked_share(share: float, paths: Paths, lossy: str = "refuse") -> int | None:
    """A share in millionths, None if it is all; ValueError if there is nothing of which it could be one."""
    part = check_share(share)
    if part is not None and paths.only is not None:
        raise ValueError(f"share is {share:g} and {paths.data} is one file; give a folder, or leave it out.")
    if part is not None and lossy == "flac":
        raise ValueError(
            f"share is {share:g}, which leaves files as they are, and lossy='flac' is given, which does not; turn them "
            f"into FLAC first, or leave one of the two out."
        )
    return part


def _job(key: Key, recipe: Recipe, gathered: Gathered, share: int | None) -> Job:
    files, labels = gathered.files, gathered.labels
    tags = of_names(key, share, files.names)
    return Job(files, make_plan(key, recipe, labels, None, files.frames, files.rates, tags), labels, None, ())


def _usable(
    journal: Journal, paths: Paths, key: Key, job: Job, engine: Engine, left_out: dict[str, str] | None
) -> tuple[Job, Ints, set[str]]:
    """The job, the numbers of its files that no record has, and the names of recorded files that are not in it.

    Files to be marked anew are examined: see `preflight.refuse_not_finite`. What is in `left_out`, or goes there, is
    not in the job that is returned.
    """
    if journal.state is State.FINAL:
        return job, np.empty(0, np.int64), set()
    known, apart = bytearray(len(job.files)), set[str]()
    bad: dict[str, str] | None = None if left_out is None else {}
    with contextlib.closing(FileTarget(paths, journal, job.plan.recipe, engine, None, job)) as target:
        if journal.state is not State.NEW:
            steps.refuse_other_data(journal, target.header(journal.header))
            for one in steps.Records(journal, target):
                for number in map(job.files.names.find, {record.name for record in one.batch.records}):
                    if number is not None:
                        known[number] = True
                if journal.state is not State.UNDONE:  # of an undone run all is marked anew
                    target.recorded(one.batch, bad)
                    for out in (left_out, bad):
                        apart.update(record.name for record in one.batch.records if out and record.name in out)
        preflight.refuse_not_finite(target, bad)
    if bad and left_out is not None:
        left_out.update(bad)
        kept = [n for n in range(len(job.files)) if job.files.names[n] not in bad]
        if not kept:
            raise DatasetError(f"None of the {len(left_out)} audio files in {paths.data} can be used.")
        files = FileTable(job.files[n] for n in kept)
        share = None if job.plan.tags is None else job.plan.tags.share
        job = _job(key, job.plan.recipe, Gathered(files, [job.labels[n] for n in kept], [], {}, {}), share)
    return job, np.flatnonzero(np.frombuffer(known, np.bool_) == 0), apart


def _protect(
    journal: Journal,
    target: FileTarget,
    paths: Paths,
    job: Job,
    added: Ints,
    apart: Collection[str],
    *,
    partial: bool,
    dry_run: bool,
) -> tuple[str, tuple[str, ...]]:
    """Protect files, of which those numbered in `added` have no record; those in `apart` have, and are left out."""
    if journal.state is State.FINAL:
        steps.refuse_other_run(journal, target.header(journal.header))
        return "already protected", _others_than_recorded(journal, paths, job, partial=partial)
    if journal.state in (State.NEW, State.UNDONE):
        disk.refuse_without_room(paths.sidecar, bytes_kept(job.files, job.plan))
        if dry_run:
            target.accounts.ratios = preflight.rehearse(target)
            return "untouched", ()
    elif dry_run:
        steps.refuse_other_run(journal, target.header(journal.header))
        return ("already protected" if journal.state is State.COMPLETE else "untouched"), ()
    if journal.state is not State.NEW:
        _refuse_marked(journal, paths, job, target.engine, added)
    with contextlib.ExitStack() as closing:
        undone = None
        if journal.state is State.UNDONE:
            undone = closing.enter_context(contextlib.closing(recorded(journal, paths, None)))
        return steps.protect(journal, target, partial=partial, undone=undone, apart=apart)


def _others_than_recorded(journal: Journal, paths: Paths, job: Job, *, partial: bool) -> tuple[str, ...]:
    """The files that a run whose undo was dropped did not mark, and those that it marked and that are gone.

    Their names, if the manifest is there. SidecarError if there are any, unless `partial`.
    """
    if paths.only is not None:  # it may have another name now
        return ()
    if paths.manifest.is_file():
        known = Manifest.read(paths.manifest, paths.only).files
        names = {file.output_name for file in job.files}
        new = [f"{name} is new, and not protected" for name in sorted(names - known.keys())]
        others = [*new, *(f"{name} is missing" for name in sorted(known.keys() - names))]
    else:
        n = journal.summary["counts"]["clips"]
        others = [] if n == len(job.files) else [f"there were {n:,} files, and there are {len(job.files):,} now"]
    if others and not partial:
        raise SidecarError(
            f"The undo of {paths.data} was dropped, and so it cannot grow. Protect new files in a folder of their own "
            f"and move them here then, put back what is missing, or leave all as it is (partial=True). Nothing "
            f"was written:{copies.shown(others)}"
        )
    return tuple(others)


def _refuse_marked(journal: Journal, paths: Paths, job: Job, engine: Engine, added: Ints) -> None:
    """SidecarError if files that the sidecar does not record are marked with this key already."""
    if len(added) and job.plan.marks.steady:
        look = functools.partial(looking.look, paths.source, job.files, engine=engine)
        words = words_of_names(journal.key, [job.files.names[n] for n in added])
        try:
            refuse_marked(job.plan, look(job.plan, among=added).traces)
            refuse_share_marked(job.plan, words, look, added)
        except SidecarError as error:
            names = ", ".join(job.files.names[n] for n in added[:NAMES_SHOWN])
            raise SidecarError(f"{len(added)} files that {journal.path} does not know ({names}): {error}") from None


def _preflight(journal: Journal, paths: Paths) -> None:
    """Refuse what must be refused before the first byte is written."""
    refuse_mounted(paths.data, paths.sidecar)
    refuse_long(paths.sidecar, paths.manifest)
    refuse_closed(paths.sidecar, paths.manifest)
    refuse_part_folders(paths.manifest, paths.sidecar)
    if os.path.lexists(paths.manifest):
        Manifest.read(paths.manifest)  # what is there must be a manifest: it will be replaced
    others = [sidecar for sidecar in paths.sidecars_around() if sidecar != journal.path]
    refuse_protected(paths.data, others, journal.key)
    paths.refuse_protected()
