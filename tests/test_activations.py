"""Activation descriptions: they behave as ufuncs; the lookup, and its rejections."""

import copy
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest

from jacometry import activations
from jacometry.activations import Activation, get

NAMES = list(dict.fromkeys(get(name).name for name in activations.names()))


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
def test_huge_and_infinite_inputs_raise_no_floating_point_flag(dtype, name):
    activation = get(name)
    largest, least = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    x = np.array([400.0, 30.0, 1.0, least, 0.0], dtype)
    x = np.concatenate([[np.inf, largest], x]).astype(dtype)
    x = np.concatenate([-x, x[::-1]])
    with np.errstate(all="raise"):
        value, slope, curvature = activation.value(x), activation.slope(x), activation.curvature(x)
        at_nan = activation.value(np.array([np.nan], dtype))
        activation.slope(np.array([np.nan], dtype))
    if name == "sin":  # it has no limit
        value, slope, curvature = value[1:-1], slope[1:-1], curvature[1:-1]
    assert not np.isnan(slope).any()
    assert not np.isnan(curvature).any()
    assert not np.isnan(value).any()
    low, high = activation.slope_range
    eps = np.finfo(dtype).eps
    assert (slope >= low - eps * abs(low)).all()
    assert (slope <= high + eps * abs(high)).all()
    assert np.isnan(at_nan).all()


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_does_not_depend_on_the_others(dtype, name, rng):
    """Nor on strides: 9001 entries are more than two blocks."""
    activation = get(name)
    x = (4 * rng.standard_normal(9001)).astype(dtype)
    x[::1000] *= 200  # some underflow
    for function in (activation.value, activation.slope, activation.curvature):
        together = function(x)
        np.testing.assert_array_equal(function(x[::-1])[::-1], together)
        np.testing.assert_array_equal(function(x.reshape(1, -1)[:, 3::7])[0], together[3::7])
        np.testing.assert_array_equal([function(v) for v in x[::500]], together[::500])


# What each tends to at -infinity and at +infinity.
LIMITS = dict.fromkeys(NAMES, (0.0, np.inf)) | {
    "identity": (-np.inf, np.inf),
    "leaky_relu": (-np.inf, np.inf),
    "prelu": (-np.inf, np.inf),
    "elu": (-1.0, np.inf),
    "celu": (-1.0, np.inf),
    "selu": (-1.7580993408473768, np.inf),
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "relu6": (0.0, 6.0),
    "abs": (np.inf, np.inf),
    "quadratic": (np.inf, np.inf),
    "sin": (np.nan, np.nan),
    **dict.fromkeys(("tanh", "hard_tanh", "softsign", "erf"), (-1.0, 1.0)),
}


@pytest.mark.parametrize("name", NAMES)
def test_values_at_infinity_are_the_limits(dtype, name):
    found = get(name).value(np.array([-np.inf, np.inf], dtype))
    np.testing.assert_array_equal(found, np.array(LIMITS[name], dtype))


@pytest.mark.parametrize("name", NAMES)
def test_slopes_that_depend_on_the_input_are_nan_for_nan(dtype, name):
    slope = get(name).slope(np.array([np.nan, 1.0], dtype))
    assert np.isnan(slope[0]) == (name != "identity")
    assert not np.isnan(slope[1])


@pytest.mark.parametrize("name", NAMES)
def test_declared_slope_range_is_the_one_a_search_finds(name):
    activation = get(name)
    searched = Activation(activation.phi, activation.dphi, kinks=activation.kinks)
    assert searched.slope_range == pytest.approx(activation.slope_range, abs=1e-9)
    assert activation.lipschitz == max(map(abs, activation.slope_range))
    assert searched.lipschitz == pytest.approx(activation.lipschitz, abs=1e-9)


def test_the_search_on_a_bare_callable_raises_no_warning():
    with np.errstate(all="raise", under="ignore"):
        low, high = get(np.arctan).slope_range
    assert low == pytest.approx(0, abs=1e-12)
    assert high == pytest.approx(1, abs=1e-12)


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
    assert activations.elu(0.5).slope_range == (0.0, 1.0)
    assert activations.elu(2.0).slope_range == (0.0, 2.0)
    assert activations.elu(2) is activations.elu(2.0)
    assert activations.softplus(0.25).value(0.0) == 4 * math.log(2)


