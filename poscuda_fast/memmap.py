"""Protecting, restoring and verifying arrays that are mapped from a file, durably."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import mmap
import os
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import dense, inplace
from poscuda_fast.arrays import ArrayClips
from poscuda_fast.errors import SidecarError
from poscuda_fast.inplace import Progress
from poscuda_fast.journal import Journal, State
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key
from poscuda_fast.memory import check_key, count, make_plan, patches_per_batch
from poscuda_fast.plan import Patches, Plan, draw_taps
from poscuda_fast.recipe import Recipe
from poscuda_fast.report import Report, Tally
from poscuda_fast.verification import Verification

SIDECAR_SUFFIX = ".poscuda"
WITNESS_CLIPS = 64
WITNESS_FRAMES = 2048


def protect_memmap(
    arr: NDArray[Any],
    labels: Any,
    key: Key,
    *,
    recipe: Recipe = Recipe(),
    lengths: Any = None,
    classes: Sequence[str] | None = None,
    backend: str = "auto",
    threads: int | None = None,
    sidecar: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Protect a memory-mapped array of clips in its file, durably.

    The original patches are sealed with the key into a sidecar before anything is overwritten. Killed
    at any moment, the same call made again finishes the job; on a finished file it changes nothing and
    its report says "already protected". Without its sidecar a protected file cannot be recognised, and
    a second run would filter it again: keep the two together.

    Parameters
    ----------
    arr : np.memmap, int16 or float32
        (n_clips, n_frames) or (n_clips, n_frames, n_channels), opened with mode "r+"; raw or .npy,
        also a view of one. Only frames inside patches change, in the file.
    labels, key, recipe, lengths, classes, backend, threads
        As for `protect`.
    sidecar : path, optional
        Where the originals are kept: by default the file's own path with ".poscuda" behind it. It
        takes about the bytes of the patches (480 for a default int16 patch) and 5 % more.
    progress : callable, optional
        Called with (patches done, patches in all) after every batch.

    Returns
    -------
    Report
        With state "protected" or "already protected".

    Raises
    ------
    TypeError, ValueError
        As for `protect`; also an array that is not mapped from a file, or mapped copy-on-write.
        Nothing was written.
    SidecarError
        The sidecar is damaged, of another key, or made for other data, labels, lengths or another
        recipe. Nothing was written.
    BusyError
        Another run is at work on the file.
    OSError
        Not enough room for the sidecar, or a write or sync failed; the same call made again in a new
        process resumes.

    Notes
    -----
    The protocol is in FORMAT.md, "Sidecar".
    """
    begun = time.perf_counter()
    mapped = MappedFile(arr, sidecar)
    audio = ArrayClips(arr, lengths)
    plan = make_plan(key, recipe, labels, classes, audio)
    target = ArrayTarget(mapped, audio, key, plan.taps, Engine(backend, threads), plan, progress)
    with mapped.locked(), Journal(mapped.sidecar, key) as journal:
        inplace.refuse_if_undoing(journal)
        if journal.state in (State.APPLYING, State.COMPLETE):
            inplace.refuse_other_run(journal, target.header())
        else:
            target.preflight()
        if journal.state is State.COMPLETE:
            tally, state = Tally(**journal.summary["counts"]), "already protected"
        else:
            inplace.apply(journal, target)
            tally, state = target.tally, "protected"
    return tally.report(state, key.fingerprint, time.perf_counter() - begun)


