"""The Fréchet distance between two sets of embeddings, a yardstick, an interval, and a formula not to confuse with it.

The Fréchet audio distance (Kilgour et al. 2019) fits a Gaussian to each set and compares the two:

    |mu_a - mu_b|^2 + tr(S_a) + tr(S_b) - 2 tr((S_a S_b)^(1/2))

It means nothing without the embedding's name and the number of clips: its bias falls as 1/n.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def frechet_distance(a: ArrayLike, b: ArrayLike) -> float:
    """The squared Fréchet (2-Wasserstein) distance between the Gaussians fitted to two sets.

    With A and B the centred sets over sqrt(n - 1), the last trace is the sum of the singular values of A B^T;
    no covariance is formed, so fewer clips than dimensions do no harm. Q = U V^T of its decomposition rotates B
    as close to A as possible (Schönemann 1966), and the remainder |A - Q B|^2 equals the three traces together:
    a sum of squares, never negative, that loses no digits where the sets are nearly equal.

    `a` (n, d) and `b` (m, d) hold one embedding a row, in any order; ValueError unless both have two rows or more, one
    width, and finite values. It is computed in float64, and exactly 0 for equal arrays.
    """
    a, b = _pair(a, b)
    if np.array_equal(a, b):
        return 0.0
    root_a, root_b = _root(a), _root(b)
    if len(root_a) < len(root_b):  # a rotation into fewer rows would lose some of b
        root_a, root_b = root_b, root_a
    u, _, v = np.linalg.svd(root_a @ root_b.T, full_matrices=False)
    between = a.mean(axis=0) - b.mean(axis=0)
    left = root_a - (u @ v) @ root_b
    return float(between @ between + np.sum(left * left))


def half_against_half(a: ArrayLike, rng: np.random.Generator) -> float:
    """The distance between two random halves of one set: what chance and bias alone give for this many clips.

    It is larger than for two fresh sets of n clips, since halves are smaller. A set and its edited copy share their
    clips, so their distance may be far below it.
    """
    a = _embeddings(a, "a")
    if len(a) < 4:
        raise ValueError(f"a has {len(a)} rows; its halves need 2 each: give 4 clips or more.")
    order = rng.permutation(len(a))
    half = len(a) // 2
    return frechet_distance(a[order[:half]], a[order[half:]])


def paired_bootstrap(a: ArrayLike, b: ArrayLike, rng: np.random.Generator, draws: int = 200) -> tuple[float, float]:
    """A 95 % interval of the distance of n clips, from `draws` of n clips with replacement, each with its edited copy.

    It is for the distance to expect from other n clips, bias included. Drawing adds that bias once more, so only the
    spread of the draws around their mean is used, and laid around the distance (the basic bootstrap, Davison and
    Hinkley 1997, section 5.2). Not below 0. Row i of both sets is the same clip.
    """
    a, b = _pair(a, b)
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} rows and b has {len(b)}; row i of both must be the same clip.")
    if draws < 1:
        raise ValueError(f"draws is {draws}; at least 1 is needed.")
    distances = np.empty(draws)
    for draw in range(draws):
        rows = rng.integers(len(a), size=len(a))
        distances[draw] = frechet_distance(a[rows], b[rows])
    distance = frechet_distance(a, b)
    low, high = distance + distances.mean() - np.percentile(distances, [97.5, 2.5])
    return max(0.0, float(low)), float(high)


def scalar_distance(a: ArrayLike, b: ArrayLike) -> float:
    """What the pip package frechet-audio-distance computes from PANN embeddings; not a Fréchet distance of them.

    It joins the embeddings of a set end to end into one long vector, so that its Gaussian has one dimension and
    its covariance is one number: (mean_a - mean_b)^2 + (deviation_a - deviation_b)^2 over all values of all
    dimensions. Sets that differ only in which dimensions are active are at distance 0.
    """
    a, b = _pair(a, b)
    return float((a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2)


def _root(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """R of (min(n, d), d) with R^T R = the sample covariance."""
    root: NDArray[np.float64] = np.asarray(np.linalg.qr((a - a.mean(axis=0)) / np.sqrt(len(a) - 1), mode="r"))
    return root


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = _embeddings(a, "a"), _embeddings(b, "b")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a has {a.shape[1]} dimensions and b has {b.shape[1]}; use one embedding for both.")
    return a, b


def _embeddings(a: Any, name: str) -> NDArray[np.float64]:
    array = np.asarray(a, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"{name} has the shape {array.shape}; give one embedding a row, (clips, dimensions).")
    if len(array) < 2:
        raise ValueError(f"{name} has {len(array)} rows; a covariance needs 2 clips or more.")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise ValueError(f"{name} has a value that is not finite in row {row}; look at that clip's embedding.")
    return array
