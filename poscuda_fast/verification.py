"""What `verify` found: how many clips are original, protected, or neither."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

NAMES_SHOWN = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Verification:
    """Counts of clips or files by what they are; `str` shows them.

    Attributes
    ----------
    original, protected : int
        Equal, byte for byte, to what they were before, and to what protecting made of them.
    unchanged : int
        Equal to both: protecting changed nothing, as in silence.
    neither : tuple of str
        Names of those that are neither: changed since, or half written by a run that was stopped.
    missing : tuple of str
        Names of those that are gone.
    unlisted : tuple of str
        Names of audio files that the run does not know: they are not protected.
    state : str
        What the sidecar says of the run: "applying", "complete", "undoing", "undone", "final"; or
        "unknown" where it was not consulted.
    """

    original: int
    protected: int
    unchanged: int
    neither: tuple[str, ...]
    missing: tuple[str, ...]
    unlisted: tuple[str, ...]
    state: str

    @property
    def ok(self) -> bool:
        """Whether everything is there and is wholly original or wholly protected."""
        whole = self.original == 0 or self.protected == 0
        return not self.neither and not self.missing and not self.unlisted and whole

    @classmethod
    def of(cls, verdicts: Iterable[tuple[str, set[str]]], state: str, unlisted: Iterable[str] = ()) -> Verification:
        """Count names by the verdicts on their parts.

        A verdict is "original", "protected", "equal", "torn", "neither" or "missing".
        """
        original = protected = unchanged = 0
        neither, missing = [], []
        for name, seen in verdicts:
            if "missing" in seen:
                missing.append(name)
            elif seen & {"neither", "torn"} or {"original", "protected"} <= seen:
                neither.append(name)
            elif "original" in seen:
                original += 1
            elif "protected" in seen:
                protected += 1
            else:
                unchanged += 1
        return cls(original, protected, unchanged, tuple(neither), tuple(missing), tuple(unlisted), state)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {**dataclasses.asdict(self), "ok": self.ok}

    def __str__(self) -> str:
        lines = [
            f"{'original':<18} {self.original:,}",
            f"{'protected':<18} {self.protected:,}",
            f"{'unchanged':<18} {self.unchanged:,}",
            f"{'neither':<18} {len(self.neither):,}",
            f"{'missing':<18} {len(self.missing):,}",
            f"{'unlisted':<18} {len(self.unlisted):,}",
            f"{'run':<18} {self.state}",
        ]
        for title, names in (("neither", self.neither), ("missing", self.missing), ("unlisted", self.unlisted)):
            lines += [f"  {title}: {name}" for name in names[:NAMES_SHOWN]]
            if len(names) > NAMES_SHOWN:
                lines.append(f"  {title}: and {len(names) - NAMES_SHOWN:,} more")
        return "\n".join(lines)