def restore_memmap(
    arr: NDArray[Any], key: Key, *, sidecar: str | os.PathLike[str] | None = None, progress: Progress | None = None
) -> Report:
    """Put the original samples of a protected memory-mapped array back, bit for bit.

    Killed at any moment, the same call made again finishes the job. The sidecar stays, in state
    "undone"; it may then be deleted.

    Parameters
    ----------
    arr : np.memmap
        The array as it was given to `protect_memmap`: same shape, dtype and place in the file.
    key : Key
        The key it was protected with.
    sidecar : path, optional
        As given to `protect_memmap`.
    progress : callable, optional
        Called with (patches done, patches in all) after every batch.

    Returns
    -------
    Report
        With state "restored" or "already original".

    Raises
    ------
    SidecarError
        There is none, or it is damaged, of another key, or made for other data. Nothing was written.
    TypeError, ValueError, BusyError, OSError
        As for `protect_memmap`.
    """
    begun = time.perf_counter()
    check_key(key)
    mapped = MappedFile(arr, sidecar)
    with mapped.locked(), Journal(mapped.sidecar, key) as journal:
        target = _recorded(journal, mapped, ArrayClips(arr, None), key, progress)
        if journal.state is State.UNDONE:
            tally, state = Tally(**journal.summary["counts"]), "already original"
        else:
            inplace.undo(journal, target)
            tally, state = target.tally, "restored"
    return tally.report(state, key.fingerprint, time.perf_counter() - begun)


def verify_memmap(arr: NDArray[Any], key: Key, *, sidecar: str | os.PathLike[str] | None = None) -> Verification:
    """Compare every patch of a memory-mapped array with its journalled original and that one's filtered form.

    Parameters and errors are those of `restore_memmap`; nothing is written. Bytes outside patches are
    compared by sample only, as the sidecar keeps no more of them.

    Returns
    -------
    Verification
        Of clips, named by their numbers.
    """
    check_key(key)
    mapped = MappedFile(arr, sidecar, writing=False)
    with mapped.locked(), Journal(mapped.sidecar, key) as journal:
        target = _recorded(journal, mapped, ArrayClips(arr, None, writing=False), key, None)
        verdicts: dict[int, set[str]] = {}
        for payload in journal.payloads():
            for clip, verdict in target.judge(payload):
                verdicts.setdefault(clip, set()).add(verdict)
        return Verification.of(((str(clip), seen) for clip, seen in sorted(verdicts.items())), journal.state.value)


class MappedFile:
    """The file behind a memory-mapped array, checked, and its sidecar."""

    def __init__(self, arr: NDArray[Any], sidecar: str | os.PathLike[str] | None, *, writing: bool = True) -> None:
        root = _root(arr)
        mode = getattr(root, "mode", None)
        if mode == "c":
            raise ValueError('arr is mapped copy-on-write (mode="c"): edits would never reach the file; use mode="r+".')
        if writing and mode not in ("r+", "w+"):
            raise ValueError(f'arr is mapped with mode="{mode}"; open the array with mode="r+" to edit its file.')
        if root.filename is None:
            raise ValueError("arr is mapped from a file without a name; map it by its path.")
        self.path = Path(os.path.realpath(root.filename))
        self.sidecar = Path(sidecar) if sidecar is not None else self.path.with_name(self.path.name + SIDECAR_SUFFIX)
        self._mapping = _mapping_of(root)
        self._refuse_replaced(root)

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Hold the file's lock."""
        return inplace.locked(self.path)

    def sync(self) -> None:
        """Return once every store to the mapping is on the disk; OSError otherwise."""
        self._mapping.flush()

    def _refuse_replaced(self, root: np.memmap[Any, Any]) -> None:
        """Edits of a mapping whose file has gone, or has been cut, would be lost or crash."""
        size = os.stat(self.path).st_size
        if size < root.offset + root.nbytes:
            raise ValueError(
                f"{self.path} has {size} bytes, fewer than the {root.offset + root.nbytes} that arr maps; it was cut "
                f"after it was mapped. Restore the file and map it again."
            )
        with contextlib.suppress(OSError), open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            address = root.__array_interface__["data"][0]
            for line in maps:
                low, _, high = line.split(" ", 1)[0].partition("-")
                if int(low, 16) <= address < int(high, 16) and line.rstrip().endswith("(deleted)"):
                    raise ValueError(f"{self.path} was deleted or replaced after it was mapped; map it again.")


