"""What belongs to the whole process is as it was, during a call and after it, in one thread and in many."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import locale
import os
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audiofiles import noise, npy, npy_header, wav, write_tree
from hostile import BAD_NPYS

import poscuda_fast
from poscuda_fast import AudioFileError, DatasetError, Key, Recipe, protect_array, protect_folder
from poscuda_fast.arrays import mapped
from poscuda_fast.arrays.vectors import read_vector
from poscuda_fast.files import label_sources
from poscuda_fast.interrupts import interrupts_held_back

KEY = Key(bytes(range(32)))


def state() -> dict[str, Any]:
    """All that a call could change for the rest of the process."""
    mask = os.umask(0o22)
    os.umask(mask)
    found: dict[str, Any] = {
        "warnings": (list(warnings.filters), warnings.showwarning),
        "csv": (csv.field_size_limit(), csv.list_dialects()),
        "signals": [signal.getsignal(number) for number in sorted(signal.valid_signals()) if signal.getsignal(number)],
        "locale": locale.setlocale(locale.LC_ALL),
        "umask": mask,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "limits": (sys.getrecursionlimit(), getattr(sys, "get_int_max_str_digits", int)(), sys.getswitchinterval()),
        "numpy": (np.geterr(), np.get_printoptions()),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.gettrace(), sys.getprofile()),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "modules' path": list(sys.path),
        "random": np.random.get_state()[1].tolist(),  # noqa: NPY002 - the one that all share
    }
    if "zarr" in sys.modules:
        found["zarr"] = sys.modules["zarr"].config.get("array")
    if "matplotlib" in sys.modules:
        found["matplotlib"] = dict(sys.modules["matplotlib"].rcParams)
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_tree(tmp_path / "data", {f"{label}/{n}.wav": wav(noise(2000, seed=n)) for label in "ab" for n in (1, 2)})
    lines = "".join(f"{label}/{n}.wav,{label}\n" for label in "ab" for n in (1, 2))
    (tmp_path / "labels.csv").write_text("path,label\n" + lines)
    np.save(tmp_path / "clips.npy", np.random.default_rng(1).integers(-999, 999, (8, 2000)).astype(np.int16))
    return tmp_path


def everything(place: Path, number: int) -> None:
    """What a user may do, on data of its own; some of it fails."""
    copy, clips = place / f"copy {number}", place / f"{number}.npy"
    source = shutil.copy(place / "clips.npy", place / f"source {number}.npy")
    protect_folder(place / "data", copy, KEY, labels_from=f"csv:{place / 'labels.csv'}", threads=2)
    poscuda_fast.verify_folder(copy, KEY)
    list(poscuda_fast.originals_of_folder(copy, KEY))
    with pytest.raises(DatasetError):
        poscuda_fast.restore_folder(copy, KEY)
    protect_array(source, list("abababab"), KEY, dst=clips)
    poscuda_fast.verify_array(clips, KEY)
    list(poscuda_fast.originals_of_array(clips, KEY))
    protect_array(source, list("abababab"), KEY)
    poscuda_fast.restore_array(source, KEY)
    poscuda_fast.protect(np.load(place / "clips.npy"), [0, 1] * 4, KEY, recipe=Recipe.paper())
    with pytest.raises(DatasetError):
        protect_folder(place / "data", place / "other", KEY, labels_from=f"csv:{place / 'clips.npy'}")
    for content, _ in list(BAD_NPYS.values())[::7]:
        (place / f"bad {number}.npy").write_bytes(content)
        with pytest.raises(AudioFileError):
            poscuda_fast.verify_array(place / f"bad {number}.npy", KEY)
    with pytest.raises(DatasetError):
        read_vector(place / "labels.csv")
    if importlib.util.find_spec("zarr") is not None:
        import zarr

        stored = place / f"{number}.zarr"
        array = zarr.create_array(stored, shape=(8, 2000), chunks=(4, 2000), dtype="int16")
        array[:] = np.load(place / "clips.npy")
        protect_array(stored, list("abababab"), KEY)
        poscuda_fast.restore_array(stored, KEY)
    if importlib.util.find_spec("matplotlib") is not None and importlib.util.find_spec("jinja2") is not None:
        from poscuda_fast.reporting import write_report

        protect_folder(place / "data", place / f"shown {number}", KEY)
        write_report(place / f"shown {number}", KEY, place / f"{number}.html")


def test_everything_leaves_the_process_as_it_was(place: Path) -> None:
    everything(place, 0)  # imports what it needs, and libraries set themselves up
    before = state()
    everything(place, 1)
    after = state()
    assert {name for name in before if after[name] != before[name]} == set()


def test_everything_in_many_threads_leaves_the_process_as_it_was(place: Path) -> None:
    everything(place, 0)
    before = state()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: everything(place, number), range(1, 5)))
    after = state()
    assert {name for name in before if after[name] != before[name]} == set()


# What is not even changed for a moment, since another thread would see it.


def forbidden(*_: object, **__: object) -> Any:
    raise AssertionError("this is the whole process's")


@pytest.mark.parametrize("content", [content for content, _ in BAD_NPYS.values()], ids=BAD_NPYS)
def test_a_hostile_npy_header_gives_no_warning_and_needs_no_filter(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with warnings.catch_warnings(record=True) as given, pytest.MonkeyPatch.context() as patching:
        warnings.simplefilter("always")
        patching.setattr(warnings, "catch_warnings", forbidden)
        with open(tmp_path / "a.npy", "rb") as file, pytest.raises(AudioFileError):
            mapped.read_npy(file, "a.npy")
        with contextlib.suppress(DatasetError):
            read_vector(tmp_path / "a.npy")
    assert given == []


@pytest.mark.parametrize(
    "shape", [r"(2, '\d')", "(2 if 1else 3, 3)", "(2L, 3L)", "(1_0, 3)", "(0x2, 3)", "(1in [], 3)"]
)
def test_a_header_that_python_or_numpy_would_warn_of_is_refused_before(tmp_path: Path, shape: str) -> None:
    (tmp_path / "a.npy").write_bytes(npy(npy_header(shape=shape), bytes(12)))
    with (
        open(tmp_path / "a.npy", "rb") as file,
        pytest.raises(AudioFileError, match=r"it is not one that numpy\.save writes"),
    ):
        mapped.read_npy(file, "a.npy")


@pytest.mark.parametrize(
    "saved",
    [
        np.arange(5), np.array(["a", "bcd", "日本"]), np.array([b"a"]), np.zeros(0, int), np.array([True]), np.array(3),
        np.asfortranarray(np.arange(6).reshape(2, 3)), np.arange(5, dtype=">i4"), np.array([1.5]), np.array([""]),
        np.array(["2020-01-01"], "M8[D]"), np.arange(300_000, dtype=np.int8),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)  # fmt: skip
def test_a_vector_is_read_as_numpy_saved_it(tmp_path: Path, saved: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", saved)
    found = read_vector(tmp_path / "a.npy")
    assert (found.dtype, found.shape) == (saved.dtype, saved.shape)
    assert found.tobytes() == saved.tobytes()
    assert found.flags.writeable


HOSTILE_VECTORS = {
    "nested": npy("(" * 4000 + ")" * 4000),
    "nested list": npy(npy_header(shape="(" * 3000 + ")" * 3000)),
    "signs": npy(npy_header(shape="(" + "-" * 3000 + "8,)"), bytes(64)),
    "many signs": npy("-" * 60_000 + "1"),
    "objects": npy(npy_header("'|O'", shape="(1,)"), bytes(8)),
    "short": npy(npy_header("'<i8'", shape="(9,)"), bytes(64)),
    "huge": npy(npy_header("'<i8'", shape=f"({2**62},)"), bytes(64)),
    "negative": npy(npy_header("'<i8'", shape="(-1,)"), bytes(64)),
    "nothing in each": npy(npy_header("'<U0'", shape=f"({2**40},)")),
    "text": b"0\n1\n",
    "nothing": b"",
    "cut": b"\x93NUMPY\x01",
}


@pytest.mark.parametrize("content", HOSTILE_VECTORS.values(), ids=HOSTILE_VECTORS)
def test_what_is_no_vector_of_labels_is_refused_with_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels.npy").write_bytes(content)
    with pytest.raises(
        DatasetError, match=r"labels\.npy is not a \.npy file of plain numbers or text \(.+\); make one"
    ):
        read_vector(tmp_path / "labels.npy")


def test_an_archive_of_labels_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "labels.npz", np.arange(3))
    for content in ((tmp_path / "labels.npz").read_bytes(), b"PK\3\4 and no archive"):
        (tmp_path / "labels.npy").write_bytes(content)
        with pytest.raises(DatasetError, match="is an archive of arrays"):
            read_vector(tmp_path / "labels.npy")


def test_csv_has_one_limit_for_the_process_and_labels_have_their_own(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a/1.wav"]
    find: Callable[[], object] = lambda: label_sources.find_labels(place, names, f"csv:{place / 'l.csv'}")  # noqa: E731
    before = csv.field_size_limit(1 << 30)
    monkeypatch.setattr(csv, "field_size_limit", forbidden)
    try:
        (place / "l.csv").write_text("path,label\na/1.wav," + "x" * label_sources.MAX_CSV_FIELD + "\n")
        assert find() == ["x" * label_sources.MAX_CSV_FIELD]
        (place / "l.csv").write_text("path,label\na/1.wav,x" + "x" * label_sources.MAX_CSV_FIELD + "\n")
        with pytest.raises(DatasetError, match=r"line 2 has a field of more than 65,536 characters\.$"):
            find()
    finally:
        monkeypatch.undo()
        assert csv.field_size_limit(before) == 1 << 30


def interrupting(old: Any) -> Iterator[str]:
    """What Ctrl-C does in a held-back block, with `old` as its handler."""
    code = f"""
