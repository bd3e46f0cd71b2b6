"""How large an edit is relative to the clip: energies and their ratio in dB."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLES_PER_STEP = 8192  # fits the cache, and is too little for BLAS to wake its threads, which would spin


def energy(samples: NDArray[Any]) -> float:
    """Sum of squares; not finite where the samples are not. Exact for integers, as long as it is below 2^53."""
    total = 0.0
    for first in range(0, len(samples), SAMPLES_PER_STEP):
        wide = samples[first : first + SAMPLES_PER_STEP].astype(np.float64)
        total += float(np.dot(wide, wide))
    return total


def ratio_db(signal: float, noise: float) -> float | None:
    """Energy of the clip over energy of the edit, in dB; None where one of them is 0 or not finite."""
    if not (math.isfinite(signal) and math.isfinite(noise)) or signal <= 0 or noise <= 0:
        return None
    return round(10 * math.log10(signal / noise), 3)
