"""A stored array as something that `inplace` can edit."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import dense, inplace, runs
from poscuda_fast.arrays import Clips
from poscuda_fast.errors import SidecarError
from poscuda_fast.inplace import Progress
from poscuda_fast.journal import Journal
from poscuda_fast.kernels import Engine, Marks
from poscuda_fast.key import Key
from poscuda_fast.memory import count, patches_per_batch
from poscuda_fast.plan import Int64, Patches, Plan
from poscuda_fast.report import Tally

WITNESS_CLIPS = 64
WITNESS_STRETCHES = 16
WITNESS_FRAMES = 128
IS_ORIGINAL, IS_PROTECTED = 1, 2
PLACE_BYTES = 24  # what a payload spends on the place of a patch


class Storage(Protocol):
    """Where an array is kept."""

    path: Path
    sidecar: Path

    def locked(self) -> AbstractContextManager[None]:
        """Hold the lock of the data."""

    def place(self) -> list[int | str]:
        """What tells the array from others in the same storage."""

    def room(self, n_patches: int) -> int:
        """Bytes that storing may take on the disk beyond what is there."""

    def refuse_cut(self) -> None:
        """ValueError if what was read just now may not have been there any more."""

    def read(self, patches: Patches) -> None:
        """Advice: these are read next."""

    def read_ahead(self, batches: Iterable[Patches]) -> Iterator[Patches]:
        """The same batches, read while those before them are worked on."""

    def write(self, patches: Patches) -> None:
        """Advice: these were stored."""

    def sync(self) -> None:
        """Return once everything that was stored is on the disk; OSError otherwise."""

    def close(self) -> None:
        """End what goes on in the background."""


class StoredClips(Clips, Protocol):
    """Clips of one length that are kept somewhere."""

    shape: tuple[int, ...]

    def clip(self, number: int) -> NDArray[Any]:
        """(n_frames,) or (n_frames, n_channels): one clip with its padding; best asked for in order."""

    def stretch(self, clip: int, start: int, size: int) -> NDArray[Any]:
        """(size,) or (size, n_channels) frames of one clip."""


class ArrayTarget:
    """A stored array as something that `inplace` can edit."""

    def __init__(
        self,
        storage: Storage,
        audio: StoredClips,
        key: Key,
        marks: Marks,
        engine: Engine,
        plan: Plan | None,
        progress: Progress | None,
        n_patches: int = 0,
    ) -> None:
        self._storage = storage
        self._audio = audio
        self._key = key
        self._marks = marks
        self._engine = engine
        self._plan = plan
        self._progress = progress
        self._n_patches = plan.n_patches if plan is not None else n_patches
        self.tally = Tally()
        if plan is not None:
            self.tally = Tally(**plan.counts())

    def __enter__(self) -> ArrayTarget:
        return self

    def __exit__(self, *_: object) -> None:
        self._storage.close()

    def header(self) -> dict[str, Any]:
        plan = self._planned()
        return {
            **runs.describe("array", self._key, plan),
            "dtype": self._audio.dtype.str,
            "shape": list(self._audio.shape),
            "place": self._storage.place(),
            "identity": self.identity(self._witness()),
            "patches": plan.n_patches,
        }

    def secret(self) -> bytes:
        return runs.seal(self._planned(), witness=self._witness())

    def rehearse(self) -> None:
        """Count what protecting would do, and refuse what it would refuse, without a write."""
        plan = self._planned()
        for patches in self._storage.read_ahead(plan.batches(patches_per_batch(plan.recipe, self._audio))):
            dry = self._audio.read(patches)
            dense.refuse_non_finite(self._survey(patches, dry), patches)
            self._mark(patches, dry)
            self._advance()

    def preflight(self) -> None:
        """What must be known before the first byte is written."""
        plan = self._planned()
        step = patches_per_batch(plan.recipe, self._audio)
        if self._audio.dtype.kind == "f":
            for patches in self._storage.read_ahead(plan.batches(step)):
                dense.refuse_non_finite(self._audio.survey(patches, self._engine), patches)
        frame_bytes = self._audio.channels * self._audio.dtype.itemsize
        inplace.refuse_without_room(self._storage.path, self._storage.room(plan.n_patches))
        inplace.refuse_without_room(self._storage.sidecar, plan.n_frames * frame_bytes + plan.n_patches * PLACE_BYTES)

    def fresh(self) -> Iterator[bytes]:
        plan = self._planned()
        # By patches, not by batches: a later version may make batches of another size.
        batches = plan.batches(patches_per_batch(plan.recipe, self._audio), skip=self.tally.patches)
        for patches in self._storage.read_ahead(batches):
            payload = pack(patches, self._audio.read(patches))
            self._storage.refuse_cut()
            yield payload

    def recheck(self, payload: bytes) -> list[str]:
        del payload  # the identity in the header covers an array
        return []

    def apply(self, payload: bytes) -> None:
        patches, dry = unpack(payload, self._audio.dtype)
        self._store(patches, self._mark(patches, dry))

    def undo(self, payload: bytes) -> None:
        patches, dry = unpack(payload, self._audio.dtype)
        self._storage.read(patches)
        count(self.tally, patches, self._survey(patches, dry), self._marks)
        self._store(patches, dry)

    def skip(self, names: list[str]) -> None:
        del names  # an array is undone whole

    def judge(self, payload: bytes) -> tuple[Int64, NDArray[np.uint8]]:
        """The clips of a payload's patches, and what each patch is: bits of IS_ORIGINAL and IS_PROTECTED."""
        patches, dry = unpack(payload, self._audio.dtype)
        self._storage.read(patches)
        wet = dry.copy()
        dense.mark_dense(wet, patches, self._audio.channels, self._marks, self._engine)
        now = self._audio.read(patches)
        if not dry.size:
            return patches.clips[:0], np.empty(0, np.uint8)
        places = dense.offsets(patches, self._audio.channels)
        # Compared as bits: NaN is never equal to itself.
        bits = np.dtype(f"u{self._audio.dtype.itemsize}")
        is_dry = np.logical_and.reduceat(now.view(bits) == dry.view(bits), places)
        is_wet = np.logical_and.reduceat(now.view(bits) == wet.view(bits), places)
        return patches.clips, (IS_ORIGINAL * is_dry + IS_PROTECTED * is_wet).astype(np.uint8)

    def unprotected(self, payload: bytes) -> list[str]:
        clips, found = self.judge(payload)
        return list(map(str, np.unique(clips[found & IS_PROTECTED == 0]).tolist()))

    def sync(self) -> None:
        self._storage.sync()

    def summary(self) -> dict[str, Any]:
        return {"counts": self.tally.to_dict()}

    def identity(self, witness: list[list[int]]) -> str:
        """A keyed MAC over shape, dtype and the samples that `witness` names, all outside patches."""
        mac = hmac.new(self._key.derive(b"sidecar", b"identity", length=32), digestmod=hashlib.sha256)
        mac.update(repr((self._audio.dtype.str, self._audio.shape, self._storage.place())).encode())
        clips, starts, sizes = np.array(witness, np.int64).reshape(-1, 3).T
        self._storage.read(Patches(clips, starts, sizes, np.zeros_like(clips)))
        for clip, start, size in witness:
            mac.update(np.ascontiguousarray(self._audio.stretch(clip, start, size)).tobytes())
        return mac.hexdigest()

    def _store(self, patches: Patches, samples: NDArray[Any]) -> None:
        self._audio.write(patches, samples)
        self._storage.write(patches)
        self._advance()

    def _mark(self, patches: Patches, dry: NDArray[Any]) -> NDArray[Any]:
        """The marked form of some originals, counted."""
        count(self.tally, patches, self._survey(patches, dry), self._marks)
        wet = dry.copy()
        self.tally.saturated_samples += dense.mark_dense(wet, patches, self._audio.channels, self._marks, self._engine)
        return wet

    def _survey(self, patches: Patches, dry: NDArray[Any]) -> NDArray[np.uint8]:
        return dense.survey_dense(dry, patches, self._audio.channels, self._engine)

    def _witness(self) -> list[list[int]]:
        """Some stretches [clip, first frame, frames] that no patch touches, spread over the data."""
        plan = self._planned()
        n_clips, frames = self._audio.shape[:2]
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

    def _advance(self) -> None:
        if self._progress is not None:
            self._progress(self.tally.patches, self._n_patches)


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


def recorded(
    journal: Journal, storage: Storage, audio: StoredClips, key: Key, progress: Progress | None
) -> ArrayTarget:
    """The target that a sidecar was made for, if `audio` is it."""
    sealed, marks = runs.reopen(journal, "array")
    header = journal.header
    target = ArrayTarget(storage, audio, key, marks, Engine(), None, progress, header["patches"])
    target.tally = Tally(**header["counts"])
    if [header["dtype"], header["shape"]] != [audio.dtype.str, list(audio.shape)]:
        raise SidecarError(
            f"The sidecar {journal.path} was made for an array of shape {tuple(header['shape'])} and dtype "
            f"{header['dtype']}; this one has {audio.shape} and {audio.dtype.str}. Open it as it was protected."
        )
    if not hmac.compare_digest(target.identity(sealed["witness"]), header["identity"]):
        raise SidecarError(
            f"The sidecar {journal.path} was made for other data: samples outside the patches differ, or it lies "
            f"elsewhere in its file. Open it as it was protected; if it was edited since, undo the edit. Nothing was "
            f"written."
        )
    return target
