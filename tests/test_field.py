"""MeanField against the numbers of the literature, mpmath and iterated maps."""

import functools
import math

import mpmath
import numpy as np
import pytest
from common import plane_means
from scipy.optimize import minimize_scalar

import jacometry as jm
from jacometry import activations
from jacometry.meanfield import MeanField
from jacometry.ops.moments import gaussian_moments, variance_map

ROOT_05 = 0.05**0.5
FIELDS = ("q_star", "chi_1", "c_star", "chi_c", "depth_scale_q", "depth_scale_c",
          "depth_scale_grad")  # fmt: skip


def digits(text):
    """Half a unit in the last digit that was given."""
    return 0.5 * 10.0 ** -len(text.partition(".")[2])


@pytest.mark.parametrize(
    ("sigma_w2", "sigma_b2", "expected"),
    [
        (1, 0.05, {"q_star": "0.1935925202453", "chi_1": "0.75903164718539", "c_star": "1",
                   "depth_scale_c": "3.626975618"}),
        (1.3, 0.05, {"q_star": "0.31531647748529", "chi_1": "0.88016350988322", "c_star": "1",
                     "depth_scale_c": "7.834069268"}),
        (2, 0.05, {"q_star": "0.72176187265207", "chi_1": "1.0476659995757",
                   "c_star": "0.744082419501", "depth_scale_c": "25.21341479"}),
        (4, 0.05, {"q_star": "2.1954939280345", "chi_1": "1.3424024144452",
                   "c_star": "0.165064962022", "depth_scale_c": "6.980273533"}),
        (1.69, 0.09, {"chi_1": "0.93980742868215"}),
        (16, 0.09, {"q_star": "12.604149497844", "c_star": "0.0296959215803"}),
        (1.2, 0, {"q_star": "0.10707874797985", "c_star": "0", "depth_scale_c": "216.7674518"}),
    ],
)  # fmt: skip
def test_the_tanh_phase_diagram_of_the_literature(sigma_w2, sigma_b2, expected):
    field = MeanField("tanh", math.sqrt(sigma_w2), math.sqrt(sigma_b2))
    for name, value in expected.items():
        found = float(getattr(field, name))
        # The last digit given, and what rounding the sigmas does at this depth scale.
        allowed = digits(value) + 4e-16 * max(1.0, abs(found)) * 300
        assert abs(found - float(value)) <= allowed, name
    assert field.phase == ("chaotic" if sigma_w2 in (2, 4, 16, 1.2) else "ordered")


def test_erf_beside_its_published_point():
    field = MeanField("erf", math.sqrt(2), math.sqrt(0.1))
    assert field.q_star == pytest.approx(1.046255360121433, abs=1e-15 * 8)
    assert field.chi_1 == pytest.approx(1.118316766118448, abs=1e-15 * 8)
    assert field.c_star == pytest.approx(0.64722936910709, abs=1e-14)
    assert field.depth_scale_c == pytest.approx(11.3889998303, abs=5e-11)


@pytest.mark.parametrize(
    ("name", "sigma_w", "chi_1"),
    [("relu", math.sqrt(2), 1.0), ("leaky_relu", math.sqrt(2 / 1.0001), 1.0)],
)
def test_the_relu_family_fixes_every_q_at_its_critical_point(name, sigma_w, chi_1):
    field = MeanField(name, sigma_w, q0=[1e-6, 0.3, 1.0, 7e5])
    np.testing.assert_array_equal(field.q_star, [1e-6, 0.3, 1.0, 7e5])
    np.testing.assert_allclose(field.chi_1, chi_1, rtol=4e-16)
    assert set(field.phase) == {"critical"}
    assert set(field.status) == {"every q is fixed; slow: algebraic convergence"}
    assert np.isinf(field.depth_scale_grad).all()
    np.testing.assert_array_equal(field.fixed_points(2)["q"], [1.0])


