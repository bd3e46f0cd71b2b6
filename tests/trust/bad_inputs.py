"""Inputs that must be refused: for each kind a table of cases, each a function that makes it and gives the call."""

from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from audiofiles import noise, wav, write_tree
from hostile import BAD_NPYS, BAD_WAVS
from test_key import KEY_LINE, WRONG

from poscuda_fast import (
    Key,
    Protector,
    Recipe,
    drop_undo,
    protect,
    protect_folder,
    protect_memmap,
    restore_folder,
    restore_memmap,
    verify_folder,
)
from poscuda_fast.arrays import verbs
from poscuda_fast.recipe import check_rate, check_snr
from poscuda_fast.undo.journal import sidecar_of
from poscuda_fast.undo.log import MAGIC

Call = Callable[[], object]
Case = Callable[[Path], Call]  # makes an input in a folder and gives what must be refused
KEY = Key(bytes(range(32)))
GOOD = wav(noise(500))


def wav_cases() -> Iterator[tuple[str, Case]]:
    for name, (content, _) in BAD_WAVS.items():

        def case(folder: Path, content: bytes = content) -> Call:
            write_tree(folder, {"a/good.wav": GOOD, "b/bad.wav": content})
            return lambda: protect_folder(folder, None, KEY)

        yield name, case


def npy_cases() -> Iterator[tuple[str, Case]]:
    for name, (content, _) in BAD_NPYS.items():

        def case(folder: Path, content: bytes = content) -> Call:
            (folder / "a.npy").write_bytes(content)
            return lambda: verbs.protect_array(folder / "a.npy", [0, 1], KEY, recipe=Recipe.strong())

        yield name, case


def key_cases() -> Iterator[tuple[str, Case]]:
    for name, (content, _) in WRONG.items():

        def case(folder: Path, content: str | bytes = content) -> Call:
            path = folder / "a.key"
            path.touch(0o600)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            return lambda: Key.load(path)

        yield name, case
    makers: dict[str, Callable[[Path], object]] = {
        "a folder": lambda path: path.mkdir(),
        "a pipe": lambda path: os.mkfifo(path, 0o600),
        "nothing": lambda path: None,
        "a link": lambda path: path.symlink_to("/dev/null"),
        "a device": lambda path: path.symlink_to("/dev/zero"),
        "open to others": lambda path: (path.write_text(KEY_LINE), path.chmod(0o644)),
        "huge": lambda path: (path.touch(0o600), path.write_bytes(KEY_LINE.encode() + bytes(10_000))),
        "a sparse gigabyte": lambda path: (path.touch(0o600), os.truncate(path, 1 << 30)),
    }
    for name, make in makers.items():

        def other(folder: Path, make: Callable[[Path], object] = make) -> Call:
            make(folder / "a.key")
            return lambda: Key.load(folder / "a.key")

        yield name, other
    for cut in range(0, len(KEY_LINE), 4):

        def shorter(folder: Path, cut: int = cut) -> Call:
            (folder / "a.key").touch(0o600)
            (folder / "a.key").write_text(KEY_LINE[:cut])
            return lambda: Key.load(folder / "a.key")

        yield f"cut to {cut} characters", shorter


def refused_array(clips: Any, labels: Any = ..., **options: Any) -> Case:
    """A case of `protect`, which may not change the array."""

    def case(folder: Path) -> Call:
        n = len(clips) if hasattr(clips, "__len__") else 1
        given = list(range(n)) if labels is ... else labels
        before = np.asarray(clips).tobytes() if isinstance(clips, np.ndarray) and clips.dtype != object else b""

        def call() -> object:
            try:
                return protect(clips, given, options.pop("key", KEY), **options)
            finally:
                if before:
                    assert np.asarray(clips).tobytes() == before, "the array was changed"

        return call

    return case


