"""gaussian_moments and variance_map of the built-in activations: oracles and mathematics."""

import math
from functools import cache

import numpy as np
import pytest

from jacometry import _kernels, activations
from jacometry.activations import Activation, get, leaky_relu, relu
from jacometry.ops.moments import gaussian_moments, variance_map
from jacometry.reference import activation as reference_activation
from jacometry.reference import moments as reference

NAMES = [name for name in activations.names() if get(name).name == name]
FIELDS = ["phi", "phi2", "dphi", "dphi2", "d2phi2", "phi2_slope"]
U = 2.0**-53
# What the docstring states: 10 u for closed forms, 100 u of E |f| for tables.
CLOSED = ["identity", "relu", "leaky_relu", "prelu", "abs", "erf", "gelu", "sin", "quadratic"]
STATED = {name: 10 * U if name in CLOSED else 100 * U for name in activations.names()}
# What the oracle asks QUADPACK for.
ORACLE = 1e-12
# Exact in float32, either side of the split between the two rules and of every lane boundary.
QS = [0.0, 1e-8, 1e-4, 0.2, 0.24999999, 0.25, 0.3, 0.99, 1.0, 1.5, 4.0, 25.0, 900.0, 1e4, 1e6]
QS = [float(np.float32(q)) for q in QS]


def settings(name, dtype=np.float64):
    """Variances at which QUADPACK can answer; sin has too many periods beyond."""
    return np.array([min(q, 25.0) for q in QS] if name == "sin" else QS, dtype)


def rows(moments):
    return np.stack([np.atleast_1d(getattr(moments, field)) for field in FIELDS])


@cache
def oracle(name, q):
    activation = get(name)
    functions = reference_activation.BY_NAME[name](*activation.parameters)
    return np.array(reference.gaussian_moments(*functions, q))


def terms(name, field, q):
    """A bound on E |f| for the means of terms of two signs: errors are relative to that."""
    phi2, dphi2 = (oracle(name, float(q))[place] for place in (1, 3))
    if field in ("phi", "dphi"):
        return math.sqrt(phi2 if field == "phi" else dphi2)
    if field == "phi2_slope" and q > 0 and name != "quadratic":  # E |x phi phi'| / q
        return get(name).lipschitz * math.sqrt(phi2 / q)
    return 0.0


def roundoff(dtype):
    return np.finfo(dtype).eps / 2 if dtype == np.float32 else 0.0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_items", [0, 1, 3, 4, 8, 9, 17, 33])
def test_gaussian_moments_agree_with_the_oracle(isa, dtype, name, n_items):
    q = np.resize(settings(name, dtype), n_items)
    found = gaussian_moments(name, q)
    for place, field in enumerate(FIELDS):
        got = getattr(found, field)
        assert got.dtype == dtype
        assert got.shape == q.shape
        for item, value in zip(q, got, strict=True):
            expected = oracle(name, float(item))
            if math.isinf(expected[place]):
                assert value == expected[place]
                continue
            tolerance = (ORACLE + STATED[name] + roundoff(dtype)) * abs(expected[place])
            tolerance += (ORACLE + STATED[name]) * terms(name, field, item)
            assert abs(value - expected[place]) <= tolerance


@pytest.mark.parametrize("name", NAMES)
def test_variance_map_agrees_with_the_oracle(isa, dtype, name):
    q = settings(name, dtype)
    sigma_w = np.linspace(0, 2, 4, dtype=dtype)[:, None]
    sigma_b = dtype.type(0.25)
    found = variance_map(name, q, sigma_w=sigma_w, sigma_b=sigma_b)
    assert found.dtype == dtype
    assert found.shape == (4, len(q))
    phi2 = np.array([oracle(name, float(item))[1] for item in q])
    expected = sigma_w.astype(float) ** 2 * phi2 + 0.0625
    tolerance = ORACLE + STATED[name] + 4 * U + roundoff(dtype)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize("q", [1e-300, 1e-160, 1e-12, 1e14, 1e160, 1e300])
