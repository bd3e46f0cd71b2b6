"""How numba compiles the kernels of cpu.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

# "contract" lets the compiler fuse multiply and add. A product of two float32 values is exact in
# float64, so fused and unfused sums have the same bits; nothing here may be reordered.
_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}


@intrinsic
def _prefer_512_bits(typing_context: Any) -> Any:
    del typing_context

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature, arguments
        # llvmlite's own `add` does not support attributes with values.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), emit


def use_wide_registers() -> None:
    """Call this in a kernel to let LLVM use 512-bit registers, not its usual 256: it then takes a third less time."""


@overload(use_wide_registers)
def _use_wide_registers() -> Callable[[], None]:
    def implementation() -> None:
        _prefer_512_bits()  # type: ignore[call-arg]

    return implementation


@intrinsic
def _prefetch_line(typing_context: Any, samples: Any, index: Any) -> Any:
    del typing_context

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        builder.call(prefetch, [place, number(1), number(3), number(1)])  # to write, to the first cache, data
        return context.get_dummy_value()

    return types.void(samples, index), emit


def prefetch(samples: Any, index: int) -> None:
    """Ask for the cache line of ``samples[index]``, which may lie beyond the end; only a hint."""
    del samples, index


@overload(prefetch)
def _prefetch(samples: Any, index: Any) -> Callable[[Any, Any], None]:
    del samples, index

    def implementation(samples: Any, index: Any) -> None:
        _prefetch_line(samples, index)  # type: ignore[call-arg]

    return implementation


@intrinsic
def _load_word(typing_context: Any, data: Any, index: Any) -> Any:
    del typing_context

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        return builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(data, index), emit


def word_at(data: Any, index: int) -> np.uint64:
    """The eight bytes of uint8 `data` from `index` on as a little-endian word, at any address."""
    return np.uint64(int.from_bytes(data[index : index + 8].tobytes(), "little"))


@overload(word_at, inline="always")
def _word_at(data: Any, index: Any) -> Callable[[Any, Any], Any]:
    del data, index

    def implementation(data: Any, index: Any) -> Any:
        return _load_word(data, index)  # type: ignore[call-arg]

    return implementation


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first use; keep the result on disk where a cache folder is writable."""
    compiled: Callable[..., Any]
    try:
        compiled = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # numba found no cache folder that it may write to
        compiled = numba.njit(**_OPTIONS)(function)
    return compiled
