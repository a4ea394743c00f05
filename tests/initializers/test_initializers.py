"""Shapes, dtypes, structure and rejections of the initializers; their table."""

import inspect
import math

import numpy as np
import pytest

from jacometry import initializers, meanfield
from jacometry._validate import as_array
from jacometry.factors import Conv1d, Conv2d
from jacometry.initializers import initializer_table


@pytest.mark.parametrize("shape", [(7, 7), (9, 4), (4, 9), (1, 1), (1, 5), (6, 2, 3, 3)])
@pytest.mark.parametrize("gain", [1.0, 2.5])
def test_orthogonal_has_equal_singular_values(shape, gain, rng):
    weights = initializers.orthogonal(shape, rng=rng, gain=gain)
    values = np.linalg.svd(weights.reshape(shape[0], -1), compute_uv=False)
    assert weights.shape == shape
    np.testing.assert_allclose(values, gain, rtol=1e-13)


@pytest.mark.parametrize("name", initializers.names())
def test_shape_dtype_and_seed(name, dtype):
    draw = initializers.get(name)
    first = draw((5, 3, 2), rng=7, dtype=dtype)
    assert first.shape == (5, 3, 2)
    assert first.dtype == dtype
    assert first.flags.c_contiguous
    np.testing.assert_array_equal(first, draw((5, 3, 2), rng=7, dtype=dtype))
    assert as_array("weights", first) is first


def test_zeros_are_zero():
    assert not initializers.zeros((3, 4)).any()


