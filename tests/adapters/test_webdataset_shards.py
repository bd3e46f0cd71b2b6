"""WebDataset shards: the bytes of `protect_folder`, every other member and the order as they were, and resumable."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_folders import RECIPE, make_folder, protected
from audiofiles import contents, encoded, noise, untouched, wav, write_tree

from poscuda_fast import AudioFileError, DatasetError, Key, Protector, Recipe, UnprotectedWarning
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
    assert done == Shards(3, 0, len(files))
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
            assert other == Shards(3, 0, len(files))
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
        with pytest.raises(DatasetError, match=r"0000\.tar: Sample .* none is its label 'word'"):
            protect_shards(tmp_path / "src", tmp_path / "dst", key_file, recipe=RECIPE, label="word")
        broken = pack(tmp_path / "broken.tar", {"a.wav": b"RIFF....", "a.cls": b"0"})
        with pytest.raises(AudioFileError, match=r"broken\.tar/a\.wav cannot be used"):
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
        pytest.raises(DatasetError, match=f"with {field} [^;]*; use the same arguments"),
    ):
        protect_shards(shard, tmp_path / "dst", **call)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000])
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


def with_a_link_to_another(src: Path, dst: Path) -> Path:
    write_tree(dst, {RUN: b"{}"})
    (dst / "0.tar").symlink_to(shutil.copy(src / "0.tar", src.parent / "other.tar"))
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
        (with_a_link_to_the_shard, "not a copy that was made here"),
        (with_a_link_to_another, "not a copy that was made here"),
        (with_the_shard_under_another_name, "not a copy that was made here"),
        (with_unknown_shards, r"has shards \(1\.tgz\) but no poscuda-shards\.json"),
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


def test_copies_of_another_source_are_not_taken_for_ours(tmp_path: Path, key_file: Path) -> None:
    members = {"a.cls": b"0", "a.wav": WAV, "b.cls": b"0", "b.wav": WAV}
    shard = pack(tmp_path / "0.tar", members)
    protect_shards(shard, tmp_path / "dst", key_file)
    assert protect_shards(shard, tmp_path / "dst", key_file) == Shards(0, 1, 0)
    others = ({**members, "c.cls": b"0", "c.wav": WAV}, {"c.cls": b"0", "c.wav": WAV}, {**members, "b.cls": b"00"})
    for other in others:
        pack(shard, other)
        with untouched(tmp_path), pytest.raises(DatasetError, match=r"dst/0\.tar was made from another shard than"):
            protect_shards(shard, tmp_path / "dst", key_file)
    pack(shard, members)
    (tmp_path / "dst/0.tar").write_bytes((tmp_path / "dst/0.tar").read_bytes()[:700])
    with pytest.raises(DatasetError, match=r"dst/0\.tar is not a whole tar file"):
        protect_shards(shard, tmp_path / "dst", key_file)


def test_copies_are_not_marked_again(tmp_path: Path, key_file: Path) -> None:
    shard = pack(tmp_path / "0.tar", {"a.wav": WAV, "a.cls": b"0"})
    protect_shards(shard, tmp_path / "dst", key_file)
    (tmp_path / "link.tar").symlink_to(tmp_path / "dst/0.tar")
    for src in (tmp_path / "dst", tmp_path / "link.tar"):
        with untouched(tmp_path), pytest.raises(DatasetError, match="would be marked twice; give the original shards"):
            protect_shards(src, tmp_path / "again", key_file)


@pytest.mark.parametrize(
    ("label", "members", "message"),
    [
        ("cls", {"a.cls": b"1", "a.txt": b"NIST_1A"}, "No member is audio, by name or by content"),
        ("cls", {"a.wav": WAV, "a.cls": b"caf\xe9"}, "Sample a has a label 'cls' that is not text in UTF-8"),
        ("cls", {"a.wav": WAV, "a.cls": b" "}, "Sample a: A label is an empty name"),
        ("cls", {"a.wav": WAV, "a.cls": b"1", "a.CLS": b"2"}, "Sample a has two members of one extension"),
        ("json:word", {"a.wav": WAV, "a.json": b"{"}, "Sample a has a label 'json' that is not JSON in UTF-8"),
        (
            "json:word",
            {"a.wav": WAV, "a.json": b"[" * 100_000},
            "Sample a has a label 'json' that is not JSON in UTF-8",
        ),
        ("json:word", {"a.wav": WAV, "a.json": b"\xff"}, "Sample a has a label 'json' that is not JSON in UTF-8"),
        ("json:word", {"a.wav": WAV, "a.json": b'["word"]'}, "Sample a has no field 'word'"),
        ("json:word", {"a.wav": WAV, "a.json": b'{"word": ["yes"]}'}, r"Sample a: .* is \['yes'\]; labels are"),
        ("json:word", {"a.wav": WAV, "a.json": b'{"word": true}'}, "Sample a: .* is True; labels are"),
        ("json:word", {"a.wav": WAV, "a.json": b'{"word": null}'}, "Sample a: .* is None, so it is missing"),
        (lambda key, sample: 1.5, {"a.wav": WAV}, "Sample a: .* is 1.5; labels are"),
    ],
)
def test_a_sample_that_cannot_be_used_is_named(tmp_path: Path, key_file: Path, label, members, message) -> None:
    shard = pack(tmp_path / "0.tar", members)
    with pytest.raises(DatasetError, match=rf"^{shard}: {message}.* No copy of it was made\.$"):
        protect_shards(shard, tmp_path / "dst", key_file, label=label)
    assert [path.name for path in (tmp_path / "dst").iterdir()] == [RUN]


def test_an_index_beyond_the_classes_is_named(tmp_path: Path, key_file: Path) -> None:
    shard = pack(tmp_path / "0.tar", {"a.wav": WAV, "a.cls": b"0", "b.wav": WAV, "b.cls": b"2"})
    with pytest.raises(DatasetError, match=r"0\.tar: Sample b: .* is 2, but classes has 2 names"):
        protect_shards(shard, tmp_path / "dst", key_file, classes=["no", "yes"])


def damaged(tar: bytes) -> bytes:
    """With a header in the middle that is none: tarfile takes it for the end."""
    second = tar.index(b"b.wav\0")
    return tar[:second] + b"\xff" + tar[second + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda tar: b"",
        lambda tar: b"no tar file" * 100,
        damaged,
        lambda tar: tar[: tar.index(b"b.wav\0")],
        lambda tar: tar[: tar.index(b"b.wav\0") + 100],
        lambda tar: tar[: tar.index(b"b.wav\0") + 700],
        lambda tar: tar + tar,
        lambda tar: gzip.compress(tar)[:-200],
        lambda tar: gzip.compress(tar)[:-8] + bytes(8),
    ],
    ids=["empty", "other", "a header", "cut before one", "cut in one", "cut behind one", "two", "cut", "checksum"],
)
def test_a_damaged_shard_is_refused_whole(tmp_path: Path, key_file: Path, damage: Callable[[bytes], bytes]) -> None:
    files = {"a.wav": WAV, "a.cls": b"0", "b.wav": WAV, "b.cls": b"1"}
    shard = pack(tmp_path / "0.tar", files)
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(DatasetError, match=rf"^{shard} is not a whole tar file"):
        protect_shards(shard, tmp_path / "dst", key_file)
    assert [path.name for path in (tmp_path / "dst").iterdir()] == [RUN]


@pytest.mark.parametrize(("kind", "message"), [(tarfile.SYMTYPE, "b.wav is a link"), (b"D", "unknown type b'D'")])
def test_members_that_would_be_copied_wrongly_are_refused(tmp_path: Path, key_file: Path, kind, message) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        add(tar, "a.wav", WAV, 0)
        add(tar, "a.cls", b"0", 0)
        info = tarfile.TarInfo("b.wav")
        info.type, info.linkname = kind, "a.wav"
        tar.addfile(info)
    with pytest.raises(DatasetError, match=message):
        protect_shards(tmp_path / "0.tar", tmp_path / "dst", key_file)


def test_compressed_shards_stay_so(tmp_path: Path, key_file: Path, files) -> None:
    make_shards(tmp_path / "src", files, 2)
    protect_shards(tmp_path / "src", tmp_path / "plain", key_file, recipe=RECIPE)
    (tmp_path / "zip").mkdir()
    for number, suffix in enumerate((".tar.gz", ".tgz")):
        content = (tmp_path / f"src/000{number}.tar").read_bytes()
        (tmp_path / f"zip/{number}{suffix}").write_bytes(gzip.compress(content, 1))
    for dst in ("dst", "again"):
        done = protect_shards(tmp_path / "zip", tmp_path / dst, key_file, recipe=RECIPE, workers=1)
        assert done == Shards(2, 0, len(files))
    assert contents(tmp_path / "dst") == contents(tmp_path / "again")
    for number, suffix in enumerate((".tar.gz", ".tgz")):
        expected = (tmp_path / f"plain/000{number}.tar").read_bytes()
        made = (tmp_path / f"dst/{number}{suffix}").read_bytes()
        assert gzip.decompress(made) == expected
        assert made[4:8] == bytes(4)  # no time in the header


def test_a_compression_that_is_not_read_is_not_skipped(tmp_path: Path, key_file: Path) -> None:
    pack(tmp_path / "0.tar", {"a.wav": WAV, "a.cls": b"0"})
    with tarfile.open(tmp_path / "1.TAR.xz", "w:xz") as tar:
        add(tar, "b.wav", WAV, 0)
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"1\.TAR\.xz is compressed in a way"):
        protect_shards(tmp_path, tmp_path / "dst", key_file)


LONG = "d" * 60 + "/" + "e" * 90 + "/"


def packed_by_hand(folder: Path, names: list[str]) -> None:
    """GNU's sparse format 0.1: the parts that are no holes, in a row, and a header with their places."""
    with tarfile.open(folder / "0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            content = (folder / name).read_bytes()
            parts = [(0, 4096), (200000, len(content) - 200000)] if name.endswith(".wav") else [(0, len(content))]
            condensed = b"".join(content[place : place + n] for place, n in parts)
            info = tarfile.TarInfo("GNUSparseFile.0/" + Path(name).name)
            info.size = len(condensed)
            info.pax_headers = {
                "GNU.sparse.size": str(len(content)),
                "GNU.sparse.numblocks": str(len(parts)),
                "GNU.sparse.name": name,
                "GNU.sparse.map": ",".join(f"{place},{n}" for place, n in parts),
            }
            tar.addfile(info, io.BytesIO(condensed))


@pytest.mark.parametrize("form", ["by hand", "gnu", "pax 0.0", "pax 0.1", "pax 1.0"])
def test_sparse_members_are_written_out(tmp_path: Path, key: Key, key_file: Path, form: str) -> None:
    samples = np.concatenate([noise(2000), np.zeros((100000, 1), np.int16), noise(2000)])
    folder, content = tmp_path / "src", wav(samples)
    names = [f"{LONG}0/a.wav", f"{LONG}0/a.cls"]
    write_tree(folder, {names[0]: b"", names[1]: b"0"})
    with open(folder / names[0], "wb") as file:
        file.write(content[:4096])
        file.seek(200000)
        file.write(content[200000:])
    assert (folder / names[0]).read_bytes() == content
    if form == "by hand":
        packed_by_hand(folder, names)
    else:
        if shutil.which("tar") is None or b"GNU" not in subprocess.check_output(["tar", "--version"]):
            pytest.skip("there is no GNU tar")
        kind, _, version = form.partition(" ")
        options = [f"--format={kind}", *([f"--sparse-version={version}"] if version else [])]
        subprocess.run(["tar", "--sparse", *options, "-cf", "0.tar", *names], cwd=folder, check=True)
    with tarfile.open(folder / "0.tar") as tar:
        assert tar.getmembers()[0].issparse()
    protect_shards(folder / "0.tar", tmp_path / "dst", key_file, recipe=RECIPE, classes=["0"])
    with tarfile.open(tmp_path / "dst/0.tar") as tar:
        audio, label = tar.getmembers()
        assert [audio.name, label.name] == names
        assert (audio.type, audio.size) == (tarfile.REGTYPE, len(content))
        assert not [name for name in audio.pax_headers if name.startswith("GNU.sparse")]
        expected = protected(folder, key, tmp_path / "copy")
        assert tar.extractfile(audio).read() == expected[names[0]]
        assert tar.extractfile(label).read() == b"0"
    assert protect_shards(folder / "0.tar", tmp_path / "dst", key_file, recipe=RECIPE, classes=["0"]) == Shards(0, 1, 0)


def test_pax_headers_are_kept_but_those_that_would_be_wrong(tmp_path: Path, key: Key, key_file: Path) -> None:
    encoded(tmp_path / "a.flac", noise(3000) // 256, "FLAC", "PCM_16")  # so that its size changes
    content = (tmp_path / "a.flac").read_bytes()
    common = {"comment": "of all", "KEYWORD.a": "b"}
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.PAX_FORMAT, pax_headers=common) as tar:
        for name, data in (("é.flac", content), ("é.cls", b"x")):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5
            info.pax_headers = {"size": str(len(data)), "comment": "of one", "atime": "2.5"}
            tar.addfile(info, io.BytesIO(data))
    protect_shards(tmp_path / "0.tar", tmp_path / "dst", key_file, recipe=RECIPE)
    with tarfile.open(tmp_path / "dst/0.tar") as tar:
        assert tar.pax_headers == common
        audio, label = tar.getmembers()
        assert len(tar.extractfile(audio).read()) == audio.size != len(content)
        assert (audio.name, audio.mtime, label.name, label.mtime) == ("é.flac", 1.5, "é.cls", 1.5)
        assert audio.pax_headers["comment"] == "of one"
        assert audio.pax_headers["atime"] == "2.5"
        assert tar.extractfile(label).read() == b"x"
    assert (tmp_path / "dst/0.tar").read_bytes().count(b"KEYWORD.a") == 1
    assert protect_shards(tmp_path / "0.tar", tmp_path / "dst", key_file, recipe=RECIPE) == Shards(0, 1, 0)


def test_a_lossy_file_is_named_as_flac_unless_there_is_one(tmp_path: Path, key_file: Path) -> None:
    encoded(tmp_path / "a.ogg", noise(9000), "OGG", "VORBIS")
    lossy = (tmp_path / "a.ogg").read_bytes()
    encoded(tmp_path / "a.flac", noise(900), "FLAC", "PCM_16")
    shard = pack(tmp_path / "0.tar", {"./a.ogg": lossy, "./a.cls": b"x"})
    protect_shards(shard, tmp_path / "dst", key_file, lossy="flac")
    with tarfile.open(tmp_path / "dst/0.tar") as tar:
        assert tar.getnames() == ["./a.flac", "./a.cls"]
        assert tar.extractfile("./a.flac").read(4) == b"fLaC"
    assert protect_shards(shard, tmp_path / "dst", key_file, lossy="flac") == Shards(0, 1, 0)
    shard = pack(tmp_path / "1.tar", {"a.flac": (tmp_path / "a.flac").read_bytes(), "a.ogg": lossy, "a.cls": b"x"})
    with pytest.raises(DatasetError, match=r"1\.tar: a\.ogg would be named a\.flac as FLAC, but that name is taken"):
        protect_shards(shard, tmp_path / "dst", key_file, lossy="flac")


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


@pytest.mark.parametrize("time", ["1e400", "nan", "inf", "-1e400", "x"])
def test_a_shard_with_an_impossible_time_is_refused_or_copied(tmp_path: Path, key_file: Path, time: str) -> None:
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in (("a.wav", WAV), ("a.cls", b"0")):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(content), {"mtime": time}
            tar.addfile(info, io.BytesIO(content))
    try:
        made = protect_shards(tmp_path / "0.tar", tmp_path / "dst", key_file)
    except DatasetError as error:
        assert str(error).startswith(f"{tmp_path / '0.tar'}")  # noqa: PT017 - either is right
        assert not (tmp_path / "dst" / "0.tar").exists()
    else:
        assert made.samples == 1


APPLE = b"\0\x05\x16\x07\0\2\0\0Mac OS X        " + bytes(150)
WEBM = b"\x1aE\xdf\xa3" + bytes(99)
AMONG = {
    "macOS": {"._a.cls": APPLE, "a.cls": b"0", "._a.wav": APPLE, "a.wav": WAV, ".DS_Store": b"x"},
    "macOS below": {"./._a.cls": APPLE, "./a.cls": b"0", "./._a.wav": APPLE, "./a.wav": WAV},
    "no extension": {"a.cls": b"0", "README": b"x", "a.wav": WAV},
    "a folder": {"d/a.cls": b"0", "d": None, "d/a.wav": WAV},
    "a link": {"a.cls": b"0", "link.txt": "a.cls", "a.wav": WAV},
    "metadata": {"__index__": b"{}", "a.cls": b"0", "__more__.json__": b"", "__x__/a.txt": b"", "a.wav": WAV},
    "two channels": {"a.left.wav": WAV, "a.right.wav": wav(noise(400)), "a.cls": b"1"},
    "capitals": {"a.CLS": b"0", "a.WAV": WAV},
    "dots in a folder": {"v1.0/a.cls": b"0", "v1.0/a.wav": WAV},
}


def pack_any(path: Path, files: dict[str, Any]) -> Path:
    """As `pack`; None is a folder, and text is where a link leads to."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            if isinstance(content, bytes):
                add(tar, name, content, 0)
                continue
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE if content else tarfile.DIRTYPE, content or ""
            tar.addfile(info)
    return path


def read_by_webdataset(shard: Path) -> list[tuple[str, list[str]]]:
    webdataset = pytest.importorskip("webdataset")
    samples = webdataset.WebDataset(str(shard), shardshuffle=False)
    return [(sample["__key__"], sorted(name for name in sample if name[0] != "_")) for sample in samples]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("files", AMONG.values(), ids=AMONG)
def test_samples_are_those_that_webdataset_reads(tmp_path: Path, key_file: Path, files: dict[str, Any]) -> None:
    shard = pack_any(tmp_path / "0.tar", files)
    seen = []

    def label(key: str, sample: dict[str, bytes]) -> str:
        seen.append((key, sorted(sample)))
        return sample["cls"].decode()

    assert protect_shards(shard, tmp_path / "dst", key_file, label=label, workers=1) == Shards(1, 0, 1)
    assert [*dict(seen).items()] == read_by_webdataset(shard) == read_by_webdataset(tmp_path / "dst/0.tar")
    protect_shards(shard, tmp_path / "plain", key_file, workers=1)
    before, after = members(shard), members(tmp_path / "plain/0.tar")
    assert [one[:5] for one in after] == [one[:5] for one in before]
    changed = {one[0] for one, other in zip(before, after, strict=True) if one != other}
    assert changed == {name for name in files if name.lower().endswith(".wav") and "._" not in name}
    assert protect_shards(shard, tmp_path / "plain", key_file) == Shards(0, 1, 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_cannot_be_marked_is_left_where_it_is_and_counted(tmp_path: Path, key_file: Path, workers: int) -> None:
    (tmp_path / "src").mkdir()
    odd = {"a.webm": WEBM, "b.wav.gz": gzip.compress(WAV), "c": WAV, ".d.wav": WAV}
    first = {"a.cls": b"0", "b.cls": b"0", "e.cls": b"1", "e.wav": WAV}
    first = dict(sorted((odd | first).items(), key=lambda member: member[0].strip(".")))
    pack(tmp_path / "src/0.tar", first)
    pack(tmp_path / "src/1.tar", {"f.cls": b"1", "f.wav": WAV})
    with pytest.raises(AudioFileError, match=r"2 audio entries(.|\n)*0\.tar/c holds audio, but belongs to no sample"):
        protect_shards(tmp_path / "src", tmp_path / "no", key_file, workers=workers)
    with pytest.warns(UnprotectedWarning, match=r"^4 audio entries or columns of the shards") as said:
        done = protect_shards(tmp_path / "src", tmp_path / "dst", key_file, skip_unusable=True, workers=workers)
    assert all(name in str(said[0].message) for name in odd)
    assert done == Shards(2, 0, 4, unprotected=4)
    found = {name: content for name, *_, content in members(tmp_path / "dst/0.tar")}
    assert {name: found[name] for name in odd} == odd
    assert found["e.wav"] != WAV
    again = protect_shards(tmp_path / "src", tmp_path / "dst", key_file, skip_unusable=True, workers=workers)
    assert again == Shards(0, 2, 0, 0)


def test_labels_of_any_kind_are_one_data_set(tmp_path: Path, key_file: Path) -> None:
    """Numbers and names may be mixed, and a label's class does not depend on what is in its batch."""
    labels = [b"1", b" 1\n", b"01", b"yes", b"2"]
    files = {}
    for n in range(70):
        files[f"{n}.cls"], files[f"{n}.wav"] = labels[n % 5 if n > 63 else 0], WAV
    shard = pack(tmp_path / "0.tar", files)
    protect_shards(shard, tmp_path / "dst", key_file, recipe=RECIPE)
    found = {name: content for name, *_, content in members(tmp_path / "dst/0.tar")}
    for n in range(63, 70):
        label = files[f"{n}.cls"].decode().strip()
        batch = {"audio": [WAV], "label": [int(label) if label in ("1", "2") else label]}
        expected = Protector(key_file, recipe=RECIPE)(batch)
        assert [found[f"{n}.wav"]] == expected["audio"]


def test_audio_that_only_its_content_tells_may_change_its_size(tmp_path: Path, key_file: Path) -> None:
    encoded(tmp_path / "x.flac", noise(5000) // 64, "FLAC", "PCM_16")
    shard = pack(tmp_path / "0.tar", {"a.cls": b"1", "a.blob": (tmp_path / "x.flac").read_bytes()})
    assert protect_shards(shard, tmp_path / "dst", key_file, workers=1) == Shards(1, 0, 1)
    (_, one), (_, other) = ([len(row[-1]) for row in members(path)] for path in (shard, tmp_path / "dst/0.tar"))
    assert one != other
    assert protect_shards(shard, tmp_path / "dst", key_file, workers=1) == Shards(0, 1, 0)


def test_flac_keeps_its_metadata(tmp_path: Path, key_file: Path) -> None:
    encoded(tmp_path / "x.flac", noise(5000), "FLAC", "PCM_16", title="a title")
    plain = (tmp_path / "x.flac").read_bytes()
    whole = plain[:42] + (2 << 24 | 12).to_bytes(4, "big") + b"testSOMEDATA" + plain[42:]
    shard = pack(tmp_path / "0.tar", {"a.cls": b"1", "a.flac": whole})
    protect_shards(shard, tmp_path / "dst", key_file)
    wet = members(tmp_path / "dst/0.tar")[1][-1]
    assert wet != whole
    assert wet[42:58] == whole[42:58]
    assert b"a title" in wet


def test_a_compression_that_the_name_hides_is_named(tmp_path: Path, key_file: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(600))
    with pytest.raises(DatasetError, match=r"0\.tar: It is compressed by Zstandard; give tar files that are plain"):
        protect_shards(tmp_path / "0.tar", tmp_path / "dst", key_file)
