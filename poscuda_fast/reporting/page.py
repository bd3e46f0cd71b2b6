"""The page of a report: what was found, in words and numbers, put into its template."""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.resources
import math
from typing import NamedTuple

import numpy as np

import poscuda_fast
from poscuda_fast.journal import State
from poscuda_fast.recipe import UNIT_LEVEL, PaperRecipe, Recipe, StrongRecipe
from poscuda_fast.reporting.evaluation import ATTACK_COLUMNS, MISSING, MODEL_COLUMNS, QUALITY_COLUMNS, Evaluation
from poscuda_fast.reporting.histogram import HEIGHT, LEFT, WIDTH, histogram
from poscuda_fast.reporting.pictures import Picture, draw
from poscuda_fast.reporting.sounds import player, what_fits
from poscuda_fast.reporting.survey import Excerpt, Named, Survey

CLASSES_OPEN = 12  # more than these are folded away
TEMPLATE = "page.html"


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """What a report is about: its name, "files" or "clips", and what its sidecar says of the run."""

    name: str
    unit: str
    state: State
    recipe: Recipe
    fingerprint: str
    n_clips: int


class Shown(NamedTuple):
    """One clip that is shown."""

    name: str
    label: str
    snr: str
    seconds: str
    pictures: list[Picture]
    scale: Picture
    before: str
    after: str
    note: str


class Listing(NamedTuple):
    """One list of names."""

    title: str
    names: Named


def render(subject: Subject, survey: Survey, evaluation: Evaluation | None) -> str:
    """The page as text."""
    import jinja2  # noqa: PLC0415 - not needed but for a report

    text = (importlib.resources.files("poscuda_fast.reporting") / TEMPLATE).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    classes = [(str(row.label), f"{row.clips:,}", _db(row.median_db)) for row in survey.classes]
    page: str = environment.from_string(text).render(
        subject=subject,
        state=STATES[subject.state],
        about=_about(subject),
        recipe=recipe_in_words(subject.recipe),
        fields=[(name, "none" if value is None else str(value)) for name, value in subject.recipe.to_dict().items()],
        facts=_facts(subject, survey),
        histogram=histogram(survey.snr_db),
        left=LEFT,
        width=WIDTH,
        height=HEIGHT,
        classes=classes,
        classes_open=len(classes) <= CLASSES_OPEN,
        shown=_show(survey.worst),
        shown_title=_shown_title(subject.unit, len(survey.worst)),
        lists=_lists(subject.unit, survey),
        evaluation=evaluation,
        model_columns=MODEL_COLUMNS,
        attack_columns=ATTACK_COLUMNS,
        quality_columns=QUALITY_COLUMNS,
    )
    return page


STATES = {
    State.COMPLETE: "complete",
    State.APPLYING: "not finished: run protect again",
    State.UNDOING: "being undone: run restore again to finish",
}


def recipe_in_words(recipe: Recipe) -> str:
    """What was done to each clip, as a sentence or two."""
    if isinstance(recipe, StrongRecipe):
        level = 20 * math.log10(recipe.strength * UNIT_LEVEL)
        held = "" if recipe.hold == 1 else f", each of its samples held for {recipe.hold} frames"
        return (
            f"Format 2. Every class has a sound of its own, at {_db(level)} of full scale (strength "
            f"{recipe.strength:g}){held}. It is added in patches of {recipe.patch:,} frames, one for each "
            f"{recipe.every:,} frames."
        )
    if not isinstance(recipe, PaperRecipe):
        raise TypeError(f"recipe is a {type(recipe).__name__}; expected one of the two formats.")
    number = f"{recipe.patches:,} in each clip" if recipe.every is None else f"one for each {recipe.every:,} frames"
    centre = " Its centre tap is 1, which keeps most of the sound." if recipe.identity else ""
    return (
        f"Format 1, the paper's method. Patches of {recipe.patch:,} frames, {number}, are convolved with a filter of "
        f"their class of {recipe.taps:,} taps between 0 and {recipe.blur:g}.{centre}"
    )


