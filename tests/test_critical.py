"""The edge of chaos and gains: closed lines, published points, and where there is none."""

import math

import mpmath
import numpy as np
import pytest

import jacometry as jm
from jacometry import activations
from jacometry.meanfield import CriticalPoint, MeanField, critical_point, gain
from jacometry.ops.moments import gaussian_moments


def test_tanh_at_the_points_of_the_literature():
    point = critical_point("tanh", sigma_b=0.05**0.5)
    assert point.sigma_w**2 == pytest.approx(1.760954639606739, rel=2e-14)  # of the moments
    point = critical_point("tanh", q_star=1)
    assert point.sigma_w**2 == pytest.approx(2.15330264890279, abs=5e-14)
    assert point.sigma_b**2 == pytest.approx(0.1509646293785529, abs=5e-15)
    assert point.q_star == 1
    point = critical_point("tanh", sigma_b=0.2)
    assert point.sigma_w == pytest.approx(1.30414584006, abs=5e-12)
    assert point == CriticalPoint(*point)
    assert point.stable
    assert point.sigma_b == 0.2


@pytest.mark.parametrize("q", [1e-6, 0.1, 1.0, 7.5, 300.0])
def test_erf_lies_on_its_closed_line(q):
    sigma_w2 = math.pi * math.sqrt(1 + 4 * q) / 4
    with mpmath.workdps(30):
        q_ = mpmath.mpf(q)
        w2 = mpmath.pi * mpmath.sqrt(1 + 4 * q_) / 4
        sigma_b2 = float(q_ - w2 * 2 / mpmath.pi * mpmath.asin(2 * q_ / (1 + 2 * q_)))
    point = critical_point("erf", q_star=q)
    assert point.sigma_w**2 == pytest.approx(sigma_w2, rel=2e-15)
    # sigma_b**2 is a difference of terms as large as q.
    assert point.sigma_b**2 == pytest.approx(sigma_b2, abs=4e-15 * q)
    if sigma_b2 > 1e-9 * q:
        back = critical_point("erf", sigma_b=point.sigma_b)
        assert back.q_star == pytest.approx(q, rel=1e-14 * q / sigma_b2 + 1e-12)


def test_the_relu_family_has_one_point():
    assert critical_point("relu")[:2] == (pytest.approx(math.sqrt(2), rel=2e-16), 0.0)
    assert math.isnan(critical_point("relu").q_star)
    assert critical_point("relu", sigma_b=0.0).sigma_w == critical_point("relu").sigma_w
    assert critical_point("relu", q_star=3.0).q_star == 3.0
    slope = 0.2
    leaky = activations.leaky_relu(slope)
    assert critical_point(leaky).sigma_w ** 2 == pytest.approx(2 / (1 + slope**2), rel=1e-15)
    assert critical_point("identity").sigma_w == 1.0
    with pytest.raises(jm.NoEdgeOfChaosError, match=r"sigma_b = 0 only, got sigma_b = 0\.1"):
        critical_point("relu", sigma_b=0.1)


def test_the_far_away_point_of_the_sigmoid():
    point = critical_point("sigmoid", sigma_b=0.0)
    assert point.sigma_w**2 == pytest.approx(103.00755385552, abs=5e-12)
    assert point.sigma_w == pytest.approx(10.149, abs=5e-4)
    # None below: sigma_w grows along the edge.
    assert critical_point("sigmoid", sigma_b=0.5).sigma_w > point.sigma_w
    with pytest.raises(jm.NoEdgeOfChaosError, match="not critical at q_star = 1"):
        critical_point("sigmoid", q_star=1.0)


@pytest.mark.parametrize("sigma_b", [None, 0.0, 0.5])
def test_softplus_has_no_edge(sigma_b):
    with pytest.raises(jm.NoEdgeOfChaosError, match="'softplus' has no edge of chaos"):
        critical_point("softplus", sigma_b=sigma_b)


@pytest.mark.parametrize(
    ("name", "sigma_w", "q_star", "slope"),
    [("gelu", 1.547009470416, 0.5756371166, 1.095), ("silu", 1.679531600692, 0.6894525029, 1.099)],
)
def test_gelu_and_silu_are_critical_where_q_star_repels(name, sigma_w, q_star, slope):
    point = critical_point(name, sigma_b=0.2)
    assert point.sigma_w == pytest.approx(sigma_w, abs=5e-13)
    assert point.q_star == pytest.approx(q_star, abs=5e-11)
    assert not point.stable
    found = point.sigma_w**2 * gaussian_moments(name, point.q_star).phi2_slope
    assert found == pytest.approx(slope, abs=5e-4)