CONVOLUTIONS = [
    (Conv1d, (7,), (3,)),
    (Conv1d, (7,), (4,)),
    (Conv1d, (5,), ()),
    (Conv2d, (5, 6), (3, 3)),
    (Conv2d, (5, 6), (2, 5)),
]


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@pytest.mark.parametrize(("kind", "input_shape", "taps"), CONVOLUTIONS)
def test_delta_orthogonal_convolutions_keep_every_norm(
    kind, input_shape, taps, padding_mode, dtype, rng
):
    n_axes = len(input_shape)
    kernel = initializers.delta_orthogonal(
        (5, 3, *(taps or (1,) * n_axes)), rng=rng, dtype=dtype, gain=1.5
    )
    convolution = kind(kernel, input_shape, padding="same", padding_mode=padding_mode)
    x = rng.standard_normal(convolution.shape[1]).astype(dtype)
    ratio = np.linalg.norm(convolution.jvp(x)) / np.linalg.norm(x)
    # Rounding of the kernel, of 3 products and sums, and of the norms of 15 to 150 entries.
    assert ratio == pytest.approx(1.5, rel=20 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@pytest.mark.parametrize(("kind", "input_shape", "taps"), CONVOLUTIONS)
def test_identity_convolutions_change_nothing(kind, input_shape, taps, padding_mode, rng):
    kernel = initializers.identity((3, 3, *(taps or (1,) * len(input_shape))))
    convolution = kind(kernel, input_shape, padding="same", padding_mode=padding_mode)
    x = rng.standard_normal(convolution.shape[1])
    np.testing.assert_array_equal(convolution.jvp(x), x)


def test_identity_is_the_identity_matrix():
    np.testing.assert_array_equal(initializers.identity((3, 5), gain=0.5), 0.5 * np.eye(3, 5))
    np.testing.assert_array_equal(initializers.identity((5, 3)), np.eye(5, 3))


def test_delta_orthogonal_of_a_matrix_is_orthogonal():
    np.testing.assert_array_equal(
        initializers.delta_orthogonal((6, 4), rng=3), initializers.orthogonal((6, 4), rng=3)
    )


def test_delta_orthogonal_needs_as_many_outputs_as_inputs():
    with pytest.raises(ValueError, match=r"shape must have fan_out >= fan_in, got \(2, 3, 5\)"):
        initializers.delta_orthogonal((2, 3, 5))


def test_critical_draws_at_the_edge_of_chaos():
    edge = meanfield.critical_point("tanh", sigma_b=0.05**0.5)
    assert edge.sigma_w**2 == pytest.approx(1.760954639606739, rel=1e-9)
    options = {"rng": 5, "gain": 1.0}
    found = initializers.critical((40, 30), sigma_b=0.05**0.5, **options)
    np.testing.assert_allclose(
        found, initializers.gaussian((40, 30), **(options | {"gain": edge.sigma_w})), rtol=1e-15
    )
    by_variance = initializers.critical((40, 30), q_star=1.0, **options)
    expected = math.sqrt(2.15330264890279) * initializers.gaussian((40, 30), **options)
    np.testing.assert_allclose(by_variance, expected, rtol=1e-9)
    relu = initializers.critical((40, 30), activation="relu", rng=5, gain=0.5)
    np.testing.assert_allclose(relu, 0.5 * initializers.he_normal((40, 30), rng=5), rtol=1e-12)


@pytest.mark.parametrize("shape", [(24, 24), (30, 20), (20, 30), (8, 6, 3), (6, 6, 3, 2)])
def test_the_table_holds_the_mean_squares_and_bounds_of_the_draws(shape, rng):
    n_samples = 400
    for row in initializer_table(shape):
        name = str(row["name"])
        if np.isnan(row["variance"]):
            assert (name, shape[0] < shape[1]) == ("delta_orthogonal", True)
            continue
        drawn = np.stack([initializers.get(name)(shape, rng=rng) for _ in range(n_samples)])
        assert np.abs(drawn).max() <= row["bound"] * (1 + 1e-15)
        squares = np.mean(drawn**2)
        if row["law"] in ("orthogonal", "fixed"):  # the sum of squares is known
            assert squares == pytest.approx(row["variance"], rel=1e-13)
        else:
            # Six standard deviations of normal squares, kurtosis 3: a false alarm of 2e-9.
            tolerance = 6 * math.sqrt(2 / drawn.size)
            assert squares == pytest.approx(row["variance"], rel=tolerance)
        taps = math.prod(shape[2:])
        assert row["forward"] == pytest.approx(shape[1] * taps * row["variance"], rel=1e-15)
        assert row["backward"] == pytest.approx(shape[0] * taps * row["variance"], rel=1e-15)


def preserved(**options):
    table = initializer_table(**options)
    return {str(row["name"]): str(row["preserves"]) for row in table}


def test_the_table_says_what_is_preserved():
    square = preserved()
    assert square["glorot_normal"] == "signal, gradient"
    assert square["he_uniform"] == "signal through ReLU, gradient through ReLU"
    assert square["orthogonal"] == square["identity"] == "signal, gradient, every norm"
    assert square["zeros"] == ""
    narrowing = preserved(shape=(30, 70))
    assert narrowing["glorot_uniform"] == "signal and gradient on average"
    assert narrowing["he_normal"] == "signal through ReLU"
    assert narrowing["lecun_normal"] == narrowing["critical"] == "signal"
    assert narrowing["orthogonal"] == "signal, every gradient's norm"
    widening = preserved(shape=(70, 30))
    assert widening["delta_orthogonal"] == "gradient, every signal's norm"
    assert preserved(shape=(30, 70), fan="out")["he_normal"] == "gradient through ReLU"
    assert preserved(shape=(30, 30), gain=2**0.5)["gaussian"] == square["he_normal"]
    kernel = preserved(shape=(8, 8, 3))
    assert kernel["orthogonal"] == "signal, gradient"
    assert kernel["delta_orthogonal"] == "signal, gradient, every norm"


def test_the_tables_defaults_are_those_of_the_functions():
    table = initializer_table((30, 70))
    he = table[table["name"] == "he_normal"][0]
    assert (he["law"], he["fan"], he["gain"]) == ("normal", "in", 2**0.5)
    assert he["variance"] == pytest.approx(2 / 70, rel=1e-15)
    glorot = table[table["name"] == "glorot_uniform"][0]
    assert (glorot["law"], glorot["fan"]) == ("uniform", "avg")
    assert glorot["bound"] == pytest.approx(math.sqrt(6 / 100), rel=1e-15)
    assert (table["fan"][table["law"] == "orthogonal"] == "").all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (3,)}, "shape must be"),
        ({"fan": "mean"}, "fan must be"),
        ({"gain": math.nan}, "gain must be"),
    ],
)
def test_the_table_names_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        initializer_table(**options)


@pytest.mark.parametrize("name", initializers.names())
def test_every_initializer_has_the_one_signature(name):
    parameters = inspect.signature(initializers.get(name)).parameters
    assert list(parameters)[:5] == ["shape", "rng", "dtype", "fan", "gain"]
    assert all(p.kind == p.KEYWORD_ONLY for p in list(parameters.values())[1:])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "names"),
    [
        (((3,),), {}, ValueError, "shape"),
        (((3, 0),), {}, ValueError, "shape"),
        (((3, 2.5),), {}, ValueError, "shape"),
        ((5,), {}, ValueError, "shape"),
        ((None,), {}, ValueError, "shape"),
        (((3, 2),), {"dtype": np.int64}, TypeError, "dtype"),
        (((3, 2),), {"fan": "mean"}, ValueError, "fan"),
        (((3, 2),), {"gain": math.inf}, ValueError, "gain"),
    ],
)
@pytest.mark.parametrize("name", initializers.names())
def test_rejections_name_the_argument(name, arguments, options, error, names):
    with pytest.raises(error, match=f"^{names} must"):
        initializers.get(name)(*arguments, **options)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="initializer must be one of 'glorot_normal'"):
        initializers.get("xavier")
    with pytest.raises(TypeError, match="initializer"):
        initializers.get(3)
    assert initializers.get(initializers.zeros) is initializers.zeros
