"""Errors that leave the library tell nothing but their message: no frame but the caller's keeps its variables."""

from __future__ import annotations

import functools
import hashlib
import hmac
import importlib
import inspect
import io
import json
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
from secret_forms import forms_of

import poscuda_fast
from poscuda_fast import Key, Protector, originals_of_folder, protect, protect_array, protect_folder, secrecy
from poscuda_fast.secrecy import discreet, discreet_steps

MASTER = hashlib.sha256(b"a key that is looked for in tracebacks").digest()
PLAIN = "the text that nobody may see"


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """An error with all that led to it."""
    seen: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseException) and not any(one is other for other in seen):
            seen.append(one)
            waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
            waiting += [*one.args, *vars(one).values()]
            yield one


def frames_of(error: BaseException) -> Iterator[Any]:
    """Every frame in the tracebacks of an error and of all that led to it."""
    for one in chain_of(error):
        step = one.__traceback__
        while step is not None:
            yield step.tb_frame
            step = step.tb_next


def shown_of(error: BaseException) -> str:
    """What an error reporter sees of an error: messages, attributes, notes, and variables, but not those of tests."""
    texts = ["".join(traceback.TracebackException.from_exception(error).format())]
    for one in chain_of(error):
        held = (one, one.args, vars(one), getattr(one, "object", None), getattr(one, "obj", None))
        texts += map(repr, held)
    for frame in frames_of(error):
        if frame.f_globals.get("__name__") != __name__:
            texts += [f"{name} = {value!r}" for name, value in frame.f_locals.items()]
    return "\n".join(texts)


def caught(call: Callable[[], Any]) -> BaseException:
    with pytest.raises(BaseException) as found:  # noqa: PT011 - whatever it is, it is looked at
        call()
    return found.value


def refuse_variables(error: BaseException) -> None:
    """Frames of the library and of others have no variables, but for the guard, which has nothing of the call."""
    others = [frame for frame in frames_of(error) if frame.f_globals.get("__name__") != __name__]
    assert others
    for frame in others:
        if frame.f_code.co_name == "guarded":
            assert not {"args", "options"} & frame.f_locals.keys()
        else:
            assert dict(frame.f_locals) == {}, frame


# Which verbs are guarded.

PLAIN_VALUES = {  # they hold nothing secret, and their methods see nothing secret
    "Ownership", "PaperRecipe", "Recipe", "Report", "Statement", "StrongRecipe", "Verdict",
    "Verification",
}  # fmt: skip
ROOMS = (
    "poscuda_fast", "poscuda_fast.adapters.huggingface", "poscuda_fast.adapters.parquet",
    "poscuda_fast.adapters.ray_data", "poscuda_fast.adapters.torch_data", "poscuda_fast.adapters.webdataset_shards",
    "poscuda_fast.adapters.zarr_tasks", "poscuda_fast.reporting", "poscuda_fast.evaluation", "poscuda_fast.ownership",
    "poscuda_fast.protector", "poscuda_fast.statement",
)  # fmt: skip
# What the rooms' own code shares, and no user calls.
SHARED = {
    "best_tenth",
    "check_columns",
    "p_value",
    "plain_entries",
    "refuse_missing",
    "refuse_other",
    "unnamed_columns",
}
UNGUARDED = {"__eq__", "__hash__", "__repr__", "__getstate__", "__setstate__", "__reduce_ex__"}


def is_guarded(function: Any) -> bool:
    return inspect.unwrap(function) is not function and function.__globals__ is vars(secrecy)


def public_callables(room: ModuleType) -> Iterator[tuple[str, Any]]:
    """Functions and methods that a user of a module may call."""
    names = getattr(room, "__all__", None) or [name for name in vars(room) if not name.startswith("_")]
    for name in names:
        value = getattr(room, name)
        if not getattr(value, "__module__", "").startswith("poscuda_fast") or name in PLAIN_VALUES | SHARED:
            continue
        if not hasattr(room, "__all__") and value.__module__ != room.__name__:
            continue  # imported there, and looked at in its own room
        if inspect.isfunction(value):
            yield name, value
        elif isinstance(value, type) and not issubclass(value, BaseException | tuple):
            for method, held in vars(value).items():
                function = getattr(held, "__func__", held)
                private = method.startswith("_") and not method.startswith("__")
                generated = inspect.isfunction(function) and function.__code__.co_filename.startswith("<")
                if inspect.isfunction(function) and not private and not generated and method not in UNGUARDED:
                    yield f"{name}.{method}", function


@pytest.mark.parametrize("name", ROOMS)
def test_every_public_verb_is_guarded(name: str) -> None:
    try:
        found = dict(public_callables(importlib.import_module(name)))
    except ImportError as error:
        pytest.skip(str(error))
    assert found
    assert [verb for verb, function in found.items() if not is_guarded(function)] == []


def test_the_rooms_are_all_the_adapters() -> None:
    folder = Path(poscuda_fast.__file__).parent / "adapters"
    adapters = {f"poscuda_fast.adapters.{path.stem}" for path in folder.glob("[a-z]*.py")}
    shared = {"arrow_columns", "arrow_errors", "parquet_form", "tar_samples"}  # which only other adapters call
    assert adapters - set(ROOMS) == {f"poscuda_fast.adapters.{name}" for name in shared}


