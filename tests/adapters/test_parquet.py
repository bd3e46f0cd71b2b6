"""Parquet: the bytes of `protect_folder`, and the file's shape kept."""

from __future__ import annotations

import datetime as dt
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from audio_folders import RECIPE, make_folder, protected
from audiofiles import noise, untouched, wav

from poscuda_fast import AudioFileError, DatasetError, Key, Protector, Recipe, UnprotectedWarning, protect
from poscuda_fast.adapters import parquet
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
    "views": (np.int16, pa.list_view(pa.int16())),
    "large views": (np.float32, pa.large_list_view(pa.float32())),
    "large": (np.int16, pa.large_list(pa.int16())),
    "of one size": (np.float32, pa.list_(pa.float32(), 400)),
}


@pytest.mark.parametrize(("dtype", "kind"), LISTS.values(), ids=LISTS)
def test_lists_of_samples_become_what_protect_makes_of_them(tmp_path, key, key_file, dtype, kind) -> None:
    more = 0 if pa.types.is_fixed_size_list(kind) else 1
    coding = "PCM_16" if dtype == np.int16 else "FLOAT"
    clips = [noise(400 + more * n, 1, coding, seed=n)[:, 0] for n in range(5)]
    table = pa.table({"audio": pa.array([clip.tolist() for clip in clips], kind), "label": [0, 1, 2, 0, 1]})
    try:
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    except pa.ArrowNotImplementedError:
        pytest.skip(f"pyarrow {pa.__version__} does not write {kind}")
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
    "null audio": (pa.array([*FILES, None]), [0] * 4, AudioFileError, "row 3 has no audio, neither"),
    "null bytes": (
        pa.array([{"bytes": b, "path": "a.wav"} for b in (*FILES, None)]), [0] * 4, AudioFileError, "row 3 has no",
    ),
    "no audio": (pa.array([*FILES, b"no audio"]), [0] * 4, AudioFileError, "row 3 cannot be used"),
    "text": (pa.array(["a.wav"] * 4), [0] * 4, TypeError, "holds text; expected the bytes"),
    "null label": (pa.array(FILES), [0, 1, None], TypeError, r"labels\[2\] is None"),
    "negative label": (pa.array([*FILES, b"no audio"]), [0, 1, 2, -1], ValueError, r"labels\[3\] is -1"),
    "null list": (pa.array([*SAMPLES, None], floats), [0] * 4, AudioFileError, "row 3 has no audio"),
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


def copied(tmp_path: Path, key_file: Path, table: pa.Table, writing: Any = None, **options: Any) -> Any:
    """The metadata of a table's file and of its protected copy, and the table in the copy."""
    pq.write_table(table, tmp_path / "a.parquet", **(writing or {}))
    protect_parquet(tmp_path / "a.parquet", tmp_path / "b.parquet", key_file, **options)
    before, after = (pq.ParquetFile(tmp_path / name) for name in ("a.parquet", "b.parquet"))
    return before, after, after.read()


def table_with(audio: Any, **more: Any) -> pa.Table:
    return pa.table({"audio": audio, "label": ["a", "b", "a", "b"][: len(audio)], **more})


FOUR = [wav(noise(300, seed=n)) for n in range(4)]


@pytest.mark.parametrize("store_schema", [False, True])
def test_timestamps_that_could_not_be_kept_are_refused(tmp_path: Path, key_file: Path, store_schema: bool) -> None:
    times = pa.array([dt.datetime(year, 1, 1) for year in (1000, 2000, 9999, 3000)], pa.timestamp("us"))  # noqa: DTZ001
    table = table_with(FOUR, recorded=times, more=pa.array([[when] for when in times.to_pylist()]))
    old, again = tmp_path / "a.parquet", tmp_path / "again.parquet"
    pq.write_table(table, old, use_deprecated_int96_timestamps=True, store_schema=store_schema)
    columns = r"'recorded', 'more\.list\.element'"
    with untouched(tmp_path), pytest.raises(DatasetError, match=f"INT96 in {columns}") as caught:
        protect_parquet(old, tmp_path / "b.parquet", key_file)
    assert "coerce_int96_timestamp_unit='us'" in str(caught.value)
    pq.write_table(pq.read_table(old, coerce_int96_timestamp_unit="us"), again)  # as the message says
    protect_parquet(again, tmp_path / "c.parquet", key_file)
    assert pq.read_table(tmp_path / "c.parquet")["recorded"].cast(pa.timestamp("us")).to_pylist() == times.to_pylist()


