"""What the command line prints: no control character out of the data, and never an error because it cannot be printed.

A run that is finished stays finished when the terminal cannot show a name, the disk of a log is full, or a pipe is
closed. What could not be written to stdout is remembered, so that the exit code can tell it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import Any, TextIO

import click

from poscuda_fast.text import one_line

_UNTOLD: list[OSError] = []
_CLOSED = {errno.EPIPE, errno.ESHUTDOWN} | ({errno.EINVAL} if os.name == "nt" else set())  # by its reader


def say(text: str, *, err: bool = False) -> None:
    """Print lines to stdout, or to stderr, with escapes for what is not printable or not in the stream's encoding."""
    stream = sys.stderr if err else sys.stdout
    shown = "\n".join("\t".join(map(one_line, line.split("\t"))) for line in text.split("\n"))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    shown = shown.encode(encoding, "backslashreplace").decode(encoding)
    try:
        click.echo(shown, err=err)
    except OSError as error:
        _let_go(stream)
        if not err and error.errno not in _CLOSED:
            _UNTOLD.append(error)


def begin() -> None:
    """Forget what an earlier command could not print; open what is closed of the three standard streams.

    The next file that is opened would get a closed one's number, and what a C library prints would go into that file.
    """
    _UNTOLD.clear()
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one


def untold() -> str:
    """Why something could not be written to stdout; empty if all was, or if its reader had closed it."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError as error:
            _let_go(sys.stdout)
            if error.errno not in _CLOSED:
                _UNTOLD.append(error)
    return str(_UNTOLD[0].strerror or _UNTOLD[0]) if _UNTOLD else ""


def _let_go(stream: TextIO | None) -> None:
    """Send a stream that failed to nowhere, so that what it still holds does not fail again when Python ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
        finally:
            os.close(nowhere)


class Patient:
    """A stream for a progress bar: it drops what cannot be written, so that no run fails for its bar."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or drop."""
        with contextlib.suppress(OSError, ValueError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or drop."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()
