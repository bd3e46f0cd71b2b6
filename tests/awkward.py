"""Awkward arrays: one content in every layout that must work, and arrays that must be refused."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

FILL = 0xA5  # bytes around the clips, which nothing may touch


def random_samples(dtype: Any, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Samples over the whole range of int16, or of float32 audio."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype) == np.int16:
        return rng.integers(-(2**15), 2**15, shape, np.int16)
    return rng.uniform(-1, 1, shape).astype(np.float32)


def any_samples(dtype: Any, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Finite samples of any bit pattern, subnormal and huge ones too; int32 holds 24 bits."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype) == np.int16:
        return rng.integers(-(2**15), 2**15, shape, np.int16)
    if np.dtype(dtype) == np.int32:
        return rng.integers(-(2**23), 2**23, shape, np.int32)
    samples = rng.integers(0, 2**32, shape, np.uint32).view(np.float32)
    return np.where(np.isfinite(samples), samples, np.float32(0))


@st.composite
def patched_samples(draw: st.DrawFn, dtype: Any) -> tuple[np.ndarray, list[tuple[int, int]], list[int], int]:
    """Flat samples, patches in them as (start, frames), the row of each, 0 or 1, and their stride."""
    sizes = draw(st.lists(st.integers(1, 30), max_size=6))
    gaps = draw(st.lists(st.integers(0, 3), min_size=len(sizes), max_size=len(sizes)))
    stride = draw(st.sampled_from([1, 2, 3]))
    starts = np.cumsum([0, *sizes])[:-1] + np.cumsum(gaps) if sizes else np.empty(0, int)
    places = [(int(start) * stride, size) for start, size in zip(starts, sizes, strict=True)]
    samples = any_samples(dtype, ((sum(sizes) + sum(gaps) + 1) * stride,), draw(st.integers(0, 2**16)))
    rows = draw(st.lists(st.integers(0, 1), min_size=len(sizes), max_size=len(sizes)))
    return samples, places, rows, stride


def awkward_arrays(
    dtype: Any, n_clips: int, n_frames: int, channels: int | None = None, tmp_path: Path | None = None, seed: int = 0
) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) pairs, (n_clips, n_frames) or with `channels` a third axis; also memmaps if `tmp_path` is given.

    Those of the given shape all hold `random_samples(dtype, shape, seed)`, each in its own memory. The last few have
    other shapes: one clip, no clips, no frames, one frame, few frames.
    """
    content = random_samples(dtype, (n_clips, n_frames) if channels is None else (n_clips, n_frames, channels), seed)
    for name, array in _layouts(content, tmp_path):
        array[...] = content
        yield name, array
    frames = content.shape[2:]
    for name, shape in {
        "one clip": (1, n_frames, *frames),
        "no clips": (0, n_frames, *frames),
        "no frames": (n_clips, 0, *frames),
        "one frame, or as few as channels": (n_clips, channels or 1, *frames),
        "few frames": (n_clips, min(n_frames, max(3, channels or 1)), *frames),
    }.items():
        yield name, random_samples(dtype, shape, seed)


def _layouts(content: np.ndarray, tmp_path: Path | None) -> Iterator[tuple[str, np.ndarray]]:
    """Arrays of the shape and dtype of `content`, with any content."""
    shape, dtype, axes = content.shape, content.dtype, range(content.ndim)
    yield "plain", _filled(shape, dtype)
    yield "Fortran", _filled(shape, dtype, order="F")
    wide = _filled([n + 3 for n in shape], dtype)
    yield "slice of each axis", wide[(slice(1, -2), slice(2, -1), slice(3, None))[: content.ndim]]
    yield "every second clip", _filled((2 * shape[0], *shape[1:]), dtype)[1::2]
    yield "every third frame", _filled((shape[0], 3 * shape[1], *shape[2:]), dtype)[:, ::3]
    yield "reversed clips", _filled(shape, dtype)[::-1]
    yield "reversed frames", _filled(shape, dtype)[:, ::-1]
    yield "all axes reversed", _filled(shape, dtype)[tuple(slice(None, None, -1) for _ in axes)]
    yield "reversed and strided", _filled((shape[0], 2 * shape[1], *shape[2:]), dtype)[::-1, ::-2]
    yield "transposed", _filled(shape[::-1], dtype).T
    yield "frames before clips", _filled((shape[1], shape[0], *shape[2:]), dtype).swapaxes(0, 1)
    record = np.dtype([("before", dtype), ("sample", dtype), ("after", dtype)])
    yield "field of a record", np.frombuffer(_filled(content.size * 3, dtype), record).reshape(shape)["sample"]
    yield "a bytearray's memory", np.frombuffer(bytearray(content.nbytes), dtype).reshape(shape)
    if content.ndim == 3:
        yield "channels before frames", _filled((shape[0], shape[2], shape[1]), dtype).swapaxes(1, 2)
        yield "channels before clips", _filled((shape[2], shape[0], shape[1]), dtype).transpose(1, 2, 0)
        yield "reversed channels", _filled(shape, dtype)[..., ::-1]
        yield "every second channel", _filled((*shape[:2], 2 * shape[2]), dtype)[..., ::2]
        yield "some channels of many", _filled((*shape[:2], shape[2] + 2), dtype)[..., 1:-1]
    if tmp_path is not None:
        yield "memmap", _mapped(tmp_path / "plain", shape, dtype)
        yield "Fortran memmap", _mapped(tmp_path / "fortran", shape, dtype, order="F")
        yield "memmap with an offset", _mapped(tmp_path / "offset", shape, dtype, offset=64)
        wide = _mapped(tmp_path / "sliced", (2 * shape[0] + 1, shape[1] + 5, *shape[2:]), dtype)
        yield "slice of a memmap", wide[1::2, 2:-3]
        yield "ndarray over a memmap", np.asarray(_mapped(tmp_path / "asarray", shape, dtype))[:, ::-1]


