"""One audio file in both forms, as reports and evaluations see it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from poscuda_fast.files.records import Record
from poscuda_fast.key import Key
from poscuda_fast.results import Tally, Verdict
from poscuda_fast.secrecy import Secret
from poscuda_fast.undo.record import keyed_mac


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class FileClip(Secret):
    """One file of a run, in both forms.

    Attributes
    ----------
    name : str
        Path below the folder, with "/".
    label : str or int
        Its class.
    verdict : Verdict
        What it is now.
    original, now : bytes or None
        The original file; None for an uncompressed file that is missing or has changed outside its patches. The
        file as it is now; None if it is missing.
    record : Record
        How its samples are stored.
    tally : Tally
        Its own counts of patches.
    noise : float
        Energy of the edit, in units of the stored samples.
    """

    name: str
    label: str | int
    verdict: Verdict
    original: bytes | None
    now: bytes | None
    record: Record
    tally: Tally
    noise: float


def mac_of_labels(key: Key, labels: Mapping[str, str | int]) -> str:
    """What tells the labels of some files by their names."""
    return keyed_mac(key, b"labels", json.dumps(sorted(labels.items()), ensure_ascii=False).encode())
