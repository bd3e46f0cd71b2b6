"""Reads the originals of protected audio files, one at a time, from the files and their sidecar.

Nothing is written. What this returns is secret: anyone who has both forms of a file can learn the mark of its class.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from poscuda_fast.disk import PathLike, locked
from poscuda_fast.errors import DatasetError
from poscuda_fast.files import encoded, filtering, listing, wav
from poscuda_fast.files.paths import Paths
from poscuda_fast.files.records import Places, Record, unpack
from poscuda_fast.key import Key, check_key
from poscuda_fast.results import Tally, Verdict
from poscuda_fast.secrecy import Secret, discreet_steps
from poscuda_fast.undo.journal import Journal
from poscuda_fast.undo.record import Run


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class FileClip(Secret):
    """One file of a run, in both forms.

    Attributes
    ----------
    name : str
        Path below the folder, with "/".
    label : str or int
        Its class.
    verdict : Verdict
        What it is now.
    original, now : bytes or None
        The original file; None for a WAV file that is missing or has changed outside its patches. The file as it is
        now; None if it is missing.
    record : Record
        How its samples are stored.
    tally : Tally
        Its own counts of patches.
    noise : float
        Energy of the edit, in units of the stored samples.
    """

    name: str
    label: str | int
    verdict: Verdict
    original: bytes | None
    now: bytes | None
    record: Record
    tally: Tally
    noise: float


class FilesRun(Run):
    """A run over audio files; `paths` says where they are."""

    def __init__(self, journal: Journal, paths: Paths) -> None:
        super().__init__(journal, "files")
        self.paths = paths

    def clips(self, names: Collection[str] | None = None) -> Iterator[FileClip]:
        """Every file that the run has recorded, or only those in `names`, in order and one at a time.

        An encoded file within which a run was stopped is not among them: it is still the original.
        """
        parts: list[tuple[Record, bytes]] = []
        for payload in self.journal.payloads():
            for record, kept in unpack(payload):
                if names is None or record.name in names:
                    parts.append((record, bytes(kept)))
                    if record.is_last:
                        yield self._clip(parts)
                        parts = []
        if parts and not parts[0][0].is_encoded:
            yield self._clip(parts)

    def unlisted(self, recorded: Collection[str]) -> list[str]:
        """Audio files in the folder that are not in `recorded`, and so are not protected."""
        found, _ = self.paths.find(may_be_empty=True)
        return [name for name in found if name not in recorded]

    def _clip(self, parts: list[tuple[Record, bytes]]) -> FileClip:
        """One file from its pieces."""
        starts, sizes = ([n for record, _ in parts for n in one(record)] for one in (_starts, _sizes))
        record = parts[-1][0]._replace(begin=0, starts=starts, sizes=sizes)
        kept = b"".join([one for _, one in parts])
        now = _read(f"{self.paths.root}/{record.name}")
        verdict, original = Verdict.MISSING, None
        if record.is_encoded:
            original = kept
            tally, noise = self._effect(record, kept)
            if now is not None:
                verdict = encoded.judge(io.BytesIO(now), io.BytesIO(kept), record, self._marks, self._engine)
        else:
            done = filtering.filter_together([record], [kept], self._marks, self._engine, measuring=True)
            tally, noise = done.tally, done.noise[0]
            if now is not None:
                verdict, original = _put_back(now, parts, bytes(done.wet[0]))
        label = self.labels[record.row]
        return FileClip(record.name, label, verdict, original, now, record, tally, noise)

    def _effect(self, record: Record, kept: bytes) -> tuple[Tally, float]:
        """What marking does to an encoded file: counts, and the energy of the edit."""
        tally, noise = Tally(), 0.0
        with encoded.Reader(io.BytesIO(kept), record.name) as reader:
            for dry, wet in encoded.marked(reader, record, self._marks, self._engine, tally):
                noise += filtering.edit_energy(dry.reshape(-1), wet.reshape(-1))
        return tally, noise


def _starts(record: Record) -> Sequence[int]:
    return record.starts


def _sizes(record: Record) -> Sequence[int]:
    return record.sizes


@contextlib.contextmanager
def open_files(folder: PathLike, key: Key, sidecar: PathLike | None = None) -> Iterator[FilesRun]:
    """Open the run over a folder or one audio file, locked against writing; see `originals_of_folder`."""
    check_key(key)
    paths = Paths.of(Path(folder), None, sidecar)
    with locked(paths.data, shared=True), Journal(paths.sidecar, key) as journal:
        yield FilesRun(journal, paths)


@discreet_steps
def originals_of_folder(
    folder: PathLike, key: Key, names: Collection[str] | None = None, *, sidecar: PathLike | None = None
) -> Iterator[tuple[str, str | int, bytes, bytes]]:
    """Yield protected audio files with their originals, one at a time, in the order of the run; nothing is written.

    The original of a WAV file is the file as it is now with its patches put back from the sidecar; it is yielded only
    if its SHA-256 is that of the file before it was protected. The sidecar keeps encoded files whole.

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


def _read(path: str) -> bytes | None:
    """A file's bytes; None if there is no regular file."""
    try:
        regular = stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not regular:
        return None
    with encoded.opened(path) as file:
        return file.read()


def _put_back(now: bytes, parts: list[tuple[Record, bytes]], wet: bytes) -> tuple[Verdict, bytes | None]:
    """The verdict on a WAV file, and its original bytes if they can be rebuilt; `wet` has its marked patches."""
    if len(now) != parts[0][0].size:
        return Verdict.NEITHER, None
    original = bytearray(now)
    both = int(Verdict.UNCHANGED)
    done = 0
    for record, kept in parts:
        places = Places(record)
        places.put(original, kept)
        if wav.digest(memoryview(original)[record.begin : record.end]) != record.sha256:
            return Verdict.NEITHER, None
        both &= wav.compare(places.take(now), kept, wet[done : done + len(kept)], steady=False) & Verdict.UNCHANGED
        done += len(kept)
    if not record.is_last:  # a run was stopped within the file, and did not touch the rest
        both &= Verdict.ORIGINAL
    return Verdict(both) if both else Verdict.TORN, bytes(original)
