"""The limits that a throughput is compared with, measured on this machine in the same process."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

SOURCE = Path(__file__).with_name("limits.cpp")


@functools.cache
def library() -> ctypes.CDLL:
    """limits.cpp, compiled for this processor."""
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        pytest.skip("the limits are measured by a small C++ kernel, and there is no compiler")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "limits.so"
        flags = ["-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
        subprocess.run([compiler, *flags, "-o", built, SOURCE], check=True)
        return ctypes.CDLL(str(built))


def touch(samples: NDArray[Any], starts: NDArray[np.int64], size: int) -> None:
    """Read and write `size` samples from each of `starts`."""
    function = getattr(library(), f"touch_{samples.dtype.name}")
    function(
        samples.ctypes.data_as(ctypes.c_void_p),
        starts.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_size_t(len(starts)),
        ctypes.c_size_t(size),
    )


def touch_all(samples: NDArray[Any]) -> None:
    """Read and write every sample of a contiguous array."""
    function = getattr(library(), f"touch_all_{samples.dtype.name}")
    function(samples.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(samples.size))


def multiply_add(n: int) -> None:
    """Do `n` float64 multiply-adds in one thread, as fast as this processor can."""
    function = library().multiply_add
    function.restype = ctypes.c_double
    function(ctypes.c_size_t(n))
