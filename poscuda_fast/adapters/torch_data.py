"""PyTorch: a data set and a collate function that protect what they return; torch itself is never imported."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from poscuda_fast.arrays.memory import mark_batch
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key
from poscuda_fast.mark.labels import check_classes
from poscuda_fast.protector import Protector, plain_entries
from poscuda_fast.recipe import Recipe, check_rate
from poscuda_fast.secrecy import discreet


class ProtectedDataset:
    """A map-style data set that protects each item's waveform when the item is read.

    It is pickled to the workers of a DataLoader without the key; each worker reads the key file itself.

    Parameters
    ----------
    dataset
        Anything with `__len__` and `__getitem__` that returns tuples, lists or dicts with a waveform and a label.
    key_file, recipe, classes
        As for `Protector`.
    sample_rate : int, optional
        Sample rate of all waveforms in Hz; 16,000 is assumed if this is not given.
    label : int or str
        Where the label is in an item: an index into a tuple or list, or a key of a dict. For torchaudio's
        SPEECHCOMMANDS it is 2: its items are (waveform, sample rate, label, speaker, utterance number).
    audio : int or str
        Where the waveform is: a CPU tensor of int16 or float32, (n_frames,) or (n_channels, n_frames), as in
        torchaudio.
    skip_unusable : bool
        Give out as they are items whose waveform has another dtype, with an `UnprotectedWarning` for each. Otherwise
        they are refused.

    Raises
    ------
    TypeError, ValueError
        As for `Protector`.
    """

    @discreet
    def __init__(
        self,
        dataset: Any,
        key_file: str | os.PathLike[str],
        *,
        label: int | str,
        audio: int | str = 0,
        recipe: Recipe = Recipe.strong(),
        classes: Sequence[str] | None = None,
        sample_rate: int | None = None,
        skip_unusable: bool = False,
    ) -> None:
        self._dataset = dataset
        self._protector = Protector(
            key_file, recipe=recipe, classes=classes, sample_rate=sample_rate, skip_unusable=skip_unusable
        )
        self._audio, self._label = audio, label

    @discreet
    def __len__(self) -> int:
        return len(self._dataset)

    @discreet
    def __getitem__(self, index: Any) -> Any:
        """The item with a protected copy of its waveform. Its type is kept; the data set's own waveform is unchanged.

        Raises
        ------
        KeyError
            The item has nothing at `audio` or `label`.
        TypeError
            The item or its waveform has another type, requires gradients or is on a GPU; or as for `protect`.
        ValueError
            The waveform has another number of dimensions; or as for `protect`.
        """
        item = self._dataset[index]
        held = _tensor(item, self._audio)
        if self._protector.skip_unusable and not _is_markable(held):
            self._protector.warn([f"Item {index!r} has a waveform of dtype {held.dtype}."])
            return item
        waveform = _waveform(item, self._audio, (1, 2))
        if waveform.is_cuda:
            raise TypeError("The waveform is on a GPU; return CPU tensors, or protect batches with ProtectCollate.")
        waveform = waveform.clone()
        # torchaudio puts channels first; marking a view with frames first edits the tensor's own memory.
        clip = waveform.numpy().T
        clip[...] = self._protector.protect([clip], [_field(item, self._label, "label")])[0]
        return _changed(item, self._audio, waveform)


class ProtectCollate:
    """A collate function that protects each batch where it is, on the CPU or a CUDA device.

    Parameters
    ----------
    key_file, recipe, classes
        As for `Protector`.
    sample_rate : int, optional
        Sample rate of all waveforms in Hz; 16,000 is assumed if this is not given.
    label : int or str
        Where the labels are in a batch: an index into a tuple or list, or a key of a dict. It is 2 for batches of
        (waveforms, sample rates, labels).
    audio : int or str
        Where the waveforms are: a tensor of int16 or float32, (n, n_frames) or (n, n_channels, n_frames).
    lengths : int or str, optional
        Where the true lengths in frames are; frames beyond them are padding and stay unchanged.
    collate : callable, optional
        Makes a batch from a list of items. By default the input is a batch already, as in a training loop.

    Raises
    ------
    TypeError, ValueError
        `classes` is not a sequence of distinct names.
    """

    @discreet
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
        sample_rate: int | None = None,
    ) -> None:
        self._key_file = os.path.abspath(key_file)
        self._key: Key | None = None
        self._recipe, self._collate = recipe, collate
        self._rate = None if sample_rate is None else check_rate(sample_rate)
        self._classes = None if classes is None else check_classes(classes)
        self._audio, self._label, self._lengths = audio, label, lengths

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_key": None}

    @discreet
    def __call__(self, items: Any) -> Any:
        """The batch with a protected copy of its waveforms. Its type is kept; the input is unchanged.

        Raises
        ------
        KeyError
            The batch has nothing at `audio`, `label` or `lengths`.
        TypeError
            The batch or its waveforms have another type, or require gradients; or as for `protect`.
        ValueError
            The waveforms have another number of dimensions; or as for `protect`.
        OSError, KeyFileError
            On the first batch, if the key file cannot be read.
        """
        batch = items if self._collate is None else self._collate(items)
        if self._key is None:
            self._key = Key.load(self._key_file)
        # Always copy: a batch that the data set keeps would be marked again in each epoch.
        waveforms = _waveform(batch, self._audio, (2, 3)).clone()
        labels = plain_entries(_field(batch, self._label, "label"), f"label={self._label!r}")
        lengths = None
        if self._lengths is not None:
            lengths = np.array(plain_entries(_field(batch, self._lengths, "lengths"), f"lengths={self._lengths!r}"))
        frames_first = waveforms.transpose(1, 2) if waveforms.ndim == 3 else waveforms
        if waveforms.is_cuda:
            clips = frames_first.contiguous()
            self._protect(clips, labels, lengths, Engine(on_device=True))
            frames_first.copy_(clips)
        else:
            self._protect(frames_first.numpy(), labels, lengths, Engine(threads=1))
        return _changed(batch, self._audio, waveforms)

    def _protect(self, clips: Any, labels: list[Any], lengths: Any, engine: Engine) -> None:
        options: dict[str, Any] = {"recipe": self._recipe, "classes": self._classes, "lengths": lengths}
        mark_batch(clips, labels, self._key, engine=engine, sample_rate=self._rate, **options)  # type: ignore[arg-type]


def _field(item: Any, place: int | str, argument: str) -> Any:
    """The entry of an item or batch at an index or key."""
    if not isinstance(item, tuple | list | Mapping):
        raise TypeError(
            f"An item or batch is a {type(item).__name__}; expected a tuple, list or dict with a waveform and a label."
        )
    try:
        return item[place]  # type: ignore[index]
    except (LookupError, TypeError):
        held = f"the keys {list(item)}" if isinstance(item, Mapping) else f"{len(item)} entries"
        raise KeyError(f"{argument} is {place!r}, but the {type(item).__name__} has {held}; pass another.") from None


def _tensor(item: Any, place: int | str) -> Any:
    """The tensor in an item or batch at an index or key."""
    found = _field(item, place, "audio")
    if not hasattr(found, "requires_grad"):
        raise TypeError(
            f"audio={place!r} is a {type(found).__name__}; expected a tensor of samples. Pass another index or key, or "
            f"make a tensor with torch.from_numpy."
        )
    return found


def _is_markable(waveform: Any) -> bool:
    return str(waveform.dtype) in ("torch.int16", "torch.float32")


def _waveform(item: Any, place: int | str, dimensions: tuple[int, int]) -> Any:
    """The tensor of samples in an item or batch, if it can be protected."""
    found = _tensor(item, place)
    if not _is_markable(found):
        raise TypeError(
            f"The waveform has dtype {found.dtype}; int16 and float32 can be protected. Convert it first, for "
            f"example with waveform.float()."
        )
    if found.requires_grad:
        raise TypeError("The waveform requires gradients, which cannot pass through protection; use waveform.detach().")
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
