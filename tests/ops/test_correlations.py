"""Two-point means and the correlation map against oracles, mpmath, published numbers, theorems."""

import math

import numpy as np
import pytest
from scipy import special

from jacometry import JacometryWarning, _kernels
from jacometry.activations import Activation, get
from jacometry.ops.correlations import correlation_map, decorrelation, dual_activation
from jacometry.ops.moments import gaussian_moments, variance_map
from jacometry.reference import correlations as reference

ROOT2 = math.sqrt(2.0)


def unknown(name):
    """A registered activation without what is known of it: it takes the general way."""
    activation = get(name)
    return Activation(activation.phi, activation.dphi, activation.d2phi, kinks=activation.kinks)


ACTIVATIONS = {
    **{name: get(name) for name in ("identity", "relu", "leaky_relu", "tanh", "sigmoid", "erf")},
    "gelu": get("gelu"),
    "elu": get("elu"),
    "hard_tanh": get("hard_tanh"),
}
ALL = pytest.mark.parametrize("name", ACTIVATIONS)
COMPLEMENTS = np.array([0, 1e-300, 1e-14, 1e-6, 0.01, 0.3, 0.5, 0.8, 1, 1.2, 1.5, 1.9, 2 - 1e-9, 2])


@pytest.mark.parametrize("n_items", [0, 1, 5, 300])
@pytest.mark.parametrize("which", [0, 1])
def test_the_table_agrees_with_the_oracle(isa, dtype, rng, n_items, which):
    n_octaves, low_octave, first_log2 = 6, -2, -1
    n_patches = n_octaves + sum(2 + max(0, low_octave + i - first_log2) for i in range(n_octaves))
    coefficients = np.zeros((n_patches, 4, 20, 24))
    coefficients[..., :20] = rng.standard_normal((n_patches, 4, 20, 20))
    patches = rng.permutation(n_patches).astype(np.int32)
    patches[patches % 6 == 0] = -1
    table = coefficients, patches, n_octaves, low_octave, first_log2
    q = 4.0 ** rng.uniform(low_octave, low_octave + n_octaves, n_items)
    near = rng.choice([-1, 1], n_items) * rng.choice([1, 1e-3, 1e-12], n_items)
    near *= rng.uniform(size=n_items)
    near[:1] = -0.0
    q, near = q.astype(dtype), near.astype(dtype)
    out = np.empty(n_items, dtype)
    is_lacking = _kernels.two_point_table(int(dtype == np.float64), *table, q, near, which, out, 1)
    expected = [
        reference.two_point_table(*table, float(a), float(b), which)
        for a, b in zip(q, near, strict=True)
    ]
    assert is_lacking == (None in expected)
    # A place in a patch is good to 4 u, which a term of degree n multiplies by n**2.
    u = 2.0**-53
    size = np.abs(coefficients).sum(axis=(2, 3)).max()
    tolerance = (4 * u * 2 * 20**2 + (2.0**-24 if dtype == np.float32 else 0)) * size
    for value, other in zip(out, expected, strict=True):
        assert np.isnan(value) if other is None else abs(value - other) <= tolerance


MATH = {
    "hard_tanh": (
        lambda x: min(1.0, max(-1.0, x)),
        lambda x: float(-1 < x < 1),
        (-1.0, 1.0),
    ),
}


@pytest.mark.parametrize("name", MATH)
def test_the_means_agree_with_adaptive_quadrature(name):
    phi, dphi, kinks = MATH[name]
    expected = reference.two_point_mean(dphi, kinks, 1.0, 2.0, 0.3)
    found = dual_activation(name, 0.3, 1.0, 2.0, derivative=1, complement=True)
    assert found == pytest.approx(expected, rel=1e-9)
    expected = reference.decorrelation(phi, dphi, kinks, 0.3, 1.0)
    assert decorrelation(name, 0.3, 1.0) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("name", "step"), [("tanh", 0.09), ("sigmoid", 0.15), ("gelu", 0.2)])