def array_cases() -> Iterator[tuple[str, Case]]:
    good = noise(4 * 500).reshape(4, 500)
    read_only = good.copy()
    read_only.flags.writeable = False
    overlapping = np.lib.stride_tricks.as_strided(good.copy(), (4, 500), (200, 2))
    repeated = np.broadcast_to(good[0], (4, 500))
    floats = np.ones((4, 500), np.float32)
    arrays: dict[str, Any] = {
        "read-only": read_only,
        "overlapping rows": overlapping,
        "one row repeated": repeated,
        "float64": good.astype(float),
        "float16": good.astype(np.float16),
        "int32": good.astype(np.int32),
        "int8": good.astype(np.int8),
        "uint16": good.astype(np.uint16),
        "complex": good.astype(complex),
        "bool": good > 0,
        "objects": good.astype(object),
        "text": good.astype("U6"),
        "times": good.astype("M8[s]"),
        "structured": np.zeros((4, 5), [("a", "<i2")]),
        "big-endian": good.astype(">i2"),
        "big-endian float": floats.astype(">f4"),
        "0-D": np.int16(5),
        "1-D": good[0],
        "4-D": good.reshape(4, 5, 10, 10),
        "5-D": good.reshape(4, 5, 10, 5, 2),
        "a number": 5,
        "None": None,
        "text itself": "clips",
        "bytes": b"clips",
        "a dict": {"a": good},
        "a set": {1, 2},
        "a generator": (row for row in good),
        "rows of text": ["a", "b"],
        "rows of lists": [[1, 2, 3], [4, 5, 6]],
        "ragged kinds": [good[0], good[1].astype(np.float32)],
        "one row of None": [good[0], None],
        "rows of 4-D": [good.reshape(4, 5, 10, 10)] * 2,
        "the same row twice": [good[0], good[0]],
        "rows that overlap": [good[0], good[0, 250:]],
        "masked": np.ma.masked_array(good, good > 0),
        "not aligned": unaligned(),
        "no frames in a list of objects": np.array([None, None]),
        "one frame of many channels": np.ones((4, 1, 500), np.int16),
        "channels before frames": np.ones((4, 2, 500), np.int16),
        "few frames of more channels": np.ones((4, 4, 5), np.int16),
        "floats as large as integers": np.full((4, 500), 9000, np.float32),
    }
    for name, clips in arrays.items():
        n = 4 if not hasattr(clips, "__len__") else len(clips)
        yield name, refused_array(clips, list(range(n)))
    for value in (np.nan, np.inf, -np.inf):
        yield f"{value} in format 1", refused_array(np.full((2, 240), value, np.float32), recipe=Recipe.paper())
    others: dict[str, dict[str, Any]] = {
        "a key of bytes": {"key": bytes(32)},
        "a key's path": {"key": "my.key"},
        "no key": {"key": None},
        "lengths too long": {"lengths": [500, 500, 500, 501]},
        "negative lengths": {"lengths": [-1, 2, 3, 4]},
        "too few lengths": {"lengths": [5]},
        "float lengths": {"lengths": [1.0, 2.0, 3.0, 4.0]},
        "NaN lengths": {"lengths": np.full(4, np.nan)},
        "lengths of text": {"lengths": ["5"] * 4},
        "2-D lengths": {"lengths": [[5], [5], [5], [5]]},
        "lengths None inside": {"lengths": [5, None, 5, 5]},
        "unknown backend": {"backend": "fpga"},
        "no backend": {"backend": None},
        "0 threads": {"threads": 0},
        "-1 threads": {"threads": -1},
        "half a thread": {"threads": 0.5},
        "threads of text": {"threads": "2"},
        "a recipe of text": {"recipe": "strong"},
        "no sample rate": {"sample_rate": 0},
        "a sample rate beyond all": {"sample_rate": 10**9},
        "a sample rate of text": {"sample_rate": "16k"},
        "a sample rate of half a Hz": {"sample_rate": 16000.5},
        "a ratio of text": {"snr": "20"},
        "a ratio that is no number": {"snr": float("nan")},
        "a ratio out of reach": {"snr": 300},
        "a ratio for the paper's recipe": {"snr": 20, "recipe": Recipe.paper()},
        "a strength that saturates": {"recipe": Recipe.strong(50.0)},
        "a recipe as a dict": {"recipe": {"format": 2}},
    }
    for name, options in others.items():
        yield name, refused_array(good.copy(), **options)


def unaligned() -> np.ndarray:
    return np.frombuffer(bytearray(4 * 10 + 1), np.uint8)[1:].view(np.int16).reshape(2, 10)