@pytest.mark.parametrize("name", ["tanh", "elu", "selu"])
def test_tanh_elu_and_selu_attract(name):
    assert critical_point(name, sigma_b=0.2).stable


def test_without_biases_the_edge_is_where_the_slope_at_zero_is_one():
    assert critical_point("tanh", sigma_b=0.0) == (1.0, 0.0, 0.0, True)
    assert critical_point("gelu", sigma_b=0.0) == (2.0, 0.0, 0.0, False)
    # All small variances stay where they are, but for rounding.
    assert critical_point("hard_tanh", sigma_b=0.0) == (1.0, 0.0, 0.0, True)


@pytest.mark.parametrize("name", ["tanh", "erf", "sigmoid"])
@pytest.mark.parametrize("sigma_b", [0.1, 0.7, 2.0])
def test_a_network_on_the_edge_is_critical(name, sigma_b):
    point = critical_point(name, sigma_b=sigma_b)
    field = MeanField(name, point.sigma_w, point.sigma_b, q0=point.q_star)
    assert field.phase == "critical"
    assert field.q_star == pytest.approx(point.q_star, rel=1e-11)
    assert point.stable
    assert field.c_star == 1
    either_side = MeanField(name, point.sigma_w * np.array([0.99, 1.01]), point.sigma_b)
    assert either_side.phase.tolist() == ["ordered", "chaotic"]


def test_a_line_asks_for_a_point():
    with pytest.raises(ValueError, match="is a line: give sigma_b or q_star"):
        critical_point("tanh")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sigma_b": 0.1, "q_star": 1.0}, ValueError, "give sigma_b or q_star, not both"),
        ({"sigma_b": -0.1}, ValueError, "sigma_b must lie in"),
        ({"sigma_b": math.inf}, ValueError, "sigma_b must lie in"),
        ({"q_star": -1.0}, ValueError, "q_star must lie in"),
        ({"q_star": "1"}, TypeError, "q_star must be a real number"),
        ({"sigma_b": [0.1]}, TypeError, "sigma_b must be a real number"),
    ],
)
def test_rejections_name_the_argument(options, error, message):
    with pytest.raises(error, match=message):
        critical_point("tanh", **options)


def test_gains_preserve_what_they_say():
    q = np.array([1e-8, 0.5, 1.0, 40.0])
    for name in ("relu", "tanh", "sigmoid", "erf", "gelu"):
        moments = gaussian_moments(name, q)
        np.testing.assert_allclose(gain(name, q=q) ** 2 * moments.dphi2, 1, rtol=1e-15)
        forward = gain(name, mode="forward", q=q)
        np.testing.assert_allclose(forward**2 * moments.phi2, q, rtol=1e-15)
    assert gain("relu") == gain("relu", mode="forward") == math.sqrt(2)
    assert gain("tanh") == pytest.approx(0.4644029024482682**-0.5, rel=1e-15)
    assert gain("gelu", mode="forward") == pytest.approx(0.4252214825702987**-0.5, rel=1e-15)
    assert gain("tanh", q=[[1.0], [2.0]]).shape == (2, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"q": 0.0}, "q must be > 0"),
        ({"q": [1.0, -1.0]}, "q must be > 0"),
        ({"q": math.nan}, "q must be finite"),
        ({"mode": "sideways"}, "mode must be one of"),
        ({"activation": "nope"}, "activation must be one of"),
    ],
)
def test_rejections_of_a_gain_name_the_argument(options, message):
    arguments = {"activation": "tanh"} | options
    with pytest.raises(ValueError, match=message):
        gain(arguments.pop("activation"), **arguments)


def test_a_constant_has_neither_gain_nor_edge():
    constant = activations.Activation(np.zeros_like, np.zeros_like, np.zeros_like, name="nought")
    with pytest.raises(ValueError, match="lets nothing through"):
        gain(constant)
    with pytest.raises(jm.NoEdgeOfChaosError, match="constant"):
        critical_point(constant, sigma_b=0.1)
