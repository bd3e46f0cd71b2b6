"""Arrays of clips as flat samples and absolute places, whatever their layout in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels import Engine, Flags, Ints
from poscuda_fast.mark.marks import Marks
from poscuda_fast.mark.packed import mark_dense, measure_dense, survey_dense
from poscuda_fast.mark.patches import Patches, Steps, merge_channels

MOST_CHANNELS = 64  # of a clip of a list that has fewer frames than that
FEWEST_FRAMES = 64  # a shorter axis that is followed by a longer one is hardly one of frames


class Clips(Protocol):
    """Some clips of one dtype and channel count."""

    lengths: Ints
    channels: int
    dtype: np.dtype[Any]

    def survey(self, patches: Patches, engine: Engine) -> NDArray[np.uint8]:
        """What each patch holds, as `reference.survey_patches`: silent if all channels are, not finite if one is."""

    def measure(self, patches: Patches, engine: Engine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The energy and the peak of each patch, over all channels, in units of samples; both (n_patches,)."""

    def read(self, patches: Patches) -> NDArray[Any]:
        """A dense copy of the patches."""


class ClipsInMemory(Clips, Protocol):
    """Clips that kernels can mark in place, batch by batch.

    Attributes
    ----------
    copied_bytes : int or None
        Bytes of each frame that are copied to be marked; None if samples are marked where they are.
    """

    copied_bytes: int | None

    def mark(self, patches: Patches, marks: Marks, engine: Engine, flags: Flags | None = None) -> int:
        """Mark the patches in place; returns what `Marks.apply` does, and fills `flags` as it does."""


def open_clips(clips: Any, lengths: Any, *, writing: bool = True) -> ArrayClips | ListClips:
    """Check an array or a list of arrays, and their lengths; see `protect` for what is accepted."""
    if isinstance(clips, np.ndarray):
        return ArrayClips(clips, lengths, writing=writing)
    if isinstance(clips, list | tuple):
        return ListClips(clips, lengths, writing=writing)
    raise TypeError(
        f"clips is a {type(clips).__name__}; expected a NumPy array (n_clips, n_frames[, n_channels]), "
        f"a list of arrays, or an array on a GPU. Convert it with numpy.asarray if that shares its memory."
    )


