"""PyTorch: a data set and a collate function that protect what they give out; torch itself is never imported."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from poscuda_fast.arrays.memory import protect
from poscuda_fast.key import Key
from poscuda_fast.mark.labels import check_classes
from poscuda_fast.protector import Protector, plain_entries
from poscuda_fast.recipe import Recipe


class ProtectedDataset:
    """A map-style data set whose waveforms are protected when an item is asked for.

    Workers of a DataLoader get it by pickle, without the key; each reads the key file for itself.

    Parameters
    ----------
    dataset
        Anything with `__len__` and `__getitem__` that gives tuples, lists or dicts with a waveform and a label.
    key_file, recipe, classes
        As for `Protector`.
    label : int or str
        Where in an item the label is: a place in a tuple or list, or a key of a dict. It is 2 for torchaudio's
        SPEECHCOMMANDS, whose items are (waveform, sample rate, label, speaker, utterance number).
    audio : int or str
        Where the waveform is: a CPU tensor of int16 or float32, (n_frames,) or (n_channels, n_frames), as torchaudio
        gives it.

    Raises
    ------
    TypeError, ValueError
        As for `Protector`.
    """

    def __init__(
        self,
        dataset: Any,
        key_file: str | os.PathLike[str],
        *,
        label: int | str,
        audio: int | str = 0,
        recipe: Recipe = Recipe.strong(),
        classes: Sequence[str] | None = None,
    ) -> None:
        self._dataset = dataset
        self._protector = Protector(key_file, recipe=recipe, classes=classes)
        self._audio, self._label = audio, label

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: Any) -> Any:
        """The item with a protected copy of its waveform; it keeps its type, and the data set's own is not changed.

        Raises
        ------
        KeyError
            The item has nothing at `audio` or `label`.
        TypeError
            The item or its waveform is of another kind, wants gradients or is on a GPU; or as for `protect`.
        ValueError
            The waveform has another number of dimensions; or as for `protect`.
        """
        item = self._dataset[index]
        waveform = _waveform(item, self._audio, (1, 2))
        if waveform.is_cuda:
            raise TypeError("The waveform is on a GPU; give out CPU tensors, or protect batches with ProtectCollate.")
        waveform = waveform.clone()
        # torchaudio has channels first; as a view with frames first it is marked in the tensor's own memory.
        clip = waveform.numpy().T
        clip[...] = self._protector.protect([clip], [_field(item, self._label, "label")])[0]
        return _changed(item, self._audio, waveform)


class ProtectCollate:
    """A collate function that protects each batch, on the CPU or on a CUDA device, wherever it is.

    Parameters
    ----------
    key_file, recipe, classes
        As for `Protector`.
    label : int or str
        Where in a batch the labels are: a place in a tuple or list, or a key of a dict. It is 2 for batches of
        (waveforms, sample rates, labels).
    audio : int or str
        Where the waveforms are: a tensor of int16 or float32, (n, n_frames) or (n, n_channels, n_frames).
    lengths : int or str, optional
        Where the true lengths in frames are; frames behind them are padding and stay.
    collate : callable, optional
        Makes the batch of a list of items. By default items are batches already, as in a training loop.

    Raises
    ------
    TypeError, ValueError
        `classes` that are no sequence of different names.
    """

    def __init__(
        self,
        key_file: str | os.PathLike[str],
        *,
        label: int | str,
        audio: int | str = 0,
        lengths: int | str | None = None,
        collate: Callable[[Any], Any] | None = None,
        recipe: Recipe = Recipe.strong(),
        classes: Sequence[str] | None = None,
    ) -> None:
        self._key_file = os.path.abspath(key_file)
        self._key: Key | None = None
        self._recipe, self._collate = recipe, collate
        self._classes = None if classes is None else check_classes(classes)
        self._audio, self._label, self._lengths = audio, label, lengths

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_key": None}

    def __call__(self, items: Any) -> Any:
        """The batch with a protected copy of its waveforms; it keeps its type, and what came in is not changed.

        Raises
        ------
        KeyError
            The batch has nothing at `audio`, `label` or `lengths`.
        TypeError
            The batch or its waveforms are of another kind, or want gradients; or as for `protect`.
        ValueError
            The waveforms have another number of dimensions; or as for `protect`.
        OSError, KeyFileError
            On the first batch, if the key file cannot be read.
        """
        batch = items if self._collate is None else self._collate(items)
        if self._key is None:
            self._key = Key.load(self._key_file)
        # Always a copy: a batch that a data set holds would be marked again in each epoch.
        waveforms = _waveform(batch, self._audio, (2, 3)).clone()
        labels = plain_entries(_field(batch, self._label, "label"), f"label={self._label!r}")
        lengths = None
        if self._lengths is not None:
            lengths = np.array(plain_entries(_field(batch, self._lengths, "lengths"), f"lengths={self._lengths!r}"))
        frames_first = waveforms.transpose(1, 2) if waveforms.ndim == 3 else waveforms
        if waveforms.is_cuda:
            clips = frames_first.contiguous()
            self._protect(clips, labels, lengths)
            frames_first.copy_(clips)
        else:
            self._protect(frames_first.numpy(), labels, lengths)
        return _changed(batch, self._audio, waveforms)

    def _protect(self, clips: Any, labels: list[Any], lengths: Any) -> None:
        options: dict[str, Any] = {"recipe": self._recipe, "classes": self._classes, "lengths": lengths, "threads": 1}
        protect(clips, labels, self._key, **options)  # type: ignore[arg-type]


def _field(item: Any, place: int | str, argument: str) -> Any:
    """What an item or a batch has at a place or key."""
    if not isinstance(item, tuple | list | Mapping):
        raise TypeError(
            f"An item or batch is a {type(item).__name__}; expected a tuple, list or dict with a waveform and a label."
        )
    try:
        return item[place]  # type: ignore[index]
    except (LookupError, TypeError):
        held = f"the keys {list(item)}" if isinstance(item, Mapping) else f"{len(item)} places"
        raise KeyError(f"{argument} is {place!r}, but the {type(item).__name__} has {held}; say where it is.") from None


def _waveform(item: Any, place: int | str, dimensions: tuple[int, int]) -> Any:
    """The tensor of samples in an item or batch, if it can be protected."""
    found = _field(item, place, "audio")
    if not hasattr(found, "requires_grad"):
        raise TypeError(
            f"audio={place!r} is a {type(found).__name__}; expected a tensor of samples. Say where it is, or make one "
            f"with torch.from_numpy."
        )
    if str(found.dtype) not in ("torch.int16", "torch.float32"):
        raise TypeError(
            f"The waveform has dtype {found.dtype}; int16 and float32 samples are protected. Convert it first, for "
            f"example with waveform.float()."
        )
    if found.requires_grad:
        raise TypeError("The waveform wants gradients, which do not go through protection; give waveform.detach().")
    if found.ndim not in dimensions:
        raise ValueError(
            f"The waveform has shape {tuple(found.shape)}; expected {dimensions[0]} or {dimensions[1]} dimensions, "
            f"frames last."
        )
    if found.device.type not in ("cpu", "cuda"):
        raise TypeError(f"The waveform is on the device {found.device}; expected cpu or cuda. Move it there first.")
    return found


def _changed(item: Any, place: int | str, waveform: Any) -> Any:
    """An item or batch of the same type with another waveform."""
    if isinstance(item, tuple):
        parts = list(item)
        parts[place] = waveform  # type: ignore[index]
        return type(item)(*parts) if hasattr(item, "_fields") else tuple(parts)
    changed = copy.copy(item)
    changed[place] = waveform
    return changed
