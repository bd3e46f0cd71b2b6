"""Reads the originals of protected audio files, one at a time, from the files and their sidecar.

Nothing is written. What this returns is secret: anyone who has both forms of a file can learn the mark of its class.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.disk import PathLike, locked
from poscuda_fast.errors import DatasetError
from poscuda_fast.files import encoded, filtering, listing
from poscuda_fast.files.batches import Part
from poscuda_fast.files.clips import FileClip, mac_of_labels
from poscuda_fast.files.copied import CopiedFiles
from poscuda_fast.files.paths import Paths
from poscuda_fast.files.records import Places, Record
from poscuda_fast.files.target import FileTarget, recorded
from poscuda_fast.key import Key, check_key
from poscuda_fast.mark.forms import verdicts_of
from poscuda_fast.results import Tally, Verdict
from poscuda_fast.secrecy import discreet_steps
from poscuda_fast.undo import copies
from poscuda_fast.undo.journal import Journal
from poscuda_fast.undo.record import Run
from poscuda_fast.undo.steps import Records


class _Seen(NamedTuple):
    """A recorded piece: its original bytes, or those of its patches in an uncompressed file; and its form."""

    record: Record
    kept: bytes
    held: NDArray[np.bool_]

    def __repr__(self) -> str:
        return f"_Seen({self.record.name!r})"


class FilesRun(Run):
    """A run over audio files that were edited in place; `paths` says where they are."""

    def __init__(self, journal: Journal, paths: Paths, target: FileTarget) -> None:
        super().__init__(journal, "files")
        self.paths = paths
        self._target = target

    def labels_by_name(self) -> dict[str, str | int]:
        """The label of each file that the run has recorded."""
        records = Records(self.journal, self._target)
        return {part.record.name: part.label for one in records for part in one.batch.parts}

    @property
    def labels_mac(self) -> str:
        """What tells names and labels of the run, with its key."""
        return mac_of_labels(self.journal.key, self.labels_by_name())

    def clips(self, names: Collection[str] | None = None) -> Iterator[FileClip]:
        """Every file that the run has recorded, or only those in `names`, in order and one at a time.

        An encoded file within which a run was stopped is not among them: it is still the original.
        """
        seen: list[_Seen] = []
        label: str | int = ""
        for part, one in self._pieces(names):
            label = part.label
            seen.append(one)
            if one.record.is_last:
                yield self._clip(seen, label)
                seen = []
        if seen and not seen[0].record.is_encoded:
            yield self._clip(seen, label)

    def unprotected(self, recorded: Collection[str]) -> list[str]:
        """Audio files in the folder that are not in `recorded`, and so are not protected."""
        found, _ = self.paths.find(may_be_empty=True)
        return [name for name in found if name not in recorded]

    def _pieces(self, names: Collection[str] | None) -> Iterator[tuple[Part, _Seen]]:
        """Recorded pieces with what is known of them."""
        records = Records(self.journal, self._target)
        for one in records:
            if names is not None and not any(part.record.name in names for part in one.batch.parts):
                continue
            if one.batch.is_encoded:
                position = 0
                for part in one.batch.parts:
                    size = part.record.end - part.record.begin
                    kept = bytes(one.content[position : position + size])
                    position += size
                    if names is None or part.record.name in names:
                        yield part, _Seen(part.record, kept, np.ones(3, np.bool_))
                continue
            answer = self._target.examine_samples(one.batch, one.content, records.torn_of(one))
            for number, part in enumerate(one.batch.parts):
                if names is None or part.record.name in names:
                    yield part, _Seen(part.record, answer.dry_of(number), answer.held[:, number])

    def _clip(self, seen: list[_Seen], label: str | int) -> FileClip:
        """One file from its pieces."""
        starts = [n for one in seen for n in one.record.starts]
        sizes = [n for one in seen for n in one.record.sizes]
        record = seen[-1].record._replace(begin=0, starts=starts, sizes=sizes)
        kept = b"".join([one.kept for one in seen])
        now = self._read(record)
        marks, engine = self._target.forms.marks, self._target.engine
        verdict, original = Verdict.MISSING, None
        if record.is_encoded:
            original = kept
            tally, noise = self._effect(record, kept)
            if now is not None:
                verdict = encoded.judge(io.BytesIO(now), io.BytesIO(kept), record, marks, engine)
        else:
            done = filtering.filter_together([record], [kept], marks, engine, measuring=True)
            tally, noise = done.tally, done.noise[0]
            if now is not None:
                verdict, original = _put_back(now, seen, record, kept)
        return FileClip(record.name, label, verdict, original, now, record, tally, noise)

    def _read(self, record: Record) -> bytes | None:
        """A file's bytes; None if there is no regular file."""
        file = self._target.below.reading(record.name)
        if file is None:
            return None
        with file:
            return file.read()

    def _effect(self, record: Record, kept: bytes) -> tuple[Tally, float]:
        """What marking does to an encoded file: counts, and the energy of the edit."""
        tally, noise = Tally(), 0.0
        marks, engine = self._target.forms.marks, self._target.engine
        with encoded.Reader(io.BytesIO(kept), record.name) as reader:
            for dry, wet in encoded.marked(reader, record, marks, engine, tally):
                noise += filtering.edit_energy(dry.reshape(-1), wet.reshape(-1))
        return tally, noise


