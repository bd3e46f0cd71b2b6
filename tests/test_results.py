"""What the verbs say: rounded, as tables, and in one set of words."""

from __future__ import annotations

import dataclasses
import functools
from html.parser import HTMLParser

import pytest

from poscuda_fast import Recipe, Report, Verdict, Verification
from poscuda_fast.recipe import chosen_recipe
from poscuda_fast.results import NAMES_SHOWN, Settings, Tally

COUNTS = Tally(1200, 3, patches=2400, frames_changed=576000, silent_patches=1, saturated_samples=2)
FILTERED = COUNTS.report("protected", Settings("0123456789abcdef", Recipe.paper().to_dict(), (16_000,)), 1.23456789)
ADDED = Tally(1200, 3, frames_changed=576000, not_finite_samples=7)
RUN = Settings("0123456789abcdef", Recipe.strong(0.25).to_dict(), (8_000, 16_000), rate_assumed=True)
REPORT = ADDED.report("protected", RUN, 1.23456789, ("one of them", "and another"))


class Cells(HTMLParser):
    """The texts of all cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.feed(text)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_seconds_are_rounded_where_they_are_shown_and_nowhere_else() -> None:
    assert "seconds=1.235," in repr(REPORT)
    assert "1.235\n" in str(REPORT)
    assert REPORT.seconds == REPORT.to_dict()["seconds"] == 1.23456789
    assert dataclasses.replace(REPORT, seconds=0.0).seconds == 0.0


def test_a_report_is_a_table() -> None:
    assert Cells(REPORT._repr_html_()).texts[:4] == ["state", "protected", "recipe", "format 2, strength 0.25"]
    assert dict(REPORT.rows())["sample rate"] == "8,000, 16,000 Hz (assumed)"
    assert [name for name, _ in REPORT.rows()] == [
        "state", "recipe", "sample rate", "clips", "classes", "frames changed", "saturated samples",
        "not finite samples", "seconds", "key fingerprint", "note", "note",
    ]  # fmt: skip


def test_a_report_on_format_1_counts_patches_and_knows_no_sample_rate() -> None:
    assert (FILTERED.sample_rates, FILTERED.rate_assumed) == ((), False)
    assert dict(FILTERED.rows())["recipe"] == "format 1, patch 240, taps 80, blur 0.01, patches 1, identity False"
    assert [name for name, _ in FILTERED.rows()] == [
        "state", "recipe", "clips", "classes", "frames changed", "saturated samples", "patches", "silent patches",
        "short clips", "seconds", "key fingerprint",
    ]  # fmt: skip


def test_a_report_says_if_there_is_a_single_class() -> None:
    report = Tally(3, 1).report("protected", RUN, 0.0, ("more",))
    assert report.notes == ("there is a single class: a model can learn nothing from the mark", "more")


def test_a_report_names_a_few_sample_rates() -> None:
    rates = tuple(range(8_000, 8_007))
    shown = dict(Tally(3, 2).report("protected", RUN._replace(sample_rates=rates), 0.0).rows())["sample rate"]
    assert shown == "8,000, 8,001, 8,002, 8,003 and 3 more Hz (assumed)"


def test_a_verification_is_a_table_whose_names_are_text() -> None:
    names = [f"<b>{n}" for n in range(NAMES_SHOWN + 2)]
    found = Verification.of([(name, Verdict.NEITHER) for name in names], "complete")
    cells = Cells(found._repr_html_()).texts
    assert cells[-4:] == ["  neither", names[NAMES_SHOWN - 1], "  neither", "and 2 more"]
    assert "<b>" not in found._repr_html_()
    assert "all in one form    no\n" in str(found)


@pytest.mark.parametrize(
    ("seen", "whole"),
    [
        (["ORIGINAL"], "ORIGINAL"), (["ORIGINAL", "UNCHANGED"], "ORIGINAL"),
        (["UNCHANGED", "PROTECTED"], "PROTECTED"), (["ORIGINAL", "PROTECTED"], "NEITHER"), (["TORN"], "NEITHER"),
        (["UNCHANGED", "NEITHER"], "NEITHER"), (["TORN", "PROTECTED"], "NEITHER"), (["NEITHER", "MISSING"], "MISSING"),
    ],
)  # fmt: skip
def test_witnesses_must_agree(seen: list[str], whole: str) -> None:
    for order in (seen, seen[::-1]):
        joined = functools.reduce(Verdict.joined, [Verdict[name] for name in order])
        found = Verification.of([("a", joined)], "unknown")
        counted = {
            "ORIGINAL": found.original, "PROTECTED": found.protected, "UNCHANGED": found.unchanged,
            "NEITHER": len(found.neither), "MISSING": len(found.missing),
        }  # fmt: skip
        assert counted == {**dict.fromkeys(counted, 0), whole: 1}


def test_verdicts_on_parts_are_joined_by_their_bits() -> None:
    assert Verdict.ORIGINAL & Verdict.UNCHANGED == Verdict.ORIGINAL
    assert Verdict.ORIGINAL & Verdict.PROTECTED == Verdict.NEITHER
    assert Verdict.of(original=True, protected=True) is Verdict.UNCHANGED
    assert Verdict.of(original=False, protected=False) is Verdict.NEITHER
    assert Verdict.of(original=False, protected=False, otherwise=Verdict.TORN) is Verdict.TORN
    assert [one for one in Verdict if one.is_whole] == [Verdict.ORIGINAL, Verdict.PROTECTED, Verdict.UNCHANGED]
    assert [one for one in Verdict if one.as_protected] == [Verdict.PROTECTED, Verdict.UNCHANGED]


@pytest.mark.parametrize("arguments", [(), (1.0,), (240, 80)])
def test_a_recipe_is_made_by_name(arguments: tuple[float, ...]) -> None:
    with pytest.raises(TypeError, match=r"use Recipe\.strong\(\.\.\.\), the default, or Recipe\.paper\(\.\.\.\)"):
        Recipe(*arguments)


def test_a_strength_beside_a_recipe_is_refused() -> None:
    with pytest.raises(ValueError, match=r"recipe is PaperRecipe\(.*\) and strength is 2; give one of them"):
        chosen_recipe(Recipe.paper(), 2)
    assert chosen_recipe(None, None) == Recipe.strong()
    assert chosen_recipe(None, 2) == Recipe.strong(2)
    assert isinstance(REPORT, Report)