FORMS: dict[str, dict[str, Any]] = {
    "as pyarrow writes": {},
    "encodings": {
        "use_dictionary": ["label"],
        "column_encoding": {
            "n": "DELTA_BINARY_PACKED", "text": "DELTA_BYTE_ARRAY", "x": "BYTE_STREAM_SPLIT", "yes": "RLE",
            "audio": "DELTA_LENGTH_BYTE_ARRAY", "items.list.element": "DELTA_BINARY_PACKED",
        },
    },
    "a page index": {"write_page_index": True, "use_dictionary": False},
    "sorted": {"sorting_columns": [pq.SortingColumn(2), pq.SortingColumn(3, descending=True)]},
    "no Arrow schema": {"store_schema": False, "version": "1.0"},
    "no statistics": {"write_statistics": False},
    "statistics of some": {"write_statistics": ["n"]},
    "items": {"use_compliant_nested_type": False, "compression": {"items.list.item": "gzip", "audio": "none"}},
    "short decimals": {"store_decimal_as_integer": True},
}  # fmt: skip


@pytest.mark.parametrize("writing", FORMS.values(), ids=FORMS)
def test_the_copy_is_written_as_the_file_was(tmp_path: Path, key_file: Path, writing: dict[str, Any]) -> None:
    table = table_with(
        FOUR, n=pa.array([1, 2, 2, None], pa.uint32()), text=["x", "xy", "xyz", "z"], x=np.ones(4, np.float32),
        yes=[True, False, True, None], items=pa.array([[1], [], None, [2]]), d=pa.array([1, 2, 3, 4], pa.decimal128(5)),
    ).replace_schema_metadata({"made": "by a test"})  # fmt: skip
    before, after, _ = copied(tmp_path, key_file, table, {"row_group_size": 3, **writing})
    assert after.schema.equals(before.schema)
    assert (after.metadata.format_version, after.metadata.metadata) == (
        before.metadata.format_version, before.metadata.metadata,
    )  # fmt: skip
    for group in range(2):
        one, other = before.metadata.row_group(group), after.metadata.row_group(group)
        assert (other.num_rows, other.sorting_columns) == (one.num_rows, one.sorting_columns)
        for number in range(one.num_columns):
            facts = [
                (c.path_in_schema, c.encodings, c.compression, c.is_stats_set, c.has_column_index, c.has_offset_index)
                for c in (one.column(number), other.column(number))
            ]
            assert facts[0] == facts[1]


def test_rows_are_not_said_to_be_sorted_by_what_has_changed(tmp_path: Path, key_file: Path) -> None:
    sorting = [pq.SortingColumn(1), pq.SortingColumn(0), pq.SortingColumn(2)]
    _, after, _ = copied(tmp_path, key_file, table_with(FOUR, n=[1, 2, 3, 4]), {"sorting_columns": sorting})
    assert after.metadata.row_group(0).sorting_columns == (pq.SortingColumn(1),)


@pytest.mark.parametrize("kind", ["binary", "structs", "dictionary"])
def test_row_groups_are_read_in_parts_and_written_whole(tmp_path: Path, key_file: Path, monkeypatch, kind: str) -> None:
    files = [wav(noise(300 + n, seed=n)) for n in range(20)]
    audio: Any = [{"bytes": file, "path": None} for file in files] if kind == "structs" else pa.array(files)
    audio = audio.dictionary_encode() if kind == "dictionary" else audio
    more = pa.array(["x", "y"] * 10).dictionary_encode()
    table = pa.table({"audio": audio, "label": [n % 3 for n in range(20)], "more": more})
    _, _, whole = copied(tmp_path, key_file, table, {"row_group_size": 15})
    (tmp_path / "b.parquet").unlink()
    monkeypatch.setattr(parquet, "BYTES_PER_BATCH", 2000)
    sizes = []
    plain = Protector.protect_usable
    monkeypatch.setattr(Protector, "protect_usable", lambda *a: sizes.append(len(a[1])) or plain(*a))
    before, after, found = copied(tmp_path, key_file, table, {"row_group_size": 15})
    assert len(sizes) > 5
    assert max(sizes) <= 3
    assert found.equals(whole)
    assert [after.metadata.row_group(n).num_rows for n in range(2)] == [15, 5]
    for n in range(before.metadata.num_columns):
        assert after.metadata.row_group(0).column(n).encodings == before.metadata.row_group(0).column(n).encodings


