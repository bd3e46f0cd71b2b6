"""README's recipes for frameworks run as they stand there, and give what `protect_folder` gives."""

from __future__ import annotations

import importlib.util
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import readme

from poscuda_fast import Key, Recipe, protect, protect_folder

NEEDED = {
    "Hugging Face datasets": ("datasets",),
    "WebDataset": (),
    "Ray Data, for data larger than one machine": ("ray",),
    "Zarr, and Dask": ("dask", "zarr"),
    "Parquet, PyTorch, and anything with batches": ("pyarrow", "torch"),
}


def wet(folder: Path) -> dict[str, bytes]:
    """What `protect_folder` makes of the recordings, by their paths."""
    protect_folder(folder / "recordings", folder / "expected", Key(bytes(range(32))), recipe=Recipe.strong())
    found = sorted((folder / "expected").rglob("*.wav"))
    return {str(path.relative_to(folder / "expected")): path.read_bytes() for path in found}


def words(folder: Path) -> None:
    import datasets

    paths = sorted((folder / "recordings").rglob("*.wav"))
    rows = {"audio": [{"bytes": None, "path": str(path)} for path in paths], "label": [p.parent.name for p in paths]}
    features = datasets.Features(audio=datasets.Audio(), label=datasets.ClassLabel(names=["no", "yes"]))
    rows["label"] = [features["label"].str2int(label) for label in rows["label"]]
    datasets.Dataset.from_dict(rows).cast(features).save_to_disk(folder / "words")


def words_made(folder: Path) -> None:
    import datasets

    rows = datasets.load_from_disk(folder / "protected_words").data.column("audio").to_pylist()
    assert sorted(row["bytes"] for row in rows) == sorted(wet(folder).values())


def shards(folder: Path) -> None:
    (folder / "shards").mkdir()
    with tarfile.open(folder / "shards/0.tar", "w") as tar:
        for path in sorted((folder / "recordings").rglob("*.wav")):
            name = f"{path.parent.name}_{path.stem}"
            for suffix, content in (("cls", path.parent.name.encode()), ("wav", path.read_bytes())):
                info = tarfile.TarInfo(f"{name}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def shards_made(folder: Path) -> None:
    with tarfile.open(folder / "protected_shards/0.tar") as tar:
        found = {i.name: tar.extractfile(i).read() for i in tar.getmembers() if i.name.endswith("wav")}
    assert found == {name.replace("/", "_"): content for name, content in wet(folder).items()}


def ray_made(folder: Path) -> None:
    made = folder / "out_of_ray"
    found = {str(path.relative_to(made)): path.read_bytes() for path in made.rglob("*.wav")}
    assert found == wet(folder)


def labels(folder: Path) -> None:
    np.save(folder / "labels.npy", [0, 1] * 5)


def zarr_made(folder: Path) -> None:
    import zarr

    assert not zarr.open_array(folder / "clips.zarr", mode="r")[:].any()
    clips = np.zeros((10, 8000), np.int16)
    protect(clips, [0, 1] * 5, Key(bytes(range(32))))
    for name in ("protected.zarr", "copy.zarr"):
        assert np.array_equal(zarr.open_array(folder / name, mode="r")[:], clips)


def table(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = sorted((folder / "recordings").rglob("*.wav"))
    columns = {"audio": [path.read_bytes() for path in paths], "label": [path.parent.name for path in paths]}
    pq.write_table(pa.table(columns), folder / "words.parquet")


def table_made(folder: Path) -> None:
    import pyarrow.parquet as pq

    expected = list(wet(folder).values())
    assert pq.read_table(folder / "protected.parquet").column("audio").to_pylist() == expected


NOTHING: Callable[[Path], None] = lambda folder: None  # noqa: E731
BEFORE = {
    "Hugging Face datasets": words,
    "WebDataset": shards,
    "Zarr, and Dask": labels,
    "Parquet, PyTorch, and anything with batches": table,
}
AFTER = {
    "Hugging Face datasets": words_made,
    "WebDataset": shards_made,
    "Ray Data, for data larger than one machine": ray_made,
    "Zarr, and Dask": zarr_made,
    "Parquet, PyTorch, and anything with batches": table_made,
}
# What a recipe takes as given: a process that is spawned runs the script anew, and must not.
GIVEN = {
    "Parquet, PyTorch, and anything with batches": """
import torch
train_set = [(torch.zeros(1, 8000), 16000, "yes", "speaker", 0)] * 3
batch = {"audio": [torch.zeros(8000).numpy()], "label": ["yes"]}
""",
}


@pytest.mark.parametrize("heading", NEEDED)
def test_a_recipe_runs(tmp_path: Path, heading: str) -> None:
    missing = [name for name in NEEDED[heading] if importlib.util.find_spec(name) is None]
    if missing and os.environ.get("POSCUDA_REQUIRE_ADAPTERS") != "1":
        pytest.skip(f"{', '.join(missing)} missing: pip install '.[adapters]'")
    readme.workplace(tmp_path)
    BEFORE.get(heading, NOTHING)(tmp_path)
    done = readme.run_python(GIVEN.get(heading, "") + readme.python_of(heading), tmp_path)
    assert done.returncode == 0, done.stderr
    for command in readme.commands_of(heading):
        done = readme.run_command(command, tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    AFTER[heading](tmp_path)
