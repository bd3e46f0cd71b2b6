"""A toy that learns words, for the demo: decision trees on the mean spectrum of a clip, in NumPy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

N_TREES = 10
WINDOW, HOP, TOP_BIN = 512, 256, 128  # 32 ms and 16 ms at 16 kHz, up to 4 kHz

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def features(clips: NDArray[np.int16], lengths: Ints) -> Floats:
    """The mean log power spectrum of each clip, (n, TOP_BIN), of (n, frames) int16 clips."""
    spectra = []
    for clip, length in zip(clips, lengths, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(clip[:length] / 32768, WINDOW)[::HOP]
        power = np.abs(np.fft.rfft(windows * np.hanning(WINDOW)))[:, :TOP_BIN] ** 2
        spectra.append(np.log(power + 1e-7).mean(axis=0))
    return np.array(spectra)


class Forest:
    """Trees, each grown to the end on as many clips as there are, drawn with replacement; they vote.

    Parameters
    ----------
    spectra : (n, features) float64
        What `features` returns.
    labels : (n,) int64
        The class of each clip, from 0.
    """

    def __init__(self, spectra: Floats, labels: Ints) -> None:
        self._n_classes = int(labels.max()) + 1
        rng = np.random.default_rng(0)
        draws = [rng.integers(len(labels), size=len(labels)) for _ in range(N_TREES)]
        self._trees = [_grow(spectra[rows], labels[rows], self._n_classes) for rows in draws]

    def accuracy(self, spectra: Floats, labels: Ints) -> float:
        """How many of the clips are given their label, in %."""
        votes = [np.bincount([_ask(tree, each) for tree in self._trees], minlength=self._n_classes) for each in spectra]
        return 100.0 * float(np.mean(np.argmax(votes, axis=1) == labels))


def _grow(spectra: Floats, labels: Ints, n_classes: int) -> Any:
    """A label, or (feature, threshold, tree below, tree above): the split that leaves the purest halves (Gini)."""
    counts = np.bincount(labels, minlength=n_classes)
    order = np.argsort(spectra, axis=0)
    values = np.take_along_axis(spectra, order, axis=0)
    below = np.cumsum(labels[order][:, :, None] == np.arange(n_classes), axis=0)[:-1]
    n_below = np.arange(1, len(labels))[:, None]
    purity = (below**2).sum(axis=2) / n_below + ((counts - below) ** 2).sum(axis=2) / (len(labels) - n_below)
    purity[values[1:] == values[:-1]] = -1  # no threshold lies between equals
    if counts.max() == len(labels) or purity.max() < 0:
        return int(counts.argmax())
    place, feature = np.unravel_index(purity.argmax(), purity.shape)
    threshold = values[place : place + 2, feature].mean()
    low = spectra[:, feature] <= threshold
    return feature, threshold, *(_grow(spectra[rows], labels[rows], n_classes) for rows in (low, ~low))


def _ask(tree: Any, spectrum: Floats) -> int:
    while not isinstance(tree, int):
        feature, threshold, below, above = tree
        tree = below if spectrum[feature] <= threshold else above
    return tree
