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
    set: str = "",  # noqa: A002
) -> int: ...
def add_patches(
    samples: NDArray[Any],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    rows: NDArray[np.int64],
    sounds: NDArray[np.float32],
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
def will_need(samples: NDArray[Any], first_bytes: NDArray[np.int64], n_bytes: int) -> None: ...
def instruction_sets() -> list[str]: ...
def built_from() -> str: ...
