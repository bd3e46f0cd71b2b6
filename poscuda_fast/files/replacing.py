"""Replaces an encoded file by its marked form, or by its original, in one step; owner, rights and attributes stay."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from blake3 import blake3

from poscuda_fast import attributes, disk
from poscuda_fast.files import encoded
from poscuda_fast.files.records import Record
from poscuda_fast.kernels import Engine
from poscuda_fast.mark.marks import Marks
from poscuda_fast.results import Tally

BYTES_PER_COPY = 1 << 20


class Marked(NamedTuple):
    """A marked file under its hidden name: counts, size, BLAKE3 in hex, energies of samples and of the edit."""

    tally: Tally
    size: int
    digest: str
    signal: float
    noise: float


def write_marked(
    folder: int, name: str, record: Record, original: BinaryIO, marks: Marks, engine: Engine, lost: Counter[str]
) -> Marked:
    """Encode the marked form of a file beside it, durably; AudioFileError if it would not keep every sample.

    `lost` counts what the new file does not keep of the old one, such as its owner.
    """
    with _beside(folder, name, lost) as target:
        done = encoded.edit(original, target, record, marks, engine)
        target.flush()
        size, digest = _digest(target)
    return Marked(done.tally, size, digest, done.signal, done.noise)


def write_original(folder: int, name: str, original: BinaryIO, time: int, lost: Counter[str]) -> None:
    """Write a file's original beside it, durably, changed last at `time` (ns); `lost` as for `write_marked`."""
    with _beside(folder, name, lost, time) as target:
        original.seek(0)
        shutil.copyfileobj(original, target, BYTES_PER_COPY)


def set_time(descriptor: int, time: int, lost: Counter[str]) -> None:
    """Say when an open file was changed last, in nanoseconds; `lost` counts it if that is not permitted."""
    try:
        os.utime(descriptor, ns=(os.fstat(descriptor).st_atime_ns, time))
    except OSError:
        lost["times"] += 1


def publish(folder: int, name: str) -> None:
    """Put what waits beside a file in its place."""
    os.replace(disk.part_name(name), name, src_dir_fd=folder, dst_dir_fd=folder)


def discard(folder: int, name: str) -> None:
    """Delete what waits beside a file."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(disk.part_name(name), dir_fd=folder)


@contextlib.contextmanager
def _beside(folder: int, name: str, lost: Counter[str], time: int | None = None) -> Iterator[BinaryIO]:
    """A new file under a hidden name, which is on the disk when the block ends, with the rights of the file."""
    discard(folder, name)
    part = disk.part_name(name)
    descriptor = os.open(part, disk.CREATING, 0o600, dir_fd=folder)
    with open(descriptor, "w+b") as target:
        try:
            yield target
            target.flush()
            lost.update(_take_rights(folder, name, descriptor))
            if time is not None:
                set_time(descriptor, time, lost)
            os.fsync(descriptor)
        except BaseException:
            discard(folder, name)
            raise


def _take_rights(folder: int, name: str, target: int) -> set[str]:
    """Give a new file what the one has that it will replace: owner, mode, access list, attributes; no more readers.

    Returns what could not be kept.
    """
    source = os.open(name, disk.READING, dir_fd=folder)
    try:
        return attributes.give(target, attributes.read(source), times=False)
    finally:
        os.close(source)


def _digest(file: Any) -> tuple[int, str]:
    whole, size = blake3(), 0
    file.seek(0)
    while part := file.read(BYTES_PER_COPY):
        whole.update(part)
        size += len(part)
    return size, whole.hexdigest()
