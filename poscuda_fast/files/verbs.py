"""Protecting, restoring and verifying audio files: a folder of them, or one."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from poscuda_fast import disk
from poscuda_fast.disk import PathLike, Workers
from poscuda_fast.errors import DatasetError, SidecarError
from poscuda_fast.files import label_sources, listing, looking
from poscuda_fast.files.listing import AudioFile
from poscuda_fast.files.manifest import Manifest, compare, digest
from poscuda_fast.files.paths import Paths
from poscuda_fast.files.pieces import bytes_kept
from poscuda_fast.files.target import FileTarget, recorded
from poscuda_fast.kernels import Engine, usable_cores
from poscuda_fast.key import Key, check_key, holds_key
from poscuda_fast.mark.judging import judged
from poscuda_fast.mark.plan import Plan, make_plan
from poscuda_fast.recipe import Recipe, check_snr, chosen_recipe
from poscuda_fast.results import Progress, Report, Tally, Verdict, Verification
from poscuda_fast.secrecy import discreet
from poscuda_fast.undo import steps
from poscuda_fast.undo.journal import Journal, State
from poscuda_fast.undo.record import notes_of, refuse_protected, settings_of


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
    dry_run: bool = False,
) -> Report:
    """Protect audio files, as a copy or in place, durably.

    In WAV files (PCM_16, PCM_24, FLOAT) only samples change, in format 1 only those of the patches; FLAC and other
    lossless formats are decoded and encoded again with the same subtype, rate and channels. Each file is marked for its
    own sample rate. Originals are sealed with the key into a sidecar before anything is overwritten, so that
    `restore_folder` can bring every file back bit for bit. If the process is killed, the same call made again finishes
    the job. Files may have any length: a few MiB of them are in memory.

    Parameters
    ----------
    folder : path
        A folder, or one audio file. Hidden files are skipped; a copy gets all other files that are not audio,
        unchanged.
    dst : path or None
        A folder that does not exist yet or is empty (for one file: its new path); None to edit in
        place. Nothing that exists is ever overwritten.
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
        By default ".poscuda" inside the protected folder, "FILE.poscuda" beside one file. It is sealed,
        but belongs to the key's owner: move it away before you publish the folder, and keep it.
    progress : callable, optional
        Called with (files done, files in all).
    dry_run : bool
        Read everything, write nothing; the report says what would be done.

    Returns
    -------
    Report
        With state "protected", "already protected" or "untouched" (dry run).

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
        `strength` and `snr` is given. Nothing was written.
    SidecarError, BusyError, OSError
        As for `protect_array`.

    Notes
    -----
    A manifest `poscuda.json` beside the files lists labels, recipe, sizes, SHA-256 before and after, and
    the edit's SNR, but no key and no positions. See FORMAT.md, "Manifest".
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
    found, others, given = _listed(paths, labels_from, lossy)
    listing.refuse_rates(found, recipe)
    lengths = np.array([file.frames for file in found], np.int64)
    rates = np.array([file.layout.sample_rate for file in found], np.int64)
    notes: tuple[str, ...] = ()
    plan = make_plan(key, recipe, given, None, lengths, rates)
    engine = Engine(backend, threads)
    with (
        disk.locked(paths.data, shared=paths.copying),
        Journal(paths.sidecar, key) as journal,
        Workers(threads or usable_cores()) as workers,
    ):
        steps.refuse_if_undoing(journal)
        is_new = journal.state in (State.NEW, State.UNDONE)
        if is_new:
            _refuse_keys(paths, others)
            _preflight(journal, paths, found)
            plan, notes = judged(plan, key, snr, lambda plan: looking.look(paths.source, found, plan, engine))
        else:  # the data may be marked in part, so that only the record tells
            plan, notes = plan.recorded(key, Recipe.from_dict(journal.header["recipe"]), snr), notes_of(journal)
        target = FileTarget(
            paths.root,
            journal,
            plan.marks,
            engine,
            workers,
            progress,
            source=paths.source if paths.copying else None,
            files=found,
            others=others if paths.copying else [],
            labels=given,
            plan=plan,
            snr=snr,
            notes=notes,
            manifest=paths.manifest,
        )
        if is_new:
            target.examine()
            _refuse_without_room(paths, found, plan)
        else:
            steps.refuse_other_run(journal, target.header())
        if journal.state in (State.COMPLETE, State.FINAL):
            _refuse_other_sources(paths, found, workers)
            steps.refuse_unprotected(journal, target)
            tally, state = Tally(**journal.summary["counts"]), "already protected"
        elif dry_run:
            target.rehearse()
            tally, state = target.tally, "untouched"
        else:
            paths.root.mkdir(parents=True, exist_ok=True)
            try:
                steps.apply(journal, target)
            except BaseException:
                target.abandon()
                raise
            tally, state = target.tally, "protected"
    return tally.report(state, plan.settings(), time.perf_counter() - begun, notes)


