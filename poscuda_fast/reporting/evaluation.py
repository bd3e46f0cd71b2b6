"""Read what `poscuda evaluate` stored, check it against the run, and prepare it for the page."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from poscuda_fast.errors import DatasetError
from poscuda_fast.evaluation.words import MEASURES
from poscuda_fast.recipe import Recipe

KIND, VERSION = "poscuda evaluation", 1
MISSING = "\N{EN DASH}"

Row = list[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation as texts.

    Attributes
    ----------
    word, sentence, uncertainty, date : str
        Its verdict and its date; empty if missing.
    data : list of (str, str)
        What it was made on.
    models, attacks, quality : list of list of str
        Rows of the tables; see `MODEL_COLUMNS`, `ATTACK_COLUMNS` and `QUALITY_COLUMNS`.
    """

    word: str
    sentence: str
    uncertainty: str
    date: str
    data: list[tuple[str, str]]
    models: list[Row]
    attacks: list[Row]
    quality: list[Row]


MODEL_COLUMNS = ("Model", "Clean", "Plain", "Default", "95 %", "Keyed", "Mis-keyed")
ATTACK_COLUMNS = ("Attack", "Model", "Protected", "95 % interval")
QUALITY_COLUMNS = ("Measure", "Unit", "Median", "Worst 5 %")
_DATA = {"training_clips": "Clips to train on", "test_clips": "Clips to test on", "classes": "Classes"}


def read_evaluation(path: str | os.PathLike[str], fingerprint: str, recipe: Recipe, labels: str) -> Evaluation:
    """Read an evaluation of a run; refuse one of another key, recipe, labels or lengths.

    Parameters
    ----------
    path : path
        The file that `poscuda evaluate` wrote.
    fingerprint : str
        Of the run's key.
    recipe : Recipe
        Of the run.
    labels : str
        The keyed MAC in the header of the run's sidecar, of all labels and lengths.

    Raises
    ------
    DatasetError
        The file is not an evaluation, is damaged, or is of another version, key or recipe, or of other clips.
    OSError
        The file cannot be read.
    """
    if not Path(path).is_file():
        raise DatasetError(f"{path} does not exist or is not a file; give what poscuda evaluate wrote.")
    try:
        fields = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not JSON ({str(error)[:100]}); give what poscuda evaluate wrote.") from None
    kind = fields.get("kind") if isinstance(fields, dict) else None
    if kind != KIND:
        raise DatasetError(f"{path} is of kind {kind!r}, not {KIND!r}; give what poscuda evaluate wrote.")
    if fields.get("version", VERSION) != VERSION:
        raise DatasetError(f"{path} has version {fields['version']!r}; update poscuda-fast.")
    if fields.get("fingerprint") != fingerprint:
        raise DatasetError(
            f"{path} evaluates the key {fields.get('fingerprint')!r}, and the data are protected with {fingerprint}; "
            f"give the evaluation of these data."
        )
    if fields.get("recipe") != recipe.to_dict():
        raise DatasetError(
            f"{path} evaluates the recipe {fields.get('recipe')!r}, and the data are protected with "
            f"{recipe.to_dict()!r}; evaluate again."
        )
    if fields.get("labels") != labels:
        raise DatasetError(
            f"{path} evaluates other clips: their labels or lengths are not those that were protected; give the "
            f"evaluation of these data."
        )
    try:
        return _prepare(fields)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise DatasetError(f"The evaluation {path} is damaged ({str(error)[:100]}); evaluate again.") from None


def _prepare(fields: dict[str, Any]) -> Evaluation:
    verdict, data = fields.get("verdict") or {}, fields.get("data") or {}
    facts = [(title, f"{int(data[name]):,}") for name, title in _DATA.items() if name in data]
    if "chance" in data:
        facts.append(("Accuracy by chance", f"{_percent(data['chance'])} %"))
    models = [
        [
            str(row["model"]),
            *(_percent(row.get(name)) for name in ("clean", "plain", "default")),
            _interval(row.get("protected_interval")),
            *(_percent(row.get(name)) for name in ("keyed", "miskeyed")),
        ]
        for row in fields.get("models") or []
    ]
    attacks = [
        [
            str(row["attack"]),
            str(row.get("model") or MISSING),
            _percent(row.get("protected")),
            _interval(row.get("protected_interval")),
        ]
        for row in fields.get("attacks") or []
    ]
    quality = [
        [
            MEASURES.get(name, name),
            str(one.get("unit") or MISSING),
            *(MISSING if one.get(end) is None else _number(float(one[end])) for end in ("median", "worst_5_percent")),
        ]
        for name, one in (fields.get("quality") or {}).items()
    ]
    word, sentence, uncertainty = (str(verdict.get(name) or "") for name in ("word", "sentence", "uncertainty"))
    return Evaluation(word, sentence, uncertainty, str(fields.get("date") or ""), facts, models, attacks, quality)


def _percent(value: Any) -> str:
    return MISSING if value is None else f"{float(value):.1f}"


def _interval(ends: Any) -> str:
    if ends is None:
        return MISSING
    low, high = ends
    return f"{_percent(low)} to {_percent(high)}"


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
