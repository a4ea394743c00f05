"""Initializers draw from the laws that they promise.

False alarms: each check below is two-sided and fails by chance with a probability of ALPHA; there
are fewer than 400, so that a correct package fails one of them in less than 1 of 25,000 runs with
fresh seeds.  Here the seed of a test is its name.  Chi-square and Kolmogorov-Smirnov laws are exact
(or the limit, at thousands of draws), Bernstein's inequality holds for any size.
"""

import math

import numpy as np
import pytest
from scipy import stats

from jacometry import initializers

ALPHA = 1e-7
# Default fan and gain squared.
NORMAL = {
    "glorot_normal": ("avg", 1.0),
    "he_normal": ("in", 2.0),
    "lecun_normal": ("in", 1.0),
    "gaussian": ("in", 1.0),
}
UNIFORM = {"glorot_uniform": ("avg", 1.0), "he_uniform": ("in", 2.0)}
SHAPES = [(120, 300), (40, 30, 5), (20, 30, 3, 4)]


def fans(shape):
    taps = math.prod(shape[2:])
    return {
        "in": shape[1] * taps,
        "out": shape[0] * taps,
        "avg": (shape[0] + shape[1]) * taps / 2,
    }


def test_false_alarms_are_rare(rng):
    """Repetitions of each kind of check on the right law: none rejects, but for 1e-4."""
    for _ in range(300):
        draws = rng.standard_normal(500)
        assert chi2_p(draws) > ALPHA
        assert stats.kstest(draws, stats.norm.cdf).pvalue > ALPHA
        assert abs(np.mean(rng.uniform(-1, 1, 500) ** 2) - 1 / 3) < bernstein(500, 4 / 45, 1.0)


def chi2_p(standardised):
    """Two-sided: the sum of squares of independent standard normals is chi-square, exactly."""
    total, count = np.sum(standardised**2), standardised.size
    return 2 * min(stats.chi2.cdf(total, count), stats.chi2.sf(total, count))


def bernstein(n, variance, bound):
    """Beyond this the mean of n bounded terms strays with probability at most ALPHA (Bernstein)."""
    log = math.log(2 / ALPHA)
    half = log * bound / (3 * n)
    return half + math.sqrt(half**2 + 2 * log * variance / n)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fan", [None, "in", "out", "avg"])
@pytest.mark.parametrize("name", NORMAL)
def test_normal_entries_have_variance_gain_squared_over_fan(name, fan, shape, dtype, rng):
    default, gain_squared = NORMAL[name]
    options = {} if fan is None else {"fan": fan}
    entries = initializers.get(name)(shape, rng=rng, dtype=dtype, **options).astype(float).ravel()
    standardised = entries / math.sqrt(gain_squared / fans(shape)[fan or default])
    assert chi2_p(standardised) > ALPHA
    assert stats.kstest(standardised, stats.norm.cdf).pvalue > ALPHA


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fan", [None, "in", "out", "avg"])
@pytest.mark.parametrize("name", UNIFORM)
def test_uniform_entries_fill_their_interval(name, fan, shape, dtype, rng):
    default, gain_squared = UNIFORM[name]
    options = {} if fan is None else {"fan": fan}
    entries = initializers.get(name)(shape, rng=rng, dtype=dtype, **options).ravel()
    bound = math.sqrt(3 * gain_squared / fans(shape)[fan or default])
    assert np.abs(entries).max() <= dtype.type(bound)
    standardised = entries.astype(float) / bound
    n = standardised.size
    # Squares lie in [0, 1], with mean 1/3 and variance 1/5 - 1/9.
    assert abs(np.mean(standardised**2) - 1 / 3) < bernstein(n, 4 / 45, 1.0)
    assert stats.kstest(standardised, stats.uniform(-1, 2).cdf).pvalue > ALPHA


@pytest.mark.parametrize("gain", [0.0, 0.25, 3.0])
@pytest.mark.parametrize("name", [*NORMAL, *UNIFORM])
def test_gain_scales_the_draws(name, gain):
    once = initializers.get(name)((4, 3), rng=1, gain=1.0)
    np.testing.assert_allclose(initializers.get(name)((4, 3), rng=1, gain=gain), gain * once)


