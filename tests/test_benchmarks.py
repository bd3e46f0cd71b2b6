"""The benchmarks' contenders do the same job; otherwise a race between them would say nothing."""

from __future__ import annotations

import warnings

import contenders
import numpy as np
import pytest

from poscuda_fast.kernels import BACKENDS, why_missing

MODULES = {"native": "native", "numba": "cpu"}


def filtered(prepare, task: contenders.Task, threads: int) -> np.ndarray:
    before = task.clips.copy()
    prepare(task, threads)()
    wet = task.clips.copy()
    task.clips[:] = before
    return wet


@pytest.fixture(params=[np.int16, np.float32], ids=lambda dtype: dtype.__name__)
def task(request) -> contenders.Task:
    return contenders.make_task(request.param, 12, 700, n_classes=5)


def test_ours_are_the_backends() -> None:
    assert set(contenders.OURS) == set(MODULES)
    assert set(MODULES.values()) <= set(BACKENDS)


@pytest.mark.parametrize("name", contenders.PEERS)
def test_peers_compute_the_same_within_float32(name, task) -> None:
    package, prepare = contenders.PEERS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a peer warns of at its import is not ours
        available = contenders.available_peers()
    if name not in available:
        pytest.skip(f"{package} cannot be imported here; pip install '.[bench]'")
    wanted = filtered(contenders.ours("reference"), task, 1)
    found = filtered(prepare, task, 2)
    inside = np.zeros(task.clips.shape, bool)
    for clips, part, _ in task.classes():
        inside[clips, part] = True
    assert found[~inside].tobytes() == task.clips[~inside].tobytes()
    assert not np.array_equal(found, task.clips)
    # A float32 sum of k products, by FFT of length n < 512 too, is off by less than k + log2(n) roundings of the
    # sum of magnitudes; an integer moves by one more where the sum lies beside a half.
    level = np.abs(task.clips.astype(np.float64)).max() * task.taps.sum(axis=1).max()
    most = (task.taps.shape[1] + 9) * np.finfo(np.float32).eps * level + (task.clips.dtype == np.int16)
    assert np.abs(found.astype(np.float64) - wanted)[inside].max() <= most


@pytest.mark.parametrize("name", contenders.OURS)
def test_ours_give_the_bits_of_the_reference(name, task) -> None:
    problem = why_missing(MODULES[name])
    if problem is not None:
        pytest.skip(problem)
    wanted = filtered(contenders.ours("reference"), task, 1)
    assert filtered(contenders.OURS[name], task, 2).tobytes() == wanted.tobytes()
