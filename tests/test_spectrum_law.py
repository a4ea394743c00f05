"""Free-probability spectra and batch-norm rates against closed forms and random networks."""

import math

import numpy as np
import pytest
from common import orthogonal as haar
from scipy.stats import t as student

import jacometry as jm
from jacometry import activations
from jacometry.meanfield import batchnorm_gradient_rate, jacobian_spectrum_law


def t_bound(n_nets):
    """Standard errors within which a mean lies but for one run in 10^7."""
    return student.isf(0.5e-7, n_nets - 1)


@pytest.mark.parametrize(("depth", "edge"), [(1, 4.0), (2, 6.75), (3, 9.48148148148148)])
def test_gaussian_linear_networks_have_the_fuss_catalan_edge(depth, edge):
    law = jacobian_spectrum_law("identity", depth, sigma_w=1.5)
    assert law.edge == pytest.approx(edge * 1.5 ** (2 * depth), rel=1e-10)
    assert law.mean == pytest.approx(1.5 ** (2 * depth))
    assert law.variance == pytest.approx(depth * 1.5 ** (4 * depth))


@pytest.mark.parametrize("depth", [1, 7])
def test_orthogonal_linear_networks_are_isometries(depth):
    law = jacobian_spectrum_law("identity", depth, sigma_w=1.0, orthogonal=True)
    assert law.mean == 1
    assert 0 <= law.variance < 1e-12
    assert law.edge == pytest.approx(1, rel=1e-11)


def mask_edge(depth, p, sigma_w, orthogonal):
    """The stationary point of the S-transform's inverse, for slopes 1 with chance p, else 0."""
    if orthogonal:
        if depth * (1 - p) <= 1:  # products of so few projections keep an atom at the top
            return sigma_w ** (2 * depth)
        z = p / (depth * (1 - p) - 1)
        return (1 + z) / z * (sigma_w**2 * (z + p) / (1 + z)) ** depth
    z = (1 - depth + math.sqrt((depth - 1) ** 2 + 4 * depth * p)) / (2 * depth)
    return (1 + z) / z * (sigma_w**2 * (z + p)) ** depth


@pytest.mark.parametrize("depth", [1, 2, 3, 10])
@pytest.mark.parametrize("orthogonal", [False, True])
def test_relu_has_the_edge_of_fair_masks(depth, orthogonal):
    """mean 1 and variance 2 L (Gaussian) or L (orthogonal) at chi = 1; Pennington et al. 2018."""
    law = jacobian_spectrum_law("relu", depth, sigma_w=math.sqrt(2), orthogonal=orthogonal)
    assert law.mean == pytest.approx(1)
    assert law.variance == pytest.approx(depth if orthogonal else 2 * depth)
    expected = mask_edge(depth, 0.5, math.sqrt(2), orthogonal)
    assert law.edge == pytest.approx(expected, rel=1e-9)


def test_hard_tanh_has_the_edge_of_its_masks():
    hard_tanh = activations.Activation(
        lambda x: np.clip(x, -1, 1), lambda x: (np.abs(x) < 1).astype(x.dtype), kinks=(-1, 1)
    )
    law = jacobian_spectrum_law(hard_tanh, 4, sigma_w=1.1, sigma_b=0.3)
    p = math.erf(1 / math.sqrt(2 * law.q))
    assert law.mean == pytest.approx((1.21 * p) ** 4, rel=1e-9)
    assert law.variance == pytest.approx(law.mean**2 * 4 / p, rel=1e-9)
    assert law.edge == pytest.approx(mask_edge(4, p, 1.1, False), rel=1e-8)


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize(
    ("name", "sigma_w", "sigma_b"), [("tanh", 1.3, 0.3), ("relu", 1.3, 0.0), ("gelu", 1.2, 0.3)]
)
def test_random_networks_have_this_spectrum(rng, name, sigma_w, sigma_b, orthogonal):
    n, n_layers, n_nets = 100, 3, 8
    phi = activations.get(name)
    law = jacobian_spectrum_law(name, n_layers, sigma_w=sigma_w, sigma_b=sigma_b,
                                orthogonal=orthogonal)  # fmt: skip
    moments = []
    for _ in range(n_nets):
        # The first pre-activations are drawn at the fixed point.
        z, weights, slopes = None, [], []
        for _ in range(n_layers):
            w = sigma_w * (haar(rng, n) if orthogonal else rng.standard_normal((n, n)) / n**0.5)
            if z is None:
                z = math.sqrt(law.q) * rng.standard_normal(n)
            else:
                z = w @ phi.value(z) + sigma_b * rng.standard_normal(n)
            weights.append(w)
            slopes.append(phi.slope(z))
        product = jm.chain_product(weights, slopes=slopes).to_array()
        squared = np.linalg.svd(product, compute_uv=False) ** 2
        moments.append([squared.mean(), (squared**2).mean(), squared.max()])
    moments = np.array(moments)
    centre = moments.mean(axis=0)
    stderr = moments.std(axis=0, ddof=1) / math.sqrt(n_nets)
    # What a width of n leaves out: of relative order L^2 / n in the moments, and
    # (L / n)^(2/3) at the edge.
    second = law.variance + law.mean**2
    for found, error, expected in zip(centre[:2], stderr, (law.mean, second), strict=False):
        assert abs(found - expected) <= t_bound(n_nets) * error + expected * n_layers**2 / n
    assert centre[2] / law.edge == pytest.approx(1, abs=2 * (n_layers / n) ** (2 / 3) + 0.05)


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("relu", 1.46694220692426),
        ("tanh", 1.17780723230418),
        ("gelu", 1.318844970865623),
        ("identity", 1.0),
    ],
)
def test_a_large_batch_has_the_published_rates(name, rate):
    assert batchnorm_gradient_rate(name) == pytest.approx(rate, rel=1e-14)
    # What is left at finite B falls as 1 / B.
    for size in (10**4, 10**6):
        assert batchnorm_gradient_rate(name, size) == pytest.approx(rate, rel=3 / size + 1e-10)