def memmap_cases() -> Iterator[tuple[str, Case]]:
    def mapped(folder: Path, mode: Any = "r+", **options: Any) -> np.memmap:
        path = folder / "clips.raw"
        path.write_bytes(noise(2000).tobytes())
        return np.memmap(path, np.int16, mode, shape=(4, 500), **options)

    makers: dict[str, Callable[[Path], Any]] = {
        "read-only": lambda folder: mapped(folder, "r"),
        "copy-on-write": lambda folder: mapped(folder, "c"),
        "not mapped": lambda folder: np.ones((4, 500), np.int16),
        "a copy": lambda folder: np.array(mapped(folder)),
        "a list": lambda folder: list(mapped(folder)),
        "other byte order": lambda folder: mapped(folder).view(">i2"),
        "other dtype": lambda folder: mapped(folder).view(np.uint16),
        "one dimension": lambda folder: mapped(folder).reshape(-1),
        "four dimensions": lambda folder: mapped(folder).reshape(4, 5, 10, 10),
        "rows that overlap": lambda folder: np.lib.stride_tricks.as_strided(mapped(folder), (4, 500), (200, 2)),
    }
    for name, make in makers.items():

        def case(folder: Path, make: Callable[[Path], Any] = make) -> Call:
            arr = make(folder)
            return lambda: protect_memmap(arr, [0, 1, 2, 3], KEY)

        yield name, case


def label_cases() -> Iterator[tuple[str, Case]]:
    wrong: dict[str, Any] = {
        "negative": [0, -1, 2, 3],
        "too few": [0, 1, 2],
        "too many": [0, 1, 2, 3, 4],
        "none": [],
        "None": None,
        "floats": [0.0, 1.0, 2.0, 3.0],
        "NaN": [np.nan] * 4,
        "bools": [True, False, True, False],
        "a bool among numbers": [0, True, 2, 3],
        "None inside": [0, None, 1, 2],
        "bytes that are no text": [b"a", b"\xff", b"c", b"d"],
        "empty name": ["a", "", "b", "c"],
        "lone surrogate": ["a", "\ud800", "b", "c"],
        "NUL at the end": ["a", "b\0", "c", "d"],
        "two dimensions": [[0], [1], [2], [3]],
        "one text": "abcd",
        "one number": 3,
        "beyond 64 bits": [0, 2**64, 1, 2],
        "a set": {0, 1, 2, 3},
        "a dict": {0: 1, 1: 2, 2: 3, 3: 4},
        "float array": np.zeros(4),
        "bool array": np.zeros(4, bool),
        "times": np.zeros(4, "M8[s]"),
        "complex": np.zeros(4, complex),
        "a number for all": np.array(3),
        "lists": [[0], [1, 2], [3], [4]],
    }
    for name, labels in wrong.items():
        yield name, refused_array(noise(2000).reshape(4, 500), labels)
    classes: dict[str, Any] = {
        "too few classes": ["a", "b"],
        "the same class twice": ["a", "b", "a", "c"],
        "two spellings of a class": ["\u00e9", "e\u0301", "a", "b"],
        "classes of numbers": [1, 2, 3, 4],
        "one text of classes": "abcd",
        "an empty class": ["a", "", "c", "d"],
        "a class of None": ["a", None, "c", "d"],
    }
    for name, given in classes.items():
        yield name, refused_array(noise(2000).reshape(4, 500), [0, 1, 2, 3], classes=given)
    yield "names with classes", refused_array(noise(1000).reshape(2, 500), ["a", "b"], classes=["a", "b"])


def csv_cases() -> Iterator[tuple[str, Case]]:
    rows = b"a/1.wav,yes\nb/2.wav,no\n"
    wrong: dict[str, bytes] = {
        "empty": b"",
        "no header": rows,
        "one column": b"path\na/1.wav\n",
        "other columns": b"file,class\n" + rows,
        "a row missing": b"path,label\na/1.wav,yes\n",
        "a file too many": b"path,label\n" + rows + b"c/3.wav,no\n",
        "two labels": b"path,label\n" + rows + b"a/1.wav,no\n",
        "three fields": b"path,label\na/1.wav,yes,x\nb/2.wav,no\n",
        "empty label": b"path,label\na/1.wav,\nb/2.wav,no\n",
        "absolute": b"path,label\n/etc/passwd,yes\n" + rows,
        "parent": b"path,label\n../a.wav,yes\n" + rows,
        "empty path": b"path,label\n,yes\n" + rows,
        "NUL in a path": b"path,label\na/\x001.wav,yes\n" + rows,
        "NUL in a label": b"path,label\na/1.wav,y\0s\nb/2.wav,no\n",
        "latin-1": b"path,label\na/1.wav,\xe9\xe8\nb/2.wav,no\n",
        "UTF-16": "path,label\na/1.wav,yes\n".encode("utf-16"),
        "quote not closed": b'path,label\n"a/1.wav,yes\nb/2.wav,no\n',
        "huge field": b"path,label\na/1.wav," + b"x" * 200_000,
        "binary": bytes(range(256)) * 20,
        "text behind a quote": b'path,label\n"a/1.wav"x,yes\nb/2.wav,no\n',
        "a megabyte of quotes": b"path,label\n" + b'"' * 1_000_001,
        "header only": b"path,label\n",
    }
    for name, content in wrong.items():

        def case(folder: Path, content: bytes = content) -> Call:
            write_tree(folder, {"data/a/1.wav": GOOD, "data/b/2.wav": GOOD, "labels.csv": content})
            return lambda: protect_folder(folder / "data", None, KEY, labels_from=f"csv:{folder / 'labels.csv'}")

        yield name, case
    for name, source in {
        "missing file": "csv:missing.csv",
        "no file": "csv:",
        "unknown source": "names",
        "no regular expression": "regex:",
        "a broken one": "regex:(",
        "one without a group": "regex:a",
        "one that fits nothing": r"regex:^(\d{9})",
        "None": None,
        "a number": 5,
        "a mapping that lacks a file": {"a/1.wav": "a"},
        "a mapping of None": {"a/1.wav": None, "b/2.wav": "b"},
        "a mapping of floats": {"a/1.wav": 1.5, "b/2.wav": 2.5},
    }.items():

        def source_case(folder: Path, source: Any = source) -> Call:
            write_tree(folder, {"a/1.wav": GOOD, "b/2.wav": GOOD})
            return lambda: protect_folder(folder, None, KEY, labels_from=source)

        yield f"labels: {name}", source_case