JUMPS = dict.fromkeys(NAMES, ()) | {
    **dict.fromkeys(("relu", "leaky_relu", "prelu", "abs", "selu"), (0.0,)),
    "hard_tanh": (-1.0, 1.0),
    "hard_sigmoid": (-3.0, 3.0),
    "hard_swish": (-3.0, 3.0),
    "relu6": (0.0, 6.0),
}


@pytest.mark.parametrize("name", NAMES)
def test_jumps_are_the_kinks_where_the_slope_is_not_continuous(name):
    activation = get(name)
    assert activation.jumps == JUMPS[name]
    more = {"elu": (0.0,), "celu": (0.0,), "softsign": (0.0,)}  # their curvature jumps
    assert activation.kinks == more.get(name, JUMPS[name])


def test_elu_is_kinked_unless_alpha_is_1():
    assert activations.elu(0.5).jumps == (0.0,)
    assert activations.celu(0.5).jumps == ()


def test_get_takes_names_activations_factories_and_callables():
    assert get("tanh") is get("tanh")
    assert get("relu") is activations.relu()
    assert get("logistic") is get("sigmoid")
    assert get("swish") is get("silu")
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


@pytest.mark.parametrize("name", NAMES)
def test_pickles_of_built_in_activations_are_the_shared_object(name):
    assert pickle.loads(pickle.dumps(get(name))) is get(name)
    assert copy.deepcopy(get(name)) is get(name)


def test_pickles_of_a_users_activation_keep_everything():
    given = Activation(np.arctan, np.cos, np.sin, kinks=[0.5], lipschitz=2.0, name="mine")
    found = pickle.loads(pickle.dumps(given))
    assert found is not given
    for attribute in ("phi", "dphi", "d2phi", "kinks", "lipschitz", "name", "kernel_id"):
        assert getattr(found, attribute) == getattr(given, attribute)


def test_a_pickle_read_first_is_the_object_that_the_factory_then_gives():
    code = (
        "import pickle, sys; found = pickle.loads(bytes.fromhex(sys.argv[1])); "
        "from jacometry import activations; print(found is activations.elu(0.37))"
    )
    pickled = pickle.dumps(activations.elu(0.37)).hex()
    found = subprocess.run([sys.executable, "-c", code, pickled], capture_output=True, text=True)
    assert found.stdout.strip() == "True", found.stderr


def test_activations_cannot_be_changed():
    with pytest.raises(AttributeError, match="immutable"):
        get("tanh").name = "other"


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"activation must be one of 'identity', 'relu'.*'swash'"):
        get("swash")


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
        (lambda: activations.prelu(math.inf), "negative_slope must be finite, got inf"),
        (lambda: activations.elu(0.0), r"alpha must lie in \[1e-100, 1e100\], got 0.0"),
        (lambda: activations.celu(-1.0), r"alpha must lie in \[1e-100, 1e100\], got -1.0"),
        (lambda: activations.softplus(math.nan), r"beta must lie in \[1e-100, 1e100\], got nan"),
        (
            lambda: Activation(np.tanh, np.cos, kinks=[math.inf]),
            r"kinks must be finite numbers in ascending order, got \[inf\]",
        ),
        (
            lambda: Activation(np.tanh, np.cos, kinks=[1.0, 0.0]),
            r"kinks must be finite numbers in ascending order, got \[1.0, 0.0\]",
        ),
        (lambda: Activation(np.tanh, np.cos, kinks=[1.0, 1.0]), "kinks must be finite"),
        (lambda: Activation(np.tanh, np.cos, kinks=1.0), "kinks must be finite"),
        (lambda: Activation(np.tanh, np.cos, lipschitz=-1.0), "lipschitz must be >= 0, got -1.0"),
    ],
)
def test_wrong_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_functions_must_be_callable():
    with pytest.raises(TypeError, match="dphi must be a vectorised callable, got float"):
        Activation(np.tanh, 1.0)