@pytest.mark.parametrize("q", [0.3, 1.0, 4.0])
def test_smooth_means_agree_with_the_trapezoidal_rule_in_the_plane(name, step, q):
    """``u1, u2 = sqrt(q) (cos(x/2) a +- sin(x/2) b)``, x the angle; the rule errs by 1e-14."""
    activation = get(name)
    a = np.arange(-round(9 / step), round(9 / step) + 1) * step
    weights = np.exp(-a * a / 2) * step / math.sqrt(2 * math.pi)
    weights = weights[:, None] * weights
    for e in (1e-3, 0.2, 0.7, 1.0, 1.4, 1.9):
        cosine, sine = math.sqrt(1 - e / 2), math.sqrt(e / 2)
        u1, u2 = (math.sqrt(q) * (cosine * a[:, None] + sign * sine * a) for sign in (1, -1))
        slopes = np.sum(weights * activation.slope(u1) * activation.slope(u2))
        found = dual_activation(name, e, q, derivative=1, complement=True)
        assert found == pytest.approx(slopes, rel=1e-12)
        distance = np.sum(weights * (activation.value(u1) - activation.value(u2)) ** 2)
        assert decorrelation(name, e, q) == pytest.approx(distance / (2 * e), rel=1e-12)


CLOSED = ("identity", "relu", "leaky_relu", "erf", "gelu", "sin", "quadratic")


@pytest.mark.parametrize(
    ("name", "q"),
    # Many periods of a sine in a patch: of these its users are told.
    [(n, q) for n in CLOSED for q in (1e-12, 0.3, 1.0, 40.0, 1e4) if n != "sin" or q <= 1],
)
def test_the_general_way_agrees_with_closed_forms(name, q):
    general, known = unknown(name), get(name)
    for derivative in (0, 1):
        options = {"derivative": derivative, "complement": True}
        found = dual_activation(general, COMPLEMENTS, q, **options)
        expected = dual_activation(known, COMPLEMENTS, q, **options)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * expected[0])
    found, expected = decorrelation(general, COMPLEMENTS, q), decorrelation(known, COMPLEMENTS, q)
    np.testing.assert_allclose(found[:-3], expected[:-3], rtol=1e-12)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * expected[0])


@pytest.mark.parametrize("name", [name for name in CLOSED if name != "sin"])
@pytest.mark.parametrize("derivative", [0, 1])
def test_unequal_variances_agree_with_closed_forms(name, derivative):
    q1, q2 = np.array([0.3, 1e-6, 50.0]), np.array([2.0, 0.4, 1e4])
    for complement in (0.0, 1e-9, 0.4, 1.0, 1.6, 2.0):
        options = {"derivative": derivative, "complement": True}
        found = dual_activation(unknown(name), complement, q1, q2, **options)
        expected = dual_activation(name, complement, q1, q2, **options)
        size = np.sqrt(
            dual_activation(name, 1.0, q1, derivative=derivative)
            * dual_activation(name, 1.0, q2, derivative=derivative)
        )
        np.testing.assert_array_less(np.abs(found - expected), 1e-12 * size)


def test_sines_have_closed_forms_at_any_scale():
    q1, q2, c = np.array([0.3, 2.0, 1e4, 1e160]), np.array([1.7, 2.0, 1.01e4, 1e160]), 1 - 1e-3
    apart = (np.sqrt(q1) - np.sqrt(q2)) ** 2 + 2e-3 * np.sqrt(q1) * np.sqrt(q2)  # Var(u1 - u2)
    together = (np.sqrt(q1) + np.sqrt(q2)) ** 2 - 2e-3 * np.sqrt(q1) * np.sqrt(q2)
    one, two = np.exp(-apart / 2) / 2, np.exp(-together / 2) / 2
    for derivative, expected in enumerate((one - two, one + two, one - two)):
        found = dual_activation("sin", c, q1, q2, derivative=derivative)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        opposite = dual_activation("sin", -c, q1, q2, derivative=derivative)
        np.testing.assert_array_equal(opposite, found if derivative == 1 else -found)
    # Two sines far out are independent unless their inputs are nearly the same.
    np.testing.assert_allclose(decorrelation("sin", [1e-300, 0.3, 2.0], 1e8), [5e7, 5 / 3, 0.5])


