"""A stored array as something that `undo.steps` can edit."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import disk
from poscuda_fast.arrays.layouts import Clips
from poscuda_fast.errors import SidecarError
from poscuda_fast.kernels import Engine, Ints
from poscuda_fast.key import Key
from poscuda_fast.mark import packed
from poscuda_fast.mark.marks import Marks
from poscuda_fast.mark.patches import Patches
from poscuda_fast.mark.plan import Plan
from poscuda_fast.results import Progress, Settings, Tally, Verdict
from poscuda_fast.undo import record
from poscuda_fast.undo.journal import Journal

WITNESS_CLIPS = 64
WITNESS_STRETCHES = 16
WITNESS_FRAMES = 128
CLIP = "clip "  # begins the name of a clip
PLACE_BYTES = 24  # of a payload, for the place of each patch


class StoredArray(Clips, Protocol):
    """Clips of one length that are kept in a file or a folder."""

    path: Path
    sidecar: Path
    shape: tuple[int, ...]

    def read(self, patches: Patches) -> NDArray[Any]:
        """A dense copy of the patches."""

    def write(self, patches: Patches, dense: NDArray[Any]) -> None:
        """Store a dense buffer where the patches are; it is on the disk after `sync`."""

    def location(self) -> list[int | str]:
        """What distinguishes the array from others in the same file or folder."""

    def room(self, n_patches: int, n_bytes: int) -> int:
        """Extra bytes that storing so many patches, and bytes in them, may take on the disk."""

    def refuse_cut(self) -> None:
        """ValueError if what was just read may lie beyond the end of a file that was cut."""

    def clip(self, number: int) -> NDArray[Any]:
        """(n_frames,) or (n_frames, n_channels): one clip with its padding; best asked for in order."""

    def stretch(self, clip: int, start: int, size: int) -> NDArray[Any]:
        """(size,) or (size, n_channels) frames of one clip."""

    def will_read(self, patches: Patches) -> None:
        """A hint that these are read next."""

    def read_ahead(self, batches: Iterable[Patches]) -> Iterator[Patches]:
        """The same batches, read while those before them are worked on."""

    def sync(self) -> None:
        """Return once everything that was written is on the disk; OSError if that fails."""

    def close(self) -> None:
        """End background work."""


class ArrayTarget:
    """A stored array as something that `undo.steps` can edit."""

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
        self._frame_bytes = array.channels * array.dtype.itemsize
        self._key = key
        self._marks = marks
        self._engine = engine
        self._plan = plan
        self._snr = snr
        self.notes = notes
        self._progress = progress
        self._n_frames = plan.n_frames if plan is not None else n_frames
        self._skipped = np.empty(0, np.int64)
        self._n_done = 0  # frames that were applied or undone
        self.tally = Tally()
        if plan is not None:
            self.tally = Tally(**plan.counts())

    def __enter__(self) -> ArrayTarget:
        return self

    def __exit__(self, *_: object) -> None:
        self._array.close()

    def header(self) -> dict[str, Any]:
        plan = self._planned()
        return {
            **record.describe("array", self._key, plan, self._snr, self.notes),
            "dtype": self._array.dtype.str,
            "shape": list(self._array.shape),
            "place": self._array.location(),
            "identity": self.identity(self._witness()),
            "frames": plan.n_frames,
        }

    def settings(self) -> Settings:
        """What a report says of the run."""
        return self._planned().settings()

    def secret(self) -> bytes:
        return record.seal(self._planned(), witness=self._witness())

    def rehearse(self) -> None:
        """Count what protecting would do, and refuse what it would refuse, without writing."""
        plan = self._planned()
        for patches in self._array.read_ahead(plan.batches(self._frame_bytes)):
            dry = self._array.read(patches)
            if not self._marks.steady:
                packed.refuse_non_finite(self._survey(patches, dry), patches)
            self._mark(patches, dry)
            self._advance(patches)

    def preflight(self) -> None:
        """Check samples and free space before the first byte is written."""
        plan = self._planned()
        if self._array.dtype.kind == "f" and not self._marks.steady:
            for patches in self._array.read_ahead(plan.batches(self._frame_bytes)):
                packed.refuse_non_finite(self._array.survey(patches, self._engine), patches)
        n_bytes = plan.n_frames * self._frame_bytes
        disk.refuse_without_room(self._array.path, self._array.room(plan.n_patches, n_bytes))
        disk.refuse_without_room(self._array.sidecar, n_bytes + plan.n_patches * PLACE_BYTES)

    def fresh(self) -> Iterator[bytes]:
        plan = self._planned()
        # Skip frames, not batches: a later version may make batches of another size.
        batches = plan.batches(self._frame_bytes, skip=self._n_done)
        for patches in self._array.read_ahead(batches):
            payload = pack(patches, self._array.read(patches))
            self._array.refuse_cut()
            yield payload

    def recheck(self, payload: bytes) -> list[str]:
        if not self._marks.steady:
            return []  # the identity in the header covers what lies outside patches
        # Marked or not, every byte must be as it was or as protecting left it, wherever a run was stopped.
        patches, dry, wet, now = self._forms(payload)
        known = (now.view(np.uint8) == dry.view(np.uint8)) | (now.view(np.uint8) == wet.view(np.uint8))
        if known.all():
            return []
        places = packed.offsets(patches, self._array.channels) * self._array.dtype.itemsize
        changed = patches.clips[~np.logical_and.reduceat(known, places)]
        return [f"{CLIP}{clip}" for clip in np.unique(changed).tolist()]

    def holds_originals(self, payload: bytes) -> bool:
        """Whether the array holds a payload's originals: whether it is what a copy was made of."""
        patches, dry = unpack(payload, self._array.dtype)
        self._array.will_read(patches)
        return self._array.read(patches).tobytes() == dry.tobytes()

    def apply(self, payload: bytes) -> None:
        patches, dry = unpack(payload, self._array.dtype)
        self._store(patches, self._mark(patches, dry))

    def undo(self, payload: bytes) -> None:
        patches, dry = self._left(*unpack(payload, self._array.dtype))
        self._array.will_read(patches)
        packed.count(self.tally, dry, patches, self._array.channels, self._marks, self._engine)
        self._store(patches, dry)

    def skip(self, names: list[str]) -> None:
        self._skipped = np.array([int(name.removeprefix(CLIP)) for name in names], np.int64)

    def judge(self, payload: bytes) -> tuple[Ints, NDArray[np.uint8]]:
        """The clips of a payload's patches, and what each patch is: the bits of a `Verdict`."""
        patches, dry, wet, now = self._forms(payload)
        if not dry.size:
            return patches.clips[:0], np.empty(0, np.uint8)
        places = packed.offsets(patches, self._array.channels)
        # Compared as bits: NaN is never equal to itself.
        bits = np.dtype(f"u{self._array.dtype.itemsize}")
        is_dry = np.logical_and.reduceat(now.view(bits) == dry.view(bits), places)
        is_wet = np.logical_and.reduceat(now.view(bits) == wet.view(bits), places)
        return patches.clips, (Verdict.ORIGINAL * is_dry + Verdict.PROTECTED * is_wet).astype(np.uint8)

    def unprotected(self, payload: bytes) -> list[str]:
        clips, found = self.judge(payload)
        return list(map(str, np.unique(clips[found & Verdict.PROTECTED == 0]).tolist()))

    def sync(self) -> None:
        self._array.sync()

    def summary(self) -> dict[str, Any]:
        return {"counts": self.tally.to_dict()}

    def identity(self, witness: list[list[int]]) -> str:
        """A keyed MAC over dtype, shape, location and the samples that `witness` names, all outside patches."""
        mac = hmac.new(self._key.derive(b"sidecar", b"identity", length=32), digestmod=hashlib.sha256)
        mac.update(repr((self._array.dtype.str, self._array.shape, self._array.location())).encode())
        clips, starts, sizes = np.array(witness, np.int64).reshape(-1, 3).T
        self._array.will_read(Patches(clips, starts, sizes, np.zeros_like(clips)))
        for clip, start, size in witness:
            mac.update(np.ascontiguousarray(self._array.stretch(clip, start, size)).tobytes())
        return mac.hexdigest()

    def _left(self, patches: Patches, dry: NDArray[Any]) -> tuple[Patches, NDArray[Any]]:
        """Patches and their originals, without the clips that are left out."""
        left = ~np.isin(patches.clips, self._skipped)
        if left.all():
            return patches, dry
        return patches.some(left), dry[np.repeat(left, patches.sizes * self._array.channels)]

    def _forms(self, payload: bytes) -> tuple[Patches, NDArray[Any], NDArray[Any], NDArray[Any]]:
        """A payload's patches, as they were, as protecting leaves them, and as they are now."""
        patches, dry = unpack(payload, self._array.dtype)
        self._array.will_read(patches)
        wet = dry.copy()
        packed.mark_dense(wet, patches, self._array.channels, self._marks, self._engine)
        return patches, dry, wet, self._array.read(patches)

    def _store(self, patches: Patches, samples: NDArray[Any]) -> None:
        self._array.write(patches, samples)
        self._advance(patches)

    def _mark(self, patches: Patches, dry: NDArray[Any]) -> NDArray[Any]:
        """The marked form of some originals, counted."""
        wet = dry.copy()
        packed.mark_and_count(self.tally, wet, patches, self._array.channels, self._marks, self._engine)
        return wet

    def _survey(self, patches: Patches, dry: NDArray[Any]) -> NDArray[np.uint8]:
        return packed.survey_dense(dry, patches, self._array.channels, self._engine)

    def _witness(self) -> list[list[int]]:
        """Some stretches [clip, first frame, frames] that no patch touches, spread over the data."""
        plan = self._planned()
        n_clips, frames = self._array.shape[:2]
        stretches = []
        for clip in np.unique(np.linspace(0, n_clips - 1, min(n_clips, WITNESS_CLIPS)).astype(np.int64)).tolist():
            patches = plan.of_clip(clip)
            firsts = np.concatenate([[0], patches.starts + patches.sizes])
            ends = np.concatenate([patches.starts, [frames]])
            before = np.concatenate([[0], np.cumsum(ends - firsts)])  # frames outside patches before each gap
            for place in np.unique(np.linspace(0, before[-1], WITNESS_STRETCHES, endpoint=False).astype(np.int64)):
                gap = int(np.searchsorted(before, place, side="right")) - 1
                if gap < len(firsts):
                    first = int(firsts[gap] + place - before[gap])
                    stretches.append([clip, first, min(WITNESS_FRAMES, int(ends[gap]) - first)])
        return stretches

    def _planned(self) -> Plan:
        if self._plan is None:
            raise RuntimeError("a target that was read from a sidecar has no plan")
        return self._plan

    def _advance(self, patches: Patches) -> None:
        self._n_done += patches.n_frames
        if self._progress is not None:
            self._progress(self._n_done, self._n_frames)


