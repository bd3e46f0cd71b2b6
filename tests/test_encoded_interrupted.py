"""Ctrl-C in every call that libsndfile makes of Python: it ends the run, or comes too late to change anything."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import audiofiles
import pytest
from audiofiles import contents, noise

from poscuda_fast import Key, protect_folder, restore_folder, verify_folder
from poscuda_fast.files.encoded import Encoding, decode, encode, probe, writing_problem

NEEDED = "soxr is not installed; it comes with pip install '.[experiments]'"
VERBS: dict[str, tuple[str, Callable[[Path, Key], Any]]] = {
    "protect": ("plain", lambda root, key: protect_folder(root / "src", None, key)),
    "copy": ("plain", lambda root, key: protect_folder(root / "src", root / "dst", key)),
    "verify": ("protected", lambda root, key: verify_folder(root / "src", key)),
    "restore": ("protected", lambda root, key: restore_folder(root / "src", key)),
    "restore in part": ("protected", lambda root, key: restore_folder(root / "src", key, partial=True)),
    "restore without sidecar": (
        "copied",
        lambda root, key: restore_folder(root / "dst", key, without_sidecar=True, dst=root / "new"),
    ),
}


def interrupted(call: Callable[[], Any], n: int) -> tuple[bool, Any]:
    """Whether libsndfile calls Python `n` times, with Ctrl-C in the last; what the call gives, None if that ends it."""
    calls = itertools.count(1)
    last = 0

    def interrupt(frame: FrameType, event: str, _: Any) -> None:
        nonlocal last
        if event == "call" and frame.f_code.co_name.startswith("vio_"):
            last = next(calls)
            if last == n:
                signal.raise_signal(signal.SIGINT)

    sys.setprofile(interrupt)
    try:
        found = call()
        return last >= n, found
    except KeyboardInterrupt:
        return True, None
    finally:
        sys.setprofile(None)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one FLAC file: plain, protected in place, and with a protected copy."""
    root = tmp_path_factory.mktemp("scenes")
    key = Key(bytes(range(32)))
    for name in ("plain", "protected", "copied"):
        (root / name / "src" / "yes").mkdir(parents=True)
        audiofiles.encoded(root / name / "src/yes/a.flac", noise(20_000), "FLAC", "PCM_16")
    protect_folder(root / "protected/src", None, key)
    protect_folder(root / "copied/src", root / "copied/dst", key)
    return root


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_ends_or_gives_what_it_would_have_given(name: str, scenes: Path, tmp_path: Path, key: Key) -> None:
    scene, verb = VERBS[name]

    root = tmp_path / "data"
    call = functools.partial(verb, root, key)

    def begin() -> None:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(scenes / scene, root)

    def left() -> dict[str, bytes]:
        """The files, less records, which are salted."""
        return {path: content for path, content in contents(root, hidden=True).items() if ".poscuda" not in path}

    def timeless(found: Any) -> Any:
        return dataclasses.replace(found, seconds=0) if hasattr(found, "seconds") else found

    begin()
    expected, after = timeless(call()), left()
    for n in itertools.count(1):
        begin()
        reached, found = interrupted(call, n)
        if found is None:
            call()
        else:
            assert timeless(found) == expected
        assert left() == after
        if not reached:
            break
    assert n > 10


@pytest.mark.parametrize("work", ["decode", "encode", "probe", "clip", "writing_problem"])
def test_a_call_ends_or_gives_what_it_would_have_given(work: str, scenes: Path) -> None:
    data = (scenes / "plain/src/yes/a.flac").read_bytes()
    decoded = decode(data, "a")

    def clip(file: io.BytesIO) -> bytes:
        evaluation = pytest.importorskip("poscuda_fast.evaluation.decoding", reason=NEEDED, exc_type=ImportError)
        return evaluation.decode(file, 16_000, 9000).samples.tobytes()

    calls: dict[str, Callable[[int], Any]] = {
        "decode": lambda n: decode(data, "a").samples.tobytes(),
        "encode": lambda n: encode(decoded),
        "probe": lambda n: probe(io.BytesIO(data)),
        "clip": lambda n: clip(io.BytesIO(data)),
        # Each time of another rate, for what works is not tried again.
        "writing_problem": lambda n: str(writing_problem(Encoding("FLAC", "PCM_16", 9, 1, 16_000 + n))),
    }
    expected = calls[work](0)
    for n in itertools.count(1):
        reached, found = interrupted(functools.partial(calls[work], n), n)
        assert found in (None, expected)
        assert calls[work](n) == expected
        if not reached:
            break
    assert n > 5