def test_moments_reach_their_limits_at_any_scale(isa, q):
    """Leading terms in small and large q; the next ones are below 20 q and 3 / sqrt(q) relative."""
    tanh, sigmoid = gaussian_moments("tanh", q), gaussian_moments("sigmoid", q)
    erf, gelu = gaussian_moments("erf", q), gaussian_moments("gelu", q)
    density = 1 / (math.sqrt(2 * math.pi) * math.sqrt(q))
    if q < 1:
        expected = {
            "tanh": [0, q, 1, 1, 4 * q, 1],
            "sigmoid": [0.5, 0.25 + q / 16, 0.25, 0.0625, q / 64, 1 / 16],
            "erf": [
                0,
                4 / math.pi * q,
                2 / math.sqrt(math.pi),
                4 / math.pi,
                16 / math.pi * q,
                4 / math.pi,
            ],
            "gelu": [q / math.sqrt(2 * math.pi), q / 4, 0.5, 0.25, 2 / math.pi, 0.25],
        }
    else:
        # Integrals of sech^2, sech^4 and 4 tanh^2 sech^4 over the line: 2, 4/3, 16/15.
        expected = {
            "tanh": [
                0,
                1 - 2 * density,
                2 * density,
                4 / 3 * density,
                16 / 15 * density,
                density / q,
            ],
            "sigmoid": [0.5, 0.5 - density, density, density / 6, density / 30, density / 2 / q],
            "erf": [
                0,
                1 - 2 / (math.pi * math.sqrt(q)),
                2 * density,
                2 / math.pi / math.sqrt(q),
                2 / math.pi / math.sqrt(q),
                1 / math.pi / math.sqrt(q) / q,
            ],
            "gelu": [
                math.sqrt(q) / math.sqrt(2 * math.pi),
                q / 2,
                0.5,
                0.5,
                2.75 / (2 * math.pi * math.sqrt(2) * math.sqrt(q)),
                0.5,
            ],
        }
    tolerance = max(1e-13, 20 * q if q < 1 else 3 / math.sqrt(q))
    for name, found in [("tanh", tanh), ("sigmoid", sigmoid), ("erf", erf), ("gelu", gelu)]:
        np.testing.assert_allclose(rows(found)[:, 0], expected[name], rtol=tolerance, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_moments_at_zero_variance_are_the_values_at_zero(isa, dtype, name):
    activation = get(name)
    found = gaussian_moments(name, dtype.type(0))
    eps = float(np.finfo(dtype).eps)
    assert found.phi == dtype.type(activation.value(0.0))
    assert found.phi2 == pytest.approx(activation.value(0.0) ** 2, rel=eps)
    assert found.dphi == dtype.type(activation.slope(0.0))
    assert found.dphi2 == pytest.approx(activation.slope(0.0) ** 2, rel=eps)
    has_jump = name in ("relu", "leaky_relu", "prelu", "abs", "selu", "relu6")
    expected = math.inf if has_jump else activation.curvature(0.0) ** 2
    assert found.d2phi2 == pytest.approx(expected, rel=eps)
    assert found.phi2_slope == pytest.approx(oracle(name, 0.0)[5], rel=2 * eps)


def test_the_slope_at_a_kink_counts_at_zero_variance_only(isa):
    found = gaussian_moments(relu(slope_at_zero=0.5), [0.0, 1e-300, 1.0])
    np.testing.assert_array_equal(found.dphi, 0.5)
    np.testing.assert_array_equal(found.dphi2, [0.25, 0.5, 0.5])
    np.testing.assert_array_equal(found.d2phi2, math.inf)
    smooth = gaussian_moments(leaky_relu(1.0), [0.0, 2.0])
    np.testing.assert_array_equal(smooth.d2phi2, 0.0)
    np.testing.assert_array_equal(smooth.dphi2, 1.0)


@pytest.mark.parametrize("slope", [0.0, 0.01, -1.0, 3.0])
def test_moments_of_rectifiers_scale_exactly(isa, rng, slope):
    q = rng.lognormal(size=37)
    for scale in (4.0**-400, 4.0, 4.0**300):
        at = gaussian_moments(leaky_relu(slope), q)
        scaled = gaussian_moments(leaky_relu(slope), scale * q)
        np.testing.assert_array_equal(scaled.phi, math.sqrt(scale) * at.phi)
        np.testing.assert_array_equal(scaled.phi2, scale * at.phi2)
        np.testing.assert_array_equal(scaled.dphi2, at.dphi2)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "erf"])
def test_saturating_moments_are_monotone_in_q(isa, name):
    """phi^2 rises and phi' falls with q: their heat-equation derivatives have one sign."""
    q = np.geomspace(1e-6, 1e8, 4001)
    found = gaussian_moments(name, q)
    assert (np.diff(found.phi2) > -200 * U * found.phi2[1:]).all()
    assert (np.diff(found.dphi) < 200 * U * found.dphi[1:]).all()
    coarse = slice(None, None, 40)
    assert (np.diff(found.phi2[coarse]) > 0).all()
    assert (np.diff(found.dphi[coarse]) < 0).all()


