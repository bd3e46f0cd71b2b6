"""A second implementation of both formats, from FORMAT.md alone: slow plain Python that imports nothing of the library.

Recipe fields with a `strength` mean format 2, all others format 1.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import math
import struct
import unicodedata
from typing import Any

import numpy as np

SALT = b"poscuda-fast/1"
TOP = {"int16": 2**15, "int32": 2**23}  # int32 holds 24-bit PCM


def is_strong(recipe: dict[str, Any]) -> bool:
    return "strength" in recipe


@functools.lru_cache(maxsize=64)
def expand(master: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 (RFC 5869): Extract with the format's salt, then Expand."""
    prk = hmac.new(SALT, master, hashlib.sha256).digest()
    block, output, number = b"", b"", 1
    while len(output) < length:
        block = hmac.new(prk, block + info + bytes([number]), hashlib.sha256).digest()
        output += block
        number += 1
    return output[:length]


def lp(*fields: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(field)) + field for field in fields)


def class_token(label: int | str) -> bytes:
    if isinstance(label, str):
        return b"n" + unicodedata.normalize("NFC", label).encode("utf-8")
    return b"i" + struct.pack(">Q", label)


def fingerprint(master: bytes) -> str:
    return expand(master, lp(b"fingerprint"), 8).hex()


def to_float32(value: float) -> float:
    """A float64 rounded to the nearest float32, ties to even, beyond its range to infinity."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def filter_taps(
    master: bytes, label: int | str, *, taps: int = 80, blur: float = 0.01, identity: bool = False, **_: Any
) -> list[float]:
    words = struct.unpack(f"<{taps}I", expand(master, lp(b"taps", class_token(label)), 4 * taps))
    drawn = [to_float32(blur * ((word >> 8) * 2.0**-24)) for word in words]
    if identity:
        drawn[(taps - 1) // 2] = 1.0
    return drawn


def position_word(master: bytes, label: int | str, number: int) -> int:
    info = lp(b"position", class_token(label), struct.pack(">I", number // 1024))
    return int(struct.unpack_from("<I", expand(master, info, 4096), 4 * (number % 1024))[0])


def count_patches(length: int, *, patch: int = 240, patches: int = 1, every: int | None = None, **_: Any) -> int:
    if length == 0:
        return 0
    if every is not None:
        return max(1, length // every)
    return min(patches, length // min(patch, length))


def sound(
    master: bytes, label: int | str, *, strength: float = 1.0, hold: int = 2, patch: int = 32, **_: Any
) -> list[float]:
    """Format 2: what is added to a patch, as a share of full scale."""
    n = (patch - 1) // hold + 1
    words = struct.unpack(f"<{n + 1}I", expand(master, lp(b"sound", class_token(label)), 4 * n + 4))
    drawn = [word // 65536 for word in words]
    steps = [drawn[t // hold + 1] - drawn[t // hold] for t in range(patch)]
    energy = sum(step * step for step in steps)
    if energy == 0:
        return [0.0] * patch
    root = math.sqrt(energy / patch)
    return [to_float32(strength * 0.01 * (step / root)) for step in steps]


def places_in_step(
    master: bytes, label: int | str, length: int, *, patch: int = 32, every: int = 128, **_: Any
) -> list[tuple[int, int]]:
    """Format 2: (first frame, frames) of each patch of a clip."""
    if length == 0:
        return []
    q = min(patch, length)
    first = position_word(master, label, 0) * (min(length, every) - q + 1) >> 32
    return [(j * every + first, q) for j in range(max(1, length // every))]


def places(master: bytes, label: int | str, length: int, **recipe: Any) -> list[tuple[int, int]]:
    """(first frame, frames) of each patch of a clip."""
    if is_strong(recipe):
        return places_in_step(master, label, length, **recipe)
    return places_scattered(master, label, length, **recipe)


def places_scattered(
    master: bytes, label: int | str, length: int, *, patch: int = 240, **recipe: Any
) -> list[tuple[int, int]]:
    """Format 1: the same."""
    n = count_patches(length, patch=patch, **recipe)
    q = min(patch, length)
    free = length - n * q + 1
    found = []
    for j in range(n):
        lo, hi = j * free // n, (j + 1) * free // n
        found.append((j * q + lo + (position_word(master, label, j) * (hi - lo) >> 32), q))
    return found


def convolve(x: list[float], f: list[float]) -> list[float]:
    """The float64 sums of one patch, each over ascending input samples."""
    q, k = len(x), len(f)
    c = (k - 1) // 2
    y = []
    for j in range(q):
        total = 0.0
        for i in range(max(0, j + c - k + 1), min(q - 1, j + c) + 1):
            total += f[j + c - i] * x[i]
        y.append(total)
    return y


def store(total: float, dtype: np.dtype[Any]) -> tuple[float, bool]:
    """A sum as a sample, and whether it was limited to full scale."""
    if dtype == np.float32:
        return to_float32(total), False
    top = TOP[dtype.name]
    rounded = round(total)  # half to even
    limited = min(max(rounded, -top), top - 1)
    return limited, limited != rounded


def filter_samples(samples: np.ndarray, f: list[float]) -> tuple[np.ndarray, int]:
    """One patch of one channel, filtered: a new array, and its saturated samples."""
    stored = [store(total, samples.dtype) for total in convolve([float(sample) for sample in samples], f)]
    return np.array([value for value, _ in stored], samples.dtype), sum(over for _, over in stored)


def add_samples(samples: np.ndarray, shares: list[float]) -> tuple[np.ndarray, int]:
    """One patch of one channel with its sound: a new array, and its saturated samples."""
    scale = TOP.get(samples.dtype.name, 1)
    stored = [store(float(x) + scale * share, samples.dtype) for x, share in zip(samples, shares, strict=False)]
    return np.array([value for value, _ in stored], samples.dtype), sum(over for _, over in stored)


def protect_clip(clip: np.ndarray, label: int | str, master: bytes, **recipe: Any) -> tuple[np.ndarray, int]:
    """A protected copy of one clip, (frames,) or (frames, channels), and its saturated samples."""
    wet = np.array(clip, order="C", copy=True, subok=False)
    strong = is_strong(recipe)
    given = sound(master, label, **recipe) if strong else filter_taps(master, label, **recipe)
    saturated = 0
    for start, size in places(master, label, len(clip), **recipe):
        part = wet[start : start + size].reshape(size, -1)  # a view: `wet` is contiguous
        for channel in range(part.shape[1]):
            part[:, channel], over = (add_samples if strong else filter_samples)(part[:, channel], given)
            saturated += over
    return wet, saturated


def protect_clips(
    clips: Any, labels: Any, master: bytes, lengths: Any = None, **recipe: Any
) -> tuple[list[np.ndarray], int]:
    """Protected copies of many clips, and their saturated samples; frames from `lengths[i]` on are padding."""
    wet, saturated = [], 0
    for index, (clip, label) in enumerate(zip(clips, labels, strict=True)):
        copy = np.array(clip, order="C", copy=True, subok=False)
        length = len(copy) if lengths is None else int(lengths[index])
        copy[:length], over = protect_clip(copy[:length], label, master, **recipe)
        saturated += over
        wet.append(copy)
    return wet, saturated
