"""What a verb did: counts, never positions."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one call; `print(report)` shows it as a short table.

    Attributes
    ----------
    clips, classes, patches : int
        Clips in the data set, the classes they are of, and patches in them. One class alone gives a model
        nothing to mistake for the sound: look at how labels were found.
    frames_changed : int
        Frames inside patches that a mark can change: in format 1 those that were not silent, in format 2 all.
        Each holds one sample per channel.
    silent_patches : int
        Patches of zeros only: in format 1 filtering leaves zeros, so such a clip carries no mark there.
    saturated_samples : int
        Integer samples that the mark pushed beyond full scale and that were limited to it.
    short_clips : int
        Clips shorter than a patch, marked whole (empty clips have nothing to mark).
    seconds : float
        Time the call took.
    fingerprint : str
        Of the key.
    state : str
        "protected", "already protected", "restored", "partly restored", "already original", "final", or for a
        dry run "untouched".
    """

    clips: int
    classes: int
    patches: int
    frames_changed: int
    silent_patches: int
    saturated_samples: int
    short_clips: int
    seconds: float
    fingerprint: str
    state: str

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        rows = [
            ("state", self.state),
            ("clips", f"{self.clips:,}"),
            ("classes", f"{self.classes:,}"),
            ("patches", f"{self.patches:,}"),
            ("frames changed", f"{self.frames_changed:,}"),
            ("silent patches", f"{self.silent_patches:,}"),
            ("saturated samples", f"{self.saturated_samples:,}"),
            ("short clips", f"{self.short_clips:,}"),
            ("seconds", f"{self.seconds:.3f}"),
            ("key fingerprint", self.fingerprint),
        ]
        return "\n".join(f"{name:<18} {value}" for name, value in rows)


@dataclasses.dataclass(slots=True)
class Tally:
    """The counts of a report while they grow."""

    clips: int = 0
    classes: int = 0
    patches: int = 0
    frames_changed: int = 0
    silent_patches: int = 0
    saturated_samples: int = 0
    short_clips: int = 0

    def add(self, other: Tally) -> None:
        """Add the counts of some more clips."""
        for field, n in other.to_dict().items():
            setattr(self, field, getattr(self, field) + n)

    def to_dict(self) -> dict[str, int]:
        """The counts as plain JSON values."""
        return dataclasses.asdict(self)

    def report(self, state: str, fingerprint: str, seconds: float) -> Report:
        """The finished report."""
        return Report(**self.to_dict(), seconds=seconds, fingerprint=fingerprint, state=state)
