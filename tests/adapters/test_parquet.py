"""Parquet: the bytes of `protect_folder`, and the file's shape kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from audio_folders import RECIPE, make_folder, protected
from audiofiles import noise, untouched

from poscuda_fast import AudioFileError, Key, protect
from poscuda_fast.adapters.parquet import protect_parquet


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    return make_folder(tmp_path / "src")


def table_of(files: dict[str, bytes], *, structs: bool) -> pa.Table:
    names = sorted(files)
    audio = [{"bytes": files[name], "path": name} if structs else files[name] for name in names]
    table = pa.table({
        "number": list(range(len(names))), "audio": audio, "label": [name.split("/")[0] for name in names],
    })  # fmt: skip
    return table.replace_schema_metadata({"made": "by a test"})


@pytest.mark.parametrize("structs", [True, False], ids=["structs", "bytes"])
def test_files_become_what_a_folder_becomes(tmp_path: Path, key: Key, key_file: Path, files, structs: bool) -> None:
    table = table_of(files, structs=structs)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=5, compression={"audio": "none", "number": "gzip"})
    assert protect_parquet(tmp_path / "a.parquet", tmp_path / "b.parquet", key_file, recipe=RECIPE) == len(files)
    expected = protected(tmp_path / "src", key, tmp_path / "dst")
    found = pq.read_table(tmp_path / "b.parquet")
    assert found.schema.equals(table.schema, check_metadata=True)
    wanted = [{"bytes": expected[n], "path": n} if structs else expected[n] for n in sorted(files)]
    assert found.column("audio").to_pylist() == wanted
    for column in ("number", "label"):
        assert found.column(column).equals(table.column(column))
    before, after = (pq.ParquetFile(tmp_path / name).metadata for name in ("a.parquet", "b.parquet"))
    groups = [[m.row_group(n).num_rows for n in range(m.num_row_groups)] for m in (before, after)]
    assert groups[0] == groups[1]
    for n in range(before.row_group(0).num_columns):
        assert after.row_group(0).column(n).compression == before.row_group(0).column(n).compression
    assert sorted(path.name for path in tmp_path.glob("*.parquet*")) == ["a.parquet", "b.parquet"]


@pytest.mark.parametrize(("dtype", "kind"), [(np.int16, pa.int16()), (np.float32, pa.float32())])
def test_lists_of_samples_become_what_protect_makes_of_them(tmp_path, key, key_file, dtype, kind) -> None:
    clips = [noise(400 + n, seed=n)[:, 0].astype(dtype) for n in range(5)]
    table = pa.table({"audio": pa.array([clip.tolist() for clip in clips], pa.list_(kind)), "label": [0, 1, 2, 0, 1]})
    pq.write_table(table, tmp_path / "a.parquet")
    protect_parquet(tmp_path / "a.parquet", tmp_path / "b.parquet", key_file, recipe=RECIPE)
    protect(clips, [0, 1, 2, 0, 1], key, recipe=RECIPE)
    assert pq.read_table(tmp_path / "b.parquet").column("audio").to_pylist() == [clip.tolist() for clip in clips]


def test_nothing_is_overwritten_and_nothing_is_left(tmp_path: Path, key_file: Path, files) -> None:
    table = table_of(files, structs=False)
    pq.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"precious")
    broken = table.set_column(1, "audio", pa.array([b"no audio"] * len(table), pa.binary()))
    pq.write_table(broken, tmp_path / "broken.parquet")
    wrong = pa.table({"audio": pa.array([[1.0]], pa.list_(pa.float64())), "label": [0]})
    pq.write_table(wrong, tmp_path / "wrong.parquet")
    with untouched(tmp_path):
        with pytest.raises(FileExistsError, match=r"b\.parquet exists, and nothing is ever overwritten"):
            protect_parquet(tmp_path / "a.parquet", tmp_path / "b.parquet", key_file)
        with pytest.raises(KeyError, match="none is 'sound'"):
            protect_parquet(tmp_path / "a.parquet", tmp_path / "c.parquet", key_file, audio="sound")
        with pytest.raises(AudioFileError, match="entry 0 cannot be used"):
            protect_parquet(tmp_path / "broken.parquet", tmp_path / "c.parquet", key_file)
        with pytest.raises(TypeError, match="holds lists of double; int16 and float32"):
            protect_parquet(tmp_path / "wrong.parquet", tmp_path / "c.parquet", key_file)
