"""The oracles of the moment kernels against published numbers, mpmath and closed forms."""

import math

import mpmath
import pytest

from jacometry import activations
from jacometry.reference import activation, moments

# QUADPACK is asked for 1e-12 on each piece, and the pieces have one sign.
ACCURACY = 1e-12

# E phi^2 and E phi'^2 at q: mpmath at more than 22 digits; erf after Williams (1997).
NUMBERS = [
    ("tanh", 1, 0.3942944903978412, 0.4644029024482682),
    ("tanh", 25, 0.8429617595625437, 0.10570632805654645),
    ("sigmoid", 1, 0.293379035858093, 0.04483624135019437),
    ("erf", 1, 0.46455905439754, 0.5694100347337416),
    ("gelu", 1, 0.4252214825702987, 0.4558508656492871),
]


@pytest.mark.parametrize(("name", "q", "phi2", "dphi2"), NUMBERS)
def test_moments_are_the_published_numbers(name, q, phi2, dphi2):
    found = moments.gaussian_moments(*getattr(activation, name)(), q)
    assert found[1] == pytest.approx(phi2, rel=1e-13)
    assert found[3] == pytest.approx(dphi2, rel=1e-13)


@pytest.mark.parametrize("q", [1e-8, 1e-3, 0.3, 7.0, 1e4])
def test_moments_of_tanh_agree_with_mpmath(q):
    functions = [
        mpmath.tanh,
        lambda x: mpmath.sech(x) ** 2,
        lambda x: -2 * mpmath.tanh(x) * mpmath.sech(x) ** 2,
    ]
    sigma = mpmath.sqrt(q)
    cuts = sorted({0.0, *(d * sigma for d in (1, 2, 4, 8, 14)), *(d for d in (1, 2, 4, 8, 16, 32))})
    cuts = [x for x in cuts if x <= 14 * sigma]

    def mean_square(f):
        def integrand(x):
            return 2 * f(x) ** 2 * mpmath.exp(-((x / sigma) ** 2) / 2)

        return float(mpmath.quad(integrand, cuts) / (sigma * mpmath.sqrt(2 * mpmath.pi)))

    found = moments.gaussian_moments(*activation.tanh(), q)
    assert found[0] == 0
    for place, f in zip((1, 3, 4), functions, strict=True):
        assert found[place] == pytest.approx(mean_square(f), rel=ACCURACY)


@pytest.mark.parametrize("q", [1e-8, 1.0, 1e4])
@pytest.mark.parametrize("a", [0.0, 0.01, -1.0])
def test_moments_of_rectifiers_are_the_closed_forms(q, a):
    found = moments.gaussian_moments(*activation.leaky_relu(a, 0.25), q)
    assert found == pytest.approx(
        (
            (1 - a) * math.sqrt(q / (2 * math.pi)),
            (1 + a * a) * q / 2,
            (1 + a) / 2,
            (1 + a * a) / 2,
            math.inf,
            (1 + a * a) / 2,
        ),
        rel=ACCURACY,
        abs=ACCURACY,
    )


def test_moments_of_the_identity_are_those_of_the_input():
    expected = (0, 3, 1, 1, 0, 1)
    assert moments.gaussian_moments(*activation.identity(), 3.0) == pytest.approx(
        expected, abs=1e-12
    )


def test_at_zero_variance_moments_are_values_at_zero():
    expected = (0.5, 0.25, 0.25, 0.0625, 0, 0.0625)
    assert moments.gaussian_moments(*activation.sigmoid(), 0.0) == expected
    found = moments.gaussian_moments(*activation.leaky_relu(0.0, 0.5), 0.0)
    assert found == (0, 0, 0.5, 0.25, math.inf, 0.5)


@pytest.mark.parametrize("name", activation.BY_NAME)
def test_slopes_and_curvatures_are_derivatives(name):
    phi, dphi, d2phi, _ = activation.BY_NAME[name](*activations.get(name).parameters)
    h = 2.0**-10
    for x in (-2.5, -0.5, 0.75, 3.25):
        slope = (8 * (phi(x + h) - phi(x - h)) - (phi(x + 2 * h) - phi(x - 2 * h))) / (12 * h)
        curvature = (8 * (dphi(x + h) - dphi(x - h)) - (dphi(x + 2 * h) - dphi(x - 2 * h))) / (
            12 * h
        )
        assert dphi(x) == pytest.approx(slope, abs=1e-11)
        assert d2phi(x) == pytest.approx(curvature, abs=1e-10)


def test_variance_map_of_erf_is_the_arc_sine_kernel():
    q = 0.7
    expected = 1.5**2 * 2 / math.pi * math.asin(2 * q / (1 + 2 * q)) + 0.3**2
    found = moments.variance_map(math.erf, (), q, 1.5, 0.3)
    assert found == pytest.approx(expected, rel=ACCURACY)
