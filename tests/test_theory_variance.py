"""What is commonly stated of variances in random networks, with the truth, row by row."""

import importlib.util
import itertools
import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.special import digamma
from scipy.stats import norm, poisson

import jacometry as jm
from jacometry import initializers
from jacometry.meanfield import batchnorm_gradient_rate, log_norm_law, predict, simulate
from jacometry.ops.moments import gaussian_moments, variance_map

Z = norm.isf(0.5e-7)  # two-sided statistical tests reject a true statement once in 10^7
EXAMPLE = Path(__file__).parents[1] / "examples" / "path_sums.py"


def test_tanh_has_a_kappa_below_one_and_decays_like_one_over_depth():
    """Not like kappa^L: q_l ~ 1 / (2 l) and the gradient energy ~ 0.7061 / L from q_1 = 1."""
    assert float(gaussian_moments("tanh", 1.0).dphi2) == pytest.approx(0.46440, abs=5e-6)
    depth = 4000
    for q_1, constant in ((1.0, 0.7061), (0.5, 1.241)):
        found = predict([1] * (depth + 2), "tanh", sigma_w=1.0, q0=q_1)
        # 1/q grows by 2 - O(q) a layer: corrections of order log(l) / l.
        assert 2 * depth * found.q[depth] == pytest.approx(1, abs=2 * math.log(depth) / depth)
        energy = math.exp(2 * found.log_gradient[1])
        assert energy * depth == pytest.approx(constant, rel=math.log(depth) / depth)
        assert energy > 1e100 * 0.4644**depth


def test_a_variance_of_sigma_squared_per_entry_gives_n_sigma_squared_per_layer():
    """(n sigma^2)^L, by all nets with weights +-sigma: two layers of 2 x 2."""
    n, n_layers, sigma = 2, 2, 0.7
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=n_layers * n * n)))
    weights = sigma * signs.reshape(-1, n_layers, n, n)
    trace = jm.chain_jvp(weights, [0.6, 0.8])
    energy = np.mean(np.exp(2 * trace.log_norms[:, -1]))
    assert energy == pytest.approx((n * sigma**2) ** n_layers, rel=1e-14)
    assert energy != pytest.approx(sigma ** (2 * n_layers), rel=0.5)
    by_theory = predict([n] * (n_layers + 1), "identity", sigma_w=math.sqrt(n) * sigma)
    assert math.exp(2 * by_theory.log_gradient[0]) == pytest.approx(energy, rel=1e-14)


def test_he_halves_the_second_moment_and_not_the_variance():
    moments = gaussian_moments("relu", 3.0)
    assert float(moments.phi2) / 3 == 0.5
    assert (float(moments.phi2) - float(moments.phi) ** 2) / 3 == pytest.approx(0.3408, abs=5e-5)
    assert 0.5 - 0.5 / math.pi == pytest.approx(0.3408, abs=5e-5)


def test_xavier_does_not_suit_the_sigmoid():
    """chi = 0.0557; the edge of chaos is at sigma_w = 10.149, sigma_w^2 = 103.00755385552."""
    assert predict([9] * 60, "sigmoid", sigma_w=1.0).chi[-1] == pytest.approx(0.0557, abs=5e-5)
    sigma_w = math.sqrt(103.00755385552)
    assert sigma_w == pytest.approx(10.149, abs=5e-4)
    q = 20.0
    for _ in range(2000):
        q = float(variance_map("sigmoid", q, sigma_w=sigma_w))
    assert sigma_w**2 * float(gaussian_moments("sigmoid", q).dphi2) == pytest.approx(1, rel=1e-9)


def test_a_batch_normalised_network_explodes():
    """pi / (pi - 1) per layer for ReLU: 4.4e16 in energy, 2.1e8 in amplitude after 100 layers."""
    assert batchnorm_gradient_rate("relu") == pytest.approx(math.pi / (math.pi - 1), rel=1e-15)
    for sigma_w in (0.1, 3.0):
        found = predict([7] * 103, "relu", sigma_w=sigma_w, sigma_b=0.4, normalization="batch")
        np.testing.assert_allclose(found.chi[2:], math.pi / (math.pi - 1), rtol=1e-13)
        grown = found.log_gradient[2] - found.log_gradient[102]
        assert f"{math.exp(2 * grown):.1e}" == "4.4e+16"
        assert f"{math.exp(grown):.1e}" == "2.1e+08"
    # The first layer's input is not a ReLU's: its variance is q0.
    assert found.chi[1] == pytest.approx(0.5)


