"""An array of clips by its path: a .npy file, or the folder of a Zarr array."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from poscuda_fast import array_runs, pages, pcm, sharded
from poscuda_fast.array_copy import ArrayCopy
from poscuda_fast.array_target import Storage, StoredClips
from poscuda_fast.discretion import discreet
from poscuda_fast.errors import DatasetError
from poscuda_fast.inplace import Progress
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key
from poscuda_fast.memory import check_key
from poscuda_fast.recipe import Recipe
from poscuda_fast.report import Report
from poscuda_fast.verification import Verification


def is_array(path: Path) -> bool:
    """Whether a path is that of an array rather than of audio files."""
    return sharded.is_zarr(path) or (path.suffix == ".npy" and not path.is_dir())


def open_stored(
    path: Path,
    sidecar: str | os.PathLike[str] | None = None,
    *,
    lengths: Any = None,
    writing: bool = False,
    threads: int | None = None,
) -> tuple[Storage, StoredClips]:
    """Where an array is kept, and its clips; its header or metadata are checked before anything is read.

    Raises
    ------
    DatasetError, AudioFileError, TypeError, ValueError
        It is not there, or no array of int16 or float32 clips that can be edited exactly; or lengths do not fit.
    """
    if not path.exists():
        raise DatasetError(f"{path} does not exist; give a .npy file, or the folder of a Zarr array.")
    if sharded.is_zarr(path):
        return sharded.open_folder(path, sidecar, lengths=lengths, workers=threads)
    return pages.open_mapped(pcm.map_npy(path, writing=writing), sidecar, lengths=lengths, writing=writing)


@discreet
def protect(
    src: Path,
    dst: Path | None,
    labels: Any,
    key: Key,
    *,
    recipe: Recipe,
    lengths: Any = None,
    classes: Sequence[str] | None = None,
    backend: str = "auto",
    threads: int | None = None,
    sidecar: Path | None = None,
    progress: Progress | None = None,
    dry_run: bool = False,
) -> Report:
    """Protect an array in place, or as a copy at `dst`; other arguments as for `protect_memmap`.

    Raises
    ------
    DatasetError
        `dst` exists, other than as a copy that an earlier call began; is, or lies inside, `src`; or has no folder.
    SidecarError
        `src` is protected already, so that its copy would be marked twice; or the sidecar is of a copy that has gone.
    AudioFileError, TypeError, ValueError, BusyError, OSError
        As for `open_stored` and `protect_memmap`.
    """
    check_key(key)
    engine = Engine(backend, threads)

    def run(path: Path, beside: Path | None, progress: Progress | None, *, dry_run: bool) -> Report:
        storage, clips = open_stored(path, beside, lengths=lengths, writing=not dry_run, threads=threads)
        return array_runs.protect(storage, clips, labels, key, recipe, classes, engine, progress, dry_run=dry_run)

    if dst is None:
        return run(src, sidecar, progress, dry_run=dry_run)
    copy = ArrayCopy(src, dst, sidecar)
    if copy.is_whole:
        copy.tidy()
        return run(dst, copy.sidecar, progress, dry_run=dry_run)
    if dry_run:
        copy.refuse_marked(key)
        return run(src, None, progress, dry_run=True)
    with copy.alone():
        if not copy.is_begun:
            copy.refuse_marked(key)
            run(src, None, None, dry_run=True)  # what can be refused is refused before the copy is made
            copy.begin()
        report = run(copy.part, copy.sidecar_of_part, progress, dry_run=False)
        copy.finish()
    return report


@discreet
def restore(path: Path, key: Key, *, sidecar: Path | None, progress: Progress | None) -> Report:
    """`restore_memmap` for an array by its path."""
    check_key(key)
    return array_runs.restore(*open_stored(path, sidecar, writing=True), key, progress)


@discreet
def verify(path: Path, key: Key, *, sidecar: Path | None) -> Verification:
    """`verify_memmap` for an array by its path."""
    check_key(key)
    return array_runs.verify(*open_stored(path, sidecar), key)
