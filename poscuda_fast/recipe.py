"""The numbers that, with a key and the labels, define a protection (FORMAT.md, "Recipe")."""

from __future__ import annotations

import contextlib
import dataclasses
import operator
from typing import Any

import numpy as np

FORMAT = 1
MAX_TAPS = 1024
MAX_FIELD = 2**31 - 1
MAX_BLUR = 3.4028234663852886e38  # the largest float32: a tap must be finite


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """How clips are protected; equal recipes under one key give equal bytes.

    Parameters
    ----------
    patch : int
        Frames per patch, at least 1. Shorter clips are filtered whole.
    taps : int
        Filter length, 1 to 1024.
    blur : float
        Taps are drawn from U(0, blur), a share of full scale. Finite and above 0.
    patches : int
        Patches per clip, at least 1 (the paper: 1).
    every : int or None
        Instead of `patches`: one patch for each `every` frames, for long audio. At least `patch`.
    identity : bool
        Put 1.0 on the centre tap, which keeps most of the sound in the patch.

    Raises
    ------
    TypeError
        A field is not of its type (True is not a number here).
    ValueError
        A field is out of range, or both `patches` and `every` are given.

    Notes
    -----
    Gokul and Dubnov, sec. 4, use ``patch=240, taps=80`` and ``blur`` 0.01 or 0.3.
    """

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
        if isinstance(self.blur, bool) or not isinstance(self.blur, (int, float, np.floating, np.integer)):
            raise TypeError(f"Recipe.blur is {self.blur!r}; it must be a number above 0, such as 0.01.")
        with contextlib.suppress(OverflowError):  # an integer beyond every float is refused below
            object.__setattr__(self, "blur", float(self.blur))
        if not 0.0 < self.blur <= MAX_BLUR:
            raise ValueError(f"Recipe.blur is {self.blur!r}; it must be finite and above 0, such as 0.01.")
        if not isinstance(self.identity, bool):
            raise TypeError(f"Recipe.identity is {self.identity!r}; it must be True or False.")

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values, with the format's number."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Recipe:
        """The recipe that `to_dict` described; ValueError for another format or unknown fields."""
        rest = dict(fields)
        number = rest.pop("format", None)
        if type(number) is not int or number != FORMAT:
            raise ValueError(
                f"The recipe is of format {number!r}; this version reads format {FORMAT}. Update poscuda-fast."
            )
        known = {field.name for field in dataclasses.fields(cls)}
        if set(rest) != known:
            raise ValueError(
                f"The recipe has unknown fields {sorted(set(rest) - known)} and lacks {sorted(known - set(rest))}; "
                f"update poscuda-fast to read it."
            )
        return cls(**rest)


def _whole(name: str, value: object, least: int, most: int) -> int:
    """`value` as an int in [least, most], or an error that names the field."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"Recipe.{name} is {value!r}; it must be a whole number from {least} to {most}.")
    number = operator.index(value)
    if not least <= number <= most:
        raise ValueError(f"Recipe.{name} is {number}; it must be from {least} to {most}.")
    return number
