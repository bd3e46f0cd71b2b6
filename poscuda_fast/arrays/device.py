"""Clips in the memory of an NVIDIA GPU: CuPy, torch, numba, or anything with `__cuda_array_interface__`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.arrays.layouts import check_dtype, check_lengths, check_shape
from poscuda_fast.kernels import ClipRows, Engine, load_for_clips
from poscuda_fast.mark.packed import count_odd, refuse_clip
from poscuda_fast.mark.patches import Patches
from poscuda_fast.mark.plan import Plan, ScatteredPlan, SteadyPlan
from poscuda_fast.results import Tally


def is_on_device(clips: object) -> bool:
    """Whether an object is an array in the memory of a GPU."""
    return not isinstance(clips, np.ndarray) and hasattr(clips, "__cuda_array_interface__")


class DeviceClips:
    """One C-contiguous device array (n_clips, n_frames) or (n_clips, n_frames, n_channels)."""

    def __init__(self, array: Any, lengths: Any) -> None:
        interface = array.__cuda_array_interface__
        shape = tuple(interface["shape"])
        check_shape(shape, "clips")
        self.dtype = np.dtype(interface["typestr"])
        check_dtype(self.dtype, "clips")
        if interface.get("mask") is not None:
            raise ValueError("clips is a masked array; protect the array that it masks.")
        if interface["data"][1]:
            raise ValueError("clips is read-only, and protection happens in place; make a copy of it.")
        if not _is_contiguous(interface, shape, self.dtype.itemsize):
            raise ValueError(
                f"clips has strides {interface['strides']} for shape {shape}: on the GPU it must be contiguous. "
                f"Protect a contiguous copy (torch: clips.contiguous(), CuPy: cupy.ascontiguousarray(clips))."
            )
        if math.prod(shape) and interface["data"][0] % self.dtype.itemsize:
            raise ValueError(f"clips is not aligned to its {self.dtype.itemsize}-byte samples; make a copy of it.")
        self.channels = shape[2] if len(shape) == 3 else 1
        self.lengths = check_lengths(lengths, np.broadcast_to(np.int64(shape[1]), shape[:1]))
        self._one_length = lengths is None
        self._frames = shape[1]
        self._flat: Any = _Flat(array, interface, math.prod(shape), self.dtype)

    def mark_all(self, plan: Plan, tally: Tally) -> None:
        """Mark every clip and count what was done: one launch for any number of clips.

        Of float32, format 1 needs one more before it, which finds what a filter would spread: ValueError.
        """
        kernels = load_for_clips()
        lengths = np.array([self._frames]) if self._one_length and plan.tags is None else plan.lengths
        clips = ClipRows(plan.rows_of_all(), lengths, self._frames, self.channels)
        if isinstance(plan, SteadyPlan):
            tally.frames_changed += plan.n_frames
            odd = kernels.add_clips(self._flat, clips, plan.marks.table(self.dtype, self.channels))
            count_odd(tally, self.dtype, odd)
        elif isinstance(plan, ScatteredPlan):
            where = plan.scattering
            bad = kernels.first_odd_clip(self._flat, clips, where) if self.dtype.kind == "f" else None
            if bad is not None:
                refuse_clip(bad)
            saturated, silent, silent_frames = kernels.filter_clips(self._flat, clips, where, plan.marks.taps).tolist()
            tally.patches += plan.n_patches
            tally.silent_patches += silent
            tally.frames_changed += plan.n_frames - silent_frames  # a filter leaves zeros
            count_odd(tally, self.dtype, saturated)

    def measure(self, patches: Patches, engine: Engine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return engine.measure_patches(self._flat, self._first(patches), patches.sizes * self.channels, 1)

    def read(self, patches: Patches) -> NDArray[Any]:
        """A dense copy of a few patches, in host memory."""
        return load_for_clips().read_patches(self._flat, self._first(patches), patches.sizes * self.channels)

    def _first(self, patches: Patches) -> NDArray[np.int64]:
        """Where each patch begins."""
        first: NDArray[np.int64] = (patches.clips * self._frames + patches.starts) * self.channels
        return first


class _Flat:
    """A contiguous device array as a one-dimensional one, which keeps its owner alive."""

    def __init__(self, owner: Any, interface: dict[str, Any], size: int, dtype: np.dtype[Any]) -> None:
        self.__cuda_array_interface__ = {**interface, "shape": (size,), "strides": None}
        self.size = size
        self.dtype = dtype
        self._owner = owner


def _is_contiguous(interface: dict[str, Any], shape: tuple[int, ...], itemsize: int) -> bool:
    strides = interface.get("strides")
    if strides is None or 0 in shape:
        return True
    plain = [itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return all(n == 1 or given == wanted for n, given, wanted in zip(shape, strides, plain, strict=True))
