"""How a Parquet file was written, read from its metadata, so that a copy is written in the same way."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from poscuda_fast.errors import DatasetError

_DICTIONARY = {"PLAIN_DICTIONARY", "RLE_DICTIONARY"}
_ENCODINGS = ("DELTA_BINARY_PACKED", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "BYTE_STREAM_SPLIT")
_VERSIONS = ("1.0", "2.4", "2.6")


def refuse_int96(read: Any, source: Path) -> None:
    """DatasetError if a column has INT96 timestamps: Arrow reads them as nanoseconds, which end in the year 2262."""
    columns = [read.schema.column(number) for number in range(len(read.schema))]
    found = [column.path for column in columns if column.physical_type == "INT96"]
    if found:
        raise DatasetError(
            f"{source} holds timestamps as INT96 in {', '.join(map(repr, found))}, whose values cannot be kept "
            f"exactly. Write it again with other timestamps first: pq.write_table(pq.read_table(path, "
            f"coerce_int96_timestamp_unit='us'), other_path), or in Spark with "
            f"spark.sql.parquet.outputTimestampType=TIMESTAMP_MICROS."
        )


def writer_options(read: Any, changed: Sequence[str]) -> dict[str, Any]:
    """What `ParquetWriter` is to be given for a copy in which only the columns `changed` have other values.

    The encodings and the compression of each column, the version of the format, the page index, the columns that have
    statistics, those that rows are sorted by, and the names inside lists. The pages' version, sizes and checksums, and
    compression levels, are not in the metadata.
    """
    options: dict[str, Any] = {
        "version": read.metadata.format_version if read.metadata.format_version in _VERSIONS else _VERSIONS[-1],
        "store_schema": False,  # it is in the metadata that the copy gets as they are, if it was stored
        "use_compliant_nested_type": _names_elements(read),
        "store_decimal_as_integer": _has_short_decimals(read),
    }
    groups = [read.metadata.row_group(number) for number in range(read.metadata.num_row_groups)]
    if not groups:
        return options
    paths = _paths(read.schema_arrow, options)
    columns = {path: [group.column(number) for group in groups] for number, path in enumerate(paths)}
    encodings = {path: {name for part in parts for name in part.encodings} for path, parts in columns.items()}
    with_statistics = [path for path, parts in columns.items() if any(part.is_stats_set for part in parts)]
    return options | {
        "compression": {path: parts[0].compression.replace("UNCOMPRESSED", "NONE") for path, parts in columns.items()},
        "use_dictionary": [path for path, names in encodings.items() if names & _DICTIONARY] or False,
        "column_encoding": {
            path: encoding
            for path, names in encodings.items()
            if (encoding := _encoding(names, columns[path][0].physical_type))
        }
        or None,
        "write_statistics": len(with_statistics) == len(columns) or with_statistics or False,
        "write_page_index": any(part.has_column_index for parts in columns.values() for part in parts),
        "sorting_columns": _sorting(groups, paths, changed),
    }


def _paths(schema: Any, options: dict[str, Any]) -> list[str]:
    """The path of each leaf as the copy has it, where lists may get other names inside."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - an extra

    empty = io.BytesIO()
    pq.ParquetWriter(empty, schema, **options).close()
    written = pq.ParquetFile(empty).schema
    return [written.column(number).path for number in range(len(written))]


def _names_elements(read: Any) -> bool:
    """Whether the items of lists are called "element", as the format wants, or what Arrow's schema calls them."""
    paths = [read.schema.column(number).path for number in range(len(read.schema))]
    return any(".list.element" in path for path in paths) or not any(".list." in path for path in paths)


def _has_short_decimals(read: Any) -> bool:
    columns = [read.schema.column(number) for number in range(len(read.schema))]
    return any(
        column.logical_type.type == "DECIMAL" and column.physical_type in ("INT32", "INT64") for column in columns
    )


def _encoding(names: set[str], physical_type: str) -> str | None:
    """The encoding to ask for; None for a dictionary, and for plain values."""
    if names & _DICTIONARY:
        return None
    if physical_type == "BOOLEAN" and "PLAIN" not in names and "RLE" in names:
        return "RLE"
    return next((name for name in _ENCODINGS if name in names), None)


def _sorting(groups: Sequence[Any], paths: Sequence[str], changed: Sequence[str]) -> tuple[Any, ...] | None:
    """The columns that all rows are sorted by, up to one whose values change."""
    sorting = groups[0].sorting_columns
    if any(group.sorting_columns != sorting for group in groups):
        return None
    kept = []
    for one in sorting:
        if any(f"{paths[one.column_index]}.".startswith(f"{name}.") for name in changed):
            break
        kept.append(one)
    return tuple(kept) or None
