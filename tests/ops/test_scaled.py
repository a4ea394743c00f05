"""ScaledArray: what it promises as an array that carries its own exponent."""

import copy
import pickle
from fractions import Fraction

import numpy as np
import pytest

import jacometry as jm
from jacometry.ops.scaled import ScaledArray


def test_to_array_rounds_once_even_to_subnormal_numbers(dtype, rng):
    info = np.finfo(dtype)
    mantissa = (0.5 + rng.random((50, 1, 1)) / 2).astype(dtype)
    exponent = np.arange(50) + info.minexp - info.nmant - 3
    got = ScaledArray(mantissa, exponent).to_array()
    spacing = Fraction(float(info.smallest_subnormal))
    for value, m, e in zip(got.ravel(), mantissa.ravel(), exponent, strict=True):
        exact = Fraction(float(m)) * Fraction(2) ** int(e)
        if abs(exact) < info.tiny:
            assert Fraction(float(value)) == round(exact / spacing) * spacing  # half to even
        else:
            assert Fraction(float(value)) == exact


@pytest.mark.parametrize("exponent", [5000, -5000, 2**62, -(2**62)])
def test_asarray_warns_of_what_does_not_fit(dtype, exponent):
    scaled = ScaledArray(np.full((1, 1), 0.5, dtype), exponent)
    with pytest.warns(jm.JacometryWarning, match="1 entries over- or underflow"):
        array = np.asarray(scaled)
    assert array[0, 0] == (np.inf if exponent > 0 else 0)
    assert float(scaled.log_norm()) == pytest.approx((exponent - 1) * np.log(2))


def test_numpy_does_not_take_it_apart_silently():
    scaled = ScaledArray.from_array(np.eye(2))
    assert ScaledArray.__array_ufunc__ is None
    with pytest.raises(TypeError):
        np.ones((2, 2)) + scaled
    with pytest.raises(ValueError, match="copy=False cannot be met"):
        np.array(scaled, copy=False)
    np.testing.assert_array_equal(np.asarray(scaled), np.eye(2))
    assert np.asarray(scaled, np.float32).dtype == np.float32


def test_products_broadcast_over_the_batch_and_take_vectors(rng):
    a, b = rng.standard_normal((3, 1, 4, 5)), rng.standard_normal((2, 5, 5))
    v = rng.standard_normal((2, 5))
    left, right = ScaledArray.from_array(a), ScaledArray.from_array(b)
    vectors = ScaledArray.from_array(v, item_ndim=1)
    np.testing.assert_allclose((left @ right).to_array(), a @ b)
    np.testing.assert_allclose((right @ vectors).to_array(), np.einsum("bij,bj->bi", b, v))
    np.testing.assert_allclose((vectors @ right).to_array(), np.einsum("bi,bij->bj", v, b))
    np.testing.assert_allclose((right @ v[0]).to_array(), b @ v[0])
    np.testing.assert_allclose((v[0] @ right).to_array(), v[0] @ b)
    with pytest.raises(ValueError, match="@ needs a matrix"):
        vectors @ vectors


def test_products_go_where_no_float_goes(rng):
    a = rng.standard_normal((4, 4))
    big = ScaledArray(ScaledArray.from_array(a).mantissa, 10**12)
    small = ScaledArray(big.mantissa, -(10**12))
    once = ScaledArray(big.mantissa, 0) @ ScaledArray(big.mantissa, 0)
    np.testing.assert_array_equal((big @ small).mantissa, once.mantissa)
    assert (big @ small).exponent == once.exponent
    assert (big @ big).exponent == once.exponent + 2 * 10**12
    zero = big @ np.zeros((4, 4))
    assert zero.exponent == 0
    assert zero.log_norm() == -np.inf


def test_indexing_goes_over_the_batch_only(rng):
    scaled = ScaledArray.from_array(rng.standard_normal((3, 2, 4, 5)))
    assert scaled[1].shape == (2, 4, 5)
    assert scaled[1:, 0].shape == (2, 4, 5)
    np.testing.assert_array_equal(scaled[1, 1].to_array(), scaled.to_array()[1, 1])
    assert len(scaled) == 3
    with pytest.raises(IndexError, match="indexed over its batch axes"):
        scaled[0, 0, 0]
    with pytest.raises(TypeError, match="without a batch"):
        len(scaled[0, 0])


def test_logs_hold_for_every_entry_and_norm(rng):
    a = rng.standard_normal((2, 3, 4))
    scaled = ScaledArray(ScaledArray.from_array(a).mantissa, np.array([10**6, -(10**6)]))
    plain = ScaledArray(scaled.mantissa, np.zeros(2))
    shift = scaled.exponent * np.log(2)
    np.testing.assert_allclose(scaled.log_abs() - plain.log_abs(), shift[:, None, None] + 0 * a)
    for ord in ("fro", 1, 2, np.inf):
        np.testing.assert_allclose(scaled.log_norm(ord) - plain.log_norm(ord), shift)
    with pytest.raises(ValueError, match="ord must be"):
        scaled.log_norm("nuc")


def test_it_can_be_pickled_and_copied(rng):
    scaled = jm.chain_product(rng.standard_normal((2, 5, 3, 3)))
    for twin in (pickle.loads(pickle.dumps(scaled)), copy.copy(scaled), copy.deepcopy(scaled)):
        np.testing.assert_array_equal(twin.mantissa, scaled.mantissa)
        np.testing.assert_array_equal(twin.exponent, scaled.exponent)
    assert repr(scaled) == "ScaledArray(shape=(2, 3, 3), dtype=float64, batch=(2,))"
