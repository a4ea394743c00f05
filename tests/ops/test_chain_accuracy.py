"""The error of chain_product in units of its bound, against exact integers (python-flint)."""

import itertools

import flint
import numpy as np
import pytest

import jacometry as jm


def exact(matrix):
    return flint.fmpz_mat([[int(x) for x in row] for row in matrix])


@pytest.mark.parametrize("widths", [[2] * 21, [7] * 16, [16] * 11, [33] * 6, [40, 60, 50, 3]])
def test_error_in_units_of_the_bound(isa, dtype, rng, widths):
    """|P' - P| <= u n L |J_L| ... |J_1| entry by entry, entries of 20 bits being exact."""
    weights = [rng.integers(-(2**20), 2**20, (b, a)) for a, b in itertools.pairwise(widths)]
    product, magnitude = exact(weights[0]), exact(np.abs(weights[0]))
    for w in weights[1:]:
        product, magnitude = exact(w) * product, exact(np.abs(w)) * magnitude
    got = jm.chain_product([w.astype(dtype) for w in weights])
    exponent = int(got.exponent) - 53
    digits = np.ldexp(got.mantissa.astype(float), 53)
    u = flint.fmpq(1, 2**24 if dtype == np.float32 else 2**53)
    unit = u * max(widths) * len(weights)
    for i in range(widths[-1]):
        for j in range(widths[0]):
            value = flint.fmpq(int(digits[i, j])) * flint.fmpq(2) ** exponent
            error = value - product[i, j]
            assert abs(error) <= unit * magnitude[i, j]
