"""Parquet: the bytes of `protect_folder`, and the file's shape kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from audio_folders import RECIPE, make_folder, protected
from audiofiles import noise, untouched, wav

from poscuda_fast import AudioFileError, Key, Recipe, protect
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


LISTS = {
    "int16": (np.int16, pa.list_(pa.int16())),
    "float32": (np.float32, pa.list_(pa.float32())),
    "large": (np.int16, pa.large_list(pa.int16())),
    "of one size": (np.float32, pa.list_(pa.float32(), 400)),
}


@pytest.mark.parametrize(("dtype", "kind"), LISTS.values(), ids=LISTS)
def test_lists_of_samples_become_what_protect_makes_of_them(tmp_path, key, key_file, dtype, kind) -> None:
    more = 0 if pa.types.is_fixed_size_list(kind) else 1
    coding = "PCM_16" if dtype == np.int16 else "FLOAT"
    clips = [noise(400 + more * n, 1, coding, seed=n)[:, 0] for n in range(5)]
    table = pa.table({"audio": pa.array([clip.tolist() for clip in clips], kind), "label": [0, 1, 2, 0, 1]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    paths = tmp_path / "a.parquet", tmp_path / "b.parquet"
    protect_parquet(*paths, key_file, recipe=RECIPE, sample_rate=22050)
    protect(clips, [0, 1, 2, 0, 1], key, recipe=RECIPE, sample_rate=22050)
    found = pq.read_table(tmp_path / "b.parquet")
    assert found.column("audio").to_pylist() == [clip.tolist() for clip in clips]
    assert found.schema.equals(table.schema)


@pytest.mark.parametrize("kind", [pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())], ids=str)
def test_other_types_of_bytes_and_labels_are_kept(tmp_path: Path, key_file: Path, kind: pa.DataType) -> None:
    plain = pa.table({"audio": [wav(noise(300 + n % 2)) for n in range(4)], "label": ["a", "b", "a", "b"]})
    other = pa.table({"audio": plain["audio"].cast(kind), "label": plain["label"].dictionary_encode()})
    found = {}
    for name, table in (("plain", plain), ("other", other)):
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=3)
        protect_parquet(tmp_path / f"{name}.parquet", tmp_path / f"{name}.wet.parquet", key_file)
        found[name] = pq.read_table(tmp_path / f"{name}.wet.parquet")
    assert found["other"].schema.equals(other.schema)
    assert found["other"].to_pydict() == found["plain"].to_pydict()


FILES, SAMPLES = [wav(noise(300))] * 3, [[0.5] * 300] * 3
floats = pa.list_(pa.float32())
UNUSABLE = {
    "null audio": (pa.array([*FILES, None]), [0] * 4, ValueError, "The audio of row 3 is None, without the bytes"),
    "null bytes": (
        pa.array([{"bytes": b, "path": "a.wav"} for b in (*FILES, None)]), [0] * 4, ValueError, r"row 3 is .*'a\.wav'",
    ),
    "no audio": (pa.array([*FILES, b"no audio"]), [0] * 4, AudioFileError, "row 3 cannot be used"),
    "text": (pa.array(["a.wav"] * 4), [0] * 4, TypeError, "The audio of row 0 is a str"),
    "null label": (pa.array(FILES), [0, 1, None], TypeError, r"labels\[2\] is None"),
    "negative label": (pa.array([*FILES, b"no audio"]), [0, 1, 2, -1], ValueError, r"labels\[3\] is -1"),
    "null list": (pa.array([*SAMPLES, None], floats), [0] * 4, ValueError, "The audio of row 3 is null"),
    "null sample": (
        pa.array([*SAMPLES, [0.5] * 300 + [None]], floats), [0] * 4, ValueError, "row 3 has a null among its samples",
    ),
    "null integer": (pa.array([[1, None]], pa.list_(pa.int16())), [0], ValueError, "row 0 has a null among"),
    "NaN": (
        pa.array([*SAMPLES, [float("nan")] * 300], floats), [0] * 4, ValueError,
        "In rows 2 to 3, where clip 0 is row 2: Clip 1 has a NaN",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("audio", "labels", "error", "sentence"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_be_used_is_said_by_its_row_in_the_file(
    tmp_path: Path, key_file: Path, audio: pa.Array, labels: list, error: type[Exception], sentence: str
) -> None:
    pq.write_table(pa.table({"audio": audio, "label": labels}), tmp_path / "a.parquet", row_group_size=2)
    with untouched(tmp_path), pytest.raises(error, match=sentence):
        protect_parquet(tmp_path / "a.parquet", tmp_path / "b.parquet", key_file, recipe=Recipe.paper())


def test_a_name_of_two_columns_is_refused(tmp_path: Path, key_file: Path) -> None:
    table = pa.Table.from_arrays([pa.array(FILES), pa.array(FILES), pa.array([0, 1, 2])], ["audio", "audio", "label"])
    pq.write_table(table, tmp_path / "a.parquet")
    with untouched(tmp_path), pytest.raises(KeyError, match="2 of them is 'audio'"):
        protect_parquet(tmp_path / "a.parquet", tmp_path / "b.parquet", key_file)


def test_classes_are_names(tmp_path: Path, key_file: Path) -> None:
    with pytest.raises(TypeError, match="classes is the single text"):
        protect_parquet(tmp_path / "a.parquet", tmp_path / "b.parquet", key_file, classes="yes no")


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
        with pytest.raises(KeyError, match="none of them is 'sound'"):
            protect_parquet(tmp_path / "a.parquet", tmp_path / "c.parquet", key_file, audio="sound")
        with pytest.raises(AudioFileError, match="row 0 cannot be used"):
            protect_parquet(tmp_path / "broken.parquet", tmp_path / "c.parquet", key_file)
        with pytest.raises(TypeError, match="holds lists of double; int16 and float32"):
            protect_parquet(tmp_path / "wrong.parquet", tmp_path / "c.parquet", key_file)
