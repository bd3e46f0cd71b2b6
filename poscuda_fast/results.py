"""What the verbs return: reports, verifications, and verdicts on what a clip or a file is now."""

from __future__ import annotations

import dataclasses
import enum
import html
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from poscuda_fast.text import one_line

NAMES_SHOWN = 20
CLASSES_SHOWN = 12
MOST_ORIGINALS = 1000
RATES_SHOWN = 4
OPEN = ("applying", "undoing")  # states of a run that was stopped, or is at work

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

    def joined(self, other: Verdict) -> Verdict:
        """The verdict on what has this verdict and another one: MISSING if either is, else the form that both match."""
        if Verdict.MISSING in (self, other):
            return Verdict.MISSING
        return Verdict(self & other) if self.is_whole and other.is_whole else Verdict.NEITHER

    @property
    def as_protected(self) -> bool:
        """Whether the data are as protecting left them."""
        return self in (Verdict.PROTECTED, Verdict.UNCHANGED)

    @property
    def is_whole(self) -> bool:
        """Whether the data are one of the two forms, or both."""
        return Verdict.ORIGINAL <= self <= Verdict.UNCHANGED


def table(rows: Iterable[tuple[str, object]], width: int = 18) -> str:
    """Names and values, one a line, whatever they hold."""
    return "\n".join(f"{one_line(name):<{width}} {one_line(str(value))}" for name, value in rows)


class Shown:
    """A result that prints as a short table, and as an HTML table in a notebook."""

    __slots__ = ()

    def rows(self) -> Iterator[tuple[str, str]]:
        """The table, as (name, value)."""
        raise NotImplementedError

    def __str__(self) -> str:
        return table(self.rows())

    def _repr_html_(self) -> str:
        cells = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in self.rows())
        return f"<table>{''.join(cells)}</table>"


class Settings(NamedTuple):
    """With what clips were protected: the key's fingerprint, the recipe's fields, the sample rates in Hz.

    And how many clips each class has, by its label, where labels were given.
    """

    fingerprint: str
    recipe: dict[str, Any]
    sample_rates: tuple[int, ...]
    rate_assumed: bool = False
    class_sizes: tuple[tuple[str | int, int], ...] = ()


