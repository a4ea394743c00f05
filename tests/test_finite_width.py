"""log_norm_law against published numbers, mpmath and limits."""

import math

import numpy as np
import pytest
from scipy.special import digamma, polygamma

from jacometry import activations
from jacometry.meanfield import log_norm_law

mpmath = pytest.importorskip("mpmath")


@pytest.mark.parametrize(
    ("n", "mean", "variance"),
    [
        (32, -0.0825402080962268, 0.17749778722596066),
        # The mean is that of mpmath at 30 digits, -0.040108598835745691604.
        (64, -0.0401085988357457, 0.08299735055644758),
    ],
)
def test_he_relu_has_the_published_law(n, mean, variance):
    law = log_norm_law("relu", [n, n])
    assert law.mean == pytest.approx(mean, rel=0, abs=2e-16)
    assert law.variance == pytest.approx(variance, rel=4e-15)
    assert law.survival == 1 - 2.0**-n


@pytest.mark.parametrize("n", [1, 2, 7, 64, 10**6])
def test_relu_is_a_mixture_of_chi_squares(n):
    """Against sums over all numbers of active units at 40 digits, or the expansion in 1 / n."""
    law = log_norm_law("relu", [n, n])
    if n > 100:  # Hanin and Nica: -5/(2n), 5/n; what comes next is of order 1 / n^2
        assert law.mean == pytest.approx(-2.5 / n, rel=10 / n)
        assert law.variance == pytest.approx(5 / n, rel=10 / n)
        return
    with mpmath.workdps(40):
        total = mpmath.mpf(2) ** n - 1
        weights = [mpmath.binomial(n, k) / total for k in range(1, n + 1)]
        means = [mpmath.digamma(mpmath.mpf(k) / 2) for k in range(1, n + 1)]
        mean = mpmath.fdot(weights, means)
        spread = mpmath.fsum(w * (m - mean) ** 2 for w, m in zip(weights, means, strict=True))
        variance = spread + mpmath.fsum(
            w * mpmath.polygamma(1, mpmath.mpf(k) / 2) for k, w in enumerate(weights, 1)
        )
        mean += mpmath.log(mpmath.mpf(4) / n)
        assert abs(law.mean - mean) < 1e-14
        assert abs(law.variance - variance) < 1e-14 * variance
    assert law.survival == pytest.approx(1 - 2.0**-n, rel=1e-15)


@pytest.mark.parametrize("n", [1, 3, 64, 10**6])
def test_linear_layers_have_a_chi_squared_law(n):
    law = log_norm_law("identity", [n, n])
    with mpmath.workdps(40):
        mean = mpmath.digamma(mpmath.mpf(n) / 2) + mpmath.log(mpmath.mpf(2) / n)
        assert abs(law.mean - mean) < 4e-16 + 1e-15 * abs(mean)
    assert law.variance == pytest.approx(float(polygamma(1, n / 2)), rel=1e-14)
    assert law.survival == 1


def leaky_law(n, slope):
    """E ln S and Var ln S by a beta law for each number of active units, at 25 digits."""
    with mpmath.workdps(25):
        r, half = mpmath.mpf(slope) ** 2, mpmath.mpf(n) / 2
        radial = mpmath.digamma(half) + mpmath.log(2)
        first, second = mpmath.mpf(0), mpmath.polygamma(1, half)
        for k in range(n + 1):
            weight = mpmath.binomial(n, k) / mpmath.mpf(2) ** n
            moments = []
            for power in (1, 2):
                if k in (0, n):
                    moments.append((mpmath.log(r) if k == 0 else mpmath.mpf(0)) ** power)
                    continue
                p, q = mpmath.mpf(k) / 2, mpmath.mpf(n - k) / 2

                def integrand(angle, p=p, q=q, power=power):
                    s, c = mpmath.sin(angle), mpmath.cos(angle)
                    density = 2 * s ** (2 * p - 1) * c ** (2 * q - 1) / mpmath.beta(p, q)
                    return density * mpmath.log(r + (1 - r) * s * s) ** power

                ends = [0, mpmath.atan(mpmath.sqrt(r)), mpmath.pi / 4, mpmath.pi / 2]
                moments.append(mpmath.quad(integrand, ends))
            first += weight * (radial + moments[0])
            second += weight * ((radial + moments[0]) ** 2 + moments[1] - moments[0] ** 2)
        return first - mpmath.log(n * (1 + r) / 2), second - first**2