def test_relu_decays_to_zero_below_and_diverges_above():
    field = MeanField("relu", [1.0, 1.6])
    np.testing.assert_array_equal(field.q_star, [0.0, np.inf])
    np.testing.assert_allclose(field.chi_1, [0.5, 1.28], rtol=1e-15)
    np.testing.assert_array_equal(field.c_star, [1.0, 1.0])
    assert field.phase.tolist() == ["ordered", "divergent"]
    assert field.status[0] == "converged"
    assert field.status[1].startswith("q diverges")
    # The slope of ReLU's correlation map at 1 is 1, whatever sigma_w.
    assert field.chi_c[1] == pytest.approx(1.0, abs=1e-15)
    # With biases below: q* = sigma_b**2 / (1 - sigma_w**2 / 2).
    assert MeanField("relu", 1.0, 0.5).q_star == pytest.approx(0.5, rel=1e-15)


def test_gelu_ends_elsewhere_than_where_chi_is_1():
    field = MeanField("gelu", 1.547009470416, 0.2, q0=[0.0, 0.1, 0.57, 0.58, 1.0])
    np.testing.assert_allclose(field.q_star[:3], 0.151894, atol=5e-7)
    np.testing.assert_allclose(field.chi_1[:3], 0.77552, atol=5e-6)
    assert np.isinf(field.q_star[3:]).all()
    assert field.phase.tolist() == ["ordered"] * 3 + ["divergent"] * 2
    assert all("several fixed points" in status for status in field.status)
    points = field.fixed_points(0)
    np.testing.assert_allclose(points["q"], [field.q_star[0], 0.5756371166], atol=5e-11)
    np.testing.assert_array_equal(points["stable"], [True, False])
    assert points["slope"][1] == pytest.approx(1.095, abs=5e-4)
    assert points["chi_1"][1] == pytest.approx(1.0, abs=1e-10)


def saddle_node(name, sigma_b, bounds):
    """Largest sigma_w with two fixed points in bounds, and where they meet."""

    def minus_sigma_w2(q):
        return -(q - sigma_b**2) / float(gaussian_moments(name, q).phi2)

    found = minimize_scalar(minus_sigma_w2, bounds=bounds, method="bounded",
                            options={"xatol": 1e-10})  # fmt: skip
    return math.sqrt(-found.fun), found.x


def test_two_fixed_points_that_are_about_to_meet_are_found():
    sigma_w, meeting = saddle_node("gelu", 0.2, (0.1, 0.6))
    for below in (1e-3, 1e-6, 1e-9):
        field = MeanField("gelu", sigma_w * (1 - below), 0.2, q0=[0.0, meeting, 1.0])
        points = field.fixed_points(0)
        assert len(points) == 2
        # They part like the square root of the distance.
        np.testing.assert_allclose(points["q"], meeting, rtol=10 * math.sqrt(below))
        np.testing.assert_allclose(field.q_star[:2], points["q"][0], rtol=1e-10)
        assert np.isinf(field.q_star[2])
    field = MeanField("gelu", sigma_w * (1 + 1e-9), 0.2, q0=[0.0, 1.0])
    assert np.isinf(field.q_star).all()
    assert len(field.fixed_points(0)) == 0


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "erf", "gelu", "relu"])
def test_q_star_is_where_the_iteration_goes(name, rng):
    sigma_w, sigma_b = rng.uniform(0, 2.5, 60), rng.uniform(0.05, 1, 60)
    q0 = rng.uniform(0, 5, 60)
    field = MeanField(name, sigma_w, sigma_b, q0=q0)
    q = q0
    for _ in range(3000):
        q = np.minimum(variance_map(name, q, sigma_w=sigma_w, sigma_b=sigma_b), 1e100)
    settled = np.isfinite(field.q_star) & (field.depth_scale_q < 50)
    assert settled.sum() > 20
    np.testing.assert_allclose(q[settled], field.q_star[settled], rtol=1e-12)
    assert (q[np.isinf(field.q_star)] > 10).all()