class Ratios:
    """The SNR of each file that was marked, in 4 bytes each, and the lowest with its name."""

    def __init__(self) -> None:
        self._values = array("f")
        self._lowest: tuple[float, str] | None = None

    def add(self, name: str, snr_db: float | None) -> None:
        """Take in a file; None, where nothing changed, is left out."""
        if snr_db is None or math.isnan(snr_db):
            return
        self._values.append(snr_db)
        if self._lowest is None or snr_db < self._lowest[0]:
            self._lowest = snr_db, name

    def summary(self) -> dict[str, Any]:
        """The fields of a report."""
        if self._lowest is None:
            return {}
        lowest, name = self._lowest
        ordered, n = sorted(self._values), len(self._values)
        median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
        return {"snr_db_median": round(median, 2), "snr_db_lowest": round(lowest, 2), "lowest_snr_file": name}


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Report(Shown):
    """The outcome of one call: counts, never positions. `print(report)` shows it as a short table.

    Attributes
    ----------
    clips, classes : int
        Clips in the data set, and their classes.
    frames_changed : int
        Frames that the mark can change: in format 2 all, in format 1 those of patches that are not silent. Each holds
        one sample per channel.
    saturated_samples : int
        Integer samples that the mark pushed beyond full scale, and that were limited to it.
    not_finite_samples : int
        NaN and infinite samples that format 2 left as they are.
    patches, silent_patches, short_clips : int
        In format 1: patches, those of them that hold only zeros, which stay zeros, and clips shorter than a patch,
        which are filtered whole. In format 2 always 0.
    recipe : dict
        The fields of the recipe, with the format's number.
    sample_rates : tuple of int
        In format 2, the different sample rates of the clips in Hz; empty in format 1, which knows none.
    rate_assumed : bool
        Whether nobody gave the sample rate, so that it was taken to be 16,000 Hz.
    notes : tuple of str
        What should be known before the data are published, such as clips that are quieter than their mark.
    seconds : float
        Time the call took.
    fingerprint : str
        Fingerprint of the key.
    state : str
        "protected", "already protected", "restored", "partly restored", "already original", "final", or for a
        dry run "untouched".
    left_out : tuple of str
        Files that `partial` left out, each with the reason.
    unprotected : tuple of str
        Audio files that `skip_unusable` left unprotected, each with the reason.
    class_sizes : tuple of (str or int, int)
        Label and number of clips of each class, where labels were given, in the order of labels.
    untagged : int
        Clips that were left as they are, since only a share was to be marked.
    snr_db_median, snr_db_lowest, lowest_snr_file : float, float, str or None
        Of audio files that this call marked: the median of their SNR over the whole clip in dB, the lowest, and whose.
    """

    clips: int
    classes: int
    patches: int
    frames_changed: int
    silent_patches: int
    saturated_samples: int
    not_finite_samples: int
    short_clips: int
    recipe: dict[str, Any]
    sample_rates: tuple[int, ...]
    rate_assumed: bool
    notes: tuple[str, ...]
    seconds: float
    fingerprint: str
    state: str
    left_out: tuple[str, ...] = ()
    unprotected: tuple[str, ...] = ()
    class_sizes: tuple[tuple[str | int, int], ...] = ()
    snr_db_median: float | None = None
    snr_db_lowest: float | None = None
    lowest_snr_file: str | None = None
    untagged: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return dataclasses.asdict(self)

    def rows(self) -> Iterator[tuple[str, str]]:
        """The table, as (name, value)."""
        yield "state", self.state
        yield "recipe", recipe_in_words(self.recipe)
        if self.sample_rates:
            rates = ", ".join(f"{rate:,}" for rate in self.sample_rates[:RATES_SHOWN])
            more = f" and {len(self.sample_rates) - RATES_SHOWN} more" if len(self.sample_rates) > RATES_SHOWN else ""
            yield "sample rate", f"{rates}{more} Hz{' (assumed)' * self.rate_assumed}"
        shown = ["clips", "classes", "frames_changed", "saturated_samples"]
        if self.untagged:
            shown.insert(1, "untagged")
        if self.not_finite_samples:
            shown.append("not_finite_samples")
        if not self.sample_rates:
            shown += ["patches", "silent_patches", "short_clips"]
        for name in shown:
            sizes = f": {_sizes_shown(self.class_sizes)}" if name == "classes" and self.class_sizes else ""
            yield name.replace("_", " "), f"{getattr(self, name):,}{sizes}"
        if self.snr_db_median is not None:
            lowest = f"{self.snr_db_lowest:.1f} dB ({self.lowest_snr_file})"
            yield "SNR", f"median {self.snr_db_median:.1f} dB, lowest {lowest}"
        yield "seconds", f"{self.seconds:.3f}"
        yield "key fingerprint", self.fingerprint
        if self.left_out:
            yield "left out", f"{len(self.left_out):,}"
            yield from _listed("left out", self.left_out)
        if self.unprotected:
            yield "left unprotected", f"{len(self.unprotected):,}"
            yield from _listed("unprotected", self.unprotected)
        for note in self.notes:
            yield "note", note

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
    not_finite_samples: int = 0
    short_clips: int = 0
    untagged: int = 0

    def add(self, other: Tally) -> None:
        """Add the counts of some more clips."""
        for field, n in other.to_dict().items():
            setattr(self, field, getattr(self, field) + n)

    def to_dict(self) -> dict[str, int]:
        """The counts as plain JSON values."""
        return dataclasses.asdict(self)

    def report(
        self,
        state: str,
        settings: Settings,
        seconds: float,
        notes: tuple[str, ...] = (),
        left_out: tuple[str, ...] = (),
        unprotected: tuple[str, ...] = (),
        ratios: Ratios | None = None,
    ) -> Report:
        """The finished report."""
        rates = settings.sample_rates if settings.recipe["format"] != 1 else ()
        if self.classes == 1:
            notes = ("there is a single class: a model can learn nothing from the mark", *notes)
        summary: dict[str, Any] = {} if ratios is None else ratios.summary()
        return Report(
            **self.to_dict(),
            recipe=settings.recipe,
            sample_rates=rates,
            rate_assumed=settings.rate_assumed and bool(rates),
            notes=notes,
            seconds=seconds,
            fingerprint=settings.fingerprint,
            state=state,
            left_out=left_out,
            unprotected=unprotected,
            class_sizes=settings.class_sizes,
            snr_db_median=summary.get("snr_db_median"),
            snr_db_lowest=summary.get("snr_db_lowest"),
            lowest_snr_file=summary.get("lowest_snr_file"),
        )


