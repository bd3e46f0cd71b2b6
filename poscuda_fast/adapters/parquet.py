"""Parquet files of audio: protects them row group by row group; everything else is unchanged."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poscuda_fast import disk
from poscuda_fast.adapters import arrow_columns, parquet_form
from poscuda_fast.adapters.arrow_errors import said
from poscuda_fast.errors import DatasetError, PoscudaError, require, warn_of_unprotected
from poscuda_fast.mark.labels import encode
from poscuda_fast.protector import Protector, unnamed_columns
from poscuda_fast.recipe import Recipe
from poscuda_fast.secrecy import discreet

if TYPE_CHECKING:
    import pyarrow as pa

BYTES_PER_BATCH = 64 << 20  # nested columns of over 2 GiB cannot be read at once
ROWS_PER_BATCH = 256  # of dictionaries the metadata do not tell how many bytes the rows are
ROWS_LOOKED_AT = 16
_DAMAGED = "put the file back from a backup, or write it again from its source"


@discreet
def protect_parquet(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    key_file: str | os.PathLike[str],
    *,
    recipe: Recipe = Recipe.strong(),
    audio: str | Sequence[str] = "audio",
    label: str = "label",
    classes: Sequence[str] | None = None,
    lossy: str = "refuse",
    sample_rate: int | None = None,
    skip_unusable: bool = False,
) -> int:
    """Make a protected copy of a Parquet file; one row group and all labels are in memory at a time.

    Parameters
    ----------
    src, dst : path
        The file, and the path of the copy, which must not exist. The copy appears once it is complete and on the disk.
    key_file, recipe, classes, lossy, sample_rate
        As for `Protector`; the sample rate is that of lists of samples.
    audio : str or sequence of str
        A column, or all columns, of bytes of audio files, of structs with "bytes" and "path" (as `datasets` writes), of
        lists of int16 or float32 samples, or of structs with such an "array" and its "sampling_rate".
    label : str
        A column of integers or names.
    skip_unusable : bool
        As for `Protector`: leave as they are files that cannot be marked, null audio, and other columns of audio.

    Returns
    -------
    int
        The number of rows.

    Raises
    ------
    FileExistsError, FileNotFoundError
        `dst` exists, or `src` is not a file.
    KeyError
        There is no such column, or more than one.
    DatasetError
        The file is damaged, or a column cannot be read or written; it has INT96 timestamps, whose values could not be
        kept; or another column holds audio: by the features of `datasets`, or by the first entry that is not null.
    AudioFileError, TypeError, ValueError, KeyFileError, OSError
        As for `Protector`; or audio, a sample or a label is null. Messages count rows from 0 in the whole file. Nothing
        is left at `dst`.

    Warns
    -----
    UnprotectedWarning
        `skip_unusable` left something unprotected.

    Notes
    -----
    Schema, its metadata, other columns and the rows of each group are preserved, and of each column the compression and
    the encoding; see `parquet_form`.
    """
    require("pyarrow", "parquet")
    import pyarrow.parquet as pq  # noqa: PLC0415 - an extra

    source, target = Path(src), Path(dst)
    if os.path.lexists(target):
        raise FileExistsError(f"{target} exists, and nothing is ever overwritten; choose another path.")
    protector = Protector(
        key_file, recipe=recipe, classes=classes, audio=audio, label=label, lossy=lossy, sample_rate=sample_rate,
        skip_unusable=skip_unusable,
    )  # fmt: skip
    if not source.is_file():
        raise FileNotFoundError(f"{source} is not a file; give the path of one Parquet file.")
    with open(source, "rb") as file, said(f"{source} cannot be read as a Parquet file", _DAMAGED):
        read = pq.ParquetFile(file)
        _check_columns(read, source, protector)
        with said(f"{source}: the column {label!r} cannot be read", _DAMAGED):
            labels = read.read(columns=[label]).column(label).to_pylist()
        n_rows = len(labels)
        encode(labels, protector.classes, len(labels))  # before any audio, and by rows of the whole file
        left = _unnamed(read, source, protector)
        copy = _Copy(read, source, protector, labels)
        options = parquet_form.writer_options(read, protector.audio)
        with (
            disk.appearing(target, mode=None) as made,
            said(f"{source}: its copy {target} cannot be written", "write the file again with other options first"),
            pq.ParquetWriter(made, read.schema_arrow, **options) as write,
        ):
            if read.metadata.metadata:
                write.add_key_value_metadata(read.metadata.metadata)
            for number, table in enumerate(copy.groups()):
                with said(f"{source}: row group {number} cannot be written to {target}", "write smaller row groups"):
                    write.write_table(table, row_group_size=max(1, table.num_rows))
    left += copy.left
    warn_of_unprotected(left, len(left), str(source))
    return n_rows


def _check_columns(read: Any, source: Path, protector: Protector) -> None:
    """KeyError, TypeError or DatasetError, before anything is written, for columns that cannot be used."""
    for column in (*protector.audio, str(protector.label)):
        if (found := read.schema_arrow.names.count(column)) != 1:
            raise KeyError(
                f"{source} has the columns {read.schema_arrow.names}, and {found or 'none'} of them is {column!r}; "
                f"pass a name that occurs once as audio or label."
            )
    for column in protector.audio:
        arrow_columns.check_type(column, read.schema_arrow.field(column).type)
    parquet_form.refuse_int96(read, source)


def _unnamed(read: Any, source: Path, protector: Protector) -> list[str]:
    """A sentence for each column of audio that is not named; DatasetError unless they may be skipped."""
    known = _audio_of_datasets(read)
    others = [
        field.name
        for field in read.schema_arrow
        if field.name not in {*protector.audio, protector.label}
        and (
            field.name in known
            or (arrow_columns.may_hold_sound(field.type) and arrow_columns.sounds(_chunks(read, source, field.name)))
        )
    ]
    if others and not protector.skip_unusable:
        raise DatasetError(f"{source}: {unnamed_columns(others, protector.audio)}")
    return [f"The column {name!r} holds audio, and was not named." for name in others]


def _audio_of_datasets(read: Any) -> set[str]:
    """The columns that have the feature Audio, in what `datasets` wrote into a file's metadata."""
    try:
        features = json.loads((read.schema_arrow.metadata or {})[b"huggingface"])["info"]["features"]
        return {name for name, feature in features.items() if '"_type": "Audio"' in json.dumps(feature)}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return set()


