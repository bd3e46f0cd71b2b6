"""Compile the CUDA kernels without a GPU: their PTX as JSON. Exit status 77 and a sentence if that cannot be."""

from __future__ import annotations

import importlib.util
import json
import sys
from types import SimpleNamespace

from poscuda_fast.text import how_to_install


def missing(sentence: str) -> int:
    sys.stdout.write(f"{sentence}; {how_to_install('cuda12')}")
    return 77


def main() -> int:
    if importlib.util.find_spec("numba_cuda") is None:
        return missing("numba-cuda is not installed")
    from numba import cuda, float32, float64, int16, int32, int64, types, uint8, uint32, uint64
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
    from poscuda_fast.kernels import cuda as looking
    from poscuda_fast.kernels import cuda_filters as filters
    from poscuda_fast.kernels import cuda_lines as lines

    def array(dtype, ndim=1):
        return types.Array(dtype, ndim, "C")

    found = {}

    def compile_for(name, kernel, *arguments):
        options = {"fastmath": kernel.targetoptions.get("fastmath", False), "cc": capability}
        found[name], _ = cuda.compile_ptx(kernel.py_func, arguments, **options)

    number, numbers, table = int64, array(int64), array(int64, 2)
    where = array(int32), numbers, array(uint32), numbers, *[number] * 7
    for name, dtype in {"int16": int16, "int32": int32, "uint8": uint8, "float32": float32}.items():
        samples = array(dtype)
        values = array(int32 if dtype is uint8 else dtype)
        words, value_words = (array(uint64), array(uint64)) if dtype is int16 else (samples, values)
        row = values, value_words, table, numbers
        compile_for(f"add_patches {name}", lines._ADD_PATCHES[name], samples, words, number, table, *[number] * 3, *row)
        clips = array(int32), numbers, *[number] * 4
        compile_for(f"add_clips {name}", lines._ADD_CLIPS[name], samples, words, number, *clips, *row)
        if dtype is uint8:
            continue
        counted = array(float32, 2), number, numbers, number
        for end, x in (("", number), ("_long", array(float64, 3))):
            one, other = getattr(filters, f"_filter{end}"), getattr(filters, f"_filter_clips{end}")
            compile_for(f"_filter{end} {name}", one, samples, table, number, number, *counted, x)
            compile_for(f"_filter_clips{end} {name}", other, samples, *where, number, *counted, x)
        compile_for(f"_find_odd {name}", filters._find_odd, samples, *where, numbers)
        compile_for(f"_measure {name}", looking._measure, samples, table, number, array(float64, 2))
        compile_for(f"_gather {name}", looking._gather, samples, table, samples)
    every = [value for module in (looking, filters, lines) for value in vars(module).values()]
    every += [*lines._ADD_PATCHES.values(), *lines._ADD_CLIPS.values()]
    compiled = {value.py_func: value for value in every if isinstance(value, dispatcher.CUDADispatcher)}
    found["fastmath"] = [value.py_func.__name__ for value in compiled.values() if value.targetoptions.get("fastmath")]
    found["compiled"] = sorted({value.py_func.__name__ for value in compiled.values()})
    json.dump(found, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
