"""Values, slopes and curvatures of the built-in activations, and their ranges, against mpmath."""

import math
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest
from activation_truths import TRUTHS, log1p_exp

from jacometry import activations
from jacometry.activations import Activation, get
from jacometry.reference import activation as reference

ALL = [get(name) for name in dict.fromkeys(get(name).name for name in activations.names())]
CASES = [
    *ALL,
    activations.relu(slope_at_zero=0.5),
    activations.leaky_relu(-0.3),
    activations.elu(0.3),
    activations.celu(0.7),
    activations.celu(3.3),
    activations.softplus(0.3),
    activations.softplus(7.7),
]
# Units in the last place: exp, erfc and tanh to 1.5 each, and the roundings of ten operations.
ULPS = 8
# Slopes and curvatures cancel only beside zeros, all of which lie here.
ZEROS_END = 5.0


def hostile(dtype):
    """Both signs of: every scale, every hundredth of the bend, where tails underflow, the kinks."""
    info = np.finfo(dtype)
    scales = [info.smallest_subnormal, info.tiny, *10.0 ** np.arange(-30, 37, 3.0)]
    tails = [88.1, 103.3, 300.7, 650.2, 690.1, 705.5, 708.9, 720.3, 731.4, 744.4, 746.0, 800.0]
    sizes = np.concatenate([scales, np.arange(0.05, 6, 0.1), np.arange(6, 42, 0.9), tails])
    kinks = np.array([0.0, 1.0, 3.0, 6.0], dtype)
    beside = [np.nextafter(kinks, dtype.type(side)) for side in (-np.inf, np.inf)]
    irregular = (sizes * (1 + 1e-9 * np.pi)).astype(dtype)
    x = np.concatenate([irregular, [info.max], kinks, *beside]).astype(dtype)
    return np.unique(np.concatenate([x, -x]))


def label(activation):
    return " ".join([activation.name, *(f"{p:g}" for p in activation.parameters)])


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("activation", CASES, ids=label)
def test_built_in_activations_are_right_to_a_few_units_in_the_last_place(dtype, activation, order):
    x = hostile(dtype)
    with np.errstate(all="raise"):
        found = (activation.value, activation.slope, activation.curvature)[order](x)
    assert found.dtype == dtype
    with mp.workdps(50):
        truth = TRUTHS[activation.name](*activation.parameters)[order]
        for at, got in zip(map(float, x), map(float, found), strict=True):
            if activation.name == "sin" and abs(at) > 1e20:
                continue  # as many digits of pi would be needed
            exact = truth(mp.mpf(at))
            if abs(exact) > np.finfo(dtype).max:
                assert got == math.copysign(math.inf, exact)
                continue
            unit = float(np.spacing(min(dtype.type(abs(float(exact))), np.finfo(dtype).max / 2)))
            if order and abs(at) < ZEROS_END and at not in activation.kinks:
                unit += np.finfo(dtype).eps * abs(at * mp.diff(truth, at, h=mp.mpf(10) ** -15))
            assert abs(got - exact) <= ULPS * unit, (at, got, exact)


@pytest.mark.parametrize("activation", ALL, ids=label)
def test_slope_range_holds_every_slope_and_is_the_least_that_does(activation):
    """Exact to the last digit: 1 ulp of the float64 nearest to the truth."""
    with mp.workdps(40):
        _, slope, curvature = TRUTHS[activation.name](*activation.parameters)
        grid = [mp.mpf(k) / 8 for k in range(-400, 401)]
        places = [*grid, mp.mpf(-(10**30)), mp.mpf(10**30)]
        places += [
            k + d for k in activation.kinks for d in (mp.mpf(10) ** -36, -(mp.mpf(10) ** -36))
        ]
        for a, b in pairwise(grid):
            if curvature(a) * curvature(b) < 0 and not any(a <= k <= b for k in activation.kinks):
                places.append(mp.findroot(curvature, (a, b), solver="anderson"))
        slopes = [slope(x) for x in places]
        for found, exact in zip(activation.slope_range, (min(slopes), max(slopes)), strict=True):
            if math.isinf(found):
                assert activation.name == "quadratic"
            else:
                assert abs(found - exact) <= np.spacing(abs(found)) + mp.mpf(10) ** -25
    assert activation.lipschitz == max(map(abs, activation.slope_range))


def test_selu_constants_are_those_of_the_paper():
    with mp.workdps(40):
        value, slope, _ = TRUTHS["selu"]()
        assert get("selu").slope(1.0) == float(slope(1))
        assert get("selu").slope(0.0) == float(slope(0))

        def density(x):
            return mp.exp(-(x**2) / 2) / mp.sqrt(2 * mp.pi)

        def mean(power):
            cuts = [-14, -6, 0, 6, 14]  # beyond, 14**2 exp(-98) is left out
            return mp.quad(lambda x: value(x) ** power * density(x), cuts)

        assert abs(mean(1)) < 1e-25
        assert abs(mean(2) - 1) < 1e-25


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu"])
def test_gated_slopes_of_opposite_inputs_sum_to_1(name):
    x = np.linspace(0, 40, 401)
    total = get(name).slope(x) + get(name).slope(-x)
    # Each slope is at most 1.13 and right to ULPS units.
    np.testing.assert_allclose(total, 1.0, rtol=0, atol=2 * ULPS * np.spacing(1.0))


@pytest.mark.parametrize("beta", [1e-100, 1e-3, 1e100])
def test_extreme_parameters_keep_every_digit(beta):
    x = np.array([-3.0, -1e-3, 0.0, 1e-3, 3.0])
    with mp.workdps(250):
        for at, got in zip(x / beta, activations.softplus(beta).value(x / beta), strict=True):
            exact = log1p_exp(beta * mp.mpf(at)) / beta
            assert abs(got - exact) <= ULPS * np.spacing(got)
        for at, got in zip(
            -abs(x) * beta, activations.celu(beta).value(-abs(x) * beta), strict=True
        ):
            exact = beta * mp.expm1(mp.mpf(at) / beta)
            assert abs(got - exact) <= ULPS * np.spacing(abs(got))


@pytest.mark.parametrize("activation", CASES, ids=label)
def test_the_oracles_are_the_same_functions(activation):
    functions = reference.BY_NAME[activation.name](*activation.parameters)
    assert functions[3] == activation.kinks
    x = np.concatenate([np.linspace(-30, 30, 241), [-3.0, -1.0, 0.0, 1.0, 3.0, 6.0]])
    for order, mine in enumerate((activation.value, activation.slope, activation.curvature)):
        expected = [functions[order](float(at)) for at in x]
        # The oracles round x**2 and subtract: 450 u in the exponent of a Gaussian, 1500 u in
        # that of GELU's tanh form, on values below 30.
        np.testing.assert_allclose(mine(x), expected, rtol=2000 * 2.0**-53, atol=60 * 2.0**-53)


@pytest.mark.parametrize("activation", ALL, ids=label)
def test_the_search_finds_the_declared_slope_range(activation):
    searched = Activation(activation.phi, activation.dphi, kinks=activation.kinks)
    assert searched.slope_range == pytest.approx(activation.slope_range, abs=1e-9)
    assert searched.lipschitz == pytest.approx(activation.lipschitz, abs=1e-9)
