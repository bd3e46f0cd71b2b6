"""poscuda.json: what was protected and how, file by file; no key, no positions."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from poscuda_fast import disk
from poscuda_fast.errors import DatasetError
from poscuda_fast.recipe import Recipe
from poscuda_fast.results import Verdict

VERSION = 1
_ENTRY_FIELDS = {"label", "bytes_before", "bytes_after", "sha256_before", "sha256_after", "snr_db"}


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
        For each relative path: `label`, `bytes_before`, `bytes_after`, `sha256_before`,
        `sha256_after`, and `snr_db`, the edit's signal-to-noise ratio over the whole clip in dB
        (null where nothing changed).
    """

    fingerprint: str
    recipe: Recipe
    files: dict[str, dict[str, Any]]

    def write(self, path: Path) -> None:
        """Write the manifest to its file, atomically and durably."""
        disk.replace(path, (piece.encode() for piece in self._pieces()), mode=None)

    def _pieces(self) -> Iterator[str]:
        """The text of `json.dumps` with `indent=1`; that takes longer than editing the files does, and more memory."""
        fields = {"poscuda": VERSION, "fingerprint": self.fingerprint, "recipe": self.recipe.to_dict(), "files": {}}
        head, tail = json.dumps(fields, indent=1, ensure_ascii=False).split("{}")
        quote = json.encoder.encode_basestring
        yield head
        between = "{\n  "
        for name in sorted(self.files):
            entry = self.files[name]
            label, snr_db = entry["label"], entry["snr_db"]
            yield (
                f"{between}{quote(name)}: {{\n"
                f'   "label": {quote(label) if isinstance(label, str) else label},\n'
                f'   "bytes_before": {entry["bytes_before"]},\n'
                f'   "bytes_after": {entry["bytes_after"]},\n'
                f'   "sha256_before": "{entry["sha256_before"]}",\n'
                f'   "sha256_after": "{entry["sha256_after"]}",\n'
                f'   "snr_db": {"null" if snr_db is None else repr(snr_db)}\n'
                f"  }}"
            )
            between = ",\n  "
        yield ("\n }" if self.files else "{}") + tail + "\n"

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest; DatasetError if it is damaged or newer, or names files outside its folder."""
        try:
            fields = json.loads(path.read_bytes())
            if fields["poscuda"] != VERSION:
                raise DatasetError(f"The manifest {path} has version {fields['poscuda']!r}; update poscuda-fast.")
            files = fields["files"]
            if not all(set(entry) == _ENTRY_FIELDS for entry in files.values()):
                raise KeyError("an entry lacks a field")
            for name in files:
                if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                    raise DatasetError(f"The manifest {path} names {name!r}, outside its folder, so it is not used.")
            return cls(str(fields["fingerprint"]), Recipe.from_dict(fields["recipe"]), files)
        except DatasetError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DatasetError(
                f"The manifest {path} is damaged ({str(error)[:100]}); restore it from a backup."
            ) from None


def compare(found: str | None, entry: Mapping[str, Any]) -> Verdict:
    """The verdict on a file by its manifest entry; `found` is what `digest` returned for it."""
    if found is None:
        return Verdict.MISSING
    return Verdict.of(original=found == entry["sha256_before"], protected=found == entry["sha256_after"])


def digest(path: Path) -> str | None:
    """A file's SHA-256 in hex; None if there is no such file."""
    if not path.is_file():
        return None
    whole = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while part := file.read(1 << 20):
            whole.update(part)
    return whole.hexdigest()