@pytest.mark.parametrize("name", [*NORMAL, *UNIFORM])
def test_entries_are_not_correlated(name, rng):
    """The mean product of neighbours in columns and in rows, over n pairs, has variance 1 / n."""
    entries = initializers.get(name)((200, 200), rng=rng)
    entries /= entries.std()
    for products in (entries[1:] * entries[:-1], entries[:, 1:] * entries[:, :-1]):
        # Normal: products are symmetric, of kurtosis 9 at most, and there are 39,800.
        assert abs(products.mean()) < stats.norm.isf(ALPHA / 2) / math.sqrt(products.size)


N_MATRICES = 3000


def draws(make, rng):
    return np.stack([make(rng) for _ in range(N_MATRICES)])


def entry_law(n):
    """The law of (1 + u . Q v) / 2 for unit vectors u, v and Haar Q in n dimensions."""
    return stats.beta((n - 1) / 2, (n - 1) / 2).cdf


HAAR = {
    "square": ((5, 5), lambda w: w),
    "tall": ((7, 3), lambda w: w),
    "wide": ((3, 7), lambda w: w.T),
    "kernel": ((3, 2, 4), lambda w: w.reshape(3, 8).T),
}


@pytest.mark.parametrize("kind", HAAR)
def test_orthogonal_is_haar(kind, rng):
    """Every entry, and the image of any unit vector, has the law that rotation invariance gives."""
    shape, matrix = HAAR[kind]
    found = draws(lambda r: matrix(initializers.orthogonal(shape, rng=r)), rng)
    n, k = found.shape[1:]
    for i, j in ((0, 0), (n - 1, k - 1), (0, k - 1)):
        assert stats.kstest((1 + found[:, i, j]) / 2, entry_law(n)).pvalue > ALPHA
    u, v = np.arange(1.0, n + 1), np.ones(k)
    projected = np.einsum("i,bij,j->b", u / np.linalg.norm(u), found, v / np.linalg.norm(v))
    assert stats.kstest((1 + projected) / 2, entry_law(n)).pvalue > ALPHA


def test_delta_orthogonal_is_haar_at_its_centre(rng):
    found = draws(lambda r: initializers.delta_orthogonal((6, 4, 3, 3), rng=r)[:, :, 1, 1], rng)
    for i, j in ((0, 0), (5, 3), (2, 1)):
        assert stats.kstest((1 + found[:, i, j]) / 2, entry_law(6)).pvalue > ALPHA


def test_the_test_of_haar_sees_a_factorisation_without_signs(rng):
    found = draws(lambda r: np.linalg.qr(r.standard_normal((5, 5)))[0], rng)
    assert stats.kstest((1 + found[:, 0, 0]) / 2, entry_law(5)).pvalue < ALPHA


def test_traces_of_orthogonal_have_haar_moments(rng):
    """E (tr Q)^2 = 1 and E (tr Q^2) = 1 for the orthogonal group, with variances 2 and 2.

    Diaconis and Shahshahani, On the eigenvalues of random matrices, 1994.
    """
    n = 8
    found = draws(lambda r: initializers.orthogonal((n, n), rng=r), rng)
    trace, trace_of_square = np.einsum("bii->b", found), np.einsum("bij,bji->b", found, found)
    assert abs(trace.mean()) < bernstein(N_MATRICES, 1.0, n)
    assert abs(np.mean(trace**2) - 1) < bernstein(N_MATRICES, 2.0, n**2)
    assert abs(np.mean(trace_of_square) - 1) < bernstein(N_MATRICES, 2.0, n + 1)


def test_orthogonal_matrices_of_both_determinants_are_as_likely_and_rotations_uniform(rng):
    found = draws(lambda r: initializers.orthogonal((2, 2), rng=r), rng)
    is_rotation = np.linalg.det(found) > 0
    assert stats.binomtest(int(is_rotation.sum()), N_MATRICES).pvalue > ALPHA
    angles = np.arctan2(found[is_rotation, 1, 0], found[is_rotation, 0, 0])
    assert stats.kstest(angles, stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > ALPHA