def test_structs_keep_their_other_fields(tmp_path: Path, key: Key, key_file: Path) -> None:
    clips = [noise(400, 1, "FLOAT", seed=n)[:, 0] for n in range(4)]
    when = pa.array([1, 2, None, 4], pa.timestamp("ns"))
    structs = pa.StructArray.from_arrays(
        [pa.array([8000, None, 8000, 16000]), when, pa.array([c.tolist() for c in clips], pa.list_(pa.float32()))],
        ["sampling_rate", "when", "array"],
    )
    table = table_with(structs)
    _, _, found = copied(tmp_path, key_file, table, sample_rate=16000)
    assert found.schema.equals(table.schema)
    for clip, label, rate in zip(clips, "abab", (8000, 16000, 8000, 16000), strict=True):
        protect([clip], [label], key, sample_rate=rate)
    rows = found["audio"].combine_chunks()
    assert rows.field("array").to_pylist() == [clip.tolist() for clip in clips]
    assert (rows.field("when"), rows.field("sampling_rate").to_pylist()) == (when, [8000, None, 8000, 16000])


SHAPES = {
    "doubles": (pa.array([[0.5]], pa.list_(pa.float64())), r"lists of double; .*cast\(pa\.list_"),
    "channels": (pa.array([[[1], [2]]], pa.list_(pa.list_(pa.int16()))), "channels cannot be told from frames"),
    "several": (pa.array([[{"bytes": FOUR[0], "path": "x"}]]), r"several clips in a row.*explode\('audio'\)"),
    "base64": (pa.array(["UklGRg=="]), "holds text.*base64"),
    "structs of others": (pa.array([{"data": FOUR[0]}]), r"holds structs of \['data'\]"),
    "structs of text": (pa.array([{"bytes": "x"}]), r"'audio\.bytes' holds text"),
    "nulls": (pa.nulls(1), "has the type null"),
    "numbers": (pa.array([5]), "has the type int64"),
}


@pytest.mark.parametrize(("audio", "sentence"), SHAPES.values(), ids=SHAPES)
def test_other_shapes_are_refused_with_what_to_do(tmp_path: Path, key_file: Path, audio: Any, sentence: str) -> None:
    pq.write_table(table_with(audio), tmp_path / "a.parquet")
    with untouched(tmp_path), pytest.raises(TypeError, match=sentence):
        protect_parquet(tmp_path / "a.parquet", tmp_path / "b.parquet", key_file)


def test_what_the_refusals_advise_works(tmp_path: Path, key_file: Path) -> None:
    pandas = pytest.importorskip("pandas")
    doubles = table_with(pa.array([[0.25] * 300], pa.list_(pa.float64())))
    copied(tmp_path, key_file, doubles.set_column(0, "audio", doubles["audio"].cast(pa.list_(pa.float32()))))
    (tmp_path / "b.parquet").unlink()
    frame = pandas.DataFrame({"audio": [[FOUR[0], FOUR[1]], [FOUR[2]]], "label": ["a", "b"]}).explode("audio")
    _, _, found = copied(tmp_path, key_file, pa.table(frame))
    assert len(found) == 3