# Frames of other libraries.


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    np.save(tmp_path / "clips.npy", rng.integers(-3000, 3000, (6, 900)).astype(np.int16))
    return tmp_path


@pytest.fixture
def files(tmp_path: Path) -> Path:
    rng = np.random.default_rng(6)
    for name in ("a/1.wav", "a/2.flac", "b/1.wav", "b/2.flac"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "data" / name, rng.integers(-3000, 3000, 4000).astype(np.int16), 16_000)
    return tmp_path / "data"


class Stopping:
    """Raises an error at the n-th call of a function, from within a frame of a library or of this one."""

    def __init__(self, at: int, wanted: Callable[[str], bool]) -> None:
        self.at, self.wanted, self.seen = at, wanted, 0

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        if event == "call" and self.wanted(str(frame.f_globals.get("__name__"))):
            self.seen += 1
            if self.seen == self.at:
                sys.setprofile(None)
                raise OSError("a failure")


LIBRARIES = ("hmac", "json", "cryptography", "soundfile", "numpy", "sqlite3", "poscuda_fast")


@pytest.mark.parametrize("kind", ["array", "folder"])
def test_no_frame_keeps_its_variables_wherever_a_call_fails(arrays: Path, files: Path, kind: str) -> None:
    key, forms = Key(MASTER), [form.decode("latin-1") for form in forms_of(MASTER)]
    hits: set[str] = set()

    def call(number: int) -> Callable[[], Any]:
        if kind == "folder":
            return lambda: protect_folder(files, files.parent / f"copy {number}", key)
        copy = shutil.copy(arrays / "clips.npy", arrays / f"{number}.npy")
        return lambda: protect_array(copy, list("abcabc"), key)

    call(0)()
    for library in LIBRARIES:
        for at in (1, 2, 3, 5, 8, 13, 40, 150):
            stop = Stopping(at, lambda name, of=library: name.partition(".")[0] == of and name != secrecy.__name__)
            verb = call(LIBRARIES.index(library) * 1000 + at)
            sys.setprofile(stop)
            try:
                verb()
            except BaseException as error:  # noqa: BLE001 - whatever it becomes on its way
                refuse_variables(error)
                hits.add(library)
                shown = shown_of(error)
                assert not any(form in shown for form in forms)
            finally:
                sys.setprofile(None)
    assert {"json", "numpy", "poscuda_fast"} <= hits


def test_key_material_is_in_no_frame_of_hmac_or_hkdf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    Key(MASTER).save(tmp_path / "my.key")
    monkeypatch.setattr(hmac, "_hashopenssl", None)
    monkeypatch.setattr(hmac, "new", functools.partial(fail))
    monkeypatch.setattr("poscuda_fast.key.HKDFExpand", fail)
    for call in (lambda: Key(MASTER), lambda: Key.load(tmp_path / "my.key"), Key.generate):
        refuse_variables(caught(call))
    error = caught(lambda: Key(MASTER[:-1]))
    refuse_variables(error)
    assert not any(form.decode("latin-1") in shown_of(error) for form in forms_of(MASTER[:-1]))


