"""PyTorch: a data set and a collate function that protect what they give out; torch itself is never imported."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from poscuda_fast.key import Key
from poscuda_fast.memory import protect
from poscuda_fast.protector import Protector
from poscuda_fast.recipe import Recipe


class ProtectedDataset:
    """A map-style data set whose waveforms are protected when an item is asked for.

    Workers of a DataLoader get it by pickle, without the key; each reads the key file for itself.

    Parameters
    ----------
    dataset
        Anything with `__len__` and `__getitem__` that gives tuples or dicts with a waveform and a label.
    key_file, recipe, classes
        As for `Protector`.
    audio, label : int or str
        Where in an item the waveform and the label are: places in a tuple, or keys of a dict. A waveform is a CPU
        tensor of int16 or float32, (n_frames,) or (n_channels, n_frames), as torchaudio gives it.
    """

    def __init__(
        self,
        dataset: Any,
        key_file: str | os.PathLike[str],
        *,
        recipe: Recipe = Recipe.strong(),
        classes: Sequence[str] | None = None,
        audio: int | str = 0,
        label: int | str = -1,
    ) -> None:
        self._dataset = dataset
        self._protector = Protector(key_file, recipe=recipe, classes=classes)
        self._audio, self._label = audio, label

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: Any) -> Any:
        """The item with a protected copy of its waveform; the data set's own is not changed."""
        item = self._dataset[index]
        waveform = item[self._audio].clone()
        # torchaudio has channels first; as a view with frames first it is marked in the tensor's own memory.
        clip = waveform.numpy().T if waveform.ndim == 2 else waveform.numpy()
        clip[...] = self._protector.protect([np.ascontiguousarray(clip)], [_plain(item[self._label])])[0]
        if isinstance(item, dict):
            return {**item, self._audio: waveform}
        parts = list(item)
        parts[self._audio] = waveform  # type: ignore[index]
        return type(item)(*parts) if hasattr(item, "_fields") else tuple(parts)


class ProtectCollate:
    """A collate function that protects each batch, where it is: on the CPU or on a CUDA device.

    Parameters
    ----------
    key_file, recipe, classes
        As for `Protector`.
    collate : callable, optional
        Makes the batch of a list of items, with the waveforms as (n, n_frames) or (n, n_channels, n_frames) at place or
        key `audio` and the labels at `label`. By default items are batches already, as in a training loop.
    lengths : int or str, optional
        Where the true lengths in frames are; frames behind them are padding and stay.
    audio, label : int or str
        As for `ProtectedDataset`.
    """

    def __init__(
        self,
        key_file: str | os.PathLike[str],
        *,
        recipe: Recipe = Recipe.strong(),
        classes: Sequence[str] | None = None,
        collate: Callable[[Any], Any] | None = None,
        audio: int | str = 0,
        label: int | str = 1,
        lengths: int | str | None = None,
    ) -> None:
        self._key_file = os.path.abspath(key_file)
        self._key: Key | None = None
        self._recipe, self._collate = recipe, collate
        self._classes = None if classes is None else list(classes)
        self._audio, self._label, self._lengths = audio, label, lengths

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_key": None}

    def __call__(self, items: Any) -> Any:
        """The batch, its waveforms protected in place."""
        batch = items if self._collate is None else self._collate(items)
        if self._key is None:
            self._key = Key.load(self._key_file)
        waveforms = batch[self._audio]
        labels = [_plain(label) for label in batch[self._label]]
        lengths = None if self._lengths is None else np.array([int(n) for n in batch[self._lengths]], np.int64)
        frames_first = waveforms.transpose(1, 2) if waveforms.ndim == 3 else waveforms
        if waveforms.is_cuda:
            clips = frames_first.contiguous()
            self._protect(clips, labels, lengths)
            frames_first.copy_(clips)
        else:
            self._protect(frames_first.numpy(), labels, lengths)
        return batch

    def _protect(self, clips: Any, labels: list[Any], lengths: Any) -> None:
        options: dict[str, Any] = {"recipe": self._recipe, "classes": self._classes, "lengths": lengths, "threads": 1}
        protect(clips, labels, self._key, **options)  # type: ignore[arg-type]


def _plain(label: Any) -> Any:
    """A label out of its tensor."""
    return label.item() if hasattr(label, "item") else label
