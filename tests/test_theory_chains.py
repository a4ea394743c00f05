"""Published and closed-form numbers on products of factors and vectors pushed through them."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.special import digamma, polygamma
from scipy.stats import binom, norm

import jacometry as jm

# Two-sided statistical tests reject a true statement once in 10^7 runs: their seeds are fixed.
Z = norm.isf(0.5e-7)


def scalar_chain(factor, n_layers):
    return jm.chain_product(np.full((n_layers, 1, 1), factor)).to_array()[0, 0]


@pytest.mark.parametrize(
    ("factor", "power", "value"), [(1.1, 99, 12527.83), (0.9, 99, 2.9513e-5), (-0.5, 100, 7.9e-31)]
)
def test_powers_of_a_scalar(factor, power, value):
    digits = len(f"{value:.10g}".split("e")[0].replace(".", ""))
    got = scalar_chain(factor, power)
    assert float(f"{got:.{digits}g}") == value
    exact = float(Fraction(factor) ** power)
    assert abs(got - exact) <= power * 3 * 2.0**-53 * abs(exact)


def test_a_residual_path_can_vanish():
    """I + F' with F' = -I/2: exactly 2^-100 after 100 layers."""
    product = jm.chain_product(np.full((100, 3, 3), -0.5) * np.eye(3), shortcut=1.0)
    np.testing.assert_array_equal(product.to_array(), 2.0**-100 * np.eye(3))


def test_one_large_factor_contributes_once():
    weights = np.full((100, 1, 1), 0.5)
    weights[50] = 2
    assert jm.chain_product(weights).to_array()[0, 0] == 2 * 0.5**99
    assert f"{2 * 0.5**99:.1e}" == "3.2e-30"


def test_radii_of_zero_and_a_product_that_explodes():
    a, b = np.array([[0.0, 2.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [2.0, 0.0]])
    product = jm.chain_product([b, a] * 50)
    for ord in ("fro", 1, 2, np.inf):
        assert float(product.log_norm(ord)) == pytest.approx(50 * np.log(4), rel=4 * 2.0**-52)
    np.testing.assert_array_equal(product.to_array(), [[4.0**50, 0], [0, 0]])


@pytest.mark.parametrize(("power", "norm_2"), [(1, 50.016), (9, 193.711), (50, 14.316)])
def test_a_radius_below_one_lets_powers_grow_first(power, norm_2):
    product = jm.chain_product(np.broadcast_to([[0.9, 50.0], [0.0, 0.9]], (power, 2, 2)))
    assert round(float(np.exp(product.log_norm(2))), 3) == norm_2
    long = jm.chain_product(np.broadcast_to([[0.9, 50.0], [0.0, 0.9]], (200, 2, 2)))
    assert f"{np.exp(long.log_norm(2)):.2e}" == "7.84e-06"


@pytest.mark.parametrize(("n_layers", "edge"), [(1, 4.0), (2, 6.75), (3, 9.48148)])
def test_the_largest_singular_value_of_gaussian_products_is_at_the_fuss_catalan_edge(
    rng, n_layers, edge
):
    """Near the edge x the density is A sqrt(x - s) / pi, so s fluctuates by (n A)^(-2/3).

    A is from the spectrum's parametrisation, x(phi) = sin^(L+1)((L+1)phi) / (sin phi
    sin^L(L phi)), at small phi; for L = 1 it gives the scale of Johnstone (2001).  In that unit s
    has the law of Tracy and Widom (1996) for real matrices: mean -1.2065, deviation 1.268.
    """
    assert round((n_layers + 1) ** (n_layers + 1) / n_layers**n_layers, 5) == edge
    n, n_trials, deep = 150, 24, n_layers + 1
    density = n_layers ** (n_layers - 1) / deep**n_layers * np.sqrt(2 / (edge * n_layers * deep))
    unit = (n * density) ** (-2 / 3)
    weights = rng.standard_normal((n_trials, n_layers, n, n)) / np.sqrt(n)
    squared = np.exp(2 * jm.chain_product(weights).log_norm(2))
    # What comes next in 1 / n: the edge moves as if each width were off by one at most.
    bound = Z * 1.268 * unit / np.sqrt(n_trials) + edge * n_layers / n
    assert abs(squared.mean() - (edge - 1.2065 * unit)) <= bound
    assert bound < 0.06 * n_layers * edge


def growth(weights, slopes, rng, n):
    """ln of the squared norm gained in each layer, one tangent a sample."""
    tangent = rng.standard_normal((len(slopes), n))
    logs = jm.chain_jvp(weights, tangent, slopes=slopes).log_norms
    return 2 * np.diff(logs, axis=-1)


def assert_mean_and_variance(sample, mean, variance):
    n = len(sample)
    assert abs(sample.mean() - mean) <= Z * np.sqrt(variance / n)
    spread = np.sqrt(np.mean((sample - sample.mean()) ** 4) - sample.var() ** 2) / np.sqrt(n)
    assert abs(sample.var() - variance) <= Z * spread


@pytest.mark.parametrize(
    ("n", "mean", "variance"),
    [
        (32, -0.0825402080962268, 0.17749778722596066),
        (64, -0.0401085988357457, 0.08299735055644758),
    ],
)
def test_log_norm_growth_of_he_relu_layers(rng, n, mean, variance):
    """Independent Gaussian layers and fair masks with at least one unit active (Hanin and Nica)."""
    active = np.arange(1, n + 1)
    chance = binom.pmf(active, n, 0.5) / (1 - 2.0**-n)
    log_mean = digamma(active / 2) + np.log(4 / n)
    assert chance @ log_mean == pytest.approx(mean, abs=1e-14)
    second = chance @ (log_mean**2 + polygamma(1, active / 2))
    assert second - mean**2 == pytest.approx(variance, abs=1e-13)
    n_samples, n_layers = 2000, 4
    weights = rng.standard_normal((n_samples, n_layers, n, n)) * np.sqrt(2 / n)
    masks = rng.integers(0, 2, (n_samples, n_layers, n)).astype(float)
    assert masks.any(-1).all()  # fails once in 5e5 runs at n = 32, where it would be a redraw
    assert_mean_and_variance(growth(weights, masks, rng, n).ravel(), mean, variance)


def test_log_norm_growth_of_linear_layers(rng):
    n, n_samples, n_layers = 16, 4000, 5
    weights = rng.standard_normal((n_samples, n_layers, n, n)) / np.sqrt(n)
    grown = growth(weights, np.ones((n_samples, n_layers, n)), rng, n).ravel()
    assert_mean_and_variance(grown, digamma(n / 2) + np.log(2 / n), float(polygamma(1, n / 2)))


def test_mean_energy_of_residual_layers(rng):
    """E |prod (I + sigma G / sqrt(n)) v|^2 = (1 + sigma^2)^L |v|^2."""
    n, n_layers, n_samples, sigma = 8, 6, 20_000, np.sqrt(0.1)
    weights = sigma / np.sqrt(n) * rng.standard_normal((n_samples, n_layers, n, n))
    tangent = np.zeros(n)
    tangent[0] = 1
    trace = jm.chain_jvp(weights, tangent, shortcut=1.0)
    energy = np.exp(2 * trace.log_norms[:, -1])
    bound = Z * energy.std() / np.sqrt(n_samples)
    assert abs(energy.mean() - (1 + sigma**2) ** n_layers) <= bound


def test_the_typical_energy_of_a_linear_net_is_far_below_its_mean(rng):
    """Var W = 1/n, n = 16, 200 layers: mean energy 1, median 2.9e-6.

    The median's interval is that of order statistics, at the quantiles 1/2 +- Z / (2 sqrt(N)).
    """
    n, n_layers, n_samples = 16, 200, 1000
    logs = np.zeros(n_samples)
    tangent = np.eye(n)[0]
    for i in range(0, n_samples, 100):
        weights = rng.standard_normal((100, n_layers, n, n)) / np.sqrt(n)
        logs[i : i + 100] = 2 * jm.chain_jvp(weights, tangent).log_norms[:, -1]
    half_width = Z / (2 * np.sqrt(n_samples))
    low, high = np.quantile(logs, [0.5 - half_width, 0.5 + half_width])
    assert low <= np.log(2.9e-6) <= high
    assert high < np.log(1e-4)
    assert n_layers * (digamma(n / 2) + np.log(2 / n)) == pytest.approx(np.log(2.9e-6), abs=0.2)
