"""Columns of audio in Arrow: their types, their entries as `Protector` takes them, and columns made of what it gives.

Files are of any binary type, dictionaries of them included, or in structs with "bytes" and mostly "path"; samples are
lists of int16 or float32 of any kind, or in structs with "array" and "sampling_rate".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from poscuda_fast.files.in_memory import holds_sound

if TYPE_CHECKING:
    import pyarrow as pa

_AS_FILES = "store each clip as the bytes of a WAV file, with soundfile.write into an io.BytesIO"


def check_type(name: str, kind: pa.DataType) -> None:
    """TypeError, with what to do, unless a column has a type whose entries can be protected."""
    import pyarrow as pa  # noqa: PLC0415 - an extra

    kind = _without_dictionary(kind)
    if pa.types.is_struct(kind):
        children = {field.name: field.type for field in kind}
        if not {"bytes", "array"} & children.keys():
            raise TypeError(
                f"The column {name!r} holds structs of {sorted(children)}; expected 'bytes' and 'path', or 'array' and "
                f"'sampling_rate'. Rename the fields, or pass the column that has the audio."
            )
        for child in ("bytes", "array"):
            if child in children:
                check_type(f"{name}.{child}", children[child])
    elif is_list(kind):
        _check_items(name, kind.value_type)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        raise TypeError(
            f"The column {name!r} holds text; expected the bytes of audio files. If the texts are paths, read the "
            f"files into a column of bytes; if they are base64, decode them with base64.b64decode."
        )
    elif not _is_binary(kind):
        raise TypeError(
            f"The column {name!r} has the type {kind}; expected the bytes of audio files, structs with them, or lists "
            f"of int16 or float32 samples. Pass the column that has the audio, or {_AS_FILES}."
        )


def _check_items(name: str, kind: pa.DataType) -> None:
    import pyarrow as pa  # noqa: PLC0415

    if kind in (pa.int16(), pa.float32()):
        return
    if is_list(kind):
        raise TypeError(
            f"The column {name!r} holds lists of {kind}, in which channels cannot be told from frames; {_AS_FILES}, or "
            f"make a column of each channel and pass all of them as audio."
        )
    if pa.types.is_struct(kind) or _is_binary(kind):
        raise TypeError(
            f"The column {name!r} holds lists of {kind}, so several clips in a row; give each clip a row of its own "
            f"first, for example with frame.explode({name!r}) of pandas."
        )
    raise TypeError(
        f"The column {name!r} holds lists of {kind}; int16 and float32 can be protected. Cast the lists first, for "
        f"example with table[{name!r}].cast(pa.list_(pa.float32())), to samples with a full scale of 1."
    )


def entries_of(column: pa.Array, first: int) -> list[Any]:
    """The entries of a column whose type was checked; `first` is the row of the first one.

    ValueError if a list holds a null, which would become NaN as a float.
    """
    import pyarrow as pa  # noqa: PLC0415

    if is_list(column.type):
        return _samples_of(column, first)
    if not pa.types.is_struct(column.type):
        return list(column.to_pylist())
    children = {
        field.name: _samples_of(child, first) if field.name == "array" else child.to_pylist()
        for field, child in zip(column.type, column.flatten(), strict=True)
        if field.name in ("bytes", "path", "array", "sampling_rate")
    }
    rows = [dict(zip(children, row, strict=True)) for row in zip(*children.values(), strict=True)]
    return [row if is_there else None for row, is_there in zip(rows, column.is_valid().to_pylist(), strict=True)]


def like(column: pa.Array, found: Sequence[Any]) -> pa.Array:
    """A column of the same type with other entries; other fields of structs stay what they are."""
    import pyarrow as pa  # noqa: PLC0415

    if not pa.types.is_struct(column.type):
        return pa.array(found, column.type)
    children = [
        pa.array([None if row is None else row[field.name] for row in found], field.type)
        if field.name in ("bytes", "path", "array")
        else child
        for field, child in zip(column.type, column.flatten(), strict=True)
    ]
    return pa.StructArray.from_arrays(children, fields=list(column.type), mask=column.is_null())


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is one of lists."""
    import pyarrow as pa  # noqa: PLC0415

    tests = (
        pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view,
        pa.types.is_large_list_view,
    )  # fmt: skip
    return any(test(kind) for test in tests)


def may_hold_sound(kind: pa.DataType) -> bool:
    """Whether a column of a type may hold audio that `holds_sound` knows: bytes, or samples with their rate."""
    import pyarrow as pa  # noqa: PLC0415

    kind = _without_dictionary(kind)
    if pa.types.is_struct(kind):
        names = {field.name for field in kind}
        return {"array", "sampling_rate"} <= names or any(_is_binary(field.type) for field in kind)
    return may_hold_sound(kind.value_type) if is_list(kind) else _is_binary(kind)


def sounds(chunks: Iterator[pa.Array]) -> bool:
    """Whether the first entry that is not null holds audio."""
    for chunk in chunks:
        for entry in chunk:
            held = entry.as_py() if entry.is_valid else None
            if held and not (isinstance(held, dict) and held.get("bytes") is None and held.get("array") is None):
                return holds_sound(held)
    return False


def _samples_of(column: pa.Array, first: int) -> list[Any]:
    found: list[Any] = []
    for row, entry in enumerate(column, first):
        if entry.is_valid and entry.values.null_count:
            raise ValueError(
                f"The audio of row {row} has a null among its samples; drop such rows first, or fill in the samples."
            )
        found.append(entry.values.to_numpy() if entry.is_valid else None)
    return found


def _without_dictionary(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa  # noqa: PLC0415

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_binary(kind: pa.DataType) -> bool:
    import pyarrow as pa  # noqa: PLC0415

    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(test(_without_dictionary(kind)) for test in tests)
