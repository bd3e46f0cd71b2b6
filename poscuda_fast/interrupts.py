"""Ctrl-C that waits."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Ctrl-C takes effect after the block."""
    held: list[Any] = []
    if signal.getsignal(signal.SIGINT) is None:  # handled by other code than Python's, which could not be put back
        yield
        return
    try:
        before = signal.signal(signal.SIGINT, lambda *arguments: held.append(arguments))
    except ValueError:  # not the main thread: it gets no interrupts
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held and callable(before):
            before(*held[0])
        elif held and before is signal.SIG_DFL:
            signal.raise_signal(signal.SIGINT)
