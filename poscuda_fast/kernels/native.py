"""The arithmetic of FORMAT.md for one CPU thread in C++ (patches.cpp), built when the package was installed.

The fastest instruction set of this processor is chosen at run time; the GIL is released.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels import _native
from poscuda_fast.kernels.reference import Bytes, Flags, Ints, LineTable, Samples, Table, Words


def _warn_if_stale() -> None:
    """An editable installation has the sources beside this file, and does not compile them again when they change."""
    folder = Path(__file__).parent
    sources = sorted([*folder.glob("*.cpp"), *folder.glob("*.h")])
    digests = "".join(hashlib.sha256(source.read_bytes()).hexdigest() for source in sources)
    if sources and hashlib.sha256(digests.encode()).hexdigest() != _native.built_from():
        message = f"The native kernels were built before their sources in {folder} changed: run pip install -e . again."
        warnings.warn(message, RuntimeWarning, stacklevel=2)


_warn_if_stale()


def filter_patches(
    samples: Samples, starts: Ints, sizes: Ints, rows: Ints, taps: Table, stride: int, flags: Flags | None = None
) -> int:
    """See `reference.filter_patches`: same arguments, same bits."""
    return int(_native.filter_patches(samples, starts, sizes, rows, taps, stride, flags))


def add_lines(
    samples: Samples, starts: Ints, sizes: Ints, phases: Ints, rows: Ints, table: LineTable, stride: int
) -> int:
    """See `reference.add_lines`: same arguments, same bits."""
    return int(_native.add_lines(samples, starts, sizes, phases, rows, *table, stride))


def survey_patches(samples: Samples, starts: Ints, sizes: Ints, stride: int) -> Flags:
    """See `reference.survey_patches`."""
    flags = np.empty(len(starts), np.uint8)
    _native.survey_patches(samples, starts, sizes, stride, flags)
    return flags


def measure_patches(
    samples: Samples, starts: Ints, sizes: Ints, stride: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """See `reference.measure_patches`."""
    energies, peaks = np.empty(len(starts)), np.empty(len(starts))
    _native.measure_patches(samples, starts, sizes, stride, energies, peaks)
    return energies, peaks


def hash_pieces(data: Bytes, starts: Ints, sizes: Ints, key: Words) -> Words:
    """See `reference.hash_pieces`: same arguments, same hashes."""
    hashes = np.empty(len(starts), np.uint64)
    _native.hash_pieces(data, starts, sizes, key, hashes)
    return hashes


def tell_pieces(
    samples: Samples,
    starts: Ints,
    sizes: Ints,
    phases: Ints,
    rows: Ints,
    table: LineTable,
    sums: Words,
    key: Words,
    dry: Samples,
) -> Flags:
    """See `reference.tell_pieces`: same arguments, same states."""
    states = np.empty(len(starts), np.uint8)
    _native.tell_pieces(samples, starts, sizes, phases, rows, *table, sums, key, dry, states)
    return states


def mark_and_hash(
    samples: Samples,
    starts: Ints,
    sizes: Ints,
    phases: Ints,
    rows: Ints,
    table: LineTable,
    key: Words,
    wet: Samples,
) -> tuple[Words, int]:
    """See `reference.mark_and_hash`: same arguments, same bits."""
    sums = np.empty(len(starts), np.uint64)
    odd = _native.mark_and_hash(samples, starts, sizes, phases, rows, *table, key, wet, sums)
    return sums, int(odd)


def will_need(samples: Samples, first_bytes: Ints, n_bytes: int) -> None:
    """Ask the system, by madvise(2), to read `n_bytes` of mapped memory from each of `first_bytes` in `samples`."""
    _native.will_need(samples, first_bytes, n_bytes)