def _about(subject: Subject) -> list[tuple[str, str]]:
    now = dt.datetime.now(dt.timezone.utc)
    return [
        ("Run", STATES[subject.state]),
        ("Key fingerprint", subject.fingerprint),
        ("Made by", f"poscuda-fast {poscuda_fast.__version__}"),
        ("Date", f"{now:%Y-%m-%d %H:%M} UTC"),
    ]


def _facts(subject: Subject, survey: Survey) -> list[tuple[str, str, str]]:
    """(value, name, remark) of each number at the top."""
    tally, verdicts = survey.tally, survey.verdicts
    share = 100 * tally.frames_changed / survey.frames if survey.frames else 0.0
    median, worst = (_db(value) for value in _percentiles(survey.snr_db))
    protected = verdicts["protected"]
    rest = [f"{verdicts[word]:,} {name}" for word, name in _VERDICTS if verdicts[word]]
    unknown = subject.n_clips - tally.clips
    rest += [f"{unknown:,} without a record" if subject.unit == "clips" else f"{unknown:,} not reached"] * (unknown > 0)
    return [
        (f"{subject.n_clips:,}", subject.unit, f"{protected:,} protected" + "".join(f", {part}" for part in rest)),
        (f"{tally.classes:,}", "class" if tally.classes == 1 else "classes", ""),
        (f"{tally.patches:,}", "patches", f"{share:.1f} % of all frames changed"),
        (median, "median SNR", f"of {len(survey.snr_db):,} {subject.unit} with sound"),
        (worst, "SNR of the worst 5 %", "or less"),
        (f"{tally.silent_patches:,}", "silent patches", "zeros only"),
        (f"{tally.saturated_samples:,}", "saturated samples", "limited to full scale"),
        (f"{tally.short_clips:,}", f"short {subject.unit}", f"shorter than a patch of {subject.recipe.patch:,} frames"),
    ]


_VERDICTS = (
    ("equal", "unchanged by protection"), ("original", "original"), ("torn", "half written"),
    ("neither", "changed since"), ("missing", "missing"),
)  # fmt: skip


def _percentiles(ratios: list[float]) -> tuple[float | None, float | None]:
    """Median, and what 5 % do not reach."""
    if not ratios:
        return None, None
    return float(np.median(ratios)), float(np.percentile(ratios, 5))


def _db(value: float | None) -> str:
    return MISSING if value is None else f"{value:.1f} dB".replace("-", "\N{MINUS SIGN}")


def _show(worst: list[Excerpt]) -> list[Shown]:
    seconds, most_channels = what_fits(worst)
    shown = []
    for excerpt in worst:
        part = excerpt.cut(seconds)
        pictures, scale = draw(part)
        heard = len(part.before) / part.sample_rate
        notes = [f"The first {heard:.1f} s are shown."] if heard < excerpt.seconds - 0.05 else []
        channels = part.before.shape[1]
        if channels > 1:
            shown_as = " and sounds are" if most_channels == 1 else " show"
            notes.append(f"Pictures{shown_as} the first of {channels} channels.")
        shown.append(
            Shown(
                excerpt.name,
                str(excerpt.label),
                _db(excerpt.snr_db),
                f"{excerpt.seconds:.2f} s",
                pictures,
                scale,
                player(part.before[:, :most_channels], part.sample_rate),
                player(part.after[:, :most_channels], part.sample_rate),
                " ".join(notes),
            )
        )
    return shown


def _shown_title(unit: str, n: int) -> str:
    return f"The {n} {unit} with the lowest SNR" if n > 1 else f"The {unit[:-1]} with the lowest SNR"


def _lists(unit: str, survey: Survey) -> list[Listing]:
    one = unit.capitalize()
    return [
        Listing(f"{one} with silent patches", survey.silent),
        Listing(f"{one} with saturated samples", survey.saturated),
        Listing(f"{one} shorter than a patch", survey.short),
        Listing(f"{one} that are not as the run left them", survey.changed),
        *(
            [Listing("Audio files that the run does not know: not protected", survey.unlisted)]
            if unit == "files"
            else []
        ),
    ]