@pytest.mark.parametrize(
    "name", ["identity", "relu", "leaky_relu", "tanh", "sigmoid", "erf", "gelu", "sin"]
)
def test_the_mean_grows_with_half_the_mean_curvature(isa, name):
    """The heat equation: d E phi / dq = E phi'' / 2, a kink counting as its jump."""
    q, h = 1.3, 1e-4
    low, high = gaussian_moments(name, [q - h, q + h]).phi
    density = 1 / math.sqrt(2 * math.pi * q)
    curvature = {
        "relu": density,
        "leaky_relu": 0.99 * density,
        "gelu": (2 + q) / (1 + q) ** 1.5 / math.sqrt(2 * math.pi),
    }.get(name, 0.0)
    assert (high - low) / (2 * h) == pytest.approx(curvature / 2, abs=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_the_slope_of_the_second_moment_is_its_derivative(isa, name):
    """By central differences, whose error is h^4 / 30 of the fifth derivative."""
    q, h = 1.3, 2.0**-7
    phi2 = gaussian_moments(name, q + h * np.array([-2, -1, 1, 2])).phi2
    slope = (phi2[0] - 8 * phi2[1] + 8 * phi2[2] - phi2[3]) / (12 * h)
    assert gaussian_moments(name, q).phi2_slope == pytest.approx(slope, rel=1e-7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_threads", [2, 3, 4])
def test_moments_do_not_depend_on_threads(isa, dtype, rng, name, n_threads):
    q = rng.lognormal(sigma=3, size=20_001).astype(dtype)
    one = rows(gaussian_moments(name, q, n_threads=1))
    np.testing.assert_array_equal(rows(gaussian_moments(name, q, n_threads=n_threads)), one)
    mapped = variance_map(name, q, sigma_w=1.25, sigma_b=0.5, n_threads=1)
    many = variance_map(name, q, sigma_w=1.25, sigma_b=0.5, n_threads=n_threads)
    np.testing.assert_array_equal(many, mapped)


@pytest.mark.parametrize("name", NAMES)
def test_an_item_does_not_depend_on_its_neighbours(isa, dtype, rng, name):
    q = rng.lognormal(sigma=3, size=67).astype(dtype)
    together = rows(gaussian_moments(name, q))
    for i in range(len(q)):
        np.testing.assert_array_equal(rows(gaussian_moments(name, q[i]))[:, 0], together[:, i])
    np.testing.assert_array_equal(rows(gaussian_moments(name, q[5:40])), together[:, 5:40])


@pytest.mark.parametrize("name", NAMES)
def test_variance_map_is_the_second_moment_of_gaussian_moments(isa, rng, name):
    q = rng.lognormal(sigma=3, size=1001)
    w, b = rng.random(1001) * 3, rng.random(1001)
    expected = w * gaussian_moments(name, q).phi2 * w + b * b
    np.testing.assert_array_equal(variance_map(name, q, sigma_w=w, sigma_b=b), expected)


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_is_double_precision_rounded(isa, rng, name):
    q = rng.lognormal(sigma=3, size=301).astype(np.float32)
    expected = rows(gaussian_moments(name, q.astype(np.float64))).astype(np.float32)
    np.testing.assert_array_equal(rows(gaussian_moments(name, q)), expected)


@pytest.mark.parametrize("name", NAMES)
def test_instruction_sets_agree_to_the_stated_error(name):
    q = np.geomspace(1e-8, 1e4, 200)
    before = _kernels.active_isa()
    try:
        found = []
        for isa in _kernels.available_isas():
            _kernels.select_isa(isa)
            found.append(rows(gaussian_moments(name, q)))
    finally:
        _kernels.select_isa(before)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=2 * STATED[name])


def test_shapes_strides_and_dtypes_are_kept(isa):
    q = np.arange(24.0).reshape(2, 3, 4)
    expected = gaussian_moments("tanh", q.ravel()).phi2.reshape(q.shape)
    np.testing.assert_array_equal(gaussian_moments("tanh", q).phi2, expected)
    np.testing.assert_array_equal(gaussian_moments("tanh", q.T).phi2, expected.T)
    np.testing.assert_array_equal(gaussian_moments("tanh", q[:, ::-2]).phi2, expected[:, ::-2])
    np.testing.assert_array_equal(gaussian_moments("tanh", q.astype(">f8")).phi2, expected)
    np.testing.assert_array_equal(gaussian_moments("tanh", q.astype(int)).phi2, expected)
    single = gaussian_moments("tanh", q.astype(np.float16)).phi2
    np.testing.assert_array_equal(single, expected.astype(np.float32))
    assert gaussian_moments("tanh", np.zeros((0, 3))).phi2.shape == (0, 3)
    assert type(gaussian_moments("tanh", 1.0).phi2) is np.float64
    assert type(gaussian_moments("tanh", np.float32(1)).phi2) is np.float32
    assert variance_map("tanh", np.zeros((0, 1)), sigma_w=[1.0, 2.0]).shape == (0, 2)
    assert type(variance_map("tanh", 1.0, sigma_w=1.0)) is np.float64
    assert variance_map("tanh", q.astype(np.float32), sigma_w=1.5).dtype == np.float32
    assert variance_map("tanh", q.astype(np.float32), sigma_w=np.float64(1.5)).dtype == np.float64


def test_the_input_is_not_written_to(isa):
    q = np.ones(9)
    q.flags.writeable = False
    gaussian_moments("tanh", q)
    variance_map("tanh", q, sigma_w=1.0)
    np.testing.assert_array_equal(q, 1.0)


# As q grows without bound.
UNBOUNDED = [math.inf, math.inf, 0.5, 0.5, 0, 0.5]
SELU2 = 1.0507009873554804934**2
LIMITS = {
    "identity": [0, math.inf, 1, 1, 0, 1],
    "relu": [math.inf, math.inf, 0.5, 0.5, math.inf, 0.5],
    "leaky_relu": [math.inf, math.inf, 0.505, 0.50005, math.inf, 0.50005],
    "prelu": [math.inf, math.inf, 0.625, 0.53125, math.inf, 0.53125],
    "abs": [math.inf, math.inf, 0, 1, math.inf, 1],
    "selu": [math.inf, math.inf, math.sqrt(SELU2) / 2, SELU2 / 2, math.inf, SELU2 / 2],
    "tanh": [0, 1, 0, 0, 0, 0],
    "softsign": [0, 1, 0, 0, 0, 0],
    "erf": [0, 1, 0, 0, 0, 0],
    "hard_tanh": [0, 1, 0, 0, math.inf, 0],
    "sigmoid": [0.5, 0.5, 0, 0, 0, 0],
    "hard_sigmoid": [0.5, 0.5, 0, 0, math.inf, 0],
    "relu6": [3, 18, 0, 0, math.inf, 0],
    "hard_swish": [math.inf, math.inf, 0.5, 0.5, math.inf, 0.5],
    "sin": [0, 0.5, 0, 0.5, 0.5, 0],
    "quadratic": [math.inf, math.inf, 0, math.inf, 4, math.inf],
}
LIMITS |= dict.fromkeys(NAMES - LIMITS.keys(), UNBOUNDED)


@pytest.mark.parametrize("name", NAMES)
def test_without_the_check_nan_and_infinity_propagate(isa, name):
    q = np.array([1.0, np.nan, np.inf, 2.0])
    found = rows(gaussian_moments(name, q, check_finite=False))
    np.testing.assert_array_equal(found[:, [0, 3]], rows(gaussian_moments(name, q[[0, 3]])))
    assert np.isnan(found[:, 1]).all()
    np.testing.assert_allclose(found[:, 2], LIMITS[name], rtol=4 * U)
    mapped = variance_map(name, q, sigma_w=1.0, check_finite=False)
    np.testing.assert_array_equal(mapped, found[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"q": -1.0}, r"q must be >= 0, got -1\.0$"),
        ({"q": [[1.0, -0.5]]}, r"q must be >= 0, got -0\.5 at index \(0, 1\)"),
        ({"q": [1, -2]}, r"q must be >= 0, got -2 at index \(1,\)"),
        ({"q": [1.0, math.nan]}, r"q must be finite, got nan at index \(1,\)"),
        ({"q": math.inf}, r"q must be finite, got inf"),
        ({"sigma_w": -1.0}, r"sigma_w must be >= 0, got -1\.0"),
        ({"sigma_b": [-0.25]}, r"sigma_b must be >= 0, got -0\.25 at index \(0,\)"),
        ({"sigma_w": math.nan}, r"sigma_w must be finite, got nan"),
        ({"q": np.ones(2), "sigma_w": np.ones(3)}, r"broadcast.*q \(2,\), sigma_w \(3,\)"),
        ({"activation": "swash"}, r"activation must be one of .*got 'swash'"),
        ({"n_threads": 0}, "n_threads must be at least 1"),
    ],
)
def test_wrong_values_are_named(arguments, message):
    arguments = {"activation": "tanh", "q": 1.0, "sigma_w": 1.0, **arguments}
    with pytest.raises(ValueError, match=message):
        variance_map(**arguments)
    del arguments["sigma_w"]
    if "sigma" not in message:
        with pytest.raises(ValueError, match=message):
            gaussian_moments(**arguments)


