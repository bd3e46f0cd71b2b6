"""What can be refused before anything is written: what would fail later is tried on the files as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from poscuda_fast import disk
from poscuda_fast.files import encoded, filtering
from poscuda_fast.files.accounts import Accounts
from poscuda_fast.files.batches import FileBatch
from poscuda_fast.files.encoded import Encoding
from poscuda_fast.files.records import Places, Record
from poscuda_fast.files.table import FileTable, is_encoded
from poscuda_fast.files.target import FileTarget
from poscuda_fast.mark import packed
from poscuda_fast.mark.codings import to_samples
from poscuda_fast.mark.snr import ratio_db
from poscuda_fast.results import Ratios
from poscuda_fast.undo.manifest import Entry

MOST_NAME_BYTES = 255  # of Linux and macOS


def unsafe(root: Path, files: FileTable) -> Iterator[tuple[str, str]]:
    """(name, problem) of files of which editing in place would fail, or would change others too."""
    folders: dict[str, bool] = {}
    for file in files:
        path = f"{root}/{file.name}"
        links = os.stat(path, follow_symlinks=False).st_nlink
        if not disk.may_write(path):
            yield file.name, f"you may not read and write {file.name}; change its permissions"
        if links > 1:
            yield (
                file.name,
                f"{file.name} has {links} names (hard links), so an edit in place would change them all; copy it",
            )
        if isinstance(file.layout, Encoding):
            folder, _, last = file.name.rpartition("/")
            if folder not in folders:
                folders[folder] = os.access(f"{root}/{folder}", os.W_OK | os.X_OK)
            if not folders[folder]:
                yield (
                    file.name,
                    f"{file.name} would be replaced, and you may not write its folder; change its permissions",
                )
            if len(os.fsencode(disk.part_name(last))) > MOST_NAME_BYTES:
                yield (
                    file.name,
                    f"{file.name} would be replaced by way of a longer name, which is too long; shorten it",
                )


def unwritable(files: FileTable) -> Iterator[tuple[str, str]]:
    """(name, problem) of files that libsndfile can read but not write."""
    for file in files.of(is_encoded):
        reason = encoded.writing_problem(file.layout) if isinstance(file.layout, Encoding) else None
        if reason is not None:
            yield file.name, f"{file.name} cannot be used: {reason}"


def refuse_not_finite(target: FileTarget, left_out: dict[str, str] | None) -> None:
    """Find samples that format 1 cannot filter, since they are not finite.

    Their files go to `left_out` with the reason, if it is given; else ValueError.
    """
    if target.forms.marks.steady:
        return
    for batch in target.planned():
        contents = [b""] * len(batch.records) if batch.is_encoded else target.originals(batch)
        for number, record in enumerate(batch.records):
            try:
                if not record.is_encoded:  # those are integers
                    _refuse_non_finite(target, batch, contents, number)
            except ValueError as error:
                if left_out is None:
                    raise
                left_out[record.name] = str(error)


def rehearse(target: FileTarget) -> Ratios:
    """Count what protecting would do, without writing anything; returns the SNR of each file."""
    accounts = Accounts(_Nowhere())
    for batch in target.planned():
        if batch.is_encoded:
            for record in batch.records:
                if record.is_last:
                    accounts.ratios.add(record.name, _rehearsed(target, record))
        else:
            contents = target.originals(batch)
            wet = [memoryview(b"")] * len(batch.parts)
            for group in batch.groups:
                done = target.forms.fresh(group.join(contents, batch.records), group.stretches, target.tally)
                for number, marked in group.split(done.wet, batch.records):
                    wet[number] = marked
            for part, content, marked in zip(batch.parts, contents, wet, strict=True):
                accounts.add(part, content, Places(part.record).take(content, part.record.begin), marked)
        target.advance(batch)
    return accounts.ratios


class _Nowhere:
    """A manifest that is not written."""

    def add(self, name: str, entry: Entry) -> None:
        """Nothing."""


def _rehearsed(target: FileTarget, record: Record) -> float | None:
    """Count what protecting would do to an encoded file; returns its SNR."""
    with open(target.below.open(record.name, disk.READING), "rb") as source:
        done = encoded.rehearse(source, record, target.forms.marks, target.engine)
    target.tally.add(done.tally)
    return ratio_db(done.signal, done.noise)


def _refuse_non_finite(target: FileTarget, batch: FileBatch, contents: Sequence[bytes], number: int) -> None:
    part = FileBatch([batch.parts[number]], steady=False)
    for group in part.groups:
        if group.stretches.is_float:
            samples = to_samples(group.join([contents[number]], part.records).data, group.stretches.coding)
            patches, channels = group.stretches.patches, group.stretches.channels
            filtering.refuse_flagged(
                part.records[0].name, packed.survey_dense(samples, patches, channels, target.engine)
            )