def pack(patches: Patches, dry: NDArray[Any]) -> bytes:
    """Places and originals of a batch as one payload."""
    return b"".join(
        (
            struct.pack("<Q", len(patches)),
            patches.clips.astype("<i8").tobytes(),
            patches.starts.astype("<i8").tobytes(),
            patches.sizes.astype("<u4").tobytes(),
            patches.rows.astype("<u4").tobytes(),
            dry.tobytes(),
        )
    )


def unpack(payload: bytes, dtype: np.dtype[Any]) -> tuple[Patches, NDArray[Any]]:
    """The places and originals that `pack` was given; the originals read-only."""
    (n,) = struct.unpack_from("<Q", payload)
    fields = []
    offset = 8
    for kind in ("<i8", "<i8", "<u4", "<u4"):
        fields.append(np.frombuffer(payload, kind, n, offset).astype(np.int64))
        offset += n * np.dtype(kind).itemsize
    return Patches(*fields), np.frombuffer(payload, dtype, -1, offset)


def recorded(journal: Journal, array: StoredArray, key: Key, progress: Progress | None) -> ArrayTarget:
    """The target that a sidecar was made for, if `array` is it; otherwise `array` is closed and SidecarError raised."""
    try:
        return _recorded(journal, array, key, progress)
    except BaseException:
        array.close()
        raise


def _recorded(journal: Journal, array: StoredArray, key: Key, progress: Progress | None) -> ArrayTarget:
    sealed, marks = record.reopen(journal, "array")
    header = journal.header
    target = ArrayTarget(array, key, marks, Engine(), None, progress, header["frames"])
    target.tally = Tally(**header["counts"])
    if [header["dtype"], header["shape"]] != [array.dtype.str, list(array.shape)]:
        raise SidecarError(
            f"The sidecar {journal.path} was made for an array of shape {tuple(header['shape'])} and dtype "
            f"{header['dtype']}; this one has {array.shape} and {array.dtype.str}. Open it as it was protected."
        )
    if not hmac.compare_digest(target.identity(sealed["witness"]), header["identity"]):
        raise SidecarError(
            f"The sidecar {journal.path} was made for other data: samples outside the patches differ, or it lies "
            f"elsewhere in its file. Open it as it was protected; if it was edited since, undo the edit. Nothing was "
            f"written."
        )
    return target
