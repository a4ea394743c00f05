"""chain_norm_profile and chain_norm_bounds: coverage at the worst case, and bounds that hold."""

from itertools import pairwise

import mpmath
import numpy as np
import pytest
from scipy import integrate, stats

import jacometry as jm
from jacometry.ops.chain_norms import _chi_square_ends

# False alarm of one statistical test; seeds are fixed by the test's name.
ALARM = 1e-7


def log_frobenius(chain, start=0):
    return jm.chain_product(chain[start:]).log_norm()


# ---- profile ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_probes", [1, 3, 8])
@pytest.mark.parametrize("confidence", [0.6, 0.95])
def test_intervals_cover_a_rank_one_norm_as_often_as_they_say(rng, n_probes, confidence):
    """At rank one the law is chi^2_r / r exactly: both tails are tested, two-sided."""
    n_items, n = 20_000, 5
    u, v = rng.standard_normal((2, n))
    chain = jm.Chain([jm.Dense(np.outer(u, v)), jm.Diagonal(np.broadcast_to(1.0, (n_items, n)))])
    profile = jm.chain_norm_profile(chain, n_probes=n_probes, confidence=confidence, rng=rng)
    assert profile.values.shape == (n_items, 3)
    truth = np.log(np.linalg.norm(u) * np.linalg.norm(v))
    for misses in (profile.lower[:, 0] > truth, profile.upper[:, 0] < truth):
        test = stats.binomtest(int(misses.sum()), n_items, (1 - confidence) / 2)
        assert test.pvalue > ALARM
    squares = np.exp(2 * (profile.values[:, 0] - truth)) * n_probes
    assert stats.kstest(squares, stats.chi2(n_probes).cdf).pvalue > ALARM


@pytest.mark.parametrize("spectrum", ["identity", "two", "graded", "almost one"])
def test_intervals_cover_any_spectrum_at_least_as_often(rng, spectrum):
    values = {
        "identity": np.ones(6),
        "two": np.array([1.0, 1, 0, 0, 0, 0]),
        "graded": 2.0 ** -np.arange(6),
        "almost one": np.array([1.0, 0.1, 0.1, 0, 0, 0]),
    }[spectrum]
    n_items = 20_000
    chain = jm.Chain([jm.Diagonal(np.broadcast_to(values, (n_items, 6)))])
    for n_probes, confidence in [(1, 0.6), (1, 0.9), (4, 0.6), (8, 0.95)]:
        profile = jm.chain_norm_profile(chain, n_probes=n_probes, confidence=confidence, rng=rng)
        truth = np.log(np.linalg.norm(values))
        for misses in (profile.lower[:, 0] > truth, profile.upper[:, 0] < truth):
            allowed = (1 - confidence) / 2
            test = stats.binomtest(int(misses.sum()), n_items, allowed, alternative="greater")
            assert test.pvalue > ALARM


@pytest.mark.parametrize("n_probes", [1, 2, 3, 8, 30])
@pytest.mark.parametrize("confidence", [0.6, 0.8, 0.95, 0.999])
def test_rank_one_is_the_worst_spectrum(n_probes, confidence):
    """Exact tails of two weights by quadrature, and of k equal weights in closed form."""
    low, high = _chi_square_ends(n_probes, confidence)
    tail = (1 - confidence) / 2
    law = stats.chi2(n_probes)
    for weight in [0.01, 0.1, 0.3, 0.5]:
        # P(w A + (1 - w) B <= x), A and B chi^2_r / r; A = t^2 takes the singularity at 0 away.
        def below(x, w=weight):
            def integrand(t):
                rest = (x - w * t * t) / (1 - w)
                return 2 * t * n_probes * law.pdf(n_probes * t * t) * law.cdf(n_probes * rest)

            return integrate.quad(integrand, 0, np.sqrt(x / w), epsabs=1e-12, limit=200)[0]

        assert below(low) <= tail * (1 + 1e-8)
        assert 1 - below(high) <= tail * (1 + 1e-6) + 1e-10
    for k in range(1, 20):
        many = stats.chi2(k * n_probes, scale=1 / (k * n_probes))
        assert many.cdf(low) <= tail * (1 + 1e-9)
        assert many.sf(high) <= tail * (1 + 1e-9)


def test_profile_of_a_deep_chain_of_every_scale(rng):
    n = 4
    factors = [jm.Dense(rng.standard_normal((n, n)) * 1e-30) for _ in range(40)]
    chain = jm.Chain([*factors, jm.LayerNorm(rng.standard_normal(n)), jm.Conv1d([[[1e30]]], n)])
    profile = jm.chain_norm_profile(chain, n_probes=64, confidence=1 - 1e-7, rng=rng)
    assert profile.values.shape == (43,)
    truth = [float(log_frobenius(chain, k)) for k in range(42)] + [np.log(2)]
    assert (profile.lower <= truth).all()
    assert (truth <= profile.upper).all()
    assert (profile.lower < profile.upper)[:-1].all()
    for ends in (profile.lower, profile.values, profile.upper):
        assert ends[-1] == np.log(n) / 2