import signal
from poscuda_fast.interrupts import interrupts_held_back
signal.signal(signal.SIGINT, {old})
with interrupts_held_back():
    signal.raise_signal(signal.SIGINT)
    print("held", flush=True)
print("behind", signal.getsignal(signal.SIGINT) == {old}, flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    yield from (*done.stdout.split("\n"), str(done.returncode))


def test_an_interrupt_is_held_back_and_then_takes_effect_as_it_would_have() -> None:
    assert list(interrupting("signal.SIG_IGN"))[:2] == ["held", "behind True"]
    found = list(interrupting("signal.SIG_DFL"))
    assert found[0] == "held"
    assert found[-1] == str(-signal.SIGINT)
    assert list(interrupting("signal.default_int_handler"))[:2] == ["held", ""]


def test_a_handler_that_is_not_pythons_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", forbidden)
    with interrupts_held_back():
        pass
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_training_leaves_the_callers_random_numbers() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchaudio")
    from poscuda_fast.evaluation.training import Config, Part, train

    part = Part(np.zeros((4, 16_000), np.int16), np.arange(4), np.array([0, 1, 0, 1]))
    before = torch.get_rng_state()
    train(Config("m5", epochs=1, seed=3), part, {"clean": part}, 2, 16_000)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_shown_stream_is_not_touched(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    protect_folder(place / "data", place / "copy", KEY)
    assert sys.stdout.getvalue() == sys.stderr.getvalue() == ""
