"""Key, recipe and class tokens -> what every class is marked with, in either format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from poscuda_fast.kernels import Engine, Flags, Ints
from poscuda_fast.key import Key
from poscuda_fast.mark.filters import draw_filters
from poscuda_fast.mark.lines import draw_lines
from poscuda_fast.mark.patches import Patches, Steps
from poscuda_fast.recipe import USUAL_RATE, PaperRecipe, Recipe, StrongRecipe


class Marks(Protocol):
    """The marks of some classes; secret.

    Attributes
    ----------
    steady : bool
        Whether every frame of a clip is marked (format 2), not only short patches (format 1).
    """

    @property
    def steady(self) -> bool: ...

    def apply(
        self,
        engine: Engine,
        samples: NDArray[Any],
        firsts: Ints,
        patches: Patches,
        steps: Steps,
        flags: Flags | None = None,
    ) -> int:
        """Mark patches in place.

        `samples` is flat; ``samples[firsts[n]]`` is the first channel of the first frame of patch n. Returns how many
        samples were saturated or, of float32 in format 2, how many are not finite and were left as they are. In format
        1 `flags`, if given, is filled with what a survey finds in each patch before.
        """


def draw_marks(key: Key, tokens: Sequence[bytes], recipe: Recipe, rates: Sequence[int] = (USUAL_RATE,)) -> Marks:
    """The marks of some classes: a row for each token, in format 2 for each token at each sample rate in Hz."""
    if isinstance(recipe, StrongRecipe):
        return draw_lines(key, tokens, recipe, rates)
    if isinstance(recipe, PaperRecipe):
        return draw_filters(key, tokens, recipe)
    raise TypeError(f"recipe is a {type(recipe).__name__}; expected a poscuda_fast.Recipe, such as Recipe.strong().")
