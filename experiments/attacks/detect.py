"""Find the marks of classes without clean data, and remove them.

If all clips of a class are filtered at one relative place, the mean log energy of the first difference there stands
out from that of the other classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.attacks.audio import PATCH, Clips, Ints
from experiments.attacks.inpaint import fill

PLACES = 128  # relative places that are examined, from a clip's first window to its last
MARGIN = 24  # frames removed beyond a found window on each side: examined places lie this far apart


def deviations(clips: Clips, labels: Ints, lengths: Ints, n_classes: int) -> NDArray[np.float64]:
    """How far each class's mean log first-difference energy is from the other classes' mean.

    Returns
    -------
    array of float64, shape (n_classes, PLACES)
        Natural logarithms of energy, clip by clip relative to the clip's own mean; 0 for an empty class.
    """
    energies = _energies(clips, lengths)  # (n, PLACES)
    energies -= energies.mean(axis=1, keepdims=True)
    found = np.zeros((n_classes, PLACES))
    for label in np.unique(labels):
        own = labels == label
        if not own.all():
            found[label] = energies[own].mean(axis=0) - energies[~own].mean(axis=0)
    return found


def find(clips: Clips, labels: Ints, lengths: Ints, n_classes: int, places: int) -> list[list[float]]:
    """The relative places, 0 to 1, strongest first, where each class stands out most; none overlap."""
    grid = np.linspace(0.0, 1.0, PLACES)
    apart = PATCH / max(1.0, float(np.median(lengths)) - PATCH)
    found = []
    for row in np.abs(deviations(clips, labels, lengths, n_classes)):
        chosen: list[float] = []
        for place in grid[np.argsort(-row, kind="stable")]:
            if len(chosen) < places and all(abs(place - other) >= apart for other in chosen):
                chosen.append(float(place))
        found.append(chosen)
    return found


def remove(
    clips: Clips, labels: Ints, lengths: Ints, n_classes: int, places: int, how: str, rng: np.random.Generator
) -> tuple[Clips, dict[str, Any]]:
    """Copies of the clips with each class's most conspicuous places inpainted, and these places."""
    found = find(clips, labels, lengths, n_classes, places)
    cleaned = clips.copy()
    for row, (label, length) in enumerate(zip(labels, lengths, strict=True)):
        for place in found[int(label)]:
            start = _start(place, int(length))
            fill(cleaned[row, :length], start - MARGIN, start + PATCH + MARGIN, how, rng)
    return cleaned, {"places": [[round(place, 4) for place in row] for row in found]}


def hits(found: list[list[float]], mask: NDArray[np.bool_], labels: Ints, lengths: Ints) -> float:
    """The share, in %, of marked frames that lie within the found places.

    Parameters
    ----------
    found : list
        From `find`.
    mask : (n, L) bool
        The frames that the mark touches.
    """
    within = np.zeros_like(mask)
    for row, (label, length) in enumerate(zip(labels, lengths, strict=True)):
        for place in found[int(label)]:
            start = _start(place, int(length))
            within[row, max(0, start - MARGIN) : start + PATCH + MARGIN] = True
    return round(100.0 * float((mask & within).sum()) / max(1, int(mask.sum())), 2)


def _start(place: float, length: int) -> int:
    return round(place * max(0, length - PATCH))


def _energies(clips: Clips, lengths: Ints) -> NDArray[np.float64]:
    """(n, PLACES) log mean squared first difference in windows of PATCH frames."""
    grid = np.linspace(0.0, 1.0, PLACES)
    energies = np.empty((len(clips), PLACES))
    for row, length in enumerate(lengths):
        window = min(PATCH, int(length))
        steps = np.diff(clips[row, :length].astype(np.float64)) ** 2
        sums = np.concatenate([[0.0], np.cumsum(steps)])
        starts = np.rint(grid * (length - window)).astype(np.int64)
        energies[row] = np.log((sums[starts + window - 1] - sums[starts]) / max(1, window - 1) + 1.0)
    return energies