def folder_cases() -> Iterator[tuple[str, Case]]:
    def bind(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))

    spoilt: dict[str, Callable[[Path], object]] = {
        "a link to a file": lambda root: (root / "a/link.wav").symlink_to(root / "a/1.wav"),
        "a link to a folder": lambda root: (root / "link").symlink_to(root / "a"),
        "a link to nothing": lambda root: (root / "a/link.wav").symlink_to("nowhere"),
        "a link to itself": lambda root: (root / "a/link.wav").symlink_to(root / "a/link.wav"),
        "a hard link": lambda root: os.link(root / "a/1.wav", root / "a/2.wav"),
        "a pipe": lambda root: os.mkfifo(root / "a/pipe.wav"),
        "a socket": lambda root: bind(root / "a/s.wav"),
        "names that differ in case": lambda root: write_tree(root, {"a/X.wav": GOOD, "a/x.wav": GOOD}),
        "names that differ in form": lambda root: write_tree(root, {"a/\u00e9.wav": GOOD, "a/e\u0301.wav": GOOD}),
        "a name that is not UTF-8": lambda root: Path(os.fsdecode(os.fsencode(root) + b"/a/\xff.wav")).write_bytes(
            GOOD
        ),
        "a loose file": lambda root: write_tree(root, {"loose.wav": GOOD}),
        "FLAC that is none": lambda root: write_tree(root, {"a/x.flac": b"fLaC" + bytes(50)}),
        "MP3": lambda root: write_tree(root, {"a/x.mp3": b"\xff\xfb" + bytes(500)}),
        "a folder in the place of its sidecar": lambda root: sidecar_of(root).mkdir(),
        "a pipe in the place of its sidecar": lambda root: os.mkfifo(sidecar_of(root)),
        "a link in the place of its sidecar": lambda root: sidecar_of(root).symlink_to("elsewhere"),
    }
    for name, spoil in spoilt.items():

        def case(folder: Path, spoil: Callable[[Path], object] = spoil) -> Call:
            write_tree(folder, {"a/1.wav": GOOD, "b/2.wav": GOOD})
            spoil(folder)
            return lambda: protect_folder(folder, None, KEY)

        yield name, case
    calls: dict[str, Callable[[Path], object]] = {
        "a missing folder": lambda root: protect_folder(root / "missing", None, KEY),
        "an empty folder": lambda root: protect_folder(root / "empty", None, KEY),
        "a copy onto itself": lambda root: protect_folder(root, root, KEY),
        "a copy into itself": lambda root: protect_folder(root, root / "a/copy", KEY),
        "a copy onto what is there": lambda root: protect_folder(root / "a", root / "b", KEY),
        "restoring what was never protected": lambda root: restore_folder(root, KEY),
        "verifying what was never protected": lambda root: verify_folder(root, KEY),
        "dropping what was never protected": lambda root: drop_undo(root, KEY),
        "a text of a way with lossy files": lambda root: protect_folder(root, None, KEY, lossy="mp3"),
        "a sidecar in a folder that is missing": lambda root: protect_folder(root, None, KEY, sidecar=root / "no/side"),
        "a negative strength": lambda root: protect_folder(root, None, KEY, strength=-1.0),
        "no strength": lambda root: protect_folder(root, None, KEY, strength=float("nan")),
    }
    for name, call in calls.items():

        def called(folder: Path, call: Callable[[Path], object] = call) -> Call:
            write_tree(folder, {"a/1.wav": GOOD, "b/2.wav": GOOD})
            (folder / "empty").mkdir()
            return lambda: call(folder)

        yield name, called