class ArrayTarget:
    """A mapped array as something that `inplace` can edit."""

    def __init__(
        self,
        mapped: MappedFile,
        audio: ArrayClips,
        key: Key,
        taps: NDArray[np.float32],
        engine: Engine,
        plan: Plan | None,
        progress: Progress | None,
        n_patches: int = 0,
    ) -> None:
        self._mapped = mapped
        self._audio = audio
        self._key = key
        self._taps = taps
        self._engine = engine
        self._plan = plan
        self._progress = progress
        self._n_patches = plan.n_patches if plan is not None else n_patches
        self._n_batches = 0
        self.tally = Tally()
        if plan is not None:
            self.tally = Tally(clips=len(plan.lengths), short_clips=plan.n_short)

    def header(self) -> dict[str, Any]:
        plan = self._planned()
        mac = hmac.digest(self._key.derive(b"sidecar", b"labels", length=32), plan.digest(), "sha256")
        return {
            "kind": "array",
            "recipe": plan.recipe.to_dict(),
            "dtype": self._audio.dtype.str,
            "shape": list(self._audio.shape),
            "labels": mac.hex(),
            "batch": patches_per_batch(plan.recipe, self._audio),
            "identity": self.identity(self._witness()),
            "patches": plan.n_patches,
            "counts": {"clips": len(plan.lengths), "short_clips": plan.n_short},
        }

    def secret(self) -> bytes:
        tokens = [token.hex() for token in self._planned().labels.tokens]
        return json.dumps({"tokens": tokens, "witness": self._witness()}).encode()

    def preflight(self) -> None:
        """What must be known before the first byte is written."""
        plan = self._planned()
        step = patches_per_batch(plan.recipe, self._audio)
        if self._audio.dtype.kind == "f":
            for patches in plan.batches(step):
                dense.refuse_non_finite(self._audio.read(patches), patches, self._audio.channels)
        frame_bytes = self._audio.channels * self._audio.dtype.itemsize
        inplace.refuse_without_room(self._mapped.sidecar, plan.n_frames * frame_bytes + plan.n_patches * _PLACE_BYTES)

    def fresh(self) -> Iterator[bytes]:
        plan = self._planned()
        known = self._n_batches
        for number, patches in enumerate(plan.batches(patches_per_batch(plan.recipe, self._audio))):
            if number >= known:
                yield pack(patches, self._audio.read(patches))

    def recheck(self, payload: bytes) -> list[str]:
        del payload  # the identity in the header covers an array
        return []

    def apply(self, payload: bytes) -> None:
        patches, dry = unpack(payload, self._audio.dtype)
        count(self.tally, patches, dry, self._audio.channels)
        wet = dry.copy()
        self.tally.saturated_samples += dense.filter_dense(wet, patches, self._audio.channels, self._taps, self._engine)
        self._audio.write(patches, wet)
        self._advance()

    def undo(self, payload: bytes) -> None:
        patches, dry = unpack(payload, self._audio.dtype)
        count(self.tally, patches, dry, self._audio.channels)
        self._audio.write(patches, dry)
        self._advance()

    def skip(self, names: list[str]) -> None:
        del names  # an array is undone whole

    def judge(self, payload: bytes) -> Iterator[tuple[int, str]]:
        """(clip, "original" | "protected" | "equal" | "neither") for each patch of a payload."""
        patches, dry = unpack(payload, self._audio.dtype)
        wet = dry.copy()
        dense.filter_dense(wet, patches, self._audio.channels, self._taps, self._engine)
        now = self._audio.read(patches)
        if not dry.size:
            return
        places = dense.offsets(patches, self._audio.channels)
        # Compared as bits: NaN is never equal to itself.
        bits = np.dtype(f"u{self._audio.dtype.itemsize}")
        is_dry = np.logical_and.reduceat(now.view(bits) == dry.view(bits), places)
        is_wet = np.logical_and.reduceat(now.view(bits) == wet.view(bits), places)
        words = np.array(["neither", "original", "protected", "equal"])[is_dry + 2 * is_wet]
        yield from zip(patches.clips.tolist(), words.tolist(), strict=True)

    def sync(self) -> None:
        self._mapped.sync()

    def summary(self) -> dict[str, Any]:
        return {"counts": self.tally.to_dict()}

    def identity(self, witness: list[list[int]]) -> str:
        """A keyed MAC over shape, dtype and the samples that `witness` names, all outside patches."""
        mac = hmac.new(self._key.derive(b"sidecar", b"identity", length=32), digestmod=hashlib.sha256)
        mac.update(repr((self._audio.dtype.str, self._audio.shape)).encode())
        for clip, start, size in witness:
            mac.update(np.ascontiguousarray(self._audio.array[clip, start : start + size]).tobytes())
        return mac.hexdigest()

    def _witness(self) -> list[list[int]]:
        """Some stretches [clip, first frame, frames] that no patch touches, spread over the data."""
        plan = self._planned()
        n_clips, frames = self._audio.shape[:2]
        stretches = []
        for clip in np.unique(np.linspace(0, n_clips - 1, min(n_clips, WITNESS_CLIPS)).astype(np.int64)).tolist():
            patches = plan.of_clip(clip)
            starts = patches.starts[:WITNESS_CLIPS].tolist()
            sizes = patches.sizes[:WITNESS_CLIPS].tolist()
            left = WITNESS_FRAMES
            gap = 0
            following = [*starts, frames if len(starts) == len(patches) else gap]
            for start, size in zip(following, [*sizes, 0], strict=True):
                use = min(max(start - gap, 0), left)
                if use:
                    stretches.append([clip, gap, use])
                left -= use
                gap = start + size
        return stretches

    def _planned(self) -> Plan:
        if self._plan is None:
            raise RuntimeError("a target that was read from a sidecar has no plan")
        return self._plan

    def _advance(self) -> None:
        self._n_batches += 1
        if self._progress is not None:
            self._progress(self.tally.patches, self._n_patches)