def _chunks(read: Any, source: Path, column: str) -> Iterator[pa.Array]:
    with said(f"{source}: the column {column!r} cannot be read", _DAMAGED):
        for batch in read.iter_batches(batch_size=ROWS_LOOKED_AT, columns=[column]):
            yield batch.column(0)


class _Copy:
    """The row groups of a file with their audio protected; `left` says why any was left as it is."""

    def __init__(self, read: Any, source: Path, protector: Protector, labels: list[Any]) -> None:
        self._read, self._source, self._protector, self._labels = read, source, protector, labels
        self.left: list[str] = []

    def groups(self) -> Iterator[pa.Table]:
        """Each group as one table, in chunks of few enough bytes to be read at once."""
        import pyarrow as pa  # noqa: PLC0415

        first = 0
        for number in range(self._read.num_row_groups):
            batches = []
            with said(f"{self._source}: row group {number} cannot be read", _DAMAGED):
                for batch in self._read.iter_batches(self._batch_rows(number), row_groups=[number]):
                    batches.append(self._protected(batch, first))
                    first += batch.num_rows
            table = pa.Table.from_batches(batches, self._read.schema_arrow)
            if any(pa.types.is_dictionary(field.type) for field in table.schema):
                table = table.unify_dictionaries()  # or each chunk's would end the one before, and be written plain
            yield table

    def _batch_rows(self, number: int) -> int:
        group = self._read.metadata.row_group(number)
        fitting = BYTES_PER_BATCH * int(group.num_rows) // max(1, int(group.total_byte_size))
        return max(1, min(ROWS_PER_BATCH, fitting))

    def _protected(self, batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
        import pyarrow as pa  # noqa: PLC0415

        columns = dict(zip(batch.schema.names, range(batch.num_columns), strict=True))
        arrays = batch.columns
        for name in self._protector.audio:
            column = arrays[columns[name]]
            found = self._column(name, column, range(first, first + batch.num_rows))
            place = f"{self._source}: the column {name!r}, rows {first} to {first + batch.num_rows - 1}"
            with said(f"{place}: {column.type} cannot hold what is protected", "cast it first, such as to pa.binary()"):
                arrays[columns[name]] = arrow_columns.like(column, found)
        return pa.RecordBatch.from_arrays(arrays, schema=self._read.schema_arrow)

    def _column(self, name: str, column: pa.Array, rows: range) -> list[Any]:
        """The protected entries of some rows of a column."""
        entries = arrow_columns.entries_of(column, rows.start)
        of = "" if len(self._protector.audio) == 1 else f" of {name!r}"
        labels = self._labels[rows.start : rows.stop]
        try:
            found, left = self._protector.protect_usable(entries, labels, [f"row {row}{of}" for row in rows])
        except PoscudaError:
            raise
        except ValueError as error:
            raise ValueError(
                f"In rows {rows.start} to {rows.stop - 1}, where clip 0 is row {rows.start}: {error}"
            ) from None
        self.left += left
        return found  # type: ignore[no-any-return]
