"""A Hugging Face data set: the bytes of `protect_folder`, features and columns kept, saved and loaded again."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import datasets
import pytest
from audio_folders import RECIPE, make_folder, protected
from audiofiles import noise, wav

from poscuda_fast import AudioFileError, Key, Protector
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
    done = huggingface.protect_dataset(wide, key_file, recipe=RECIPE)
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
        (dataset_of([good, None]), ValueError, "Row 1 has no audio, neither bytes nor a path"),
        (dataset_of([good, {"bytes": None, "path": None}]), ValueError, "Row 1 has no audio"),
        (dataset_of([{"bytes": None, "path": "missing.wav"}]), FileNotFoundError, r"missing\.wav"),
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
