"""NAME.poscuda.json: what was protected and how, file by file; no key, no positions."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from blake3 import blake3

from poscuda_fast import attributes, disk
from poscuda_fast.errors import DatasetError
from poscuda_fast.recipe import Recipe
from poscuda_fast.results import Verdict

VERSION = 2
PIECE_BYTES = 1 << 20  # of a file that are read at a time
_ENTRY_FIELDS = {"label", "bytes_before", "bytes_after", "blake3_before", "blake3_after", "snr_db"}

Entry = Mapping[str, Any]
Described = TypeVar("Described")


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """The content of a manifest.

    Attributes
    ----------
    fingerprint : str
        The key's fingerprint.
    recipe : Recipe
        What was applied.
    files : dict
        For each relative path, or the name of an array: `label` (null for an array), `bytes_before`, `bytes_after`,
        `blake3_before`, `blake3_after`, and `snr_db`, the edit's signal-to-noise ratio over the whole clip in dB (null
        where nothing changed, and for an array).
    """

    fingerprint: str
    recipe: Recipe
    files: dict[str, dict[str, Any]]

    def write(self, path: Path, readers: attributes.Readers | None = None) -> None:
        """`write` the manifest to its file."""
        write(path, self.fingerprint, self.recipe, ((name, self.files[name]) for name in sorted(self.files)), readers)

    @classmethod
    def read(cls, path: Path, only: str | None = None) -> Manifest:
        """Read a manifest; DatasetError if it is damaged or newer, or names files outside its folder.

        `only` is the name that a single file has now: it may have been renamed with its manifest.
        """
        try:
            fields = json.loads(disk.read_regular(path))
            if fields["poscuda"] != VERSION:
                raise DatasetError(
                    f"The manifest {path} has version {fields['poscuda']!r} and this poscuda-fast reads version "
                    f"{VERSION}; use the version that wrote it."
                )
            files = fields["files"]
            if not all(map(_is_entry, files.values())):
                raise KeyError("an entry lacks a field, or has an impossible one")
            for name in files:
                if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                    raise DatasetError(f"The manifest {path} names {name!r}, outside its folder, so it is not used.")
            return cls(str(fields["fingerprint"]), Recipe.from_dict(fields["recipe"]), dict(named(files, only)))
        except DatasetError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DatasetError(
                f"The manifest {path} is damaged ({str(error)[:100]}); restore it from a backup."
            ) from None


def _is_entry(entry: object) -> bool:
    """Whether an entry has its fields, and label and digests that can be."""
    if not isinstance(entry, dict) or set(entry) != _ENTRY_FIELDS:
        return False
    label = entry["label"]
    if isinstance(label, str):
        label.encode("utf-8")  # ValueError for what is no text
    elif label is not None and (type(label) is not int or not 0 <= label < 2**64):
        return False
    return isinstance(entry["blake3_before"], str) and isinstance(entry["blake3_after"], str)


def named(files: Mapping[str, Described], only: str | None) -> Iterable[tuple[str, Described]]:
    """What describes files, by their names; `only` is the name that a single one has now."""
    return files.items() if only is None or len(files) != 1 else [(only, next(iter(files.values())))]


class Writer:
    """Writes a manifest entry by entry, in the order given; it takes the place of another when it is finished.

    Only the user can read it, and `readers`: those of the data that it describes.
    """

    def __init__(self, path: Path, fingerprint: str, recipe: Recipe, readers: attributes.Readers | None = None) -> None:
        self._path, self._readers, self._process = path, readers, os.getpid()
        fields = {"poscuda": VERSION, "fingerprint": fingerprint, "recipe": recipe.to_dict(), "files": {}}
        self._head, self._tail = json.dumps(fields, indent=1, ensure_ascii=False).split("{}")
        self._file: BinaryIO | None = None
        self._n = 0

    def add(self, name: str, entry: Entry) -> None:
        """Write the entry of one file."""
        self._write(_text(name, entry, first=self._n == 0))
        self._n += 1

    def finish(self) -> None:
        """Put the manifest in its place, durably, if it has an entry."""
        if not self._n:
            return
        self._write("\n }" + self._tail + "\n")
        file = self._opened
        file.flush()
        if self._readers is not None:
            attributes.give_readers(file.fileno(), self._readers)
        os.fsync(file.fileno())
        os.replace(disk.part_of(self._path), self._path)
        self.discard()
        disk.sync_folder(self._path.parent)

    def discard(self) -> None:
        """Delete what is not finished, but not in a fork: it is the first process's."""
        file, self._file = self._file, None
        if file is not None and os.getpid() != self._process:
            nowhere = os.open(os.devnull, os.O_WRONLY)  # for what it holds, which the first process writes
            os.dup2(nowhere, file.fileno())
            os.close(nowhere)
            file.close()
        elif file is not None:
            with contextlib.suppress(OSError):  # what could not be written is not needed any more
                file.close()
            disk.part_of(self._path).unlink(missing_ok=True)

    def _write(self, text: str) -> None:
        self._opened.write(text.encode())

    @property
    def _opened(self) -> BinaryIO:
        if self._file is None:
            part = disk.part_of(self._path)
            part.unlink(missing_ok=True)
            self._file = open(os.open(part, disk.CREATING, 0o600), "wb")  # noqa: SIM115 - closed by `discard`
            self._n = 0
            self._file.write(self._head.encode())
        return self._file


def write(
    path: Path,
    fingerprint: str,
    recipe: Recipe,
    entries: Iterable[tuple[str, Entry]],
    readers: attributes.Readers | None = None,
) -> None:
    """Write a manifest, atomically and durably; see `Writer`."""
    writer = Writer(path, fingerprint, recipe, readers)
    try:
        for name, entry in entries:
            writer.add(name, entry)
        writer.finish()
    finally:
        writer.discard()


def _text(name: str, entry: Entry, *, first: bool) -> str:
    """An entry as `json.dumps` with `indent=1` writes it; that takes longer than editing the files does."""
    quote = json.encoder.encode_basestring
    label = entry["label"]
    return (
        f"{'{' if first else ','}\n  {quote(name)}: {{\n"
        f'   "label": {quote(label) if isinstance(label, str) else _number(label)},\n'
        f'   "bytes_before": {entry["bytes_before"]},\n'
        f'   "bytes_after": {entry["bytes_after"]},\n'
        f'   "blake3_before": "{entry["blake3_before"]}",\n'
        f'   "blake3_after": "{entry["blake3_after"]}",\n'
        f'   "snr_db": {_number(entry["snr_db"])}\n'
        f"  }}"
    )


def _number(value: float | None) -> str:
    return "null" if value is None else repr(value)


def compare(found: str | None, entry: Mapping[str, Any]) -> Verdict:
    """The verdict on a file by its manifest entry; `found` is what `digest` returned for it."""
    if found is None:
        return Verdict.MISSING
    return Verdict.of(original=found == entry["blake3_before"], protected=found == entry["blake3_after"])


def digest(path: Path) -> str | None:
    """A file's BLAKE3 in hex; None if there is no regular file."""
    try:
        descriptor = os.open(path, disk.READING)
    except (OSError, ValueError):  # also a name that no file can have
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    whole = blake3()
    with open(descriptor, "rb", buffering=0) as file:
        while part := file.read(PIECE_BYTES):
            whole.update(part)
    return whole.hexdigest()
