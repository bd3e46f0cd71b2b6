"""The batch function that frameworks send to their workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.arrays.memory import mark_batch
from poscuda_fast.files.in_memory import Blob, protect_blobs
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key
from poscuda_fast.mark.labels import check_classes, encode
from poscuda_fast.recipe import Recipe, check_rate
from poscuda_fast.secrecy import discreet

Labeller = Callable[[Mapping[str, Any], int], "str | int"]


class Protector:
    """A callable that takes a batch, a dict of columns, and returns it with its audio protected.

    It can be pickled and sent to workers: it carries the path of the key file, not the key, and each process reads
    that file itself. A clip's protected form depends only on the key, the recipe, the clip, its label and its sample
    rate, so batches may have any size and run anywhere: the bytes are those of `protect_folder` and `protect`, which
    also judge beforehand whether the mark would protect the data; a batch is not judged. Each batch uses one thread,
    since frameworks start a worker for each core. The batch that comes in is not changed, and no undo is kept: keep
    your source data.

    Parameters
    ----------
    key_file : path
        A file that `Key.save` wrote; every worker must be able to read it at this path.
    recipe : Recipe
        From `Recipe.strong` or `Recipe.paper`.
    classes : sequence of str, optional
        Class names that integer labels index; a class's mark then depends on its name, not on its number.
    audio : str
        The column of audio. Each entry is the bytes of an audio file; a dict with "bytes" and optionally "path"
        (datasets, Parquet), or with "array" and "sampling_rate"; or an array of int16 or float32 samples,
        (n_frames,) or (n_frames, n_channels).
    label : str or callable
        The column of labels, or a function of (batch, number) that returns the label of one entry. It gets the batch
        unchanged; index a pandas Series in it by position, with `iloc`.
    lossy : str
        What to do with MP3 and Ogg: "refuse" them, or turn them into 16-bit "flac".
    sample_rate : int, optional
        Sample rate in Hz, from 2,000 to 512,000, of arrays that come without a "sampling_rate"; 16,000 is assumed if
        this is not given. Files tell their own. Format 1 has no use for it.

    Raises
    ------
    TypeError
        `key_file` is a Key or not a path, `recipe` is not a Recipe, `classes` is not a sequence of names, or
        `sample_rate` is not a whole number.
    ValueError
        `classes` has a name twice, `lossy` is neither "refuse" nor "flac", or `sample_rate` is out of range.
    OSError, KeyFileError
        On the first batch, if the key file cannot be read there.
    """

    @discreet
    def __init__(
        self,
        key_file: str | os.PathLike[str],
        *,
        recipe: Recipe = Recipe.strong(),
        classes: Sequence[str] | None = None,
        audio: str = "audio",
        label: str | Labeller = "label",
        lossy: str = "refuse",
        sample_rate: int | None = None,
    ) -> None:
        if isinstance(key_file, Key):
            raise TypeError("key_file is a Key, which never leaves its process; give the path of its key file.")
        if not isinstance(recipe, Recipe):
            raise TypeError(f"recipe is {recipe!r}; expected Recipe.strong(...) or Recipe.paper(...).")
        if lossy not in ("refuse", "flac"):
            raise ValueError(f"lossy is {lossy!r}; expected 'refuse' or 'flac'.")
        self.key_file = os.path.abspath(key_file)
        self.recipe = recipe
        self.classes = None if classes is None else check_classes(classes)
        self.audio = audio
        self.label = label
        self.lossy = lossy
        self.sample_rate = None if sample_rate is None else check_rate(sample_rate)
        self._opened: tuple[Key, Engine] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __repr__(self) -> str:
        return f"Protector({self.key_file!r}, recipe={self.recipe!r}, audio={self.audio!r})"

    @discreet
    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the batch with its audio protected; other columns, and `batch` itself, are not changed.

        Parameters
        ----------
        batch : dict of columns
            Arrays, lists, pandas Series, tensors or Arrow arrays. Labels and audio are matched by position, whatever
            the index of a Series.

        Returns
        -------
        dict of columns
            The audio is a NumPy array if it came as one, otherwise a list.

        Raises
        ------
        KeyError
            The batch lacks the column of audio or of labels.
        AudioFileError, TypeError, ValueError
            An entry's audio or label cannot be used (the message says which entry), or `batch` is a table instead of a
            dict.
        """
        if not isinstance(batch, Mapping):
            raise TypeError(
                f"The batch is a {type(batch).__name__}; expected a dict of columns. Give dict(frame) of a pandas "
                f"DataFrame, or table.to_pydict() of an Arrow table."
            )
        column = _column(batch, self.audio)
        result = dict(batch)
        result[self.audio] = self.protect(column, self._labels(batch, column))
        return result

    @discreet
    def protect(self, column: Any, labels: Any, names: Sequence[str] | None = None) -> Any:
        """Return a column of audio protected; a NumPy array stays one, anything else becomes a list.

        `names` are what messages call entries that have no path: by default "entry 0" and so on.
        """
        labels = plain_entries(labels, "The column of labels")
        if isinstance(column, np.ndarray) and column.dtype != object:
            return self._protect_arrays(column, labels)
        entries = _entries(column, f"The column {self.audio!r}")
        encode(labels, self.classes, len(entries))  # here, where messages give indexes in the whole batch
        names = [f"entry {n}" for n in range(len(entries))] if names is None else names
        found: list[Any] = [None] * len(entries)
        blobs = {n: blob for n, entry in enumerate(entries) if (blob := _blob_of(entry, names[n])) is not None}
        clips = {n: _clip_of(entry, names[n]) for n, entry in enumerate(entries) if n not in blobs}
        edited = self._protect_blobs(list(blobs.values()), [labels[n] for n in blobs])
        for n, blob in zip(blobs, edited, strict=True):
            found[n] = _like(entries[n], blob)
        for rate, some in self._by_rate({n: entries[n] for n in clips}).items():
            self._protect_clips([clips[n] for n in some], [labels[n] for n in some], rate)
        for n, clip in clips.items():
            found[n] = {**entries[n], "array": clip} if isinstance(entries[n], Mapping) else clip
        if isinstance(column, np.ndarray):
            as_objects = np.empty(len(found), object)
            as_objects[:] = found
            return as_objects
        return found

    def _protect_arrays(self, column: NDArray[Any], labels: Any) -> NDArray[Any]:
        clips = column.copy()
        self._protect_clips(clips, labels, self.sample_rate)
        return clips

    def _by_rate(self, entries: Mapping[int, Any]) -> dict[int | None, list[int]]:
        """The numbers of the entries at each sample rate; all together in format 1, for which it does not matter."""
        found: dict[int | None, list[int]] = {}
        for number, entry in entries.items():
            said = entry.get("sampling_rate") if isinstance(entry, Mapping) and self.recipe.format != 1 else None
            found.setdefault(self.sample_rate if said is None else said, []).append(number)
        return found

    def _protect_clips(self, clips: Any, labels: Any, sample_rate: int | None) -> None:
        if len(clips):
            key, engine = self._open()
            mark_batch(
                clips, labels, key, recipe=self.recipe, engine=engine, sample_rate=sample_rate, classes=self.classes
            )

    def _protect_blobs(self, blobs: list[Blob], labels: Any) -> list[Blob]:
        if not blobs:
            return []
        key, engine = self._open()
        return protect_blobs(blobs, labels, key, self.recipe, engine, lossy=self.lossy, classes=self.classes)

    def _open(self) -> tuple[Key, Engine]:
        if self._opened is None:
            self._opened = Key.load(self.key_file), Engine(threads=1)
        return self._opened

    def _labels(self, batch: Mapping[str, Any], column: Any) -> Any:
        if callable(self.label):
            return [self.label(batch, number) for number in range(len(_entries(column, f"The column {self.audio!r}")))]
        return _column(batch, self.label)


