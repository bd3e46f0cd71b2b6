"""The numbers that, with a key and the labels, define a protection (FORMAT.md, "Recipe" and "Strength")."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import numbers
import operator
from typing import Any, ClassVar

MAX_TAPS = 1024
MAX_FIELD = 2**31 - 1
MAX_FLOAT = 3.4028234663852886e38  # the largest float32: taps must be finite
USUAL_RATE = 16_000  # Hz, for arrays whose sample rate nobody stated
RATES = (2_000, 512_000)  # Hz
STRENGTHS = (0.01, 50.0)
MILLION = 1_000_000  # a share is kept in millionths
MOST_SNR = 200  # dB; no strength reaches as far with samples of any kind


class Recipe:
    """How clips are protected; equal recipes under one key give equal bytes.

    Make one with `Recipe.strong` or `Recipe.paper`.

    Attributes
    ----------
    format : int
        The format's number.
    """

    __slots__ = ()

    def __init__(self, *_: object, **__: object) -> None:
        raise TypeError("Recipe() cannot be called; use Recipe.strong(...), the default, or Recipe.paper(...).")

    format: ClassVar[int]

    @staticmethod
    def strong(strength: float = 1.0) -> StrongRecipe:
        """Format 2, the default: every class gets two steady lines of its own, all along the clip.

        Parameters
        ----------
        strength : float
            The level of the two lines together: 1 is an RMS of 0.005 of full scale (-46 dB), and twice the strength is
            6 dB louder. From 0.01 to 50.

        Raises
        ------
        TypeError
            `strength` is not a number (True is not one here).
        ValueError
            `strength` is out of range.

        Notes
        -----
        The paper convolves a patch with the class's filter (Gokul and Dubnov, sec. 3.1). This recipe adds two tones of
        the class, all along the clip, so that the mark is equally strong in every clip, the clip's own sound stays, and
        shifts in time do not take the mark away; FORMAT.md, "Format 2".
        """
        return StrongRecipe(strength)

    @staticmethod
    def paper(
        patch: int = 240,
        taps: int = 80,
        blur: float = 0.01,
        patches: int = 1,
        every: int | None = None,
        identity: bool = False,  # noqa: FBT001, FBT002 - the fields in the order of FORMAT.md
    ) -> PaperRecipe:
        """Format 1: the paper's method, a patch convolved with its class's filter.

        Parameters
        ----------
        patch : int
            Frames per patch, at least 1. Shorter clips are filtered whole.
        taps : int
            Filter length, 1 to 1024.
        blur : float
            Taps are drawn from U(0, blur). Finite and above 0.
        patches : int
            Patches per clip, at least 1 (the paper: 1).
        every : int or None
            Instead of `patches`: one patch for each `every` frames, for long audio. At least `patch`.
        identity : bool
            Set the centre tap to 1.0, which keeps most of the sound in the patch.

        Raises
        ------
        TypeError
            A field has the wrong type (True is not a number here).
        ValueError
            A field is out of range, or both `patches` and `every` are given.

        Notes
        -----
        Gokul and Dubnov, sec. 4, use ``patch=240, taps=80`` and ``blur`` 0.01 or 0.3.
        """
        return PaperRecipe(patch, taps, blur, patches, every, identity)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values, with the format's number."""
        raise NotImplementedError

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> Recipe:
        """The recipe that `to_dict` described; ValueError for another format or other fields."""
        rest = dict(fields)
        number = rest.pop("format", None)
        kinds = {kind.format: kind for kind in (PaperRecipe, StrongRecipe)}
        if type(number) is not int or number not in kinds:
            raise ValueError(
                f"The recipe is of format {number!r}; this version reads formats {sorted(kinds)}. Update poscuda-fast."
            )
        known = {field.name for field in dataclasses.fields(kinds[number])}
        if set(rest) != known:
            raise ValueError(
                f"The recipe has unknown fields {sorted(set(rest) - known)} and lacks {sorted(known - set(rest))}; "
                f"update poscuda-fast to read it."
            )
        return kinds[number](**rest)


@dataclasses.dataclass(frozen=True, slots=True)
class PaperRecipe(Recipe):
    """Format 1; made and checked by `Recipe.paper`.

    Attributes
    ----------
    patch, taps : int
        Frames per patch, and the length of a filter.
    blur : float
        Taps are in U(0, blur).
    patches : int
        Patches per clip.
    every : int or None
        One patch for each `every` frames instead.
    identity : bool
        Whether the centre tap is 1.0.
    """

    format: ClassVar[int] = 1

    patch: int = 240
    taps: int = 80
    blur: float = 0.01
    patches: int = 1
    every: int | None = None
    identity: bool = False

    def __post_init__(self) -> None:
        for name, most in (("patch", MAX_FIELD), ("taps", MAX_TAPS), ("patches", MAX_FIELD)):
            object.__setattr__(self, name, _whole(name, getattr(self, name), 1, most))
        if self.every is not None:
            object.__setattr__(self, "every", _whole("every", self.every, self.patch, MAX_FIELD))
            if self.patches != 1:
                raise ValueError(
                    f"Recipe got patches={self.patches} and every={self.every}; give one of the two: "
                    f"`every` sets the number of patches from each clip's length."
                )
        object.__setattr__(self, "blur", _number("blur", self.blur, 0.01))
        if not isinstance(self.identity, bool):
            raise TypeError(f"Recipe.identity is {self.identity!r}; it must be True or False.")

    def to_dict(self) -> dict[str, Any]:
        return {"format": self.format, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True, slots=True)
