from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.measures import frechet

EPSILON = np.finfo(np.float64).eps


def rounding(a, b):
    """A bound on how far from 0 rounding alone can bring the distance for two orders of the same rows.

    The mean, the QR and the rotation each err by at most a few max(n, d) units in the last place, relative to
    the root mean square of the sets (Higham 2002, sections 3.1 and 19.3); the distance squares these errors.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    scale = np.sqrt(np.sum(a * a) / (len(a) - 1)) + np.sqrt(np.sum(b * b) / (len(b) - 1))
    return float((4 * max(*a.shape, *b.shape) * np.finfo(np.float64).eps * scale) ** 2)


def exact_set(mean, root, n, seed=0):
    """(n, d) rows whose sample mean is `mean` and whose sample covariance is root^T root, up to rounding."""
    z = np.random.default_rng(seed).standard_normal((n, len(root)))
    z, _ = np.linalg.qr(z - z.mean(axis=0))
    return np.sqrt(n - 1) * z @ np.asarray(root) + np.asarray(mean)


def error(distance, a, b):
    """What rounding may add to a distance that is the square of a length: (x + e)^2 - x^2, with e^2 its bound."""
    bound = rounding(a, b)
    return 2 * math.sqrt(distance * bound) + bound


def sums_of_singular_values(a, b):
    a_centred = (a - a.mean(axis=0)) / np.sqrt(len(a) - 1)
    b_centred = (b - b.mean(axis=0)) / np.sqrt(len(b) - 1)
    between = a.mean(axis=0) - b.mean(axis=0)
    traces = np.sum(a_centred**2) + np.sum(b_centred**2)
    values = np.linalg.svd(a_centred @ b_centred.T, compute_uv=False)
    return between @ between + traces - 2 * values.sum(), 4 * max(*a.shape, *b.shape) * EPSILON * traces


def test_equal_covariance_leaves_the_distance_of_the_means():
    root = np.random.default_rng(1).standard_normal((4, 4))
    a = exact_set([0, 0, 0, 0], root, 40, seed=2)
    b = exact_set([3, 0, -4, 12], root, 60, seed=3)
    assert frechet.frechet_distance(a, b) == pytest.approx(169, abs=error(169, a, b))


def test_diagonal_covariances_leave_the_distance_of_the_deviations():
    a = exact_set([1, 2, 3], np.diag([1.0, 5.0, 0.0]), 30, seed=2)
    b = exact_set([1, 2, 3], np.diag([4.0, 3.0, 2.0]), 50, seed=3)
    assert frechet.frechet_distance(a, b) == pytest.approx(9 + 4 + 4, abs=error(17, a, b))


def test_one_dimension():
    a, b = np.array([[-1.0], [1.0]]), np.array([[3.0], [5.0], [7.0]])  # deviations sqrt(2) and 2, means 0 and 5
    expected = 25 + (2 - math.sqrt(2)) ** 2
    assert frechet.frechet_distance(a, b) == pytest.approx(expected, abs=error(expected, a, b))


def test_rotated_covariances_follow_the_matrix_square_root():
    """For 2 x 2, tr(M^(1/2)) = sqrt(tr M + 2 sqrt(det M)) with M = S_a S_b."""
    root_a, root_b = np.array([[2.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [-3.0, 2.0]])
    s_a, s_b = root_a.T @ root_a, root_b.T @ root_b
    product = s_a @ s_b
    cross = math.sqrt(np.trace(product) + 2 * math.sqrt(np.linalg.det(product)))
    expected = np.trace(s_a) + np.trace(s_b) - 2 * cross
    a, b = exact_set([0, 0], root_a, 20, seed=4), exact_set([0, 0], root_b, 25, seed=5)
    assert frechet.frechet_distance(a, b) == pytest.approx(expected, abs=error(expected, a, b))


@pytest.mark.parametrize(("n", "m", "d"), [(5, 7, 12), (7, 5, 12), (5, 40, 12), (40, 5, 12), (30, 40, 12), (2, 2, 3)])
def test_is_the_sum_of_singular_values_also_with_fewer_clips_than_dimensions(n, m, d):
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((n, d)), rng.standard_normal((m, d)) * rng.uniform(0.1, 2, d) + 0.3
    expected, cancelled = sums_of_singular_values(a, b)
    assert frechet.frechet_distance(a, b) == pytest.approx(expected, abs=cancelled)
    assert frechet.frechet_distance(b, a) == pytest.approx(expected, abs=cancelled)


def test_equal_sets_are_exactly_0_apart():
    a = np.random.default_rng(7).standard_normal((6, 20)).astype(np.float32)
    assert frechet.frechet_distance(a, a.copy()) == 0


def test_a_small_edit_is_not_lost_in_rounding():
    """A shift of 1e-7 has the distance 2e-13, less than three traces of 1e3 can be told apart by."""
    a = np.random.default_rng(8).standard_normal((50, 20)) * 8
    b = a + 1e-7
    distance = frechet.frechet_distance(a, b)
    assert distance == pytest.approx(2e-13, abs=error(2e-13, a, b))
    assert error(2e-13, a, b) < 2e-15


def sets(seed, n, m, d, scale):
    rng = np.random.default_rng(seed)
    return scale * rng.standard_normal((n, d)), scale * (rng.standard_normal((m, d)) + rng.standard_normal(d))


SETS = {
    "seed": st.integers(0, 2**32 - 1),
    "n": st.integers(2, 30),
    "m": st.integers(2, 30),
    "d": st.integers(1, 12),
    "scale": st.floats(1e-6, 1e6),
}


@settings(max_examples=50, deadline=None)
@given(**SETS)
def test_is_symmetric_and_never_negative(seed, n, m, d, scale):
    a, b = sets(seed, n, m, d, scale)
    distance = frechet.frechet_distance(a, b)
    assert distance >= 0
    assert frechet.frechet_distance(b, a) == pytest.approx(distance, abs=error(distance, a, b))


@settings(max_examples=50, deadline=None)
@given(**SETS, factor=st.floats(-100, 100).filter(lambda x: abs(x) > 1e-3))
def test_grows_with_the_square_of_the_scale(seed, n, m, d, scale, factor):
    a, b = sets(seed, n, m, d, scale)
    distance = factor**2 * frechet.frechet_distance(a, b)
    scaled = frechet.frechet_distance(factor * a, factor * b)
    assert scaled == pytest.approx(distance, abs=error(distance, factor * a, factor * b))


@settings(max_examples=50, deadline=None)
@given(**SETS)
def test_the_order_of_the_rows_does_not_count(seed, n, m, d, scale):
    a, b = sets(seed, n, m, d, scale)
    order = np.random.default_rng(seed).permutation(n)
    assert frechet.frechet_distance(a, a[order]) <= rounding(a, a)
    distance = frechet.frechet_distance(a, b)
    assert frechet.frechet_distance(a[order], b) == pytest.approx(distance, abs=error(distance, a, b))


def test_halves_share_no_clip_and_leave_none_out(monkeypatch):
    seen = []
    monkeypatch.setattr(frechet, "frechet_distance", lambda a, b: seen.append((a, b)) or 1.0)
    a = np.arange(14.0).reshape(7, 2)
    assert frechet.half_against_half(a, np.random.default_rng(0)) == 1
    first, second = seen[0]
    assert (len(first), len(second)) == (3, 4)
    np.testing.assert_array_equal(np.sort(np.concatenate([first, second]), axis=0), a)
    assert not np.array_equal(first, a[:3])


def test_halves_of_one_set_are_nearer_than_two_sets():
    rng = np.random.default_rng(9)
    a = rng.standard_normal((400, 5))
    assert 0 < frechet.half_against_half(a, rng) < frechet.frechet_distance(a, a + 1)


def test_bootstrap_keeps_a_clip_with_its_copy():
    """With the same shift for every clip, every draw of pairs is as far apart as the whole."""
    a = np.random.default_rng(10).standard_normal((30, 4))
    b = a + 2
    low, high = frechet.paired_bootstrap(a, b, np.random.default_rng(0), draws=20)
    assert low == pytest.approx(16, abs=2 * error(16, a, b))
    assert high == pytest.approx(16, abs=2 * error(16, a, b))


def test_bootstrap_holds_the_distance_and_repeats_with_its_seed():
    rng = np.random.default_rng(11)
    a = rng.standard_normal((100, 8))
    b = a + 0.3 * rng.standard_normal(a.shape)
    low, high = frechet.paired_bootstrap(a, b, np.random.default_rng(1), draws=50)
    assert low < frechet.frechet_distance(a, b) < high
    assert (low, high) == frechet.paired_bootstrap(a, b, np.random.default_rng(1), draws=50)
    assert (low, high) != frechet.paired_bootstrap(a, b, np.random.default_rng(2), draws=50)


def test_bootstrap_covers_what_other_clips_give():
    """Twenty fresh sets of the same size: a 95 % interval of one of them holds their mean 17 times or more.

    Fewer than 17 of 20 has a probability of 1.6 % at 95 %; the seed is fixed, so the test does not waver.
    """
    rng = np.random.default_rng(12)
    distances, intervals = [], []
    for _ in range(20):
        a = rng.standard_normal((150, 3))
        b = a + 0.5 * rng.standard_normal(a.shape)
        distances.append(frechet.frechet_distance(a, b))
        intervals.append(frechet.paired_bootstrap(a, b, rng, draws=80))
    mean = np.mean(distances)
    assert sum(low <= mean <= high for low, high in intervals) >= 17


def test_bootstrap_does_not_go_below_0():
    """One clip of six makes the whole distance: in many draws it is missing, in some it is there three times."""
    a = np.arange(12.0).reshape(6, 2) ** 1.5
    b = a.copy()
    b[0] += 5
    low, high = frechet.paired_bootstrap(a, b, np.random.default_rng(0), draws=50)
    assert low == 0
    assert high > frechet.frechet_distance(a, b)


def test_bootstrap_of_equal_sets_is_0():
    a = np.random.default_rng(13).standard_normal((10, 3))
    assert frechet.paired_bootstrap(a, a, np.random.default_rng(0), draws=5) == (0, 0)


def test_scalar_distance_is_that_of_one_long_vector():
    a, b = np.array([[0.0, 2.0], [4.0, 6.0]]), np.array([[1.0, 1.0], [1.0, 5.0]])
    spread = math.sqrt(20 / 3) - 2  # squared deviations 9 + 1 + 1 + 9, and 1 + 1 + 1 + 9, over 3
    assert frechet.scalar_distance(a, b) == pytest.approx(1 + spread**2, abs=16 * EPSILON)


def test_scalar_distance_does_not_see_which_dimension_it_is():
    a = np.random.default_rng(14).standard_normal((50, 6)) + np.arange(6)
    b = a[:, ::-1]
    assert frechet.scalar_distance(a, b) <= rounding(a, b)
    assert frechet.frechet_distance(a, b) > 1


GOOD = np.zeros((3, 2))


@pytest.mark.parametrize(
    ("a", "message"),
    [
        (np.zeros((1, 2)), "a has 1 rows"),
        (np.zeros(6), "a has the shape"),
        (np.zeros((3, 2, 1)), "a has the shape"),
        (np.zeros((3, 0)), "a has the shape"),
        (np.zeros((3, 4)), "a has 4 dimensions and b has 2"),
        (np.array([[0, 0], [0, np.nan], [0, 0]]), "not finite in row 1"),
        (np.array([[np.inf, 0], [0, 0], [0, 0]]), "not finite in row 0"),
    ],
)
@pytest.mark.parametrize("function", [frechet.frechet_distance, frechet.scalar_distance])
def test_refuses_what_is_not_a_set_of_embeddings(function, a, message):
    with pytest.raises(ValueError, match=message):
        function(a, GOOD)


def test_refuses_what_cannot_be_drawn_from():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="3 rows"):
        frechet.half_against_half(GOOD, rng)
    with pytest.raises(ValueError, match="same clip"):
        frechet.paired_bootstrap(GOOD, np.zeros((4, 2)), rng)
    with pytest.raises(ValueError, match="draws is 0"):
        frechet.paired_bootstrap(GOOD, GOOD, rng, draws=0)
