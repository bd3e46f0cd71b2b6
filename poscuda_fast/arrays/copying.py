"""Protecting a copy of a stored array: the source is never written to, and is the undo.

The copy is marked before anything is written, and appears at its path once it is complete. Its manifest and its sealed
sidecar lie beside it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from poscuda_fast import attributes, disk
from poscuda_fast.arrays import mapped
from poscuda_fast.arrays import zarr as sharded
from poscuda_fast.arrays.layouts import ArrayClips, Clips, flatten
from poscuda_fast.arrays.opening import path_of
from poscuda_fast.arrays.zarr import METADATA, ZarrArray
from poscuda_fast.disk import PathLike, Workers
from poscuda_fast.errors import DatasetError, SidecarError, stopping
from poscuda_fast.kernels import Engine, Flags, usable_cores
from poscuda_fast.key import Key
from poscuda_fast.mark import packed
from poscuda_fast.mark.judging import judged, look
from poscuda_fast.mark.labels import ClassRows, label_of
from poscuda_fast.mark.marks import Marks
from poscuda_fast.mark.patches import Patches, Steps
from poscuda_fast.mark.plan import CLIPS_PER_STEP, Plan, make_plan, plan_of
from poscuda_fast.mark.shares import of_rows
from poscuda_fast.recipe import Recipe
from poscuda_fast.results import Progress, Report, Tally, Verdict, Verification
from poscuda_fast.undo import copies, manifest, record
from poscuda_fast.undo.copies import ARRAY, Output
from poscuda_fast.undo.journal import ZARR_METADATA, Journal, State, manifest_of, sidecar_of

BLOCK_BYTES = 4 << 20  # of a file that are in memory at a time


def copy_array(
    arr: Any,
    labels: Any,
    key: Key,
    dst: PathLike,
    *,
    recipe: Recipe,
    snr: float | None = None,
    sample_rate: int | None = None,
    lengths: Any = None,
    classes: Sequence[str] | None = None,
    backend: str = "auto",
    threads: int | None = None,
    sidecar: PathLike | None = None,
    progress: Progress | None = None,
    dry_run: bool = False,
    share: int | None = None,
) -> Report:
    """Protect a copy of a stored array at `dst`, or begin again with one that was stopped.

    The arguments are those of `protect_array`; `key`, `recipe` and `classes` are checked, and `share` is in millionths.

    Returns
    -------
    Report
        With state "protected", "already protected" or "untouched" (dry run).

    Raises
    ------
    TypeError, ValueError, DatasetError, AudioFileError, SidecarError, BusyError, OSError
        As for `protect_array`. `errors.has_stopped` tells those that stopped a run which had begun: the same call
        makes the copy again. All others were raised before anything was written.
    """
    begun = time.perf_counter()
    source = _open(arr, lengths, threads)
    target, engine = Path(os.path.realpath(dst)), Engine(backend, threads)
    beside = _sidecar(source.path, target, sidecar)
    with contextlib.closing(source), disk.locked(source.path, shared=True), Journal(beside, key) as journal:
        copies.refuse_other(journal, ARRAY, target)
        tags = of_rows(key, share, len(source.clips.lengths))
        plan = make_plan(key, recipe, labels, classes, source.clips.lengths, sample_rate, tags)
        around = [sidecar_of(path) for path in (source.path, *source.path.parents) if path.name]
        record.refuse_protected(source.path, around, key)
        notes: tuple[str, ...] = tuple(journal.header.get("notes", ()))
        if journal.state is State.NEW:
            _refuse_taken(target)
            plan, notes = judged(plan, key, snr, functools.partial(look, source.clips, engine=engine))
        else:
            copies.refuse_other_recipe(journal, recipe, snr, share)
            plan = plan.with_recipe(key, copies.recipe_of(journal))
        making = _Making(source, target, plan, engine, progress)
        is_done = False
        if journal.state is not State.NEW:
            is_done = making.refuse_other(journal) and journal.state is State.COMPLETE
        tally = Tally(**journal.summary["counts"]) if is_done else Tally(**plan.counts())
        if not is_done:
            copies.refuse_place(target, beside, is_folder=False)
            disk.refuse_without_room(target, source.n_bytes)
            making.refuse_non_finite()
        if dry_run and not is_done:
            making.make(None, tally)
        elif not is_done:
            header = copies.describe(ARRAY, source.path, key, plan, snr, notes, **source.description())
            journal.refuse_read_only()
            with stopping():
                tally = making.run(journal, header)
        state = "already protected" if is_done else "untouched" if dry_run else "protected"
        lost = [f"the copy did not keep the {what} of {source.path.name}" for what in sorted(making.lost)]
        said = () if state == "untouched" else (copies.note_of(source.path, target),)
        return tally.report(state, plan.settings(), time.perf_counter() - begun, (*notes, *lost, *said))


class Made(NamedTuple):
    """Digests of an array before it was marked and after, in hex."""

    before: str
    after: str


class _Audio(Clips, Protocol):
    """The clips of a stored array."""

    def clip(self, number: int) -> NDArray[Any]:
        """One clip with its padding."""


class _Stored(Protocol):
    """A stored array that can be copied."""

    path: Path
    clips: _Audio
    n_bytes: int  # of its file, or of its samples

    def description(self) -> dict[str, Any]:
        """What tells it from other arrays in the header of a run."""

    def make(self, part: Path | None, mark: Callable[[_Block], None]) -> tuple[Made, set[str]]:
        """Write a copy of it, or nothing, each block marked before; returns what could not be kept too."""

    def close(self) -> None:
        """End background work."""


class _Block(NamedTuple):
    """Some samples, (clips, frames) or (clips, frames, channels), and what is the first of each in the array."""

    samples: NDArray[Any]
    clip: int
    frame: int
    channel: int


class _Making:
    """Makes the copy of an array."""

    def __init__(self, source: _Stored, target: Path, plan: Plan, engine: Engine, progress: Progress | None) -> None:
        self._source, self._target, self._plan, self._engine = source, target, plan, engine
        self._progress, self._n_done = progress, 0
        self._n_samples = math.prod(source.description()["shape"])
        self.lost: set[str] = set()
        self._process = os.getpid()

    def refuse_other(self, journal: Journal) -> bool:
        """Whether the copy that a sidecar records is there.

        SidecarError or DatasetError if it is of another array, or with other labels; or if something else is there.
        """
        header, recorded = journal.header, copies.read(journal).array
        if {name: header[name] for name in self._source.description()} != self._source.description():
            raise SidecarError(
                f"The copy that {journal.path} records is of an array of shape {tuple(header['shape'])}, dtype "
                f"{header['dtype']} and another place or other strides in its file. Open the array as it was then, or "
                f"choose another path for the copy. Nothing was written."
            )
        if header["labels"] != record.keyed_mac(journal.key, b"labels", self._plan.digest()):
            raise SidecarError(
                f"The copy that {journal.path} records was made with other labels, lengths or another sample rate. "
                f"Give the same, or choose another path for the copy. Nothing was written."
            )
        if recorded is None or not os.path.lexists(self._target):
            if os.path.lexists(self._target):
                _refuse_taken(self._target)
            return False
        if _digest_of(self._source.path) != recorded.blake3_before:
            raise SidecarError(
                f"{self._target} is a copy of an array with other samples ({journal.path}): {self._source.path} was "
                f"changed since. Put it back, or copy to another path. Nothing was written."
            )
        if _digest_of(self._target) != recorded.blake3_after:
            raise SidecarError(
                f"{self._target} is not as {journal.path} recorded it: it was changed since. Move it away to have it "
                f"made again, or put it back. Nothing was written."
            )
        return True

    def refuse_non_finite(self) -> None:
        """ValueError if format 1 would meet a sample that is not finite."""
        clips, plan = self._source.clips, self._plan
        if not plan.marks.steady and clips.dtype.kind == "f":
            for patches in plan.batches(clips.channels * clips.dtype.itemsize):
                packed.refuse_non_finite(clips.survey(patches, self._engine), patches)

    def run(self, journal: Journal, header: dict[str, Any]) -> Tally:
        """Make the copy, unless it is recorded and there, and record it; returns the counts."""
        if journal.state is State.NEW:
            journal.begin(header)
        elif journal.state is State.COMPLETE:
            copies.go_on(journal, header)
        folder, run = self._target.parent, journal.header["run"]
        copies.tidy(folder, run)
        recorded, tally = copies.read(journal).array, copies.read(journal).tally
        if recorded is None or not os.path.lexists(self._target):
            first, tally = recorded is None, Tally(**self._plan.counts())
            part = folder / copies.part_of(run, 0)
            opened = os.open(folder, os.O_RDONLY)
            with contextlib.ExitStack() as closing:
                closing.callback(os.close, opened)
                systems = closing.enter_context(contextlib.closing(disk.Systems()))
                systems.meet(opened)
                made, n_bytes = self.make(part, tally), self._source.n_bytes
                systems.sync(folder, [part.name])
                recorded = Output(self._target.name, self._source.path.name, None, n_bytes, n_bytes, *made, None)
                lengths = self._plan.lengths
                is_full = bool((lengths == header["shape"][1]).all())
                copies.append_clips(journal, self._plan.rows_of_all(), None if is_full else lengths)
                copies.append(journal, [recorded], tally if first else Tally())
                disk.give_name(part.name, self._target.name, opened)
                systems.sync(folder, [self._target.name])
        path = self._source.path
        files = [path / ZARR_METADATA] if path.is_dir() else []
        readers = attributes.readers_of(os.stat(path), (os.stat(file).st_mode for file in files))
        recipe, fingerprint = self._plan.recipe, journal.key.fingerprint
        entry = {**recorded._asdict(), "name": self._target.name}
        manifest.write(manifest_of(self._target), fingerprint, recipe, [(entry.pop("name"), entry)], readers)
        journal.move(State.COMPLETE, {"counts": tally.to_dict()})
        return tally

    def make(self, part: Path | None, tally: Tally) -> Made:
        """Write the copy under a hidden name, or nothing; returns its digests."""
        made, self.lost = self._source.make(part, lambda block: self._mark(block, tally))
        return made

    def _mark(self, block: _Block, tally: Tally) -> None:
        """Mark what lies in a block."""
        n_clips, n_frames = block.samples.shape[:2]
        for first in range(0, n_clips, CLIPS_PER_STEP):
            clips = np.arange(first, min(first + CLIPS_PER_STEP, n_clips)) + block.clip
            if self._plan.marks.steady:
                sizes = np.clip(self._plan.lengths[clips] - block.frame, 0, n_frames)
                clips, sizes = clips[sizes > 0], sizes[sizes > 0]
                starts = np.full(len(clips), block.frame, np.int64)
                self._apply(block, Patches(clips, starts, sizes, self._plan.rows_of(clips)), tally)
                continue
            patches = self._plan.of_clips(clips)
            ends = patches.starts + patches.sizes
            begins_here = (patches.starts >= block.frame) & (patches.starts < block.frame + n_frames)
            whole = begins_here & (ends <= block.frame + n_frames)
            self._apply(block, patches.some(whole), tally)
            cut = ~whole & (patches.starts < block.frame + n_frames) & (ends > block.frame)
            for number in np.flatnonzero(cut).tolist():
                one = patches.some(slice(number, number + 1))
                self._apply_cut(block, one, tally, begins_here=bool(begins_here[number]))
        self._n_done += block.samples.size
        if self._progress is not None:
            channels = self._source.clips.channels
            self._progress(self._n_done // channels, self._n_samples // channels)
            disk.refuse_fork(self._process)

    def _apply(self, block: _Block, patches: Patches, tally: Tally) -> None:
        """Mark patches that lie in a block, with all of their frames."""
        if not len(patches):
            return
        clips, marks = self._source.clips, self._plan.marks
        flags = None if marks.steady else np.empty(len(patches), np.uint8)
        packed.count_odd(tally, clips.dtype, _mark_there(block, patches, marks, self._engine, flags))
        if flags is not None and block.samples[0, 0].size < clips.channels:
            flags = clips.survey(patches, self._engine)
        if block.channel == 0:
            packed.count_marked(tally, patches, flags)

    def _apply_cut(self, block: _Block, patch: Patches, tally: Tally, *, begins_here: bool) -> None:
        """Mark the part of a patch that lies in a block: a filter needs all of the patch."""
        clips = self._source.clips
        dense = clips.read(patch)
        flags = clips.survey(patch, self._engine)
        odd = packed.mark_dense(dense, patch, clips.channels, self._plan.marks, self._engine)
        start, size, clip = int(patch.starts[0]), int(patch.sizes[0]), int(patch.clips[0]) - block.clip
        first, end = max(start, block.frame), min(start + size, block.frame + block.samples.shape[1])
        wet = dense.reshape(size, clips.channels)[first - start : end - start]
        here = block.samples[clip, first - block.frame : end - block.frame]
        here[...] = wet[:, block.channel : block.channel + here.shape[1]] if here.ndim == 2 else wet[:, 0]
        if begins_here and block.channel == 0:
            packed.count_odd(tally, dense.dtype, odd)
            packed.count_patches(tally, patch, flags)


class FileArray:
    """An array that is mapped from a file, raw or .npy, whose bytes are copied in order; see `_Stored`."""

    def __init__(self, array: NDArray[Any], path: Path, lengths: Any) -> None:
        self.path = Path(os.path.realpath(path))
        self.clips: _Audio = ArrayClips(array, lengths, writing=False, name="arr")
        self._array = array
        self.n_bytes = os.stat(self.path).st_size
        self._offset = _offset_of(array)

    def description(self) -> dict[str, Any]:
        array = self._array
        place = [self._offset, *array.strides]
        return {"dtype": array.dtype.str, "shape": list(array.shape), "place": place}

    def make(self, part: Path | None, mark: Callable[[_Block], None]) -> tuple[Made, set[str]]:
        lost: set[str] = set()
        with contextlib.ExitStack() as closing:
            source = os.open(self.path, disk.READING)
            closing.callback(os.close, source)
            status = os.fstat(source)
            target = -1
            if part is not None:
                target = os.open(part, disk.CREATING, 0o600)
                closing.callback(os.close, target)
            before, after = blake3(), blake3()
            position = 0

            def put(content: bytearray) -> None:
                after.update(content)
                if target >= 0:
                    disk.write_all(target, content)

            def pass_on(begin: int, end: int) -> None:
                for first in range(begin, end, BLOCK_BYTES):
                    content = _read(source, first, min(first + BLOCK_BYTES, end))
                    before.update(content)
                    put(content)

            for block, begin, end in self._blocks(_Block(self._array, 0, 0, 0)):
                pass_on(position, begin)
                content = _read(source, begin, end)
                before.update(content)
                mark(block._replace(samples=self._there(block.samples, content, begin)))
                put(content)
                position = end
            pass_on(position, status.st_size)
            disk.refuse_exchanged(str(self.path), disk.stamp_of(status), os.fstat(source))
            if target >= 0:
                lost = attributes.give(target, attributes.read(source, status))
        return Made(before.hexdigest(), after.hexdigest()), lost

    def close(self) -> None:
        """Nothing to end."""

    def _there(self, samples: NDArray[Any], content: bytearray, begin: int) -> NDArray[Any]:
        """The samples of a block in the bytes that were read from the file."""
        offset = self._offset + _address(samples) - _address(self._array) - begin
        return np.ndarray(samples.shape, samples.dtype, content, offset, samples.strides)

    def _blocks(self, block: _Block) -> Iterator[tuple[_Block, int, int]]:
        """The array in blocks, in the order of the file, each with its first byte there and the end of the last."""
        samples = block.samples
        if not samples.size:
            return
        low, high = np.lib.array_utils.byte_bounds(samples)
        begin = self._offset + low - _address(self._array)
        if high - low <= BLOCK_BYTES or samples.size == 1:
            yield block, begin, begin + high - low
            return
        long = [abs(stride) if n > 1 else -1 for n, stride in zip(samples.shape, samples.strides, strict=True)]
        axis = int(np.argmax(long))  # blocks along it lie one behind the other
        step = max(1, BLOCK_BYTES // long[axis])
        firsts = range(0, samples.shape[axis], step)
        for first in firsts if samples.strides[axis] > 0 else reversed(firsts):
            chosen = tuple(slice(first, first + step) if n == axis else slice(None) for n in range(samples.ndim))
            at = [block.clip, block.frame, block.channel]
            at[axis] += first
            yield from self._blocks(_Block(samples[chosen], *at))


class ZarrFolder:
    """A Zarr array in its folder, which is copied shard by shard; see `_Stored`.

    Its digests are of its decoded samples, clip by clip: shards may be written again elsewhere with other bytes.
    """

    def __init__(self, path: Path, lengths: Any, threads: int | None) -> None:
        self._zarr = ZarrArray(path, None, lengths=lengths, threads=threads)
        self.clips: _Audio = self._zarr
        self.path = self._zarr.path
        self._array = sharded.open_exact(self.path)
        self.n_bytes = int(np.prod(self._array.shape)) * self._array.dtype.itemsize
        self._threads = threads or usable_cores()

    def description(self) -> dict[str, Any]:
        return {"dtype": self._array.dtype.str, "shape": list(self._array.shape), "place": ["zarr"]}

    def make(self, part: Path | None, mark: Callable[[_Block], None]) -> tuple[Made, set[str]]:
        before, after = blake3(), blake3()
        copying = None if part is None else _ZarrPart(self.path, part)
        step = sharded.shards(self._array)[0]
        with Workers(self._threads) as workers:
            for row, first in enumerate(range(0, self._array.shape[0], step)):
                samples = np.ascontiguousarray(self._array[first : first + step])
                before.update(_bytes_of(samples))
                mark(_Block(samples, first, 0, 0))
                after.update(_bytes_of(samples))
                if copying is not None:
                    regions = sharded.regions(self._array, row)
                    tasks = [(region, samples[(slice(None), *region[1:])]) for region in regions]
                    for _ in workers.map(copying.write, tasks):
                        pass
        lost = set() if copying is None else copying.lost
        return Made(before.hexdigest(), after.hexdigest()), lost

    def close(self) -> None:
        self._zarr.close()


class _ZarrPart:
    """The folder of a copy while it is written: its metadata and shards, with the attributes of the source's."""

    def __init__(self, source: Path, part: Path) -> None:
        self._source, self._part = source, part
        self.lost: set[str] = set()
        self._folders: set[str] = set()
        self._making = threading.Lock()  # of folders
        self._folder("")
        self._file(METADATA, (source / METADATA).read_bytes())

    def write(self, task: tuple[tuple[slice, ...], NDArray[Any]]) -> None:
        """Write a shard; none if it has only the fill value."""
        name, content = sharded.encode(self._source, *task)
        if content is None:
            return
        above = name.split("/")[:-1]
        for n in range(len(above)):
            self._folder("/".join(above[: n + 1]))
        self._file(name, content)

    def _folder(self, name: str) -> None:
        with self._making:
            if name not in self._folders:
                os.mkdir(self._part / name, 0o700)
                self._give(name, os.open(self._part / name, os.O_RDONLY))
                self._folders.add(name)

    def _file(self, name: str, content: bytes) -> None:
        descriptor = os.open(self._part / name, disk.CREATING, 0o600)
        try:
            disk.write_all(descriptor, content)
        except BaseException:
            os.close(descriptor)
            raise
        self._give(name, descriptor)

    def _give(self, name: str, target: int) -> None:
        """Give attributes, those of the metadata or the folder where the source has no such shard; closes `target`."""
        try:
            is_there = os.path.lexists(self._source / name)
            like = name if is_there else METADATA if (self._part / name).is_file() else ""
            source = os.open(self._source / like, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            try:
                self.lost |= attributes.give(target, attributes.read(source))
            finally:
                os.close(source)
        finally:
            os.close(target)


def verify_copy(dst: PathLike, journal: Journal | None, *, source: Any = None) -> Verification:
    """Compare the copy of an array with what its sidecar or, without one, its manifest says of it.

    Parameters
    ----------
    dst : path
        The copy.
    journal : Journal or None
        Its sidecar, open; None if only the manifest is to be used.
    source : path, optional
        What the copy was made of: it is then marked again, and the clips that are neither are named.

    Raises
    ------
    DatasetError
        There is no manifest, or it is damaged; or `source` is not the array that the copy was made of.
    """
    target = Path(os.path.realpath(dst))
    if journal is None:
        path = manifest_of(target)
        if not path.is_file():
            raise DatasetError(f"There is no manifest {path}; give the key, to verify with the sidecar.")
        entry = manifest.Manifest.read(path, target.name).files.get(target.name, {})
        if not entry:
            raise DatasetError(f"The manifest {path} says nothing of {target.name}; restore it from a backup.")
        return Verification.of([(target.name, manifest.compare(_digest_of(target), entry))], "unknown")
    recorded = copies.read(journal).array
    if recorded is None:
        return Verification(0, 0, 0, (), (target.name,), (), journal.state.value)
    verdict = recorded.verdict(_digest_of(target))
    n, untagged = int(journal.header["clips"]), journal.header["counts"].get("untagged", 0)
    if source is not None and verdict is not Verdict.MISSING:
        return _compare_clips(target, journal, source, recorded, verdict)
    return Verification(
        original=n * (verdict is Verdict.ORIGINAL),
        protected=(n - untagged) * (verdict is Verdict.PROTECTED),
        unchanged=untagged * (verdict is Verdict.PROTECTED) + n * (verdict is Verdict.UNCHANGED),
        neither=(target.name,) if verdict is Verdict.NEITHER else (),
        missing=(target.name,) if verdict is Verdict.MISSING else (),
        unprotected=(),
        state=journal.state.value,
    )


def _compare_clips(target: Path, journal: Journal, source: Any, recorded: Output, verdict: Verdict) -> Verification:
    """Mark the source of a copy again, and compare clip by clip."""
    original, now, plan = _both(target, journal, source, recorded)
    engine, channels = Engine(threads=1), original.clips.channels
    found = np.full(len(plan.lengths), Verdict.UNCHANGED, np.uint8)
    bits = np.dtype(f"u{original.clips.dtype.itemsize}")
    with contextlib.closing(original), contextlib.closing(now):
        for patches in plan.batches(channels * original.clips.dtype.itemsize):
            dry, there = original.clips.read(patches), now.clips.read(patches).view(bits)
            wet = dry.copy()
            packed.mark_dense(wet, patches, channels, plan.marks, engine)
            places = packed.offsets(patches, channels)
            is_dry = np.logical_and.reduceat(there == dry.view(bits), places)
            is_wet = np.logical_and.reduceat(there == wet.view(bits), places)
            seen = (Verdict.ORIGINAL * is_dry + Verdict.PROTECTED * is_wet).astype(np.uint8)
            np.bitwise_and.at(found, patches.clips, seen)
    counts = np.bincount(found, minlength=4).tolist()
    odd = tuple(map(str, np.flatnonzero(found == Verdict.NEITHER).tolist()))
    if not odd and verdict is Verdict.NEITHER:
        odd = (f"{target.name} outside its clips",)
    return Verification(
        counts[Verdict.ORIGINAL],
        counts[Verdict.PROTECTED],
        counts[Verdict.UNCHANGED],
        odd,
        (),
        (),
        journal.state.value,
    )


def pairs(
    dst: PathLike, journal: Journal, *, source: Any = None
) -> Iterator[tuple[int, str | int, NDArray[Any], NDArray[Any]]]:
    """Every clip of a copy that is not empty, with its original: (number, label, original, now), one at a time.

    `source` is where the source lies now, if it was moved.

    Raises
    ------
    DatasetError
        The source, or the copy, is missing or not the recorded one.
    """
    target = Path(os.path.realpath(dst))
    recorded = copies.read(journal).array
    if recorded is None or recorded.verdict(_digest_of(target)) not in (Verdict.PROTECTED, Verdict.UNCHANGED):
        raise DatasetError(f"{target} is not as {journal.path} recorded it; put it back, or make the copy again.")
    original, now, plan = _both(target, journal, source, recorded)
    rows = plan.rows_of_all()
    with contextlib.closing(original), contextlib.closing(now):
        for number in np.flatnonzero(plan.lengths).tolist():
            label = label_of(plan.labels.tokens[rows[number]])
            yield number, label, np.array(original.clips.clip(number)), np.array(now.clips.clip(number))


class _Form(NamedTuple):
    """An array as it was, or as it is now."""

    clips: _Audio
    close: Callable[[], None]


def _both(target: Path, journal: Journal, source: Any, recorded: Output) -> tuple[_Form, _Form, Plan]:
    """The source of a copy and the copy, opened alike, and the plan; DatasetError if the source is another."""
    header = journal.header
    path = copies.source_of(journal) if source is None else Path(os.path.realpath(path_of(source)))
    if _digest_of(path) != recorded.blake3_before:
        raise DatasetError(f"{path} is not the array that the copy was made of, or was changed since; give its source.")
    rows, lengths = copies.read_clips(journal, header["shape"][1])
    tokens = tuple(map(bytes.fromhex, header["tokens"]))
    labels = ClassRows(tokens, rows, np.arange(len(tokens), dtype=np.int32))
    rate = None if header["rate_assumed"] else header["rates"][0]
    plan = plan_of(journal.key, copies.recipe_of(journal), labels, lengths, rate)
    original, now = (_form_at(one, header) for one in (path, target))
    return original, now, plan


def _form_at(path: Path, header: dict[str, Any]) -> _Form:
    """The array that a header describes, at a path."""
    if header["place"] == ["zarr"]:
        array = ZarrArray(path, None)
        return _Form(array, array.close)
    offset, *strides = header["place"]
    whole = np.memmap(path, np.uint8, "r")
    found = np.ndarray(tuple(header["shape"]), np.dtype(header["dtype"]), whole, offset, tuple(strides))
    return _Form(ArrayClips(found, None, writing=False, name=path.name), lambda: None)


def _open(arr: Any, lengths: Any, threads: int | None) -> _Stored:
    """A stored array to copy; see `open_stored`."""
    if isinstance(arr, np.ndarray):
        return FileArray(arr, mapped.file_of(arr), lengths)
    path = path_of(arr)
    if not path.exists():
        raise DatasetError(f"{path} does not exist; give a .npy file, or the folder of a Zarr array.")
    if path.is_dir():
        return ZarrFolder(path, lengths, threads)
    if not path.is_file():
        raise DatasetError(f"{path} is not a regular file; give a .npy file, or the folder of a Zarr array.")
    return FileArray(mapped.map_npy(path, writing=False), path, lengths)


def _sidecar(source: Path, target: Path, sidecar: PathLike | None) -> Path:
    """The path of the sidecar; refuses a target, or a sidecar, that would be or lie in what is read or written."""
    if not target.name:
        raise DatasetError("dst is the root of all folders; give the path of the new file or folder.")
    if disk.overlap(source, target):
        raise DatasetError(f"{target} is {source} itself, or one lies inside the other; choose another path for it.")
    if not target.parent.is_dir():
        raise DatasetError(f"The folder of {target} does not exist; make it, or choose another path for the copy.")
    if sidecar is None:
        return sidecar_of(target)
    beside = Path(os.path.realpath(Path(sidecar).absolute().parent)) / Path(sidecar).name
    copies.refuse_sidecar(beside, source, target)
    return beside


def _refuse_taken(target: Path) -> None:
    for path in (target, manifest_of(target), sidecar_of(target)):
        if os.path.lexists(path):
            raise DatasetError(f"{path} exists, and nothing is ever overwritten; choose another path for the copy.")


def _digest_of(path: Path) -> str | None:
    """The digest of an array: of its file, or of its decoded samples."""
    if not path.is_dir():
        return manifest.digest(path)
    if not (path / METADATA).is_file():
        return None
    array, whole = sharded.open_exact(path), blake3()
    step = sharded.shards(array)[0]
    for first in range(0, array.shape[0], step):
        whole.update(_bytes_of(np.ascontiguousarray(array[first : first + step])))
    return str(whole.hexdigest())


def _mark_there(block: _Block, patches: Patches, marks: Marks, engine: Engine, flags: Flags | None = None) -> int:
    """Mark patches of an array in a block of it, where they lie; returns what `Marks.apply` does."""
    flat, origin = flatten(block.samples)
    step = [stride // block.samples.itemsize for stride in block.samples.strides]
    is_plain = block.samples.ndim == 2
    steps = Steps(step[1], 1 if is_plain else step[2], 1 if is_plain else block.samples.shape[2])
    firsts = origin + (patches.clips - block.clip) * step[0] + (patches.starts - block.frame) * step[1]
    return marks.apply(engine, flat, firsts, patches, steps, flags)


def _offset_of(array: NDArray[Any]) -> int:
    """Where the first sample of a mapped array lies in its file."""
    root: Any = array
    while not (isinstance(root, np.memmap) and isinstance(root.base, mmap.mmap)):
        root = root.base
    return int(root.offset) + _address(array) - _address(root)


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _bytes_of(samples: NDArray[Any]) -> memoryview:
    return samples.reshape(-1).view(np.uint8).data


def _read(descriptor: int, begin: int, end: int) -> bytearray:
    """Some bytes of a file; DatasetError if it has become shorter."""
    content = bytearray(end - begin)
    view, done = memoryview(content), 0
    while done < len(content):
        n = os.preadv(descriptor, [view[done:]], begin + done)
        if n == 0:
            raise DatasetError(f"The file of the array ends before byte {end}: it was cut meanwhile. Put it back.")
        done += n
    return content
