"""Zarr arrays from strangers: whatever their metadata and shards hold, there is a sentence, and nothing is written."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from audiofiles import contents, untouched
from test_cli import poscuda

from poscuda_fast import DatasetError, Key, protect_array, restore_array
from poscuda_fast.adapters.zarr_tasks import shard_tasks
from poscuda_fast.arrays.zarr import METADATA

LABELS = [0, 1] * 4
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}


def store(path: Path, **options: Any) -> Path:
    array = zarr.create_array(path, **{"shape": (8, 900), "chunks": (2, 900), "dtype": "int16", **options})
    array[:] = np.random.default_rng(2).integers(-900, 900, (8, 900)).astype(np.int16)
    return path


def nested(depth: int) -> str:
    inner = '{"name": "sharding_indexed", "configuration": {"codecs": ['
    return '"codecs": [' + inner * depth + "]}}" * depth + "]"


CHANGES: dict[str, dict[str, Any]] = {
    "a codec without a name": {"codecs": [{}]},
    "codecs that are a number": {"codecs": 5},
    "codecs that are text": {"codecs": "bytes"},
    "codecs that are null": {"codecs": None},
    "a codec that is null": {"codecs": [None]},
    "a codec that is a list": {"codecs": [[]]},
    "a name that is a list": {"codecs": [{"name": []}]},
    "a name that is a number": {"codecs": [{"name": 5}]},
    "a name with escapes": {"codecs": [{"name": "\x1b[2J\nrun   complete"}]},
    "a configuration that is a list": {"codecs": [{"name": "bytes", "configuration": []}]},
    "codecs inside that are a number": {"codecs": [{"name": "sharding_indexed", "configuration": {"codecs": 5}}]},
    "no codecs": {"codecs": []},
    "a transposition of other axes": {"codecs": [{"name": "transpose", "configuration": {"order": [5, 5]}}, BYTES]},
    "a huge shape": {"shape": [2**40, 2**40]},
    "a shape beyond 64 bits": {"shape": [2**70, 2**70]},
    "a negative shape": {"shape": [-8, 900]},
    "a shape of text": {"shape": ["8", "900"]},
    "a shape of fractions": {"shape": [8.5, 900]},
    "a shape that is null": {"shape": None},
    "another number of axes": {"shape": [8]},
    "chunks of nothing": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 900]}}},
    "negative chunks": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [-2, 900]}}},
    "huge chunks": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2**33, 2**33]}}},
    "chunks of other axes": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2]}}},
    "an unknown grid": {"chunk_grid": {"name": "evil"}},
    "a grid that is null": {"chunk_grid": None},
    "names of chunks that lead out": {
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/../"}}
    },
    "other samples": {"data_type": "float16"},
    "unknown samples": {"data_type": {"name": "x"}},
    "samples that are a list": {"data_type": [[]]},
    "a fill value of text": {"fill_value": "zz"},
    "a fill value that is too large": {"fill_value": 10**30},
    "a storage transformer": {"storage_transformers": [{"name": "x"}]},
    "too few names of axes": {"dimension_names": ["a"]},
    "another format": {"zarr_format": 9},
    "attributes that are a number": {"attributes": 5},
}
TEXTS: dict[str, Callable[[str], str | bytes]] = {
    "brackets": lambda text: "[" * 100_000 + "]" * 100_000,
    "nested codecs": lambda text: json.dumps({**json.loads(text), "codecs": 0}).replace('"codecs": 0', nested(2000)),
    "no JSON": lambda text: text[:-9],
    "no text": lambda text: b"\xff" + text.encode(),
    "nothing": lambda text: "",
    "a list": lambda text: "[1]",
    "a long number": lambda text: text.replace("900", "9" * 5000),
    "infinity": lambda text: text.replace("900", "Infinity"),
    **{
        name: lambda text, change=change: json.dumps({**json.loads(text), **change}) for name, change in CHANGES.items()
    },
}
HARMLESS = {"attributes that are a number"}  # for some versions of Zarr


@pytest.fixture
def words(tmp_path: Path, key_file: Path) -> list[object]:
    np.save(tmp_path / "labels.npy", LABELS)
    return ["--in-place", "--key", key_file, "--labels", tmp_path / "labels.npy"]


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_metadata_are_refused_with_a_sentence(tmp_path: Path, key: Key, words: list[object], name: str) -> None:
    path = store(tmp_path / "a.zarr")
    text = TEXTS[name]((path / METADATA).read_text(encoding="utf-8"))
    (path / METADATA).write_bytes(text if isinstance(text, bytes) else text.encode())
    if name in HARMLESS:
        assert poscuda("protect", path, *words).returncode in (0, 2)
        return
    with untouched(tmp_path):
        done = poscuda("protect", path, *words)
        assert done.returncode == 2, done.stderr
        assert poscuda("inspect", path).returncode in (0, 2)
        for call in (lambda: protect_array(path, LABELS, key), lambda: restore_array(path, key)):
            with pytest.raises((DatasetError, ValueError, TypeError, poscuda_errors())):
                call()
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].isprintable()
    assert lines[0].startswith(f"poscuda: {path} ") or "labels has 8 entries for" in lines[0]
    assert len(lines[0]) < 600


def poscuda_errors() -> type[Exception]:
    from poscuda_fast import PoscudaError

    return PoscudaError


@pytest.mark.parametrize("compressors", ["auto", None], ids=["zstd", "raw"])
@pytest.mark.parametrize("content", [b"", b"\0", b"\xff" * 4000], ids=["empty", "short", "noise"])
def test_a_damaged_shard_is_refused_with_a_sentence(
    tmp_path: Path, key: Key, key_file: Path, words: list[object], compressors: Any, content: bytes
) -> None:
    path = store(tmp_path / "a.zarr", compressors=compressors)
    (path / "c" / "1" / "0").write_bytes(content)
    before = contents(path)
    done = poscuda("protect", path, *words)
    assert done.returncode == 2, done.stderr
    assert f"{path} has damaged data: the shard c/1/0 of clips 2 to 3 " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert {name: now for name, now in contents(path).items() if name in before} == before
    tasks = shard_tasks(path, tmp_path / "b.zarr", LABELS, key_file)
    with pytest.raises(DatasetError, match="the shard c/1/0 of clips 2 to 3 cannot be decoded"):
        tasks[1]()


@pytest.mark.skipif(sys.platform == "win32", reason="links are for administrators")
@pytest.mark.parametrize("place", ["c", "c/0"])
def test_nothing_is_written_through_a_link_in_the_array(tmp_path: Path, words: list[object], place: str) -> None:
    path = store(tmp_path / "a.zarr")
    shutil.move(path / place, tmp_path / "outside")
    os.symlink(tmp_path / "outside", path / place)
    before = contents(tmp_path / "outside")
    for extra in ((), ("--dry-run",)):
        with untouched(tmp_path):
            done = poscuda("protect", path, *words, *extra)
        assert done.returncode == 2, done.stderr
        assert f"{path / place} is a link; replace it by what it leads to" in done.stderr
    assert contents(tmp_path / "outside") == before


@pytest.mark.parametrize("write_empty", [True, False])
def test_the_configuration_of_zarr_is_neither_used_nor_changed(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch, write_empty: bool
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("this is the whole process's")

    path = store(tmp_path / "a.zarr")
    array = zarr.open_array(path, mode="r+")
    array[2:4] = 0  # the fill value: a chunk that Zarr leaves out
    before = contents(path)
    with zarr.config.set({"array.write_empty_chunks": write_empty, "array.order": "F"}):
        monkeypatch.setattr(zarr.config, "set", refuse)
        protect_array(path, LABELS, key)
        protected = contents(path)
        restore_array(path, key)
        monkeypatch.undo()
    restored = contents(path)
    assert {name: now for name, now in restored.items() if name in before} == before
    assert len(protected) >= len(before)
