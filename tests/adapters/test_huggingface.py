"""A Hugging Face data set: the bytes of `protect_folder`, features and columns kept, saved and loaded again."""

from __future__ import annotations

import pickle
from pathlib import Path

import datasets
import pytest
from audio_folders import RECIPE, make_folder, protected

from poscuda_fast import AudioFileError, Key
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


def test_what_cannot_be_used_is_said(key_file: Path, made) -> None:
    _, dataset = made
    with pytest.raises(KeyError, match="none is 'sound'"):
        huggingface.protect_dataset(dataset, key_file, audio="sound")
    rows = {"audio": [{"bytes": b"no audio", "path": "a.wav"}], "label": [0]}
    features = datasets.Features(audio=datasets.Audio(), label=datasets.Value("int64"))
    broken = datasets.Dataset.from_dict(rows).cast(features)
    with pytest.raises(AudioFileError, match=r"a\.wav cannot be used"):
        huggingface.protect_dataset(broken, key_file)