def _filled(shape: Any, dtype: Any, order: Any = "C") -> np.ndarray:
    n_bytes = math.prod(np.atleast_1d(shape).tolist()) * np.dtype(dtype).itemsize
    return np.full(n_bytes, FILL, np.uint8).view(dtype).reshape(shape, order=order)


def _mapped(path: Path, shape: Any, dtype: Any, order: Any = "C", offset: int = 0) -> np.ndarray:
    return np.memmap(path, dtype, "w+", offset, tuple(shape), order)


class Memory:
    """A copy of the whole memory that an array is a view of, to see later which bytes changed."""

    def __init__(self, array: np.ndarray) -> None:
        owner: Any = array
        while isinstance(owner, np.ndarray) and owner.base is not None:
            owner = owner.base
        if isinstance(owner, memoryview):
            owner = owner.obj
        if isinstance(owner, np.ndarray):
            owner = owner.ravel(order="K").view(np.uint8)
        assert isinstance(owner, np.ndarray | bytearray | mmap.mmap), type(owner)
        self._bytes = np.frombuffer(owner, np.uint8)
        self._offset = array.__array_interface__["data"][0] - self._bytes.__array_interface__["data"][0]
        assert array.size == 0 or 0 <= self._offset < self._bytes.size
        self._array = array
        self._before = self._bytes.copy()

    def expecting(self, content: Any) -> np.ndarray:
        """The memory as it was at first, except for `content` in the array."""
        wanted = self._before.copy()
        if self._array.size:
            np.ndarray(self._array.shape, self._array.dtype, wanted, self._offset, self._array.strides)[...] = content
        return wanted

    def now(self) -> np.ndarray:
        return self._bytes.copy()

    def unchanged(self) -> bool:
        return bool(np.array_equal(self._bytes, self._before))


def refused_arrays(dtype: Any = np.int16) -> Iterator[tuple[str, np.ndarray, type[Exception], str]]:
    """(name, array of three clips, error, pattern of its message)."""
    plain = random_samples(dtype, (3, 400))
    code = plain.dtype.str[1:]
    yield "byte-swapped", plain.astype(plain.dtype.newbyteorder()), TypeError, rf"dtype [<>]{code}; .* byte order"
    for other, advice in {
        "f8": r"astype\(numpy.float32\)",
        "i4": r"int16 and float32",
        "u1": r"int16 and float32",
        "u2": r"int16 and float32",
        "i8": r"int16 and float32",
        "f2": r"expected int16 or float32",
        "c8": r"expected int16 or float32",
        "?": r"expected int16 or float32",
        "O": r"expected int16 or float32",
    }.items():
        array = np.zeros((3, 400), other)
        yield other, array, TypeError, f"clips has dtype .*{array.dtype.str[1:]}; .*{advice}"
    for shape in ((400,), (3, 400, 2, 2), ()):
        yield f"{len(shape)}-D", np.zeros(shape, dtype), ValueError, rf"clips has shape \({shape[0] if shape else ''}"
    yield "read-only", _read_only(plain.copy()), ValueError, r'read-only.* mode="r\+"'
    yield "broadcast", np.broadcast_to(plain[:1], plain.shape), ValueError, "read-only"
    size = plain.itemsize
    yield (
        "sliding windows",
        np.lib.stride_tricks.as_strided(plain.copy(), (3, 400), (100 * size, size)),
        ValueError,
        rf"strides \({100 * size}, {size}\) for shape \(3, 400\): some samples share one address",
    )
    yield (
        "one clip three times",
        np.lib.stride_tricks.as_strided(plain.copy(), (3, 400), (0, size)),
        ValueError,
        r"strides \(0, .* share one address",
    )
    yield (
        "overlapping channels",
        np.lib.stride_tricks.as_strided(np.zeros(1202, dtype), (3, 400, 2), (400 * size, size, size)),
        ValueError,
        "share one address",
    )
    yield "unaligned", np.frombuffer(bytearray(1200 * size + 1), dtype, 1200, 1).reshape(3, 400), ValueError, "aligned"
    packed = np.zeros((3, 400), [("flag", "u1"), ("sample", dtype)])["sample"]
    yield "packed records", packed, ValueError, "not aligned"


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
