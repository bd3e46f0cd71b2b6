"""Makes the files of a copy: each source is read once, marked in memory, and written under a hidden name.

Nothing is written that is not marked, and nobody but the user can read a file before it is complete. Few system calls
for each file: most data sets have many thousands of small ones.
"""

from __future__ import annotations

import collections
import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from poscuda_fast import attributes, disk
from poscuda_fast.attributes import Attributes
from poscuda_fast.disk import Buffer
from poscuda_fast.errors import DatasetError
from poscuda_fast.files import encoded, filtering
from poscuda_fast.files.containers import Uncompressed
from poscuda_fast.files.records import WHOLE, Record
from poscuda_fast.files.table import AudioFile
from poscuda_fast.kernels import Engine, Ints
from poscuda_fast.mark import codings, packed
from poscuda_fast.mark.patches import Patches, packed_steps
from poscuda_fast.mark.plan import Plan
from poscuda_fast.mark.snr import ratio_db
from poscuda_fast.recipe import PaperRecipe
from poscuda_fast.results import Tally, Verdict
from poscuda_fast.undo.copies import Output, part_of

PIECE_BYTES = 1 << 19  # of a file that are in memory at a time
FILES_AT_ONCE = 64
PAGE_BYTES = 4096  # of which a power cut may leave none
CONVERTED = "pictures, and tags other than the usual texts, as FLAC"
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


class Source(NamedTuple):
    """A file to make an output of: an audio file and its label, or any other file, which has neither."""

    name: str
    output_name: str
    file: AudioFile | None = None
    label: str | int | None = None


class Made:
    """What was made of some sources.

    Attributes
    ----------
    outputs : list of Output
    tally : Tally
    lost : Counter
        How many files did not keep their owner, for one.
    taken : list of str
        Outputs for which another file stands there.
    left_out : dict
        Why a source could not be used, by its name.
    """

    def __init__(self) -> None:
        self.outputs: list[Output] = []
        self.tally = Tally()
        self.lost: collections.Counter[str] = collections.Counter()
        self.taken: list[str] = []
        self.left_out: dict[str, str] = {}