def recipe_cases() -> Iterator[tuple[str, Case]]:
    wrong: list[Callable[[], object]] = [
        *(
            lambda field=field, value=value: Recipe.paper(**{field: value})
            for field in ("patch", "taps", "patches", "every", "blur")
            for value in (0, -1, "5", float("nan"), 10**50)
        ),
        *(
            lambda field=field, value=value: Recipe.strong(**{field: value})
            for field in ("strength",)
            for value in (0, -1, "5", float("nan"), 10**50, 50.5)
        ),
        *(lambda value=value: check_rate(value) for value in (0, -1, "5", float("nan"), 10**50, 1_999, 16e3, None)),
        *(lambda value=value: check_snr(value, Recipe.strong()) for value in ("5", float("nan"), math.inf, None)),
        *(
            lambda fields=fields: Recipe.from_dict(fields)
            for fields in (
                None,
                5,
                "strong",
                [],
                {},
                {"format": 3},
                {"format": "1"},
                {"format": 1, "patch": None},
                {"format": 2},
                {"format": 1, "more": 1},
                {"format": True},
                {"format": 2, "strength": [1]},
                {**Recipe.strong().to_dict(), "strength": 1e9},
                {**Recipe.paper().to_dict(), "blur": {"a": 1}},
            )
        ),
    ]
    for number, call in enumerate(wrong):
        yield f"recipe {number}", lambda folder, call=call: call


def manifest_cases() -> Iterator[tuple[str, Case]]:
    entry = {
        "label": "a",
        "bytes_before": 1,
        "bytes_after": 1,
        "blake3_before": "a" * 64,
        "blake3_after": "b" * 64,
        "snr_db": None,
    }
    whole = {
        "poscuda": 2,
        "fingerprint": KEY.fingerprint,
        "recipe": Recipe.paper().to_dict(),
        "files": {"a/1.wav": entry},
    }
    texts: dict[str, str] = {
        "empty": "",
        "no JSON": "{",
        "null": "null",
        "a number": "5",
        "a list": "[]",
        "text": '"a"',
        "{}": "{}",
        "deep lists": "[" * 100_000,
        "deep dicts": '{"a":' * 100_000,
        "many digits": '{"poscuda": ' + "1" * 9_000 + "}",
        "newer": json.dumps({**whole, "poscuda": 3}),
        "NaN for a version": json.dumps({**whole, "poscuda": float("nan")}),
        "no recipe": json.dumps({**whole, "recipe": None}),
        "a recipe of text": json.dumps({**whole, "recipe": "strong"}),
        "a hostile recipe": json.dumps({**whole, "recipe": {"format": 1, "patch": -5}}),
        "files in a list": json.dumps({**whole, "files": [entry]}),
        "a file of None": json.dumps({**whole, "files": {"a": None}}),
        "a file above": json.dumps({**whole, "files": {"../a.wav": entry}}),
        "an absolute file": json.dumps({**whole, "files": {"/etc/passwd": entry}}),
        "less in an entry": json.dumps({**whole, "files": {"a/1.wav": {"label": "a"}}}),
        "more in an entry": json.dumps({**whole, "files": {"a/1.wav": {**entry, "more": 1}}}),
        "a key twice": json.dumps(whole).replace('"poscuda": 2', '"poscuda": 2, "poscuda": 7'),
    }
    for name, text in texts.items():

        def case(folder: Path, text: str = text) -> Call:
            write_tree(folder, {"set/a/1.wav": GOOD, "set.poscuda.json": text.encode()})
            return lambda: verify_folder(folder / "set")

        yield name, case
    for name, content in {
        "not UTF-8": b'{"poscuda": "\xff"}',
        "UTF-16": json.dumps(whole).encode("utf-16")[:-1],
    }.items():

        def binary(folder: Path, content: bytes = content) -> Call:
            write_tree(folder, {"set/a/1.wav": GOOD, "set.poscuda.json": content})
            return lambda: verify_folder(folder / "set")

        yield name, binary


