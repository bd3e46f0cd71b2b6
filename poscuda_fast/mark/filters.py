"""Format 1: the filter of each class, and the words that place its patches (FORMAT.md, "Format 1")."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels import Engine, Flags, Ints, default_arithmetic
from poscuda_fast.key import Key
from poscuda_fast.mark.patches import Patches, Steps, merge_channels
from poscuda_fast.recipe import PaperRecipe
from poscuda_fast.secrecy import Secret

WORDS_PER_BLOCK = 1024


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Filters(Secret):
    """The filters of some classes; secret.

    Attributes
    ----------
    taps : (n_classes, n_taps) float32
        A row for each class.
    """

    taps: NDArray[np.float32]
    steady: ClassVar[bool] = False

    def __repr__(self) -> str:
        return f"Filters({len(self.taps)} classes)"

    def apply(
        self,
        engine: Engine,
        samples: NDArray[Any],
        firsts: Ints,
        patches: Patches,
        steps: Steps,
        flags: Flags | None = None,
    ) -> int:
        """Convolve each channel of each patch with the filter of its class, in place; see `Marks.apply`."""
        starts, sizes, rows = steps.by_channel(firsts, patches.sizes, patches.rows)
        found = None if flags is None else np.empty(len(starts), np.uint8)
        saturated = engine.filter_patches(samples, starts, sizes, rows, self.taps, steps.frame, found)
        if flags is not None and found is not None:
            flags[:] = merge_channels(found.reshape(-1, steps.channels))
        return saturated


@default_arithmetic()
def draw_filters(key: Key, tokens: Sequence[bytes], recipe: PaperRecipe) -> Filters:
    """The filters of some classes, a row for each token: recipe.taps values from U(0, blur)."""
    drawn = b"".join([key.derive(b"taps", token, length=4 * recipe.taps) for token in tokens])
    words = np.frombuffer(drawn, "<u4").reshape(-1, recipe.taps)
    with np.errstate(under="ignore"):
        taps: NDArray[np.float32] = (recipe.blur * ((words >> 8) * 2.0**-24)).astype(np.float32)
    if recipe.identity:
        taps[:, (recipe.taps - 1) // 2] = 1.0
    return Filters(taps)


def draw_words(key: Key, token: bytes, n: int) -> NDArray[np.uint32]:
    """A class's first `n` position words: (n,) uint32."""
    blocks = []
    for block in range(-(-n // WORDS_PER_BLOCK)):
        # A shorter expansion is a prefix of a longer one, so draw no more than is used.
        length = 4 * min(WORDS_PER_BLOCK, n - block * WORDS_PER_BLOCK)
        blocks.append(key.derive(b"position", token, block.to_bytes(4, "big"), length=length))
    return np.frombuffer(b"".join(blocks), "<u4").astype(np.uint32)