class Maker:
    """Makes outputs below `root` of sources below `source`; threads may share it.

    Audio file number n of `sources` is clip n of the plan. Without `root` nothing is written; with `partial`, sources
    that cannot be used are left out. `run` names the run in hidden names.

    Attributes
    ----------
    going_on : bool
        Whether an earlier call of the run may have left outputs that are not recorded.
    """

    def __init__(
        self,
        source: Path,
        root: Path | None,
        sources: Sequence[Source],
        plan: Plan,
        engine: Engine,
        run: str,
        *,
        partial: bool = False,
    ) -> None:
        self._sources, self._plan, self._marks, self._engine = sources, plan, plan.marks, engine
        self._run, self._partial, self.going_on = run, partial, False
        self._where = str(source)
        self._source = os.open(source, _FOLDER)
        try:
            self.root = -1 if root is None else os.open(root, _FOLDER)
        except BaseException:
            os.close(self._source)
            raise

    def close(self) -> None:
        """Close the folders."""
        os.close(self._source)
        if self.root >= 0:
            os.close(self.root)

    def chunks(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """Numbers of sources that are made together, in order: files of one folder, of little size."""
        chunk: list[int] = []
        n_bytes, folder = 0, ""
        for number in numbers:
            one = self._sources[number]
            size = PIECE_BYTES // FILES_AT_ONCE if one.file is None else one.file.size
            here = one.output_name.rpartition("/")[0]
            full = len(chunk) == FILES_AT_ONCE or n_bytes + size > PIECE_BYTES
            if chunk and (full or here != folder):
                yield chunk
                chunk, n_bytes = [], 0
            chunk.append(number)
            n_bytes, folder = n_bytes + size, here
        if chunk:
            yield chunk

    def make(self, numbers: Sequence[int]) -> Made:
        """Make the outputs of a chunk."""
        made = Made()
        one = self._sources[numbers[0]]
        with (
            _below(self._source, one.name.rpartition("/")[0]) as source,
            _below(self.root, one.output_name.rpartition("/")[0]) as target,
        ):
            alike: dict[tuple[str, int], list[int]] = {}
            for number in numbers:
                file = self._sources[number].file
                if file is not None and self._marks.steady and _is_short(file) and self._plan.marks_clip(number):
                    alike.setdefault((file.coding, file.layout.channels), []).append(number)
                else:
                    with self._leaving_out(number, made):
                        self._make_one(source, target, number, made)
            for (coding, channels), group in alike.items():
                self._make_together(source, target, group, coding, channels, made)
        return made

    def examine(self, number: int) -> Made:
        """Refuse, before anything is written, samples that cannot be marked; needs a maker that does not write."""
        made = Made()
        one = self._sources[number]
        with (
            self._leaving_out(number, made),
            _below(self._source, one.name.rpartition("/")[0]) as folder,
            self._opened(folder, one) as (source, _),
        ):
            if one.file is not None:
                self._make_uncompressed(source, _Sink(-1), number, one.file, made.tally)
        return made

    def judge(self, number: int, path: Path) -> Verdict:
        """The verdict on the output of an encoded file, wherever it lies: its samples count, not its bytes."""
        one = self._sources[number]
        file = self._audio(number)
        with (
            _below(self._source, one.name.rpartition("/")[0]) as folder,
            self._opened(folder, one) as (source, _),
            open(source, "rb", closefd=False) as original,
        ):
            try:
                with encoded.opened(str(path)) as now:
                    return encoded.judge(now, original, self._record(number, file), self._marks, self._engine)
            except OSError:
                return Verdict.MISSING

    @contextlib.contextmanager
    def _leaving_out(self, number: int, made: Made) -> Iterator[None]:
        """Note a source that cannot be used, if the others are to be made all the same."""
        try:
            yield
        except ValueError as error:  # DatasetError and AudioFileError among them
            self._leave_out(number, error, made)

    def _leave_out(self, number: int, error: ValueError, made: Made) -> None:
        if not self._partial:
            raise error
        made.left_out[self._sources[number].name] = str(error)

    def _make_together(
        self, source: int, target: int, numbers: Sequence[int], coding: str, channels: int, made: Made
    ) -> None:
        """Short uncompressed files of one coding under steady marks: they lie in one buffer, and are marked at once."""
        width = codings.CODINGS[coding]
        begins: list[int] = []
        end = 0
        for number in numbers:
            file = self._audio(number)
            end += -(end + _offset(file)) % width  # samples begin at a multiple of their width
            begins.append(end)
            end += file.size
        view = memoryview(bytearray(end))
        read: list[tuple[int, int, memoryview, Attributes, str]] = []
        for number, begin in zip(numbers, begins, strict=True):
            one = self._sources[number]
            file = self._audio(number)
            content = view[begin : begin + file.size]
            try:
                found = self._read(source, one, content)
            except DatasetError as error:
                self._leave_out(number, error, made)
                continue
            read.append((number, begin + _offset(file), content, found, blake3(content).hexdigest()))
        kept = np.array([number for number, *_ in read], np.int64)
        patches = self._plan.of_clips(kept)
        place = np.searchsorted(kept, patches.clips)
        firsts = np.array([first for _, first, *_ in read], np.int64)[place] // width
        signals, noises = np.zeros(len(kept)), np.zeros(len(kept))
        if len(patches):
            signals[place], noises[place] = self._mark(
                view, coding, firsts, patches, channels, firsts, patches.sizes * channels, made.tally
            )
        for (number, _, content, found, before), signal, noise in zip(
            read, signals.tolist(), noises.tolist(), strict=True
        ):
            one = self._sources[number]
            after = blake3(content).hexdigest()
            if target >= 0 and not self._store(target, number, content, found, made):
                continue
            size, snr_db = len(content), ratio_db(signal, noise)
            made.outputs.append(Output(one.output_name, one.name, one.label, size, size, before, after, snr_db))

    def _make_one(self, source: int, target: int, number: int, made: Made) -> None:
        """Any file, alone."""
        one = self._sources[number]
        with self._opened(source, one) as (descriptor, found), self._part(target, number, found, made) as sink:
            snr_db, before = None, ""
            if one.file is None or not self._plan.marks_clip(number):
                before = _copy(descriptor, sink)
            elif isinstance(one.file.layout, Uncompressed):
                before, snr_db = self._make_uncompressed(descriptor, sink, number, one.file, made.tally)
            else:
                before, snr_db = self._encode(descriptor, sink, number, one.file, made.tally)
                if one.file.lossy:
                    made.lost[CONVERTED] += 1
            size = os.fstat(descriptor).st_size
            sink.output = Output(
                one.output_name, one.name, one.label, size, sink.size, before, sink.hexdigest(), snr_db
            )

    def _make_uncompressed(
        self, source: int, sink: _Sink, number: int, file: AudioFile, tally: Tally
    ) -> tuple[str, float | None]:
        """An uncompressed file of any length, in pieces; returns its digest before, and its SNR."""
        layout = file.layout
        unit = layout.channels * codings.CODINGS[layout.coding]
        end_of_sound = _offset(file) + layout.frames * unit
        before = blake3()
        signal = noise = 0.0
        for content in _pieces_of(source, 0, _offset(file), file.name):
            before.update(content)
            sink.write(content)
        for first, last, patches in _parts(self._plan, number, max(1, PIECE_BYTES // unit)):
            begin = _offset(file) + first * unit
            sound = memoryview(bytearray((last - first) * unit))
            _read_into(source, sound, begin, file.name)
            before.update(sound)
            run = np.zeros(1, np.int64), np.array([(last - first) * layout.channels])
            if not self._marks.steady and len(patches):
                samples = codings.to_samples(sound, layout.coding)
                firsts, sizes = (patches.starts - first) * layout.channels, patches.sizes * layout.channels
                flags = self._engine.survey_patches(samples, firsts, sizes, 1)
                filtering.refuse_flagged(file.name, flags)
                packed.count_patches(tally, patches, flags)
            firsts = (patches.starts - first) * layout.channels
            s, n = self._mark(sound, layout.coding, firsts, patches, layout.channels, *run, tally)
            signal, noise = signal + float(s[0]), noise + float(n[0])
            sink.write(sound)
        for content in _pieces_of(source, end_of_sound, file.size, file.name):
            before.update(content)
            sink.write(content)
        self._count_short(tally, file)
        return before.hexdigest(), ratio_db(signal, noise)

    def _encode(self, source: int, sink: _Sink, number: int, file: AudioFile, tally: Tally) -> tuple[str, float | None]:
        """A file that is decoded, marked and encoded again; if nothing is written, only its effect is counted."""
        before = _digest(source)
        record = self._record(number, file)
        self._count_short(tally, file)
        with open(source, "rb", closefd=False) as read:
            if sink.descriptor < 0:
                done = encoded.rehearse(read, record, self._marks, self._engine)
                tally.add(done.tally)
                return before, ratio_db(done.signal, done.noise)
            with open(sink.descriptor, "w+b", closefd=False) as target:
                done = encoded.edit(read, target, record, self._marks, self._engine)
        tally.add(done.tally)
        sink.take_over()
        return before, ratio_db(done.signal, done.noise)

    def _mark(
        self,
        content: memoryview,
        coding: str,
        firsts: Ints,
        patches: Patches,
        channels: int,
        begins: Ints,
        sizes: Ints,
        tally: Tally,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mark patches in place; returns the energies of the samples, and of the edit, in some runs of samples.

        Places are counted in samples from the beginning of `content`.
        """
        steady, width = self._marks.steady, codings.CODINGS[coding]
        sound = content[: len(content) // width * width]
        samples = codings.as_samples(sound, coding, packed=steady)
        dry = codings.to_samples(sound, coding) if samples is None or coding == "PCM_24" else samples.copy()
        marked = dry.copy() if samples is None else samples
        odd = self._marks.apply(self._engine, marked, firsts, patches, packed_steps(channels))
        packed.count_odd(tally, marked.dtype, odd)
        if steady:
            tally.frames_changed += patches.n_frames
        if samples is None:
            sound[:] = codings.to_bytes(marked, coding)
        wet = codings.to_samples(sound, coding) if marked.dtype == np.uint8 else marked
        with np.errstate(invalid="ignore", over="ignore"):
            edit = np.subtract(wet, dry, dtype=np.float32)
        signals, _ = self._engine.measure_patches(dry, begins, sizes, 1)
        noises, _ = self._engine.measure_patches(edit, begins, sizes, 1)
        return signals, noises

    def _read(self, folder: int, one: Source, content: memoryview) -> Attributes:
        """Read a whole file that was listed, in as few calls as can be."""
        descriptor, status = self._open(folder, one)
        try:
            _read_into(descriptor, content, 0, one.name)
            return attributes.read(descriptor, status)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _opened(self, folder: int, one: Source) -> Iterator[tuple[int, Attributes]]:
        """A source, and its attributes; DatasetError if it is not the file that was listed, or changes meanwhile."""
        descriptor, status = self._open(folder, one)
        try:
            yield descriptor, attributes.read(descriptor, status)
            disk.refuse_exchanged(f"{self._where}/{one.name}", disk.stamp_of(status), os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def _open(self, folder: int, one: Source) -> tuple[int, os.stat_result]:
        """Open a source; DatasetError if it cannot be read, or is not the file that was listed."""
        path = f"{self._where}/{one.name}"
        try:
            descriptor = os.open(one.name.rpartition("/")[2], disk.READING, dir_fd=folder)
        except OSError as error:
            raise DatasetError(f"{path} cannot be read any more ({error.strerror}); put it back.") from None
        try:
            status = os.fstat(descriptor)
            if one.file is not None:
                disk.refuse_exchanged(path, one.file.stamp, status)
            if not stat.S_ISREG(status.st_mode):
                raise DatasetError(f"{path} is not a regular file any more; put it back.")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, status

    def _store(self, folder: int, number: int, content: memoryview, found: Attributes, made: Made) -> bool:
        """Write a whole output; whether it is there now."""
        descriptor, part = _create_part(folder, self._run, number)
        try:
            disk.write_all(descriptor, content)
            made.lost.update(attributes.give(descriptor, found))
            return self._publish(folder, number, part, made)
        except BaseException:
            _drop(folder, part)
            raise
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _part(self, folder: int, number: int, found: Attributes, made: Made) -> Iterator[_Sink]:
        """Where an output is written piece by piece; it gets its name, and is noted, when the block ends."""
        if folder < 0:
            sink = _Sink(-1)
            yield sink
        else:
            descriptor, part = _create_part(folder, self._run, number)
            try:
                sink = _Sink(descriptor)
                yield sink
                made.lost.update(attributes.give(descriptor, found))
                if not self._publish(folder, number, part, made):
                    return
            except BaseException:
                _drop(folder, part)
                raise
            finally:
                os.close(descriptor)
        if sink.output is not None:
            made.outputs.append(sink.output)

    def _publish(self, folder: int, number: int, part: str, made: Made) -> bool:
        """Give an output its name; whether it is there now."""
        one = self._sources[number]
        name = one.output_name.rpartition("/")[2]
        try:
            disk.give_name(part, name, folder)
        except FileExistsError:
            if self.going_on and _is_torn(folder, part, name):  # or whole
                os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
                return True
            os.unlink(part, dir_fd=folder)
            made.taken.append(one.output_name)
            return False
        return True

    def _record(self, number: int, file: AudioFile) -> Record:
        patches = None if self._marks.steady else self._plan.of_clip(number)
        return Record(
            name=file.name,
            row=int(self._plan.rows_of(np.array([number]))[0]),
            coding=file.coding,
            channels=file.layout.channels,
            frames=file.frames,
            offset=WHOLE,
            size=file.size,
            begin=0,
            end=file.size,
            starts=[] if patches is None else patches.starts.tolist(),
            sizes=[] if patches is None else patches.sizes.tolist(),
        )

    def _audio(self, number: int) -> AudioFile:
        file = self._sources[number].file
        assert file is not None  # noqa: S101 - only audio files are in groups
        return file

    def _count_short(self, tally: Tally, file: AudioFile) -> None:
        recipe = self._plan.recipe
        tally.short_clips += isinstance(recipe, PaperRecipe) and file.frames < recipe.patch


class _Sink:
    """Where an output goes: its digest is known at the end. Without a descriptor it goes nowhere."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.size = descriptor, 0
        self.output: Output | None = None
        self._whole: Any = blake3()

    def write(self, content: Buffer) -> None:
        self.size += len(content)
        self._whole.update(content)
        if self.descriptor >= 0:
            disk.write_all(self.descriptor, content)

    def take_over(self) -> None:
        """Read what an encoder wrote to the descriptor."""
        self.size, self._whole = os.fstat(self.descriptor).st_size, blake3()
        for piece in _pieces_of(self.descriptor, 0, self.size, "what was encoded"):
            self._whole.update(piece)

    def hexdigest(self) -> str:
        return str(self._whole.hexdigest())


@contextlib.contextmanager
def _below(root: int, name: str) -> Iterator[int]:
    """A folder below an open one; no link is followed, at any depth."""
    if root < 0 or not name:
        yield root
        return
    folder = os.dup(root)
    try:
        for part in name.split("/"):
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def _create_part(folder: int, run: str, number: int) -> tuple[int, str]:
    """A new file, which only the user can read, and its hidden name."""
    part = part_of(run, number)
    try:
        return os.open(part, disk.CREATING, 0o600, dir_fd=folder), part
    except FileExistsError:  # of a killed call
        os.unlink(part, dir_fd=folder)
        return os.open(part, disk.CREATING, 0o600, dir_fd=folder), part


def _drop(folder: int, part: str) -> None:
    with contextlib.suppress(OSError):  # it has its name already, or the error is told that led here
        os.unlink(part, dir_fd=folder)


def _is_torn(folder: int, part: str, name: str) -> bool:
    """Whether a file is what a power cut leaves of a part: each of its pages is the part's, or zeros, or missing."""
    try:
        there = os.open(name, disk.READING, dir_fd=folder)
    except OSError:
        return False
    wanted = os.open(part, disk.READING, dir_fd=folder)
    try:
        status = os.fstat(there)
        if not stat.S_ISREG(status.st_mode) or status.st_size > os.fstat(wanted).st_size:
            return False
        for begin in range(0, status.st_size, PIECE_BYTES):
            found, expected = (os.pread(one, PIECE_BYTES, begin) for one in (there, wanted))
            if found == expected:
                continue
            for first in range(0, len(found), PAGE_BYTES):
                page = found[first : first + PAGE_BYTES]
                if any(page) and page != expected[first : first + len(page)]:
                    return False
        return True
    finally:
        os.close(there)
        os.close(wanted)


def _parts(plan: Plan, number: int, most: int) -> Iterator[tuple[int, int, Patches]]:
    """A clip as (first frame, end, the patches between them), in order; about `most` frames each."""
    frames, position = int(plan.lengths[number]), 0
    nothing = np.empty(0, np.int64)
    groups = plan.parts_of(number)
    if plan.marks.steady:
        row = plan.rows_of(np.array([number]))
        for first in range(0, frames, most):
            size = min(most, frames - first)
            yield first, first + size, Patches(np.array([number]), np.array([first]), np.array([size]), row)
        return
    for group in groups:
        begin = 0
        while begin < len(group):
            while int(group.starts[begin]) - position >= most:
                yield position, position + most, Patches(nothing, nothing, nothing, nothing)
                position += most
            end = max(begin + 1, int(np.searchsorted(group.starts, position + most)))
            last = int(group.starts[end - 1] + group.sizes[end - 1])
            yield position, last, group.some(slice(begin, end))
            begin, position = end, last
    while position < frames:
        yield position, min(position + most, frames), Patches(nothing, nothing, nothing, nothing)
        position = min(position + most, frames)


def _copy(source: int, sink: _Sink) -> str:
    """Copy a file that is not marked; returns its digest."""
    os.lseek(source, 0, os.SEEK_SET)
    while piece := os.read(source, PIECE_BYTES):
        sink.write(piece)
    return sink.hexdigest()


def _digest(descriptor: int) -> str:
    whole = blake3()
    os.lseek(descriptor, 0, os.SEEK_SET)
    while piece := os.read(descriptor, PIECE_BYTES):
        whole.update(piece)
    return str(whole.hexdigest())


def _pieces_of(descriptor: int, begin: int, end: int, name: str) -> Iterator[bytearray]:
    """Some bytes of a file, piece by piece."""
    for first in range(begin, end, PIECE_BYTES):
        content = bytearray(min(PIECE_BYTES, end - first))
        _read_into(descriptor, memoryview(content), first, name)
        yield content


def _read_into(descriptor: int, content: memoryview, position: int, name: str) -> None:
    """Fill a buffer with a file's bytes from `position` on."""
    done = 0
    while done < len(content):
        n = os.preadv(descriptor, [content[done:]], position + done)
        if n == 0:
            raise DatasetError(f"{name} ends {len(content) - done} bytes early: it was cut meanwhile. Put it back.")
        done += n


def _offset(file: AudioFile) -> int:
    return file.layout.offset if isinstance(file.layout, Uncompressed) else WHOLE


def _is_short(file: AudioFile) -> bool:
    return isinstance(file.layout, Uncompressed) and file.size <= PIECE_BYTES
