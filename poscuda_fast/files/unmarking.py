"""Undoing audio files without their sidecar: in place, by a sidecar that is computed first, or as a copy."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from poscuda_fast import attributes, disk
from poscuda_fast.errors import DatasetError
from poscuda_fast.files import encoded, listing, looking
from poscuda_fast.files.batches import FileBatch, Part
from poscuda_fast.files.paths import Paths
from poscuda_fast.files.pieces import bytes_kept
from poscuda_fast.files.records import Places, Record
from poscuda_fast.files.table import FileTable, is_encoded
from poscuda_fast.files.target import FileTarget, Job, recorded
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key
from poscuda_fast.mark.judging import MOST_TRACED_TO_UNDO, notes_on_traces, refuse_other_share, refuse_unmarked
from poscuda_fast.mark.shares import words_of_names
from poscuda_fast.mark.traces import Traces
from poscuda_fast.mark.unmarking import Doubts, Unmarking, lines_of, shown
from poscuda_fast.results import Progress, Tally
from poscuda_fast.undo import record as runs
from poscuda_fast.undo import steps
from poscuda_fast.undo.journal import Journal, State, sidecar_of
from poscuda_fast.undo.manifest import Manifest, digest


class MarkedFiles(FileTarget):
    """Marked files of which a sidecar is made: originals are computed, and nothing is stored."""

    def __init__(self, paths: Paths, journal: Journal, engine: Engine, progress: Progress | None, job: Job) -> None:
        super().__init__(paths, journal, job.plan.recipe, engine, progress, job)
        self.doubts = Doubts()
        self._rehearsed: tuple[str, ...] = ()

    def header(self, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        fields = super().header(known)
        return fields if known is not None else {**fields, runs.REBUILT: list(self._rehearsed)}

    def rehearse(self, notes: tuple[str, ...] = ()) -> None:
        """Compute all originals; SidecarError if a record could not be made of them. `notes` are kept with theirs."""
        for batch in self.planned():
            self.originals(batch)
            self.looked(batch)
        self.doubts.refuse()
        self._rehearsed = (*notes, *self.doubts.notes())

    def originals(self, batch: FileBatch) -> list[bytes]:
        return self.undone(batch, super().originals(batch))

    def undone(self, batch: FileBatch, contents: Sequence[bytes]) -> list[bytes]:
        found = [bytearray(content) for content in contents]
        for group in batch.groups:
            dry, same = self.forms.undone(group.join(contents, batch.records), group.stretches, self.doubts)
            self.doubts.add_unlike(batch.records[n].name for n in group.stretches.patches.clips[~same].tolist())
            for number, patches in group.split(dry, batch.records):
                record = batch.records[number]
                Places(record).put(found[number], patches, record.begin)
        return found  # type: ignore[return-value] # nobody changes them

    def fresh(self, batch: FileBatch) -> steps.Fresh:
        found = super().fresh(batch)
        self.doubts.refuse()
        return found

    def store(self, record: Record, patches: memoryview, time: int | None = None) -> None:
        del record, patches, time  # it is what is there


def undo_in_place(
    journal: Journal, paths: Paths, job: Job, engine: Engine, progress: Progress | None
) -> tuple[str, Tally, tuple[str, ...]]:
    """Make the sidecar of marked files, and restore by it: (state, counts, notes)."""
    lines_of(job.plan.marks)
    runs.refuse_to_rebuild(journal, paths.data)
    others = [sidecar for sidecar in paths.sidecars_around() if sidecar != journal.path]
    runs.refuse_protected(paths.data, others, journal.key)
    _refuse_encoded(job.files)
    manifest = Manifest.read(paths.manifest, paths.only) if paths.manifest.is_file() else None
    with contextlib.closing(MarkedFiles(paths, journal, engine, progress, job)) as marked:
        if journal.state is State.NEW:
            traces = _traces(paths, job, journal.key, engine, all_clips=True)
            marked.rehearse(notes_on_traces(job.plan, traces))
            disk.refuse_without_room(paths.sidecar, bytes_kept(job.files, job.plan))
        if journal.state is State.NEW or runs.is_unfinished_rebuild(journal):
            steps.protect(journal, marked)
        else:
            steps.refuse_other_run(journal, marked.header(journal.header))
    with contextlib.closing(recorded(journal, paths, progress)) as target:
        state, _ = steps.restore(journal, target)
        tally = Tally(**journal.summary["counts"]) if state == "already original" else target.tally
    return state, tally, (*runs.rebuilt_notes(journal), *_confirmed(manifest, job.files, paths.root))


def undo_into(
    dst: Path, paths: Paths, job: Job, others: Sequence[str], key: Any, engine: Engine, progress: Progress | None
) -> tuple[Tally, tuple[str, ...]]:
    """Make a copy of marked files at `dst` with the marks subtracted: (counts, notes)."""
    lines_of(job.plan.marks)
    dst = _free(dst, paths)
    runs.refuse_unsettled(paths.sidecar, key)
    manifest = Manifest.read(paths.source_manifest, paths.only) if paths.source_manifest.is_file() else None
    traces = _traces(paths, job, key, engine, all_clips=False)
    disk.refuse_without_room(dst, sum(file.size for file in job.files))
    part = dst.with_name(f".{dst.name}.{os.urandom(4).hex()}{disk.PART_SUFFIX}")
    os.mkdir(part, 0o700)
    with disk.dropping(part):
        # A sidecar that does not exist: nothing is recorded of a copy.
        with (
            Journal(sidecar_of(part), key) as journal,
            contextlib.closing(MarkedFiles(paths, journal, engine, progress, job)) as marked,
        ):
            written = _write_all(marked, part)
        for name in others:
            _make_folder(paths.source, part, name)
            disk.copy_part(paths.source / name, part / name)
        notes = (*notes_on_traces(job.plan, traces), *marked.doubts.notes(), *_confirmed(manifest, job.files, part))
        _publish(part, dst, paths, [*written, *others])
    return marked.tally, notes


def _traces(paths: Paths, job: Job, key: Key, engine: Engine, *, all_clips: bool) -> Traces:
    """How much of their marks some of the files hold; SidecarError if they are not those that the plan says."""
    look = functools.partial(looking.look, paths.source, job.files, engine=engine)
    traces: Traces = look(job.plan, most_traced=MOST_TRACED_TO_UNDO).traces
    refuse_unmarked(job.plan, traces, all_clips=all_clips)
    words = words_of_names(key, job.files.names)
    refuse_other_share(job.plan, job.plan.of_all(key, job.files.frames), words, look, all_clips=all_clips)
    return traces


def _write_all(marked: MarkedFiles, part: Path) -> list[str]:
    """Write what the marked files were below a folder; their names."""
    names = []
    for batch in marked.planned():
        if batch.is_encoded:
            for one in batch.parts:
                if one.record.is_last:
                    _write_encoded(marked, one, part)
                    names.append(one.record.name)
        else:
            for record, content in zip(batch.records, marked.originals(batch), strict=True):
                marked.tally.frames_changed += sum(record.sizes)
                with _output(marked, record.name, part, again=record.begin > 0) as output:
                    output.write(content)
                if record.is_last:
                    names.append(record.name)
        marked.advance(batch)
    return names


def _write_encoded(marked: MarkedFiles, one: Part, part: Path) -> None:
    name = one.record.name
    unmarking = Unmarking(lines_of(marked.forms.marks))
    with (
        open(marked.below.open(name, disk.READING), "rb") as source,
        _output(marked, name, part) as output,
    ):
        done = encoded.edit(source, output, one.record, unmarking, marked.engine)
    marked.tally.frames_changed += done.tally.frames_changed
    marked.doubts.saturated += unmarking.saturated
    marked.doubts.rounded |= one.record.coding == "FLOAT"


@contextlib.contextmanager
def _output(marked: MarkedFiles, name: str, part: Path, *, again: bool = False) -> Iterator[BinaryIO]:
    """A file of the copy, new or continued, with the permissions of its source."""
    _make_folder(marked.below.root, part, name)
    path = part / name
    with open(os.open(path, disk.WRITING if again else disk.CREATING, 0o600), "r+b") as file:
        file.seek(0, os.SEEK_END)
        yield file
        file.flush()
        with open(marked.below.open(name, disk.READING), "rb") as source:
            attributes.give(file.fileno(), attributes.read(source.fileno()), times=False)


def _make_folder(source: Path, part: Path, name: str) -> None:
    """Make the folders that a file lies in, with the permissions of those in the source."""
    folder, _, _ = name.rpartition("/")
    missing = [inner for inner in (Path(folder), *Path(folder).parents) if not (part / inner).is_dir()]
    for inner in reversed(missing):
        (part / inner).mkdir(0o700)
        os.chmod(part / inner, stat.S_IMODE(os.stat(source / inner).st_mode) | stat.S_IRWXU)


def _publish(part: Path, dst: Path, paths: Paths, names: Sequence[str]) -> None:
    """Let a complete copy appear, durably, but not in the place of something else."""
    disk.sync_files(part, [part / name for name in names])
    for folder in sorted({(part / name).parent for name in names}):
        disk.sync_folder(folder)
    if paths.only is None:
        os.chmod(part, stat.S_IMODE(os.stat(paths.source).st_mode) | stat.S_IRWXU)
        os.rename(part, dst)  # an empty folder may be there, and nothing else
    else:
        disk.give_name(part / paths.only, dst)
        shutil.rmtree(part)
    disk.sync_folder(dst.parent)


def _free(dst: Path, paths: Paths) -> Path:
    """Where a copy can be made; DatasetError if something is there."""
    target = Path(os.path.realpath(dst))
    if paths.only is not None and target.is_dir():
        target /= paths.only
    empty = paths.only is None and target.is_dir() and not any(target.iterdir())
    if os.path.lexists(target) and not empty:
        raise DatasetError(f"{target} exists, and nothing is ever overwritten; choose another path for the copy.")
    if not target.parent.is_dir():
        raise DatasetError(f"The folder of {target} does not exist; make it, or choose another path.")
    if paths.only is None and disk.overlap(target, paths.source):
        raise DatasetError(f"One of {target} and {paths.source} lies inside the other; choose another path.")
    return target


def _refuse_encoded(files: FileTable) -> None:
    listing.refuse(
        [
            f"{file.name} was encoded again, so that its original bytes cannot be computed, only its samples; give a "
            f"new path for a copy (dst=PATH)"
            for file in files.of(is_encoded)
        ],
        "Some files cannot be undone in place without their sidecar",
    )


def _confirmed(manifest: Manifest | None, files: FileTable, root: Path) -> Iterator[str]:
    """Notes on how many files are the originals that a manifest tells, and which are not."""
    again = {file.name for file in files.of(is_encoded)}
    if manifest is not None:
        known = [name for name in files.names if name in manifest.files]
        exact = {name for name in known if digest(root / name) == manifest.files[name]["blake3_before"]}
        yield f"confirmed exact by the manifest: {len(exact):,} of {len(files):,} files"
        other = [name for name in known if name not in exact | again]
        if other:
            yield f"not the original to the byte: {len(other):,} files ({shown(other)})"
        again -= exact
    if again:
        yield f"encoded again, so that bytes may differ even where no sample does: {len(again):,} files"
