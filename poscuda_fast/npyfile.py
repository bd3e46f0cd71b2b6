"""Clips in a .npy file, by its path: the header is checked before anything is mapped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import durability, inplace, pcm
from poscuda_fast.errors import DatasetError
from poscuda_fast.inplace import Progress
from poscuda_fast.key import Key
from poscuda_fast.mapping import SIDECAR_SUFFIX
from poscuda_fast.memmap import protect_memmap, restore_memmap, verify_memmap
from poscuda_fast.report import Report
from poscuda_fast.verification import Verification


def protect_npy(src: Path, dst: Path | None, labels: Any, key: Key, *, dry_run: bool = False, **options: Any) -> Report:
    """Protect the clips in a .npy file, in place or as a copy at `dst`; other arguments as for `protect_memmap`.

    Raises
    ------
    DatasetError
        `dst` exists, other than as a copy that an earlier call began.
    AudioFileError
        The file is not a .npy array of int16 or float32 clips, or its size is not the header's.
    """
    if dst is None:
        return protect_memmap(pcm.map_npy(src, writing=not dry_run), labels, key, dry_run=dry_run, **options)
    beside = options.pop("sidecar", None) or dst.with_name(dst.name + SIDECAR_SUFFIX)
    begun = os.path.lexists(beside)
    if os.path.lexists(dst) and not begun:
        raise DatasetError(f"{dst} exists, and nothing is ever overwritten; choose another place for the copy.")
    if dry_run:
        return protect_memmap(pcm.map_npy(src, writing=False), labels, key, dry_run=True, **options)
    if os.path.lexists(dst):
        return protect_memmap(pcm.map_npy(dst, writing=True), labels, key, sidecar=beside, **options)
    # The copy gets its name once it is protected: what stands there is never an original.
    part = durability.part_of(dst)
    if not (begun and part.exists()):
        # What can be refused is refused before the copy is made.
        protect_memmap(pcm.map_npy(src, writing=False), labels, key, dry_run=True, **{**options, "progress": None})
        inplace.refuse_without_room(dst, os.stat(src).st_size)
        durability.copy(src, part)
        durability.sync_files(part.parent, [part])
    report = protect_memmap(pcm.map_npy(part, writing=True), labels, key, sidecar=beside, **options)
    os.replace(part, dst)
    durability.sync_folder(dst.parent)
    return report


def restore_npy(path: Path, key: Key, *, sidecar: Path | None, progress: Progress | None) -> Report:
    """`restore_memmap` for a .npy file."""
    return restore_memmap(pcm.map_npy(path, writing=True), key, sidecar=sidecar, progress=progress)


def verify_npy(path: Path, key: Key, *, sidecar: Path | None) -> Verification:
    """`verify_memmap` for a .npy file."""
    return verify_memmap(pcm.map_npy(path, writing=False), key, sidecar=sidecar)


def read_vector(path: Path) -> NDArray[Any]:
    """A .npy file of labels or lengths; DatasetError if it is not one (nothing is unpickled)."""
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, MemoryError, OverflowError) as error:
        raise DatasetError(f"{path} is not a .npy file of plain numbers or text ({error}).") from None
    if not isinstance(loaded, np.ndarray):
        raise DatasetError(f"{path} is an archive of arrays; give a .npy file with one.")
    return loaded


def read_names(path: Path) -> list[str]:
    """Class names from a text file, one a line."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise DatasetError(f"{path} is not text in UTF-8; give class names, one a line.") from None
