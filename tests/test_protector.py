"""The batch function: the bytes of `protect_folder` and `protect`, whatever the batches, and no key in its pickle."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import audiofiles
import numpy as np
import pytest
from audiofiles import chunk, contents, noise, riff, wav, write_tree

from poscuda_fast import (
    AudioFileError,
    DatasetError,
    Key,
    KeyFileError,
    Protector,
    Recipe,
    UnprotectedWarning,
    protect,
    protect_folder,
)
from poscuda_fast.protector import label_of_folder

RECIPES = {"format 1": Recipe.paper(blur=0.3), "format 2": Recipe.strong(2.0)}
both = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


@pytest.fixture
def key_file(tmp_path: Path, key: Key) -> Path:
    key.save(tmp_path / "my.key")
    return tmp_path / "my.key"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """Audio files of every kind that can be edited, in class folders."""
    root = tmp_path / "made"
    made = {
        "yes/a.wav": wav(noise(900), rate=8000),
        "yes/b.wav": wav(noise(800, 2, "PCM_24"), "PCM_24", extensible=True),
        "no/c.wav": wav(noise(700, 1, "FLOAT"), "FLOAT", after=audiofiles.chunk(b"LIST", b"odd")),
        "no/d.wav": audiofiles.rf64(noise(30)),
        "no/empty.wav": wav(noise(0)),
    }
    write_tree(root, made)
    audiofiles.encoded(root / "yes/e.flac", noise(1200), "FLAC", "PCM_16", title="a title")
    audiofiles.encoded(root / "no/f.aiff", noise(500, 2, "PCM_24"), "AIFF", "PCM_24")
    return contents(root)


@both
@pytest.mark.parametrize("size", [1, 3, 7])
def test_files_as_bytes_become_what_a_folder_becomes(
    tmp_path: Path, key: Key, key_file: Path, files: dict[str, bytes], recipe: Recipe, size: int
) -> None:
    write_tree(tmp_path / "src", files)
    protect_folder(tmp_path / "src", tmp_path / "dst", key, recipe=recipe)
    protector = Protector(key_file, recipe=recipe, audio="bytes", label=label_of_folder)
    names = sorted(files)
    found = {}
    for first in range(0, len(names), size):
        some = names[first : first + size]
        batch = {"bytes": [files[name] for name in some], "path": [f"/x/{name}" for name in some]}
        found.update(zip(some, protector(batch)["bytes"], strict=True))
    assert found == {name: (tmp_path / "dst" / name).read_bytes() for name in names}
    assert found["yes/a.wav"] != files["yes/a.wav"]


@both
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_arrays_become_what_protect_makes_of_them(key: Key, key_file: Path, recipe: Recipe, dtype: type) -> None:
    clips = noise(6 * 500, 1, "PCM_16" if dtype == np.int16 else "FLOAT").reshape(6, 500)
    labels = np.array([0, 1, 2, 0, 1, 2])
    wet, usual = clips.copy(), clips.copy()
    protect(wet, labels, key, recipe=recipe, sample_rate=8000)
    protect(usual, labels, key, recipe=recipe)
    clips.flags.writeable = False
    assert Protector(key_file, recipe=recipe)({"audio": clips, "label": labels})["audio"].tobytes() == usual.tobytes()
    protector = Protector(key_file, recipe=recipe, sample_rate=8000)
    whole = protector({"audio": clips, "label": labels, "more": "kept"})
    assert whole["audio"].tobytes() == wet.tobytes()
    assert (whole["label"] is labels, whole["more"]) == (True, "kept")
    each = np.empty(6, object)
    each[:] = list(clips)
    assert np.array_equal(np.stack(protector({"audio": each, "label": labels})["audio"]), wet)
    rates = [8000, None, 16000, 16000, 8000, 8000]  # each dict's own, or else the protector's
    rows = [{"array": clip, "sampling_rate": rate} for clip, rate in zip(clips, rates, strict=True)]
    found = protector({"audio": rows, "label": labels.tolist()})["audio"]
    assert [row["sampling_rate"] for row in found] == rates
    expected = [usual[n] if rate == 16000 else wet[n] for n, rate in enumerate(rates)]
    assert np.array_equal(np.stack([row["array"] for row in found]), np.stack(expected))


def test_names_of_classes_are_those_that_labels_index(key: Key, key_file: Path) -> None:
    clips = noise(2 * 500).reshape(2, 500)
    wet = clips.copy()
    protect(wet, ["no", "yes"], key)
    assert np.array_equal(Protector(key_file, classes=["yes", "no"])({"audio": clips, "label": [1, 0]})["audio"], wet)


BATCH: dict[str, Any] = {
    "audio": [wav(noise(300 + n)) for n in range(4)],
    "label": ["a", "b", "c", "d"],
    "path": [f"/x/{word}/1.wav" for word in "abcd"],
}
# A module, the batch that it makes, the places in BATCH of its rows, and their labels.
COLUMNS: dict[str, tuple[str, Callable[[Any], dict[str, Any]], list[int], Sequence[Any]]] = {
    "reordered frame": ("pandas", lambda made: dict(made.DataFrame(BATCH).iloc[[1, 0, 3, 2]]), [1, 0, 3, 2], "badc"),
    "later rows": ("pandas", lambda made: dict(made.DataFrame(BATCH).iloc[2:]), [2, 3], "cd"),
    "labels": ("pandas", lambda m: {**BATCH, "label": m.Series(list("abcd"), [3, 2, 1, 0])}, [0, 1, 2, 3], "abcd"),
    "Arrow": ("pyarrow", lambda made: {name: made.array(BATCH[name]) for name in BATCH}, [0, 1, 2, 3], "abcd"),
    "tensor": ("torch", lambda made: {**BATCH, "label": made.tensor([3, 2, 1, 0])}, [0, 1, 2, 3], [3, 2, 1, 0]),
    "tensors": ("torch", lambda m: {**BATCH, "label": [m.tensor(n) for n in range(4)]}, [0, 1, 2, 3], [0, 1, 2, 3]),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("label", ["label", label_of_folder])
@pytest.mark.parametrize("kind", COLUMNS)
def test_a_label_belongs_to_the_audio_at_its_place(key_file: Path, kind: str, label: Any) -> None:
    module, columns, rows, labels = COLUMNS[kind]
    batch = columns(pytest.importorskip(module))
    protector = Protector(key_file, label=label)
    found = protector(batch)
    plain = {
        "audio": [BATCH["audio"][n] for n in rows],
        "path": [BATCH["path"][n] for n in rows],
        "label": list(labels),
    }
    assert found["audio"] == protector(plain)["audio"]
    assert found["path"] is batch["path"]


@pytest.mark.parametrize(("module", "kind", "way"), [
    ("pandas", "DataFrame", r"dict\(frame\)"), ("pyarrow", "table", r"table\.to_pydict\(\)"),
])  # fmt: skip
def test_a_table_is_refused_with_the_way_to_its_columns(key_file: Path, module: str, kind: str, way: str) -> None:
    table = getattr(pytest.importorskip(module), kind)(BATCH)
    with pytest.raises(TypeError, match=way):
        Protector(key_file)(table)


def test_dicts_keep_what_else_they_have(key_file: Path, files: dict[str, bytes]) -> None:
    protector = Protector(key_file, label="word")
    entry = {"bytes": files["yes/a.wav"], "path": "a.wav", "more": 5}
    unnamed = {"bytes": files["no/c.wav"], "path": None}
    found = protector({"audio": [entry, unnamed], "word": ["yes", "no"]})["audio"]
    assert [sorted(one) for one in found] == [["bytes", "more", "path"], ["bytes", "path"]]
    assert (found[0]["path"], found[0]["more"], found[1]["path"]) == ("a.wav", 5, None)
    assert entry["bytes"] == files["yes/a.wav"]
    assert found[0]["bytes"] != entry["bytes"]


def test_lossy_files_are_refused_or_become_flac(tmp_path: Path, key: Key, key_file: Path) -> None:
    audiofiles.lossy(tmp_path / "a.mp3", "MP3", "MPEG_LAYER_III")
    entry = {"bytes": (tmp_path / "a.mp3").read_bytes(), "path": "a.mp3"}
    batch = {"audio": [entry], "label": ["a"]}
    with pytest.raises(AudioFileError, match=r"a\.mp3 is lossy.*lossy='flac'"):
        Protector(key_file)(batch)
    (found,) = Protector(key_file, lossy="flac")(batch)["audio"]
    protect_folder(
        tmp_path / "a.mp3", tmp_path / "a.flac", key, labels_from={"a.mp3": "a"}, lossy="flac", recipe=Recipe.strong()
    )
    assert found == {"bytes": (tmp_path / "a.flac").read_bytes(), "path": "a.flac"}


def test_its_pickle_has_no_key_and_works_elsewhere(key: Key, key_file: Path) -> None:
    protector = Protector(key_file)
    batch = {"audio": noise(2 * 500).reshape(2, 500), "label": [0, 1]}
    before = protector(batch)["audio"]
    pickled = pickle.dumps(protector)
    assert bytes(range(32)) not in pickled
    assert b"Key" not in pickled
    assert np.array_equal(pickle.loads(pickled)(batch)["audio"], before)
    assert bytes(range(32)).hex() not in repr(protector)


def test_an_empty_batch_stays_empty(key_file: Path) -> None:
    assert Protector(key_file)({"audio": [], "label": []}) == {"audio": [], "label": []}
    assert Protector(key_file)({"audio": np.empty((0, 5), np.int16), "label": []})["audio"].shape == (0, 5)


@pytest.mark.parametrize(
    ("batch", "error", "sentence"),
    [
        ({"label": [0]}, KeyError, "no column 'audio'; say which of"),
        ({"audio": [b"RIFF"]}, KeyError, "no column 'label'; say which of"),
        ({"audio": ["a.wav"], "label": [0]}, TypeError, "The audio of entry 0 is a str"),
        ({"audio": [{"path": "a.wav", "bytes": None}], "label": [0]}, AudioFileError, "entry 0 has no audio, neither"),
        ({"audio": [None], "label": [0]}, AudioFileError, "entry 0 has no audio, neither"),
        ({"audio": [{"path": "a.wav"}], "label": [0]}, TypeError, "The audio of entry 0 is a dict"),
        ({"audio": [b"RIFF...."], "label": [0]}, AudioFileError, "entry 0 cannot be used"),
        ({"audio": [b"no audio"], "label": [0]}, AudioFileError, "entry 0 cannot be used"),
        ({"audio": [wav(noise(50))], "label": [None]}, TypeError, "is None, so it is missing"),
        ({"audio": np.zeros((2, 50)), "label": [0, 1]}, TypeError, "<f8"),
        ({"audio": np.zeros((2, 50), np.int16), "label": [0]}, ValueError, "1 entries for 2 clips"),
        ({"audio": wav(noise(50)), "label": [0]}, TypeError, "The column 'audio' is a bytes; expected a sequence"),
        ({"audio": 5, "label": [0]}, TypeError, "The column 'audio' is a int; expected a sequence"),
        ({"audio": [wav(noise(50))], "label": "0"}, TypeError, "The column of labels is a str; expected a sequence"),
        ({"audio": [wav(noise(50))], "label": np.array(0)}, TypeError, "The column of labels is a ndarray"),
        ({"audio": [noise(50)[:, 0], wav(noise(50))], "label": [0, -1]}, ValueError, r"labels\[1\] is -1"),
        ([wav(noise(50))], TypeError, "The batch is a list; expected a dict of columns"),
        ({5: [], "label": []}, KeyError, "no column 'audio'; say which of"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said(key_file: Path, batch: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        Protector(key_file)(batch)


def test_arguments_that_make_no_sense_are_refused(tmp_path: Path, key: Key, key_file: Path) -> None:
    with pytest.raises(TypeError, match="never leaves its process"):
        Protector(key)
    with pytest.raises(TypeError, match="recipe is 5"):
        Protector(key_file, recipe=5)
    for classes, sentence in (
        ("yes no", "classes is the single text 'yes no'"), ({"no": 1, "yes": 0}, "classes is a dict"),
        ({"yes", "no"}, "classes is a set"), (2, "classes is a int"), (["yes", 1], r"classes\[1\] is 1"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=sentence):
            Protector(key_file, classes=classes)
    with pytest.raises(ValueError, match="names 'yes' twice"):
        Protector(key_file, classes=["yes", "yes"])
    for rate in (1999, 512_001):
        with pytest.raises(ValueError, match=f"sample_rate is {rate} Hz; it must be from 2000 to 512000 Hz"):
            Protector(key_file, sample_rate=rate)
    with pytest.raises(TypeError, match="sample_rate is '16k'"):
        Protector(key_file, sample_rate="16k")
    with pytest.raises(ValueError, match="lossy is 'ogg'"):
        Protector(key_file, lossy="ogg")
    protector = Protector(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        protector({"audio": [wav(noise(50))], "label": [0]})
    key_file.chmod(0o644)
    with pytest.raises(KeyFileError, match="mode 0644"):
        Protector(key_file)({"audio": [wav(noise(50))], "label": [0]})
    with pytest.raises(ValueError, match="lies in no folder"):
        label_of_folder({"path": ["a.wav"]}, 0)


@pytest.mark.real
def test_real_speech_becomes_what_a_folder_becomes(fsdd: Path, tmp_path: Path, key: Key, key_file: Path) -> None:
    names = sorted(path.name for path in fsdd.iterdir())[::30]
    write_tree(tmp_path / "src", {name: (fsdd / name).read_bytes() for name in names})
    recipe = Recipe.strong()
    protect_folder(tmp_path / "src", tmp_path / "dst", key, labels_from=r"regex:^(\d)_")
    protector = Protector(key_file, recipe=recipe, audio="bytes", label=lambda batch, n: batch["path"][n][0])
    found = protector({"bytes": [(fsdd / name).read_bytes() for name in names], "path": names})["bytes"]
    assert found == [(tmp_path / "dst" / name).read_bytes() for name in names]


def test_labels_that_do_not_fit_a_list_of_files_are_refused(key_file: Path) -> None:
    with pytest.raises(ValueError, match="labels has 1 entries for 2 clips"):
        Protector(key_file)({"audio": [wav(noise(50))] * 2, "label": [0]})


EIGHT_BIT = struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8)
WEBM = b"\x1aE\xdf\xa3" + bytes(99)


def test_several_columns_of_audio_are_protected_by_the_label_of_their_row(key_file: Path) -> None:
    one, two = [wav(noise(500, seed=n)) for n in range(2)], [wav(noise(600, seed=n + 2)) for n in range(2)]
    both = Protector(key_file, audio=("near", "far"))({"near": one, "far": two, "label": ["a", "b"]})
    for name, column in (("near", one), ("far", two)):
        assert both[name] == Protector(key_file)({"audio": column, "label": ["a", "b"]})["audio"] != column


@pytest.mark.parametrize(
    "other",
    [
        [None, wav(noise(50))], [{"bytes": wav(noise(50)), "path": None}] * 2, [[wav(noise(50))]] * 2,
        [{"array": noise(50)[:, 0], "sampling_rate": 8000}] * 2, np.array([wav(noise(50))] * 2, object), [WEBM] * 2,
    ],
    ids=["after a null", "dicts", "lists", "samples", "an array", "not usable"],
)  # fmt: skip
def test_a_column_of_audio_that_is_not_named_is_never_left_in_silence(key_file: Path, other: Any) -> None:
    batch = {"audio": [wav(noise(500))] * 2, "label": [0, 1], "far": other, "text": ["RIFF", None], "n": [1, 2]}
    with pytest.raises(DatasetError, match=r"'far' holds audio too .*audio=\['audio', 'far'\]"):
        Protector(key_file)(batch)
    with pytest.warns(UnprotectedWarning, match="1 audio entries or columns(.|\n)*The column 'far' holds audio"):
        found = Protector(key_file, skip_unusable=True)(batch)
    assert found["far"] is other


def test_the_warning_shows_the_line_that_called(key_file: Path) -> None:
    with pytest.warns(UnprotectedWarning) as said:
        Protector(key_file, skip_unusable=True)({"audio": [WEBM], "label": [0]})
    assert [one.filename for one in said] == [__file__]


def test_what_cannot_be_marked_is_named_all_at_once_or_left_and_counted(key_file: Path) -> None:
    good, eight_bit = wav(noise(500)), riff(chunk(b"fmt ", EIGHT_BIT), chunk(b"data", bytes(500)))
    odd = [WEBM, None, b"no audio", {"bytes": eight_bit, "path": "x/low.wav"}, *[WEBM] * 30]
    batch = {"audio": [good, *odd], "label": [0] * (1 + len(odd))}
    with pytest.raises(AudioFileError) as caught:
        Protector(key_file)(batch)
    lines = str(caught.value).splitlines()
    assert lines[0] == "34 audio entries cannot be protected:"
    assert (lines[-1], len(lines)) == ("  and 14 more", 22)
    assert any("x/low.wav" in line for line in lines)
    protector = Protector(key_file, skip_unusable=True)
    with pytest.warns(UnprotectedWarning, match=r"34 audio entries .* \(34 so far\)"):
        found = protector(batch)["audio"]
    assert found[1:] == odd
    assert found[0] == Protector(key_file)({"audio": [good], "label": [0]})["audio"][0]
    with pytest.warns(UnprotectedWarning, match=r"1 audio entries .* \(35 so far\)"):
        protector({"audio": [WEBM], "label": [0]})


def test_a_file_that_breaks_off_is_left_too(key_file: Path, tmp_path: Path) -> None:
    audiofiles.encoded(tmp_path / "a.flac", noise(60_000), "FLAC", "PCM_16")
    cut = (tmp_path / "a.flac").read_bytes()[:-9000]
    with pytest.raises(AudioFileError, match="entry 0"):
        Protector(key_file)({"audio": [cut], "label": [0]})
    with pytest.warns(UnprotectedWarning, match="entry 0"):
        assert Protector(key_file, skip_unusable=True)({"audio": [cut], "label": [0]})["audio"] == [cut]


@pytest.mark.parametrize(
    ("audio", "error", "sentence"),
    [
        (5, TypeError, "audio is 5"),
        ([], TypeError, r"audio is \[\]"),
        (["a", 1], TypeError, "audio is"),
        (["a", "a"], ValueError, "twice"),
    ],
)
def test_columns_that_make_no_sense_are_refused(key_file: Path, audio: Any, error: type, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        Protector(key_file, audio=audio)
