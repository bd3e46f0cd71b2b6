"""WebDataset shards: the bytes of `protect_folder`, every other member and the order as they were, and resumable."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from audio_folders import RECIPE, make_folder, protected
from audiofiles import contents, untouched

from poscuda_fast import AudioFileError, DatasetError, Key
from poscuda_fast.adapters.webdataset_shards import RUN, Shards, protect_shards


def add(tar: tarfile.TarFile, name: str, content: bytes, mtime: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode, info.uname = len(content), mtime, 0o640, "somebody"
    tar.addfile(info, io.BytesIO(content))


def make_shards(folder: Path, files: dict[str, bytes], n_shards: int = 3) -> None:
    """Samples of audio, label, text and JSON, with a folder and an odd file between them."""
    folder.mkdir()
    names = sorted(files)
    for number in range(n_shards):
        with tarfile.open(folder / f"{number:04}.tar", "w") as tar:
            tar.addfile(tarfile.TarInfo("readme.txt"))
            for n, name in list(enumerate(names))[number::n_shards]:
                label, _, file = name.partition("/")
                suffix = file.rpartition(".")[2]
                add(tar, f"x/{n:05}.cls", label.encode(), n)
                add(tar, f"x/{n:05}.json", json.dumps({"word": label, "file": name}).encode(), n)
                add(tar, f"x/{n:05}.{suffix}", files[name], n)
                add(tar, f"x/{n:05}.txt", b"text", n)


def members(path: Path) -> list[tuple[Any, ...]]:
    with tarfile.open(path) as tar:
        return [
            (i.name, i.mode, i.mtime, i.uname, i.type, (tar.extractfile(i) or io.BytesIO()).read())
            for i in tar.getmembers()
        ]


def class_of(key: str, sample: dict[str, bytes]) -> str:
    return sample["cls"].decode()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    return make_folder(tmp_path / "files")


@pytest.mark.parametrize(("label", "workers"), [("cls", 1), ("cls", 2), ("json:word", 1), ("a function", 1)])
def test_shards_become_what_a_folder_becomes(tmp_path, key, key_file, files, workers, label) -> None:
    make_shards(tmp_path / "src", files)
    given = label if label != "a function" else lambda key, sample: json.loads(sample["json"])["word"]
    done = protect_shards(tmp_path / "src", tmp_path / "dst", key_file, recipe=RECIPE, label=given, workers=workers)
    assert done == Shards(3, 0, len(files) + 3)
    expected = protected(tmp_path / "files", key, tmp_path / "copy")
    seen = 0
    for path in sorted((tmp_path / "src").iterdir()):
        before, after = members(path), members(tmp_path / "dst" / path.name)
        assert [one[:5] for one in after] == [one[:5] for one in before]
        file = ""
        for (name, *_, old), (*_, new) in zip(before, after, strict=True):
            if name.endswith(".json"):
                file = json.loads(old)["file"]
            is_audio = name.endswith((".wav", ".flac"))
            assert new == (expected[file] if is_audio else old)
            seen += is_audio
    assert seen == len(files)


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, key_file: Path, files) -> None:
    make_shards(tmp_path / "src", files)
    protect_shards(tmp_path / "src", tmp_path / "whole", key_file, recipe=RECIPE, workers=1)
    protect_shards(tmp_path / "src" / "0001.tar", tmp_path / "dst", key_file, recipe=RECIPE)
    left = ".0002.tar.00000000.poscuda-part"  # a killed process's, or one's that is still at work
    (tmp_path / "dst" / left).write_bytes(b"half")
    done = protect_shards(tmp_path / "src", tmp_path / "dst", key_file, recipe=RECIPE, workers=1)
    assert (done.made, done.found) == (2, 1)
    assert contents(tmp_path / "dst", hidden=True) == {**contents(tmp_path / "whole", hidden=True), left: b"half"}


def test_two_calls_at_once_make_whole_shards(tmp_path: Path, key_file: Path, files) -> None:
    """The second begins, and ends, when the first has written half a shard."""
    make_shards(tmp_path / "src", files)
    protect_shards(tmp_path / "src", tmp_path / "whole", key_file, recipe=RECIPE, label=class_of, workers=1)
    seen: list[str] = []

    def label(key: str, sample: dict[str, bytes]) -> str:
        seen.append(key)
        if len(seen) == 3:
            other = protect_shards(
                tmp_path / "src", tmp_path / "dst", key_file, recipe=RECIPE, label=class_of, workers=1
            )
            assert other == Shards(3, 0, len(files) + 3)
        return class_of(key, sample)

    done = protect_shards(tmp_path / "src", tmp_path / "dst", key_file, recipe=RECIPE, label=label, workers=1)
    assert done == Shards(0, 3, 0)
    assert contents(tmp_path / "dst", hidden=True) == contents(tmp_path / "whole", hidden=True)


def test_what_cannot_be_used_is_said(tmp_path: Path, key_file: Path, files) -> None:
    make_shards(tmp_path / "src", files, 1)
    protect_shards(tmp_path / "src", tmp_path / "dst", key_file, recipe=RECIPE)
    Key.generate().save(tmp_path / "other.key")
    (tmp_path / "empty").mkdir()
    with tarfile.open(tmp_path / "broken.tar", "w") as tar:
        add(tar, "a.wav", b"RIFF....", 0)
        add(tar, "a.cls", b"0", 0)
    (tmp_path / "new").mkdir()
    with untouched(tmp_path / "src", tmp_path / "dst"):
        with pytest.raises(DatasetError, match="another key or recipe"):
            protect_shards(tmp_path / "src", tmp_path / "dst", tmp_path / "other.key", recipe=RECIPE)
        with pytest.raises(DatasetError, match="has no shards"):
            protect_shards(tmp_path / "empty", tmp_path / "dst", key_file, recipe=RECIPE)
        with pytest.raises(DatasetError, match="none is its label 'word'"):
            protect_shards(tmp_path / "src", tmp_path / "new", key_file, recipe=RECIPE, label="word")
        with pytest.raises(AudioFileError, match=r"a\.wav cannot be used"):
            protect_shards(tmp_path / "broken.tar", tmp_path / "new", key_file, recipe=RECIPE)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [RUN]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_what_was_written(tmp_path: Path, key_file: Path, files) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    make_shards(tmp_path / "src", files, 1)
    protect_shards(tmp_path / "src", tmp_path / "dst", key_file, recipe=RECIPE)
    found = list(webdataset.WebDataset(str(tmp_path / "dst/0000.tar"), shardshuffle=False))
    assert len([sample for sample in found if "cls" in sample]) == len(files)