def test_an_error_in_a_thread_loses_its_variables_too(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        samples = np.arange(4000)  # noqa: F841 - which would be seen
        raise soundfile.LibsndfileError(2, "decoding: ")

    monkeypatch.setattr(soundfile.SoundFile, "read", fail)
    monkeypatch.setattr(soundfile.SoundFile, "buffer_read_into", fail, raising=False)
    error = caught(lambda: protect_folder(files, None, Key(MASTER), threads=2))
    assert [frame for frame in frames_of(error) if "samples" in frame.f_locals] == [
        frame for frame in frames_of(error) if frame.f_code is fail.__code__
    ]


# What an error itself carries.


def failing_in(decode: Callable[[], Any]) -> Callable[[], Any]:
    """A verb, as far as its module tells, that fails so."""
    space: dict[str, Any] = {"__name__": "poscuda_fast.made_up", "decode": decode}
    exec("def verb():\n    inner = 1\n    return decode()", space)
    return discreet(space["verb"])


def library(source: str) -> Callable[[], Any]:
    """A function of a library."""
    space: dict[str, Any] = {"__name__": "json.made_up", "PLAIN": PLAIN, "json": json}
    exec(source, space)
    return space["fail"]


HANDLING = "def fail():\n try: json.loads('[' + repr(PLAIN))\n except ValueError as e: "
CARRIERS = {
    "json": "def fail(): json.loads('[' + repr(PLAIN))",
    "bytes that are no text": "def fail(): (PLAIN.encode() + b'\\xff').decode()",
    "text that is not ASCII": "def fail(): (PLAIN + '\\u1234').encode('ascii')",
    "an object": "def fail(): type('T', (), {'__repr__': lambda s: PLAIN})().missing",
    "arguments": "def fail(): raise ValueError('failed', PLAIN.encode())",
    "attributes": "def fail():\n e = ValueError('failed')\n e.held = [PLAIN.encode()]\n raise e",
    "a note": "def fail():\n e = ValueError('failed')\n e.__notes__ = [PLAIN]\n raise e",
    "a cause": HANDLING + "raise OSError('failed') from e",
    "a context": HANDLING + "raise OSError('failed')",
    "a suppressed context": HANDLING + "raise OSError from None",
    "an argument that is an error": HANDLING + "x = e\n raise OSError('failed', x)",
    "an attribute that is an error": HANDLING + "x = e\n y = OSError('failed')\n y.held = x\n raise y",
    "a group": HANDLING + "x = e\n raise ExceptionGroup('failed', [x, ExceptionGroup('again', [x])])",
}


@pytest.mark.parametrize("source", CARRIERS.values(), ids=CARRIERS)
def test_an_error_carries_nothing_but_its_message(source: str) -> None:
    if "ExceptionGroup" in source and sys.version_info < (3, 11):
        pytest.skip("Python 3.10 has no groups")
    assert PLAIN in shown_of(caught(library(source)))
    error = caught(failing_in(library(source)))
    assert PLAIN not in shown_of(error)
    assert str(error) is not None
    refuse_variables(error)


# What stays.


def test_a_callback_keeps_its_variables_and_its_error(arrays: Path) -> None:
    def progress(done: int, total: int) -> None:
        mine = "of the caller"  # noqa: F841 - it is looked for
        raise ValueError("stop", b"mine")

    error = caught(lambda: protect_array(arrays / "clips.npy", list("abcabc"), Key(MASTER), progress=progress))
    (kept,) = [frame for frame in frames_of(error) if frame.f_code is progress.__code__]
    assert kept.f_locals["mine"] == "of the caller"
    assert error.args == ("stop", b"mine")
    refuse_variables(error)


def test_a_callback_of_a_module_that_did_not_call_is_known_by_the_argument(arrays: Path) -> None:
    space: dict[str, Any] = {"__name__": "helpers_of_the_user"}
    exec("def progress(done, total):\n mine = 1\n raise OSError('stop')", space)
    error = caught(lambda: protect_array(arrays / "clips.npy", list("abcabc"), Key(MASTER), progress=space["progress"]))
    assert [frame.f_locals["mine"] for frame in frames_of(error) if "mine" in frame.f_locals] == [1]


@pytest.mark.parametrize("name", ["hmac", "numpy.made_up", "unknown_to_anybody", "", "poscuda_fast.made_up"])
def test_frames_that_are_not_known_to_be_the_callers_are_cleared(name: str) -> None:
    space: dict[str, Any] = {"__name__": name}
    exec("def inner():\n secret = 1\n raise OSError('stop')", space)
    error = caught(failing_in(space["inner"]))
    assert not [frame for frame in frames_of(error) if "secret" in frame.f_locals]


def test_what_the_caller_was_handling_stays_as_it_was(arrays: Path) -> None:
    def fail_before() -> None:
        mine = b"kept"
        raise ValueError("before", mine)

    error = None
    try:
        try:
            fail_before()
        except ValueError:
            protect(np.zeros((1, 9), np.int32), [0], Key(MASTER))
    except TypeError as found:
        error = found
    before = error.__context__
    assert before.args == ("before", b"kept")
    assert before.__traceback__.tb_next.tb_frame.f_locals["mine"] == b"kept"


def test_the_steps_of_a_verb_are_guarded_one_by_one(files: Path) -> None:
    key = Key(MASTER)
    protect_folder(files, None, key)
    steps = originals_of_folder(files, key)
    assert next(steps)[0] == "a/1.wav"
    (files / "b" / "2.flac").unlink()
    refuse_variables(caught(lambda: list(steps)))


def test_steps_end_with_their_caller_and_an_error_at_the_end_is_cleared() -> None:
    closed = []

    def verb() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)
            (PLAIN.encode() + b"\xff").decode()

    steps = discreet_steps(verb)()
    assert next(steps) == 1
    error = caught(steps.close)
    assert closed == [True]
    assert isinstance(error, UnicodeDecodeError)

    def quiet() -> Iterator[int]:
        try:
            yield 1
        finally:
            closed.append(True)

    steps = discreet_steps(quiet)()
    next(steps)
    with pytest.raises(KeyError, match="of the caller"):
        steps.throw(KeyError("of the caller"))
    assert closed == [True, True]
    assert list(discreet_steps(quiet)()) == [1]


def test_a_file_object_of_the_caller_keeps_its_variables(tmp_path: Path) -> None:
    class Column(list):
        def __iter__(self) -> Iterator[Any]:
            mine = 1  # noqa: F841 - it is looked for
            raise OSError("the disk of the caller")

    Key(MASTER).save(tmp_path / "my.key")
    protector = Protector(tmp_path / "my.key")
    error = caught(lambda: protector.protect(Column([io.BytesIO()]), ["a"]))
    assert str(error) == "the disk of the caller"
    assert [frame.f_locals["mine"] for frame in frames_of(error) if "mine" in frame.f_locals] == [1]
