"""WebDataset shards: the bytes of `protect_folder`, every other member and the order as they were, and resumable."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audio_folders import RECIPE, make_folder, protected
from audiofiles import contents, noise, untouched, wav, write_tree

from poscuda_fast import AudioFileError, DatasetError, Key, Recipe
from poscuda_fast.adapters.webdataset_shards import RUN, Shards, protect_shards

WAV = wav(noise(600))


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


def pack(path: Path, files: dict[str, bytes]) -> Path:
    """A shard of some members."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            add(tar, name, content, 0)
    return path


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
    (tmp_path / "empty").mkdir()
    with untouched(tmp_path / "src"):
        with pytest.raises(DatasetError, match="has no shards"):
            protect_shards(tmp_path / "empty", tmp_path / "dst", key_file, recipe=RECIPE)
        with pytest.raises(DatasetError, match="is not a file; give a folder of shards"):
            protect_shards(tmp_path / "src/{0..9}.tar", tmp_path / "dst", key_file, recipe=RECIPE)
        with pytest.raises(DatasetError, match=r"Two shards have the name 0000\.tar"):
            protect_shards([tmp_path / "src/0000.tar"] * 2, tmp_path / "dst", key_file, recipe=RECIPE)
        with pytest.raises(DatasetError, match=r"my\.key is not a folder"):
            protect_shards(tmp_path / "src", key_file, key_file, recipe=RECIPE)
        assert not (tmp_path / "dst").exists()
        with pytest.raises(DatasetError, match=r"Sample .* none is its label 'word'"):
            protect_shards(tmp_path / "src", tmp_path / "dst", key_file, recipe=RECIPE, label="word")
        broken = pack(tmp_path / "broken.tar", {"a.wav": b"RIFF....", "a.cls": b"0"})
        with pytest.raises(AudioFileError, match=r"a\.wav cannot be used"):
            protect_shards(broken, tmp_path / "other", key_file, recipe=RECIPE)
    assert [path.name for path in (tmp_path / "dst").iterdir()] == [RUN]
    assert [path.name for path in (tmp_path / "other").iterdir()] == [RUN]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label": 5}, TypeError, "label is 5; expected an extension"),
        ({"label": ""}, ValueError, "label is ''; expected an extension"),
        ({"label": "json:"}, ValueError, "label is 'json:'; expected an extension"),
        ({"label": lambda key, sample: "a", "workers": 2}, TypeError, "cannot be sent to other processes.*workers=1"),
        ({"classes": "yes"}, TypeError, "classes is the single text 'yes'"),
        ({"recipe": None}, TypeError, "recipe is None; expected Recipe"),
        ({"workers": 0}, ValueError, "workers is 0; expected a number of processes"),
        ({"key_file": Key(bytes(32))}, TypeError, "give the path of its key file"),
    ],
)
def test_arguments_are_checked_before_anything_is_written(tmp_path, key_file, options, error, message) -> None:
    for number in range(2):
        pack(tmp_path / f"{number}.tar", {"a.wav": WAV, "a.cls": b"0"})
    with untouched(tmp_path), pytest.raises(error, match=message):
        protect_shards(tmp_path, tmp_path / "dst", **{"key_file": key_file, **options})


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("fingerprint", {"key_file": "other.key"}),
        ("recipe", {"recipe": Recipe.paper()}),
        ("label", {"label": "json:class"}),
        ("label", {"label": class_of}),
        ("classes", {"classes": ["no", "yes"]}),
        ("lossy", {"lossy": "flac"}),
    ],
)
def test_a_folder_belongs_to_calls_that_mean_the_same(tmp_path: Path, key_file: Path, field, other) -> None:
    Key.generate().save(tmp_path / "other.key")
    shard = pack(tmp_path / "0.tar", {"a.wav": WAV, "a.cls": b"0", "a.json": b'{"class": 0}'})
    protect_shards(shard, tmp_path / "dst", key_file)
    call = {"key_file": key_file, **other}
    call["key_file"] = tmp_path / call["key_file"]
    with (
        untouched(tmp_path),
        pytest.raises(DatasetError, match=f"with {field} [^;]*; make the call as it was made then"),
    ):
        protect_shards(shard, tmp_path / "dst", **call)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff"])
