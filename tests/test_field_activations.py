"""MeanField of every activation, and of users' that do what built-in ones do not."""

import numpy as np
import pytest

from jacometry import activations
from jacometry.meanfield import MeanField
from jacometry.meanfield._field import FIELDS
from jacometry.ops.moments import variance_map


@pytest.mark.parametrize("name", [n for n in activations.names() if n != "quadratic"])
def test_every_activation_has_its_fields(name):
    field = MeanField(name, [0.8, 1.3], 0.2)
    finite = np.isfinite(field.q_star)
    q = variance_map(name, field.q_star[finite], sigma_w=np.array([0.8, 1.3])[finite], sigma_b=0.2)
    allowed = 1e-11 * np.maximum(1, field.depth_scale_q[finite])
    assert (np.abs(q / field.q_star[finite] - 1) <= allowed).all()
    ordered = field.chi_1 <= 1
    np.testing.assert_array_equal(field.c_star[ordered & finite], 1)
    assert (field.c_star[~ordered & finite] < 1).all()
    assert (field.chi_c[finite] < 1).all()


def test_a_square_grows_beyond_all_bounds_or_dies():
    field = MeanField("quadratic", 0.5, q0=[1.0, 2.0])
    # E phi**2 = 3 q**2: q = 4 / 3 repels.
    np.testing.assert_array_equal(field.q_star, [0, np.inf])
    assert np.isinf(field.chi_1[1])
    np.testing.assert_allclose(field.fixed_points(0)["q"], [0, 4 / 3], rtol=1e-14)
    np.testing.assert_array_equal(field.fixed_points(0)["stable"], [True, False])


def bump(x):
    return 3 * np.exp(-((x - 0.5) ** 2))


def bump_slope(x):
    return -2 * (x - 0.5) * bump(x)


def bump_curvature(x):
    return (4 * (x - 0.5) ** 2 - 2) * bump(x)


BUMP = activations.Activation(bump, bump_slope, bump_curvature, name="bump")


def test_a_variance_map_that_decreases_is_iterated():
    sigma_w = np.array([0.3, 1.0])
    field = MeanField(BUMP, sigma_w, 0.1)
    q = np.ones(2)
    for _ in range(500):
        q = variance_map(BUMP, q, sigma_w=sigma_w, sigma_b=0.1)
    np.testing.assert_allclose(field.q_star, q, rtol=1e-9)
    assert field.fixed_points(1)["slope"][0] < 0


def window(x):
    """What decreases V most: E phi**2 is 1 / sqrt(q) where the window is narrow beside sqrt(q)."""
    return 8 * x**2 * np.exp(-(x**2))


def window_slope(x):
    return 16 * (x - x**3) * np.exp(-(x**2))


def window_curvature(x):
    return 16 * (1 - 5 * x**2 + 2 * x**4) * np.exp(-(x**2))


WINDOW = activations.Activation(window, window_slope, window_curvature, name="window")


@pytest.mark.parametrize("sigma_b", [0.0, 0.3])
def test_no_variance_cycles(sigma_b):
    sigma_w = np.geomspace(0.5, 200, 12)
    field = MeanField(WINDOW, sigma_w, sigma_b, q0=30.0)
    q = np.full(12, 30.0)
    for _ in range(200):
        q = variance_map(WINDOW, q, sigma_w=sigma_w, sigma_b=sigma_b)
    np.testing.assert_allclose(field.q_star, q, rtol=1e-9, atol=1e-12)
    slopes = [field.fixed_points(i)["slope"] for i in range(12)]
    # sqrt(q) V(q) never falls.
    assert min(map(min, slopes)) >= -0.5
    assert slopes[-1][-1] < -0.4


def test_a_callable_is_understood():
    by_name = MeanField("tanh", [1.2, 1.6], 0.2)
    by_function = MeanField(np.tanh, [1.2, 1.6], 0.2)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(by_function, name), getattr(by_name, name), rtol=2e-8)
