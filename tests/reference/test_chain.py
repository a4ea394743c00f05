"""The chain oracles against closed forms and exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

from jacometry.reference import chain as reference


def test_the_oracle_multiplies_exact_rationals(rng):
    weights = rng.standard_normal((5, 3, 3))
    slopes = rng.random((5, 3))
    for side in ("output", "input"):
        exact = np.array([[Fraction(int(i == j)) for j in range(3)] for i in range(3)], object)
        for w, s in zip(weights, slopes, strict=True):
            rows = [[Fraction(float(x)) for x in row] for row in w]
            factor = [
                [
                    x * Fraction(float(s[i] if side == "output" else s[j]))
                    + (i == j) * Fraction(1, 4)
                    for j, x in enumerate(row)
                ]
                for i, row in enumerate(rows)
            ]
            exact = np.array(factor, object) @ exact
        mantissa, exponent = reference.chain_product(weights, slopes, side, 0.25)
        np.testing.assert_allclose(np.ldexp(mantissa, exponent), exact.astype(float), rtol=1e-13)


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_the_oracle_keeps_scale(scale):
    mantissa, exponent = reference.chain_product(np.full((50, 1, 1), scale))
    log2 = np.log2(mantissa[0, 0]) + exponent
    assert log2 == pytest.approx(50 * np.log2(scale), rel=1e-14)


def test_the_oracle_adds_a_shortcut_of_any_size():
    for c, w in ((1.0, 1e-300), (1e-300, 1.0), (1e300, 1e-300), (1.0, 0.0)):
        mantissa, exponent = reference.chain_product(np.array([[[w]]]), shortcut=c)
        assert np.ldexp(mantissa[0, 0], exponent) == w + c


def test_jvp_and_vjp_oracles_pass_every_interface():
    weights = [np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]]), np.array([[1.0, 1.0, 1.0]])]
    forward = [np.ldexp(m, e) for m, e in reference.chain_jvp(weights, [1.0, 1.0])]
    for got, expected in zip(forward, ([1, 1], [2, 3, 2], [7]), strict=True):
        np.testing.assert_array_equal(got, expected)
    backward = [np.ldexp(m, e) for m, e in reference.chain_vjp(weights, [2.0])]
    for got, expected in zip(backward, ([6, 8], [2, 2, 2], [2]), strict=True):
        np.testing.assert_array_equal(got, expected)
