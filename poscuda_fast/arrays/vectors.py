"""Read labels, lengths and class names of an array's clips from files."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.arrays.mapped import read_header
from poscuda_fast.errors import DatasetError

_ARCHIVE = b"PK"


def read_vector(path: Path) -> NDArray[Any]:
    """A .npy file of labels or lengths; DatasetError if it is not one (nothing is unpickled)."""
    _refuse_missing(path, "a .npy file with one entry for each clip")
    with open(path, "rb") as file:
        if file.read(len(_ARCHIVE)) == _ARCHIVE:
            raise DatasetError(f"{path} is an archive of arrays; give a .npy file with one.")
        try:
            offset, shape, dtype, order = read_header(file)
            if dtype.hasobject or not dtype.itemsize or any(isinstance(n, bool) or n < 0 for n in shape):
                raise ValueError(f"its entries are {dtype} and its shape is {shape}")
            count = math.prod(shape)
            if offset + count * dtype.itemsize > os.fstat(file.fileno()).st_size:
                raise ValueError(f"its shape is {shape}, and its data are shorter")
        except ValueError as error:
            raise DatasetError(
                f"{path} is not a .npy file of plain numbers or text ({error}); make one with numpy.save, one entry "
                f"for each clip."
            ) from None
    content = np.fromfile(path, np.uint8, count * dtype.itemsize, offset=offset)
    return np.ndarray(shape, dtype, content, order="F" if order == "F" else "C")


def read_names(path: Path) -> list[str]:
    """Class names from a text file, one a line."""
    _refuse_missing(path, "a text file of class names, one a line")
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise DatasetError(f"{path} is not text in UTF-8; give class names, one a line.") from None


def _refuse_missing(path: Path, wanted: str) -> None:
    if not path.is_file():
        raise DatasetError(f"{path} does not exist or is not a file; give {wanted}.")
