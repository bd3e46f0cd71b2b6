"""The originals of a stored array's clips, one at a time, rebuilt from the array and its sidecar.

Nothing is written. Both forms of a clip together reveal the mark of its class: keep what this returns secret.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hmac
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.arrays import target
from poscuda_fast.arrays.opening import open_stored
from poscuda_fast.arrays.target import ArrayTarget, StoredArray
from poscuda_fast.disk import PathLike, locked
from poscuda_fast.errors import DatasetError
from poscuda_fast.key import Key, check_key
from poscuda_fast.mark import packed
from poscuda_fast.mark.labels import ClassRows
from poscuda_fast.mark.patches import Patches
from poscuda_fast.mark.plan import plan_of
from poscuda_fast.results import Tally, Verdict
from poscuda_fast.secrecy import Secret, discreet_steps
from poscuda_fast.undo.journal import Journal
from poscuda_fast.undo.record import Run, keyed_mac


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class ArrayClip(Secret):
    """One clip of an array, in both forms.

    Attributes
    ----------
    number : int
        Its index along the first axis.
    label : str or int
        Its class.
    verdict : Verdict
        What it is now.
    original, now : (n_frames,) or (n_frames, n_channels) int16 or float32
        Copies of the clip as it was and as it is, padding included.
    frames : int
        Where its last patch ends. The sidecar does not keep lengths: this is the clip's length if it is shorter than a
        patch, otherwise the least that it can be. See `ArrayRun.is_full`.
    patch_frames : int
        Frames in its patches.
    tally : Tally
        Counts of its patches.
    """

    number: int
    label: str | int
    verdict: Verdict
    original: NDArray[Any]
    now: NDArray[Any]
    frames: int
    patch_frames: int
    tally: Tally


class ArrayRun(Run):
    """A run over the clips of an array."""

    def __init__(self, journal: Journal, target: ArrayTarget, array: StoredArray) -> None:
        super().__init__(journal, "array")
        self._target = target  # making it has checked that the array is the one that was protected
        self._array = array

    def clips(self) -> Iterator[ArrayClip]:
        """Every clip that the run has recorded, in order, one in memory at a time. Empty clips have no record."""
        for patches, dry in _by_clip(self.journal.payloads(), self._array.dtype, self._array.channels):
            yield self._clip(patches, dry)

    def is_full(self) -> bool:
        """Whether all clips are known to fill the array, without padding.

        The sidecar keeps no lengths, but a digest of all labels and lengths. Also False if some clips have no record.
        """
        rows = np.full(self.n_clips, -1, np.int32)
        for payload in self.journal.payloads():
            patches, _ = target.unpack(payload, self._array.dtype)
            rows[patches.clips] = patches.rows
        if (rows < 0).any():
            return False
        labels = ClassRows(self.tokens, rows, np.arange(len(self.tokens), dtype=np.int32))
        lengths = np.full(self.n_clips, self._array.shape[1], np.int64)
        (rate,) = self.journal.header["rates"]
        digest = plan_of(self.journal.key, self.recipe, labels, lengths, rate).digest()
        return hmac.compare_digest(keyed_mac(self.journal.key, b"labels", digest), self.journal.header["labels"])

    def _clip(self, patches: Patches, dry: NDArray[Any]) -> ArrayClip:
        number, channels = int(patches.clips[0]), self._array.channels
        tally, wet = Tally(), dry.copy()
        packed.mark_and_count(tally, wet, patches, channels, self._marks, self._engine)
        now = np.array(self._array.clip(number))
        firsts = np.cumsum(patches.sizes) - patches.sizes
        frames = np.repeat(patches.starts - firsts, patches.sizes) + np.arange(patches.n_frames)
        found = now[frames].tobytes()
        original = now.copy()
        original[frames] = dry.reshape(-1, *now.shape[1:])
        return ArrayClip(
            number,
            self.labels[int(patches.rows[0])],
            Verdict.of(original=found == dry.tobytes(), protected=found == wet.tobytes()),
            original,
            now,
            int(patches.starts[-1] + patches.sizes[-1]),
            patches.n_frames,
            tally,
        )


@contextlib.contextmanager
def open_array(arr: Any, key: Key, sidecar: PathLike | None = None) -> Iterator[ArrayRun]:
    """The run over a stored array, which is locked against writing meanwhile; see `originals_of_array`."""
    check_key(key)
    array = open_stored(arr, sidecar)
    with (
        locked(array.path, shared=True),
        Journal(array.sidecar, key) as journal,
        target.recorded(journal, array, key, None) as recorded,
    ):
        yield ArrayRun(journal, recorded, array)


@discreet_steps
def originals_of_array(
    arr: Any, key: Key, *, sidecar: PathLike | None = None
) -> Iterator[tuple[int, str | int, NDArray[Any], NDArray[Any]]]:
    """Yield protected clips of a stored array with their originals, one at a time, in order; nothing is written.

    Parameters
    ----------
    arr : np.memmap, path or zarr.Array
        The array as it was given to `protect_array`, or its copy; mode "r" is enough.
    key : Key
        The key it was protected with.
    sidecar : path, optional
        As given when it was protected.

    Yields
    ------
    number : int
        The clip's index along the first axis. Clips of length 0 are left out: the sidecar does not know their class.
    label : str or int
        Its class.
    original, now : (n_frames,) or (n_frames, n_channels), the array's dtype
        Copies of the clip as it was and as it is, padding included. `now` is protected, or still the original if the
        run was stopped before this clip. Outside patches they are equal.

    Raises
    ------
    SidecarError
        There is no run, it was undone, or its undo was dropped; or the sidecar is damaged, or made with another key or
        for other data.
    DatasetError
        A clip was changed inside its patches since, or the array cannot be opened.
    TypeError, ValueError, BusyError, OSError
        As for `protect_memmap`.

    Notes
    -----
    As for `originals_of_folder`.
    """
    with open_array(arr, key, sidecar) as run:
        for clip in run.clips():
            if not clip.verdict.is_whole:
                raise DatasetError(
                    f"Clip {clip.number} is neither the original nor the protected one: it was changed since, or half "
                    f"written by a run that was stopped. Protect again to finish that run, or undo the change."
                )
            yield clip.number, clip.label, clip.original, clip.now


def _by_clip(payloads: Iterable[bytes], dtype: np.dtype[Any], channels: int) -> Iterator[tuple[Patches, NDArray[Any]]]:
    """The patches of each clip and their originals; two payloads may share a clip."""
    held: list[tuple[Patches, NDArray[Any]]] = []
    for payload in payloads:
        patches, dry = target.unpack(payload, dtype)
        places = np.append(packed.offsets(patches, channels), len(dry))
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
