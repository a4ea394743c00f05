"""Every moment of every built-in activation against mpmath: 1e-11 of it from q = 1e-8 to 1e4.

With JACOMETRY_ALL_MOMENTS in the environment at every variance of `MORE` too, which takes minutes.
"""

import math
import os
from functools import cache
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest
from activation_truths import TRUTHS

from jacometry.activations import get, names
from jacometry.ops.moments import gaussian_moments, variance_map

NAMES = [name for name in names() if get(name).name == name]
FIELDS = ["phi", "phi2", "dphi", "dphi2", "d2phi2", "phi2_slope"]
USUAL = [1e-8, 0.7, 1e4]
MORE = [1e-7, 1e-6, 1e-4, 0.01, 0.1, 0.3, 0.999, 1.0, 2.5, 9.0, 25.0, 100.0, 700.0, 3000.0]
RTOL, ATOL = 1e-11, 1e-300
# Exact scales of SELU make this mean 0, and what is left is the rounding of the two.
ZERO_MEAN = ("selu", 1.0, "phi")
# Digits of the truth; the two rules that must agree, of 12 and 24 nodes a panel; where they stop,
# with a density of 1e-31.
DIGITS, DEGREES, AGREE, END = 25, (3, 4), 1e-13, 12


@cache
def rule(degree):
    """Gauss-Legendre nodes and weights on (-1, 1)."""
    return mp.calculus.quadrature.GaussLegendre(mp.mp).calc_nodes(degree, mp.mp.prec)


def sin_moments(q):
    decay = mp.exp(-2 * q)
    phi2 = -mp.expm1(-2 * q) / 2
    return [0, phi2, mp.exp(-q / 2), (1 + decay) / 2, phi2, decay]


def panelled(name, q, degree):
    """The moments by definition, on panels cut at the kinks; f(x) + f(-x), so that 0 is 0."""
    activation = get(name)
    phi, dphi, d2phi = TRUTHS[name](*activation.parameters)
    sigma = mp.sqrt(q)
    cuts = [mp.mpf(0)]
    while cuts[-1] < END * sigma:
        cuts.append(cuts[-1] + min(sigma, max(1, cuts[-1] / 2)))
    cuts = sorted({*cuts, *(mp.mpf(abs(k)) for k in activation.kinks if abs(k) < cuts[-1])})
    sums = [mp.mpf(0)] * 6
    for left, right in pairwise(cuts):
        for z, weight in rule(degree):
            x = left + (right - left) * (1 + z) / 2
            density = weight * (right - left) / 2 * mp.npdf(x, 0, sigma)
            for side in (x, -x):
                f = phi(side), dphi(side), d2phi(side)
                terms = f[0], f[0] ** 2, f[1], f[1] ** 2, f[2] ** 2, side * f[0] * f[1] / q
                sums = [s + density * t for s, t in zip(sums, terms, strict=True)]
    if activation.jumps:
        sums[4] = mp.inf
    return sums


@cache
def truth(name, q):
    with mp.workdps(DIGITS):
        at = mp.mpf(q)
        if name == "sin":  # has too many periods for panels
            return [float(m) for m in sin_moments(at)]
        coarse, fine = (panelled(name, at, degree) for degree in DEGREES)
        for field, a, b in zip(FIELDS, coarse, fine, strict=True):
            is_zero = (name, q, field) == ZERO_MEAN
            allowed = mp.mpf(10) ** (2 - DIGITS) if is_zero else AGREE * abs(b)
            assert mp.isinf(b) or abs(a - b) <= allowed
        return [float(m) for m in fine]


def settings():
    return USUAL + (MORE if os.environ.get("JACOMETRY_ALL_MOMENTS") else [])


@pytest.mark.parametrize("q", settings())
@pytest.mark.parametrize("name", NAMES)
def test_every_moment_of_every_activation_is_right_to_1e_11(isa, name, q):
    found = gaussian_moments(name, q)
    for field, expected in zip(FIELDS, truth(name, q), strict=True):
        atol = 2.0**-53 if (name, q, field) == ZERO_MEAN else ATOL
        assert getattr(found, field) == pytest.approx(expected, rel=RTOL, abs=atol), field
        # Where nothing cancels, what the docstring states.
        if field not in ("phi", "dphi", "phi2_slope"):
            assert getattr(found, field) == pytest.approx(expected, rel=100 * 2.0**-53, abs=ATOL), (
                field
            )
    mapped = variance_map(name, q, sigma_w=1.5)
    assert mapped == pytest.approx(2.25 * truth(name, q)[1], rel=RTOL, abs=ATOL)


# E phi^2, E phi'^2 at q, from more than 22 digits.
PUBLISHED = [
    ("tanh", 1, 0.3942944903978412, 0.4644029024482682),
    ("tanh", 25, 0.8429617595625437, 0.10570632805654645),
    ("sigmoid", 1, 0.293379035858093, 0.04483624135019437),
    ("erf", 1, 0.46455905439754, 0.5694100347337416),
    ("gelu", 1, 0.4252214825702987, 0.4558508656492871),
    ("selu", 1, 1, 1.071574992455799),
]


@pytest.mark.parametrize(("name", "q", "phi2", "dphi2"), PUBLISHED)
def test_moments_are_the_published_numbers(isa, name, q, phi2, dphi2):
    found = gaussian_moments(name, q)
    assert found.phi2 == pytest.approx(phi2, rel=2e-14)
    assert found.dphi2 == pytest.approx(dphi2, rel=2e-14)


@pytest.mark.parametrize("name", sorted({*NAMES} - {"quadratic"}))
def test_the_smallest_variances_give_the_leading_terms(isa, name):
    """At q = 1e-12, where E phi and the slope of E phi^2 are differences of larger terms."""
    q = 1e-12
    activation = get(name)
    found = gaussian_moments(name, q)
    beside = np.array([np.nextafter(0, -1), np.nextafter(0, 1)])
    value, slopes = activation.value(0.0), activation.slope(beside)
    curvatures = activation.curvature(beside)
    # phi = v + s x + c x^2 / 2 on either side, with density 1 / 2 each.
    mean_x = math.sqrt(q / (2 * math.pi))
    expected = {
        "phi": value + (slopes[1] - slopes[0]) * mean_x + np.mean(curvatures) * q / 2,
        "phi2": value**2
        + np.mean(slopes**2 + value * curvatures) * q
        + 2 * value * (slopes[1] - slopes[0]) * mean_x,
        "dphi2": np.mean(slopes**2),
        "phi2_slope": np.mean(slopes**2 + value * curvatures),
    }
    for field, leading in expected.items():
        # The next terms are smaller by sigma.
        assert getattr(found, field) == pytest.approx(leading, rel=1e-5, abs=1e-300), field
