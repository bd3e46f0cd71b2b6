"""The recipes for frameworks run as they stand, and give what `protect_folder` gives."""

from __future__ import annotations

import importlib.util
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import readme

from poscuda_fast import Key, protect, protect_folder


def expected(folder: Path) -> dict[str, bytes]:
    """What `protect_folder` makes of the speech, by the paths."""
    protect_folder(folder / "speech", folder / "expected", Key.load(folder / "demo.key"))
    return files(folder / "expected")


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.wav"))}


def zarr_made(folder: Path) -> None:
    import zarr

    clips = np.load(folder / "clips.npy")
    assert np.array_equal(zarr.open_array(folder / "clips.zarr", mode="r")[:], clips)
    labels, lengths = (np.load(folder / f"{name}.npy") for name in ("labels", "lengths"))
    protect(clips, labels, Key.load(folder / "demo.key"), lengths=lengths, sample_rate=16000)
    for name in ("protected.zarr", "copy.zarr"):
        assert np.array_equal(zarr.open_array(folder / name, mode="r")[:], clips)


def words_made(folder: Path) -> None:
    import datasets

    rows = datasets.load_from_disk(folder / "protected_words").data.column("audio").to_pylist()
    assert sorted(row["bytes"] for row in rows) == sorted(expected(folder).values())


def shards_made(folder: Path) -> None:
    with tarfile.open(folder / "protected_shards/0.tar") as tar:
        found = {info.name: tar.extractfile(info).read() for info in tar.getmembers() if info.name.endswith("wav")}
    assert found == {name.replace("/", "_"): content for name, content in expected(folder).items()}


def ray_made(folder: Path) -> None:
    assert files(folder / "out_of_ray") == expected(folder)


def table_made(folder: Path) -> None:
    import pyarrow.parquet as pq

    assert pq.read_table(folder / "protected.parquet").column("audio").to_pylist() == list(expected(folder).values())


MADE: dict[str, Callable[[Path], None]] = {
    "Zarr, and Dask": zarr_made,
    "Hugging Face datasets": words_made,
    "WebDataset": shards_made,
    "Ray Data, for data larger than one machine": ray_made,
    "Parquet": table_made,
    "PyTorch, and anything with batches": lambda folder: None,  # tests/adapters/test_torch_data.py compares
}


@pytest.mark.parametrize("heading", MADE)
def test_a_recipe_runs(demo_folder: Path, heading: str) -> None:
    missing = [name for name in readme.EXTRAS[heading] if importlib.util.find_spec(name) is None]
    if missing and os.environ.get("POSCUDA_REQUIRE_ADAPTERS") != "1":
        pytest.skip(f"{', '.join(missing)} missing: pip install '.[adapters]'")
    for block in readme.blocks(readme.RECIPES, heading):
        readme.run(block, demo_folder)
    MADE[heading](demo_folder)


def test_every_recipe_for_a_framework_is_run() -> None:
    assert set(MADE) == {heading for heading in readme.EXTRAS if heading != "Does it work on my files?"}
