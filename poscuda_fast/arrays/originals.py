"""The originals of a stored array's clips, one at a time, rebuilt from the array and its sidecar.

Nothing is written. Both forms of a clip together reveal the mark of its class: keep what this returns secret.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hmac
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.arrays import copying
from poscuda_fast.arrays.opening import open_stored
from poscuda_fast.arrays.target import ArrayAnswer, ArrayTarget, StoredArray, recorded
from poscuda_fast.disk import PathLike, locked
from poscuda_fast.errors import DatasetError, SidecarError
from poscuda_fast.kernels import Engine, Ints
from poscuda_fast.key import Key, check_key
from poscuda_fast.mark import packed
from poscuda_fast.mark.forms import verdicts_of
from poscuda_fast.mark.labels import ClassRows
from poscuda_fast.mark.patches import Patches
from poscuda_fast.mark.plan import plan_of
from poscuda_fast.mark.stretches import Bytes
from poscuda_fast.results import Tally, Verdict
from poscuda_fast.secrecy import Secret, discreet_steps
from poscuda_fast.undo import copies
from poscuda_fast.undo.journal import Journal
from poscuda_fast.undo.record import Run, keyed_mac
from poscuda_fast.undo.steps import Records


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
        self._target = target
        self._array = array

    @property
    def labels_mac(self) -> str:
        """What tells the labels and lengths of the run, with its key."""
        return str(self.journal.header["labels"])

    def clips(self) -> Iterator[ArrayClip]:
        """Every clip that the run has recorded, in order, one in memory at a time. Empty clips have no record."""
        for parts in _by_clip(self._answers()):
            yield self._clip(parts)

    def is_full(self) -> bool:
        """Whether all clips are known to fill the array, without padding.

        The sidecar keeps no lengths, but a digest of all labels and lengths. Also False if some clips have no record.
        """
        rows = np.full(self.n_clips, -1, np.int32)
        for one in Records(self.journal, self._target):
            rows[one.batch.clips] = one.batch.rows
        if (rows < 0).any():
            return False
        labels = ClassRows(self.tokens, rows, np.arange(len(self.tokens), dtype=np.int32))
        lengths = np.full(self.n_clips, self._array.shape[1], np.int64)
        (rate,) = self.journal.header["rates"]
        digest = plan_of(self.journal.key, self.recipe, labels, lengths, rate).digest()
        return hmac.compare_digest(keyed_mac(self.journal.key, b"labels", digest), self.labels_mac)

    def _answers(self) -> Iterator[ArrayAnswer]:
        records = Records(self.journal, self._target)
        for one in records:
            yield self._target.examine(one.batch, one.content, records.torn_of(one), one.place)

    def _clip(self, parts: list[_Part]) -> ArrayClip:
        tally = Tally()
        number = int(parts[0].patches.clips[0])
        now = np.array(self._array.clip(number))
        original = now.copy()
        held = np.ones(3, np.bool_)
        for part in parts:
            self._target.tally_of(tally, part.patches, part.dry)
            places = _frames(part.patches)
            original[places] = part.dry.view(self._array.dtype).reshape(-1, *now.shape[1:])
            held &= part.held
        last = parts[-1].patches
        return ArrayClip(
            number,
            self.labels[int(last.rows[0])],
            Verdict(int(verdicts_of(*held))),
            original,
            now,
            int(last.starts[-1] + last.sizes[-1]),
            sum(part.patches.n_frames for part in parts),
            tally,
        )


class CopiedArray(Run):
    """The copy of an array."""

    def __init__(self, journal: Journal, array: StoredArray) -> None:
        super().__init__(journal, copies.COPY)
        if journal.header["of"] != copies.ARRAY:
            raise SidecarError(f"The sidecar {journal.path} belongs to a copy of audio files, not to one of an array.")
        self._array = array

    @property
    def labels_mac(self) -> str:
        """What tells the labels and lengths of the run, with its key."""
        return str(self.journal.header["labels"])

    def clips(self) -> Iterator[ArrayClip]:
        """Every clip that is not empty, in order, one in memory at a time."""
        rows, lengths = copies.read_clips(self.journal, self._array.shape[1])
        labels = ClassRows(self.tokens, rows, np.arange(len(self.tokens), dtype=np.int32))
        rate = self.journal.header["rates"][0]
        plan = plan_of(self.journal.key, self.recipe, labels, lengths, rate)
        engine, channels = Engine(threads=1), self._array.channels
        for number, label, original, now in copying.pairs(self._array.path, self.journal):
            patches = plan.of_clip(number)
            tally, dense = Tally(), original[_frames(patches)].reshape(-1)
            packed.mark_and_count(tally, dense, patches, channels, plan.marks, engine)
            verdict = Verdict.UNCHANGED if original.tobytes() == now.tobytes() else Verdict.PROTECTED
            frames = int(lengths[number])
            yield ArrayClip(number, label, verdict, original, now, frames, patches.n_frames, tally)

    def is_full(self) -> bool:
        """Whether all clips fill the array, without padding."""
        _, lengths = copies.read_clips(self.journal, self._array.shape[1])
        return bool((lengths == self._array.shape[1]).all())


@contextlib.contextmanager
def open_array(arr: Any, key: Key, sidecar: PathLike | None = None) -> Iterator[ArrayRun | CopiedArray]:
    """The run over a stored array, which is locked against writing meanwhile; see `originals_of_array`."""
    check_key(key)
    array = open_stored(arr, sidecar)
    with contextlib.closing(array), locked(array.path, shared=True), Journal(array.sidecar, key) as journal:
        if copies.is_copy(journal):
            yield CopiedArray(journal, array)
        else:
            yield ArrayRun(journal, recorded(journal, array, key, None), array)


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


class _Part(NamedTuple):
    """Patches of one clip that are recorded together: their originals, and of which form all of them are."""

    patches: Patches
    dry: Bytes
    held: NDArray[np.bool_]

    def __repr__(self) -> str:
        return "_Part()"


def _by_clip(answers: Iterable[ArrayAnswer]) -> Iterator[list[_Part]]:
    """The parts of each clip; two batches may share one."""
    held: list[_Part] = []
    for answer in answers:
        patches, stretches = answer.patches, answer.forms.stretches
        forms = np.array(answer.forms.held())
        edges = [0, *(np.flatnonzero(np.diff(patches.clips)) + 1).tolist(), len(patches)]
        places = np.append(stretches.starts, stretches.n_bytes)
        for first, end in itertools.pairwise(edges):
            if first == end:
                continue
            if held and held[0].patches.clips[0] != patches.clips[first]:
                yield held
                held = []
            dry = answer.forms.dry[places[first] : places[end]]
            held.append(_Part(patches.some(slice(first, end)), dry, np.logical_and.reduce(forms[:, first:end], axis=1)))
    if held:
        yield held


def _frames(patches: Patches) -> Ints:
    """The frames of some patches of a clip, in order."""
    firsts = np.cumsum(patches.sizes) - patches.sizes
    frames: Ints = np.repeat(patches.starts - firsts, patches.sizes) + np.arange(patches.n_frames)
    return frames
