"""Hugging Face datasets: audio files as bytes in, as bytes out, everything else as it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from poscuda_fast.key import Key
from poscuda_fast.protector import Protector
from poscuda_fast.recipe import Recipe

if TYPE_CHECKING:
    import datasets


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
    """A protected copy of a data set of audio files.

    The files are never decoded by `datasets` (so that torchcodec is not needed): WAV files change in their patches
    only, FLAC and other lossless ones keep format and subtype. Rows that hold a path get the bytes of the file behind
    it.

    Parameters
    ----------
    dataset : datasets.Dataset or DatasetDict
        With a column of the feature `Audio`; each split of a DatasetDict is protected with the same marks.
    key_file, recipe, lossy
        As for `Protector`.
    audio, label : str
        The columns of audio and of labels. A `ClassLabel` counts by its names, as folders do in `protect_folder`.
    batch_size, num_proc
        As for `Dataset.map`.

    Returns
    -------
    datasets.Dataset or DatasetDict
        With the features, splits and other columns that it came with. The cache of `datasets` tells it from one that is
        made with another key by the key's fingerprint; the key is not in it.

    Raises
    ------
    KeyError
        There is no such column.
    AudioFileError, TypeError, ValueError, KeyFileError, OSError
        As for `Protector`.
    """
    if isinstance(dataset, Mapping):
        options: dict[str, Any] = {
            "recipe": recipe,
            "audio": audio,
            "label": label,
            "lossy": lossy,
            "batch_size": batch_size,
        }
        parts = {name: protect_dataset(part, key_file, num_proc=num_proc, **options) for name, part in dataset.items()}
        return type(dataset)(parts)  # type: ignore[call-arg]
    import datasets  # noqa: PLC0415 - an extra

    for column in (audio, label):
        if column not in dataset.column_names:
            raise KeyError(
                f"The data set has the columns {dataset.column_names}, and none is {column!r}; say which it is."
            )
    features = dataset.features
    names = features[label].names if isinstance(features[label], datasets.ClassLabel) else None
    protector = Protector(key_file, recipe=recipe, classes=names, audio=audio, label=label, lossy=lossy)
    # As plain structs: `datasets` encodes even bytes of the feature Audio through torchcodec.
    plain = features.copy()
    plain[audio] = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    undecoded = dataset.cast(plain)
    run = [dataset._fingerprint, Key.load(key_file).fingerprint, recipe.to_dict(), audio, label, names, lossy]  # noqa: SLF001
    done = undecoded.map(
        _Batches(protector),
        batched=True,
        batch_size=batch_size,
        num_proc=num_proc,
        new_fingerprint=hashlib.sha256(json.dumps(run).encode()).hexdigest()[:16],
        desc="protecting",
    )
    return done.cast(features)


class _Batches:
    """A batch of `datasets`, whose files may be paths only, for `Protector`; picklable without the key."""

    def __init__(self, protector: Protector) -> None:
        self._protector = protector

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        column = self._protector.audio
        filled = {**batch, column: [_with_bytes(entry) for entry in batch[column]]}
        return {column: self._protector(filled)[column]}


def _with_bytes(entry: dict[str, Any]) -> dict[str, Any]:
    if entry["bytes"] is not None:
        return entry
    with open(entry["path"], "rb") as file:
        return {"bytes": file.read(), "path": os.path.basename(entry["path"])}
