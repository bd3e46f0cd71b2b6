"""Hugging Face datasets: protects audio files, bytes in and bytes out; everything else is unchanged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from poscuda_fast.adapters import arrow_columns
from poscuda_fast.adapters.arrow_errors import said
from poscuda_fast.errors import DatasetError, require, warn_of_unprotected
from poscuda_fast.key import Key
from poscuda_fast.mark.labels import encode
from poscuda_fast.protector import Protector, check_columns, unnamed_columns
from poscuda_fast.recipe import Recipe
from poscuda_fast.secrecy import discreet

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

BYTES_PER_BATCH = 512 << 20  # Arrow holds at most 2 GiB of bytes in one array of structs
UNPACKED = 16  # how many times its size a lossy file may have as FLAC
_LEFT = "poscuda_unprotected"  # a column that tells, in the cache too, why audio was left; it is taken out again


@discreet
def protect_dataset(
    dataset: datasets.Dataset | datasets.DatasetDict,
    key_file: str | os.PathLike[str],
    *,
    recipe: Recipe = Recipe.strong(),
    audio: str | Sequence[str] = "audio",
    label: str = "label",
    lossy: str = "refuse",
    skip_unusable: bool = False,
    batch_size: int = 100,
    num_proc: int | None = None,
) -> Any:
    """Make a protected copy of a data set of audio files.

    Rows are read as Arrow, so `datasets` decodes neither the files (torchcodec is not needed) nor any other column.
    Files that are not compressed change only in their samples; FLAC keeps all that it carries. A row with a path alone
    gets the bytes of that file, which `datasets` opens: it may be in an archive or at a remote address.

    Parameters
    ----------
    dataset : datasets.Dataset or DatasetDict
        Has a column with the feature `Audio`. All splits of a DatasetDict get the same marks.
    key_file, recipe, lossy, skip_unusable
        As for `Protector`.
    audio : str or sequence of str
        Name of the column of audio, or of all of them.
    label : str
        Name of the column of labels. A `ClassLabel` is read as its names, like folders in `protect_folder`.
    batch_size, num_proc
        As for `Dataset.map`; batches of large files have fewer rows.

    Returns
    -------
    datasets.Dataset or DatasetDict
        Features, splits, format and other columns are kept. The cache of `datasets` holds the key's fingerprint, never
        the key. A cached result is used again only for the same data, arguments and key, and only if the files behind
        paths have the same sizes and times; remote files are always read again.

    Raises
    ------
    KeyError
        There is no such column.
    TypeError
        `dataset` is streamed or is not a data set; or a column of audio does not have the feature `Audio`.
    DatasetError
        Another column has the feature Audio, or Arrow cannot read or write the rows.
    AudioFileError, TypeError, ValueError, KeyFileError, OSError
        As for `Protector`, or a row has no audio. A message names a label by its row, and the split if there are some.

    Warns
    -----
    UnprotectedWarning
        `skip_unusable` left something unprotected, now or when the cached result was made.
    """
    require("datasets", "huggingface")
    import datasets  # noqa: PLC0415 - an extra

    columns = check_columns(audio)
    options: dict[str, Any] = {"recipe": recipe, "audio": columns, "label": label, "lossy": lossy}
    options["skip_unusable"] = skip_unusable
    if not isinstance(dataset, datasets.DatasetDict):
        return _protect(dataset, key_file, options, batch_size, num_proc, "the data set")
    done = datasets.DatasetDict()
    for name, part in dataset.items():
        with _naming(name):
            done[name] = _protect(part, key_file, options, batch_size, num_proc, f"the split {name!r}")
    return done


def _protect(
    dataset: Any, key_file: str | os.PathLike[str], options: dict[str, Any], batch_size: int, num_proc: int | None,
    where: str,
) -> Any:  # fmt: skip
    """Make a protected copy of one split."""
    import datasets  # noqa: PLC0415

    columns, label, skip = options["audio"], options["label"], options["skip_unusable"]
    names = _class_names(dataset, columns, label)
    left = _unnamed(dataset, columns, skip=skip)
    protector = Protector(key_file, classes=names, **options)
    with said(f"{where[0].upper()}{where[1:]} cannot be read", "load it again from its source"):
        files = [_files_behind(dataset.data.column(column)) for column in columns]
        largest = sum(map(_largest, (dataset.data.column(column) for column in columns), files))
    run = [dataset._fingerprint, Key.load(key_file).fingerprint, options["recipe"].to_dict(), columns, label]  # noqa: SLF001
    run += [names, options["lossy"], skip, files]
    bytes_per_batch = BYTES_PER_BATCH // (UNPACKED if options["lossy"] == "flac" else 1)
    reasons = {_LEFT: datasets.Sequence(datasets.Value("string"))} if skip else {}
    with said(f"{where[0].upper()}{where[1:]} cannot be protected", "pass a smaller batch_size, or load it again"):
        done = dataset.with_format("arrow").map(
            _Batches(protector),
            with_indices=True,
            batched=True,
            batch_size=max(1, min(batch_size, bytes_per_batch // max(1, largest))),
            num_proc=num_proc,
            features=datasets.Features(dataset.features | reasons),
            new_fingerprint=hashlib.sha256(json.dumps(run).encode()).hexdigest()[:16],
            desc="protecting",
        )
    if skip and _LEFT in done.column_names:  # an empty data set has none
        left += [reason for some in done.data.column(_LEFT).to_pylist() for reason in some]
        done = done.remove_columns(_LEFT)
    warn_of_unprotected(left, len(left), where)
    return done.with_format(**dataset.format)


@contextlib.contextmanager
def _naming(split: str) -> Iterator[None]:
    """Put the name of a split before the message of an error."""
    try:
        yield
    except Exception as error:
        if error.args and isinstance(error.args[0], str):
            error.args = (f"Split {split!r}: {error.args[0]}", *error.args[1:])
        raise


def _class_names(dataset: Any, columns: Sequence[str], label: str) -> list[str] | None:
    """The names of a ClassLabel, if it is one; the columns and all labels are checked."""
    import datasets  # noqa: PLC0415

    if not isinstance(dataset, datasets.Dataset):
        raise TypeError(
            f"dataset is a {type(dataset).__name__}; expected a datasets.Dataset or DatasetDict. Load a streamed one "
            f"whole, with load_dataset(..., streaming=False)."
        )
    for column in (*columns, label):
        if column not in dataset.column_names:
            raise KeyError(
                f"The data set has the columns {dataset.column_names}, and none is {column!r}; pass the right name as "
                f"audio or label."
            )
    for column in columns:
        feature = dataset.features[column]
        if isinstance(feature, datasets.Audio):
            continue
        way = f"Cast it first, with dataset.cast_column({column!r}, datasets.Audio())"
        if _holds_audio(feature):
            way = "Give each clip a row of its own first, in a column that has the feature Audio"
        raise TypeError(f"The column {column!r} has the feature {feature}; expected Audio. {way}.")
    names = getattr(dataset.features[label], "names", None)
    # Select this column alone: of chosen or shuffled rows, Arrow would gather the audio too.
    labels = dataset.with_format(None).select_columns([label]).with_format("arrow")[:].column(label).to_pylist()
    encode(labels, names, len(labels))
    return names


def _unnamed(dataset: Any, columns: Sequence[str], *, skip: bool) -> list[str]:
    """A sentence for each column of audio that is not named; DatasetError unless they may be skipped.

    By its feature, or by its first entry that is not null.
    """
    others = []
    for name, feature in dataset.features.items():
        column = dataset.data.column(name)
        held = arrow_columns.may_hold_sound(column.type) and arrow_columns.sounds(iter(column.chunks))
        if name not in columns and (_holds_audio(feature) or held):
            others.append(name)
    if others and not skip:
        raise DatasetError(unnamed_columns(others, columns))
    return [f"The column {name!r} holds audio, and was not named." for name in others]


def _holds_audio(feature: Any) -> bool:
    """Whether a feature is Audio, or has it inside."""
    import datasets  # noqa: PLC0415

    if isinstance(feature, datasets.Audio):
        return True
    if isinstance(feature, list | dict):
        return any(map(_holds_audio, feature.values() if isinstance(feature, dict) else feature))
    inner = getattr(feature, "feature", None)
    return inner is not None and _holds_audio(inner)


def _largest(column: pa.ChunkedArray, files: list[Any]) -> int:
    """Bytes of the largest file of a column, as far as that can be told without reading it."""
    import pyarrow.compute as pc  # noqa: PLC0415

    held: int = pc.max(pc.binary_length(pc.struct_field(column, "bytes"))).as_py() or 0
    return max(held, *(size for _, (size, *_) in files if isinstance(size, int)), 0)


def _files_behind(column: pa.ChunkedArray) -> list[Any]:
    """[path, state] of each row without bytes; the state changes when the file does."""
    import pyarrow.compute as pc  # noqa: PLC0415

    without_bytes = pc.is_null(pc.struct_field(column, "bytes"))
    paths = pc.struct_field(column, "path").filter(without_bytes).to_pylist()
    return [[path, _state_of(path)] for path in paths if path is not None]


def _state_of(path: str) -> list[int] | str:
    """Size and time of a local file or of the archive it lies in; for a remote file, never the same twice."""
    from datasets.utils.file_utils import is_local_path  # noqa: PLC0415

    file = path.rpartition("::")[2]
    if not is_local_path(file):
        return os.urandom(16).hex()
    try:
        found = os.stat(file)
    except OSError:
        return "missing"  # an error is raised when the row is read
    return [found.st_size, found.st_mtime_ns]


class _Batches:
    """Protects the audio of some rows, which may be paths, for `Dataset.map`; pickled without the key."""

    def __init__(self, protector: Protector) -> None:
        self._protector = protector

    @discreet
    def __call__(self, table: pa.Table, rows: list[int]) -> pa.Table:
        import pyarrow as pa  # noqa: PLC0415

        labels = table.column(str(self._protector.label)).to_pylist()
        left: list[str] = []
        for name in self._protector.audio:
            of = "" if len(self._protector.audio) == 1 else f" of {name!r}"
            names = [f"row {row}{of}" for row in rows]
            index = table.schema.get_field_index(name)
            field = table.schema.field(index)
            held = table.column(index).to_pylist()
            entries = [_with_bytes(entry, name) for entry, name in zip(held, names, strict=True)]
            found, reasons = self._protector.protect_usable(entries, labels, names)
            # What is left stays a path if it was one.
            found = [old if new is entry else new for new, entry, old in zip(found, entries, held, strict=True)]
            left += reasons
            with said(f"The audio of {names[0]} to {names[-1]} cannot be written", "pass a smaller batch_size"):
                table = table.set_column(index, field, pa.array(found, field.type))
        if self._protector.skip_unusable:
            table = table.append_column(_LEFT, pa.array([left, *[[]] * (len(rows) - 1)], pa.list_(pa.string())))
        return table


def _with_bytes(entry: dict[str, Any] | None, name: str) -> dict[str, Any] | None:
    """An entry with the bytes of the file that its path leads to, if it has but that."""
    from datasets.utils.file_utils import xopen  # noqa: PLC0415

    if entry is None or entry["bytes"] is not None or entry["path"] is None:
        return entry
    path = entry["path"]
    try:
        with xopen(path, "rb") as file:
            return {"bytes": file.read(), "path": os.path.basename(path.partition("::")[0])}
    except OSError as error:
        relative = " from the folder that the paths are relative to" if not os.path.isabs(path) else ""
        raise type(error)(
            f"The audio of {name} is at {path}, which cannot be read ({error.strerror or type(error).__name__}); put "
            f"the file back, or run this{relative or ' where it is'}."
        ) from None
