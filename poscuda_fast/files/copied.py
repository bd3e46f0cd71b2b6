"""The files of a copy beside their originals, which are where the copy was made from."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from blake3 import blake3

from poscuda_fast.errors import DatasetError
from poscuda_fast.files import copying, encoded, filtering, layouts
from poscuda_fast.files.clips import FileClip, mac_of_labels
from poscuda_fast.files.containers import Uncompressed
from poscuda_fast.files.paths import Paths
from poscuda_fast.files.records import WHOLE, Places, Record
from poscuda_fast.kernels import Engine
from poscuda_fast.mark.plan import make_plan
from poscuda_fast.mark.shares import of_names
from poscuda_fast.results import Tally
from poscuda_fast.undo import copies
from poscuda_fast.undo.copies import Output
from poscuda_fast.undo.journal import Journal
from poscuda_fast.undo.record import Run, recorded_share


class CopiedFiles(Run):
    """A copy of audio files; `paths` says where it is."""

    def __init__(self, journal: Journal, paths: Paths) -> None:
        super().__init__(journal, copies.COPY)
        if journal.header["of"] != copies.FILES:
            raise DatasetError(
                f"The sidecar {journal.path} belongs to the copy of an array, not to one of audio files."
            )
        self.paths = paths
        self._engine = Engine(threads=1)
        self.n_clips = len(self.labels_by_name())

    def labels_by_name(self) -> dict[str, str | int]:
        """The label of each audio file of the copy."""
        outputs = copies.read(self.journal, self.paths.output).outputs.values()
        return {output.name: output.label for output in outputs if output.label is not None}

    @property
    def labels_mac(self) -> str:
        """What tells names and labels of the copy, with its key."""
        return mac_of_labels(self.journal.key, self.labels_by_name())

    def clips(self, names: Collection[str] | None = None) -> Iterator[FileClip]:
        """Every audio file, or only those in `names`, in order and one at a time.

        DatasetError if a source is not as it was recorded.
        """
        data = copies.source_of(self.journal)
        outputs = copies.read(self.journal, self.paths.output).outputs
        for name in sorted(outputs if names is None else set(names) & set(outputs)):
            if outputs[name].label is not None:
                yield self._clip(outputs[name], copying.original_of(outputs[name], data))

    def unprotected(self, recorded: Collection[str]) -> list[str]:
        """Audio files in the copy that are not in `recorded`, and so are not protected."""
        found, _ = self.paths.find(may_be_empty=True)
        return [name for name in found if name not in recorded]

    def _clip(self, output: Output, original: bytes) -> FileClip:
        name, label = output.name, output.label
        assert label is not None  # noqa: S101 - chosen above
        now = _read(self.paths.root / name)
        verdict = output.verdict(None if now is None else blake3(now).hexdigest())
        layout = layouts.of_bytes(original, name)
        plan = make_plan(
            self.journal.key,
            self.recipe,
            [label],
            None,
            np.array([layout.frames], np.int64),
            np.array([layout.sample_rate], np.int64),
            of_names(self.journal.key, recorded_share(self.journal), [output.source]),
        )
        patches = plan.of_clip(0)
        offset = layout.offset if isinstance(layout, Uncompressed) else WHOLE
        record = Record(
            name=name,
            row=0,
            coding=layout.coding,
            channels=layout.channels,
            frames=layout.frames,
            offset=offset,
            size=len(original),
            begin=0,
            end=len(original),
            starts=patches.starts.tolist(),
            sizes=patches.sizes.tolist(),
        )
        tally, noise = Tally(), 0.0
        if isinstance(layout, Uncompressed):
            dry = Places(record).take(original)
            done = filtering.filter_together([record], [dry], plan.marks, self._engine, measuring=True)
            tally, noise = done.tally, done.noise[0]
        elif plan.marks_clip(0):
            with encoded.Reader(io.BytesIO(original), name) as reader:
                for before, after in encoded.marked(reader, record, plan.marks, self._engine, tally):
                    noise += filtering.edit_energy(before.reshape(-1), after.reshape(-1))
        return FileClip(name, label, verdict, original, now, record, tally, noise)


def _read(path: Path) -> bytes | None:
    """A file's bytes; None if there is no regular file."""
    try:
        with encoded.opened(str(path)) as file:
            return file.read()
    except (OSError, DatasetError):
        return None
