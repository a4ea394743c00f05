"""What is commonly stated of norms, and false: each with its counterexample."""

import math

import numpy as np
import pytest
from scipy.stats import norm

import jacometry as jm
from jacometry.ops._operator_smallest import smallest_singular_value

Z = norm.isf(0.5e-7)  # two-sided statistical tests reject a true statement once in 10^7


def test_a_radius_of_zero_and_slopes_of_at_most_one_can_explode():
    """W = 3 [[1, -1], [1, -1]] is nilpotent; with the mask (1, 0) it has radius 3."""
    weights, mask = 3 * np.array([[1.0, -1.0], [1.0, -1.0]]), np.array([1.0, 0.0])
    np.testing.assert_array_equal(weights @ weights, 0)
    slopes = np.broadcast_to(mask, (50, 2))
    chain = np.broadcast_to(weights, (50, 2, 2))
    product = jm.chain_product(chain, slopes=slopes, slope_side="input")
    # (W D)^k = 3^k [[1, 0], [1, 0]]
    np.testing.assert_array_equal(product.to_array(), 3.0**50 * np.array([[1, 0], [1, 0]]))
    assert float(jm.spectral_norm(weights @ np.diag(mask))) == pytest.approx(3 * math.sqrt(2))


def test_he_has_a_norm_of_nearly_three_and_keeps_the_energy(rng):
    """alpha = ||W|| gamma is an upper bound: He's is 2 sqrt(2), its chi is 1.

    The norm's edge fluctuates by n^(-2/3); E ||W D v||^2 = ||v||^2 for fair masks D.
    """
    n = 600
    weights = rng.standard_normal((n, n)) * math.sqrt(2 / n)
    alpha = float(jm.spectral_norm(weights, rng=rng))
    assert abs(alpha / (2 * math.sqrt(2)) - 1) <= 4 * n ** (-2 / 3) + 1e-2
    width, n_layers, n_samples = 32, 10, 1000
    layers = rng.standard_normal((n_samples, n_layers, width, width)) * math.sqrt(2 / width)
    masks = rng.integers(0, 2, (n_samples, n_layers, width)).astype(float)
    tangent = np.ones((n_samples, width)) / math.sqrt(width)
    log_norms = jm.chain_jvp(layers, tangent, slopes=masks).log_norms
    energy = np.exp(2 * log_norms[:, -1])
    assert abs(energy.mean() - 1) <= Z * energy.std() / math.sqrt(n_samples)


def test_orthogonal_relu_layers_have_alpha_one_and_lose_half_of_the_energy_each(rng):
    """Each fair mask keeps half of the energy in the mean: 2^-40 after 40 layers.

    The log of the mean is estimated by the layers' mean gains, each of independent samples.
    """
    n, n_layers, n_samples = 32, 40, 400
    q = np.linalg.qr(rng.standard_normal((n_layers, n, n)))[0]
    assert np.allclose(jm.spectral_norm(q).value, 1, rtol=1e-13)
    masks = rng.integers(0, 2, (n_samples, n_layers, n)).astype(float)
    tangent = rng.standard_normal((n_samples, n))
    log_norms = jm.chain_jvp(list(q), tangent, slopes=list(masks.swapaxes(0, 1))).log_norms
    alive = np.exp(2 * np.diff(log_norms, axis=1))
    gain = alive.mean()
    assert abs(gain - 0.5) <= Z * alive.std() / math.sqrt(alive.size)
    assert np.log2(np.mean(np.exp(2 * (log_norms[:, -1] - log_norms[:, 0])))) < -35