MP = {
    "tanh": (mpmath.tanh, lambda x: mpmath.sech(x) ** 2),
    "sigmoid": (
        lambda x: 1 / (1 + mpmath.exp(-x)),
        lambda x: mpmath.sech(x / 2) ** 2 / 4,
    ),
    "erf": (mpmath.erf, lambda x: 2 * mpmath.exp(-x * x) / mpmath.sqrt(mpmath.pi)),
    "gelu": (lambda x: x * mpmath.ncdf(x), lambda x: mpmath.ncdf(x) + x * mpmath.npdf(x)),
    "relu": (lambda x: max(x, 0), lambda x: 1 if x > 0 else 0),
}


@functools.cache
def mp_nodes():
    with mpmath.workdps(25):
        return [(z, w * mpmath.npdf(z)) for z, w in mp_rule(-11, 11, 44, 14)]


def mp_rule(low, high, n_panels, n):
    """Composite Gauss-Legendre nodes and weights in mpmath, from the roots of P_n."""
    roots = [
        mpmath.findroot(lambda t: mpmath.legendre(n, t), start)
        for start in np.polynomial.legendre.leggauss(n)[0]
    ]
    weights = [2 * (1 - t * t) / ((n + 1) * mpmath.legendre(n + 1, t)) ** 2 for t in roots]
    width = mpmath.mpf(high - low) / n_panels
    for panel in range(n_panels):
        middle = low + (panel + mpmath.mpf(1) / 2) * width
        for t, w in zip(roots, weights, strict=True):
            yield middle + t * width / 2, w * width / 2


def mp_mean(f, q):
    root = mpmath.sqrt(q)
    return mpmath.fsum(w * f(root * z) for z, w in mp_nodes())


@pytest.mark.parametrize(
    ("name", "sigma_w", "sigma_b"),
    [
        ("tanh", 1.5, 0.25), ("tanh", 0.7, 0.5), ("tanh", 3.0, 0.125),
        ("sigmoid", 2.0, 0.5), ("sigmoid", 8.0, 0.25),
        ("erf", 1.25, 0.25), ("erf", 2.5, 0.5),
        ("gelu", 1.25, 0.25), ("gelu", 1.375, 0.125),
        ("relu", 1.25, 0.5),
    ],
)  # fmt: skip
def test_q_star_and_chi_agree_with_mpmath(name, sigma_w, sigma_b):
    field = MeanField(name, sigma_w, sigma_b)
    phi, dphi = MP[name]
    with mpmath.workdps(25):
        w2, b2 = mpmath.mpf(sigma_w) ** 2, mpmath.mpf(sigma_b) ** 2
        q_star = mpmath.findroot(
            lambda q: w2 * mp_mean(lambda x: phi(x) ** 2, q) + b2 - q,
            (float(field.q_star) * 0.999, float(field.q_star) * 1.001),
            solver="secant",
        )
        chi_1 = w2 * mp_mean(lambda x: dphi(x) ** 2, q_star)
        # The moments are good to 2e-14, which a fixed point magnifies by its depth scale.
        allowed = 3e-14 * max(1.0, float(field.depth_scale_q))
        assert abs(field.q_star / float(q_star) - 1) <= allowed
        assert abs(field.chi_1 / float(chi_1) - 1) <= 2 * allowed


@pytest.mark.parametrize(
    ("name", "sigma_w", "sigma_b"),
    [("tanh", 1.4, 0.1), ("tanh", 1.05, 0.01), ("erf", 1.2, 0.2), ("erf", 1.5, 0.0),
     ("tanh", 1.33, ROOT_05), ("gelu", 1.405, 0.6)],
)  # fmt: skip
def test_c_star_is_a_fixed_point_of_the_correlation_map_and_chi_c_its_slope(name, sigma_w, sigma_b):
    field = MeanField(name, sigma_w, sigma_b)
    phi = activations.get(name)
    q, e = float(field.q_star), 1 - float(field.c_star)
    assert field.phase == "chaotic"
    together, apart = plane_means(phi.value, e, q)
    assert sigma_w**2 * apart == pytest.approx(q * e, rel=1e-12)
    assert sigma_w**2 * together + sigma_b**2 == pytest.approx(q * (1 - e), abs=1e-13 * q)
    slope = sigma_w**2 * plane_means(phi.slope, e, q)[0]
    assert field.chi_c == pytest.approx(slope, rel=1e-12)
    assert field.chi_c < 1 < field.chi_1


