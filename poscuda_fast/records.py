"""What the journal keeps of one audio file: how to find its patches again, and its original bytes."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import dense
from poscuda_fast.kernels import Engine
from poscuda_fast.plan import Patches


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Record:
    """One file before it was edited; secret, since it tells where the patches are.

    Attributes
    ----------
    name : str
        Path below the folder, with "/".
    row : int
        Its class's row of `Plan.taps`.
    coding, channels, frames
        Its samples.
    offset : int
        Where they begin in the file; -1 for an encoded file, whose bytes are kept whole.
    size, sha256
        Of the file.
    starts, sizes : list of int
        Its patches, in frames.
    kept : int
        Bytes kept of it.
    """

    name: str
    row: int
    coding: str
    channels: int
    frames: int
    offset: int
    size: int
    sha256: str
    starts: list[int]
    sizes: list[int]
    kept: int

    def __repr__(self) -> str:
        return f"Record({self.name!r})"

    def patches(self) -> Patches:
        """The patches, as of clip 0."""
        same = np.zeros(len(self.starts), np.int64)
        return Patches(same, np.array(self.starts, np.int64), np.array(self.sizes, np.int64), same + self.row)


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What protecting one file did to it."""

    bytes_after: int
    sha256_after: str
    snr_db: float | None


def wet_samples(
    record: Record, dry: NDArray[Any], taps: NDArray[np.float32], engine: Engine
) -> tuple[NDArray[Any], int]:
    """The filtered form of a record's patches (a dense buffer), and its saturated samples."""
    wet = dry.copy()
    return wet, dense.filter_dense(wet, record.patches(), record.channels, taps, engine)


def snr_db(signal: float, dry: NDArray[Any], wet: NDArray[Any]) -> float | None:
    """Energy of the clip over energy of the edit, in dB; None where one of them is 0 or not finite."""
    noise = energy(dry.astype(np.float64) - wet)
    if not (math.isfinite(signal) and math.isfinite(noise)) or signal <= 0 or noise <= 0:
        return None
    return round(10 * math.log10(signal / noise), 3)


def energy(samples: NDArray[Any]) -> float:
    """Sum of squares; not finite where the samples are not."""
    wide = samples.astype(np.float64).reshape(-1)
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.dot(wide, wide))


def pack(records: Sequence[tuple[Record, bytes]]) -> bytes:
    """Records and what is kept of their files, as one payload."""
    index = json.dumps([[getattr(record, name) for name in Record.__slots__] for record, _ in records]).encode()
    return b"".join([struct.pack("<Q", len(index)), index, *(kept for _, kept in records)])


def unpack(payload: bytes) -> Iterator[tuple[Record, bytes]]:
    """The records and kept bytes that `pack` was given."""
    (length,) = struct.unpack_from("<Q", payload)
    position = 8 + length
    for fields in json.loads(payload[8:position]):
        record = Record(*fields)
        yield record, payload[position : position + record.kept]
        position += record.kept
