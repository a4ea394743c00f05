"""Two-point means and the correlation map at 120 bits (python-flint), q1 != q2 as well."""

import flint
import pytest
from flint import arb

from jacometry.ops.correlations import correlation_map, decorrelation, dual_activation


def _tanh(x):
    value = x.tanh()
    return value, 1 - value * value


def _sigmoid(x):
    value = 1 / (1 + (-x).exp())
    return value, value * (1 - value)


def _silu(x):
    gate, rise = _sigmoid(x)
    return x * gate, gate + x * rise


SMOOTH = {"tanh": _tanh, "sigmoid": _sigmoid, "silu": _silu}
ITEMS = [
    (1.5, 1.5, 0.3),
    (0.01, 0.01, 1.9),
    (2.0, 2.0, 1e-9),
    (0.5, 2.0, 0.7),
    (1.0, 1.0 + 2.0**-20, 1e-10),
    (2.0, 0.01, 1.0),
]


def plane_means(both, q1, q2, complement, scales):
    """E of phi(u1) phi(u2), phi'(u1) phi'(u2) and (f1 phi(u1) - f2 phi(u2))**2, scales (f1, f2).

    By the trapezoidal rule, a node each 1/8 standard deviation: poles of phi are at least pi / (2
    sqrt(2)) of them from the real axis, so its error is ``exp(-2 pi 1.11 8) = 6e-25``; and
    ``exp(-11**2 / 2) = 5e-27`` lies outside.
    """
    e = arb(complement)
    c, s, (r1, r2) = 1 - e, (e * (2 - e)).sqrt(), (arb(q).sqrt() for q in (q1, q2))
    nodes = [arb(k) / 8 for k in range(-88, 89)]
    weights = [(-z * z / 2).exp() / (8 * (2 * arb.pi()).sqrt()) for z in nodes]
    totals = [arb(0), arb(0), arb(0)]
    for i, x in enumerate(nodes):
        one, slope_one = both(r1 * x)
        for j, y in enumerate(nodes):
            if (i - 88) ** 2 + (j - 88) ** 2 <= 88**2:
                two, slope_two = both(r2 * (c * x + s * y))
                weight = weights[i] * weights[j]
                totals[0] += weight * one * two
                totals[1] += weight * slope_one * slope_two
                gap = scales[0] * one - scales[1] * two
                totals[2] += weight * gap * gap
    return totals


def second_moment(both, q):
    return plane_means(both, q, q, 0.0, (1, 1))[0]


@pytest.fixture
def precise(monkeypatch):
    monkeypatch.setattr(flint.ctx, "prec", 120)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize(("q1", "q2", "complement"), ITEMS)
def test_means_and_maps_to_all_digits(precise, name, q1, q2, complement):
    both, sigma_w, sigma_b = SMOOTH[name], 1.25, 0.5
    variances = [sigma_w**2 * second_moment(both, q) + sigma_b**2 for q in (q1, q2)]
    scales = [1 / variance.sqrt() for variance in variances]
    values, slopes, distance = plane_means(both, q1, q2, complement, scales)
    options = {"complement": True}

    found = dual_activation(name, complement, q1, q2, **options)
    size = float((second_moment(both, q1) * second_moment(both, q2)).sqrt())
    assert abs(found - float(values)) <= 1e-12 * size
    found = dual_activation(name, complement, q1, q2, derivative=1, **options)
    assert found == pytest.approx(float(slopes), rel=1e-12)

    apart = scales[0] - scales[1]
    gap = (sigma_w**2 * distance + sigma_b**2 * apart * apart) / 2
    found = correlation_map(
        name, complement, q1, q2, sigma_w=sigma_w, sigma_b=sigma_b, complement=True
    )
    promised = 1e-12 if q1 == q2 else 1e-12 + 1e-14 / float(gap) ** 0.5
    assert found == pytest.approx(float(gap), rel=promised)
    if q1 == q2:
        spread = plane_means(both, q1, q2, complement, (1, 1))[2] / (2 * arb(complement))
        assert decorrelation(name, complement, q1) == pytest.approx(float(spread), rel=1e-12)