def test_profile_of_a_coupled_batch_is_that_of_the_whole(rng):
    x = rng.standard_normal((3, 5))
    chain = jm.Chain([jm.Dense(rng.standard_normal((5, 5))), jm.BatchNorm(x)])
    profile = jm.chain_norm_profile(chain, n_probes=400, confidence=1 - 1e-7, rng=rng)
    truth = np.log(np.linalg.norm(chain.over_batch() @ np.eye(15)))
    assert profile.values.shape == (3,)
    assert profile.lower[0] <= truth <= profile.upper[0]
    assert profile.values[-1] == np.log(15) / 2


def test_profile_of_arrays_zeros_and_float32(rng):
    weights = rng.standard_normal((3, 4, 4)).astype(np.float32)
    slopes = rng.random((2, 3, 4)).astype(np.float32)
    slopes[1, 2] = 0
    profile = jm.chain_norm_profile(weights, slopes=slopes, rng=1)
    again = jm.chain_norm_profile(weights, slopes=slopes, rng=1, n_threads=2)
    np.testing.assert_array_equal(profile.values, again.values)
    assert profile.values.shape == (2, 4)
    assert (profile.upper[1, :3] == -np.inf).all()
    assert np.isfinite(profile.values[0]).all()
    assert profile.n_probes == 8
    assert profile.confidence == 0.95


def test_bad_profile_arguments_are_named():
    chain = jm.Chain([jm.Dense(np.eye(2))])
    with pytest.raises(ValueError, match="n_probes must be at least 1, got 0"):
        jm.chain_norm_profile(chain, n_probes=0)
    for confidence in (0.5, 1.0):
        with pytest.raises(ValueError, match=r"confidence must lie in \[0.6, 1\)"):
            jm.chain_norm_profile(chain, confidence=confidence)


# ---- bounds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "widths", [[3, 3, 3, 3], [5, 4, 3, 2], [2, 3, 4, 5], [4, 2, 5], [2, 5, 3], [1, 1, 1], [6, 1, 6]]
)
def test_bounds_enclose_the_norm_of_the_product(rng, widths):
    for _ in range(50):
        weights = [
            rng.standard_normal((4, m, n)) * 10.0 ** rng.uniform(-200, 200)
            for n, m in pairwise(widths)
        ]
        slopes = [None, *[rng.standard_normal(m) for m in widths[2:]]]
        bounds = jm.chain_norm_bounds(weights, slopes=slopes)
        truth = jm.chain_product(weights, slopes=slopes).log_norm(2)
        assert bounds.lower.shape == bounds.upper.shape == (4,)
        # The product's own rounding, by its normwise bound over its norm.
        size = bounds.upper - truth
        slack = sum(n + 4 for n in widths) * 2.0**-52 * np.exp(size) * np.prod(widths)
        assert (bounds.lower <= truth + slack).all()
        assert (truth <= bounds.upper + slack).all()
    shrinks = all(a >= b for a, b in pairwise(widths))
    grows = all(a <= b for a, b in pairwise(widths))
    if shrinks or grows:  # one-sided inverses all the way
        assert np.isfinite(bounds.lower).all()


def test_a_smallest_singular_value_counts_only_on_its_own_side():
    """theory.md: smax(J2) smin(J1) <= ||J2 J1|| only for J1 of full row rank."""
    j1, j2 = np.array([[1.0], [0.0]]), np.array([[0.0, 1.0]])
    bounds = jm.chain_norm_bounds([j1, j2])
    assert jm.chain_product([j1, j2]).log_norm() == -np.inf
    assert bounds.lower == -np.inf
    assert abs(bounds.upper) <= 1e-14
    # The other way about, J1 = (0, 1) has full row rank and J2 = (1, 0)^T full column rank.
    bounds = jm.chain_norm_bounds([j2, j1])
    assert -1e-14 <= bounds.lower <= 0 <= bounds.upper <= 1e-14


def test_the_bound_with_an_inverse_is_the_right_one():
    """||A B|| >= ||A|| / ||B^-1||, not ||A|| / ||B||."""
    a, b = np.diag([2.0, 1.0]), np.diag([0.1, 0.2])
    bounds = jm.chain_norm_bounds([b, a])
    assert np.linalg.norm(a, 2) / np.linalg.norm(b, 2) == 10.0
    assert np.exp(bounds.lower) == pytest.approx(0.2, rel=1e-12)  # 2 / 10, and 1 * 0.2
    assert np.exp(bounds.upper) == pytest.approx(0.4, rel=1e-12)