def test_c_star_just_above_the_edge_keeps_its_relative_accuracy():
    point = jm.critical_point("tanh", q_star=0.5)
    distances = np.array([1e-3, 1e-5, 1e-7])
    field = MeanField("tanh", point.sigma_w * (1 + distances), point.sigma_b)
    ratio = (1 - field.c_star) / (field.chi_1 - 1)
    # 1 - c* is proportional to chi_1 - 1 there; c* itself is rounded to 1e-16.
    np.testing.assert_allclose(ratio, ratio[1], rtol=5e-3)


def test_weights_of_zero_leave_the_biases():
    field = MeanField("tanh", 0.0, [0.0, 0.5])
    np.testing.assert_array_equal(field.q_star, [0.0, 0.25])
    np.testing.assert_array_equal(field.chi_1, 0)
    np.testing.assert_array_equal(field.c_star, 1)
    np.testing.assert_array_equal(field.depth_scale_grad, 0)
    assert set(field.status) == {"converged"}


def test_tanh_without_biases_vanishes_or_saturates():
    field = MeanField("tanh", [0.9, 1.0, 1.1, 1.1], q0=[1, 1, 1, 0])
    assert field.q_star[0] == 0
    assert field.q_star[1] <= 1e-12
    assert field.q_star[2] > 0.05
    assert field.q_star[3] == 0
    np.testing.assert_array_equal(field.c_star[[0, 1, 3]], 1)
    assert field.c_star[2] == 0
    assert field.phase.tolist() == ["ordered", "critical", "chaotic", "chaotic"]
    assert "slow" in field.status[1]
    np.testing.assert_array_equal(field.fixed_points(2)["stable"], [False, True])


def test_a_trajectory_follows_the_maps_and_ends_at_the_fixed_points():
    field = MeanField("tanh", [1.2, 2.0], 0.3)
    way = field.trajectory(0.4, [[0.2], [1.0]], 500)
    assert way.q.shape == way.c.shape == way.complement.shape == (2, 2, 501)
    np.testing.assert_array_equal(way.q[..., 0], 0.4)
    np.testing.assert_array_equal(way.c[:, 0, 0], [0.2, 1.0])
    np.testing.assert_allclose(way.q[0, :, 1], variance_map("tanh", 0.4, sigma_w=[1.2, 2.0],
                               sigma_b=0.3), rtol=1e-15)  # fmt: skip
    np.testing.assert_allclose(way.q[..., -1], np.tile(field.q_star, (2, 1)), rtol=1e-13)
    np.testing.assert_allclose(way.c[0, :, -1], field.c_star, atol=1e-13)
    np.testing.assert_array_equal(way.c[1], 1)  # the same input twice
    # Near 1 the complement falls by chi_1 a layer, far below what c can hold.
    complement = way.complement[0, 0]
    assert 0 < complement[400] < 1e-20
    assert complement[400] / complement[399] == pytest.approx(field.chi_1[0], rel=1e-12)


def test_relu_at_its_critical_point_decorrelates_algebraically():
    # theory: 1 - c_l -> 9 pi**2 / (2 l**2), with ratio 0.805 at l = 100 and 0.971 at l = 1000.
    e = MeanField("relu", math.sqrt(2)).trajectory(1.0, 0.0, 1000).complement
    for depth, ratio in ((100, 0.805), (1000, 0.971)):
        assert e[depth] * 2 * depth**2 / (9 * math.pi**2) == pytest.approx(ratio, abs=5e-4)


