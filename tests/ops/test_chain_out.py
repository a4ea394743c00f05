"""chain_product into memory that the caller gives, and how much memory it takes of its own."""

import numpy as np
import pytest
from common import bytes_grown, reads_peak

import jacometry as jm
from jacometry.ops.scaled import ScaledArray


def room(shape, dtype=np.float64, batch=1):
    """A ScaledArray full of what must be overwritten."""
    return ScaledArray(np.full(shape, np.nan, dtype), np.full(shape[:batch], 7))


@pytest.mark.parametrize(
    "shape", [(3, 5, 4, 4), (5, 4, 4), (0, 5, 4, 4), (3, 0, 4, 4), (0, 4, 4), (3, 2, 0, 0)]
)
def test_out_is_filled_with_the_result_and_returned(isa, dtype, rng, shape):
    weights = rng.standard_normal(shape).astype(dtype)
    expected = jm.chain_product(weights)
    out = room(expected.shape, dtype, len(shape) - 3)
    assert jm.chain_product(weights, out=out) is out
    np.testing.assert_array_equal(out.mantissa, expected.mantissa)
    np.testing.assert_array_equal(out.exponent, expected.exponent)


def test_out_takes_a_product_in_any_order(rng):
    weights = [rng.standard_normal((2, b, a)) for a, b in [(90, 40), (40, 60), (60, 3)]]
    expected = jm.chain_product(weights)
    out = room((2, 3, 90))
    assert jm.chain_product(weights, out=out) is out
    np.testing.assert_array_equal(out.mantissa, expected.mantissa)


def read_only():
    out = room((2, 3, 3))
    out.mantissa.flags.writeable = False
    return out


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda w: np.empty((2, 3, 3)), TypeError, "out must be a ScaledArray, got ndarray"),
        (lambda w: room((2, 3, 4)), ValueError, r"out.mantissa must have shape \(2, 3, 3\)"),
        (lambda w: room((2, 3, 3), np.float32), ValueError, "dtype float64, got .* float32"),
        (
            lambda w: ScaledArray(room((2, 3, 3)).mantissa.swapaxes(1, 2), np.zeros(2)),
            ValueError,
            "out.mantissa must be C-contiguous",
        ),
        (lambda w: read_only(), ValueError, "out.mantissa must be .* writable"),
        (
            lambda w: ScaledArray(w[:, 0], np.zeros(2)),
            ValueError,
            "out.mantissa must be C-contiguous",
        ),
        (
            lambda w: ScaledArray(w.reshape(-1)[:18].reshape(2, 3, 3), np.zeros(2)),
            ValueError,
            "out.mantissa must not share memory",
        ),
    ],
)
def test_an_out_that_does_not_fit_is_refused(rng, make, error, message):
    weights = rng.standard_normal((2, 4, 3, 3))
    with pytest.raises(error, match=message):
        jm.chain_product(weights, out=make(weights))


@reads_peak
def test_a_large_batch_takes_no_memory_beside_its_output():
    """B = 10^4, L = 10^3, n = 16, slopes a broadcast view that would take 640 MB written out."""
    setup = """
w = np.eye(16, dtype=np.float32) * np.ones((1000, 1, 1), np.float32)
s = np.broadcast_to(np.ones(16, np.float32), (10_000, 1000, 16))
jm.chain_product(w, slopes=s[:8])
"""
    result = "found.mantissa.nbytes + found.exponent.nbytes"
    # Where a bad layer would be named takes 8 B bytes; the rest is workspace and the allocator's.
    assert bytes_grown(setup, "jm.chain_product(w, slopes=s)", result) < 4e6
