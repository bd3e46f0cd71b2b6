"""The batch function that frameworks send to their workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.arrays.memory import mark_batch
from poscuda_fast.errors import AudioFileError, DatasetError, warn_of_unprotected
from poscuda_fast.files.in_memory import Blob, holds_sound, protect_usable, refuse_unusable
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key
from poscuda_fast.mark.labels import check_classes, encode
from poscuda_fast.recipe import Recipe, check_rate
from poscuda_fast.secrecy import discreet

_WAY_OUT = "drop such rows first, or leave them as they are, with skip_unusable=True."
Labeller = Callable[[Mapping[str, Any], int], "str | int"]


class Protector:
    """A callable that takes a batch, a dict of columns, and returns it with its audio protected.

    It can be pickled and sent to workers: it carries the path of the key file, not the key, and each process reads
    that file itself. A clip's protected form depends only on the key, the recipe, the clip, its label and its sample
    rate, so batches may have any size and run anywhere: the bytes are those of `protect_folder` and `protect`, which
    also judge beforehand whether the mark would protect the data; a batch is not judged. Each batch uses one thread,
    since frameworks start a worker for each core. The batch that comes in is not changed, and no undo is kept: keep
    your source data. There is no `share` here: it is by their names in a whole data set that clips are chosen.

    Parameters
    ----------
    key_file : path
        A file that `Key.save` wrote; every worker must be able to read it at this path.
    recipe : Recipe
        From `Recipe.strong` or `Recipe.paper`.
    classes : sequence of str, optional
        Class names that integer labels index; a class's mark then depends on its name, not on its number.
    audio : str or sequence of str
        The column of audio, or all of them if there are several, such as those of two microphones; each is marked for
        its row's label. An entry is the bytes of an audio file; a dict with "bytes" and optionally "path" (datasets,
        Parquet), or with "array" and "sampling_rate"; or an array of int16 or float32 samples, (n_frames,) or
        (n_frames, n_channels).
    label : str or callable
        The column of labels, or a function of (batch, number) that returns the label of one entry. It gets the batch
        unchanged; index a pandas Series in it by position, with `iloc`.
    lossy : str
        What to do with MP3 and Ogg: "refuse" them, or turn them into 16-bit "flac".
    sample_rate : int, optional
        Sample rate in Hz, from 2,000 to 512,000, of arrays that come without a "sampling_rate"; 16,000 is assumed if
        this is not given. Files tell their own. Format 1 has no use for it.
    skip_unusable : bool
        Leave as they are files that cannot be marked, entries without audio, and columns of audio that `audio` does not
        name; they are counted, and an `UnprotectedWarning` names them. Otherwise they are refused.

    Attributes
    ----------
    unprotected : int
        How many entries and columns `skip_unusable` has left unprotected so far, in this process.

    Raises
    ------
    TypeError
        `key_file` is a Key or not a path, `recipe` is not a Recipe, `classes` is not a sequence of names, `audio` is
        not a name or names, or `sample_rate` is not a whole number.
    ValueError
        `classes` or `audio` has a name twice, `lossy` is neither "refuse" nor "flac", or `sample_rate` is out of range.
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
        audio: str | Sequence[str] = "audio",
        label: str | Labeller = "label",
        lossy: str = "refuse",
        sample_rate: int | None = None,
        skip_unusable: bool = False,
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
        self.audio = check_columns(audio)
        self.label = label
        self.lossy = lossy
        self.sample_rate = None if sample_rate is None else check_rate(sample_rate)
        self.skip_unusable = skip_unusable
        self.unprotected = 0
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
            An entry's audio or label cannot be used (the message says which entries), or `batch` is a table instead of
            a dict.
        DatasetError
            Another column holds audio too, by the first entry that is not null.

        Warns
        -----
        UnprotectedWarning
            `skip_unusable` left something unprotected.
        """
        if not isinstance(batch, Mapping):
            raise TypeError(
                f"The batch is a {type(batch).__name__}; expected a dict of columns. Give dict(frame) of a pandas "
                f"DataFrame, or table.to_pydict() of an Arrow table."
            )
        columns = {name: _column(batch, name) for name in self.audio}
        left = self._unnamed(batch)
        result = dict(batch)
        for name, column in columns.items():
            of_column = "" if len(columns) == 1 else f" of {name!r}"
            result[name], reasons = self.protect_usable(column, self._labels(batch, column), of=of_column)
            left += reasons
        self.warn(left)
        return result

    @discreet
    def protect(self, column: Any, labels: Any, names: Sequence[str] | None = None) -> Any:
        """Return a column of audio protected; a NumPy array stays one, anything else becomes a list.

        `names` are what messages call entries that have no path: by default "entry 0" and so on.
        """
        found, left = self.protect_usable(column, labels, names)
        self.warn(left)
        return found

    @discreet
    def warn(self, left: Sequence[str]) -> None:
        """Count what was left unprotected, and warn of it."""
        self.unprotected += len(left)
        warn_of_unprotected(left, len(left), f"a batch ({self.unprotected:,} so far)")

    @discreet
    def protect_usable(
        self, column: Any, labels: Any, names: Sequence[str] | None = None, *, of: str = ""
    ) -> tuple[Any, list[str]]:
        """As `protect`, without a warning: the column, and why each entry was left that `skip_unusable` leaves."""
        labels = plain_entries(labels, "The column of labels")
        if isinstance(column, np.ndarray) and column.dtype != object:
            return self._protect_arrays(column, labels), []
        entries = _entries(column, f"The column {self.audio[0]!r}")
        encode(labels, self.classes, len(entries))  # here, where messages give indexes in the whole batch
        names = [f"entry {n}{of}" for n in range(len(entries))] if names is None else names
        found: list[Any] = list(entries)
        without = [n for n, entry in enumerate(entries) if _is_empty(entry)]
        blobs = {n: blob for n, entry in enumerate(entries) if (blob := _blob_of(entry, names[n])) is not None}
        others = sorted({*range(len(entries))}.difference(blobs, without))
        clips = {n: _clip_of(entries[n], names[n]) for n in others}
        left = [f"{names[n]} has no audio, neither a file's bytes nor samples; {_WAY_OUT}" for n in without]
        edited = self._protect_blobs(list(blobs.values()), [labels[n] for n in blobs])
        for n, one in zip(blobs, edited, strict=True):
            if isinstance(one, Blob):
                found[n] = _like(entries[n], one)
            else:
                left.append(str(one))
        if not self.skip_unusable:
            refuse_unusable(left)
        for rate, some in self._by_rate({n: entries[n] for n in clips}).items():
            self._protect_clips([clips[n] for n in some], [labels[n] for n in some], rate)
        for n, clip in clips.items():
            found[n] = {**entries[n], "array": clip} if isinstance(entries[n], Mapping) else clip
        if isinstance(column, np.ndarray):
            as_objects = np.empty(len(found), object)
            as_objects[:] = found
            return as_objects, left
        return found, left

    def _unnamed(self, batch: Mapping[str, Any]) -> list[str]:
        """A sentence for each column of audio that is not to be protected; DatasetError unless they may be skipped."""
        others = [name for name in batch if name not in self.audio and holds_sound(_first(batch[name]))]
        if others and not self.skip_unusable:
            raise DatasetError(unnamed_columns(others, self.audio))
        return [f"The column {name!r} holds audio, and was not named." for name in others]

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

    def _protect_blobs(self, blobs: list[Blob], labels: Any) -> list[Blob | AudioFileError]:
        if not blobs:
            return []
        key, engine = self._open()
        return protect_usable(blobs, labels, key, self.recipe, engine, lossy=self.lossy, classes=self.classes)

    def _open(self) -> tuple[Key, Engine]:
        if self._opened is None:
            self._opened = Key.load(self.key_file), Engine(threads=1)
        return self._opened

    def _labels(self, batch: Mapping[str, Any], column: Any) -> Any:
        if callable(self.label):
            entries = _entries(column, f"The column {self.audio[0]!r}")
            return [self.label(batch, number) for number in range(len(entries))]
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


def check_columns(audio: Any) -> tuple[str, ...]:
    """The names of the columns of audio; TypeError or ValueError unless they are one name or several."""
    names = (audio,) if isinstance(audio, str) else tuple(audio) if isinstance(audio, Sequence) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(f"audio is {audio!r}; expected the name of the column of audio, or a sequence of names.")
    if len(set(names)) != len(names):
        raise ValueError(f"audio names a column twice: {list(names)}; give each one once.")
    return names


def unnamed_columns(others: Sequence[str], audio: Sequence[str]) -> str:
    """The sentence that refuses columns of audio that `audio` does not name."""
    hold = "holds" if len(others) == 1 else "hold"
    return (
        f"audio is {_quoted(audio)}, but {_quoted(others)} {hold} audio too and would stay unprotected; pass "
        f"audio={[*audio, *others]!r} to protect all of them, drop the columns that are not needed, or leave them as "
        f"they are, with skip_unusable=True."
    )


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _is_empty(entry: Any) -> bool:
    """Whether an entry has no audio: null, or a dict whose bytes or samples are null."""
    if isinstance(entry, Mapping):
        return ("bytes" in entry or "array" in entry) and entry.get("bytes") is None and entry.get("array") is None
    return entry is None


def _first(column: Any) -> Any:
    """The first entry of a column that is not null; None if there is none, or the column holds numbers or text."""
    if isinstance(column, str | bytes) or not isinstance(column, Iterable):
        return None
    if getattr(column, "ndim", 1) != 1 or getattr(getattr(column, "dtype", None), "kind", "O") not in "OSV":
        return None
    plain = (entry.as_py() if hasattr(entry, "as_py") else entry for entry in column)
    return next((entry for entry in plain if not _is_empty(entry)), None)


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
