from __future__ import annotations

import numpy as np
import torch
from scenes import CLASSES, RATE, N, speech

from experiments.attacks import probe, relabel
from poscuda_fast.evaluation.models import build


def test_a_probe_learns_separable_embeddings():
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    values = rng.normal(size=(90, 8)).astype(np.float32) + 4 * np.eye(3, 8, dtype=np.float32)[labels]
    history, _ = probe.probe(values[:60], labels[:60], values[60:], labels[60:], 3)
    assert len(history) == len(probe.ROUND_ITERATIONS)
    assert history[-1]["clean"] > 90


def test_hidden_is_what_the_last_layer_gets():
    torch.manual_seed(0)
    model = build("cnn", CLASSES, RATE).eval()
    clips, _, _ = speech(5)
    values = probe.hidden(model, clips)
    scores = model(torch.from_numpy(clips.astype(np.float32) / 32768))
    np.testing.assert_allclose(model.body.scores(torch.from_numpy(values)).detach(), scores.detach(), atol=1e-5)


def test_clusters_take_their_majority_label(scene):
    rng = np.random.default_rng(0)
    heard = scene.labels.copy()
    heard[:2] = (heard[:2] + 1) % CLASSES  # two clips sound like another class

    def embedding(clips, lengths, rate):
        return (np.eye(CLASSES, 6)[heard] + 0.01 * rng.standard_normal((N, 6))).astype(np.float32)

    labels, details = relabel.by_cluster(scene, 1, rng, embedding)
    np.testing.assert_array_equal(labels, heard)
    assert details == {"relabelled": round(100 * 2 / N, 2)}
