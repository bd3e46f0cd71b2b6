"""The ownership test on real victims: a model that learnt the mark gives itself away, an innocent one does not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import tiny
from experiments.conditions import clean, study_key
from experiments.dataset import TEST

from experiments import ownership


def test_only_the_model_that_learnt_the_mark_follows_it(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path / "data", n_train=360, n_test=90)
    rows, key = data.rows(TEST), study_key(0)
    # Labels without a sound of their own: only the mark can be learnt.
    labels = np.random.default_rng(0).permutation(data.labels)
    mute = dataclasses.replace(data, labels=labels)
    found = {}
    for condition in (ownership.dense(), clean()):
        model = ownership.trained(mute, condition, "lstm", 20, key)
        found[condition.name] = ownership.ask(model, mute, rows, key, ownership.DENSE)
    assert found["dense"]["hits"] == 3
    assert found["dense"]["p_value"] <= 0.001
    assert found["dense"]["keyed_accuracy"] > found["dense"]["miskeyed_accuracy"] + 0.2
    assert found["clean"]["p_value"] > 0.001
