"""Keep secrets in the process: out of pickles, and out of tracebacks, which are often logged with local variables."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NoReturn, ParamSpec, TypeVar


class Secret:
    """An object that refuses to be pickled or copied, so that it cannot leave the process by accident."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"A {type(self).__name__} is secret and cannot be pickled or copied; pass the path of the key file and "
            f"call Key.load there."
        )


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def discreet(verb: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Clear the local variables of the library's own frames from any error that a public verb raises.

    They hold positions, filters, originals and key material. Frames of the caller and of its callbacks keep theirs.
    """

    @functools.wraps(verb)
    def guarded(*args: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        try:
            return verb(*args, **options)
        except BaseException as error:
            _empty(error)
            raise

    return guarded


def discreet_steps(verb: Callable[_Arguments, Iterator[_Result]]) -> Callable[_Arguments, Iterator[_Result]]:
    """`discreet` for a verb that yields: any step may raise."""

    @functools.wraps(verb)
    def guarded(*args: _Arguments.args, **options: _Arguments.kwargs) -> Iterator[_Result]:
        try:
            yield from verb(*args, **options)
        except BaseException as error:
            _empty(error)
            raise

    return guarded


def _empty(error: BaseException) -> None:
    """Clear the library's frames in the tracebacks of an error and of those that led to it."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__]
        _clear(one.__traceback__)


def _clear(traceback: TracebackType | None) -> None:
    while traceback is not None:
        frame = traceback.tb_frame
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] == "poscuda_fast":
            with contextlib.suppress(RuntimeError):  # still running: the guard itself, or a thread's
                frame.clear()
        traceback = traceback.tb_next
