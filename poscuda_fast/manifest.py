"""poscuda.json: what was protected and how, file by file; no key, no positions."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from poscuda_fast import durability
from poscuda_fast.errors import DatasetError
from poscuda_fast.recipe import Recipe

VERSION = 1
_ENTRY_FIELDS = {"label", "bytes_before", "bytes_after", "sha256_before", "sha256_after", "snr_db"}


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """The content of a manifest.

    Attributes
    ----------
    fingerprint : str
        Of the key.
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
        """Put the manifest in its place, atomically and durably."""
        fields = {
            "poscuda": VERSION,
            "fingerprint": self.fingerprint,
            "recipe": self.recipe.to_dict(),
            "files": dict(sorted(self.files.items())),
        }
        text = json.dumps(fields, indent=1, ensure_ascii=False) + "\n"
        durability.replace(path, text.encode(), mode=None)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """A manifest from its file; DatasetError if it is damaged or newer."""
        try:
            fields = json.loads(path.read_bytes())
            if fields["poscuda"] != VERSION:
                raise DatasetError(f"The manifest {path} has version {fields['poscuda']!r}; update poscuda-fast.")
            files = fields["files"]
            if not all(set(entry) == _ENTRY_FIELDS for entry in files.values()):
                raise KeyError("an entry lacks a field")
            for name in files:
                if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                    raise DatasetError(f"The manifest {path} names {name!r}, which lies outside its folder; not used.")
            return cls(str(fields["fingerprint"]), Recipe.from_dict(fields["recipe"]), files)
        except DatasetError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DatasetError(
                f"The manifest {path} is damaged ({str(error)[:100]}); restore it from a backup."
            ) from None


def compare(path: Path, entry: Mapping[str, Any]) -> str:
    """The verdict on a file by its manifest entry."""
    if not path.is_file():
        return "missing"
    found = _digest(path)
    before, after = found == entry["sha256_before"], found == entry["sha256_after"]
    words = {(True, True): "equal", (True, False): "original", (False, True): "protected"}
    return words.get((before, after), "neither")


def _digest(path: Path) -> str:
    whole = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            whole.update(part)
    return whole.hexdigest()
