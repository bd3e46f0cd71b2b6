"""Protects audio files that are in memory as bytes: nothing touches the disk, and there is no undo."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from poscuda_fast.errors import AudioFileError
from poscuda_fast.files import encoded, filtering, kinds, layouts
from poscuda_fast.files.containers import Uncompressed
from poscuda_fast.files.layouts import Layout
from poscuda_fast.files.records import WHOLE, Places, Record
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key
from poscuda_fast.mark.plan import Plan, make_plan
from poscuda_fast.recipe import RATES, PaperRecipe, Recipe
from poscuda_fast.text import listed


class Blob(NamedTuple):
    """One audio file: its bytes, and its name, or one that identifies it in messages."""

    name: str
    data: bytes


def protect_blobs(
    blobs: Sequence[Blob], labels: Any, key: Key, recipe: Recipe, engine: Engine, *, lossy: str, classes: Any = None
) -> list[Blob]:
    """Protect audio files in memory: for each, the name and the bytes that `protect_folder` would write.

    Each is marked for its own sample rate.

    Raises
    ------
    AudioFileError
        Files cannot be edited exactly, or have a sample rate that format 2 has no mark for; or they are lossy and
        `lossy` is not "flac". With "flac" they are encoded as 16-bit FLAC, and their names get the suffix .flac.
    TypeError, ValueError
        Labels that cannot be used; or, in format 1, a NaN or infinite sample inside a patch.
    """
    found = protect_usable(blobs, labels, key, recipe, engine, lossy=lossy, classes=classes)
    refuse_unusable([str(one) for one in found if isinstance(one, AudioFileError)])
    return [one for one in found if isinstance(one, Blob)]


def protect_usable(
    blobs: Sequence[Blob], labels: Any, key: Key, recipe: Recipe, engine: Engine, *, lossy: str, classes: Any = None
) -> list[Blob | AudioFileError]:
    """As `protect_blobs`, but a file that cannot be marked gives the error that says why."""
    found: list[Blob | AudioFileError] = []
    layouts_of: dict[int, Layout] = {}
    for number, blob in enumerate(blobs):
        try:
            layouts_of[number] = layout = layouts.of_bytes(blob.data, blob.name)
            _refuse(blob, layout, recipe, lossy)
            found.append(_content_of(blob, layout))
        except AudioFileError as error:
            found.append(error)
    usable = [number for number, one in enumerate(found) if isinstance(one, Blob)]
    contents = [one for one in found if isinstance(one, Blob)]
    kept = [layouts_of[number] for number in usable]
    for number, one in zip(
        usable, _protect(contents, kept, [labels[n] for n in usable], key, recipe, engine, classes), strict=True
    ):
        found[number] = one
    return found


def refuse_unusable(reasons: Sequence[str]) -> None:
    """AudioFileError with every reason, at most 20, if there is any."""
    if len(reasons) > 1:
        raise AudioFileError(f"{len(reasons):,} audio entries cannot be protected:{listed(reasons)}")
    if reasons:
        raise AudioFileError(reasons[0])


def holds_sound(entry: Any) -> bool:
    """Whether an entry of a column is audio: a file, by its first bytes, or samples that come with their rate."""
    if isinstance(entry, Mapping):
        if entry.get("array") is not None and "sampling_rate" in entry:
            return True
        return any(isinstance(held, bytes | bytearray | memoryview) and holds_sound(held) for held in entry.values())
    if isinstance(entry, list | tuple | np.ndarray):
        return np.ndim(entry) != 0 and len(entry) > 0 and holds_sound(entry[0])
    if not isinstance(entry, bytes | bytearray | memoryview):
        return False
    return layouts.begins_as_sound(bytes(entry[: kinds.HEAD_BYTES]), "")


def _protect(
    contents: list[Blob], found: list[Layout], labels: Any, key: Key, recipe: Recipe, engine: Engine, classes: Any
) -> list[Blob | AudioFileError]:
    """Protect files that are not lossy and whose layouts are known."""
    lengths = np.array([layout.frames for layout in found], np.int64)
    rates = np.array([layout.sample_rate for layout in found], np.int64)
    plan = make_plan(key, recipe, labels, classes, lengths, rates)
    records = [_record(plan, n, contents[n], found[n]) for n in range(len(contents))]
    wavs = [n for n, record in enumerate(records) if not record.is_encoded]
    dry = [Places(records[n]).take(contents[n].data) for n in wavs]
    wet = iter(filtering.filter_together([records[n] for n in wavs], dry, plan.marks, engine).wet)
    return [
        _encoded(content, record, plan, engine)
        if record.is_encoded
        else content._replace(data=b"".join(Places(record).woven(content.data, next(wet))))
        for content, record in zip(contents, records, strict=True)
    ]


def _refuse(blob: Blob, layout: Layout, recipe: Recipe, lossy: str) -> None:
    """AudioFileError if a file cannot be marked."""
    if _is_lossy(layout) and lossy != "flac":
        raise AudioFileError(
            f"{blob.name} is lossy, so it cannot be edited exactly; convert it with lossy='flac', or leave it out."
        )
    least, most = RATES
    if not isinstance(recipe, PaperRecipe) and not least <= layout.sample_rate <= most:
        raise AudioFileError(
            f"{blob.name} has a sample rate of {layout.sample_rate:,} Hz; it must be from {least:,} to {most:,} Hz, so "
            f"resample it or leave it out."
        )


def _is_lossy(layout: Layout) -> bool:
    return isinstance(layout, encoded.Encoding) and layout.lossy


def _content_of(blob: Blob, layout: Layout) -> Blob:
    """The file to mark: a lossy one is converted to FLAC first."""
    if not _is_lossy(layout):
        return blob
    name = str(PurePosixPath(blob.name).with_suffix(".flac"))
    return Blob(name, encoded.encode(encoded.decode(blob.data, blob.name)))


def _record(plan: Plan, number: int, content: Blob, layout: Layout) -> Record:
    patches = plan.of_clip(number)
    return Record(
        name=content.name,
        row=int(plan.rows_of(np.array([number]))[0]),
        coding=layout.coding,
        channels=layout.channels,
        frames=layout.frames,
        offset=layout.offset if isinstance(layout, Uncompressed) else WHOLE,
        size=len(content.data),
        begin=0,
        end=len(content.data),
        starts=patches.starts.tolist(),
        sizes=patches.sizes.tolist(),
    )


def _encoded(content: Blob, record: Record, plan: Plan, engine: Engine) -> Blob | AudioFileError:
    """A file that is decoded, marked and encoded again; the error of one whose content cannot be decoded."""
    target = io.BytesIO()
    try:
        encoded.edit(io.BytesIO(content.data), target, record, plan.marks, engine)
    except AudioFileError as error:
        return error
    return content._replace(data=target.getvalue())
