"""Key, recipe and class tokens -> the mark of each class: a filter or a sound (FORMAT.md, "Secrets")."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels import Marks
from poscuda_fast.key import Key
from poscuda_fast.recipe import UNIT_LEVEL, PaperRecipe, Recipe, StrongRecipe

WORDS_PER_BLOCK = 1024


def draw_marks(key: Key, tokens: Sequence[bytes], recipe: Recipe) -> Marks:
    """The marks of some classes, a row for each token."""
    if isinstance(recipe, StrongRecipe):
        rows = [draw_sound(key, token, recipe) for token in tokens]
        return Marks(np.array(rows, np.float32).reshape(-1, recipe.patch), added=True)
    if isinstance(recipe, PaperRecipe):
        rows = [draw_taps(key, token, recipe) for token in tokens]
        return Marks(np.array(rows, np.float32).reshape(-1, recipe.taps), added=False)
    raise TypeError(f"recipe is a {type(recipe).__name__}; expected a poscuda_fast.Recipe, such as Recipe.strong().")


def draw_taps(key: Key, token: bytes, recipe: PaperRecipe) -> NDArray[np.float32]:
    """Format 1: a class's filter, (recipe.taps,) float32 from U(0, blur)."""
    words = np.frombuffer(key.derive(b"taps", token, length=4 * recipe.taps), "<u4")
    with np.errstate(under="ignore"):
        taps: NDArray[np.float32] = (recipe.blur * ((words >> 8) * 2.0**-24)).astype(np.float32)
    if recipe.identity:
        taps[(recipe.taps - 1) // 2] = 1.0
    return taps


def draw_sound(key: Key, token: bytes, recipe: StrongRecipe) -> NDArray[np.float32]:
    """Format 2: a class's sound, (recipe.patch,) float32 as a share of full scale."""
    n = -(-recipe.patch // recipe.hold)
    words = np.frombuffer(key.derive(b"sound", token, length=4 * (n + 1)), "<u4")
    drawn = (words >> 16).astype(np.int64)
    steps = np.repeat(drawn[1:] - drawn[:-1], recipe.hold)[: recipe.patch]
    energy = int((steps * steps).sum())
    if energy == 0:
        return np.zeros(recipe.patch, np.float32)
    level = recipe.strength * UNIT_LEVEL
    with np.errstate(under="ignore", over="ignore"):
        sound: NDArray[np.float32] = (level * (steps / np.sqrt(energy / recipe.patch))).astype(np.float32)
    return sound


def draw_words(key: Key, token: bytes, n: int) -> NDArray[np.uint32]:
    """A class's first `n` position words: (n,) uint32."""
    blocks = []
    for block in range(-(-n // WORDS_PER_BLOCK)):
        # A shorter expansion is a prefix of a longer one, so draw no more than is used.
        length = 4 * min(WORDS_PER_BLOCK, n - block * WORDS_PER_BLOCK)
        blocks.append(key.derive(b"position", token, block.to_bytes(4, "big"), length=length))
    return np.frombuffer(b"".join(blocks), "<u4").astype(np.uint32)