@pytest.mark.parametrize(("n", "slope"), [(1, 0.3), (2, 0.01), (3, 0.25), (8, 0.9), (17, 0.2)])
def test_leaky_relu_is_exact(n, slope):
    mean, variance = leaky_law(n, slope)
    law = log_norm_law(activations.leaky_relu(slope), [n, n])
    assert abs(law.mean - mean) < 1e-14
    assert abs(law.variance - variance) < 1e-13  # at n = 1 the variance itself is above 1
    assert law.survival == 1


@pytest.mark.parametrize("slope", [1e-20, 1e-3, 0.5, 1 - 1e-9])
def test_one_leaky_unit_has_a_closed_form(slope):
    """ln z^2 plus ln slope^2 with chance 1/2."""
    log_r = 2 * math.log(slope)
    law = log_norm_law(activations.leaky_relu(slope), [1, 1])
    mean = digamma(0.5) + math.log(2) - math.log((1 + slope**2) / 2) + log_r / 2
    assert law.mean == pytest.approx(mean, rel=1e-15, abs=1e-14)
    assert law.variance == pytest.approx(math.pi**2 / 2 + log_r**2 / 4, rel=1e-14)


@pytest.mark.parametrize("n", [5, 1000, 10**6])
def test_leaky_relu_lies_between_its_limits(n):
    def both(activation):
        law = log_norm_law(activation, [n, n])
        return np.array([law.mean, law.variance])

    linear = both("identity")
    np.testing.assert_allclose(
        both(activations.leaky_relu(1 - 1e-9)), linear, rtol=1e-7, atol=2e-15
    )
    # scaling S by slope^2 exchanges the two kinds of units
    np.testing.assert_allclose(
        both(activations.leaky_relu(4.0)), both(activations.leaky_relu(0.25)), rtol=0, atol=1e-15
    )
    if n > 100:
        relu = both("relu")
        np.testing.assert_allclose(both(activations.leaky_relu(1e-9)), relu, rtol=0, atol=2e-15)


def test_a_sign_changes_no_norm():
    law, linear = (log_norm_law(name, [6, 5]) for name in ("abs", "identity"))
    assert (law.mean, law.variance, law.survival) == (linear.mean, linear.variance, 1)
    leaky, other = (log_norm_law(activations.leaky_relu(a), [6, 5]) for a in (0.3, -0.3))
    assert (leaky.mean, leaky.variance) == (other.mean, other.variance)


def test_layers_add_and_sizes_and_scales_enter_by_their_logs():
    widths, sigma = [7, 5, 9, 5], np.array([1.0, 0.3, 2.0])
    law = log_norm_law("relu", widths, sigma_w=sigma)
    squares = [log_norm_law("relu", [n, n]) for n in widths[1:]]
    scale = np.log(sigma**2 / 2) + np.log(np.array(widths[1:]) / np.array(widths[:-1]))
    means = np.cumsum([s.mean for s in squares] + scale)
    np.testing.assert_allclose(law.means[1:], means, rtol=1e-14)
    np.testing.assert_allclose(law.variances[1:], np.cumsum([s.variance for s in squares]))
    np.testing.assert_allclose(law.survivals[1:], np.cumprod([s.survival for s in squares]))
    assert (law.means[0], law.variances[0], law.survivals[0]) == (0, 0, 1)
    assert (law.mean, law.variance, law.survival) == (
        law.means[-1], law.variances[-1], law.survivals[-1],
    )  # fmt: skip


def test_deep_and_narrow_relu_networks_die():
    law = log_norm_law("relu", [1] * 2001)
    assert law.survival == pytest.approx(math.exp(-2000 * math.log(2)), rel=1e-12)
    assert law.mean == pytest.approx(2000 * log_norm_law("relu", [1, 1]).mean, rel=1e-12)


def test_a_layer_of_zeros_survives_never():
    law = log_norm_law("identity", [3, 3, 3, 3], sigma_w=[1.0, 0.0, 1.0])
    np.testing.assert_array_equal(law.survivals, [1, 1, 0, 0])
    assert math.isnan(law.mean)
    assert math.isfinite(law.means[1])


@pytest.mark.parametrize(
    ("activation", "widths", "sigma_w", "error", "message"),
    [
        ("tanh", [3, 3], None, ValueError, "activation must be linear on either side.*'tanh'"),
        ("relu", [3], None, ValueError, "widths"),
        ("relu", [3, 0], None, ValueError, "widths"),
        ("relu", [3, 3], -1.0, ValueError, "sigma_w"),
        ("relu", [3, 3], [1.0, 2.0], ValueError, "sigma_w"),
        ("relu", [3, 3], "1", TypeError, "sigma_w"),
    ],
)
def test_rejections_name_the_argument(activation, widths, sigma_w, error, message):
    with pytest.raises(error, match=message):
        log_norm_law(activation, widths, sigma_w=sigma_w)