class ArrayClips:
    """One array (n_clips, n_frames) or (n_clips, n_frames, n_channels) of any strides."""

    def __init__(self, array: NDArray[Any], lengths: Any, *, writing: bool = True, name: str = "clips") -> None:
        check_shape(array.shape, name)
        check_array(array, name, writing=writing)
        self.array = array
        self.shape = array.shape
        self.dtype = array.dtype
        self.channels = array.shape[2] if array.ndim == 3 else 1
        self.copied_bytes: int | None = None
        self.lengths = check_lengths(lengths, np.broadcast_to(np.int64(array.shape[1]), array.shape[:1]))
        self.flat, self._origin = flatten(array)
        steps = [stride // array.itemsize for stride in array.strides]
        self._clip_step = steps[0]
        self._steps = Steps(steps[1], steps[2] if array.ndim == 3 else 1, self.channels)

    def read(self, patches: Patches) -> NDArray[Any]:
        """A dense copy of the patches."""
        if self._steps.packed and _uniform(patches):
            blocks: NDArray[Any] = self._windows(patches)[self._first(patches)]
            return blocks.reshape(-1)
        dense = np.empty(patches.n_frames * self.channels, self.dtype)
        for view, part in self._pairs(patches, dense):
            part[...] = view
        return dense

    def write(self, patches: Patches, dense: NDArray[Any]) -> None:
        """Store a dense buffer where the patches are."""
        if self._steps.packed and _uniform(patches):
            windows = self._windows(patches)
            windows[self._first(patches)] = dense.reshape(len(patches), -1)
            return
        for view, part in self._pairs(patches, dense):
            view[...] = part

    def mark(self, patches: Patches, marks: Marks, engine: Engine, flags: Flags | None = None) -> int:
        return marks.apply(engine, self.flat, self._first(patches), patches, self._steps, flags)

    def survey(self, patches: Patches, engine: Engine) -> NDArray[np.uint8]:
        starts, sizes = self._steps.by_channel(self._first(patches), patches.sizes)
        flags = engine.survey_patches(self.flat, starts, sizes, self._steps.frame)
        return merge_channels(flags.reshape(len(patches), self.channels))

    def measure(self, patches: Patches, engine: Engine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self._steps.packed:
            return engine.measure_patches(self.flat, self._first(patches), patches.sizes * self.channels, 1)
        starts, sizes = self._steps.by_channel(self._first(patches), patches.sizes)
        energies, peaks = engine.measure_patches(self.flat, starts, sizes, self._steps.frame)
        shape = len(patches), self.channels
        return energies.reshape(shape).sum(axis=1), peaks.reshape(shape).max(axis=1, initial=0.0)

    def clip(self, number: int) -> NDArray[Any]:
        """(n_frames,) or (n_frames, n_channels): one clip with its padding."""
        found: NDArray[Any] = self.array[number]
        return found

    def reach(self, patches: Patches) -> tuple[Ints, int]:
        """The lowest byte of each patch, counted from the array's lowest, and the bytes that the widest one spans."""
        steps = np.array([self._steps.frame, self._steps.channel])
        far = steps * [int(patches.sizes.max(initial=1)) - 1, max(0, self.channels - 1)]
        lowest = self._first(patches) + int(np.minimum(far, 0).sum())
        return lowest * self.dtype.itemsize, (int(np.abs(far).sum()) + 1) * self.dtype.itemsize

    def _first(self, patches: Patches) -> Ints:
        """The flat place of each patch's first sample."""
        return self._origin + patches.clips * self._clip_step + patches.starts * self._steps.frame

    def _windows(self, patches: Patches) -> NDArray[Any]:
        """Row i is the patch that begins at flat sample i."""
        width = int(patches.sizes[0]) * self.channels
        return np.lib.stride_tricks.sliding_window_view(self.flat, width, writeable=True)

    def _pairs(self, patches: Patches, dense: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Pairs of (the patch in the array, its part of the dense buffer), of one shape."""
        first = 0
        for clip, start, size in patches.places():
            view = self.array[clip, start : start + size]
            yield view, dense[first : first + view.size].reshape(view.shape)
            first += view.size


class ListClips:
    """A list of clips of unequal length, each (n_frames,) or (n_frames, n_channels)."""

    def __init__(self, arrays: Sequence[Any], lengths: Any, *, writing: bool = True) -> None:
        self.dtype = np.dtype(np.int16)
        self.channels = 1
        for index, array in enumerate(arrays):
            name = f"clips[{index}]"
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{name} is a {type(array).__name__}; expected a NumPy array.")
            if array.ndim not in (1, 2):
                raise ValueError(f"{name} has shape {array.shape}; expected (n_frames,) or (n_frames, n_channels).")
            check_array(array, name, writing=writing)
            channels = array.shape[1] if array.ndim == 2 else 1
            if len(array) < FEWEST_FRAMES and channels > MOST_CHANNELS:
                raise ValueError(
                    f"{name} has shape {array.shape}, {len(array)} frames of {channels} channels; frames come before "
                    f"channels. Give clip.T, which copies nothing."
                )
            if index == 0:
                self.dtype, self.channels = array.dtype, channels
            elif (array.dtype, channels) != (self.dtype, self.channels):
                raise ValueError(
                    f"{name} is {array.dtype} with {channels} channels, clips[0] is {self.dtype} with "
                    f"{self.channels}; protect clips of one kind at a time."
                )
        if writing:
            refuse_shared(arrays)
        self.copied_bytes: int | None = self.channels * self.dtype.itemsize
        self._arrays = [array[:, None] if array.ndim == 1 else array for array in arrays]
        self.lengths = check_lengths(lengths, np.array([len(array) for array in arrays], np.int64))

    def read(self, patches: Patches) -> NDArray[Any]:
        """A dense copy of the patches."""
        dense = np.empty(patches.n_frames * self.channels, self.dtype)
        for view, part in self._views(patches, dense):
            part[:] = view
        return dense

    def mark(self, patches: Patches, marks: Marks, engine: Engine, flags: Flags | None = None) -> int:
        dense = self.read(patches)
        saturated = mark_dense(dense, patches, self.channels, marks, engine, flags)
        for view, part in self._views(patches, dense):
            view[:] = part
        return saturated

    def survey(self, patches: Patches, engine: Engine) -> NDArray[np.uint8]:
        return survey_dense(self.read(patches), patches, self.channels, engine)

    def measure(self, patches: Patches, engine: Engine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return measure_dense(self.read(patches), patches, self.channels, engine)

    def _views(self, patches: Patches, dense: NDArray[Any]) -> Any:
        """Pairs of (the patch in its clip, its part of the dense buffer), both (frames, channels)."""
        first = 0
        for clip, start, size in patches.places():
            part = dense[first : first + size * self.channels].reshape(size, self.channels)
            yield self._arrays[clip][start : start + size], part
            first += size * self.channels


def check_array(array: NDArray[Any], name: str, *, writing: bool = True) -> None:
    """TypeError or ValueError unless samples can be edited in place and no two share an address."""
    check_dtype(array.dtype, name)
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array, whose hidden samples would be marked too; give its .data, or fill it."
        )
    if writing and not array.flags.writeable:
        raise ValueError(
            f'{name} is read-only, and protection happens in place; open it with mode="r+" or make a copy of it.'
        )
    if not array.flags.aligned or any(stride % array.itemsize for stride in array.strides):
        raise ValueError(
            f"{name} is not aligned to its {array.itemsize}-byte samples; make a copy of it, or edit audio files by "
            f"protect_folder, which needs no alignment."
        )
    if not _addresses_differ(array):
        raise ValueError(
            f"{name} has strides {array.strides} for shape {array.shape}: some samples share one address and would "
            f"be marked twice. Protect the array it is a view of, or make a copy."
        )


def check_shape(shape: tuple[int, ...], name: str) -> None:
    """ValueError unless an array has the dimensions of clips."""
    if len(shape) not in (2, 3):
        raise ValueError(
            f"{name} has shape {shape}; expected (n_clips, n_frames) or (n_clips, n_frames, n_channels). "
            f"For one clip use {name}[None]."
        )
    if len(shape) == 3 and 0 < shape[1] < FEWEST_FRAMES and shape[2] > shape[1]:
        raise ValueError(
            f"{name} has shape {shape}, clips of {shape[1]} frames and {shape[2]} channels; frames come before "
            f"channels. Swap the two axes (numpy.swapaxes, which copies nothing), or leave out an axis of one channel."
        )


def check_dtype(dtype: np.dtype[Any], name: str) -> None:
    """TypeError unless samples are int16 or float32 in the machine's byte order."""
    if dtype not in (np.dtype(np.int16), np.dtype(np.float32)):
        raise TypeError(f"{name} has dtype {dtype.str}; {_dtype_advice(dtype)}")


def check_lengths(lengths: Any, most: Ints) -> Ints:
    """True lengths in frames as (n_clips,) int64; if `lengths` is None, nothing is padding."""
    if lengths is None:
        return most
    given = np.asarray(lengths)
    if given.shape != most.shape:
        raise ValueError(f"lengths has shape {given.shape} for {len(most)} clips; give one length for each clip.")
    if given.size and given.dtype.kind not in "iu":
        raise TypeError(f"lengths has dtype {given.dtype}; lengths are whole numbers of frames.")
    wrong = np.flatnonzero((given < 0) | (given > most))
    if wrong.size:
        clip = int(wrong[0])
        raise ValueError(f"lengths[{clip}] is {given[clip]}; clip {clip} has {most[clip]} frames.")
    return given.astype(np.int64)


def flatten(array: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """All memory from an array's lowest to its highest sample as one 1-D view, and the index of element 0 in it."""
    if array.size == 0:
        return np.empty(0, array.dtype), 0
    lowest = array[tuple(slice(None, None, -1 if stride < 0 else None) for stride in array.strides)]
    reach = [(n - 1) * abs(stride) // array.itemsize for n, stride in zip(array.shape, array.strides, strict=True)]
    origin = sum(far for far, stride in zip(reach, array.strides, strict=True) if stride < 0)
    flat = np.lib.stride_tricks.as_strided(
        lowest, (sum(reach) + 1,), (array.itemsize,), writeable=array.flags.writeable
    )
    return flat, origin


def refuse_shared(arrays: Sequence[NDArray[Any]]) -> None:
    """ValueError if two arrays of a list share samples, which would then be marked twice."""
    filled = [(index, array) for index, array in enumerate(arrays) if array.size]
    bounds = sorted((*np.lib.array_utils.byte_bounds(array), index) for index, array in filled)
    open_now: list[tuple[int, int]] = []
    for low, high, index in bounds:
        open_now = [(end, other) for end, other in open_now if end > low]
        for _, other in open_now:
            if np.shares_memory(arrays[index], arrays[other]):
                first, second = sorted((index, other))
                raise ValueError(
                    f"clips[{first}] and clips[{second}] share memory, so samples would be marked twice; "
                    f"give each clip once, or copy one."
                )
        open_now.append((high, index))


def _uniform(patches: Patches) -> bool:
    return len(patches) > 0 and bool((patches.sizes == patches.sizes[0]).all()) and int(patches.sizes[0]) > 0


def _addresses_differ(array: NDArray[Any]) -> bool:
    """Whether each stride steps over everything inside it; true of every slice or transpose of a plain array."""
    inside = array.itemsize
    for stride, n in sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride < inside:
            return array.size == 0
        inside += (n - 1) * stride
    return True


def _dtype_advice(dtype: np.dtype[Any]) -> str:
    swapped = dtype.newbyteorder("=")
    if swapped in (np.dtype(np.int16), np.dtype(np.float32)):
        return "it is not in this machine's byte order: use astype(dtype.newbyteorder('='))."
    if dtype == np.float64:
        return "use astype(numpy.float32); int16 and float32 are edited in place."
    if dtype.kind in "iu" and math.prod(dtype.shape) == 1:
        return "scale it to 16 bits (int16) or to float32 in -1..1; int16 and float32 are edited in place."
    return "expected int16 or float32 samples."
