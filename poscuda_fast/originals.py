"""The original form of protected audio, one clip at a time, from what is there now and what the sidecar keeps.

Nothing is written. Whoever has a clip in both forms can learn the mark of its class: what this gives is secret.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import itertools
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import array_target, dense, filtering, inplace, listing, pages, reencode, runs, stored, wavedit
from poscuda_fast.array_target import ArrayTarget, Storage, StoredClips
from poscuda_fast.discretion import Secret, discreet_steps
from poscuda_fast.errors import DatasetError, SidecarError
from poscuda_fast.journal import Journal, State
from poscuda_fast.kernels import Engine, Marks
from poscuda_fast.key import Key
from poscuda_fast.labels import ClassRows, label_of
from poscuda_fast.memory import check_key, count
from poscuda_fast.place import PathLike, Place
from poscuda_fast.plan import Patches, Plan
from poscuda_fast.recipe import Recipe
from poscuda_fast.records import WHOLE, Record, unpack
from poscuda_fast.report import Tally

WHOLE_VERDICTS = {"original", "protected", "equal"}


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class FileClip(Secret):
    """One file of a run, in both forms.

    Attributes
    ----------
    name : str
        Path below the folder, with "/".
    label : str or int
        Its class.
    verdict : str
        What it is now: "original", "protected", "equal" (protecting changes nothing), "torn" (half written, but only
        inside patches), "neither" or "missing".
    original, now : bytes or None
        The file as it was; None if that is not known, since bytes outside the patches have changed. The file as it is;
        None if it is missing.
    record : Record
        How its samples are kept.
    tally : Tally
        Its own counts of patches.
    noise : float
        Energy of the edit, in units of the samples as they are kept.
    """

    name: str
    label: str | int
    verdict: str
    original: bytes | None
    now: bytes | None
    record: Record
    tally: Tally
    noise: float


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class ArrayClip(Secret):
    """One clip of an array, in both forms.

    Attributes
    ----------
    number : int
        Its place along the first axis.
    label : str or int
        Its class.
    verdict : str
        What it is now: "original", "protected", "equal" (protecting changes nothing) or "neither".
    original, now : (n_frames,) or (n_frames, n_channels) int16 or float32
        As it was and as it is, padding included; copies.
    frames : int
        Where its last patch ends: its length if it is shorter than a patch, or else the least that it can be, for the
        sidecar does not keep lengths. See `ArrayRun.is_full`.
    patch_frames : int
        Frames in its patches.
    tally : Tally
        Its own counts of patches.
    """

    number: int
    label: str | int
    verdict: str
    original: NDArray[Any]
    now: NDArray[Any]
    frames: int
    patch_frames: int
    tally: Tally


class Run:
    """A run whose originals are kept, as its sidecar tells it; the sidecar is open as long as this is used.

    Attributes
    ----------
    journal : Journal
        The sidecar.
    recipe : Recipe
        What was applied.
    tokens : tuple of bytes
        The class token of each row of the marks.
    labels : list of str or int
        The label that each of them stands for.
    n_clips : int
        Files or clips in all.
    """

    def __init__(self, journal: Journal, kind: str) -> None:
        sealed, self._marks = runs.reopen(journal, kind)
        if journal.state is State.UNDONE:
            raise SidecarError(
                f"The run in {journal.path} was undone: the data are the originals again, and nothing is protected. "
                f"Protect them first."
            )
        self.journal = journal
        self.recipe = Recipe.from_dict(journal.header["recipe"])
        self.tokens = tuple(bytes.fromhex(token) for token in sealed["tokens"])
        self.labels = [label_of(token) for token in self.tokens]
        self.n_clips = int(journal.header["counts"]["clips"])
        self._engine = Engine(threads=1)


class FilesRun(Run):
    """A run over audio files; `place` says where they are."""

    def __init__(self, journal: Journal, place: Place) -> None:
        super().__init__(journal, "files")
        self.place = place

    def clips(self, names: Collection[str] | None = None) -> Iterator[FileClip]:
        """Every file that the run has recorded, in order, or those of these names; one at a time is in memory."""
        for payload in self.journal.payloads():
            for record, kept in unpack(payload):
                if names is None or record.name in names:
                    yield self._clip(record, kept)

    def unlisted(self, recorded: Collection[str]) -> list[str]:
        """Audio files there that are not among those that the run has recorded: they are not protected."""
        found, _ = self.place.find(may_be_empty=True)
        return [name for name in found if name not in recorded]

    def _clip(self, record: Record, kept: bytes) -> FileClip:
        content = reencode.Content(kept, record) if record.offset == WHOLE else None
        dry = kept if content is None else content.now
        filtered = filtering.filter_together([record], [dry], self._marks, self._engine)
        now = _read(f"{self.place.root}/{record.name}")
        verdict, original = "missing", None if content is None else kept
        if now is not None and content is not None:
            verdict = reencode.judge(now, content, filtered.wet[0])
        elif now is not None:
            verdict, original = _put_back(now, record, kept, filtered.wet[0])
        label = self.labels[record.row]
        return FileClip(record.name, label, verdict, original, now, record, filtered.tally, filtered.noise[0])


class ArrayRun(Run):
    """A run over the clips of an array."""

    def __init__(self, journal: Journal, target: ArrayTarget, audio: StoredClips) -> None:
        super().__init__(journal, "array")
        self._target = target  # that it could be made says that the array is the one that was protected
        self._audio = audio

    def clips(self) -> Iterator[ArrayClip]:
        """Every clip that the run has recorded, in order; one at a time is in memory. Empty clips have no record."""
        for patches, dry in _by_clip(self.journal.payloads(), self._audio.dtype, self._audio.channels):
            yield self._clip(patches, dry)

    def is_full(self) -> bool:
        """Whether all clips are known to be as long as the array is: none was given a length of its own.

        Lengths are not kept, but a digest of all labels and lengths is. False also if some clips have no record.
        """
        rows = np.full(self.n_clips, -1, np.int32)
        for payload in self.journal.payloads():
            patches, _ = array_target.unpack(payload, self._audio.dtype)
            rows[patches.clips] = patches.rows
        if (rows < 0).any():
            return False
        labels = ClassRows(self.tokens, rows, np.arange(len(self.tokens), dtype=np.int32))
        lengths = np.full(self.n_clips, self._audio.shape[1], np.int64)
        digest = Plan(self.journal.key, self.recipe, labels, lengths).digest()
        return hmac.compare_digest(runs.keyed_mac(self.journal.key, b"labels", digest), self.journal.header["labels"])

    def _clip(self, patches: Patches, dry: NDArray[Any]) -> ArrayClip:
        number = int(patches.clips[0])
        tally = Tally()
        count(tally, patches, dense.survey_dense(dry, patches, self._audio.channels, self._engine), self._marks)
        tally.saturated_samples, wet = _marked(dry, patches, self._audio.channels, self._marks, self._engine)
        now = np.array(self._audio.clip(number))
        firsts = np.cumsum(patches.sizes) - patches.sizes
        frames = np.repeat(patches.starts - firsts, patches.sizes) + np.arange(patches.n_frames)
        found = now[frames].reshape(-1)
        original = now.copy()
        original[frames] = dry.reshape(-1, *now.shape[1:])
        verdict = wavedit.compare(found.tobytes(), dry.tobytes(), wet.tobytes())
        return ArrayClip(
            number,
            self.labels[int(patches.rows[0])],
            "neither" if verdict == "torn" else verdict,
            original,
            now,
            int(patches.starts[-1] + patches.sizes[-1]),
            patches.n_frames,
            tally,
        )


@contextlib.contextmanager
def open_files(folder: PathLike, key: Key, sidecar: PathLike | None = None) -> Iterator[FilesRun]:
    """The run over a folder or one audio file, kept from being written to meanwhile; see `originals_of_folder`."""
    check_key(key)
    place = Place.of(Path(folder), None, sidecar)
    with inplace.locked(place.data, shared=True), Journal(place.sidecar, key) as journal:
        yield FilesRun(journal, place)


@contextlib.contextmanager
def open_array(arr: NDArray[Any] | PathLike, key: Key, sidecar: PathLike | None = None) -> Iterator[ArrayRun]:
    """The run over a stored array, kept from being written to meanwhile; see `originals_of_array`."""
    check_key(key)
    storage: Storage
    audio: StoredClips
    if isinstance(arr, np.ndarray):
        storage, audio = pages.open_mapped(arr, sidecar, writing=False)
    else:
        storage, audio = stored.open_stored(Path(arr), sidecar)
    with (
        inplace.locked(storage.path, shared=True),
        Journal(storage.sidecar, key) as journal,
        array_target.recorded(journal, storage, audio, key, None) as target,
    ):
        yield ArrayRun(journal, target, audio)


@discreet_steps
def originals_of_folder(
    folder: PathLike, key: Key, names: Collection[str] | None = None, *, sidecar: PathLike | None = None
) -> Iterator[tuple[str, str | int, bytes, bytes]]:
    """Protected audio files beside their originals, one at a time, in the order of the run; nothing is written.

    The bytes of a WAV file are those that are there now with its kept patches put back, and are given only if their
    SHA-256 is that of the file before it was protected. An encoded file was kept whole.

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
        The whole file as it was and as it is: protected, or the original where a run was stopped or undone in part. A
        file that was lossy and became FLAC in a copy has for its original the FLAC form.

    Raises
    ------
    SidecarError
        There is no run, it was undone, or its undo was dropped; or the sidecar is damaged or of another key.
    DatasetError
        `folder` does not exist; a file is missing or was changed since; or `names` has one that the run has not.
    BusyError, OSError
        As for `protect_memmap`.

    Notes
    -----
    The data are locked against writing, and the sidecar is in use, until the last file or `close`. Whoever has a file
    in both forms can learn the mark of its class: they are as secret as the sidecar.
    """
    wanted = None if names is None else set(names)
    with open_files(folder, key, sidecar) as run:
        for clip in run.clips(wanted):
            if clip.original is None or clip.now is None or clip.verdict not in WHOLE_VERDICTS:
                state = "is missing" if clip.now is None else "is neither the original nor the protected file"
                raise DatasetError(f"{clip.name} {state}; put it back, or leave it out of names.")
            if wanted is not None:
                wanted.discard(clip.name)
            yield clip.name, clip.label, clip.original, clip.now
    listing.refuse([f"{name} is not a file of the run" for name in sorted(wanted or ())], "Some names are unknown")


@discreet_steps
def originals_of_array(
    arr: NDArray[Any] | PathLike, key: Key, *, sidecar: PathLike | None = None
) -> Iterator[tuple[int, str | int, NDArray[Any], NDArray[Any]]]:
    """Protected clips of a stored array beside their originals, one at a time, in order; nothing is written.

    Parameters
    ----------
    arr : np.memmap or path
        The array as it was given to `protect_memmap`, of which mode "r" is enough; or the path of a .npy file or of a
        Zarr array's folder.
    key : Key
        The key it was protected with.
    sidecar : path, optional
        As given when it was protected.

    Yields
    ------
    number : int
        The clip's place along the first axis. Clips of length 0 are left out: the sidecar does not know their class.
    label : str or int
        Its class.
    original, now : (n_frames,) or (n_frames, n_channels), the array's dtype
        Copies of the clip as it was and as it is, padding included: protected, or the original where a run was
        stopped. Outside patches they are equal.

    Raises
    ------
    SidecarError
        There is no run, it was undone, or its undo was dropped; or the sidecar is damaged, of another key, or made
        for other data.
    DatasetError
        A clip was changed inside its patches since.
    TypeError, ValueError, BusyError, OSError
        As for `protect_memmap`.

    Notes
    -----
    As for `originals_of_folder`.
    """
    with open_array(arr, key, sidecar) as run:
        for clip in run.clips():
            if clip.verdict not in WHOLE_VERDICTS:
                raise DatasetError(
                    f"Clip {clip.number} is neither the original nor the protected one: it was changed since, or half "
                    f"written by a run that was stopped. Protect again to finish that run, or undo the change."
                )
            yield clip.number, clip.label, clip.original, clip.now


def _read(path: str) -> bytes | None:
    """A file's bytes; None if there is no regular file."""
    try:
        regular = stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return reencode.read(path) if regular else None