class StrongRecipe(Recipe):
    """Format 2; made and checked by `Recipe.strong`.

    Attributes
    ----------
    strength : float
        RMS of the mark in units of 0.005 of full scale.
    """

    format: ClassVar[int] = 2

    strength: float = 1.0

    def __post_init__(self) -> None:
        least, most = STRENGTHS
        strength = _number("strength", self.strength, 1.0, f"from {least:g} to {most:g}")
        if not least <= strength <= most:
            raise ValueError(f"Recipe.strength is {self.strength!r}; it must be from {least:g} to {most:g}.")
        object.__setattr__(self, "strength", strength)

    def to_dict(self) -> dict[str, Any]:
        return {"format": self.format, **dataclasses.asdict(self)}


def check_rate(sample_rate: object) -> int:
    """`sample_rate` in Hz as an int; TypeError or ValueError unless format 2 has a mark for it."""
    return _whole("sample_rate", sample_rate, *RATES, of="", unit=" Hz")


def check_snr(snr: object, recipe: Recipe) -> float:
    """`snr` in dB as a float; TypeError or ValueError unless the recipe's strength may be set by it."""
    if isinstance(snr, bool) or not isinstance(snr, numbers.Real):
        raise TypeError(f"snr is {snr!r}; it must be a number of dB, such as 20.")
    number = math.inf
    with contextlib.suppress(OverflowError):  # an integer beyond every float
        number = float(snr)
    if not -MOST_SNR <= number <= MOST_SNR:
        raise ValueError(f"snr is {snr!r}; it must be a number of dB from {-MOST_SNR} to {MOST_SNR}, such as 20.")
    if recipe != Recipe.strong():
        raise ValueError(
            f"snr is {snr:g} dB and recipe is {recipe!r}; snr sets the strength of the default recipe, so give one of "
            f"the two."
        )
    return number


def check_share(share: object) -> int | None:
    """A share of the clips in millionths, or None if it is all; TypeError or ValueError unless it is above 0, to 1."""
    if isinstance(share, bool) or not isinstance(share, numbers.Real):
        raise TypeError(f"share is {share!r}; it must be a number above 0 and at most 1, such as 0.05.")
    number = math.inf
    with contextlib.suppress(OverflowError):  # an integer beyond every float
        number = float(share)
    if not 0 < number <= 1:
        raise ValueError(f"share is {share!r}; it must be above 0 and at most 1, such as 0.05 for 5 % of the clips.")
    millionths = round(number * MILLION)
    if not millionths:
        raise ValueError(f"share is {share!r}, less than a millionth; give 0.000001 or more.")
    return None if millionths == MILLION else millionths


def chosen_recipe(recipe: Recipe | None, strength: float | None) -> Recipe:
    """`recipe` if given, else the default recipe at `strength`, or at 1; ValueError if both are given."""
    if recipe is None:
        return Recipe.strong(1.0 if strength is None else strength)
    if strength is not None:
        raise ValueError(
            f"recipe is {recipe!r} and strength is {strength!r}; give one of them. Recipe.strong(strength) is a "
            f"recipe of that strength."
        )
    return recipe


def _number(name: str, value: object, example: float, range_: str = "above 0") -> float:
    """`value` as a finite float above 0, or an error that names the field."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"Recipe.{name} is {value!r}; it must be a number {range_}, such as {example:g}.")
    number = math.inf
    with contextlib.suppress(OverflowError):  # an integer beyond every float
        number = float(value)
    if not 0.0 < number <= MAX_FLOAT:
        raise ValueError(f"Recipe.{name} is {value!r}; it must be finite and {range_}, such as {example:g}.")
    return number


def _whole(name: str, value: object, least: int, most: int, of: str = "Recipe.", unit: str = "") -> int:
    """`value` as an int in [least, most], or an error that names the field."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{of}{name} is {value!r}; it must be a whole number from {least} to {most}{unit}.")
    number = operator.index(value)
    if not least <= number <= most:
        raise ValueError(f"{of}{name} is {number}{unit}; it must be from {least} to {most}{unit}.")
    return number