@pytest.mark.parametrize(
    ("q", "message"),
    [
        (1j, "q must have a real floating dtype"),
        ("one", "q must"),
        (None, "q must be an array, got None"),
        (np.ma.masked_array([1.0, 2.0], [0, 1]), "q must not be masked"),
    ],
)
def test_wrong_types_are_named(q, message):
    with pytest.raises(TypeError, match=message):
        gaussian_moments("tanh", q)
    with pytest.raises(TypeError, match=message):
        variance_map("tanh", q, sigma_w=1.0)


def test_negative_variance_is_rejected_without_the_finite_check_too():
    with pytest.raises(ValueError, match=r"q must be >= 0, got -1\.0 at index \(1,\)"):
        gaussian_moments("tanh", [math.nan, -1.0], check_finite=False)


@pytest.mark.parametrize("name", NAMES)
def test_user_activations_reach_the_accuracy_of_the_kernels(name):
    known = get(name)
    user = Activation(known.phi, known.dphi, known.d2phi, kinks=known.kinks, name="user")
    q = np.array([0.0, 1e-300, 1e-12, 1e-8, 0.1, 1.0, 30.0, 1e4, 1e8])
    if name == "sin":  # which has too many periods beyond
        q = q[:-2]
    found, expected = rows(gaussian_moments(user, q)), rows(gaussian_moments(known, q))
    size = np.abs(expected)
    size[0], size[2] = np.sqrt(expected[1]), np.sqrt(expected[3])
    size[5, 1:] = np.maximum(size[5, 1:], np.sqrt(expected[1] * expected[3])[1:] / np.sqrt(q[1:]))
    is_finite = np.isfinite(expected)
    np.testing.assert_array_equal(is_finite, np.isfinite(found))
    error = np.abs(found[is_finite] - expected[is_finite])
    assert (error <= 1e-11 * size[is_finite] + 1e-300).all()
    mapped = variance_map(user, q, sigma_w=1.5, sigma_b=0.5)
    np.testing.assert_allclose(mapped, variance_map(known, q, sigma_w=1.5, sigma_b=0.5), rtol=1e-11)


