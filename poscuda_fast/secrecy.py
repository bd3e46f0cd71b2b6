"""Keep secrets in the process: out of pickles, and out of tracebacks, which are often logged with local variables."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from types import FrameType, TracebackType
from typing import Any, NoReturn, ParamSpec, TypeVar


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

OWN = __name__.partition(".")[0]
# Packages that this one calls, wherever they are installed; others are known by their place.
LIBRARIES = {
    "PIL", "_cffi_backend", "cffi", "click", "cryptography", "cupy", "dask", "datasets", "fsspec", "jinja2", "llvmlite",
    "markupsafe", "matplotlib", "multiprocess", "numba", "numba_cuda", "numcodecs", "numpy", "packaging", "pandas",
    "pyarrow", "ray", "rich", "scipy", "soundfile", "soxr", "torch", "torchaudio", "webdataset", "zarr",
}  # fmt: skip
_PLACES = tuple(os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def discreet(verb: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Clear the local variables of all that a public verb called from any error that it raises.

    They hold positions, filters, originals and key material, in frames of this library and of those that it calls:
    hmac has keys, json has positions, NumPy and soundfile have samples. A frame keeps its variables only if it is
    known to be the caller's: its module is neither this library nor another, and is one from which the verb was called
    or in which an argument was defined, as a callback is. Such a frame knows only what it was given. What an error
    itself carries is cleared too, such as the text that json could not decode, unless it came out of such a frame.
    """

    @functools.wraps(verb)
    def guarded(*args: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        before = sys.exc_info()[1]
        try:
            return verb(*args, **options)
        except BaseException as error:
            _empty(error, before, _modules_of_caller(args, options))
            del args, options  # the traceback keeps this frame
            raise

    return guarded


def discreet_steps(verb: Callable[_Arguments, Iterator[_Result]]) -> Callable[_Arguments, Iterator[_Result]]:
    """`discreet` for a verb that yields: any step may raise, and so may closing it."""

    @functools.wraps(verb)
    def guarded(*args: _Arguments.args, **options: _Arguments.kwargs) -> Iterator[_Result]:
        steps = verb(*args, **options)
        callers = _modules_of_caller(args, options)
        del args, options
        try:
            while True:
                before = sys.exc_info()[1]
                try:
                    step = next(steps)
                except StopIteration:
                    return
                except BaseException as error:
                    _empty(error, before, callers)
                    raise
                yield step
                del step
        finally:
            before = sys.exc_info()[1]
            try:
                steps.close()  # type: ignore[attr-defined]
            except BaseException as error:
                _empty(error, before, callers)
                raise

    return guarded


def _modules_of_caller(args: tuple[Any, ...], options: Mapping[str, Any]) -> set[str]:
    """Names of the modules from which a verb was called, or in which one of its arguments was defined."""
    found: set[str] = set()
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - the only way to the caller's module
    while frame is not None:
        found.add(_module_of(frame))
        frame = frame.f_back
    for value in (*args, *options.values()):
        while isinstance(value, functools.partial):
            value = value.func  # noqa: PLW2901
        name = getattr(value, "__module__", None)
        found.add(name if isinstance(name, str) else type(value).__module__)
    return found


def _empty(error: BaseException, before: BaseException | None, callers: set[str]) -> None:
    """Clear an error and those that led to it, down to one that the caller was handling `before` the call."""
    seen: set[int] = set()
    list(_with_causes(before, seen))  # these are the caller's own
    for one in _with_causes(error, seen):
        if not _clear(one.__traceback__, callers):
            _strip(one)


def _with_causes(error: BaseException | None, seen: set[int]) -> Iterator[BaseException]:
    """An error, its causes, its contexts, the members of a group, and the errors that it carries."""
    waiting: list[Any] = [error]
    while waiting:
        one = waiting.pop()
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__, *one.args, *vars(one).values()]
        members = getattr(one, "exceptions", ())
        waiting += members if isinstance(members, tuple | list) else ()
        yield one


def _clear(traceback: TracebackType | None, callers: set[str]) -> bool:
    """Clear the frames of a traceback but for those of the caller; True if it has one of these."""
    kept = False
    while traceback is not None:
        frame = traceback.tb_frame
        name = _module_of(frame)
        if name in callers and not _is_library(name, frame.f_code.co_filename):
            kept = True
        else:
            with contextlib.suppress(RuntimeError):  # still running: the guard itself, or a thread's
                frame.clear()
        traceback = traceback.tb_next
    return kept


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _is_library(name: str, file: str) -> bool:
    """Whether a module is this library's, Python's, or of another installed package, or cannot be told."""
    top = name.partition(".")[0]
    if top in ("", OWN) or top in LIBRARIES or (top in sys.stdlib_module_names and top != "__main__"):
        return True
    parts = file.replace("\\", "/").split("/")
    return "site-packages" in parts or "dist-packages" in parts or file.startswith(_PLACES)


def _strip(error: BaseException) -> None:
    """Take from an error what it carries beside its message; that of a decoder is all that it was to decode."""
    with contextlib.suppress(AttributeError, TypeError):  # of a class that forbids it
        error.args = tuple(value if _is_harmless(value) else None for value in error.args)
    if isinstance(error, UnicodeDecodeError):
        error.object, error.args = b"", (error.encoding, b"", *error.args[2:])
    elif isinstance(error, UnicodeEncodeError):
        error.object, error.args = "", (error.encoding, "", *error.args[2:])
    elif isinstance(error, AttributeError):
        error.obj = None
    elif isinstance(error, StopIteration):
        error.value = None
    held = vars(error)
    held.pop("__notes__", None)
    for name, value in held.items():
        if name == "doc":  # of json
            held[name] = ""
        elif not _is_harmless(value):
            held[name] = None


def _is_harmless(value: Any) -> bool:
    """Whether a value is a text, a number, a path or a type, or an error, which is stripped itself."""
    if isinstance(value, tuple | list):
        return all(map(_is_harmless, value))
    return value is None or isinstance(value, str | int | float | type | os.PathLike | BaseException)
