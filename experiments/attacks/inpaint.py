"""Fill a gap in a clip from what lies around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FILLS = ("silence", "noise", "mirror")
NEIGHBOURS = 240  # frames on each side that set the level of the noise


def fill(clip: NDArray[np.int16], start: int, stop: int, how: str, rng: np.random.Generator) -> None:
    """Replace frames start to stop of one clip's true frames, in place.

    Parameters
    ----------
    clip : (frames,) int16
        Without padding.
    start, stop : int
        Half-open; cut to the clip.
    how : str
        "silence"; "noise", white and as loud as the frames around; or "mirror": the frames before, reversed,
        faded into the frames after, reversed.

    Raises
    ------
    ValueError
        `how` is none of these.
    """
    start, stop = max(start, 0), min(stop, len(clip))
    if stop <= start:
        return
    before, after = clip[:start].astype(np.float64), clip[stop:].astype(np.float64)
    size = stop - start
    if how == "silence" or not (before.size or after.size):
        made = np.zeros(size)
    elif how == "noise":
        around = np.concatenate([before[-NEIGHBOURS:], after[:NEIGHBOURS]])
        made = np.sqrt(np.mean(around**2)) * rng.standard_normal(size)
    elif how == "mirror":
        steps = np.arange(size)
        fade = (steps + 1) / (size + 1)
        if not before.size or not after.size:
            fade = np.full(size, float(not before.size))
        old = before[::-1][steps % before.size] if before.size else np.zeros(size)
        new = after[steps[::-1] % after.size] if after.size else np.zeros(size)
        made = (1 - fade) * old + fade * new
    else:
        raise ValueError(f"There is no fill {how!r}; choose one of {', '.join(FILLS)}.")
    clip[start:stop] = np.clip(np.rint(made), -32768, 32767)