def recipe_in_words(recipe: Mapping[str, Any]) -> str:
    """The fields of a recipe as they are shown."""
    fields = {name: value for name, value in recipe.items() if name != "format" and value is not None}
    return ", ".join([f"format {recipe['format']}", *(f"{name} {_short(value)}" for name, value in fields.items())])


def _sizes_shown(sizes: tuple[tuple[str | int, int], ...]) -> str:
    """The first classes with their numbers of clips."""
    shown = ", ".join(f"{label} ({n:,})" for label, n in sizes[:CLASSES_SHOWN])
    return shown + (f" and {len(sizes) - CLASSES_SHOWN:,} more" if len(sizes) > CLASSES_SHOWN else "")


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclasses.dataclass(frozen=True, slots=True)
class Verification(Shown):
    """What a verify found: how many clips or files are in which form. `print(verification)` shows it as a short table.

    Attributes
    ----------
    original, protected : int
        How many equal their original form, and their protected form, byte for byte.
    unchanged : int
        How many equal both: protecting changed nothing, as format 1 in silence, or where only a share was to be marked.
    neither : tuple of str
        Names of those that match neither: changed since, or half written by a run that was stopped.
    missing : tuple of str
        Names of those that are gone.
    originals : tuple of str
        Names of the original ones, the first 1,000, where others are protected.
    unprotected : tuple of str
        Names of audio files that the run did not reach yet, or that were added since: they are not protected.
    state : str
        The run's state in the sidecar: "applying", "complete", "undoing", "undone", "final"; or "unknown" if no
        sidecar was read.
    """

    original: int
    protected: int
    unchanged: int
    neither: tuple[str, ...]
    missing: tuple[str, ...]
    unprotected: tuple[str, ...]
    state: str
    originals: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no run is open, nothing is missing, and everything is original, or everything is protected."""
        return self.recorded_ok and not self.unprotected

    @property
    def recorded_ok(self) -> bool:
        """The same of what is recorded alone, whatever audio files are `unprotected` beside it."""
        one_form = (self.original == 0 or self.protected == 0) and self.state not in OPEN
        return not self.neither and not self.missing and one_form

    @classmethod
    def of(cls, verdicts: Iterable[tuple[str, Verdict]], state: str, unprotected: Iterable[str] = ()) -> Verification:
        """Count names by their verdicts, each name once."""
        counts = dict.fromkeys(Verdict, 0)
        neither: list[str] = []
        missing: list[str] = []
        originals: list[str] = []
        for name, verdict in verdicts:
            counts[verdict] += 1
            if verdict is Verdict.ORIGINAL and len(originals) < MOST_ORIGINALS:
                originals.append(name)
            if verdict is Verdict.MISSING:
                missing.append(name)
            elif not verdict.is_whole:
                neither.append(name)
        return cls(
            counts[Verdict.ORIGINAL],
            counts[Verdict.PROTECTED],
            counts[Verdict.UNCHANGED],
            tuple(neither),
            tuple(missing),
            tuple(unprotected),
            state,
            tuple(originals) if counts[Verdict.PROTECTED] else (),
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {**dataclasses.asdict(self), "ok": self.ok}

    def rows(self) -> Iterator[tuple[str, str]]:
        """The table, as (name, value), with the first few names of each kind."""
        lists = {"neither": self.neither, "missing": self.missing, "left unprotected": self.unprotected}
        for name in ("original", "protected", "unchanged"):
            yield name, f"{getattr(self, name):,}"
        for name, names in lists.items():
            yield name, f"{len(names):,}"
        yield "run", f"{self.state}{': run the same command again to finish it' * (self.state in OPEN)}"
        yield "all in one form", "yes" if self.ok else "no"
        for name, names in {"original": self.originals, **lists}.items():
            yield from _listed(name, names)


def _listed(title: str, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Rows with the first few names of a list."""
    yield from ((f"  {title}", name) for name in names[:NAMES_SHOWN])
    if len(names) > NAMES_SHOWN:
        yield f"  {title}", f"and {len(names) - NAMES_SHOWN:,} more"
