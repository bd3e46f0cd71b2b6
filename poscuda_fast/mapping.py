"""The file behind a memory-mapped array."""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import inplace

SIDECAR_SUFFIX = ".poscuda"


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
        self.offset = root.offset + _address(arr) - _address(root)
        # Where the array's lowest sample lies in the file.
        self.lowest = root.offset + np.lib.array_utils.byte_bounds(arr)[0] - _address(root)
        self._n_bytes = root.offset + root.nbytes
        self._refuse_replaced(root)

    def holes(self) -> int:
        """Bytes of the file that take no room on the disk yet."""
        status = os.stat(self.path)
        return max(0, status.st_size - 512 * getattr(status, "st_blocks", status.st_size))

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Hold the file's lock."""
        return inplace.locked(self.path)

    def sync(self) -> None:
        """Return once every store to the mapping is on the disk; OSError otherwise."""
        self._mapping.flush()

    def refuse_cut(self) -> None:
        """ValueError if the file has become shorter: the rest of its last page then reads as zeros."""
        size = os.stat(self.path).st_size
        if size < self._n_bytes:
            raise ValueError(
                f"{self.path} has {size} bytes, fewer than the {self._n_bytes} that arr maps; it was cut after it was "
                f"mapped. Restore the file and map it again."
            )

    def _refuse_replaced(self, root: np.memmap[Any, Any]) -> None:
        """Edits of a mapping whose file has gone, or has been cut, would be lost or crash."""
        self.refuse_cut()
        with contextlib.suppress(OSError), open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            for line in maps:
                low, _, high = line.split(" ", 1)[0].partition("-")
                if int(low, 16) <= _address(root) < int(high, 16):
                    _, _, _, _, inode, *name = line.rstrip("\n").split(maxsplit=5)
                    # Either may differ for one file (overlays, bind mounts), but not both.
                    if name != [str(self.path)] and int(inode) != os.stat(self.path).st_ino:
                        raise ValueError(f"{self.path} was deleted or replaced after it was mapped; map it again.")


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


def _address(array: NDArray[Any]) -> int:
    """Where an array's first element lies in memory."""
    return int(array.__array_interface__["data"][0])
