# The compiled module (native.cpp), for type checkers.
from typing import Any

import numpy as np
from numpy.typing import NDArray

def filter_patches(
    samples: NDArray[Any],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    rows: NDArray[np.int64],
    taps: NDArray[np.float32],
    stride: int,
    flags: NDArray[np.uint8] | None = None,
    set: str = "",  # noqa: A002
) -> int: ...
def add_lines(
    samples: NDArray[Any],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    phases: NDArray[np.int64],
    rows: NDArray[np.int64],
    values: NDArray[Any],
    firsts: NDArray[np.int64],
    periods: NDArray[np.int64],
    stride: int,
    set: str = "",  # noqa: A002
) -> int: ...
def survey_patches(
    samples: NDArray[Any],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    stride: int,
    flags: NDArray[np.uint8],
    set: str = "",  # noqa: A002
) -> None: ...
def measure_patches(
    samples: NDArray[Any],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    stride: int,
    energies: NDArray[np.float64],
    peaks: NDArray[np.float64],
    set: str = "",  # noqa: A002
) -> None: ...
def hash_pieces(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    key: NDArray[np.uint64],
    hashes: NDArray[np.uint64],
    set: str = "",  # noqa: A002
) -> None: ...
def tell_pieces(
    samples: NDArray[Any],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    phases: NDArray[np.int64],
    rows: NDArray[np.int64],
    values: NDArray[Any],
    firsts: NDArray[np.int64],
    periods: NDArray[np.int64],
    sums: NDArray[np.uint64],
    key: NDArray[np.uint64],
    dry: NDArray[Any],
    states: NDArray[np.uint8],
    set: str = "",  # noqa: A002
) -> None: ...
def mark_and_hash(
    samples: NDArray[Any],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    phases: NDArray[np.int64],
    rows: NDArray[np.int64],
    values: NDArray[Any],
    firsts: NDArray[np.int64],
    periods: NDArray[np.int64],
    key: NDArray[np.uint64],
    wet: NDArray[Any],
    sums: NDArray[np.uint64],
    set: str = "",  # noqa: A002
) -> int: ...
def will_need(samples: NDArray[Any], first_bytes: NDArray[np.int64], n_bytes: int) -> None: ...
def instruction_sets() -> list[str]: ...
def built_from() -> str: ...
