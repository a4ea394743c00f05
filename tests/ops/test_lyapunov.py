"""lyapunov_spectrum and lyapunov_spectrum_map against QR, and where the spectrum is known."""

from itertools import pairwise

import numpy as np
import pytest
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


def test_intervals_cover_the_exponents_of_gaussian_products(rng):
    """Newman's spectrum: of 1000 intervals of 95 %, a binomial number covers the truth."""
    n_items, n_layers = 1000, 320
    truth = (np.log(2 / 4) + special.digamma((4 - np.arange(4)) / 2)) / 2
    np.testing.assert_allclose(truth, NEWMAN_4, atol=1e-11)
    got = jm.lyapunov_spectrum(gaussian(rng, n_items, n_layers, 4, 4), rng=rng)
    half = stats.t.ppf(0.975, 31) * got.stderr
    covered = (np.abs(got.exponents - truth) <= half).sum(0)
    # The law of log chi is skewed: a batch of 10 steps is nearly normal, and the t-interval covers
    # within 0.01 of 0.95.  False alarm 1e-7 a side.
    low = stats.binom.ppf(1e-7, n_items, 0.94)
    high = stats.binom.isf(1e-7, n_items, 0.96)
    assert ((covered >= low) & (covered <= high)).all(), covered
    variance = special.polygamma(1, (4 - np.arange(4)) / 2) / 4 / n_layers
    np.testing.assert_allclose((got.stderr**2).mean(0), variance, rtol=0.06)


def test_intervals_cover_under_autocorrelation(rng):
    """Growth that is AR(1) with coefficient 0.8: naive errors would cover half as often."""
    n_items, n_layers, phi = 1000, 3200, 0.8
    x = np.empty((n_items, n_layers))
    x[:, 0] = rng.standard_normal(n_items) / np.sqrt(1 - phi**2)
    for t in range(1, n_layers):
        x[:, t] = phi * x[:, t - 1] + rng.standard_normal(n_items)
    got = jm.lyapunov_spectrum(np.exp(x)[:, :, None, None], rng=0)
    covered = (np.abs(got.exponents) <= stats.t.ppf(0.975, 31) * got.stderr).sum()
    # A batch of 100 steps misses 2 phi / (1 - phi^2) / 100 = 4.4 % of the variance: coverage 0.944.
    assert stats.binom.ppf(1e-7, n_items, 0.94) <= covered
    assert covered <= stats.binom.isf(1e-7, n_items, 0.95)


def test_residual_gaussian_chain_has_newmans_shifted_exponent(rng):
    n, variance, n_items, n_layers = 8, 0.1, 64, 4000
    w = rng.standard_normal((n_items, n_layers, n, n), dtype=np.float32)
    w *= np.float32(np.sqrt(variance / n))
    got = jm.lyapunov_spectrum(w, shortcut=1.0, k=1, burn_in=100, rng=1).exponents[:, 0]
    assert abs(got.mean() - 0.036578125) <= 5.5 * got.std(ddof=1) / np.sqrt(n_items) + 5e-5


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
    assert (error <= 5.5 * found.stderr + 5e-6).all()
    assert found.exponents.sum() == pytest.approx(np.log(0.3), abs=1e-12)


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
