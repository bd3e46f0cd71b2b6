"""A set of audio files as something that `inplace` can edit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import dense, durability, listing, pcm, records, reencode, runs, wavedit
from poscuda_fast.encoded import Encoding, decode, encode
from poscuda_fast.inplace import Progress
from poscuda_fast.journal import Journal
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key
from poscuda_fast.listing import AudioFile
from poscuda_fast.manifest import Manifest
from poscuda_fast.memory import BATCH_BYTES, count
from poscuda_fast.plan import Plan
from poscuda_fast.records import Record
from poscuda_fast.report import Tally

FILES_PER_BATCH = 1000


class FileTarget:
    """Files below `root`, named in order; with `source` they are copied from there first.

    `taps` has a row for each class; `files`, `labels` and `plan` are there for protecting, and not
    needed to undo or to judge.
    """

    def __init__(
        self,
        root: Path,
        key: Key,
        taps: NDArray[np.float32],
        engine: Engine,
        progress: Progress | None,
        *,
        source: Path | None = None,
        files: list[AudioFile] | None = None,
        others: list[str] | None = None,
        labels: list[str | int] | None = None,
        plan: Plan | None = None,
        manifest: Path | None = None,
        n_files: int = 0,
    ) -> None:
        self._root = root
        self._key = key
        self._taps = taps
        self._engine = engine
        self._progress = progress
        self._source = source
        self._files = files or []
        self._others = others or []
        self._labels = dict(zip([file.output_name for file in self._files], labels or [], strict=False))
        self._plan = plan
        self._manifest = manifest
        self._n_files = n_files or len(self._files)
        self._applied: set[str] = set()
        self._touched: list[Path] = []
        self._entries: dict[str, dict[str, Any]] = {}
        self._skip: set[str] = set()
        self.tally = Tally()
        if plan is not None:
            self.tally = Tally(**plan.counts())

    def header(self) -> dict[str, Any]:
        return {
            "files": runs.keyed_mac(self._key, b"files", json.dumps([f.output_name for f in self._files]).encode()),
            **runs.describe("files", self._key, self._planned()),
            "copied": self._source is not None,
            "n_files": len(self._files),
        }

    def secret(self) -> bytes:
        return runs.seal(self._planned())

    def rehearse(self) -> None:
        """Count what protecting would do, and refuse what it would refuse, without a write."""
        root = self._source or self._root
        for number, file in enumerate(self._files):
            record, kept = self._take(root / file.name, number, file)
            self._filter(record, kept)
            self._advance(record)

    def examine(self) -> None:
        """Refuse what the headers do not show: encoded files that cannot be decoded, samples that are not finite."""
        root = self._source or self._root
        for number, file in enumerate(self._files):
            if file.coding == "FLOAT" or isinstance(file.layout, Encoding):
                record, kept = self._take(root / file.name, number, file)
                self._finite_samples(record, kept)

    def fresh(self) -> Iterator[bytes]:
        for name in self._others:
            self._copy(name, name)
        batch: list[tuple[Record, bytes]] = []
        size = 0
        for number, file in enumerate(self._files):
            if file.output_name in self._applied:
                continue
            self._stage(file)
            batch.append(self._take(self._root / file.output_name, number, file))
            size += batch[-1][0].kept
            if size >= BATCH_BYTES or len(batch) >= FILES_PER_BATCH:
                yield records.pack(batch)
                batch, size = [], 0
        if batch:
            yield records.pack(batch)

    def recheck(self, payload: bytes) -> list[str]:
        if self._source is None:
            return [name for name, verdict in self.judge(payload) if verdict in ("neither", "missing")]
        # A copy can be made again, and must be: a power cut may have lost bytes of the first one.
        by_name = {file.output_name: file for file in self._files}
        for record, _ in records.unpack(payload):
            self._stage(by_name[record.name])
        return [name for name, verdict in self.judge(payload) if verdict not in ("original", "equal")]

    def apply(self, payload: bytes) -> None:
        for record, kept in records.unpack(payload):
            path = self._root / record.name
            wet = self._filter(record, kept)
            outcome = _editor(record).apply(path, record, kept, wet, durable=self._source is None)
            self._entries[record.name] = {
                "label": self._labels[record.name],
                "bytes_before": record.size,
                "bytes_after": outcome.bytes_after,
                "sha256_before": record.sha256,
                "sha256_after": outcome.sha256_after,
                "snr_db": outcome.snr_db,
            }
            self._advance(record)

    def undo(self, payload: bytes) -> None:
        for record, kept in records.unpack(payload):
            if record.name in self._skip:
                continue
            _editor(record).undo(self._root / record.name, record, kept, durable=True)
            self._count(record, _editor(record).samples(record, kept))
            self._advance(record)

    def judge(self, payload: bytes) -> Iterator[tuple[str, str]]:
        """(name, verdict) for each file of a payload; the verdicts are those of `wavedit.judge`, and "missing"."""
        for record, kept in records.unpack(payload):
            path = self._root / record.name
            if not path.is_file() or path.is_symlink():
                yield record.name, "missing"
            else:
                yield record.name, _editor(record).judge(path, record, kept, self._taps, self._engine)

    def skip(self, names: list[str]) -> None:
        self._skip = set(names)

    def sync(self) -> None:
        if self._manifest is not None and self._plan is not None:
            Manifest(self._key.fingerprint, self._plan.recipe, self._entries).write(self._manifest)
        durability.sync_files(self._root, self._touched)

    def summary(self) -> dict[str, Any]:
        return {"counts": self.tally.to_dict()}

    def _stage(self, file: AudioFile) -> None:
        """Bring a file to where it will be edited; a lossy one as FLAC."""
        if self._source is None:
            return
        listing.refuse_exchanged(self._source / file.name, file)
        if not file.lossy:
            self._copy(file.name, file.output_name)
            listing.refuse_exchanged(self._source / file.name, file)
            return
        target = self._root / file.output_name
        target.parent.mkdir(parents=True, exist_ok=True)
        content = encode(decode((self._source / file.name).read_bytes(), file.name))
        durability.replace(target, content, mode=None, durable=False)

    def _copy(self, name: str, output_name: str) -> None:
        if self._source is not None:
            target = self._root / output_name
            target.parent.mkdir(parents=True, exist_ok=True)
            durability.copy(self._source / name, target)
            self._touched.append(target)

    def _take(self, path: Path, number: int, file: AudioFile) -> tuple[Record, bytes]:
        """The record of a file as it is now, and what is kept of it."""
        plan = self._planned()
        patches = plan.of_clip(number)
        layout = file.layout
        record = Record(
            name=file.output_name,
            row=int(patches.rows[0]) if len(patches) else 0,
            coding=file.coding,
            channels=layout.channels,
            frames=layout.frames,
            offset=layout.offset if isinstance(layout, pcm.WavLayout) else reencode.WHOLE,
            size=file.size,
            sha256="",
            starts=patches.starts.tolist(),
            sizes=patches.sizes.tolist(),
            kept=0,
        )
        if path == (self._source or self._root) / file.name:
            listing.refuse_exchanged(path, file)
        taken: tuple[Record, bytes] = _editor(record).take(path, record)
        return taken

    def _filter(self, record: Record, kept: bytes) -> NDArray[Any]:
        """The filtered patches of a record, counted."""
        dry = self._finite_samples(record, kept)
        wet, saturated = records.wet_samples(record, dry, self._taps, self._engine)
        self._count(record, dry)
        self.tally.saturated_samples += saturated
        return wet

    def _count(self, record: Record, dry: NDArray[Any]) -> None:
        patches = record.patches()
        count(self.tally, patches, dense.survey_dense(dry, patches, record.channels, self._engine))

    def _finite_samples(self, record: Record, kept: bytes) -> NDArray[Any]:
        """The original samples of a record's patches; ValueError if one is not finite."""
        dry: NDArray[Any] = _editor(record).samples(record, kept)
        if dry.dtype.kind == "f" and not np.isfinite(dry).all():
            raise ValueError(
                f"{record.name} has a NaN or infinite sample where it would be filtered; nothing was written. Repair "
                f"the file."
            )
        return dry

    def _planned(self) -> Plan:
        if self._plan is None:
            raise RuntimeError("a target that was read from a sidecar has no plan")
        return self._plan

    def _advance(self, record: Record) -> None:
        self._applied.add(record.name)
        self._touched.append(self._root / record.name)
        if self._progress is not None:
            self._progress(len(self._applied), self._n_files)


def recorded(journal: Journal, root: Path, key: Key, progress: Progress | None) -> FileTarget:
    """The target that a folder's sidecar was made for."""
    _, taps = runs.reopen(journal, "files")
    header = journal.header
    target = FileTarget(root, key, taps, Engine(threads=1), progress, n_files=header["n_files"])
    target.tally = Tally(**header["counts"])
    return target


def _editor(record: Record) -> ModuleType:
    """The module that edits a record's kind of file; both have the same functions."""
    return reencode if record.offset == reencode.WHOLE else wavedit