@discreet
def label_of_folder(batch: Mapping[str, Any], number: int) -> str:
    """The name of the folder that an entry's `path` lies in: the default label of `protect_folder`."""
    paths = _column(batch, "path")
    path = str(paths.iloc[number] if hasattr(paths, "iloc") else paths[number])
    folder = os.path.basename(os.path.dirname(path))
    if not folder:
        raise ValueError(f"{path!r} lies in no folder that names its class; give labels another way.")
    return folder


def _column(batch: Mapping[str, Any], name: str) -> Any:
    if name not in batch:
        raise KeyError(f"The batch has no column {name!r}; say which of {list(batch)} to use.")
    return batch[name]


def _entries(column: Any, name: str) -> list[Any]:
    """A column's entries in order, as plain Python objects rather than tensors' or Arrow's scalars."""
    if hasattr(column, "to_pylist"):
        return list(column.to_pylist())
    dimensions = getattr(column, "ndim", 1)
    if not (isinstance(column, Iterable) and dimensions) or isinstance(column, str | bytes | bytearray | Mapping | Set):
        raise TypeError(f"{name} is a {type(column).__name__}; expected a sequence with one entry for each clip.")
    return list(column.tolist() if dimensions == 1 and hasattr(column, "tolist") else column)


def plain_entries(column: Any, name: str) -> list[Any]:
    """Labels or lengths as plain Python objects; a list may hold each as a tensor or array of one element."""
    return [entry.tolist() if hasattr(entry, "tolist") else entry for entry in _entries(column, name)]


def _blob_of(entry: Any, name: str) -> Blob | None:
    """The audio file that an entry holds; None if it holds samples."""
    held = entry.get("bytes") if isinstance(entry, Mapping) else entry
    if not isinstance(held, bytes | bytearray | memoryview):
        return None
    path = entry.get("path") if isinstance(entry, Mapping) else None
    return Blob(str(path) if path else name, bytes(held))


def _clip_of(entry: Any, name: str) -> NDArray[Any]:
    """A copy of the samples that an entry holds."""
    samples = entry.get("array") if isinstance(entry, Mapping) else entry
    if not isinstance(samples, np.ndarray):
        raise TypeError(
            f"The audio of {name} is a {type(entry).__name__}; expected the bytes of an audio file, a dict with them, "
            f"or an array of samples."
        )
    return samples.copy()


def _like(entry: Any, blob: Blob) -> Any:
    """An edited file in the form that its entry had."""
    if not isinstance(entry, Mapping):
        return blob.data
    path = entry.get("path")
    return {**entry, "bytes": blob.data, **({"path": blob.name} if path else {})}