def _put_back(now: bytes, record: Record, kept: bytes, wet: bytes) -> tuple[str, bytes | None]:
    """What a WAV file is now, and its original bytes if they can be told."""
    if len(now) != record.size:
        return "neither", None
    original = bytearray(now)
    found = []
    done = 0
    for place, n in record.places():
        found.append(now[place : place + n])
        original[place : place + n] = kept[done : done + n]
        done += n
    if hashlib.sha256(original).hexdigest() != record.sha256:
        return "neither", None
    return wavedit.compare(b"".join(found), kept, wet), bytes(original)


def _by_clip(payloads: Iterable[bytes], dtype: np.dtype[Any], channels: int) -> Iterator[tuple[Patches, NDArray[Any]]]:
    """The patches of each clip and their originals; the end of a payload may have cut a clip."""
    held: list[tuple[Patches, NDArray[Any]]] = []
    for payload in payloads:
        patches, dry = array_target.unpack(payload, dtype)
        places = np.append(dense.offsets(patches, channels), len(dry))
        edges = [0, *(np.flatnonzero(np.diff(patches.clips)) + 1).tolist(), len(patches)]
        for first, end in itertools.pairwise(edges):
            if first == end:
                continue
            if held and held[0][0].clips[0] != patches.clips[first]:
                yield _join(held)
                held = []
            part = Patches(*(getattr(patches, field.name)[first:end] for field in dataclasses.fields(patches)))
            held.append((part, dry[places[first] : places[end]]))
    if held:
        yield _join(held)


def _join(parts: list[tuple[Patches, NDArray[Any]]]) -> tuple[Patches, NDArray[Any]]:
    if len(parts) == 1:
        return parts[0]
    fields = [[getattr(part, field.name) for part, _ in parts] for field in dataclasses.fields(Patches)]
    return Patches(*map(np.concatenate, fields)), np.concatenate([dry for _, dry in parts])


def _marked(
    dry: NDArray[Any], patches: Patches, channels: int, marks: Marks, engine: Engine
) -> tuple[int, NDArray[Any]]:
    """How many samples the mark saturates, and the marked form of some originals."""
    wet = dry.copy()
    return dense.mark_dense(wet, patches, channels, marks, engine), wet
