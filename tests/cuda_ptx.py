"""Compile the CUDA kernels without a GPU: their PTX as JSON. Exit status 77 and a sentence if that cannot be."""

from __future__ import annotations

import importlib.util
import json
import sys
from types import SimpleNamespace


def missing(sentence: str) -> int:
    sys.stdout.write(f"{sentence}; pip install 'poscuda-fast[cuda12]'")
    return 77


def main() -> int:
    if importlib.util.find_spec("numba_cuda") is None:
        return missing("numba-cuda is not installed")
    from numba import cuda, float32, float64, int16, int32, int64, types
    from numba.cuda import dispatcher

    capability = 9, 0

    def nothing() -> None:
        pass

    try:
        cuda.compile_ptx(nothing, (), cc=capability)
    except Exception as error:  # noqa: BLE001 - each library that may be missing has an error of its own
        return missing(f"the CUDA toolkit is not installed ({' '.join(str(error).split())})")
    # What a GPU would be asked for: that it is there, and for device functions what it is.
    cuda.is_available = lambda: True
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    from poscuda_fast.kernels import cuda as kernels

    def array(dtype, ndim=1):
        return types.Array(dtype, ndim, "C")

    found = {}
    for name, dtype in {"int16": int16, "int32": int32, "float32": float32}.items():
        arguments = (array(dtype), array(int64, 2), array(float32, 2), int64, int64, array(int64))
        for kernel, more in ((kernels._filter, ()), (kernels._filter_long, (array(float64, 2),))):
            options = {"fastmath": kernel.targetoptions.get("fastmath", False), "cc": capability}
            ptx, _ = cuda.compile_ptx(kernel.py_func, arguments + more, **options)
            found[f"{kernel.py_func.__name__} {name}"] = ptx
        arguments = (array(dtype), array(int64, 2), int64, array(float32, 2), float64, int64, int64, array(int64))
        found[f"_add {name}"], _ = cuda.compile_ptx(kernels._add.py_func, arguments, fastmath=False, cc=capability)
    compiled = [value for value in vars(kernels).values() if isinstance(value, dispatcher.CUDADispatcher)]
    found["fastmath"] = [value.py_func.__name__ for value in compiled if value.targetoptions.get("fastmath")]
    found["compiled"] = [value.py_func.__name__ for value in compiled]
    json.dump(found, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
