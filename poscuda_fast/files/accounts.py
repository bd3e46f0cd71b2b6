"""What protecting did to each file, added up piece by piece: the entries of a manifest."""

from __future__ import annotations

from typing import Protocol

from blake3 import blake3

from poscuda_fast.disk import Buffer
from poscuda_fast.files import filtering
from poscuda_fast.files.batches import Part
from poscuda_fast.files.records import Places, Record
from poscuda_fast.files.replacing import Marked
from poscuda_fast.mark import codings, snr
from poscuda_fast.results import Ratios
from poscuda_fast.undo.manifest import Entry


class Entries(Protocol):
    """Where entries go: `manifest.Writer` is one."""

    def add(self, name: str, entry: Entry) -> None:
        """Take the entry of one file."""


class Accounts:
    """Entries of files whose pieces come in order; they are written as soon as all of a file was seen."""

    def __init__(self, manifest: Entries) -> None:
        self._manifest = manifest
        self._sums: dict[str, _Sums] = {}
        self.ratios = Ratios()

    def add(self, part: Part, content: Buffer, dry: Buffer, wet: Buffer) -> None:
        """Take in a piece of an uncompressed file: its bytes with either form of its patches, and the forms."""
        record, places = part.record, Places(part.record)
        sums = self._sums_of(part)
        original = bytearray()
        for some in places.woven(content, dry, record.begin):
            original += some
        sums.before.update(original)
        for some in places.woven(content, wet, record.begin):
            sums.after.update(some)
        sums.signal += _energy(record, original)
        sums.noise += filtering.noise(dry, wet, record.coding)
        if record.is_last:
            self._finish(part, record.size, record.size, sums.after.hexdigest())

    def before(self, part: Part, content: Buffer) -> None:
        """Take in a piece of an encoded file."""
        self._sums_of(part).before.update(content)

    def after(self, part: Part, marked: Marked) -> None:
        """Take in the marked form of an encoded file."""
        sums = self._sums_of(part, again=False)
        sums.signal, sums.noise = marked.signal, marked.noise
        self._finish(part, part.record.size, marked.size, marked.digest)

    def _finish(self, part: Part, size: int, size_after: int, after: str) -> None:
        sums = self._sums.pop(part.record.name)
        snr_db = snr.ratio_db(sums.signal, sums.noise)
        self.ratios.add(part.record.name, snr_db)
        self._manifest.add(
            part.record.name,
            {
                "label": part.label,
                "bytes_before": size,
                "bytes_after": size_after,
                "blake3_before": sums.before.hexdigest(),
                "blake3_after": after,
                "snr_db": snr_db,
            },
        )

    def _sums_of(self, part: Part, *, again: bool = True) -> _Sums:
        """The sums of a file; new ones with its first piece."""
        if again and part.record.begin == 0:
            self._sums[part.record.name] = _Sums()
        return self._sums[part.record.name]


class _Sums:
    def __init__(self) -> None:
        self.before, self.after = blake3(), blake3()
        self.signal = self.noise = 0.0


def _energy(record: Record, content: Buffer) -> float:
    """Energy of the samples in a piece's bytes."""
    sound = memoryview(content)[record.sound]
    step = snr.SAMPLES_PER_STEP * codings.CODINGS[record.coding]
    parts = (codings.to_samples(sound[first : first + step], record.coding) for first in range(0, len(sound), step))
    return sum(map(snr.energy, parts))
