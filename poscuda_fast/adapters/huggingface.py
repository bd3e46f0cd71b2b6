"""Hugging Face datasets: protects audio files, bytes in and bytes out; everything else is unchanged."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from poscuda_fast.errors import require
from poscuda_fast.key import Key
from poscuda_fast.mark.labels import encode
from poscuda_fast.protector import Protector
from poscuda_fast.recipe import Recipe
from poscuda_fast.secrecy import discreet

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa


@discreet
def protect_dataset(
    dataset: datasets.Dataset | datasets.DatasetDict,
    key_file: str | os.PathLike[str],
    *,
    recipe: Recipe = Recipe.strong(),
    audio: str = "audio",
    label: str = "label",
    lossy: str = "refuse",
    batch_size: int = 100,
    num_proc: int | None = None,
) -> Any:
    """Make a protected copy of a data set of audio files.

    Rows are read as Arrow, so `datasets` decodes neither the files (torchcodec is not needed) nor any other column. WAV
    files change only in their samples; FLAC and other lossless files keep their format and subtype. A row with a path
    alone gets the bytes of that file, which `datasets` opens: it may be in an archive or at a remote address.

    Parameters
    ----------
    dataset : datasets.Dataset or DatasetDict
        Has a column with the feature `Audio`. All splits of a DatasetDict get the same marks.
    key_file, recipe, lossy
        As for `Protector`.
    audio, label : str
        Names of the columns of audio and of labels. A `ClassLabel` is read as its names, like folders in
        `protect_folder`.
    batch_size, num_proc
        As for `Dataset.map`.

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
        `dataset` is streamed or is not a data set; or the audio column does not have the feature `Audio`.
    ValueError
        A row has no audio.
    AudioFileError, TypeError, ValueError, KeyFileError, OSError
        As for `Protector`; a message names a label by its row.
    """
    require("datasets", "huggingface")
    import datasets  # noqa: PLC0415 - an extra

    if isinstance(dataset, datasets.DatasetDict):
        options: dict[str, Any] = {"recipe": recipe, "audio": audio, "label": label, "lossy": lossy}
        options |= {"batch_size": batch_size, "num_proc": num_proc}
        return datasets.DatasetDict(
            {name: protect_dataset(part, key_file, **options) for name, part in dataset.items()}
        )
    names = _class_names(dataset, audio, label)
    protector = Protector(key_file, recipe=recipe, classes=names, audio=audio, label=label, lossy=lossy)
    files = _files_behind(dataset.data.column(audio))
    run = [dataset._fingerprint, Key.load(key_file).fingerprint, recipe.to_dict(), audio, label, names, lossy, files]  # noqa: SLF001
    done = dataset.with_format("arrow").map(
        _Batches(protector),
        with_indices=True,
        batched=True,
        batch_size=batch_size,
        num_proc=num_proc,
        features=dataset.features,
        new_fingerprint=hashlib.sha256(json.dumps(run).encode()).hexdigest()[:16],
        desc="protecting",
    )
    return done.with_format(**dataset.format)


def _class_names(dataset: Any, audio: str, label: str) -> list[str] | None:
    """The names of a ClassLabel, if it is one; the columns and all labels are checked."""
    import datasets  # noqa: PLC0415

    if not isinstance(dataset, datasets.Dataset):
        raise TypeError(
            f"dataset is a {type(dataset).__name__}; expected a datasets.Dataset or DatasetDict. Load a streamed one "
            f"whole, with load_dataset(..., streaming=False)."
        )
    for column in (audio, label):
        if column not in dataset.column_names:
            raise KeyError(
                f"The data set has the columns {dataset.column_names}, and none is {column!r}; pass the right name as "
                f"audio or label."
            )
    feature, names = dataset.features[audio], getattr(dataset.features[label], "names", None)
    if not isinstance(feature, datasets.Audio):
        raise TypeError(
            f"The column {audio!r} has the feature {feature}; expected Audio. Cast it first, with "
            f"dataset.cast_column({audio!r}, datasets.Audio())."
        )
    # Select this column alone: of chosen or shuffled rows, Arrow would gather the audio too.
    labels = dataset.with_format(None).select_columns([label]).with_format("arrow")[:].column(label).to_pylist()
    encode(labels, names, len(labels))
    return names


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

        index = table.schema.get_field_index(self._protector.audio)
        field = table.schema.field(index)
        held = table.column(index).to_pylist()
        entries = [_with_bytes(entry, row) for entry, row in zip(held, rows, strict=True)]
        labels = table.column(str(self._protector.label)).to_pylist()
        found = self._protector.protect(entries, labels, [f"row {row}" for row in rows])
        return table.set_column(index, field, pa.array(found, field.type))


def _with_bytes(entry: dict[str, Any] | None, row: int) -> dict[str, Any]:
    from datasets.utils.file_utils import xopen  # noqa: PLC0415

    if entry is None or (entry["bytes"] is None and entry["path"] is None):
        raise ValueError(
            f"Row {row} has no audio, neither bytes nor a path; remove such rows first, with dataset.select."
        )
    if entry["bytes"] is not None:
        return entry
    with xopen(entry["path"], "rb") as file:
        return {"bytes": file.read(), "path": os.path.basename(entry["path"].partition("::")[0])}