def test_xavier_does_not_suit_the_sigmoid():
    assert MeanField("sigmoid", 1.0).chi_1 == pytest.approx(0.0557, abs=5e-5)


def test_a_point_depends_on_nothing_but_itself(rng):
    sigma_w, sigma_b, q0 = rng.uniform(0, 3, 300), rng.uniform(0, 1, 300), rng.uniform(0, 3, 300)
    for name in ("tanh", "gelu"):
        whole = MeanField(name, sigma_w, sigma_b, q0=q0, n_threads=2)
        other = MeanField(name, sigma_w, sigma_b, q0=q0, n_threads=1)
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(whole, field), getattr(other, field))
        for i in (0, 7, 150, 299):
            alone = MeanField(name, sigma_w[i], sigma_b[i], q0=q0[i])
            for field in (*FIELDS, "phase", "status"):
                np.testing.assert_array_equal(getattr(alone, field), getattr(whole, field)[i])


def test_shapes_and_dtypes():
    field = MeanField("erf", np.ones((3, 1)), [0.1, 0.2], q0=np.ones((2, 1, 1)))
    assert field.shape == field.q_star.shape == field.phase.shape == (2, 3, 2)
    assert field.fixed_points((1, 2, 0)).shape == (1,)
    with pytest.raises(IndexError, match="one point"):
        field.fixed_points(0)
    scalar = MeanField("erf", 1.0, 0.1)
    assert scalar.shape == ()
    assert isinstance(scalar.q_star, np.float64)
    assert isinstance(scalar.phase, str)
    assert isinstance(scalar.status, str)
    small = MeanField("erf", np.float32([1.0]), 0.1)
    assert small.q_star.dtype == np.float32
    assert MeanField("erf", np.empty((0, 3))).q_star.shape == (0, 3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sigma_w": -1.0}, ValueError, "sigma_w must be >= 0, got -1.0"),
        ({"sigma_w": [1.0, -2.0]}, ValueError, r"sigma_w must be >= 0, got -2.0 at index \(1,\)"),
        ({"sigma_b": -0.1}, ValueError, "sigma_b must be >= 0"),
        ({"sigma_b": math.nan}, ValueError, "sigma_b must be finite"),
        ({"sigma_w": "1"}, TypeError, "sigma_w"),
        ({"sigma_w": [1.0, 2.0], "sigma_b": [1.0, 2.0, 3.0]}, ValueError, "broadcast together"),
        ({"q0": -1.0}, ValueError, "q0 must be >= 0"),
        ({"q0": math.inf}, ValueError, "q0 must be finite"),
        ({"dropout": 1.0}, ValueError, r"dropout must lie in \[0, 1\)"),
        ({"dropout": -0.1}, ValueError, "dropout must lie in"),
        ({"shortcut": math.inf}, ValueError, "shortcut must be finite"),
        ({"normalization": "group"}, ValueError, "normalization must be one of"),
        ({"activation": "nope"}, ValueError, "activation must be one of"),
        ({"n_threads": 0}, ValueError, "n_threads"),
    ],
)
def test_rejections_name_the_argument(options, error, message):
    arguments = {"activation": "tanh", "sigma_w": 1.0, "sigma_b": 0.1} | options
    positional = [arguments.pop(name) for name in ("activation", "sigma_w", "sigma_b")]
    with pytest.raises(error, match=message):
        MeanField(*positional, **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1.0, 0.5, 3), ValueError, "q must be >= 0"),
        ((1.0, 1.5, 3), ValueError, r"c must lie in \[-1, 1\]"),
        ((1.0, -1.5, 3), ValueError, r"c must lie in \[-1, 1\]"),
        ((1.0, 0.5, -1), ValueError, "depth must be at least 0"),
        ((1.0, 0.5, 2.5), TypeError, "depth must be an integer"),
    ],
)
def test_rejections_of_a_trajectory_name_the_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        MeanField("tanh", 1.0, 0.1).trajectory(*arguments)