@pytest.mark.parametrize("size", [4, 5, 8, 64, 10**5])
def test_linear_networks_have_the_exact_rate_of_their_batch(size):
    assert batchnorm_gradient_rate("identity", size) == pytest.approx(
        (size - 2) / (size - 3), rel=1e-13
    )


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_batch_normalised_networks_explode_at_the_rate_of_their_batch(rng, name):
    """Energy of the gradient before and after each of many layers, forward signals settled."""
    phi, size, width, n_layers, n_nets = activations.get(name), 10, 300, 7, 24
    rates = []
    for _ in range(n_nets):
        h, layers = rng.standard_normal((size, width)), []
        for _ in range(n_layers):
            w = rng.standard_normal((width, width)) / width**0.5
            x = h @ w.T
            layer = jm.BatchNorm(x, eps=0.0)
            normal = (x - x.mean(axis=0)) / x.std(axis=0)
            layers.append((layer, w, phi.slope(normal)))
            h = phi.value(normal)
        delta, energies = rng.standard_normal((size, width)), []
        for layer, w, slope in layers[::-1]:
            delta = layer.vjp(delta * slope)
            energies.append(np.sum(delta**2))
            delta = delta @ w
        rates.append(np.diff(np.log(energies))[1:-1].mean())  # the first layer aside
    rates = np.array(rates)
    expected = math.log(batchnorm_gradient_rate(name, size))
    # The log of a mean over `width` units, of spread 3 or less, is off by 9 / (2 width).
    allowed = t_bound(n_nets) * rates.std(ddof=1) / math.sqrt(n_nets) + 4.5 / width
    assert abs(rates.mean() - expected) <= allowed
    assert allowed < 0.3 * expected


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: batchnorm_gradient_rate("relu", 3), ValueError, "batch_size must be at least 4"),
        (lambda: batchnorm_gradient_rate("relu", 8.0), TypeError, "batch_size"),
        (lambda: jacobian_spectrum_law("relu", 0, sigma_w=1.0), ValueError, "depth"),
        (lambda: jacobian_spectrum_law("relu", 2, sigma_w=-1.0), ValueError, "sigma_w"),
        (
            lambda: jacobian_spectrum_law("relu", 2, sigma_w=2.0, sigma_b=1.0),
            ValueError, "sigma_w must let the variance",
        ),
    ],
)  # fmt: skip
def test_rejections_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("sigma_w2", "sigma_b2", "q_star"),
    [
        (1.3, 0.05, 0.31531647748529),
        (4, 0.05, 2.1954939280345),
        (16, 0.09, 12.604149497844),
        (1.2, 0, 0.10707874797985),
        (1.0, 0, 0.0),
        (0.5, 0, 0.0),
    ],
)
def test_slopes_are_taken_at_the_published_fixed_points_of_tanh(sigma_w2, sigma_b2, q_star):
    law = jacobian_spectrum_law(
        "tanh", 2, sigma_w=math.sqrt(sigma_w2), sigma_b=math.sqrt(sigma_b2), orthogonal=True
    )
    assert law.q == pytest.approx(q_star, rel=1e-11)
    if q_star == 0:  # linear there
        assert law.mean == pytest.approx(sigma_w2**2)
        assert law.edge == pytest.approx(sigma_w2**2)