_PLACE_BYTES = 24


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


def _root(arr: NDArray[Any]) -> np.memmap[Any, Any]:
    """The np.memmap that a (view of a) mapped array comes from."""
    root: Any = arr
    while isinstance(root, np.ndarray):
        if isinstance(root, np.memmap) and _mapping_of(root) is not None:
            return root
        root = root.base
    raise TypeError(
        f"arr is a {type(arr).__name__} that is not mapped from a file; open it with numpy.memmap or "
        f'numpy.load(path, mmap_mode="r+"), or use protect for arrays in memory.'
    )


def _mapping_of(root: np.memmap[Any, Any]) -> Any:
    """The mmap object that holds an array's memory, if one does."""
    base: Any = root.base
    return base if isinstance(base, mmap.mmap) else None


def _recorded(
    journal: Journal, mapped: MappedFile, audio: ArrayClips, key: Key, progress: Progress | None
) -> ArrayTarget:
    """The target that a sidecar was made for, if `audio` is it."""
    if journal.state is State.NEW:
        raise SidecarError(
            f"There is no finished or begun run in {journal.path}; without its sidecar protected data cannot be "
            f"recognised or restored. If the sidecar was moved, give its path."
        )
    header, secret = journal.header, json.loads(journal.secret)
    if header["kind"] != "array":
        raise SidecarError(f"The sidecar {journal.path} belongs to a folder of files, not to an array.")
    recipe = Recipe.from_dict(header["recipe"])
    taps = np.array([draw_taps(key, bytes.fromhex(token), recipe) for token in secret["tokens"]], np.float32)
    target = ArrayTarget(mapped, audio, key, taps, Engine(), None, progress, header["patches"])
    target.tally = Tally(**header["counts"])
    if [header["dtype"], header["shape"]] != [audio.dtype.str, list(audio.shape)]:
        raise SidecarError(
            f"The sidecar {journal.path} was made for an array of shape {tuple(header['shape'])} and dtype "
            f"{header['dtype']}; arr has {audio.shape} and {audio.dtype.str}. Open it as it was protected."
        )
    if not hmac.compare_digest(target.identity(secret["witness"]), header["identity"]):
        raise SidecarError(
            f"The sidecar {journal.path} was made for other data: samples outside the patches differ. If the file "
            f"was edited since, undo the edit; nothing was written."
        )
    return target