def test_the_jacobian_of_batch_normalisation_has_the_norm_gain_over_s(rng):
    """Not 1: (gain / s) (I - 11^T/B - xh xh^T/B), a projection times gain / s."""
    x, gain = rng.standard_normal((6, 3)) * [0.1, 1.0, 7.0], np.array([1.0, 0.5, 2.0])
    batch = jm.Chain([jm.BatchNorm(x, gain, eps=0.0)]).over_batch()
    expected = np.max(gain / x.std(axis=0))
    found = jm.spectral_norm(jm.Chain([batch]))
    assert float(found) == pytest.approx(expected, rel=1e-12)
    assert expected > 2
    x_hat = (x[:, 0] - x[:, 0].mean()) / x[:, 0].std()
    one = (gain[0] / x[:, 0].std()) * (np.eye(6) - 1 / 6 - np.outer(x_hat, x_hat) / 6)
    matrix = (batch @ np.eye(18)).reshape(6, 3, 6, 3)
    np.testing.assert_allclose(matrix[:, 0, :, 0], one, atol=1e-12)


def test_a_batch_normalised_linear_network_explodes_at_its_exact_rate(rng):
    """Linear layers with batch normalisation between them: energy times (B - 2)/(B - 3) a layer.

    delta pulled through BN of independent Gaussian pre-activations; the ratio of means over many
    layers of one step each.
    """
    n_batch, n_draws = 8, 4000
    x = rng.standard_normal((n_batch, n_draws))  # every feature is a draw
    delta = rng.standard_normal((n_batch, n_draws))
    pulled = jm.BatchNorm(x, eps=0.0).vjp(delta)
    energy = np.sum(pulled**2, axis=0) / n_batch
    # E = E[1/s^2] (B - 2)/B, and E[1/s^2] = B/(B - 3)
    expected = (n_batch - 2) / (n_batch - 3)
    assert expected == 1.2
    assert abs(energy.mean() - expected) <= Z * energy.std() / math.sqrt(n_draws)


def test_xavier_has_a_norm_of_two_and_a_root_mean_square_of_one(rng):
    n = 1000
    weights = rng.standard_normal((n, n)) / math.sqrt(n)
    top = jm.spectral_norm(weights, rng=rng, rtol=1e-3)
    # Tracy and Widom: (sigma/2 - 1) n^(2/3) has its 1e-7 quantiles within 8/2
    assert abs(float(top) / 2 - 1) <= 4 * n ** (-2 / 3) + 1e-3
    rms = np.linalg.norm(weights) / math.sqrt(n)
    assert abs(rms**2 - 1) <= Z * math.sqrt(2) / n


def test_an_adapted_norm_of_one_factor_is_not_one_of_the_chain(rng):
    """A = [[0, 2], [0, 0]] and B = A^T have radius 0; ||S A S^-1|| ||S B S^-1|| >= rho(AB) = 4."""
    a, b = np.array([[0.0, 2.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [2.0, 0.0]])
    assert np.max(np.abs(np.linalg.eigvals(a @ b))) == 4

    def adapted(matrix, s):
        return float(jm.spectral_norm(s @ matrix @ np.linalg.inv(s)))

    s = np.diag([1.0, 100.0])  # the Schur construction's scaling
    assert adapted(a, s) == pytest.approx(0.02)
    assert adapted(b, s) == pytest.approx(200)
    for _ in range(50):
        s = rng.standard_normal((2, 2))
        inverse_error = 1e-12 * np.linalg.cond(s) ** 2
        assert adapted(a, s) * adapted(b, s) >= 4 * (1 - inverse_error)


def test_the_smallest_singular_value_of_a_gaussian_matrix_follows_edelmans_law(rng):
    """P(n sigma_min^2 < x) tends to 1 - exp(-x/2 - sqrt x), within 1/n (Edelman, Eigenvalues and
    condition numbers of random matrices, 1988)."""
    n, n_draws = 50, 2000
    chain = jm.Chain([rng.standard_normal((n_draws, n, n))])
    smallest = smallest_singular_value(
        chain, rtol=1e-2, failure_prob=1e-9, rng=rng, method="auto", max_iter=None,
        matvec_rtol=None, check_finite=True, check_adjoint=True,
    ).value  # fmt: skip
    for x in (0.1, 1.0, 3.0):
        limit = 1 - math.exp(-x / 2 - math.sqrt(x))
        share = np.mean(n * smallest**2 < x)
        assert abs(share - limit) <= Z * math.sqrt(limit * (1 - limit) / n_draws) + 1 / n
