"""What the files for NVIDIA GPUs share: whether there is a GPU, how numba compiles for it, and device memory."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import cuda
from numpy.typing import NDArray

from poscuda_fast.text import how_to_install

_config: Any = numba.config
_INSTALL = f"{how_to_install('cuda12')}, or [cuda13] if the driver is of CUDA 13."
_FORKED = (
    "CUDA was initialised before this process was forked, and does not survive that: use backend='native' or 'cpu' "
    "in workers, or start them with the 'spawn' method."
)
_first_used_by = os.getpid()  # asking for a GPU, which is next, initialises CUDA
if not _config.ENABLE_CUDASIM:  # the simulator needs neither package nor GPU
    if importlib.util.find_spec("numba_cuda") is None:
        raise ImportError(f"The cuda backend needs numba-cuda, which is not installed; {_INSTALL}")
    if not cuda.is_available():
        _problem = cuda.cuda_error()
        if _problem is None:
            raise ImportError(f"The cuda backend needs the CUDA compiler, which is not installed; {_INSTALL}")
        if "NOT_INITIALIZED" in str(_problem):  # what a driver says that another library initialised before the fork
            raise ImportError(f"The cuda backend cannot be used here. {_FORKED}")
        raise ImportError(f"The cuda backend needs an NVIDIA GPU and its driver: {' '.join(str(_problem).split())}")

FEWEST_BLOCKS = 128  # numba warns about smaller grids; a block without a patch returns at once


def kernel(function: Callable[..., Any]) -> Any:
    """Compile on first use, for the GPU. No fastmath: it would flush subnormals."""
    return cuda.jit(function)


def part(function: Callable[..., Any]) -> Any:
    """The same for a function that kernels call."""
    return cuda.jit(device=True)(function)


def on_host(function: Callable[..., Any]) -> Any:
    """Compile on first use, for one CPU thread."""
    return numba.njit(nogil=True)(function)


def blocks_for(n: int) -> int:
    """The size of a grid for n blocks of work."""
    return max(n, FEWEST_BLOCKS)


def refuse_fork() -> None:
    """RuntimeError in a process that cannot use the GPU; without it the driver would fail in words of its own."""
    if os.getpid() != _first_used_by:
        raise RuntimeError(_FORKED)


def view_of(samples: Any, *, writing: bool = True) -> Any:
    """Numba's view of device memory; its `stream` is the caller's, or 0 for the default stream."""
    if writing and samples.__cuda_array_interface__["data"][1]:
        raise ValueError("the device array is read-only, and protection happens in place; make a copy of it.")
    return cuda.as_cuda_array(samples, sync=False)  # our work is queued behind the caller's: no need to wait


def send(array: NDArray[Any], stream: Any) -> Any:
    """Queue a copy of an array to the device."""
    return cuda.to_device(array, stream=stream)


def fetch(array: Any, stream: Any) -> NDArray[Any]:
    """Copy a device array to host memory, and wait for the stream."""
    fetched: NDArray[Any] = array.copy_to_host(stream=stream)
    (stream or cuda).synchronize()
    return fetched


def zeros(n: int, stream: Any) -> Any:
    """(n,) int64 counters on the device."""
    return send(np.zeros(n, np.int64), stream)
