"""The page of a report: put what was found, in words and numbers, into its template."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import hashlib
import importlib.resources
from typing import NamedTuple

import numpy as np

import poscuda_fast
from poscuda_fast.mark.lines import level_db
from poscuda_fast.recipe import PaperRecipe, Recipe, StrongRecipe
from poscuda_fast.reporting.clips import clips_of, in_db
from poscuda_fast.reporting.evaluation import ATTACK_COLUMNS, MODEL_COLUMNS, QUALITY_COLUMNS, Evaluation
from poscuda_fast.reporting.histogram import HEIGHT, LEFT, WIDTH, histogram
from poscuda_fast.reporting.survey import Named, Survey
from poscuda_fast.results import Verdict
from poscuda_fast.text import noun, one_line
from poscuda_fast.undo.journal import State

CLASSES_OPEN = 12  # more classes than this are folded away
TEMPLATE, SCRIPT = "page.html", "blind.js"


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """What a report is about: its name, "files" or "clips", and what its sidecar says about the run.

    `sample_rate` is what is known about it, in words; empty if nothing is. `is_share` says whether only a share of
    the clips is marked.
    """

    name: str
    unit: str
    state: State
    recipe: Recipe
    fingerprint: str
    n_clips: int
    n_classes: int
    sample_rate: str
    is_share: bool = False


class Listing(NamedTuple):
    """One list of names."""

    title: str
    names: Named


def render(subject: Subject, survey: Survey, evaluation: Evaluation | None) -> str:
    """The page as text."""
    import jinja2  # noqa: PLC0415 - only a report needs it
    import markupsafe  # noqa: PLC0415 - it comes with jinja2

    files = importlib.resources.files("poscuda_fast.reporting")
    text, script = ((files / name).read_text(encoding="utf-8") for name in (TEMPLATE, SCRIPT))
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: one_line(value) if type(value) is str else value,  # not the script
    )
    shown = clips_of(subject.unit, survey)
    classes = [(str(row.label), f"{row.protected:,}", in_db(row.median_db)) for row in survey.classes]
    page: str = environment.from_string(text).render(
        subject=subject,
        about=_about(subject),
        secret="where the patches are" if isinstance(subject.recipe, PaperRecipe) else "the marks of the classes",
        recipe=recipe_in_words(subject.recipe),
        fields=[(name, "none" if value is None else str(value)) for name, value in subject.recipe.to_dict().items()],
        facts=_facts(subject, survey),
        histogram=histogram(survey.snr_db, subject.unit),
        without_ratio=_without_ratio(subject.unit, survey),
        left=LEFT,
        width=WIDTH,
        height=HEIGHT,
        classes=classes,
        classes_open=len(classes) <= CLASSES_OPEN,
        groups=shown.groups,
        scale=shown.scale,
        script=markupsafe.Markup(script),  # noqa: S704 - a file of this package
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        lists=_lists(subject, survey),
        evaluation=evaluation,
        model_columns=MODEL_COLUMNS,
        attack_columns=ATTACK_COLUMNS,
        quality_columns=QUALITY_COLUMNS,
    )
    return page


STATES = {
    State.COMPLETE: "complete",
    State.APPLYING: "not finished: run protect again",
    State.UNDOING: "undone in part: run restore again for the rest",
}


def recipe_in_words(recipe: Recipe) -> str:
    """What was done to each clip, as a sentence or two."""
    if isinstance(recipe, StrongRecipe):
        return (
            f"Format 2. Every class has two steady lines of its own, between 625 and 3,875 Hz. They are added along "
            f"the whole of each recording, at one level: together an RMS of {in_db(level_db(recipe))} of full scale "
            f"(strength {recipe.strength:g}; strength 1 is {in_db(level_db(Recipe.strong()))}). Which two depends "
            f"on the key and the class."
        )
    if not isinstance(recipe, PaperRecipe):
        raise TypeError(f"recipe is a {type(recipe).__name__}; expected one of the two formats.")
    number = f"{recipe.patches:,} in each clip" if recipe.every is None else f"one for each {recipe.every:,} frames"
    centre = " Its centre tap is 1, which keeps most of the sound." if recipe.identity else ""
    return (
        f"Format 1, the paper's method. Patches of {recipe.patch:,} frames, {number}, are convolved with the filter of "
        f"their class, {recipe.taps:,} taps between 0 and {recipe.blur:g}.{centre}"
    )


def _about(subject: Subject) -> list[tuple[str, str]]:
    now = dt.datetime.now(dt.timezone.utc)
    about = [("Run", STATES[subject.state]), ("Key fingerprint", subject.fingerprint)]
    if subject.sample_rate:
        about.append(("Sample rate", subject.sample_rate))
    about.append(("This page", f"made {now:%Y-%m-%d %H:%M} UTC by poscuda-fast {poscuda_fast.__version__}"))
    return about


def _facts(subject: Subject, survey: Survey) -> list[tuple[str, str, str]]:
    """(value, name, remark) of each number at the top."""
    unit, verdicts, n_ratios = subject.unit, survey.verdicts, len(survey.snr_db)
    median, low = (in_db(value) for value in _percentiles(survey.snr_db))
    words = [f"{verdicts[Verdict.PROTECTED]:,} protected"]
    words += [f"{verdicts[one]:,} {name}" for one, name in _VERDICTS if verdicts[one]]
    if subject.n_clips > survey.clips:
        words.append(f"{subject.n_clips - survey.clips:,} {_unrecorded(subject)}")
    first = [
        (f"{subject.n_clips:,}", noun(subject.n_clips, unit[:-1]), ", ".join(words)),
        (f"{subject.n_classes:,}", noun(subject.n_classes, "class", "classes"), ""),
    ]
    ratios = [
        (median, "median SNR", f"of {n_ratios:,} protected {noun(n_ratios, unit[:-1])} with sound"),
        (low, "5th percentile of the SNR", "1 in 20 has less"),
    ]
    n_saturated = survey.saturated_samples
    saturated = (f"{n_saturated:,}", noun(n_saturated, "saturated sample"), "limited to full scale")
    if not isinstance(subject.recipe, PaperRecipe):
        n_quiet, n_odd = sum(ratio < 0 for ratio in survey.snr_db), survey.not_finite_samples
        marked = (f"{survey.frames:,}", noun(survey.frames, "frame"), _all_marked(unit, survey))
        quiet = (f"{n_quiet:,}", noun(n_quiet, f"quiet {unit[:-1]}"), "quieter than the mark")
        odd = (f"{n_odd:,}", noun(n_odd, "sample"), "not finite, left as they were")
        return [*first, marked, *ratios, quiet, saturated, *([odd] if n_odd else [])]
    return [
        *first,
        (f"{survey.patches:,}", noun(survey.patches, "patch", "patches"), _share(unit, survey)),
        *ratios,
        (
            f"{survey.silent_patches:,}",
            noun(survey.silent_patches, "silent patch", "silent patches"),
            "zeros only: they carry no mark",
        ),
        saturated,
        (
            f"{survey.short.total:,}",
            noun(survey.short.total, f"short {unit[:-1]}"),
            f"shorter than a patch of {subject.recipe.patch:,} {noun(subject.recipe.patch, 'frame')}",
        ),
    ]


_VERDICTS = (
    (Verdict.UNCHANGED, "unchanged by protection"), (Verdict.ORIGINAL, "original"),
    (Verdict.TORN, "half written or changed"), (Verdict.NEITHER, "changed since"), (Verdict.MISSING, "missing"),
)  # fmt: skip


def _unrecorded(subject: Subject) -> str:
    """The word for clips without a record."""
    if subject.unit == "files":
        return "not reached"
    empty = "not in the share that is marked, or empty" if subject.is_share else "empty"
    return empty if subject.state is State.COMPLETE else f"{empty} or not reached"


def _all_marked(unit: str, survey: Survey) -> str:
    return f"of protected {unit}; all of them are marked" if survey.frames else f"no {unit[:-1]} is protected"


def _share(unit: str, survey: Survey) -> str:
    """The share of the known frames that are in patches."""
    if not survey.frames:
        return f"no {unit[:-1]} is protected"
    share = 100 * survey.patch_frames / survey.frames
    return f"{'at most ' * survey.at_least}{share:.1f} % of the frames of protected {unit} are in patches"


def _without_ratio(unit: str, survey: Survey) -> str:
    """Which protected clips the histogram leaves out; empty if none."""
    reasons = [
        f"{n:,} {noun(n, unit[:-1])} {why}"
        for n, why in ((survey.silent_before, "silent before"), (survey.not_finite, "with samples that are not finite"))
        if n
    ]
    return f"Left out, since they have no ratio: {', '.join(reasons)}." if reasons else ""


def _percentiles(ratios: list[float]) -> tuple[float | None, float | None]:
    """Median and 5th percentile."""
    if not ratios:
        return None, None
    return float(np.median(ratios)), float(np.percentile(ratios, 5))


def _lists(subject: Subject, survey: Survey) -> list[Listing]:
    units = subject.unit.capitalize()
    lists = [
        Listing(f"{units} with saturated samples", survey.saturated),
        Listing(f"{units} that are not in their protected state", survey.changed),
    ]
    if isinstance(subject.recipe, PaperRecipe):
        lists.insert(0, Listing(f"{units} with silent patches", survey.silent))
        lists.insert(2, Listing(f"{units} shorter than a patch", survey.short))
    if subject.unit == "files":
        reached = " or has not reached" if subject.n_clips > survey.clips else ""
        lists.append(Listing(f"Audio files that the run does not know{reached}: not protected", survey.unprotected))
    return lists
