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
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
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
        label = label.strip(" \t\n\v\f\r")
        if label.isascii() and label.isdigit() and label == str(int(label)) and int(label) < 2**64:
            return b"i" + struct.pack(">Q", int(label))
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


def cosine_of_first_step(period: int) -> Decimal:
    """cos(2 pi / period), to 80 digits, by Machin's formula and the cosine's series."""
    tangents = [
        sum((-1) ** k * Decimal(1) / ((2 * k + 1) * Decimal(n) ** (2 * k + 1)) for k in range(70)) for n in (5, 239)
    ]
    angle = 2 * (16 * tangents[0] - 4 * tangents[1]) / period
    return sum((-1) ** k * angle ** (2 * k) / math.factorial(2 * k) for k in range(40))


@functools.lru_cache(maxsize=32)
def cosines(period: int) -> list[int]:
    """Format 2: the integers nearest to 2^30 cos(2 pi k / period), by a recurrence in decimal fractions."""
    with localcontext() as context:
        context.prec = 80
        step = cosine_of_first_step(period)
        found = [Decimal(1), step]
        while len(found) < period:
            found.append(2 * step * found[-1] - found[-2])
        return [int((2**30 * value).to_integral_value(ROUND_HALF_EVEN)) for value in found[:period]]


def lines(master: bytes, label: int | str, sample_rate: int) -> tuple[int, int, int, int, int]:
    """Format 2: the period in frames, the two harmonics of a class, and their phases."""
    period = (32 * sample_rate + 500) // 1000
    words = struct.unpack("<4I", expand(master, lp(b"lines", class_token(label)), 16))
    harmonics = list(range(20, min(124, (period - 1) // 2) + 1))
    h = harmonics.pop(words[0] * len(harmonics) // 2**32)
    g = harmonics[words[1] * len(harmonics) // 2**32]
    return period, h, g, words[2] * period // 2**32, words[3] * period // 2**32


def mark(master: bytes, label: int | str, sample_rate: int, strength: float, bits: int) -> list[int]:
    """Format 2: one period of what is added, in units of samples of so many bits."""
    period, h, g, a, b = lines(master, label, sample_rate)
    c = cosines(period)
    level = strength * 0.005 * 2 ** (bits - 1)
    return [round(level * ((c[(h * t + a) % period] + c[(g * t + b) % period]) * 2.0**-30)) for t in range(period)]


def places(master: bytes, label: int | str, length: int, **recipe: Any) -> list[tuple[int, int]]:
    """(first frame, frames) of each run of marked frames of a clip."""
    if is_strong(recipe):
        return [(0, length)] if length else []
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


def add_samples(samples: np.ndarray, added: list[int], first: int = 0) -> tuple[np.ndarray, int]:
    """Samples of one channel with a mark from its frame `first` on: a new array, and its saturated or odd samples."""
    wet, odd = samples.copy(), 0
    for t, x in enumerate(samples.tolist()):
        m = added[(first + t) % len(added)]
        if samples.dtype == np.float32:
            if math.isfinite(x):
                wet[t] = to_float32(x + m * 2.0**-23)  # exact in float64, or so nearly that one rounding is the same
            else:
                odd += 1
        else:
            top = TOP[samples.dtype.name]
            wet[t] = min(max(x + m, -top), top - 1)
            odd += int(wet[t]) != x + m
    return wet, odd


def hash_piece(piece: bytes, key: list[int]) -> int:
    """The keyed hash of up to 512 bytes; a key is 130 words."""
    padded = piece + bytes(-len(piece) % 8)
    halves = struct.unpack(f"<{len(padded) // 4}I", padded)
    mixed = []
    for s, last in ((0, len(piece) * 0x9E3779B97F4A7C15), (1, 0)):
        nh = last
        for i in range(len(halves) // 2):
            k = key[64 * s + i]
            low, high = (halves[2 * i] + k % 2**32) % 2**32, (halves[2 * i + 1] + k // 2**32) % 2**32
            nh += low * high
        mixed.append(murmur_finish(nh % 2**64 ^ key[128 + s]))
    return (mixed[0] + mixed[1] * 0xD6E8FEB86659FD93) % 2**64


def murmur_finish(x: int) -> int:
    """The end of MurmurHash3, of 64 bits."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        x ^= x // 2**33
        x = x * factor % 2**64
    return x ^ x // 2**33


def protect_clip(
    clip: np.ndarray, label: int | str, master: bytes, sample_rate: int = 16_000, **recipe: Any
) -> tuple[np.ndarray, int]:
    """A protected copy of one clip, (frames,) or (frames, channels), and its saturated or odd samples."""
    wet = np.array(clip, order="C", copy=True, subok=False)
    if is_strong(recipe):
        added = mark(master, label, sample_rate, recipe["strength"], 16 if clip.dtype == np.int16 else 24)
    else:
        f = filter_taps(master, label, **recipe)
    odd = 0
    for start, size in places(master, label, len(clip), **recipe):
        part = wet[start : start + size].reshape(size, -1)  # a view: `wet` is contiguous
        for channel in range(part.shape[1]):
            own = part[:, channel]
            part[:, channel], n = add_samples(own, added) if is_strong(recipe) else filter_samples(own, f)
            odd += n
    return wet, odd


def protect_clips(
    clips: Any, labels: Any, master: bytes, lengths: Any = None, **recipe: Any
) -> tuple[list[np.ndarray], int]:
    """Protected copies of many clips, and their saturated or odd samples; frames from `lengths[i]` on are padding."""
    wet, saturated = [], 0
    for index, (clip, label) in enumerate(zip(clips, labels, strict=True)):
        copy = np.array(clip, order="C", copy=True, subok=False)
        length = len(copy) if lengths is None else int(lengths[index])
        copy[:length], over = protect_clip(copy[:length], label, master, **recipe)
        saturated += over
        wet.append(copy)
    return wet, saturated
