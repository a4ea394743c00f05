"""Initializers have the variance, shape and dtype that they promise."""

import math

import numpy as np
import pytest

from jacometry import initializers
from jacometry._validate import as_array

NORMAL = {"glorot_normal": ("avg", 1.0), "he_normal": ("in", 2.0), "lecun_normal": ("in", 1.0),
          "gaussian": ("in", 1.0)}  # fmt: skip
UNIFORM = {"glorot_uniform": ("avg", 1.0), "he_uniform": ("in", 2.0)}
SHAPE = (120, 300)
FANS = {"in": 300.0, "out": 120.0, "avg": 210.0}


@pytest.mark.parametrize("name", [*NORMAL, *UNIFORM])
@pytest.mark.parametrize("fan", [None, "in", "out", "avg"])
def test_variance_is_gain_squared_over_fan(name, fan, rng):
    default_fan, gain_squared = (NORMAL | UNIFORM)[name]
    options = {} if fan is None else {"fan": fan}
    entries = initializers.get(name)(SHAPE, rng=rng, **options)
    expected = gain_squared / FANS[fan or default_fan]
    # Var of the sample variance is (kurtosis - 1) / N of its square; six standard deviations.
    kurtosis = 3.0 if name in NORMAL else 1.8
    tolerance = 6 * math.sqrt((kurtosis - 1) / entries.size)
    assert np.mean(entries**2) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("name", UNIFORM)
def test_uniform_entries_stay_within_the_bound(name, rng):
    fan, gain_squared = UNIFORM[name]
    entries = initializers.get(name)(SHAPE, rng=rng)
    assert np.abs(entries).max() <= math.sqrt(3 * gain_squared / FANS[fan])


@pytest.mark.parametrize("shape", [(7, 7), (9, 4), (4, 9), (1, 1), (1, 5), (6, 2, 3, 3)])
@pytest.mark.parametrize("gain", [1.0, 2.5])
def test_orthogonal_has_equal_singular_values(shape, gain, rng):
    weights = initializers.orthogonal(shape, rng=rng, gain=gain)
    values = np.linalg.svd(weights.reshape(shape[0], -1), compute_uv=False)
    assert weights.shape == shape
    np.testing.assert_allclose(values, gain, rtol=1e-13)


def test_orthogonal_is_haar_in_sign(rng):
    # A QR without sign correction always gives determinants of one sign per size.
    signs = [np.sign(np.linalg.det(initializers.orthogonal((3, 3), rng=rng))) for _ in range(64)]
    assert {-1.0, 1.0} == set(signs)


@pytest.mark.parametrize("name", initializers.names())
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_shape_dtype_and_seed(name, kind):
    draw = initializers.get(name)
    first = draw((5, 3, 2), rng=7, dtype=kind)
    assert first.shape == (5, 3, 2)
    assert first.dtype == kind
    np.testing.assert_array_equal(first, draw((5, 3, 2), rng=7, dtype=kind))
    assert as_array("weights", first) is first


def test_a_kernel_multiplies_the_fan(rng):
    entries = initializers.lecun_normal((60, 40, 3, 3), rng=rng)
    assert np.mean(entries**2) == pytest.approx(1 / 360, rel=6 * math.sqrt(2 / entries.size))


def test_zeros_are_zero():
    assert not initializers.zeros((3, 4)).any()


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
