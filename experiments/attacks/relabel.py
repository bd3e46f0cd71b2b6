"""Replace the labels that the marks were made for, by the features of a network that was trained elsewhere."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.cluster.vq import kmeans2

from experiments.attacks.audio import Ints
from experiments.attacks.probe import Embedding, standardised
from experiments.attacks.scene import Scene


def by_cluster(
    scene: Scene, strength: float, rng: np.random.Generator, embedding: Embedding
) -> tuple[Ints, dict[str, Any]]:
    """Label each clip as most clips of its cluster are labelled; there are `strength` clusters per class.

    Clusters are those of an embedding. If it hears the word and not the mark, then the sound of a clip that gets
    another label agrees with that label, and its mark no longer does.

    Returns
    -------
    labels : (n,) int64
    details : dict
        "relabelled", the share in % of clips whose label changed.
    """
    (values,) = standardised(embedding(scene.clips, scene.lengths, scene.sample_rate))
    n_clusters = min(len(values), int(strength) * scene.n_classes)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty", UserWarning)
        _, cluster = kmeans2(values.astype(np.float64), n_clusters, minit="++", seed=rng)
    counts = np.zeros((n_clusters, scene.n_classes), np.int64)
    np.add.at(counts, (cluster, scene.labels), 1)
    labels: Ints = counts.argmax(axis=1)[cluster].astype(np.int64)
    return labels, {"relabelled": round(100.0 * float(np.mean(labels != scene.labels)), 2)}