@contextlib.contextmanager
def open_files(folder: PathLike, key: Key, sidecar: PathLike | None = None) -> Iterator[FilesRun | CopiedFiles]:
    """Open the run over a folder or one audio file, locked against writing; see `originals_of_folder`."""
    check_key(key)
    paths = Paths.of(Path(folder), None, sidecar)
    with locked(paths.data, shared=True), Journal(paths.sidecar, key) as journal:
        if copies.is_copy(journal):
            yield CopiedFiles(journal, paths)
            return
        with contextlib.closing(recorded(journal, paths, None)) as target:
            yield FilesRun(journal, paths, target)


@discreet_steps
def originals_of_folder(
    folder: PathLike, key: Key, names: Collection[str] | None = None, *, sidecar: PathLike | None = None
) -> Iterator[tuple[str, str | int, bytes, bytes]]:
    """Yield protected audio files with their originals, one at a time, in the order of the run; nothing is written.

    The original of an uncompressed file is the file as it is now with its samples put back, of which the sidecar
    tells every one. The sidecar keeps encoded files whole.

    Parameters
    ----------
    folder : path
        What was protected in place, or the copy: a folder, or one audio file.
    key : Key
        The key it was protected with.
    names : collection of str, optional
        Only these files, by their paths below the folder with "/"; all by default.
    sidecar : path, optional
        As given to `protect_folder`.

    Yields
    ------
    name : str
        Path below the folder, with "/".
    label : str or int
        Its class.
    original, now : bytes
        The whole file before it was protected, and as it is now: protected, or still original where a run was stopped
        or undone in part. If a lossy file became FLAC in a copy, `original` is the unmarked FLAC file.

    Raises
    ------
    SidecarError
        There is no run, it was undone, or its undo was dropped; or the sidecar is damaged or of another key.
    DatasetError
        `folder` does not exist; a file is missing or was changed since; or `names` has one that is not in the run.
    TypeError
        `names` is a single text.
    BusyError, OSError
        As for `protect_array`.

    Notes
    -----
    The data are locked against writing, and the sidecar is in use, until the last file was yielded or the iterator is
    closed. Keep the files as secret as the sidecar: anyone who has both forms of one can learn the mark of its class.
    """
    if isinstance(names, str):
        raise TypeError(f"names is the single text {names!r}; give a collection of paths below the folder.")
    wanted = None if names is None else set(names)
    with open_files(folder, key, sidecar) as run:
        for clip in run.clips(wanted):
            if clip.original is None or clip.now is None or not clip.verdict.is_whole:
                state = "is missing" if clip.now is None else "is neither the original nor the protected file"
                raise DatasetError(f"{clip.name} {state}; put it back, or leave it out of names.")
            if wanted is not None:
                wanted.discard(clip.name)
            yield clip.name, clip.label, clip.original, clip.now
    listing.refuse([f"{name} is not a file of the run" for name in sorted(wanted or ())], "Some names are unknown")


def _put_back(now: bytes, seen: list[_Seen], record: Record, kept: bytes) -> tuple[Verdict, bytes | None]:
    """The verdict on an uncompressed file, and its original bytes if they are known."""
    held = np.logical_and.reduce([one.held for one in seen])
    if not record.is_last:  # a run was stopped within the file, and did not touch the rest
        held[1] = False
    verdict = Verdict(int(verdicts_of(*held)))
    if verdict is Verdict.NEITHER or len(now) != record.size:
        return Verdict.NEITHER, None
    original = bytearray(now)
    Places(record).put(original, kept)
    return verdict, bytes(original)
