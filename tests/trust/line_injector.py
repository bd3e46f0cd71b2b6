"""Raising an exception at a chosen line of the library, as an interrupt or exhausted memory would."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterable
from types import FrameType, ModuleType
from typing import Any


def lines_of(call: Callable[[], object], modules: Iterable[ModuleType]) -> list[str]:
    """Every line of these modules that a call runs, in order."""
    return _run(call, modules, None, KeyboardInterrupt)


def raise_at(call: Callable[[], object], modules: Iterable[ModuleType], n: int, kind: type[BaseException]) -> None:
    """Make a call, and raise before its n-th line (from 1); what it raises then is dropped."""
    with contextlib.suppress(kind):
        _run(call, modules, n, kind)
    gc.collect()  # the frames of the traceback hold locks for as long as they live


def moments(lines: list[str], step: int) -> list[int]:
    """The first and the last time of every line, or of every `step`-th: numbers for `raise_at`."""
    firsts = {line: n for n, line in reversed(list(enumerate(lines, 1)))}
    lasts = {line: n for n, line in enumerate(lines, 1)}
    return sorted({*firsts.values(), *lasts.values()})[::step]


def _run(
    call: Callable[[], object], modules: Iterable[ModuleType], at: int | None, kind: type[BaseException]
) -> list[str]:
    files = {module.__file__ for module in modules}
    lines: list[str] = []

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        if event == "line" and len(lines) != at:
            lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
            if len(lines) == at:
                raise kind
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return lines
