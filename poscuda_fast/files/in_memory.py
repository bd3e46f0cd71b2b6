"""Protects audio files that are in memory as bytes: nothing touches the disk, and there is no undo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from poscuda_fast.errors import AudioFileError
from poscuda_fast.files import encoded, filtering, headers
from poscuda_fast.files.headers import WavLayout
from poscuda_fast.files.records import WHOLE, Places, Record
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key
from poscuda_fast.mark.labels import encode
from poscuda_fast.mark.plan import Plan
from poscuda_fast.recipe import Recipe


class Blob(NamedTuple):
    """One audio file: its bytes, and its name, or one that identifies it in messages."""

    name: str
    data: bytes


def protect_blobs(
    blobs: Sequence[Blob], labels: Any, key: Key, recipe: Recipe, engine: Engine, *, lossy: str, classes: Any = None
) -> list[Blob]:
    """Protect audio files in memory: for each, the name and the bytes that `protect_folder` would write.

    Raises
    ------
    AudioFileError
        A file cannot be edited exactly, or is lossy and `lossy` is not "flac". With "flac" it is encoded as 16-bit
        FLAC, and its name gets the suffix .flac.
    TypeError, ValueError
        Labels that cannot be used, or a NaN or infinite sample inside a patch.
    """
    layouts = [_layout_of(blob) for blob in blobs]
    for blob, layout in zip(blobs, layouts, strict=True):
        if isinstance(layout, encoded.Encoding) and layout.lossy and lossy != "flac":
            raise AudioFileError(
                f"{blob.name} is lossy, so it cannot be edited exactly; convert it with lossy='flac', or leave it out."
            )
    lengths = np.array([layout.frames for layout in layouts], np.int64)
    plan = Plan(key, recipe, encode(labels, classes, len(blobs)), lengths)
    contents = [_content_of(blob, layout) for blob, layout in zip(blobs, layouts, strict=True)]
    records = [_record(plan, n, contents[n], layouts[n]) for n in range(len(blobs))]
    edits = [_Edit(record, content) for record, content in zip(records, contents, strict=True)]
    wet = filtering.filter_together(records, [edit.dry for edit in edits], plan.marks, engine).wet
    return [edit.finish(patches) for edit, patches in zip(edits, wet, strict=True)]


def _layout_of(blob: Blob) -> WavLayout | encoded.Encoding:
    if blob.data[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return headers.parse_wav(blob.data, len(blob.data), blob.name)
    return encoded.probe(PurePosixPath(blob.name), blob.data)


def _content_of(blob: Blob, layout: WavLayout | encoded.Encoding) -> Blob:
    """The file to mark: a lossy one is converted to FLAC first."""
    if not (isinstance(layout, encoded.Encoding) and layout.lossy):
        return blob
    name = str(PurePosixPath(blob.name).with_suffix(".flac"))
    return Blob(name, encoded.encode(encoded.decode(blob.data, blob.name)))


def _record(plan: Plan, number: int, content: Blob, layout: WavLayout | encoded.Encoding) -> Record:
    patches = plan.of_clip(number)
    return Record(
        content.name,
        int(plan.rows_of(np.array([number]))[0]),
        layout.coding,
        layout.channels,
        layout.frames,
        layout.offset if isinstance(layout, WavLayout) else WHOLE,
        len(content.data),
        patches.starts.tolist(),
        patches.sizes.tolist(),
        "",
    )


class _Edit:
    """A file whose patches have been read and not yet replaced."""

    def __init__(self, record: Record, content: Blob) -> None:
        self._record = record
        self._content = content
        self._decoded = encoded.Content(content.data, record) if record.offset == WHOLE else None
        if self._decoded is not None:
            self.dry = self._decoded.now
        else:
            self.dry = Places(record).take(content.data)

    def finish(self, wet: bytes) -> Blob:
        if self._decoded is not None:
            return self._content._replace(data=self._decoded.edited(wet))
        whole = bytearray(self._content.data)
        Places(self._record).put(whole, wet)
        return self._content._replace(data=bytes(whole))
