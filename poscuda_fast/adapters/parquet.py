"""Parquet files of audio: protects them row group by row group; everything else is unchanged."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poscuda_fast import disk
from poscuda_fast.errors import require
from poscuda_fast.mark.labels import encode
from poscuda_fast.protector import Protector
from poscuda_fast.recipe import Recipe
from poscuda_fast.secrecy import discreet

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


@discreet
def protect_parquet(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    key_file: str | os.PathLike[str],
    *,
    recipe: Recipe = Recipe.strong(),
    audio: str = "audio",
    label: str = "label",
    classes: Sequence[str] | None = None,
    lossy: str = "refuse",
    sample_rate: int | None = None,
) -> int:
    """Make a protected copy of a Parquet file; one row group and all labels are in memory at a time.

    Parameters
    ----------
    src, dst : path
        The file, and the path of the copy, which must not exist. The copy appears once it is complete and on the disk.
    key_file, recipe, classes, lossy, sample_rate
        As for `Protector`; the sample rate is that of lists of samples.
    audio : str
        A column of bytes of audio files, of structs with "bytes" and "path" (as `datasets` writes), or of lists of
        int16 or float32 samples.
    label : str
        A column of integers or names.

    Returns
    -------
    int
        The number of rows.

    Raises
    ------
    FileExistsError
        `dst` exists.
    KeyError
        There is no such column, or more than one.
    AudioFileError, TypeError, ValueError, KeyFileError, OSError
        As for `Protector`; or audio, a sample or a label is null. Messages count rows from 0 in the whole file. Nothing
        is left at `dst`.

    Notes
    -----
    Schema, its metadata, other columns, the rows of each group and the compression of each column are preserved.
    """
    require("pyarrow", "parquet")
    import pyarrow.parquet as pq  # noqa: PLC0415 - an extra

    source, target = Path(src), Path(dst)
    if os.path.lexists(target):
        raise FileExistsError(f"{target} exists, and nothing is ever overwritten; choose another path.")
    protector = Protector(
        key_file, recipe=recipe, classes=classes, audio=audio, label=label, lossy=lossy, sample_rate=sample_rate
    )
    with pq.ParquetFile(source) as read:
        for column in (audio, label):
            if (found := read.schema_arrow.names.count(column)) != 1:
                raise KeyError(
                    f"{source} has the columns {read.schema_arrow.names}, and {found or 'none'} of them is {column!r}; "
                    f"pass a name that occurs once as audio or label."
                )
        _check_samples(read.schema_arrow.field(audio).type)
        labels = read.read(columns=[label]).column(label).to_pylist()
        encode(labels, protector.classes, len(labels))  # before any audio, and by rows of the whole file
        with (
            disk.appearing(target, mode=None) as file,
            pq.ParquetWriter(file, read.schema_arrow, compression=_compressions(read)) as write,
        ):
            first = 0
            for number in range(read.num_row_groups):
                table = read.read_row_group(number)
                rows = range(first, first + table.num_rows)
                write.write_table(
                    _protected(table, protector, labels[rows.start : rows.stop], rows),
                    row_group_size=max(1, table.num_rows),
                )
                first = rows.stop
        return int(read.metadata.num_rows)


def _check_samples(kind: pa.DataType) -> None:
    """TypeError if a column has lists of anything but samples that can be protected."""
    import pyarrow as pa  # noqa: PLC0415

    if _is_list(kind) and kind.value_type not in (pa.int16(), pa.float32()):
        raise TypeError(f"The audio column holds lists of {kind.value_type}; int16 and float32 can be protected.")


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa  # noqa: PLC0415

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _protected(table: pa.Table, protector: Protector, labels: list[Any], rows: range) -> pa.Table:
    """A row group with its audio protected; `rows` are their numbers in the file."""
    import pyarrow as pa  # noqa: PLC0415

    index = table.schema.get_field_index(protector.audio)
    field = table.schema.field(index)
    held = zip(table.column(index), rows, strict=True)
    if _is_list(field.type):
        clips = [_samples_of(entry, row) for entry, row in held]
        try:
            found = protector.protect(clips, labels)
        except ValueError as error:
            raise ValueError(
                f"In rows {rows.start} to {rows.stop - 1}, where clip 0 is row {rows.start}: {error}"
            ) from None
    else:
        found = protector.protect([_file_of(entry, row) for entry, row in held], labels, [f"row {row}" for row in rows])
    return table.set_column(index, field, pa.array(found, field.type))


def _samples_of(entry: Any, row: int) -> NDArray[Any]:
    """The samples in a list; ValueError if it is null or holds a null, which would become NaN as a float."""
    if not entry.is_valid or entry.values.null_count:
        raise ValueError(
            f"The audio of row {row} {'has a null among its samples' if entry.is_valid else 'is null'}; drop such rows "
            f"first, or fill in the samples."
        )
    samples: NDArray[Any] = entry.values.to_numpy()
    return samples


def _file_of(entry: Any, row: int) -> Any:
    """The file in an entry, as `Protector` takes it; ValueError if there is none."""
    held = entry.as_py()
    if held is None or (isinstance(held, dict) and held.get("bytes") is None):
        raise ValueError(
            f"The audio of row {row} is {held!r}, without the bytes of a file; drop such rows, or add the bytes."
        )
    return held


def _compressions(read: Any) -> dict[str, str]:
    """The compression of every column of a file."""
    if not read.num_row_groups:
        return {}
    group = read.metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    return {column.path_in_schema: column.compression.replace("UNCOMPRESSED", "NONE") for column in columns}