def sidecar_cases() -> Iterator[tuple[str, Case]]:
    def overwritten(place: int, content: bytes) -> Callable[[Path], object]:
        def edit(path: Path) -> None:
            whole = path.read_bytes()
            begin = place % len(whole)
            path.write_bytes(whole[:begin] + content + whole[begin + len(content) :])

        return edit

    def flipped(place: int) -> Callable[[Path], object]:
        def edit(path: Path) -> None:
            whole = bytearray(path.read_bytes())
            whole[place] ^= 1
            path.write_bytes(whole)

        return edit

    first = 76  # the first record, behind the header
    spoilt: dict[str, Callable[[Path], object]] = {
        "empty": lambda path: path.write_bytes(b""),
        "text": lambda path: path.write_text("not a sidecar"),
        "zeros": lambda path: path.write_bytes(bytes(8192)),
        "the magic alone": lambda path: path.write_bytes(MAGIC),
        "a header alone": lambda path: os.truncate(path, first),
        "a database": lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(4080)),
        "a newer version": overwritten(7, b"\x03"),
        "another key's": overwritten(8, b"\0"),
        "another journal key": overwritten(40, bytes(8)),
        "a record of another number": overwritten(first, b"\xff" * 8),
        "an endless record": overwritten(first + 8, b"\xff\xff\xff\xff"),
        "an empty record": overwritten(first + 8, bytes(4)),
        "a record of another kind": overwritten(first + 12, b"\x07"),
        "a record in the middle": flipped(400),
        "its last byte": flipped(-1),
        "half of it": lambda path: os.truncate(path, path.stat().st_size // 2),
        "much behind it": lambda path: path.write_bytes(path.read_bytes() + b"x" * 100_000),
        "gigabytes behind it": lambda path: os.truncate(path, 5 << 30),
        "a folder": lambda path: (path.unlink(), path.mkdir()),
        "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
        "a link": lambda path: (path.rename(path.with_name("kept")), path.symlink_to("kept")),
        "a link to nothing": lambda path: (path.unlink(), path.symlink_to("nothing")),
        "the data": lambda path: (path.unlink(), os.link(path.with_name("clips.npy"), path)),
    }
    for name, spoil in spoilt.items():

        def case(folder: Path, spoil: Callable[[Path], object] = spoil) -> Call:
            path = folder / "clips.npy"
            np.save(path, noise(4 * 500).reshape(4, 500))
            protect_memmap(np.load(path, mmap_mode="r+"), [0, 1, 2, 3], KEY)
            spoil(folder / "clips.npy.poscuda")
            arr = np.load(path, mmap_mode="r+")
            return lambda: restore_memmap(arr, KEY)

        yield name, case


def batch_cases() -> Iterator[tuple[str, Case]]:
    wrong: dict[str, Any] = {
        "no audio column": {"label": [0]},
        "no label column": {"audio": [GOOD]},
        "text": {"audio": ["a.wav"], "label": [0]},
        "None": {"audio": [None], "label": [0]},
        "no bytes": {"audio": [{"path": "a.wav", "bytes": None}], "label": [0]},
        "not audio": {"audio": [b"text"], "label": [0]},
        "empty": {"audio": [b""], "label": [0]},
        "a cut file": {"audio": [GOOD[:-1]], "label": [0]},
        "too few labels": {"audio": [GOOD, GOOD], "label": [0]},
        "a label of None": {"audio": [GOOD], "label": [None]},
        "float64": {"audio": np.zeros((2, 5)), "label": [0, 1]},
        "1-D": {"audio": np.zeros(5, np.int16), "label": [0] * 5},
        "a number": {"audio": 5, "label": [0]},
    }
    for name, batch in wrong.items():

        def case(folder: Path, batch: Any = batch) -> Call:
            KEY.save(folder / "my.key")
            protector = Protector(folder / "my.key")
            return lambda: protector(batch)

        yield name, case


KINDS: dict[str, Callable[[], Iterator[tuple[str, Case]]]] = {
    "WAV": wav_cases,
    "NPY": npy_cases,
    "key file": key_cases,
    "array": array_cases,
    "memmap": memmap_cases,
    "labels": label_cases,
    "CSV": csv_cases,
    "folder": folder_cases,
    "recipe": recipe_cases,
    "manifest": manifest_cases,
    "sidecar": sidecar_cases,
    "batch": batch_cases,
}
CASES = [(kind, name, case) for kind, cases in KINDS.items() for name, case in cases()]
