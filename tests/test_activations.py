"""Activation descriptions: values and slopes against mpmath, the lookup, and its rejections."""

import math
import pickle

import mpmath
import numpy as np
import pytest

from jacometry import activations
from jacometry.activations import Activation, get

NAMES = ["identity", "relu", "leaky_relu", "tanh", "sigmoid", "erf", "gelu"]
MPMATH = {
    "identity": lambda x: x,
    "relu": lambda x: max(x, mpmath.mpf(0)),
    "leaky_relu": lambda x: x if x > 0 else mpmath.mpf(0.01) * x,
    "tanh": mpmath.tanh,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "erf": mpmath.erf,
    "gelu": lambda x: x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2,
}
POINTS = [-30.0, -8.0, -3.5, -1.0, -0.7517915, -0.5, -1e-3, 1e-8, 0.25, 1.0, 2.0, 6.0, 30.0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_value_slope_and_curvature_agree_with_mpmath(name, order):
    activation = get(name)
    function = (activation.value, activation.slope, activation.curvature)[order]
    with mpmath.workdps(50):
        for x in POINTS:
            expected = float(mpmath.diff(MPMATH[name], mpmath.mpf(x), order))
            # Where terms of the order of 1 cancel (GELU's slope) the error is that of the terms;
            # exp(-x^2 / 2) amplifies the rounding of its argument by x^2.
            tolerance = 8 * np.spacing(1.0) * (1 + min(x * x, 40) * (abs(x) < 7))
            relative = 1e-12 if abs(x) > 7 else tolerance
            assert function(x) == pytest.approx(expected, rel=relative, abs=tolerance / 4)


@pytest.mark.parametrize("name", NAMES)
def test_activations_behave_as_ufuncs(name):
    activation = get(name)
    for function in (activation.value, activation.slope, activation.curvature):
        assert type(function(1.0)) is np.float64
        assert type(function(np.float32(1))) is np.float32
        assert function(np.ones(3, np.float16)).dtype == np.float32
        assert function([1, 2]).dtype == np.float64
        assert function(np.ones((2, 0, 3), np.float32)).shape == (2, 0, 3)
        assert function(np.arange(12.0).reshape(3, 4).T[::2]).shape == (2, 3)
    x = np.array([1.0, -2.0])
    activation.value(x)[...] = 7
    np.testing.assert_array_equal(x, [1.0, -2.0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_and_infinite_inputs_raise_no_floating_point_flag(name, dtype):
    activation = get(name)
    largest = np.finfo(dtype).max / 2
    x = np.array([-np.inf, -largest, -400.0, 0.0, 400.0, largest, np.inf], dtype)
    with np.errstate(over="raise", divide="raise"), np.errstate(invalid="ignore"):
        value, slope, curvature = activation.value(x), activation.slope(x), activation.curvature(x)
    assert not np.isnan(slope).any()
    assert not np.isnan(curvature).any()
    assert not np.isnan(value).any()
    low, high = activation.slope_range
    assert (slope >= low - 1e-6).all()
    assert (slope <= high + 1e-6).all()
    assert np.isnan(activation.value(np.array([np.nan], dtype))).all()


@pytest.mark.parametrize("name", NAMES)
def test_declared_slope_range_is_the_one_a_search_finds(name):
    activation = get(name)
    searched = Activation(activation.phi, activation.dphi, kinks=activation.kinks)
    assert searched.slope_range == pytest.approx(activation.slope_range, abs=1e-9)
    assert activation.lipschitz == max(map(abs, activation.slope_range))
    assert searched.lipschitz == pytest.approx(activation.lipschitz, abs=1e-9)


def test_unbounded_slopes_have_an_infinite_range():
    assert Activation(np.square, lambda x: 2 * x).slope_range == (-math.inf, math.inf)
    assert Activation(np.square, lambda x: 2 * x, lipschitz=3.0).lipschitz == 3.0


def test_parameters_choose_the_slopes():
    np.testing.assert_array_equal(
        activations.relu(slope_at_zero=0.5).slope([-1, 0, 1]), [0, 0.5, 1]
    )
    leaky = activations.leaky_relu(0.25)
    np.testing.assert_array_equal(leaky.slope([-1, 0, 1]), [0.25, 0.25, 1])
    np.testing.assert_array_equal(leaky.value([-2, 0, 2]), [-0.5, 0, 2])
    assert leaky.slope_range == (0.25, 1)
    assert activations.leaky_relu(-1.0).slope_range == (-1, 1)
    assert activations.leaky_relu(1.0).kinks == ()
    assert get("leaky_relu").parameters == (0.01, 0.01)


def test_get_takes_names_activations_factories_and_callables():
    assert get("tanh") is get("tanh")
    assert get("relu") is activations.relu()
    assert get("logistic") is get("sigmoid")
    activation = activations.gelu()
    assert get(activation) is activation
    assert get(activations.relu).name == "relu"
    assert get(np.arctan).name == "arctan"
    assert get(np.arctan).kernel_id is None
    assert set(NAMES) < set(activations.names())


@pytest.mark.parametrize("name", ["identity", "tanh", "sigmoid", "erf", "gelu"])
def test_slope_of_a_callable_is_right_to_its_stated_error(name):
    known = get(name)
    found = get(lambda x: known.value(x))
    x = np.linspace(-6.0, 6.0, 241)
    # h^4 |f^(5)| / 30 with h <= sqrt(6) / 1024 and |f^(5)| <= 64 (erf), and rounding.
    error = (6**0.5 / 1024) ** 4 * 64 / 30 + 3e-13 * np.maximum(1, abs(known.value(x)))
    assert (abs(found.slope(x) - known.slope(x)) <= error).all()
    np.testing.assert_allclose(found.curvature(x), known.curvature(x), atol=3e-9)


def test_activations_survive_pickling():
    for name in NAMES:
        copy = pickle.loads(pickle.dumps(get(name)))
        assert (copy.name, copy.kernel_id, copy.kinks) == (
            name,
            get(name).kernel_id,
            get(name).kinks,
        )
        assert copy.value(1.5) == get(name).value(1.5)


def test_activations_cannot_be_changed():
    with pytest.raises(AttributeError, match="immutable"):
        get("tanh").name = "other"


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"activation must be one of 'identity', 'relu'.*'swish'"):
        get("swish")


@pytest.mark.parametrize("wrong", [3, None, np.ndarray, ["tanh"]])
def test_what_is_no_activation_is_rejected(wrong):
    with pytest.raises(TypeError, match="activation must be a name, an Activation or a vectorised"):
        get(wrong)


def test_a_callable_of_the_wrong_shape_is_rejected():
    with pytest.raises(ValueError, match=r"phi of activation .* its input, \(3,\), got \(\)"):
        get(lambda x: 0.0).value(np.ones(3))


def test_a_scalar_callable_is_rejected():
    with pytest.raises(TypeError, match="phi of activation 'tanh' must be a vectorised callable"):
        get(math.tanh).value(np.ones(3))


def test_a_complex_callable_is_rejected():
    with pytest.raises(TypeError, match="must return real numbers, got dtype complex128"):
        get(lambda x: x + 1j).value(np.ones(3))


@pytest.mark.parametrize("x", [1j, np.longdouble(1), "a", None])
def test_inputs_that_are_not_real_are_rejected(x):
    with pytest.raises(TypeError, match="x must hold real numbers"):
        get("tanh").value(x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: activations.relu(slope_at_zero=2.0),
            r"slope_at_zero must lie in \[0, 1\], got 2.0",
        ),
        (lambda: activations.leaky_relu(math.nan), "negative_slope must be finite, got nan"),
        (
            lambda: Activation(np.tanh, np.cos, kinks=[math.inf]),
            "kinks must be a sequence of finite",
        ),
        (lambda: Activation(np.tanh, np.cos, lipschitz=-1.0), "lipschitz must be >= 0, got -1.0"),
    ],
)
def test_wrong_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_functions_must_be_callable():
    with pytest.raises(TypeError, match="dphi must be a vectorised callable, got float"):
        Activation(np.tanh, 1.0)
