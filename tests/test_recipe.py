"""Recipes: what is accepted, what is refused, and that equal ones are equal."""

from __future__ import annotations

import dataclasses
import json
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poscuda_fast import Recipe
from poscuda_fast.recipe import MAX_FIELD, MAX_FLOAT, MAX_TAPS, check_rate, check_snr

LIMITS = {"patch": (1, MAX_FIELD), "taps": (1, MAX_TAPS), "patches": (1, MAX_FIELD), "every": (240, MAX_FIELD)}

recipes = st.builds(
    lambda patch, extra, patches, **rest: Recipe.paper(
        patch=patch, **({"patches": patches} if extra is None else {"every": patch + extra}), **rest
    ),
    patch=st.integers(1, 2**30),
    taps=st.integers(1, MAX_TAPS),
    blur=st.floats(0.0, MAX_FLOAT, exclude_min=True),
    extra=st.none() | st.integers(0, 2**30 - 1),
    patches=st.integers(1, MAX_FIELD),
    identity=st.booleans(),
)


def test_the_defaults_are_the_formats() -> None:
    fields = {"patch": 240, "taps": 80, "blur": 0.01, "patches": 1, "every": None, "identity": False}
    assert dataclasses.asdict(Recipe.paper()) == fields
    assert Recipe.paper().to_dict() == {"format": 1, **fields}


@pytest.mark.parametrize("field", LIMITS)
def test_whole_numbers_to_both_limits(field) -> None:
    for value in LIMITS[field]:
        for number in (value, np.int64(value), np.uint32(value)):
            kept = getattr(Recipe.paper(**{field: number}), field)
            assert kept == value
            assert type(kept) is int


@pytest.mark.parametrize("field", LIMITS)
def test_numbers_out_of_range_are_refused(field) -> None:
    least, most = LIMITS[field]
    for value in (least - 1, 0, -1, -(2**63), most + 1, 2**64, 10**400, np.int16(-5)):
        with pytest.raises(ValueError, match=rf"Recipe\.{field} is {int(value)}; it must be from {least} to {most}"):
            Recipe.paper(**{field: value})


@pytest.mark.parametrize("field", LIMITS)
@pytest.mark.parametrize(
    "value",
    [True, False, np.True_, 240.0, np.float64(240), "240", b"240", [240], Fraction(240), math.nan, np.array(240)],
)
def test_other_types_are_not_whole_numbers(field, value) -> None:
    with pytest.raises(TypeError, match=rf"Recipe\.{field} is .*; it must be a whole number") as caught:
        Recipe.paper(**{field: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("field", ["patch", "taps", "patches", "blur", "identity"])
def test_none_is_refused_but_for_every(field) -> None:
    with pytest.raises(TypeError, match=rf"Recipe\.{field} is None"):
        Recipe.paper(**{field: None})


@pytest.mark.parametrize("patch", [1, 240, 4000])
def test_every_is_at_least_a_patch(patch) -> None:
    assert Recipe.paper(patch=patch, every=patch).every == patch
    with pytest.raises(ValueError, match=rf"Recipe\.every is {patch - 1}; it must be from {patch}"):
        Recipe.paper(patch=patch, every=patch - 1)


def test_patches_and_every_exclude_each_other() -> None:
    assert Recipe.paper(patches=1, every=4000).every == 4000
    with pytest.raises(ValueError, match="got patches=2 and every=4000; give one of the two"):
        Recipe.paper(patches=2, every=4000)


@pytest.mark.parametrize("blur", [5e-324, 0.01, 1, 2**70, MAX_FLOAT, np.float32(0.5), np.float64(0.3), np.int8(1)])
def test_a_blur_is_any_positive_number_that_float32_holds(blur) -> None:
    assert Recipe.paper(blur=blur).blur == float(blur)
    assert type(Recipe.paper(blur=blur).blur) is float


@pytest.mark.parametrize(
    "blur",
    [
        0,
        0.0,
        -0.0,
        -0.01,
        -1,
        math.nan,
        math.inf,
        -math.inf,
        np.float32("inf"),
        1e39,
        math.nextafter(MAX_FLOAT, math.inf),
    ],
)
def test_a_blur_out_of_range_is_refused(blur) -> None:
    with pytest.raises(ValueError, match=r"Recipe\.blur is .*; it must be finite and above 0") as caught:
        Recipe.paper(blur=blur)
    assert repr(blur) in str(caught.value)


def test_a_blur_beyond_float64_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Recipe\.blur is .*; it must be finite and above 0"):
        Recipe.paper(blur=10**400)


@pytest.mark.parametrize("blur", [True, np.True_, "0.01", b"", [0.01], 0.01j, Decimal("0.01"), np.array(0.01)])
def test_a_blur_of_another_type_is_refused(blur) -> None:
    with pytest.raises(TypeError, match=r"Recipe\.blur is .*; it must be a number above 0") as caught:
        Recipe.paper(blur=blur)
    assert repr(blur) in str(caught.value)


@pytest.mark.parametrize("identity", [0, 1, "yes", np.True_, None, [True]])
def test_identity_is_true_or_false(identity) -> None:
    with pytest.raises(TypeError, match=r"Recipe\.identity is .*; it must be True or False") as caught:
        Recipe.paper(identity=identity)
    assert repr(identity) in str(caught.value)


def test_a_recipe_is_frozen() -> None:
    recipe = Recipe.paper()
    for field in dataclasses.fields(recipe):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(recipe, field.name, 3)
    assert not hasattr(recipe, "__dict__")
    assert recipe == Recipe.paper()


@settings(deadline=None)
@given(recipes)
def test_equal_recipes_are_one_set_member(recipe) -> None:
    assert {recipe, dataclasses.replace(recipe)} == {recipe}
    assert recipe != dataclasses.replace(recipe, identity=not recipe.identity)
    assert Recipe.paper(patch=np.int64(240), blur=np.float64(0.01)) == Recipe.paper()
    assert hash(Recipe.paper(patch=np.int64(240), blur=np.float64(0.01))) == hash(Recipe.paper())


@settings(deadline=None)
@given(recipes)
def test_a_recipe_survives_json(recipe) -> None:
    text = json.dumps(recipe.to_dict(), allow_nan=False)
    assert Recipe.from_dict(json.loads(text)) == recipe


def test_from_dict_leaves_its_argument_alone() -> None:
    fields = Recipe.paper().to_dict()
    Recipe.from_dict(fields)
    assert fields == Recipe.paper().to_dict()


@pytest.mark.parametrize("number", [0, 3, None, "1"])
def test_another_format_is_refused(number) -> None:
    with pytest.raises(ValueError, match=f"of format {number!r}; this version reads formats"):
        Recipe.from_dict({**Recipe.paper().to_dict(), "format": number})


def test_the_defaults_of_format_2() -> None:
    assert Recipe.strong().to_dict() == {"format": 2, "strength": 1.0}
    assert Recipe.strong(2) == Recipe.strong(strength=2.0) != Recipe.strong()


@settings(deadline=None)
@given(st.floats(0.01, 50.0))
def test_format_2_survives_json_and_is_no_format_1(strength) -> None:
    recipe = Recipe.strong(strength)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict(), allow_nan=False))) == recipe
    assert {recipe, dataclasses.replace(recipe)} == {recipe}
    assert recipe != Recipe.paper()
    with pytest.raises(ValueError, match=r"unknown fields \['strength'\]"):
        Recipe.from_dict(recipe.to_dict() | {"format": 1})


