"""Device arrays for tests: numba's own on a GPU, and on numba's simulator what it lacks."""

from __future__ import annotations

import os
import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


class Simulated:
    """A device array of the simulator, whose devices have the memory of the host."""

    def __init__(self, content: np.ndarray, stream: int | None = None) -> None:
        self._array = content.copy()
        self._stream = stream

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self._array.__array_interface__, "version": 3, "stream": self._stream}

    def copy_to_host(self) -> np.ndarray:
        return self._array.copy()


class Stream:
    """A stream that counts how often it was waited for."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.waited = 0

    def synchronize(self) -> None:
        self.waited += 1


def as_cuda_array(array: Any, sync: bool = True) -> Any:
    """What the simulator lacks: its own kind of array over memory that an interface names."""
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    interface = array.__cuda_array_interface__
    number = interface.get("stream")

    memory = np.empty(interface["shape"], interface["typestr"])
    if memory.size:
        memory = np.asarray(SimpleNamespace(__array_interface__=interface))
    return FakeCUDAArray(memory, stream=0 if number is None else Stream(number))


_making = threading.Lock()


def shared_array(shared: Any, shape: Any, dtype: Any) -> np.ndarray:
    """One shared array for each line of a kernel: in the simulator's own, threads that meet there may get one each."""
    from numba import types
    from numba.np.numpy_support import as_dtype

    kind = as_dtype(dtype) if isinstance(dtype, types.Type) else np.dtype(dtype)
    if shape == 0:  # what the launch asked for
        whole = shared._dynshared
        return whole[: whole.size // kind.itemsize * kind.itemsize].view(kind)
    caller = sys._getframe(1)
    with _making:
        return shared._allocations.setdefault((caller.f_code.co_filename, caller.f_lineno), np.empty(shape, kind))


def to_device(content: np.ndarray) -> Any:
    """A device array of some content."""
    if SIMULATED:
        return Simulated(content)
    from numba import cuda

    return cuda.to_device(content)
