"""lyapunov_spectrum and lyapunov_spectrum_map against QR, and where the spectrum is known."""

from itertools import pairwise

import numpy as np
import pytest
from common import bytes_grown, reads_peak, seconds_after_ctrl_c
from scipy import special, stats

import jacometry as jm
from jacometry.reference import lyapunov as reference

SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 31, 32, 33, 65]
NEWMAN_4 = [-0.135181422731, -0.328328603291, -0.635181422731, -1.328328603291]


def gaussian(rng, *shape):
    return rng.standard_normal(shape) / np.sqrt(shape[-1])


def start_of(seed, n, k, dtype):
    return np.random.default_rng(seed).standard_normal((n, k)).astype(dtype)


@pytest.mark.parametrize("side", ["output", "input"])
@pytest.mark.parametrize("n", SIZES)
def test_lyapunov_spectrum_agrees_with_the_oracle(isa, dtype, rng, n, side):
    n_layers, burn_in, u = 70, 3, np.finfo(dtype).eps / 2
    # Singular values in [0.7, 1.3]: a step errs by some n u of its condition number, 2.
    w = np.linalg.qr(rng.standard_normal((5, n_layers, n, n)))[0]
    w = (w * rng.uniform(0.7, 1.3, (5, n_layers, 1, n))).astype(dtype)
    slopes = rng.uniform(0.8, 1, (5, n_layers, n)).astype(dtype)
    for k in sorted({1, (n + 1) // 2, n}):
        for weights in (w, w[0]):
            got = jm.lyapunov_spectrum(
                weights, slopes=slopes, slope_side=side, shortcut=0.1, k=k, burn_in=burn_in,
                history=True, rng=3,
            )  # fmt: skip
            assert got.exponents.shape == got.stderr.shape == (5, k)
            assert got.history.shape == (5, n_layers - burn_in, k)
            for i in (0, 4):
                own = weights[i] if weights.ndim == 4 else weights
                start = start_of(3, n, k, dtype)
                expected = reference.lyapunov_spectrum(
                    own, start, 32, slopes[i], side, 0.1, burn_in
                )
                found = got.exponents[i], got.stderr[i], got.history[i]
                for mine, truth in zip(found, expected, strict=True):
                    # Rounding moves the columns by n u a step, which decays or adds up.
                    assert np.abs(mine - truth).max() <= 8 * n_layers * (n + 4) * u


@pytest.mark.parametrize("n", [2, 5, 16, 33])
def test_lyapunov_spectrum_does_not_depend_on_threads_or_batch(isa, dtype, rng, n):
    w = gaussian(rng, 23, 12, n, n).astype(dtype)
    w[4, 3, 1] = 0  # a singular step of one item leaves its neighbours alone
    w[7] *= dtype.type(1e25)
    one = jm.lyapunov_spectrum(w, rng=1, n_threads=1)
    many = jm.lyapunov_spectrum(w, rng=1, n_threads=4, history=True)
    part = jm.lyapunov_spectrum(w[5:8], rng=1)
    alone = jm.lyapunov_spectrum(w[9], rng=1)
    for name in ("exponents", "stderr"):
        np.testing.assert_array_equal(getattr(one, name), getattr(many, name))
        np.testing.assert_array_equal(getattr(one, name)[5:8], getattr(part, name))
        np.testing.assert_array_equal(getattr(one, name)[9], getattr(alone, name))


def assert_covers(covered, n_items, low, high):
    """A binomial number of intervals, of a chance between two; rejected in error once in 10^7."""
    least, most = stats.binom.ppf(0.5e-7, n_items, low), stats.binom.isf(0.5e-7, n_items, high)
    assert least <= covered <= most, (covered, least, most)


def test_intervals_cover_the_exponents_of_gaussian_products(rng):
    """Newman's spectrum: log R_ii are independent, halves of ln chi^2 of 4, 3, 2 and 1 degrees."""
    n_items, n_steps, n_batches = 1000, 10, 32
    half_freedom = (4 - np.arange(4)) / 2
    truth = (np.log(2 / 4) + special.digamma(half_freedom)) / 2
    np.testing.assert_allclose(truth, NEWMAN_4, atol=1e-11)
    got = jm.lyapunov_spectrum(gaussian(rng, n_items, n_steps * n_batches, 4, 4), rng=rng)
    z, t = stats.norm.ppf(0.975), stats.t.ppf(0.975, n_batches - 1)
    variance = special.polygamma(1, half_freedom)
    skewness_2 = special.polygamma(2, half_freedom) ** 2 / variance**3 / n_steps
    kurtosis = special.polygamma(3, half_freedom) / variance**2 / n_steps
    # A t-interval's coverage to first order (Hall, Theoretical comparison of bootstrap confidence
    # intervals, 1988); what comes after it is of order n_batches^-2 and less than it by far.
    off = kurtosis / 12 * (z**2 - 3) - skewness_2 / 18 * (z**4 + 2 * z**2 - 3)
    off = 2 * z * stats.norm.pdf(z) * np.abs(off) / n_batches
    covered = (np.abs(got.exponents - truth) <= t * got.stderr).sum(0)
    for number, margin in zip(covered, off, strict=True):
        assert_covers(number, n_items, 0.95 - 2 * margin, 0.95 + 2 * margin)
    # The sample variance of m numbers has relative variance 2 / (m - 1) + kurtosis / m.
    spread = np.sqrt((2 / (n_batches - 1) + kurtosis / n_batches) / n_items)
    expected = variance / 4 / (n_steps * n_batches)
    ratio = (got.stderr**2).mean(0) / expected
    assert (np.abs(ratio - 1) <= stats.norm.isf(0.5e-7) * spread).all(), ratio


def test_intervals_cover_under_autocorrelation(rng):
    """Gaussian 2 x 2 factors times exp(x), x AR(1): log R_ii is x plus an independent term."""
    n_items, n_batches, n_steps, phi = 500, 32, 100, 0.8
    n_layers = n_batches * n_steps
    x = np.empty((n_items, n_layers))
    x[:, 0] = rng.standard_normal(n_items) / np.sqrt(1 - phi**2)
    for t in range(1, n_layers):
        x[:, t] = phi * x[:, t - 1] + rng.standard_normal(n_items)
    slopes = np.broadcast_to(np.exp(x)[:, :, None], (n_items, n_layers, 2))
    w = gaussian(rng, n_items, n_layers, 2, 2)
    got = jm.lyapunov_spectrum(w, slopes=slopes, rng=0)
    half_freedom = (2 - np.arange(2)) / 2
    truth = special.digamma(half_freedom) / 2

    def variance_of_mean(n):
        lags = np.arange(1, n)
        of_x = (1 + 2 * ((1 - lags / n) * phi**lags).sum()) / (1 - phi**2)
        return (of_x + special.polygamma(1, half_freedom) / 4) / n

    # Batch means of AR(1) are correlated a little: what the estimate lacks of the variance.
    total = variance_of_mean(n_layers)
    ratio = (variance_of_mean(n_steps) - total) / (n_batches - 1) / total
    t = stats.t.ppf(0.975, n_batches - 1)
    chance = 1 - 2 * stats.t.sf(t * np.sqrt(ratio), n_batches - 1)
    assert (chance > 0.94).all()
    covered = (np.abs(got.exponents - truth) <= t * got.stderr).sum(0)
    for number, p in zip(covered, chance, strict=True):
        # A batch of 100 steps is normal to a tenth of Hall's term above: 0.001 at most.
        assert_covers(number, n_items, p - 0.001, p + 0.001)
    # Taken for independent, these steps would give less than half of the error.
    naive = (1 / (1 - phi**2) + special.polygamma(1, half_freedom) / 4) / n_layers
    assert (naive < total / 4).all()


def test_residual_gaussian_chain_has_newmans_shifted_exponent(rng):
    """I + sigma G / sqrt(n) stretches every vector by the same law: no transient, no burn-in."""
    n, variance, n_items, n_layers = 8, 0.1, 64, 4000
    w = rng.standard_normal((n_items, n_layers, n, n), dtype=np.float32)
    w *= np.float32(np.sqrt(variance / n))
    got = jm.lyapunov_spectrum(w, shortcut=1.0, k=1, rng=1).exponents[:, 0]
    # Student's t for the mean of 64 equal chains; rounding moves a step by some n u.
    bound = stats.t.isf(0.5e-7, n_items - 1) * got.std(ddof=1) / np.sqrt(n_items)
    assert abs(got.mean() - 0.036578125) <= bound + (n + 4) * 2.0**-24


def test_known_maps():
    cat = np.broadcast_to(np.array([[2.0, 1.0], [1.0, 1.0]]), (2000, 2, 2))
    found = jm.lyapunov_spectrum(cat, burn_in=100, rng=0).exponents
    np.testing.assert_allclose(found, [0.9624236501192069, -0.9624236501192069], atol=1e-12)
    orbit = np.empty((200_001, 2))
    orbit[0] = 0.1, 0.1
    for t in range(200_000):
        x, y = orbit[t]
        orbit[t + 1] = 1 - 1.4 * x * x + y, 0.3 * x
    w = np.zeros((200_000, 2, 2))
    w[:, 0, 0], w[:, 0, 1], w[:, 1, 0] = -2.8 * orbit[:-1, 0], 1, 0.3
    found = jm.lyapunov_spectrum(w, burn_in=1000, rng=0)
    error = np.abs(found.exponents - [0.41922, -1.62319])
    # Student's t of 31 degrees, and half a unit of the last digit printed.
    assert (error <= stats.t.isf(0.5e-7, 31) * found.stderr + 5e-6).all()
    assert found.exponents.sum() == pytest.approx(np.log(0.3), abs=1e-12)


@pytest.mark.parametrize("n", [3, 6, 12])
@pytest.mark.parametrize("tiny", [1e-3, 1e-6, 1e-9, 1e-13])
def test_zeros_decide_where_a_step_hides_them_in_rounding(isa, rng, n, tiny):
    """A zero column of a factor that shrinks what is left of the last direction to its rounding."""
    v = np.eye(n)
    v[1:, 1:] = np.linalg.qr(rng.standard_normal((n - 1, n - 1)))[0]
    slow, last = np.ones(n), np.ones(n)
    slow[0], slow[-1] = 0.5, 0.4
    last[0], last[-1] = 0, tiny
    for before in range(3, 80, 4):
        w = np.linalg.qr(rng.standard_normal((before + 5, n, n)))[0]
        w[:before] = (v * slow) @ v.T
        w[before] = (w[before] * last) @ v.T
        got = jm.lyapunov_spectrum(w, history=True, rng=1)
        assert np.isneginf(got.exponents).tolist() == [False] * (n - 1) + [True]
        assert np.isfinite(got.history[:before]).all()
        assert np.isneginf(got.history[before:, -1]).all()


@pytest.mark.parametrize("n", [3, 20])
def test_zeros_give_minus_infinity_and_nothing_else_does(isa, dtype, rng, n):
    w = gaussian(rng, 4, 20, n, n).astype(dtype)
    slopes = np.ones((4, 20, n), dtype)
    slopes[1, 7, 0] = 0  # one direction fewer from step 7 on
    slopes[2, 9] = 0  # none left
    for side in ("output", "input"):
        got = jm.lyapunov_spectrum(w, slopes=slopes, slope_side=side, history=True, rng=2)
        assert np.isfinite(got.exponents[[0, 3]]).all()
        assert (np.isneginf(got.exponents[1]) == (np.arange(n) == n - 1)).all()
        assert np.isneginf(got.exponents[2]).all()
        assert np.isfinite(got.history[1, :7]).all()
        assert np.isneginf(got.history[1, 7:, -1]).all()
        assert not np.isnan(got.stderr).any()


@pytest.mark.parametrize("n", [2, 6, 20])
def test_any_scale_is_safe(isa, rng, n):
    w = gaussian(rng, 40, n, n)
    plain = jm.lyapunov_spectrum(w, rng=1)
    for power in (-1020, -500, 500, 1020):
        scaled = jm.lyapunov_spectrum(np.ldexp(w, power), rng=1).exponents
        np.testing.assert_allclose(
            scaled - power * np.log(2), plain.exponents, atol=1e-12 * abs(power)
        )
    graded = np.broadcast_to(np.diag(np.geomspace(1e300, 1e-300, n)), (5, n, n))
    assert np.isfinite(jm.lyapunov_spectrum(graded, rng=1).exponents).all()


def test_rectangular_chains_and_chain_objects(rng):
    widths = [7, 12, 3, 9]
    w = [gaussian(rng, a, b) for b, a in pairwise(widths)]
    start = start_of(4, 7, 3, np.float64)
    expected = reference.lyapunov_spectrum(w, start, 3)
    for chain in (w, jm.Chain([jm.Dense(a) for a in w])):
        got = jm.lyapunov_spectrum(chain, rng=4)
        np.testing.assert_allclose(got.exponents, expected[0], atol=1e-12)


@pytest.mark.parametrize("n", [3, 9])
def test_a_repeated_chain_is_the_list_written_out(isa, dtype, rng, n):
    w = gaussian(rng, 2, 3, n, n).astype(dtype)
    slopes = rng.uniform(0.5, 2, n).astype(dtype)
    body = [jm.Dense(w[:, 0]), jm.Diagonal(slopes), jm.Residual(w[0, 1]), jm.Dense(w[1, 2])]
    repeated = jm.lyapunov_spectrum(jm.Chain(body).repeat(40), history=True, rng=3)
    for written in (jm.Chain(body * 40), jm.Chain([jm.Chain(body * 8).repeat(5)])):
        got = jm.lyapunov_spectrum(written, history=True, rng=3)
        for name in ("exponents", "stderr", "history"):
            np.testing.assert_array_equal(getattr(got, name), getattr(repeated, name))


@reads_peak
def test_memory_does_not_grow_with_depth():
    """10^6 factors, repeated: 512 MB were they copied, 64 MB were each exponent kept."""
    setup = """
chain = jm.Chain([jm.Dense(np.eye(8) + np.tri(8) / 9), jm.Dense(np.eye(8))])
jm.lyapunov_spectrum(chain.repeat(500), rng=0)
"""
    # a quarter of a byte a factor and exponent
    assert bytes_grown(setup, "jm.lyapunov_spectrum(chain.repeat(5 * 10**5), rng=0)") <= 2e6


@pytest.mark.parametrize("n", [2, 8, 33])
def test_ten_million_layers_stop_soon_after_ctrl_c(n):
    setup = f"w = np.broadcast_to(np.eye({n}), (10**7, {n}, {n}))\njm.lyapunov_spectrum(w[:10])"
    # The promise is 0.1 s; ten times that tells polling from waiting on a busy machine.
    assert seconds_after_ctrl_c(setup, "jm.lyapunov_spectrum(w)") < 1.0


def test_depth_costs_calls_in_proportion_and_the_map_keeps_nothing():
    for n_steps in (100, 1000):
        calls = []
        jm.lyapunov_spectrum_map(
            lambda x, calls=calls: calls.append(0) or x, lambda x, v: 2 * v, [1.0], n_steps, k=1
        )
        assert len(calls) == n_steps


def test_non_finite_input_is_named_or_propagated(isa, dtype, rng):
    for n in (3, 20):
        w = gaussian(rng, 3, 9, n, n).astype(dtype)
        w[1, 4, 0, 1] = np.nan
        with pytest.raises(
            ValueError, match="weights must be finite, got nan in sample 1, layer 4"
        ):
            jm.lyapunov_spectrum(w)
        got = jm.lyapunov_spectrum(w, check_finite=False)
        assert np.isnan(got.exponents[1]).all()
        assert np.isfinite(got.exponents[[0, 2]]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 4}, "k must be at most the smallest width 3, got 4"),
        ({"k": 0}, "k must be at least 1"),
        ({"burn_in": 5}, "burn_in must be less than the number of layers 5"),
        ({"burn_in": -1}, "burn_in must be at least 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        jm.lyapunov_spectrum(np.ones((5, 3, 3)), **arguments)
    assert jm.lyapunov_spectrum(np.ones((0, 5, 3, 3))).exponents.shape == (0, 3)


def test_lyapunov_spectrum_map_agrees_with_the_chain_of_its_jacobians(rng):
    a = gaussian(rng, 5, 5)
    w = np.broadcast_to(a, (50, 5, 5))
    for x0 in (np.ones(5), np.ones((3, 5))):
        got = jm.lyapunov_spectrum_map(
            lambda x: x @ a.T, lambda x, v: a @ v, x0, 50, k=2, burn_in=5, dt=0.5, rng=1,
            history=True,
        )  # fmt: skip
        expected = jm.lyapunov_spectrum(w, k=2, burn_in=5, rng=1, history=True)
        for name in ("exponents", "stderr", "history"):
            mine, truth = getattr(got, name), getattr(expected, name)
            np.testing.assert_allclose(mine, np.broadcast_to(2 * truth, mine.shape), atol=1e-11)


@pytest.mark.parametrize(
    ("step", "jvp", "message"),
    [
        (lambda x: x[:1], lambda x, v: v, r"step must return shape \(2,\), got \(1,\) in step 0"),
        (lambda x: x, lambda x, v: v.T[:1], r"jvp must return shape \(2, 2\), got"),
        (lambda x: x * np.nan, lambda x, v: v, "step must return finite values"),
        (lambda x: x, lambda x, v: v * np.inf, "jvp must return finite values, got NaN or inf"),
    ],
)
def test_a_users_function_is_named_with_the_step(step, jvp, message):
    with pytest.raises(ValueError, match=message):
        jm.lyapunov_spectrum_map(step, jvp, np.ones(2), 3, k=2)