def test_closed_forms_do_not_overflow():
    """Far out erf is the sign function, and GELU is ReLU."""
    c = np.array([-0.9, 0.3, 1.0])
    found = dual_activation("erf", c, 1e160, 1e150)
    np.testing.assert_allclose(found, 2 / math.pi * np.arcsin(c), rtol=1e-14)
    found = dual_activation("gelu", c, 1e160, 1e150)
    expected = 1e155 * dual_activation("relu", c, 1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_relu_and_erf_kernels_are_the_published_numbers():
    angle = math.pi / 3
    # Cho and Saul: E relu'(u1) relu'(u2) = J0 / (2 pi), E relu(u1) relu(u2) = J1 / (2 pi).
    slopes = dual_activation("relu", math.cos(angle), 1.0, derivative=1)
    assert slopes == pytest.approx(2.0943951023931957 / (2 * math.pi), rel=1e-14)
    values = dual_activation("relu", math.cos(angle), 1.0)
    assert values == pytest.approx(1.9132229549810367 / (2 * math.pi), rel=1e-14)
    mapped = correlation_map("relu", [0.0, 0.5, 0.9], 3.0, sigma_w=ROOT2)
    expected = [0.3183098861837907, 0.6089977810442293, 0.9095383988446721]
    np.testing.assert_allclose(mapped, expected, rtol=1e-14)
    # Williams: E erf erf = 2 / pi asin(2 cov / sqrt((1 + 2 q1) (1 + 2 q2))).
    q1, q2, c = 0.7, 2.5, 0.6
    inside = 2 * c * math.sqrt(q1 * q2) / math.sqrt((1 + 2 * q1) * (1 + 2 * q2))
    expected = 2 / math.pi * math.asin(inside)
    assert dual_activation("erf", c, q1, q2) == pytest.approx(expected, rel=1e-14)


def test_the_squared_rectifier_is_the_third_arc_cosine_kernel():
    squared = Activation(
        lambda x: np.maximum(x, 0) ** 2, lambda x: 2 * np.maximum(x, 0), kinks=(0.0,)
    )
    found = dual_activation(squared, 0.5, 1.0)
    assert found == pytest.approx(4.440630759266452 / (2 * math.pi), rel=1e-12)


def test_critical_relu_converges_as_the_inverse_square_of_depth():
    e, at = np.array(1.0), {}
    for depth in range(1, 1001):
        e = correlation_map("relu", e, 1.0, sigma_w=ROOT2, complement=True)
        at[depth] = float(e) / (9 * math.pi**2 / (2 * depth**2))
    assert at[100] == pytest.approx(0.805, abs=5e-4)
    assert at[1000] == pytest.approx(0.971, abs=5e-4)


@ALL
def test_perfect_correlation_gives_the_second_moments(name):
    activation = ACTIVATIONS[name]
    q = np.array([1e-12, 0.2, 1.0, 30.0, 1e4])
    moments = gaussian_moments(activation, q)
    np.testing.assert_allclose(dual_activation(activation, 1.0, q), moments.phi2, rtol=1e-13)
    slopes = dual_activation(activation, 1.0, q, derivative=1)
    np.testing.assert_allclose(slopes, moments.dphi2, rtol=1e-12)
    np.testing.assert_allclose(decorrelation(activation, 0.0, q), q * moments.dphi2, rtol=1e-12)
    if np.isfinite(moments.d2phi2).all():
        curvatures = dual_activation(activation, 1.0, q, derivative=2)
        np.testing.assert_allclose(curvatures, moments.d2phi2, rtol=1e-11)


@ALL
def test_no_correlation_gives_the_product_of_the_means(name):
    activation = ACTIVATIONS[name]
    q1, q2 = np.array([1.0, 0.3, 7.0]), np.array([1.0, 4.0, 0.01])
    one, two = gaussian_moments(activation, q1), gaussian_moments(activation, q2)
    size = np.sqrt(one.phi2 * two.phi2)
    found = dual_activation(activation, 0.0, q1, q2)
    np.testing.assert_array_less(np.abs(found - one.phi * two.phi), 1e-12 * size)
    found = dual_activation(activation, 0.0, q1, q2, derivative=1)
    np.testing.assert_allclose(found, one.dphi * two.dphi, rtol=1e-12)


@ALL
def test_the_two_inputs_are_alike(name):
    activation = ACTIVATIONS[name]
    c, q1, q2 = np.array([-0.7, 0.2, 0.9]), np.array([0.5, 1.0, 3.0]), np.array([2.0, 1.0, 0.1])
    for derivative in (0, 1):
        found = dual_activation(activation, c, q1, q2, derivative=derivative)
        swapped = dual_activation(activation, c, q2, q1, derivative=derivative)
        np.testing.assert_allclose(found, swapped, rtol=1e-12, atol=1e-13)


@ALL
def test_the_equal_variance_way_meets_the_general_one(name):
    activation = ACTIVATIONS[name]
    q = 1.7
    for c in (-1.0, -0.8, -0.1, 0.3, 0.6, 0.99, 1.0):
        # A relative change of 1e-15 of one variance changes the mean by as much.
        found = [dual_activation(activation, c, q, other) for other in (q, q * (1 + 4e-16))]
        assert found[1] == pytest.approx(found[0], rel=1e-12, abs=1e-13)


@ALL
def test_the_means_are_monotone_in_a_positive_correlation(name):
    c = np.linspace(0, 1, 401)
    for q in (0.1, 1.0, 12.0):
        for derivative in (0, 1):
            means = dual_activation(ACTIVATIONS[name], c, q, derivative=derivative)
            assert (np.diff(means) >= -1e-13 * means[-1]).all()
        spread = decorrelation(ACTIVATIONS[name], c, q)
        assert (np.diff(spread) <= 1e-13 * spread[0]).all()


@ALL
def test_the_slope_of_the_mean_is_the_mean_of_slopes(name):
    """Price's theorem."""
    c, h, q1, q2 = 0.4, 1e-4, 0.8, 1.9
    low, high = dual_activation(ACTIVATIONS[name], [c - h, c + h], q1, q2)
    slope = math.sqrt(q1 * q2) * dual_activation(ACTIVATIONS[name], c, q1, q2, derivative=1)
    assert (high - low) / (2 * h) == pytest.approx(slope, rel=1e-7)
    low, high = dual_activation(ACTIVATIONS[name], [c - h, c + h], q1, q2, derivative=1)
    curvature = dual_activation(ACTIVATIONS[name], c, q1, q2, derivative=2)
    assert (high - low) / (2 * h) == pytest.approx(
        math.sqrt(q1 * q2) * curvature, rel=1e-6, abs=1e-9
    )


@ALL
@pytest.mark.parametrize("q", [1e-12, 0.5, 20.0, 1e4])
def test_decorrelation_near_one_is_linear_in_the_complement(name, q):
    """To leading order, with a relative correction of the order of the root of e q."""
    at_one = decorrelation(ACTIVATIONS[name], 0.0, q)
    e = np.array([1e-300, 1e-100, 1e-30])
    np.testing.assert_allclose(decorrelation(ACTIVATIONS[name], e, q), at_one, rtol=2e-13)
    mapped = correlation_map(ACTIVATIONS[name], e, q, sigma_w=1.3, sigma_b=0.2, complement=True)
    v = variance_map(ACTIVATIONS[name], q, sigma_w=1.3, sigma_b=0.2)
    np.testing.assert_allclose(mapped, 1.69 * at_one / v * e, rtol=1e-12)


@ALL
def test_the_map_and_its_complement_are_the_same_map(name):
    c = np.linspace(-1, 1, 41)
    for q2 in (1.4, 3.0):
        mapped = correlation_map(ACTIVATIONS[name], c, 1.4, q2, sigma_w=1.5, sigma_b=0.3)
        other = correlation_map(
            ACTIVATIONS[name], 1 - c, 1.4, q2, sigma_w=1.5, sigma_b=0.3, complement=True
        )
        np.testing.assert_allclose(1 - other, mapped, rtol=0, atol=1e-12)


def test_shapes_and_dtypes_are_those_of_the_arguments():
    single = np.float32
    assert type(correlation_map("tanh", 0.5, 1.0, sigma_w=1.0)) is np.float64
    assert type(correlation_map("tanh", single(0.5), 1.0, sigma_w=1.0)) is np.float32
    assert type(dual_activation("tanh", single(0.5), single(1), single(2))) is np.float32
    assert type(dual_activation("tanh", single(0.5), np.float64(1))) is np.float64
    assert decorrelation("tanh", np.zeros((2, 1), single), np.ones(3, single)).dtype == np.float32
    assert decorrelation("tanh", np.zeros((2, 1)), np.ones(3)).shape == (2, 3)
    assert correlation_map("tanh", np.zeros((0, 3)), 1.0, sigma_w=1.0).shape == (0, 3)
    assert correlation_map("tanh", 0, 1, sigma_w=[1, 2]).shape == (2,)
    q = np.array([0.5, 2.0], single)
    wide = decorrelation("tanh", 0.25, q.astype(float))
    np.testing.assert_array_equal(decorrelation("tanh", single(0.25), q), wide.astype(single))


@pytest.mark.parametrize("n_threads", [2, 3])
def test_the_means_do_not_depend_on_threads(isa, rng, n_threads):
    e, q = rng.uniform(0, 2, 20_001), rng.lognormal(size=20_001)
    one = decorrelation("tanh", e, q, n_threads=1)
    np.testing.assert_array_equal(decorrelation("tanh", e, q, n_threads=n_threads), one)


def test_an_item_does_not_depend_on_its_neighbours(isa, rng):
    c, q = rng.uniform(-1, 1, 60), rng.lognormal(sigma=2, size=60)
    for name in ("tanh", "elu"):
        together = dual_activation(ACTIVATIONS[name], c, q, derivative=1)
        alone = [
            dual_activation(ACTIVATIONS[name], *item, derivative=1)
            for item in zip(c, q, strict=True)
        ]
        np.testing.assert_array_equal(together, alone)


def test_variances_may_be_zero_or_huge():
    assert dual_activation("sigmoid", 0.3, 0.0) == 0.25
    assert dual_activation("sigmoid", 0.3, 0.0, derivative=1) == 0.0625
    half = dual_activation("sigmoid", 0.3, 0.0, 5.0)
    assert half == pytest.approx(0.25, rel=1e-13)
    assert decorrelation("tanh", 0.3, 0.0) == 0.0
    assert correlation_map("tanh", 0.3, 0.0, sigma_w=2.0) == 1.0
    assert correlation_map("tanh", 0.3, 0.0, sigma_w=2.0, sigma_b=0.1) == 1.0
    # A saturated tanh is the sign function: 2 / pi asin(c).
    limit = 2 / math.pi * math.asin(0.3)
    for q in (1e30, 1e60):
        assert dual_activation("tanh", 0.3, q) == pytest.approx(limit, rel=1e-12)
    tiny = decorrelation("tanh", 1e-5, np.array([1e-200, 1e-100]))
    np.testing.assert_allclose(tiny, [1e-200, 1e-100], rtol=1e-12)


def test_a_callable_needs_no_derivative():
    found = dual_activation(np.tanh, [0.3, -0.9], 1.5)
    np.testing.assert_allclose(found, dual_activation("tanh", [0.3, -0.9], 1.5), rtol=1e-9)


def test_faster_activations_are_resolved():
    fast = Activation(
        lambda x: special.erf(8 * x), lambda x: 16 / math.sqrt(math.pi) * np.exp(-64 * x * x)
    )
    e, q = np.array([1e-6, 1e-3, 0.1, 0.7, 1.5]), np.array([[1e-3], [1.0]])
    expected = decorrelation("erf", e, 64 * q)
    np.testing.assert_allclose(decorrelation(fast, e, q), expected, rtol=1e-11)


def test_an_undeclared_kink_is_reported():
    kinked = Activation(lambda x: np.clip(x, -1, 1), lambda x: (np.abs(x) < 1) * 1.0, name="clip")
    with pytest.warns(JacometryWarning, match="'clip' settled to .* declare its kinks"):
        dual_activation(kinked, 0.9, 1.0, derivative=1)


@pytest.mark.parametrize("function", [dual_activation, correlation_map])
def test_wrong_arguments_are_named(function):
    options = {} if function is dual_activation else {"sigma_w": 1.0}
    with pytest.raises(ValueError, match=r"c must lie in \[-1, 1\], got 1.01 at index \(1,\)"):
        function("tanh", [0.0, 1.01], 1.0, **options)
    with pytest.raises(ValueError, match=r"c must lie in \[0, 2\], got -0.1"):
        function("tanh", -0.1, 1.0, complement=True, **options)
    with pytest.raises(ValueError, match="q1 must be >= 0, got -1"):
        function("tanh", 0.1, -1.0, **options)
    with pytest.raises(ValueError, match="q2 must be >= 0, got -2"):
        function("tanh", 0.1, 1.0, -2.0, **options)
    with pytest.raises(ValueError, match="c must be finite, got nan"):
        function("tanh", math.nan, 1.0, **options)
    with pytest.raises(ValueError, match="q1 must be finite, got inf"):
        function("tanh", 0.0, math.inf, **options)
    with pytest.raises(ValueError, match="must broadcast together"):
        function("tanh", [0.0, 0.1], [1.0, 1.0, 1.0], **options)
    with pytest.raises(TypeError, match="c must"):
        function("tanh", 0.5j, 1.0, **options)
    with pytest.raises(ValueError, match="activation must be one of"):
        function("tahn", 0.5, 1.0, **options)


def test_other_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"complement must lie in \[0, 2\], got 2.5"):
        decorrelation("tanh", 2.5, 1.0)
    with pytest.raises(ValueError, match="q must be >= 0"):
        decorrelation("tanh", 0.5, -1.0)
    with pytest.raises(ValueError, match="sigma_w must be >= 0"):
        correlation_map("tanh", 0.5, 1.0, sigma_w=-1.0)
    with pytest.raises(ValueError, match="sigma_b must be >= 0"):
        correlation_map("tanh", 0.5, 1.0, sigma_w=1.0, sigma_b=-1.0)
    for derivative in (3, True, "one"):
        with pytest.raises(ValueError, match="derivative must be 0, 1 or 2"):
            dual_activation("tanh", 0.5, 1.0, derivative=derivative)
    bad = Activation(lambda x: np.full_like(x, np.nan), lambda x: np.full_like(x, np.nan), name="b")
    with pytest.raises(ValueError, match="dphi of activation 'b' must be finite"):
        dual_activation(bad, 0.5, 1.0, derivative=1)


def test_rounding_beyond_the_ends_is_forgiven():
    assert dual_activation("relu", 1 + 2**-52, 1.0) == 0.5
    assert dual_activation("relu", np.float32(1 + 2**-23), 1.0) == np.float32(0.5)
    assert decorrelation("relu", 2 + 2**-51, 1.0) == decorrelation("relu", 2.0, 1.0)


@ALL
def test_without_the_check_nan_propagates(name):
    c, q = np.array([np.nan, 0.5, 0.5, 0.5]), np.array([1.0, np.nan, np.inf, 1.0])
    for function in (dual_activation, correlation_map):
        options = {} if function is dual_activation else {"sigma_w": 1.0}
        for q2 in (None, 2.0):
            found = function(ACTIVATIONS[name], c, q, q2, check_finite=False, **options)
            np.testing.assert_array_equal(np.isnan(found), [True, True, True, False])
