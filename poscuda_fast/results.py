"""What the verbs return: reports, verifications, and verdicts on what a clip or a file is now."""

from __future__ import annotations

import dataclasses
import enum
import html
from collections.abc import Callable, Iterable, Iterator
from typing import Any

NAMES_SHOWN = 20

Progress = Callable[[int, int], None]  # called with (steps done, steps in all)


class Verdict(enum.IntEnum):
    """What a patch, a clip or a file is now: its original form, its protected form, both or neither.

    ORIGINAL and PROTECTED are bits: the verdict on a clip or file is the `&` of the verdicts on its parts.
    """

    NEITHER = 0  # changed since
    ORIGINAL = 1
    PROTECTED = 2
    UNCHANGED = 3  # both: protecting changed nothing, as format 1 in silence
    TORN = 4  # half written, but only inside patches
    MISSING = 5

    @classmethod
    def of(cls, *, original: bool, protected: bool, otherwise: int = NEITHER) -> Verdict:
        """The verdict on data compared with both forms; `otherwise` if they match neither."""
        return cls(cls.ORIGINAL * original | cls.PROTECTED * protected or otherwise)

    @property
    def as_protected(self) -> bool:
        """Whether the data are as protecting left them."""
        return self in (Verdict.PROTECTED, Verdict.UNCHANGED)

    @property
    def is_whole(self) -> bool:
        """Whether the data are one of the two forms, or both."""
        return Verdict.ORIGINAL <= self <= Verdict.UNCHANGED


class Shown:
    """A result that prints as a short table, and as an HTML table in a notebook."""

    __slots__ = ()

    def rows(self) -> Iterator[tuple[str, str]]:
        """The table, as (name, value)."""
        raise NotImplementedError

    def __str__(self) -> str:
        return "\n".join(f"{name:<18} {value}" for name, value in self.rows())

    def _repr_html_(self) -> str:
        cells = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in self.rows())
        return f"<table>{''.join(cells)}</table>"


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Report(Shown):
    """The outcome of one call: counts, never positions. `print(report)` shows it as a short table.

    Attributes
    ----------
    clips, classes, patches : int
        Clips in the data set, their classes, and the patches in them. With a single class there is nothing for a model
        to learn instead of the sound: check where the labels came from.
    frames_changed : int
        Frames of the patches that a mark can change: in format 1 those that are not silent, in format 2 all.
        Each holds one sample per channel.
    silent_patches : int
        Patches that hold only zeros. Format 1 leaves them unmarked: a filter turns zeros into zeros.
    saturated_samples : int
        Integer samples that the mark pushed beyond full scale, and that were limited to it.
    short_clips : int
        Clips shorter than a patch, marked whole (empty clips have nothing to mark).
    seconds : float
        Time the call took.
    fingerprint : str
        Fingerprint of the key.
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

    def rows(self) -> Iterator[tuple[str, str]]:
        """The table, as (name, value)."""
        yield "state", self.state
        for name in ("clips", "classes", "patches", "frames_changed", "silent_patches", "saturated_samples"):
            yield name.replace("_", " "), f"{getattr(self, name):,}"
        yield "short clips", f"{self.short_clips:,}"
        yield "seconds", f"{self.seconds:.3f}"
        yield "key fingerprint", self.fingerprint

    def __repr__(self) -> str:
        fields = {**self.to_dict(), "seconds": round(self.seconds, 3)}
        return f"Report({', '.join(f'{name}={value!r}' for name, value in fields.items())})"


@dataclasses.dataclass(slots=True)
class Tally:
    """The counts of a report while they are being added up."""

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


@dataclasses.dataclass(frozen=True, slots=True)
class Verification(Shown):
    """What a verify found: how many clips or files are in which form. `print(verification)` shows it as a short table.

    Attributes
    ----------
    original, protected : int
        How many equal their original form, and their protected form, byte for byte.
    unchanged : int
        How many equal both: protecting changed nothing, as format 1 in silence.
    neither : tuple of str
        Names of those that match neither: changed since, or half written by a run that was stopped.
    missing : tuple of str
        Names of those that are gone.
    unlisted : tuple of str
        Names of audio files that were not part of the run: they are not protected.
    state : str
        The run's state in the sidecar: "applying", "complete", "undoing", "undone", "final"; or "unknown" if no
        sidecar was read.
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
        """Whether nothing is missing and everything is original, or everything is protected."""
        one_form = self.original == 0 or self.protected == 0
        return not self.neither and not self.missing and not self.unlisted and one_form

    @classmethod
    def of(
        cls, verdicts: Iterable[tuple[str, Iterable[Verdict]]], state: str, unlisted: Iterable[str] = ()
    ) -> Verification:
        """Count names by their verdicts; several for one name, of its parts or from several sources, must agree."""
        names: dict[Verdict, list[str]] = {verdict: [] for verdict in Verdict}
        for name, seen in verdicts:
            names[_together(seen)].append(name)
        return cls(
            len(names[Verdict.ORIGINAL]),
            len(names[Verdict.PROTECTED]),
            len(names[Verdict.UNCHANGED]),
            tuple(names[Verdict.NEITHER]),
            tuple(names[Verdict.MISSING]),
            tuple(unlisted),
            state,
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {**dataclasses.asdict(self), "ok": self.ok}

    def rows(self) -> Iterator[tuple[str, str]]:
        """The table, as (name, value), with the first few names of each kind."""
        lists = {"neither": self.neither, "missing": self.missing, "unlisted": self.unlisted}
        for name in ("original", "protected", "unchanged"):
            yield name, f"{getattr(self, name):,}"
        for name, names in lists.items():
            yield name, f"{len(names):,}"
        yield "run", self.state
        yield "all in one form", "yes" if self.ok else "no"
        for name, names in lists.items():
            yield from ((f"  {name}", _one_line(shown)) for shown in names[:NAMES_SHOWN])
            if len(names) > NAMES_SHOWN:
                yield f"  {name}", f"and {len(names) - NAMES_SHOWN:,} more"


def _one_line(name: str) -> str:
    """A name that cannot be taken for other lines, nor move the cursor of a terminal."""
    return name if name.isprintable() else repr(name)


def _together(verdicts: Iterable[Verdict]) -> Verdict:
    """One verdict from several: MISSING if one is, otherwise the form that all of them match."""
    whole = Verdict.UNCHANGED
    for verdict in verdicts:
        if verdict is Verdict.MISSING:
            return verdict
        whole = Verdict(whole & verdict) if verdict.is_whole else Verdict.NEITHER
    return whole
