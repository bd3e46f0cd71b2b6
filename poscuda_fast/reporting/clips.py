"""The clips of the page: a typical one and the worst, with their pictures, sounds and words."""

from __future__ import annotations

import math
from typing import NamedTuple

from poscuda_fast.reporting.evaluation import MISSING
from poscuda_fast.reporting.pictures import Picture, draw, scale_to, top_of
from poscuda_fast.reporting.sounds import player, what_fits
from poscuda_fast.reporting.survey import Excerpt, Survey


class Shown(NamedTuple):
    """One clip that is shown, with a sound to each picture."""

    name: str
    label: str
    snr: str
    seconds: str
    pictures: list[Picture]
    sounds: list[str]
    note: str


class Group(NamedTuple):
    """Clips that are shown together, and what is said of them."""

    title: str
    remark: str
    clips: list[Shown]


class Clips(NamedTuple):
    """All that are shown, and the colours of all their spectrograms; None if there are none."""

    groups: list[Group]
    scale: Picture | None


def clips_of(unit: str, survey: Survey) -> Clips:
    """A typical clip, then those with the lowest SNR; one that is both is shown once. `unit` is "files" or "clips"."""
    one, typical, worst = unit[:-1], survey.typical, survey.worst
    remarks = ["Those that were silent before come first."] if survey.silent_before else []
    if not worst:
        remarks.append("There is nothing to show: nothing is protected, nothing changed, or samples are not finite.")
    title = f"The {len(worst)} {unit}" if len(worst) > 1 else f"The {one}" if worst else unit.capitalize()
    title = f"{title} with the lowest SNR"
    others = [excerpt for excerpt in worst if typical is None or excerpt.name != typical.name]
    if typical is None or not others:
        shown, scale = _show(worst)
        return Clips([Group(title, " ".join(remarks), shown)], scale)
    if len(others) < len(worst):
        remarks.append(f"The typical {one} above is one of them.")
    (first, *rest), scale = _show([typical, *others])
    nearest = Group(f"A typical {one}", f"The one whose SNR is nearest the median of all protected {unit}.", [first])
    return Clips([nearest, Group(title, " ".join(remarks), rest)], scale)


def _show(excerpts: list[Excerpt]) -> tuple[list[Shown], Picture | None]:
    if not excerpts:
        return [], None
    seconds, most_channels = what_fits(excerpts)
    parts = [excerpt.cut(seconds) for excerpt in excerpts]
    top = top_of(parts)
    return [_show_one(part, most_channels, top) for part in parts], scale_to(top)


def _show_one(part: Excerpt, most_channels: int, top: float) -> Shown:
    heard = len(part.before) / part.sample_rate
    notes = [f"The first {heard:.1f} s are shown."] if heard < part.seconds - 0.05 else []
    if part.at_least:
        notes.append("Lengths are not stored: what is shown may end with padding.")
    channels = part.before.shape[1]
    if channels > 1:
        notes.append(_which_channels(channels, most_channels))
    return Shown(
        part.name,
        str(part.label),
        "silent before: no ratio" if math.isinf(part.snr_db) else in_db(part.snr_db),
        _seconds(part),
        draw(part, top),
        [player(one[:, :most_channels], part.sample_rate) for one in (part.before, part.after, part.difference)],
        " ".join(notes),
    )


def in_db(value: float | None) -> str:
    """A level or ratio as text; a dash for None."""
    return MISSING if value is None else f"{value:.1f} dB".replace("-", "\N{MINUS SIGN}")


def _seconds(excerpt: Excerpt) -> str:
    if excerpt.seconds < 0.01:
        return "less than 0.01 s"
    return f"{'at least ' * excerpt.at_least}{excerpt.seconds:.2f} s"


def _which_channels(channels: int, most_heard: int) -> str:
    if most_heard == 1:
        return f"Pictures and sounds are the first of {channels} channels."
    sounds = f", sounds are the first {most_heard}" if channels > most_heard else ""
    return f"Pictures show the first of {channels} channels{sounds}."