def test_one_large_factor_does_not_make_a_product_explode():
    bounds = jm.chain_norm_bounds(jm.Chain([jm.Diagonal([0.5])] * 99 + [jm.Diagonal([2.0])]))
    assert np.exp(bounds.upper) == pytest.approx(2 * 0.5**99, rel=1e-11)
    assert np.exp(bounds.lower) == pytest.approx(2 * 0.5**99, rel=1e-11)


def test_bounds_of_orthogonal_factors_meet_and_repeats_cost_nothing(rng):
    q = np.linalg.qr(rng.standard_normal((3, 5, 5)))[0]
    body = jm.Chain([*map(jm.Dense, q), jm.Diagonal([2.0] * 5)])
    bounds = jm.chain_norm_bounds(body.repeat(10**5))
    assert bounds.upper - bounds.lower < 1e-3
    assert bounds.lower <= 10**5 * np.log(2) <= bounds.upper


def exact_singular_values(matrix):
    """All of them to 60 digits, descending."""
    return sorted((abs(x) for x in mpmath.svd_r(matrix, compute_uv=False)), reverse=True)


@pytest.mark.parametrize("kind", ["tall", "graded", "cancelling", "clustered", "subnormal"])
def test_one_factor_is_enclosed_in_exact_arithmetic(rng, kind):
    """Bounds of a single factor against its singular values at 60 digits, as logs: no slack."""
    for _ in range(20):
        m, n = (7, 4) if kind == "tall" else (5, 5)
        w, s, c = rng.standard_normal((m, n)), rng.standard_normal(m), 0.0
        if kind == "graded":
            w, s = w * 10.0 ** -np.arange(0, 20, 4), 10.0 ** np.arange(-8.0, 2, 2)
        elif kind == "cancelling":  # s w nearly -c: what is left is the rounding of s w
            w, c = np.eye(n) * (1 + 1e-12 * rng.standard_normal((n, n))), -1.0
            w, s = w / (s := rng.uniform(0.5, 2, n))[:, None], s
        elif kind == "clustered":
            w, s = np.linalg.qr(w)[0], np.ones(n)
        elif kind == "subnormal":
            w, s = np.diag([1, *[1e-200] * 4]), np.array([1e-200, *[1e-115] * 4])
        bounds = jm.chain_norm_bounds(w[None] if m == n else [w], slopes=[s], shortcut=c)
        with mpmath.workdps(60):
            f = mpmath.diag([mpmath.mpf(x) for x in s]) * mpmath.matrix(w.tolist())
            f = f + mpmath.mpf(c) * mpmath.eye(n) if c else f
            truth = mpmath.log(exact_singular_values(f)[0])
            assert mpmath.mpf(float(bounds.lower)) <= truth <= mpmath.mpf(float(bounds.upper))
        if kind not in ("cancelling", "subnormal"):
            assert bounds.upper - bounds.lower < 1e-13


def test_bounds_take_shortcuts_and_every_kind_of_factor(rng):
    w = rng.standard_normal((2, 4, 4))
    for side in ("output", "input"):
        s = rng.standard_normal((3, 2, 4))
        bounds = jm.chain_norm_bounds(w, slopes=s, slope_side=side, shortcut=3.0)
        truth = jm.chain_product(w, slopes=s, slope_side=side, shortcut=3.0).log_norm(2)
        assert (bounds.lower <= truth + 1e-12).all()
        assert (truth <= bounds.upper + 1e-12).all()
        assert np.isfinite(bounds.lower).all()
    chain = jm.Chain(
        [jm.LayerNorm(s[:, 0]), jm.Conv1d(w[:1, :1, :3], 4, padding=1), jm.Residual(w[0], 0.1)]
    )
    bounds = jm.chain_norm_bounds(chain)
    truth = jm.chain_product(chain).log_norm(2)
    assert (bounds.lower <= truth + 1e-12).all()
    assert (truth <= bounds.upper + 1e-12).all()


def test_bounds_of_empty_chains_and_bad_entries(rng):
    assert jm.chain_norm_bounds(np.zeros((0, 3, 3))).upper == 0
    assert jm.chain_norm_bounds(np.zeros((0, 3, 3))).lower == 0
    assert jm.chain_norm_bounds(np.zeros((0, 2, 3, 3))).lower.shape == (0,)
    assert jm.chain_norm_bounds([np.zeros((0, 2)), np.zeros((3, 0))]).upper == -np.inf
    assert jm.chain_norm_bounds(np.zeros((2, 3, 3))).upper == -np.inf
    bad = rng.standard_normal((2, 3, 4, 4))
    bad[1, 2, 0, 0] = np.nan
    with pytest.raises(ValueError, match="weights must be finite, got nan in sample 1, layer 2"):
        jm.chain_norm_bounds(bad)
    chain = jm.Chain([jm.Dense(bad[:, 0]), jm.Dense(bad[:, 2])])
    with pytest.raises(ValueError, match=r"factors\[1\] must be finite, got nan in sample 1"):
        jm.chain_norm_bounds(chain)
