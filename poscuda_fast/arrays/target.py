"""A stored array as something that `undo.steps` can edit."""

from __future__ import annotations

import dataclasses
import os
import struct
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import disk
from poscuda_fast.arrays.layouts import Clips
from poscuda_fast.errors import DatasetError, SidecarError
from poscuda_fast.kernels import Engine, Ints
from poscuda_fast.key import Key
from poscuda_fast.mark import forms, packed
from poscuda_fast.mark.forms import Forms
from poscuda_fast.mark.marks import Marks
from poscuda_fast.mark.patches import Patches
from poscuda_fast.mark.plan import Plan
from poscuda_fast.mark.stretches import Bytes, Stretches
from poscuda_fast.results import Progress, Settings, Tally, Verdict
from poscuda_fast.undo import record
from poscuda_fast.undo.journal import Journal
from poscuda_fast.undo.log import Bookmark
from poscuda_fast.undo.steps import Fresh, TornPieces

CLIP = "clip "  # begins the name of a clip
SHARE_KEPT = 0.02  # of PCM samples, by which the room that a sidecar takes is estimated
SHARE_KEPT_OF_FLOAT = 0.2
BYTES_PER_PATCH = 24  # of an announcement


class StoredArray(Clips, Protocol):
    """Clips of one length that are kept in a file or a folder.

    Attributes
    ----------
    path, sidecar : Path
    shape : tuple of int
    computed : bool
        Whether patches lie in the file as their frames do in a clip, so that originals can be told piece by piece.
    lost : Counter
        What files that were replaced did not keep, such as their owner, and how many.
    """

    path: Path
    sidecar: Path
    shape: tuple[int, ...]
    computed: bool
    lost: Counter[str]

    def read(self, patches: Patches) -> NDArray[Any]:
        """A dense copy of the patches."""

    def write(self, patches: Patches, dense: NDArray[Any]) -> None:
        """Store a dense buffer where the patches are; it is on the disk after `sync`."""

    def firsts(self, patches: Patches) -> Ints:
        """The first byte of each patch in its file, or in its clip if shards are written whole."""

    def location(self) -> list[int | str]:
        """What distinguishes the array from others in the same file or folder."""

    def preflight(self) -> None:
        """Refuse what could be neither read nor written later."""

    def room(self, n_patches: int, n_bytes: int) -> int:
        """Extra bytes that storing so many patches, and bytes in them, may take on the disk."""

    def clip(self, number: int) -> NDArray[Any]:
        """(n_frames,) or (n_frames, n_channels): one clip with its padding; best asked for in order."""

    def sync(self) -> None:
        """Return once everything that was written is on the disk; OSError if that fails."""

    def close(self) -> None:
        """End background work."""


