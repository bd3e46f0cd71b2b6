"""The benchmarks' contenders do the same job; otherwise a race between them would say nothing."""

from __future__ import annotations

import warnings

import contenders
import figures
import numpy as np
import pytest

from poscuda_fast.kernels import BACKENDS, why_missing

MODULES = {"native": "native", "numba": "cpu"}
each_dtype = pytest.mark.parametrize("dtype", [np.int16, np.float32], ids=lambda dtype: dtype.__name__)


def marked(prepare, task, threads: int) -> np.ndarray:
    before = task.clips.copy()
    prepare(task, threads)()
    wet = task.clips.copy()
    task.clips[:] = before
    return wet


def peer(peers, name: str):
    package, prepare = peers[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a peer warns of at its import is not ours
        here = contenders.available(peers)
    if name not in here:
        pytest.skip(f"{package} cannot be imported here; pip install '.[bench]'")
    return prepare


def skip_unless_here(name: str) -> None:
    problem = why_missing(MODULES[name])
    if problem is not None:
        pytest.skip(problem)


@pytest.fixture(params=[np.int16, np.float32], ids=lambda dtype: dtype.__name__)
def task(request) -> contenders.Task:
    return contenders.make_task(request.param, 12, 700, n_classes=5)


def make_lines_task(dtype) -> contenders.LinesTask:
    """Some samples are close to full scale, so that sums are saturated at both ends."""
    task = contenders.make_lines_task(dtype, 48, 9_000, n_classes=5, strength=8)
    if dtype is np.int16:
        task.clips[::3, ::7] = 32_600
        task.clips[1::3, ::7] = -32_600
    return task


def test_ours_are_the_backends() -> None:
    assert set(contenders.OURS) == set(contenders.OUR_LINES) == set(MODULES)
    assert set(MODULES.values()) <= set(BACKENDS)


@pytest.mark.parametrize("name", contenders.PEERS)
def test_peers_compute_the_same_within_float32(name, task) -> None:
    prepare = peer(contenders.PEERS, name)
    wanted = marked(contenders.ours("reference"), task, 1)
    found = marked(prepare, task, 2)
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
    skip_unless_here(name)
    wanted = marked(contenders.ours("reference"), task, 1)
    assert marked(contenders.OURS[name], task, 2).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("dtype", "name"),
    [(dtype, name) for dtype in (np.int16, np.float32) for name in contenders.lines_peers(dtype)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_peers_add_the_same_lines(dtype, name, threads) -> None:
    task = make_lines_task(dtype)
    prepare = peer(contenders.lines_peers(dtype), name)
    wanted = marked(contenders.our_lines("reference"), task, 1)
    assert not np.array_equal(wanted, task.clips)
    if dtype is np.int16:
        assert (wanted == 32767).any()
        assert (wanted == -32768).any()
    assert marked(prepare, task, threads).tobytes() == wanted.tobytes()


@each_dtype
@pytest.mark.parametrize("name", contenders.OUR_LINES)
def test_ours_add_the_lines_of_the_reference(name, dtype) -> None:
    skip_unless_here(name)
    task = make_lines_task(dtype)
    wanted = marked(contenders.our_lines("reference"), task, 1)
    assert marked(contenders.OUR_LINES[name], task, 2).tobytes() == wanted.tobytes()


def test_the_table_fits_a_terminal_and_has_no_minus_zero() -> None:
    row = {
        "what": "something with a name that is much longer than any column of the table can be",
        "figure": -0.0004,
        "asked": "<= 1.25",
        "reached": True,
        "ours": "12,345 us",
        "other": "a peer of a long name 9,999 us",
        "against": "peer",
        "is_ratio": True,
    }
    alone = {**row, "is_ratio": False, "reached": False, "other": ""}
    entries = {name: {"figures": [row, alone]} for name in reversed(figures.RACES)}
    found = list(figures.lines(entries))
    assert max(map(len, found)) <= 100
    assert "-0" not in "".join(found)
    assert found[0].split() == ["ours", "best", "peer", "limit", "ratio", "asked", "reached"]
    assert found[1] == figures.RACES["default_int16"]
    values = [line for line in found[1:] if line.endswith(("yes", "NO"))]
    assert len(values) == 2 * len(figures.RACES)
    assert values[0].split()[-5:] == ["us", "0.00", "<=", "1.25", "yes"]
    assert values[1].split()[-4:] == ["us", "<=", "1.25", "NO"]