def test_a_shortcut_tames_batch_normalisation_to_a_power_of_depth():
    """1 + rate c / s_l with s_l growing by c per layer: E ||g_0||^2 ~ L^rate (Yang et al. 2019)."""
    depth = 4000
    found = predict([3] * (depth + 1), "relu", sigma_w=1.0, shortcut=1.0, normalization="batch")
    rate = math.pi / (math.pi - 1)
    slope = 2 * (found.log_gradient[depth // 4] - found.log_gradient[depth // 2]) / math.log(2)
    # sum ln(1 + rate / (a + l)) over depth / 4 < l < depth / 2, with s_l / c = a + l, a < 2 / 0.34.
    assert slope == pytest.approx(rate, rel=(rate / 2 + 2 / 0.34) * (2 / depth) / math.log(2))


def test_layer_normalisation_is_critical_for_no_variance_but_its_own():
    """chi = sigma_w^2 E phi'(g)^2 / q with q = sigma_w^2 E phi(g)^2 + sigma_b^2."""
    for name, phi2, slope2 in (
        ("relu", 0.5, 0.5),
        ("tanh", 0.3942944903978412, 0.4644029024482682),
        ("gelu", 0.4252214825702987, 0.4558508656492871),
    ):
        found = predict([5] * 6, name, sigma_w=1.7, normalization="layer")
        np.testing.assert_allclose(found.chi[2:], slope2 / phi2, rtol=1e-14)
        biased = predict([5] * 6, name, sigma_w=1.7, sigma_b=0.9, normalization="layer")
        expected = 1.7**2 * slope2 / (1.7**2 * phi2 + 0.81)
        np.testing.assert_allclose(biased.chi[2:], expected, rtol=1e-14)


def test_layer_normalised_networks_follow_the_prediction(rng):
    n, n_layers, n_nets = 300, 5, 40
    phi = jm.activations.get("tanh")
    theory = predict(
        [n] * (n_layers + 1), "tanh", sigma_w=1.5, sigma_b=0.3, shortcut=[0, 1, 1, 1, 0],
        normalization="layer",
    )  # fmt: skip
    energies = []
    for _ in range(n_nets):
        z = rng.standard_normal(n)
        z *= math.sqrt(n) / np.linalg.norm(z)
        layers = []
        for k in range(n_layers):
            w = 1.5 / math.sqrt(n) * rng.standard_normal((n, n))
            b = 0.3 * rng.standard_normal(n)
            carried = float(0 < k < n_layers - 1)
            if k == 0:
                layers.append((w, None, None, carried))
                z = w @ z + b
                continue
            norm_layer = jm.LayerNorm(z, eps=0.0)
            x = (z - z.mean()) / z.std()
            layers.append((w, phi.slope(x), norm_layer, carried))
            z = carried * z + w @ phi.value(x) + b
        g = rng.standard_normal(n)
        start = g @ g
        for w, slope, norm_layer, carried in layers[::-1]:
            pulled = w.T @ g
            if slope is not None:
                pulled = norm_layer.vjp(slope * pulled)
            g = carried * g + pulled
        energies.append(math.log(g @ g / start))
    energies = np.array(energies)
    bound = Z * energies.std(ddof=1) / math.sqrt(n_nets) + 5 * n_layers / n
    assert abs(energies.mean() - 2 * theory.log_gradient[0]) <= bound


def test_a_gaussian_residual_branch_explodes_and_does_so_slower_than_its_mean(rng):
    """I + sigma G / sqrt(N): mean energy (1 + sigma^2)^L, lambda_1 = 0.036578125 at (8, 0.1)."""
    n, variance = 8, 0.1
    sigma = math.sqrt(variance)
    mean = predict([n] * 101, "identity", sigma_w=sigma, shortcut=1.0)
    np.testing.assert_allclose(mean.q, (1 + variance) ** np.arange(101), rtol=1e-13)
    np.testing.assert_allclose(
        2 * mean.log_gradient[::-1], np.arange(101) * math.log1p(variance), atol=1e-12
    )
    # ||u + sigma G u / sqrt(N)||^2 = sigma^2/N chi^2_N(N / sigma^2), a Poisson mixture.
    half = n / variance / 2
    j = np.arange(400)
    exponent = poisson.pmf(j, half) @ (digamma(n / 2 + j) + math.log(2 * variance / n)) / 2
    assert exponent == pytest.approx(0.036578125, abs=2e-15)
    found = simulate([n] * 51, "identity", initializer=partial(initializers.gaussian, gain=sigma),
                     n_nets=2000, rng=rng, shortcut=1.0)  # fmt: skip
    forward = found.forward.log_norms
    for grown in (forward[:, -1] - forward[:, 0], found.gradient.log_norms[:, 0]):
        error = Z * grown.std() / math.sqrt(len(grown))
        assert abs(grown.mean() - 50 * exponent) <= error
        assert grown.mean() + error < 50 * math.log1p(variance) / 2


def test_scaled_branches_keep_the_energy_of_any_depth():
    """branch_scale = 1 / sqrt(L): (1 + 1/L)^L < e."""
    for depth in (10, 1000):
        found = predict([4] * (depth + 1), "identity", sigma_w=1.0, shortcut=1.0,
                        branch_scale=depth**-0.5)  # fmt: skip
        assert 2 * found.log_gradient[0] == pytest.approx(depth * math.log1p(1 / depth))


def test_the_typical_net_is_far_from_the_mean():
    """Linear, Var W = 1/n, n = 16, L = 200: mean energy 1, median 2.9e-6."""
    law = log_norm_law("identity", [16] * 201)
    assert f"{math.exp(law.mean):.1e}" == "2.9e-06"
    found = simulate([16] * 201, "identity", initializer="gaussian", n_nets=1000, rng=12)
    grown = 2 * (found.forward.log_norms[:, -1] - found.forward.log_norms[:, 0])
    half_width = Z / (2 * math.sqrt(len(grown)))
    low, high = np.quantile(grown, [0.5 - half_width, 0.5 + half_width])
    assert low <= math.log(2.9e-6) <= high < math.log(1e-4)
    assert predict([16] * 201, "identity", sigma_w=1.0).log_gradient[0] == 0


def test_orthogonal_relu_networks_lose_half_of_the_energy_in_each_layer():
    """2^-40 after 40 layers, where He's are stable: the layers' mean gains are 1/2."""
    n_layers, n_nets = 40, 100
    found = simulate([24] * (n_layers + 1), "relu", initializer="orthogonal", n_nets=n_nets, rng=9)
    assert np.allclose(
        found.forward.log_norms[:, 1:], found.activations.log_norms, rtol=0, atol=1e-13
    )
    gains = np.exp(2 * np.diff(found.activations.log_norms, axis=1))
    assert abs(gains.mean() - 0.5) <= Z * gains.std() / math.sqrt(gains.size)
    assert found.forward.log_mean_square[-1] - found.forward.log_mean_square[0] < -35 * math.log(2)


def test_equal_scalar_weights_starve_no_layer():
    """dLoss/dw_l = delta_l h_{l-1} = w^(L-1) x for every l."""
    w, n_layers = 0.9, 30
    chain = np.full((n_layers, 1, 1), w)
    forward = jm.chain_jvp(chain, [2.0]).log_norms
    backward = jm.chain_vjp(chain, [1.0]).log_norms
    gradients = forward[:-1] + backward[1:]
    expected = (n_layers - 1) * math.log(w) + math.log(2.0)
    np.testing.assert_allclose(gradients, expected, rtol=0, atol=1e-14)


def test_criticality_is_not_fragile(rng):
    """An error of c / L in each layer's chi costs e^c; independent ones only sqrt(L) eps."""
    c, depth = 1.5, 4000
    found = predict([2] * (depth + 1), "identity", sigma_w=math.sqrt(1 + c / depth))
    assert math.exp(2 * found.log_gradient[0]) == pytest.approx(math.exp(c), rel=c**2 / depth)
    eps = 0.01
    chi = 1 + eps * rng.standard_normal(depth)
    independent = 2 * predict([2] * (depth + 1), "identity", sigma_w=np.sqrt(chi)).log_gradient[0]
    assert abs(independent) <= Z * eps * math.sqrt(depth) + depth * eps**2
    assert depth * eps > 10 * Z * eps * math.sqrt(depth) / 2


def test_zero_weights_give_no_gradient_and_stay():
    """Every weight's gradient is delta h^T; h is 0 after the first layer, delta before the last."""
    found = simulate([3, 4, 4, 2], "tanh", initializer="zeros", n_nets=1, rng=0)
    weight_gradients = found.activations.log_norms[0] + found.gradient.log_norms[0, 1:]
    assert (weight_gradients == -np.inf).all()
    assert found.gradient.log_norms[0, -1] == 0  # the last bias does learn


@pytest.fixture(scope="module")
def example():
    if not EXAMPLE.is_file():
        pytest.skip("examples/ is not part of this copy of the tests")
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("path_sums", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("width", "depth"), [(1, 3), (2, 2), (2, 3), (3, 1)])
def test_the_mean_of_path_sums_cancels_and_their_variance_does_not(example, width, depth):
    """All nets with weights +-sigma: a path is a product of its own, and no two correlate."""
    sigma = 0.8
    weights = example.every_net(width, depth, sigma)
    products = example.path_products(weights)
    assert products.shape == (2 ** (depth * width**2), width ** (depth - 1))
    gradient = products.sum(axis=1)
    by_chain = jm.chain_product(weights).to_array()[:, 0, 0]
    np.testing.assert_allclose(gradient, by_chain, rtol=0, atol=1e-15)
    assert abs(gradient.mean()) <= 1e-15
    np.testing.assert_allclose(
        products.T @ products / len(products), sigma ** (2 * depth) * np.eye(products.shape[1]),
        rtol=1e-13, atol=1e-15,
    )  # fmt: skip
    entry = predict([width] * (depth + 1), "identity", sigma_w=math.sqrt(width) * sigma)
    # Per entry of J: its energy over all rows and columns.
    assert gradient.var() == pytest.approx(math.exp(2 * entry.log_gradient[0]) / width, rel=1e-13)


def test_the_example_of_path_sums_runs(example, tmp_path):
    figure = tmp_path / "paths.png"
    path = os.pathsep.join([str(Path(jm.__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, EXAMPLE, figure], capture_output=True, text=True, check=True, timeout=120,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert figure.stat().st_size > 1000
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        variance, recursion = (line.split(f"{word} ")[1].split(",")[0] for word in
                               ("variance", "recursion"))  # fmt: skip
        assert variance == recursion