class ArrayTarget:
    """A stored array as something that `undo.steps` can edit; its batches are patches.

    Without a plan, as a sidecar has none, it can be restored and verified.
    """

    def __init__(
        self,
        array: StoredArray,
        key: Key,
        marks: Marks,
        engine: Engine,
        plan: Plan | None,
        progress: Progress | None,
        n_frames: int = 0,
        snr: float | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self._array = array
        self._coding = "FLOAT" if array.dtype.kind == "f" else "PCM_16"
        self._frame_bytes = array.channels * array.dtype.itemsize
        self._key = key
        self._forms = Forms(key, marks, engine)
        self._plan = plan
        self._snr = snr
        self.notes = notes
        self._progress, self._process = progress, os.getpid()
        self._n_frames = plan.n_frames if plan is not None else n_frames
        self._n_looked_at = self._n_done = 0  # frames
        self._until = np.zeros(len(array.lengths), np.int64)  # frames of each clip that are recorded
        self._skipped = np.empty(0, np.int64)
        self.tally = Tally()
        if plan is not None:
            self.tally = Tally(**plan.counts())

    def __enter__(self) -> ArrayTarget:
        return self

    def __exit__(self, *_: object) -> None:
        self._array.close()

    def header(self, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        plan = self._planned
        return {
            **(known or {}),
            **record.describe("array", plan, self._snr, self.notes if known is None else known["notes"]),
            "labels": record.keyed_mac(self._key, b"labels", plan.digest()),
            "rate": plan.rates[0],
            "dtype": self._array.dtype.str,
            "shape": list(self._array.shape),
            "place": self._array.location(),
            "frames": plan.n_frames,
        }

    def settings(self) -> Settings:
        """What a report says of the run."""
        return self._planned.settings()

    def rehearse(self) -> None:
        """Count what protecting would do, and refuse what it would refuse, without writing."""
        for patches in self.planned():
            dry = self.originals(patches)
            if not self._forms.marks.steady:
                packed.refuse_non_finite(self._array.survey(patches, self._forms.engine), patches)
            self._forms.fresh(dry, self._stretches(patches), self.tally)
            self.advance(patches)

    def preflight(self) -> None:
        """Check samples and free space before the first byte is written."""
        plan = self._planned
        self._array.preflight()
        if self._array.dtype.kind == "f" and not self._forms.marks.steady:
            for patches in self.planned():
                packed.refuse_non_finite(self._array.survey(patches, self._forms.engine), patches)
        n_bytes = plan.n_frames * self._frame_bytes
        disk.refuse_without_room(self._array.path, self._array.room(plan.n_patches, n_bytes))
        share = SHARE_KEPT_OF_FLOAT if self._coding == "FLOAT" else SHARE_KEPT
        kept = int(share * n_bytes) if self._array.computed and self._forms.marks.steady else n_bytes
        disk.refuse_without_room(self._array.sidecar, kept + plan.n_patches * BYTES_PER_PATCH)

    def planned(self) -> Iterator[Patches]:
        for patches in self._planned.batches(self._frame_bytes):
            left = patches.starts >= self._until[patches.clips]
            if len(self._skipped):
                left &= ~np.isin(patches.clips, self._skipped)
            if left.all():
                yield patches
            elif left.any():
                yield patches.some(left)

    def recorded(self, batch: Patches) -> None:
        np.maximum.at(self._until, batch.clips, batch.starts + batch.sizes)

    def skip(self, names: Collection[str]) -> None:
        self._skipped = np.array([_number(name) for name in names], np.int64)

    def announce(self, batch: Patches) -> bytes:
        fields = (batch.clips, "<i8"), (batch.starts, "<i8"), (batch.sizes, "<u4"), (batch.rows, "<u4")
        return struct.pack("<Q", len(batch)) + b"".join(field.astype(kind).tobytes() for field, kind in fields)

    def parse(self, announcement: memoryview) -> Patches:
        (n,) = struct.unpack_from("<Q", announcement)
        fields, offset = [], 8
        for kind in ("<i8", "<i8", "<u4", "<u4"):
            fields.append(np.frombuffer(announcement, kind, n, offset).astype(np.int64))
            offset += n * np.dtype(kind).itemsize
        patches = Patches(*fields)
        if n and (
            patches.clips.max() >= len(self._until) or (patches.starts + patches.sizes).max() > self._array.shape[1]
        ):
            raise SidecarError(f"{self._array.sidecar} names clips that {self._array.path} does not have.")
        return patches

    def originals(self, batch: Patches) -> Bytes:
        """Of patches that are not recorded yet."""
        return _bytes_of(self._array.read(batch))

    def fresh(self, batch: Patches) -> Fresh:
        digests, content, wet = self._forms.fresh(self.originals(batch), self._stretches(batch), self.tally)
        return Fresh(digests.astype("<u8").tobytes(), content, lambda: self._write(batch, wet))

    def differing(self, batch: Patches, digest: bytes) -> list[str]:
        digests = self._forms.digests(self.originals(batch), self._stretches(batch))
        changed = batch.clips[digests != np.frombuffer(digest, "<u8")]
        return [f"{CLIP}{clip}" for clip in np.unique(changed).tolist()]

    def examine(self, batch: Patches, content: memoryview, torn: TornPieces, place: Bookmark) -> ArrayAnswer:
        del place
        now = _bytes_of(self._array.read(batch))
        known = {piece: original for (_, piece), original in torn.items()}
        return ArrayAnswer(self, batch, now, self._forms.examine(now, self._stretches(batch), content, known))

    def put(self, batch: Patches, dense: Bytes, which: NDArray[np.bool_]) -> None:
        """Store some patches of a dense buffer."""
        if which.all():
            self._write(batch, dense)
        elif which.any():
            self._write(batch.some(which), dense[np.repeat(which, batch.sizes * self._frame_bytes)])

    def count(self, batch: Patches, dry: Bytes, odd: int | None) -> None:
        """Add some originals to the tally."""
        self._forms.count(self.tally, dry, self._stretches(batch), odd)

    def tally_of(self, tally: Tally, batch: Patches, dry: Bytes) -> None:
        """Add to a tally what is there and what marking does to some originals."""
        stretches = self._stretches(batch)
        self._forms.count(tally, dry, stretches, self._forms.mark(dry.copy(), stretches))

    def unwritable(self, batch: Patches) -> list[str]:
        del batch  # the array is open for writing
        return []

    def unfinished(self) -> tuple[()]:
        return ()

    def looked(self, batch: Patches) -> None:
        self._n_looked_at += batch.n_frames
        self._tell()

    def advance(self, batch: Patches) -> None:
        self._n_done += batch.n_frames
        self._tell()

    def sync(self) -> None:
        self._array.sync()

    @property
    def _planned(self) -> Plan:
        if self._plan is None:
            raise RuntimeError("a target that was read from a sidecar has no plan")
        return self._plan

    def _stretches(self, batch: Patches) -> Stretches:
        computed = self._array.computed and self._forms.marks.steady
        return Stretches(self._coding, self._array.channels, batch, self._array.firsts(batch), computed)

    def _write(self, batch: Patches, dense: Bytes) -> None:
        self._array.write(batch, dense.view(self._array.dtype))

    def _tell(self) -> None:
        if self._progress is not None:
            twice = 2 if self._n_looked_at else 1
            self._progress(self._n_looked_at + self._n_done, twice * self._n_frames)
            disk.refuse_fork(self._process)


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class ArrayAnswer:
    """What a recorded batch of patches is now; see `undo.steps.Answer`.

    Attributes
    ----------
    patches : Patches
    now : (n_bytes,) uint8
    forms : forms.Answer
    """

    target: ArrayTarget
    patches: Patches
    now: Bytes
    forms: forms.Answer

    def verdicts(self) -> Iterator[tuple[str, Verdict]]:
        names = [f"{CLIP}{clip}" for clip in self.patches.clips.tolist()]
        return zip(names, map(Verdict, self.forms.verdicts().tolist()), strict=True)

    def torn(self) -> TornPieces:
        return {(0, piece): original for piece, original in self.forms.found.items()}

    def protect(self, skipped: Collection[str], *, everywhere: bool) -> None:
        self._put(skipped, Verdict.PROTECTED, everywhere=everywhere)
        self.target.count(self.patches, self.forms.dry, self.forms.odd)

    def restore(self, skipped: Collection[str], *, everywhere: bool) -> None:
        self._put(skipped, Verdict.ORIGINAL, everywhere=everywhere)
        self.target.count(self.patches, self.forms.dry, None)

    def _put(self, skipped: Collection[str], wanted: Verdict, *, everywhere: bool) -> None:
        which = self._others(skipped)
        if not everywhere:
            which &= self.forms.verdicts() & wanted == 0
        self.target.put(self.patches, self.forms.wet if wanted is Verdict.PROTECTED else self.forms.dry, which)

    def _others(self, skipped: Collection[str]) -> NDArray[np.bool_]:
        """Which patches are not skipped; DatasetError if one of them was changed since they were looked at."""
        which = np.ones(len(self.patches), np.bool_)
        if skipped:
            which = ~np.isin(self.patches.clips, [_number(name) for name in skipped])
        changed = self.patches.clips[which & (self.forms.verdicts() == Verdict.NEITHER)]
        if changed.size:
            raise DatasetError(f"Clip {changed[0]} was changed while this run was at work on it; run it again.")
        return which


def recorded(journal: Journal, array: StoredArray, key: Key, progress: Progress | None) -> ArrayTarget:
    """The target that a sidecar was made for, if `array` has its shape; otherwise `array` is closed, SidecarError."""
    try:
        record.refuse_unless(journal, "array")
        header = journal.header
        if [header["dtype"], header["shape"]] != [array.dtype.str, list(array.shape)]:
            raise SidecarError(
                f"The sidecar {journal.path} was made for an array of shape {tuple(header['shape'])} and dtype "
                f"{header['dtype']}; this one has {array.shape} and {array.dtype.str}. Open it as it was protected."
            )
        if header["place"] != array.location():
            raise SidecarError(
                f"The sidecar {journal.path} was made for an array that lies elsewhere in its file. Open it as it was "
                f"protected."
            )
    except BaseException:
        array.close()
        raise
    target = ArrayTarget(array, key, record.marks_of(key, header), Engine(), None, progress, header["frames"])
    target.tally = Tally(**header["counts"])
    return target


def _number(name: str) -> int:
    return int(name.removeprefix(CLIP))


def _bytes_of(dense: NDArray[Any]) -> Bytes:
    return dense.view(np.uint8)