def test_kinks_away_from_zero_are_integrated_exactly():
    """Hard tanh: E phi^2 = P(|x| < 1) of the truncated square and 1 beyond, in closed form."""
    hard = Activation(
        lambda x: np.clip(x, -1, 1),
        lambda x: np.where(np.abs(x) < 1, 1.0, 0.0),
        lambda x: np.zeros_like(x),
        kinks=(-1.0, 1.0),
        name="hard_tanh",
    )
    q = np.array([0.0, 0.01, 0.3, 1.0, 50.0, 1e4])
    found = gaussian_moments(hard, q)
    with np.errstate(divide="ignore"):
        t = 1 / np.sqrt(q)
    inside = np.array([math.erf(v / math.sqrt(2)) for v in t])
    density = np.exp(-t * t / 2) / math.sqrt(2 * math.pi)
    expected = q * (inside - 2 * np.where(q > 0, t, 0) * density) + 1 - inside
    np.testing.assert_allclose(found.phi2, expected, rtol=1e-11)
    np.testing.assert_allclose(found.dphi2, inside, rtol=1e-11)
    np.testing.assert_array_equal(found.d2phi2, [0.0, *[math.inf] * 5])


def test_a_bare_callable_gets_its_slope_by_differences():
    q = np.array([0.0, 1e-6, 0.5, 10.0])
    found, expected = gaussian_moments(np.tanh, q), gaussian_moments("tanh", q)
    for field, accuracy in [("phi2", 1e-11), ("dphi", 1e-10), ("dphi2", 1e-10), ("d2phi2", 1e-8)]:
        np.testing.assert_allclose(
            getattr(found, field), getattr(expected, field), rtol=accuracy, atol=1e-18
        )


def test_user_activations_propagate_nan_and_have_the_limits_of_their_values():
    user = Activation(np.arctan, lambda x: 1 / (1 + x * x))
    found = gaussian_moments(user, [1.0, np.nan, np.inf], check_finite=False)
    assert np.isfinite(found.phi2[0])
    assert np.isnan(found.phi2[1])
    assert found.phi2[2] == np.arctan(np.inf) ** 2
    assert found.dphi[2] == 0
    wave = Activation(np.sin, np.cos)
    assert np.isnan(gaussian_moments(wave, np.inf, check_finite=False).phi2)
