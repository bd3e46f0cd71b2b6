from __future__ import annotations

import numpy as np
import tiny
import torch
from scenes import CLASSES, RATE, speech

from experiments.attacks import probe
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


def test_clips_are_embedded_by_a_network_of_another_data_set(tmp_path):
    other = tiny.dataset(tmp_path / "other", n_train=12, n_test=3, frames=2400)
    embedding = probe.transferred(other.folder, 0)
    clips, _, lengths = speech(6)
    found = embedding(clips, lengths, 2 * RATE)
    assert found.shape == (6, 64)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, probe.transferred(other.folder, 0)(clips, lengths, 2 * RATE))


def test_a_dimension_that_does_not_vary_stays_finite():
    first = np.array([[1.0, 5.0], [3.0, 5.0]], np.float32)
    both, one = probe.standardised(first, first[:1])
    assert both.tolist() == [[-1, 0], [1, 0]]
    assert one.tolist() == [[-1, 0]]
