"""Read labels, lengths and class names of an array's clips from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.errors import DatasetError


def read_vector(path: Path) -> NDArray[Any]:
    """A .npy file of labels or lengths; DatasetError if it is not one (nothing is unpickled)."""
    _refuse_missing(path, "a .npy file with one entry for each clip")
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, MemoryError, OverflowError):
        raise DatasetError(
            f"{path} is not a .npy file of plain numbers or text; make one with numpy.save, one entry for each clip."
        ) from None
    if not isinstance(loaded, np.ndarray):
        raise DatasetError(f"{path} is an archive of arrays; give a .npy file with one.")
    return loaded


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
