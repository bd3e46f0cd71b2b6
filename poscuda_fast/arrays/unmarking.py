"""Undoing a stored array without its sidecar: in place, by a sidecar that is computed first, or as a copy."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poscuda_fast import disk
from poscuda_fast.arrays.opening import open_again, open_stored
from poscuda_fast.arrays.target import CLIP, ArrayTarget, StoredArray, recorded
from poscuda_fast.arrays.zarr import refuse_unsafe
from poscuda_fast.errors import DatasetError
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key
from poscuda_fast.mark.judging import (
    MOST_DRAWN,
    MOST_TRACED_TO_UNDO,
    look,
    notes_on_traces,
    refuse_other_share,
    refuse_unmarked,
)
from poscuda_fast.mark.patches import Patches
from poscuda_fast.mark.plan import Plan
from poscuda_fast.mark.shares import words_of_rows
from poscuda_fast.mark.stretches import Bytes
from poscuda_fast.mark.traces import Traces
from poscuda_fast.mark.unmarking import Doubts, lines_of
from poscuda_fast.results import Progress, Tally
from poscuda_fast.undo import record, steps
from poscuda_fast.undo.journal import Journal, State


class MarkedArray(ArrayTarget):
    """A marked array of which a sidecar is made: originals are computed, and nothing is stored."""

    def __init__(self, array: StoredArray, key: Key, plan: Plan, engine: Engine, progress: Progress | None) -> None:
        super().__init__(array, key, plan.marks, engine, plan, progress)
        self.doubts = Doubts()
        self._rehearsed: tuple[str, ...] = ()

    def header(self, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        fields = super().header(known)
        return fields if known is not None else {**fields, record.REBUILT: list(self._rehearsed)}

    def rehearse(self, notes: tuple[str, ...] = ()) -> None:
        """Compute all originals; SidecarError if a record could not be made of them. `notes` are kept with theirs."""
        for patches in self.planned():
            self.originals(patches)
            self.looked(patches)
        self.doubts.refuse()
        self._rehearsed = (*notes, *self.doubts.notes())

    def originals(self, batch: Patches) -> Bytes:
        dry, same = self._forms.undone(super().originals(batch), self._stretches(batch), self.doubts)
        self.doubts.add_unlike(f"{CLIP}{clip}" for clip in batch.clips[~same].tolist())
        return dry

    def fresh(self, batch: Patches) -> steps.Fresh:
        found = super().fresh(batch)
        self.doubts.refuse()
        return found

    def _write(self, batch: Patches, dense: Bytes) -> None:
        del batch, dense  # it is what is there


def undo_in_place(
    journal: Journal, array: StoredArray, key: Key, plan: Plan, engine: Engine, progress: Progress | None
) -> tuple[str, Tally, tuple[str, ...]]:
    """Make the sidecar of a marked array, and restore by it: (state, counts, notes)."""
    lines_of(plan.marks)
    record.refuse_to_rebuild(journal, array.path)
    marked = MarkedArray(array, key, plan, engine, progress)
    if journal.state is State.NEW:
        traces = _traces(array, key, plan, engine, all_clips=True)
        marked.rehearse(notes_on_traces(plan, traces))
        marked.preflight()
    if journal.state is State.NEW or record.is_unfinished_rebuild(journal):
        steps.protect(journal, marked)
    else:
        steps.refuse_other_run(journal, marked.header(journal.header))
    target = recorded(journal, array, key, progress)
    state, _ = steps.restore(journal, target)
    tally = Tally(**journal.summary["counts"]) if state == "already original" else target.tally
    return state, tally, record.rebuilt_notes(journal)


def _traces(array: StoredArray, key: Key, plan: Plan, engine: Engine, *, all_clips: bool) -> Traces:
    """How much of their marks some of the clips hold; SidecarError if they are not those that the plan says."""
    traces = look(array, plan, engine, MOST_TRACED_TO_UNDO).traces
    refuse_unmarked(plan, traces, all_clips=all_clips)
    words = words_of_rows(key, min(len(array.lengths), MOST_DRAWN))
    looker = functools.partial(look, array, engine=engine)
    refuse_other_share(plan, plan.of_all(key, array.lengths), words, looker, all_clips=all_clips)
    return traces


def undo_into(
    dst: Path, arr: Any, array: StoredArray, key: Key, plan: Plan, engine: Engine, progress: Progress | None
) -> tuple[Tally, tuple[str, ...]]:
    """Make a copy of a marked array at `dst` with the marks subtracted: (counts, notes)."""
    lines_of(plan.marks)
    _refuse_taken(dst, array.path)
    record.refuse_unsettled(array.sidecar, key)
    traces = _traces(array, key, plan, engine, all_clips=False)
    n_bytes = sum(path.stat().st_size for path in _files(array.path))
    disk.refuse_without_room(dst, n_bytes)
    part = dst.with_name(f".{dst.name}.{os.urandom(4).hex()}{disk.PART_SUFFIX}")
    with disk.dropping(part):
        if array.path.is_dir():
            refuse_unsafe(array.path)
            part.mkdir(0o700)
            shutil.copytree(array.path, part, dirs_exist_ok=True)
        else:
            disk.copy_part(array.path, part)
        marked = MarkedArray(array, key, plan, engine, progress)
        copy = open_stored(open_again(arr, part), lengths=plan.lengths, writing=True)
        try:
            for patches in marked.planned():
                copy.write(patches, marked.originals(patches).view(array.dtype))
                marked.advance(patches)
            copy.sync()
        finally:
            copy.close()
        _sync_all(part)
        _give_name(part, dst)
    marked.tally.frames_changed = plan.n_frames
    return marked.tally, (*notes_on_traces(plan, traces), *marked.doubts.notes())


def _refuse_taken(dst: Path, source: Path) -> None:
    """DatasetError unless a copy can be made at `dst`."""
    if os.path.lexists(dst):
        raise DatasetError(f"{dst} exists, and nothing is ever overwritten; choose another path for the copy.")
    if not dst.absolute().parent.is_dir():
        raise DatasetError(f"The folder of {dst} does not exist; make it, or choose another path.")
    if disk.overlap(dst, source):
        raise DatasetError(f"{dst} lies inside {source}; choose another path for the copy.")


def _files(path: Path) -> list[Path]:
    return [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]


def _sync_all(part: Path) -> None:
    folder = part if part.is_dir() else part.parent
    disk.sync_files(folder, _files(part))


def _give_name(part: Path, dst: Path) -> None:
    """Let a complete copy appear, but not in the place of something else."""
    disk.give_name(part, dst)
    disk.sync_folder(dst.absolute().parent)
