"""Parquet files of audio: protected row group by row group, everything else as it was."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from poscuda_fast import durability
from poscuda_fast.protector import Protector
from poscuda_fast.recipe import Recipe

if TYPE_CHECKING:
    import pyarrow as pa


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
) -> int:
    """A protected copy of a Parquet file; one row group is in memory at a time.

    Parameters
    ----------
    src, dst : path
        The file, and its copy, which must not exist; it appears under its name once it is whole and on the disk.
    key_file, recipe, classes, lossy
        As for `Protector`.
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
        There is no such column.
    AudioFileError, TypeError, ValueError, KeyFileError, OSError
        As for `Protector`; nothing is left under either name.

    Notes
    -----
    Schema, its metadata, other columns, the rows of each group and the compression of each column are preserved.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415 - an extra

    source, target = Path(src), Path(dst)
    if os.path.lexists(target):
        raise FileExistsError(f"{target} exists, and nothing is ever overwritten; choose another name.")
    protector = Protector(key_file, recipe=recipe, classes=classes, audio=audio, label=label, lossy=lossy)
    with pq.ParquetFile(source) as read:
        for column in (audio, label):
            if column not in read.schema_arrow.names:
                raise KeyError(
                    f"{source} has the columns {read.schema_arrow.names}, and none is {column!r}; say which."
                )
        with (
            durability.appearing(target, mode=None) as file,
            pq.ParquetWriter(file, read.schema_arrow, compression=_compressions(read)) as write,
        ):
            for number in range(read.num_row_groups):
                table = _protected(read.read_row_group(number), protector)
                write.write_table(table, row_group_size=max(1, table.num_rows))
        return int(read.metadata.num_rows)


def _protected(table: pa.Table, protector: Protector) -> pa.Table:
    """A row group with its audio protected."""
    import pyarrow as pa  # noqa: PLC0415

    index = table.schema.get_field_index(protector.audio)
    field = table.schema.field(index)
    entries: list[Any] = table.column(index).to_pylist()
    sample = _sample_type(field.type)
    if sample is not None:
        entries = [np.array(entry, sample) for entry in entries]
    labels = table.column(str(protector.label)).to_pylist()
    found = protector.protect(entries, labels)
    column = pa.array([entry.tolist() if sample is not None else entry for entry in found], field.type)
    return table.set_column(index, field, column)


def _sample_type(kind: pa.DataType) -> Any:
    """The NumPy dtype of a column of lists of samples; None for files."""
    import pyarrow as pa  # noqa: PLC0415

    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return None
    if kind.value_type not in (pa.int16(), pa.float32()):
        raise TypeError(f"The audio column holds lists of {kind.value_type}; int16 and float32 samples are protected.")
    return kind.value_type.to_pandas_dtype()


def _compressions(read: Any) -> dict[str, str]:
    """The compression of every column of a file."""
    if not read.num_row_groups:
        return {}
    group = read.metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    return {column.path_in_schema: column.compression.replace("UNCOMPRESSED", "NONE") for column in columns}
