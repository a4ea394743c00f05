"""A chain as it lies and one that must be converted first are read alike."""

import numpy as np
import pytest

import jacometry as jm
from jacometry import _validate


def misaligned(array):
    room = np.empty(array.nbytes + 1, np.uint8)[1:]
    moved = room.view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


WAYS = {
    "columns first": np.asfortranarray,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "misaligned": misaligned,
    "every second": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "nested lists": lambda a: np.array(a.tolist(), dtype=object).astype(a.dtype),
    "strided samples": lambda a: np.repeat(a, 2, axis=0)[::2],
    "labelled dtype": lambda a: a.view(np.dtype(a.dtype, metadata={"unit": "none"})),
}


@pytest.mark.parametrize("piece", [1 << 20, 7])
@pytest.mark.parametrize("way", WAYS)
def test_a_chain_has_the_same_bits_however_it_lies(monkeypatch, dtype, rng, way, piece):
    monkeypatch.setattr(_validate, "_PIECE", piece)
    w = rng.standard_normal((3, 4, 5, 5)).astype(dtype)
    s = rng.random((3, 4, 5)).astype(dtype)
    v = rng.standard_normal((3, 2, 5)).astype(dtype)
    lies = WAYS[way]
    for weights, slopes in (
        (lies(w), s),
        (w, lies(s)),
        ([lies(w[:, k]) for k in range(4)], [s[:, 0], lies(s[:, 1]), s[:, 2], lies(s[:, 3])]),
        ([w[:, 0], *(lies(w[:, k]) for k in range(1, 4))], s),
    ):
        got = jm.chain_product(weights, slopes=slopes)
        expected = jm.chain_product(w, slopes=s)
        np.testing.assert_array_equal(got.mantissa, expected.mantissa)
        np.testing.assert_array_equal(got.exponent, expected.exponent)
        for push in (jm.chain_jvp, jm.chain_vjp):
            got, expected = push(weights, lies(v), slopes=slopes), push(w, v, slopes=s)
            np.testing.assert_array_equal(got.log_norms, expected.log_norms)
            np.testing.assert_array_equal(got.vector.mantissa, expected.vector.mantissa)


def test_one_wide_array_in_a_list_makes_all_of_it_wide(rng):
    weights = [rng.standard_normal((3, 3)).astype(np.float32) for _ in range(3)]
    mixed = [*weights[:2], weights[2].astype(float)]
    assert jm.chain_product(weights).dtype == np.float32
    got = jm.chain_product(mixed)
    assert got.dtype == np.float64
    wide = jm.chain_product([w.astype(float) for w in weights])
    np.testing.assert_array_equal(got.mantissa, wide.mantissa)


@pytest.mark.parametrize("dtype", [int, np.float32, float])
@pytest.mark.parametrize(
    ("weights", "slopes", "message"),
    [
        ((), None, r"weights must have shape \(L, n, n\).* got shape \(\)"),
        ((3,), None, r"weights must have shape .* got shape \(3,\)"),
        ((2, 2, 2, 3, 3), None, r"weights must have shape .* got shape \(2, 2, 2, 3, 3\)"),
        ((2, 3, 4), None, r"weights must have shape .* got shape \(2, 3, 4\)"),
        ((2, 3, 3), (3,), r"slopes must have shape \(2, 3\) or \(B, 2, 3\), got \(3,\)"),
        ((5, 2, 3, 3), (4, 2, 3), "slopes must hold 5 samples as the arrays before it, got 4"),
    ],
)
def test_a_shape_that_does_not_fit_is_named_whatever_the_dtype(dtype, weights, slopes, message):
    slopes = None if slopes is None else np.ones(slopes, dtype)
    with pytest.raises(ValueError, match=message):
        jm.chain_product(np.ones(weights, dtype), slopes=slopes)


@pytest.mark.parametrize("dtype", [int, np.float32, float])
@pytest.mark.parametrize(
    ("shapes", "slopes", "message"),
    [
        ([(3, 3), ()], None, r"weights\[1\] must have shape .* got \(\)"),
        ([(3, 2), (2, 2)], None, r"weights\[1\] must have 3 columns, the rows of layer 0, got 2"),
        ([(4, 3, 3), (5, 3, 3)], None, r"weights\[1\] must hold 4 samples .* got 5"),
        ([(3, 3), (3, 3)], [None, (2,)], r"slopes\[1\] must have shape \(3,\) or \(B, 3\), got"),
        ([(3, 3), (3, 3)], [None, ()], r"slopes\[1\] must have shape \(3,\) or \(B, 3\), got \(\)"),
    ],
)
def test_a_factor_that_does_not_fit_is_named_whatever_the_dtype(dtype, shapes, slopes, message):
    if slopes is not None:
        slopes = [None if shape is None else np.ones(shape, dtype) for shape in slopes]
    with pytest.raises(ValueError, match=message):
        jm.chain_product([np.ones(shape, dtype) for shape in shapes], slopes=slopes)


def test_none_is_no_factor():
    with pytest.raises(TypeError, match=r"weights\[1\] must be an array, got None"):
        jm.chain_product([np.ones((2, 2)), None])