@discreet
def restore_folder(
    folder: PathLike,
    key: Key,
    *,
    sidecar: PathLike | None = None,
    partial: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Put the original bytes of protected audio files back, bit for bit.

    Parameters
    ----------
    folder : path
        What was protected in place, or the copy: a folder, or one audio file.
    key : Key
        The key it was protected with.
    sidecar : path, optional
        As given to `protect_folder`.
    partial : bool
        Restore what can be restored even if some files are missing or have changed since; those can
        still be restored later, once they are put back.
    progress : callable, optional
        Called with (steps done, steps in all), two for each file: all are checked before the first is put back.

    Returns
    -------
    Report
        With state "restored", "partly restored" or "already original".

    Raises
    ------
    SidecarError
        There is no sidecar, or it is damaged or of another key; or, without `partial`, files have changed since.
        Nothing was written.
    DatasetError
        `folder` does not exist or is not a regular file, or a file was changed meanwhile.
    BusyError, OSError
        As for `protect_array`.
    """
    begun = time.perf_counter()
    check_key(key)
    paths = Paths.of(Path(folder), None, sidecar)
    with disk.locked(paths.data), Journal(paths.sidecar, key) as journal, Workers(usable_cores()) as workers:
        target = recorded(journal, paths.root, workers, progress)
        if journal.state is State.UNDONE:
            tally, state = Tally(**journal.summary["counts"]), "already original"
        else:
            try:
                left_out = steps.undo(journal, target, partial=partial)
            finally:
                target.abandon()
            tally, state = target.tally, "partly restored" if left_out else "restored"
        settings = settings_of(journal)
    return tally.report(state, settings, time.perf_counter() - begun)


@discreet
def verify_folder(folder: PathLike, key: Key | None = None, *, sidecar: PathLike | None = None) -> Verification:
    """Check which files are original, which are protected, and which are neither; nothing is written.

    Without a key, each file's SHA-256 is compared with the manifest. With the key and the sidecar, the
    mark is also made again from the journalled originals, so that the manifest need not be trusted. After
    `drop_undo`, only the manifest is left to compare with.

    Parameters
    ----------
    folder : path
        What was protected in place, or the copy: a folder, or one audio file.
    key : Key, optional
        The key it was protected with.
    sidecar : path, optional
        As given to `protect_folder`.

    Returns
    -------
    Verification
        Of files, named by their paths below the folder.

    Raises
    ------
    DatasetError
        `folder` does not exist; there is neither a manifest nor a sidecar with its key; or the manifest is damaged or
        of another key.
    SidecarError
        The sidecar is damaged or of another key.
    BusyError
        Another run is at work on the files.
    """
    paths = Paths.of(Path(folder), None, sidecar)
    names, _ = paths.find(may_be_empty=True)
    with Workers(usable_cores()) as workers:
        verdicts, state = _verdicts(paths, key, workers, by_sidecar=sidecar is not None)
    unlisted = [name for name in names if name not in verdicts]
    return Verification.of(sorted(verdicts.items()), state, unlisted)


def _verdicts(
    paths: Paths, key: Key | None, workers: Workers, *, by_sidecar: bool
) -> tuple[dict[str, set[Verdict]], str]:
    """What the sidecar and the manifest say of each file, and the state of the run."""
    verdicts: dict[str, set[Verdict]] = {}
    digests: dict[str, str | None] = {}
    state = "unknown"
    if key is not None:
        check_key(key)
        if by_sidecar or os.path.lexists(paths.sidecar):
            with Journal(paths.sidecar, key) as journal:
                state = journal.state.value
                if journal.state is not State.FINAL or not paths.manifest.is_file():
                    target = recorded(journal, paths.root, workers, None)
                    for name, verdict, found in target.verdicts():
                        verdicts.setdefault(name, set()).add(verdict)
                        digests[name] = found
    elif not paths.manifest.is_file():
        raise DatasetError(f"There is no manifest {paths.manifest}; give the key, to verify against the sidecar.")
    if paths.manifest.is_file():
        manifest = Manifest.read(paths.manifest)
        if key is not None and manifest.fingerprint != key.fingerprint:
            raise DatasetError(
                f"The manifest {paths.manifest} is of the key {manifest.fingerprint}, not {key.fingerprint}."
            )
        names = [name for name in manifest.files if digests.get(name) is None]
        digests.update(zip(names, workers.map(lambda name: digest(paths.root / name), names), strict=True))
        for name, entry in manifest.files.items():
            verdicts.setdefault(name, set()).add(compare(digests[name], entry))
    elif not verdicts:
        raise DatasetError(f"There is neither a manifest {paths.manifest} nor a sidecar {paths.sidecar}.")
    return verdicts, state


def _listed(
    paths: Paths, labels_from: str | Mapping[str, str | int], lossy: str
) -> tuple[list[AudioFile], list[str], list[str | int]]:
    """The audio files, the names of other files, and the labels; DatasetError if a file cannot be used."""
    names, others = paths.find()
    found = paths.rename(listing.read_layouts(paths.source, names))
    if lossy == "refuse" or not paths.copying:
        _refuse_lossy(found, copying=paths.copying)
    listing.refuse(listing.collisions([file.output_name for file in found]), "The copy would have colliding names")
    return found, others, label_sources.find_labels(paths.source, names, labels_from, whole=paths.only is None)


def _preflight(journal: Journal, paths: Paths, found: list[AudioFile]) -> None:
    """Refuse what must be refused before the first byte is written."""
    others = [sidecar for sidecar in paths.sidecars_around() if sidecar != journal.path]
    refuse_protected(paths.data, others, journal.key)
    if journal.state is State.NEW:
        paths.refuse_taken()
        paths.refuse_protected()
    elif paths.copying:
        raise SidecarError(
            f"{paths.root} holds a copy that was restored ({journal.path}); copy to another path, or protect it "
            f"in place."
        )
    if not paths.copying:
        listing.refuse_unsafe(paths.root, [file.name for file in found])


def _refuse_without_room(paths: Paths, found: list[AudioFile], plan: Plan) -> None:
    """OSError unless the disks have room for the sidecar and the copy."""
    kept = sum(bytes_kept(file, plan) for file in found)
    disk.refuse_without_room(paths.sidecar, kept)
    if paths.copying:
        disk.refuse_without_room(paths.root, kept + sum(file.size for file in found))


def _refuse_other_sources(paths: Paths, found: list[AudioFile], workers: Workers) -> None:
    """SidecarError if a finished copy was made of files with other content, by its manifest."""
    if not (paths.copying and paths.manifest.is_file()):
        return
    entries = Manifest.read(paths.manifest).files
    listed = [file for file in found if not file.lossy and file.output_name in entries]
    digests = workers.map(lambda file: digest(paths.source / file.name), listed)
    other = [
        file.name
        for file, now in zip(listed, digests, strict=True)
        if now != entries[file.output_name]["sha256_before"]
    ]
    if other:
        shown = "".join(f"\n  {name}" for name in other[: steps.NAMES_SHOWN])
        raise SidecarError(
            f"{paths.root} is a finished copy, and {len(other)} of the files are not those that it was made of. Copy "
            f"to another path; nothing was written:{shown}"
        )


def _refuse_keys(paths: Paths, others: list[str]) -> None:
    """DatasetError if a key lies among the files: it would be published with them."""
    listing.refuse(
        [f"{name} holds a key; move it out of the folder" for name in others if holds_key(paths.source / name)],
        f"Anyone who gets {paths.root} would get a key with it",
    )


def _refuse_lossy(found: list[AudioFile], *, copying: bool) -> None:
    to_flac = "turn it into FLAC (--lossy-to-flac, lossy='flac'), or leave it out"
    advice = to_flac if copying else "protect a copy, which can turn it into FLAC"
    problems = [f"{file.name} is lossy, so it cannot be edited exactly; {advice}" for file in found if file.lossy]
    listing.refuse(problems, "Some files cannot be kept in their format")