def test_a_damaged_record_of_a_run_is_refused(tmp_path: Path, key_file: Path, content: bytes) -> None:
    shard = pack(tmp_path / "0.tar", {"a.wav": WAV, "a.cls": b"0"})
    write_tree(tmp_path / "dst", {RUN: content})
    with untouched(tmp_path), pytest.raises(DatasetError, match=f"{RUN} is damaged; choose another folder"):
        protect_shards(shard, tmp_path / "dst", key_file)


def in_place(src: Path, dst: Path) -> Path:
    return src


def through_a_link(src: Path, dst: Path) -> Path:
    dst.symlink_to(src)
    return dst


def with_a_link_to_the_shard(src: Path, dst: Path) -> Path:
    write_tree(dst, {RUN: b"{}"})
    (dst / "0.tar").symlink_to(src / "0.tar")
    return dst


def with_the_shard_under_another_name(src: Path, dst: Path) -> Path:
    write_tree(dst, {RUN: b"{}"})
    os.link(src / "0.tar", dst / "0.tar")
    return dst


def with_unknown_shards(src: Path, dst: Path) -> Path:
    write_tree(dst, {"1.tgz": b""})
    return dst


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (in_place, "is the folder of the shards themselves"),
        (through_a_link, "is the folder of the shards themselves"),
        (with_a_link_to_the_shard, "no copy that was made here"),
        (with_the_shard_under_another_name, "no copy that was made here"),
        (with_unknown_shards, r"has shards \(1\.tgz\) and no poscuda-shards\.json"),
    ],
)
def test_unprotected_shards_are_never_taken_for_copies(
    tmp_path: Path, key_file: Path, place: Callable[[Path, Path], Path], message: str
) -> None:
    (tmp_path / "src").mkdir()
    pack(tmp_path / "src/0.tar", {"a.wav": WAV, "a.cls": b"0"})
    dst = place(tmp_path / "src", tmp_path / "dst")
    with untouched(tmp_path), pytest.raises(DatasetError, match=message):
        protect_shards(tmp_path / "src", dst, key_file)


def test_copies_are_not_marked_again(tmp_path: Path, key_file: Path) -> None:
    shard = pack(tmp_path / "0.tar", {"a.wav": WAV, "a.cls": b"0"})
    protect_shards(shard, tmp_path / "dst", key_file)
    (tmp_path / "link.tar").symlink_to(tmp_path / "dst/0.tar")
    for src in (tmp_path / "dst", tmp_path / "link.tar"):
        with untouched(tmp_path), pytest.raises(DatasetError, match="would be marked twice; give the original shards"):
            protect_shards(src, tmp_path / "again", key_file)


def test_a_compression_that_is_not_read_is_not_skipped(tmp_path: Path, key_file: Path) -> None:
    pack(tmp_path / "0.tar", {"a.wav": WAV, "a.cls": b"0"})
    with tarfile.open(tmp_path / "1.TAR.gz", "w:gz") as tar:
        add(tar, "b.wav", WAV, 0)
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"1\.TAR\.gz is compressed in a way"):
        protect_shards(tmp_path, tmp_path / "dst", key_file)


def test_a_script_without_a_guard_is_told_of_it(tmp_path: Path, key_file: Path) -> None:
    (tmp_path / "src").mkdir()
    for number in range(2):
        pack(tmp_path / f"src/{number}.tar", {"a.wav": WAV, "a.cls": b"0"})
    script = tmp_path / "script.py"
    script.write_text(
        "from poscuda_fast.adapters.webdataset_shards import protect_shards\n"
        f"protect_shards({str(tmp_path / 'src')!r}, {str(tmp_path / 'dst')!r}, {str(key_file)!r}, workers=2)\n"
    )
    done = subprocess.run([sys.executable, script], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.rpartition("BrokenProcessPool: ")[2].startswith("A worker died: ")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_what_was_written(tmp_path: Path, key_file: Path, files) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    make_shards(tmp_path / "src", files, 1)
    protect_shards(tmp_path / "src", tmp_path / "dst", key_file, recipe=RECIPE)
    found = list(webdataset.WebDataset(str(tmp_path / "dst/0000.tar"), shardshuffle=False))
    assert len([sample for sample in found if "cls" in sample]) == len(files)
