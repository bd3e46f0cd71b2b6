"""The library's own exceptions; wrong arguments raise plain TypeError and ValueError."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator, Sequence

from poscuda_fast.text import how_to_install, listed, message


class PoscudaError(Exception):
    """The base of this library's errors; messages say what was received, what was expected and what to do.

    Names and labels stand in a message with escapes for what is not printable.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(message(part) if isinstance(part, str) else part for part in args))


class KeyFileError(PoscudaError, ValueError):
    """A key file breaks a rule of FORMAT.md, "Key file"."""


class AudioFileError(PoscudaError, ValueError):
    """A file is not audio that can be edited exactly, or its header contradicts its size."""


class DatasetError(PoscudaError, ValueError):
    """A folder, its labels or its destination cannot be used as they are."""


class SidecarError(PoscudaError):
    """The undo sidecar is missing, is damaged, was made with another key, or belongs to other data."""


class BusyError(SidecarError):
    """Another process or thread is working on the same data."""


class LabelWarning(UserWarning):
    """Labels may not be the classes that were meant."""


class UnprotectedWarning(UserWarning):
    """Audio was left unprotected, as `skip_unusable` asks; the message says how much, and why."""


def warn_of_unprotected(reasons: Sequence[str], total: int, where: str) -> None:
    """Warn with some of the reasons, if anything was left unprotected at all."""
    if total:
        text = f"{total:,} audio entries or columns of {where} were left unprotected:{listed(reasons, total)}"
        warnings.warn(text, UnprotectedWarning, stacklevel=_levels_to_caller())


def warn_of_labels(doubt: str) -> None:
    """Warn of labels, at the line that called this package."""
    warnings.warn(doubt, LabelWarning, stacklevel=_levels_to_caller())


def _levels_to_caller() -> int:
    """How many frames above the one that warns the first one is that is not this package's."""
    frame, levels = sys._getframe(1), 1  # noqa: SLF001 - as warnings itself counts
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(f"{__name__.partition('.')[0]}."):
        frame, levels = frame.f_back, levels + 1
    return levels


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """What is raised inside stops a run that has begun, rather than refusing one: the same call goes on with it."""
    try:
        yield
    except Exception as error:
        error.stopped = True  # type: ignore[attr-defined] # its class says what went wrong, not when
        raise


def has_stopped(error: BaseException) -> bool:
    """Whether an error stopped a run that had begun."""
    return bool(getattr(error, "stopped", False))


def require(package: str, extra: str) -> None:
    """ImportError with what to install if a package of an extra is missing."""
    if importlib.util.find_spec(package) is None:
        raise ImportError(f"This needs {package}, which is not installed: {how_to_install(extra)}.")