@pytest.mark.parametrize(
    ("strength", "error", "message"),
    [
        (0.0, ValueError, r"strength is 0\.0; it must be finite and from 0\.01 to 50"),
        (0.0099, ValueError, r"strength is 0\.0099; it must be from 0\.01 to 50"),
        (50.1, ValueError, r"strength is 50\.1; it must be from 0\.01 to 50"),
        (math.nan, ValueError, "strength is nan"),
        (10**400, ValueError, "strength is 1000"),
        (True, TypeError, "strength is True; it must be a number"),
        ("2", TypeError, "strength is '2'"),
    ],
)
def test_a_strength_is_checked(strength, error, message) -> None:
    with pytest.raises(error, match=rf"Recipe\.{message}"):
        Recipe.strong(strength)


@pytest.mark.parametrize(
    ("rate", "error"),
    [(1999, ValueError), (512_001, ValueError), (16e3, TypeError), ("16k", TypeError), (True, TypeError)],
)
def test_a_sample_rate_is_checked(rate, error) -> None:
    unit = " Hz" if error is ValueError else ""
    with pytest.raises(error, match=f"^sample_rate is {rate!r}{unit}; it must be .* to 512000 Hz"):
        check_rate(rate)


def test_a_ratio_sets_the_strength_of_the_default_recipe_alone() -> None:
    assert check_snr(20, Recipe.strong()) == 20.0
    for recipe in (Recipe.strong(2.0), Recipe.paper()):
        with pytest.raises(ValueError, match="snr sets the strength of the default recipe"):
            check_snr(20, recipe)
    for snr, error in ((math.inf, ValueError), ("20", TypeError), (True, TypeError)):
        with pytest.raises(error, match=r"snr is .*; it must be a number of dB"):
            check_snr(snr, Recipe.strong())


def test_a_recipe_without_a_format_is_refused() -> None:
    with pytest.raises(ValueError, match="of format None"):
        Recipe.from_dict(dataclasses.asdict(Recipe.paper()))


def test_unknown_fields_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"unknown fields \['hop', 'window'\]"):
        Recipe.from_dict({**Recipe.paper().to_dict(), "window": 3, "hop": None})


@pytest.mark.parametrize(("field", "value"), [("patch", "240"), ("blur", None), ("taps", 80.0), ("identity", 1)])
def test_fields_of_a_dict_are_checked_too(field, value) -> None:
    with pytest.raises(TypeError, match=rf"Recipe\.{field} is {value!r}"):
        Recipe.from_dict({**Recipe.paper().to_dict(), field: value})
