"""A Hugging Face data set: the bytes of `protect_folder`, features and columns kept, saved and loaded again."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from audio_folders import RECIPE, make_folder, protected
from audiofiles import noise, wav

from poscuda_fast import AudioFileError, DatasetError, Key, Protector, UnprotectedWarning
from poscuda_fast.adapters import huggingface

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning"
)
NAMES = ["yes", "no"]


@pytest.fixture
def made(tmp_path: Path) -> tuple[dict[str, bytes], datasets.Dataset]:
    """Files, and a data set of them: some as bytes, some as paths only."""
    files = make_folder(tmp_path / "src")
    names = sorted(files)
    rows = {
        "audio": [
            {"bytes": files[name] if n % 2 else None, "path": name if n % 2 else str(tmp_path / "src" / name)}
            for n, name in enumerate(names)
        ],
        "label": [NAMES.index(name.split("/")[0]) for name in names],
        "speaker": [f"speaker {n}" for n in range(len(names))],
    }
    features = datasets.Features(
        audio=datasets.Audio(sampling_rate=16_000),
        label=datasets.ClassLabel(names=NAMES),
        speaker=datasets.Value("string"),
    )
    return files, datasets.Dataset.from_dict(rows).cast(features)


def bytes_of(dataset: datasets.Dataset) -> list[bytes]:
    return [entry["bytes"] for entry in dataset.data.column("audio").to_pylist()]


@pytest.mark.parametrize("num_proc", [None, 2])
def test_the_bytes_are_those_of_a_folder(tmp_path: Path, key: Key, key_file: Path, made, num_proc) -> None:
    files, dataset = made
    done = huggingface.protect_dataset(dataset, key_file, recipe=RECIPE, batch_size=7, num_proc=num_proc)
    done.save_to_disk(tmp_path / "saved")
    again = datasets.load_from_disk(tmp_path / "saved")
    expected = protected(tmp_path / "src", key, tmp_path / "dst")
    assert bytes_of(again) == [expected[name] for name in sorted(files)]
    assert again.features == dataset.features
    assert again["label"] == dataset["label"]
    assert again["speaker"] == dataset["speaker"]
    assert again.features["label"].names == NAMES


def test_the_splits_of_a_dict_are_kept(key_file: Path, made) -> None:
    _, dataset = made
    whole = huggingface.protect_dataset(dataset, key_file, recipe=RECIPE)
    parts = datasets.DatasetDict(train=dataset.select(range(5)), test=dataset.select(range(5, 9)))
    done = huggingface.protect_dataset(parts, key_file, recipe=RECIPE)
    assert isinstance(done, datasets.DatasetDict)
    assert bytes_of(done["train"]) + bytes_of(done["test"]) == bytes_of(whole)[:9]


def test_the_cache_knows_the_key_by_its_fingerprint_only(tmp_path: Path, key_file: Path, made) -> None:
    _, dataset = made
    Key.generate().save(tmp_path / "other.key")
    one = huggingface.protect_dataset(dataset, key_file, recipe=RECIPE)
    other = huggingface.protect_dataset(dataset, tmp_path / "other.key", recipe=RECIPE)
    assert one._fingerprint != other._fingerprint
    assert bytes_of(one) != bytes_of(other)
    assert bytes(range(32)) not in pickle.dumps(huggingface._Batches(huggingface.Protector(key_file)))


@pytest.mark.parametrize(("kind", "columns"), [("torch", None), ("pandas", None), ("arrow", ["label"])])
def test_the_format_is_given_back(key_file: Path, made, kind: str, columns: list[str] | None) -> None:
    if kind == "torch":
        pytest.importorskip("torch")
    _, dataset = made
    expected = bytes_of(huggingface.protect_dataset(dataset, key_file, recipe=RECIPE))
    formatted = dataset.with_format(kind, columns=columns)
    done = huggingface.protect_dataset(formatted, key_file, recipe=RECIPE)
    assert done.format == formatted.format
    assert bytes_of(done) == expected


def test_other_columns_are_not_decoded(key_file: Path, made) -> None:
    _, dataset = made
    expected = bytes_of(huggingface.protect_dataset(dataset, key_file, recipe=RECIPE))
    broken = [{"bytes": b"no such file", "path": None}] * len(dataset)
    more = {"noise": datasets.Audio(), "picture": datasets.Image()}
    wide = dataset
    for name, feature in more.items():
        wide = wide.add_column(name, broken).cast_column(name, feature)
    with pytest.raises(DatasetError, match=r"audio is 'audio', but 'noise' holds audio too"):
        huggingface.protect_dataset(wide, key_file, recipe=RECIPE)
    with pytest.warns(UnprotectedWarning, match="1 audio entries or columns of the data set.*\n.*'noise' holds"):
        done = huggingface.protect_dataset(wide, key_file, recipe=RECIPE, skip_unusable=True)
    assert done.features == wide.features
    assert bytes_of(done) == expected
    for name in more:
        assert done.data.column(name).to_pylist() == broken


def test_rows_that_were_shuffled_keep_their_labels(key_file: Path, made) -> None:
    _, dataset = made
    expected = bytes_of(huggingface.protect_dataset(dataset, key_file, recipe=RECIPE))
    order = list(range(len(dataset)))[::-2]
    assert bytes_of(huggingface.protect_dataset(dataset.select(order), key_file, recipe=RECIPE)) == [
        expected[n] for n in order
    ]


def test_the_cache_knows_the_files_behind_paths(tmp_path: Path, key_file: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(wav(noise(500)))
    dataset = dataset_of([{"bytes": None, "path": str(file)}])
    dataset = dataset.cast(dataset.features, cache_file_name=str(tmp_path / "rows.arrow"))
    one, again = (huggingface.protect_dataset(dataset, key_file) for _ in range(2))
    assert one.cache_files == again.cache_files != []
    file.write_bytes(wav(noise(500, seed=1)))
    os.utime(file, ns=(0, 0))
    other = huggingface.protect_dataset(dataset, key_file)
    (expected,) = Protector(key_file)({"audio": [file.read_bytes()], "label": [0]})["audio"]
    assert bytes_of(other) == [expected] != bytes_of(one)


def test_files_in_archives_are_opened(tmp_path: Path, key_file: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/0.wav", wav(noise(500)))
    dataset = dataset_of([{"bytes": None, "path": f"zip://in/0.wav::{tmp_path / 'a.zip'}"}])
    (found,) = huggingface.protect_dataset(dataset, key_file).data.column("audio").to_pylist()
    (expected,) = Protector(key_file)({"audio": [wav(noise(500))], "label": [0]})["audio"]
    assert found == {"bytes": expected, "path": "0.wav"}


def dataset_of(audio: list, label: list | None = None) -> datasets.Dataset:
    features = datasets.Features(audio=datasets.Audio(), label=datasets.Value("int64"))
    return datasets.Dataset.from_dict({"audio": audio, "label": label or [0] * len(audio)}).cast(features)


def test_what_cannot_be_used_is_said(tmp_path: Path, key_file: Path, made) -> None:
    _, dataset = made
    with pytest.raises(KeyError, match="none is 'sound'"):
        huggingface.protect_dataset(dataset, key_file, audio="sound")
    good = {"bytes": wav(noise(50)), "path": None}
    refused = [
        (dataset_of([{"bytes": b"no audio", "path": "a.wav"}]), AudioFileError, r"a\.wav cannot be used"),
        (dataset_of([good, {"bytes": b"no audio", "path": None}]), AudioFileError, "row 1 cannot be used"),
        (dataset_of([good, None]), ValueError, "row 1 has no audio, neither"),
        (dataset_of([good, {"bytes": None, "path": None}]), ValueError, "row 1 has no audio"),
        (dataset_of([{"bytes": None, "path": "missing.wav"}]), FileNotFoundError, r"missing\.wav, which .*\(No such"),
        (dataset_of([good, good, good], [0, 0, -1]), ValueError, r"labels\[2\] is -1"),
        (dataset_of([good, good, good], [0, 0, None]), TypeError, r"labels\[2\] is None"),
        (dataset_of([good]).to_iterable_dataset(), TypeError, "dataset is a IterableDataset.*streaming=False"),
        (datasets.IterableDatasetDict(), TypeError, "dataset is a IterableDatasetDict"),
        (
            datasets.Dataset.from_dict({"audio": [b"RIFF"], "label": [0]}),
            TypeError,
            "'binary'.*expected Audio. Cast it first",
        ),
        (
            datasets.Dataset.from_dict({"audio": ["a.wav"], "label": [0]}),
            TypeError,
            "'string'.*expected Audio. Cast it first",
        ),
    ]
    for unusable, error, sentence in refused:
        with pytest.raises(error, match=sentence):
            huggingface.protect_dataset(unusable, key_file, batch_size=1)


WEBM = {"bytes": b"\x1aE\xdf\xa3" + bytes(99), "path": "b.webm"}


def test_two_microphones_are_protected_together(key_file: Path) -> None:
    near, far = ([{"bytes": wav(noise(500, seed=n + k)), "path": None} for n in range(3)] for k in (0, 9))
    labels = [0, 1, 0]
    both = dataset_of(near, labels).add_column("far", far).cast_column("far", datasets.Audio())
    done = huggingface.protect_dataset(both, key_file, audio=["audio", "far"], batch_size=2)
    for name, entries in (("audio", near), ("far", far)):
        expected = Protector(key_file)({"audio": entries, "label": labels})["audio"]
        assert done.data.column(name).to_pylist() == expected != entries
    assert done.features == both.features
    lists = both.remove_columns("far").add_column("more", [[entry] for entry in far])
    lists = lists.cast_column("more", datasets.Sequence(datasets.Audio()))
    with pytest.raises(DatasetError, match="'more' holds audio too"):
        huggingface.protect_dataset(lists, key_file)
    with pytest.raises(TypeError, match="Give each clip a row of its own"):
        huggingface.protect_dataset(lists, key_file, audio=["audio", "more"])


@pytest.mark.parametrize("num_proc", [None, 2])
def test_what_cannot_be_marked_is_left_and_said_of_a_cached_result_too(tmp_path, key_file, num_proc) -> None:
    (tmp_path / "c.webm").write_bytes(WEBM["bytes"])
    good, path = {"bytes": wav(noise(500)), "path": None}, {"bytes": None, "path": str(tmp_path / "c.webm")}
    dataset = dataset_of([good, WEBM, path, None, good])
    dataset = dataset.cast(dataset.features, cache_file_name=str(tmp_path / "rows.arrow"))
    with pytest.raises(AudioFileError, match=r"2 audio entries(.|\n)*b\.webm(.|\n)*c\.webm"):
        huggingface.protect_dataset(dataset.select([1, 2]), key_file)
    found = []
    for _ in range(2):
        with pytest.warns(UnprotectedWarning, match=r"^3 audio entries(.|\n)*b\.webm cannot be used"):
            found.append(huggingface.protect_dataset(dataset, key_file, skip_unusable=True, num_proc=num_proc))
    assert found[0].cache_files == found[1].cache_files != []
    rows = found[1].data.column("audio").to_pylist()
    assert rows[1:4] == [WEBM, path, None]
    assert rows[0] == rows[4] == Protector(key_file)({"audio": [good], "label": [0]})["audio"][0]
    assert (found[1].features, found[1].column_names) == (dataset.features, dataset.column_names)


@pytest.mark.parametrize("as_paths", [False, True])
def test_batches_of_large_files_have_few_rows(tmp_path: Path, key_file: Path, monkeypatch, as_paths: bool) -> None:
    files = [wav(noise(400 + n, seed=n)) for n in range(10)]
    for n, file in enumerate(files):
        (tmp_path / f"{n}.wav").write_bytes(file)
    rows = [{"bytes": None if as_paths else f, "path": str(tmp_path / f"{n}.wav")} for n, f in enumerate(files)]
    whole = bytes_of(huggingface.protect_dataset(dataset_of(rows), key_file))
    sizes = []
    plain = Protector.protect_usable
    monkeypatch.setattr(Protector, "protect_usable", lambda *a: sizes.append(len(a[1])) or plain(*a))
    monkeypatch.setattr(huggingface, "BYTES_PER_BATCH", 3 * max(map(len, files)))
    assert bytes_of(huggingface.protect_dataset(dataset_of(rows), key_file, recipe=RECIPE)) == whole
    assert sizes == [3, 3, 3, 1]


def test_an_error_names_the_split(key_file: Path) -> None:
    good = {"bytes": wav(noise(50)), "path": None}
    for rows, labels, error, sentence in (
        ([good], [-1], ValueError, r"^Split 'test': labels\[0\] is -1"),
        ([{"bytes": None, "path": "/no/x.wav"}], [0], FileNotFoundError, r"^Split 'test': The audio of row 0"),
    ):
        parts = datasets.DatasetDict(train=dataset_of([good]), test=dataset_of(rows, labels))
        with pytest.raises(error, match=sentence):
            huggingface.protect_dataset(parts, key_file)


def test_what_arrow_raises_becomes_a_sentence(key_file: Path, monkeypatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise pa.ArrowInvalid("Could not convert b'RIFF....'")

    dataset = dataset_of([{"bytes": wav(noise(50)), "path": None}])
    monkeypatch.setattr(datasets.Dataset, "map", broken)
    with pytest.raises(DatasetError, match=r"^The data set cannot be protected \(ArrowInvalid\); pass a smaller"):
        huggingface.protect_dataset(dataset, key_file)
