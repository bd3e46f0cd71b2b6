"""Open a stored array: a memmap, the path of a .npy file or of a Zarr folder, or a Zarr array."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from poscuda_fast.arrays import mapped
from poscuda_fast.arrays.mapped import MappedArray
from poscuda_fast.arrays.target import StoredArray
from poscuda_fast.arrays.zarr import ZarrArray, is_zarr
from poscuda_fast.disk import PathLike
from poscuda_fast.errors import DatasetError

NPY_MAGIC = b"\x93NUMPY"


def is_array(path: Path) -> bool:
    """Whether a path is that of an array rather than of audio files: by content, or a name that says so."""
    if path.is_dir() or path.suffix.lower() == ".npy":
        return is_zarr(path) or not path.is_dir()
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(NPY_MAGIC)) == NPY_MAGIC
    except OSError:
        return False


def open_stored(
    arr: Any,
    sidecar: PathLike | None = None,
    *,
    lengths: Any = None,
    writing: bool = False,
    threads: int | None = None,
) -> StoredArray:
    """The clips of a stored array; its header or metadata is checked before anything is read.

    Raises
    ------
    DatasetError, AudioFileError, TypeError, ValueError
        It does not exist, is not an array of int16 or float32 clips that can be edited exactly, or lengths do not fit.
    """
    if isinstance(arr, np.ndarray):
        return MappedArray(arr, sidecar, lengths=lengths, writing=writing)
    if writing and getattr(arr, "read_only", False):
        raise ValueError('arr is a Zarr array opened read-only; open it with mode="r+" to edit it.')
    path = path_of(arr)
    if not path.exists():
        raise DatasetError(f"{path} does not exist; give a .npy file, or the folder of a Zarr array.")
    if path.is_dir():
        return ZarrArray(path, sidecar, lengths=lengths, threads=threads)
    if not path.is_file():
        raise DatasetError(f"{path} is not a regular file; give a .npy file, or the folder of a Zarr array.")
    return MappedArray(mapped.map_npy(path, writing=writing), sidecar, lengths=lengths, writing=writing)


def path_of(arr: Any) -> Path:
    """The file or folder that a stored array is kept in; TypeError if there is none."""
    if isinstance(arr, str | os.PathLike):
        return Path(arr)
    if isinstance(arr, np.ndarray):
        return mapped.file_of(arr)
    root = getattr(getattr(arr, "store", None), "root", None)  # a Zarr array in a local store
    if not isinstance(root, Path):
        raise TypeError(
            f"arr is a {type(arr).__name__}; expected an array that is mapped from a file (numpy.memmap), the path of "
            f"a .npy file or of a Zarr array's folder, or a Zarr array in a local folder. For arrays in memory use "
            f"protect."
        )
    return root / str(arr.path)


def open_again(arr: Any, path: Path) -> Any:
    """The same array in a copy of its file or folder, as `open_stored` takes it."""
    return mapped.map_again(arr, path) if isinstance(arr, np.ndarray) else path