@pytest.mark.parametrize("known", ["by its first file", "by the features"])
def test_a_second_column_of_audio_is_never_left_in_silence(tmp_path: Path, key_file: Path, known: str) -> None:
    far = [None, *[wav(noise(300, seed=n + 9)) for n in range(3)]]
    table = table_with(FOUR, far=far, picture=[b"\x89PNG"] * 4)
    if known == "by the features":
        table = table.set_column(2, "far", pa.nulls(4, pa.struct({"bytes": pa.binary(), "path": pa.string()})))
        features = {"info": {"features": {"audio": {"_type": "Audio"}, "far": {"_type": "Audio"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, tmp_path / "a.parquet")
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"'far' holds audio too.*audio=\['audio', 'far'\]"):
        protect_parquet(tmp_path / "a.parquet", tmp_path / "b.parquet", key_file)
    with pytest.warns(UnprotectedWarning, match="column 'far' holds audio"):
        _, _, left = copied(tmp_path, key_file, table, skip_unusable=True)
    assert left["far"].equals(table["far"])
    (tmp_path / "b.parquet").unlink()
    if known == "by its first file":
        with pytest.raises(AudioFileError, match="row 0 of 'far' has no audio"):
            copied(tmp_path, key_file, table, audio=["audio", "far"])
        with pytest.warns(UnprotectedWarning, match=r"^1 audio entries .*a\.parquet were left(.|\n)*row 0 of 'far'"):
            _, _, both = copied(tmp_path, key_file, table, audio=["audio", "far"], skip_unusable=True)
        expected = Protector(key_file)({"audio": far[1:], "label": ["b", "a", "b"]})["audio"]
        assert both["far"].to_pylist() == [None, *expected]
        assert both["audio"].to_pylist() == left["audio"].to_pylist() != FOUR


def test_what_cannot_be_marked_is_left_and_counted(tmp_path: Path, key_file: Path) -> None:
    table = table_with([FOUR[0], b"\x1aE\xdf\xa3" + bytes(99), None, FOUR[3]])
    with pytest.raises(AudioFileError, match="2 audio entries cannot be protected"):
        copied(tmp_path, key_file, table)
    with pytest.warns(UnprotectedWarning, match=r"2 audio entries(.|\n)*row 2(.|\n)*row 1"):
        _, _, found = copied(tmp_path, key_file, table, skip_unusable=True)
    assert found["audio"].to_pylist()[1:3] == table["audio"].to_pylist()[1:3]
    assert found["audio"].to_pylist()[0] != FOUR[0]


def flac_file() -> bytes:
    """A FLAC file with a block of an application before its samples."""
    target = io.BytesIO()
    soundfile.write(target, np.repeat(noise(200), 100, 0) // 40, 16000, format="FLAC", subtype="PCM_16")
    head = target.getvalue()
    return head[:42] + struct.pack(">I", 2 << 24 | 12) + b"testSOMEDATA" + head[42:]


def test_flac_keeps_its_metadata(tmp_path: Path, key_file: Path) -> None:
    file = flac_file()
    _, _, found = copied(tmp_path, key_file, table_with([file]))
    wet = found["audio"][0].as_py()
    assert wet != file
    assert b"testSOMEDATA" in wet[:100]


def test_what_does_not_fit_a_column_is_said(tmp_path: Path, key_file: Path) -> None:
    file = flac_file()
    table = table_with(pa.array([file], pa.binary(len(file))))
    sentence = r"a\.parquet: the column 'audio', rows 0 to 0: fixed_size_binary.*cast it"
    with pytest.raises(DatasetError, match=sentence) as caught:
        copied(tmp_path, key_file, table)
    assert len(str(caught.value)) < 500


def test_a_damaged_file_is_said_with_the_row_group(tmp_path: Path, key_file: Path) -> None:
    pq.write_table(table_with(FOUR), tmp_path / "a.parquet", row_group_size=2, compression="zstd", use_dictionary=False)
    whole = (tmp_path / "a.parquet").read_bytes()
    column = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(1).column(0)
    at = column.data_page_offset + column.total_compressed_size // 2
    (tmp_path / "a.parquet").write_bytes(whole[:at] + bytes(200) + whole[at + 200 :])
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"a\.parquet: row group 1 cannot be read \("):
        protect_parquet(tmp_path / "a.parquet", tmp_path / "b.parquet", key_file)
    (tmp_path / "a.parquet").write_bytes(whole[:-20])
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"a\.parquet cannot be read as a Parquet file \("):
        protect_parquet(tmp_path / "a.parquet", tmp_path / "b.parquet", key_file)
    with pytest.raises(FileNotFoundError, match="is not a file"):
        protect_parquet(tmp_path, tmp_path / "b.parquet", key_file)
