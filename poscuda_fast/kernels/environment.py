"""The default floating-point environment: what another library or the caller has set for a thread would change bits.

A library that was compiled with -ffast-math lets the thread that loads it flush subnormal numbers to zero, and all
threads that this one starts. Where the C library's functions are not known, such as on Windows, nothing is set here.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import platform
import sys
from collections.abc import Iterator
from typing import Any

_ROOM = 64  # bytes of an environment; the largest known has 32


@contextlib.contextmanager
def default_arithmetic() -> Iterator[None]:
    """Round to nearest and keep subnormal numbers in this thread; its own environment comes back at the end.

    Use it with `with`, or as a decorator. Each thread has an environment of its own.
    """
    functions = _functions()
    if functions is None:
        yield
        return
    get, put, default = functions
    callers = ctypes.create_string_buffer(_ROOM)
    get(callers)
    try:
        put(default)
        yield
    finally:
        put(callers)


@functools.cache
def _functions() -> tuple[Any, Any, Any] | None:
    """The C library's fegetenv and fesetenv, and where its default environment is; None where they are not known."""
    if sys.platform == "win32" or platform.machine() not in {"x86_64", "aarch64", "arm64"}:
        return None
    for name in ("libm.so.6", None):  # None is what the process has loaded; elsewhere libm is a part of that
        try:
            library = ctypes.CDLL(name)
            get, put = library.fegetenv, library.fesetenv
            default: Any = ctypes.c_void_p(-1)  # FE_DFL_ENV
            if sys.platform == "darwin":
                default = ctypes.byref(ctypes.c_char.in_dll(library, "_FE_DFL_ENV"))
        except (OSError, AttributeError, ValueError):
            continue
        return get, put, default
    return None
