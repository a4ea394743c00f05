"""frobenius_norm, smallest_singular_value and condition_number: truths, laws and rejections."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from common import N_ADVERSARIAL, hard_matrices, with_singular_values
from scipy import integrate, special, stats

from jacometry.ops._direct_norms import sum_squares
from jacometry.ops.conditioning import condition_number, frobenius_norm, smallest_singular_value
from jacometry.reference import spectral as reference

FALSE_ALARM = 1e-7
SHAPES = [(1, 1), (2, 2), (3, 5), (5, 3), (1, 9), (17, 17), (33, 31)]


def adversarial(rng, n_matrices):
    """Small matrices with awkward entries: wide exponents, ties, cancellation, subnormals."""
    for i in range(n_matrices):
        a = rng.standard_normal(tuple(rng.integers(1, 6, 2)))
        yield [
            a,
            np.round(a),
            np.ldexp(a, rng.integers(-250, 250, a.shape)),
            1 + 2.0**-52 * np.round(a),
            a * 1e-310,
            a * 1e307,
        ][i % 6]


def exact_singular_values(a):
    """All of them to 60 digits beyond the entries' range."""
    with mpmath.workdps(700):
        matrix = mpmath.matrix([[mpmath.mpf(float(x)) for x in row] for row in a])
        return sorted(mpmath.svd_r(matrix, compute_uv=False), reverse=True)


@pytest.mark.parametrize("n_entries", [1, 3, 4, 15, 16, 17, 35, 64, 129])
def test_sums_of_squares_agree_with_the_oracle(isa, dtype, n_entries, rng):
    a = rng.standard_normal((37, n_entries)).astype(dtype)
    squares = sum_squares(a)
    # two roundings of a term and one for each addition, on either side
    rtol = 2 * (n_entries + 2) * np.finfo(float).eps
    np.testing.assert_allclose(squares, reference.sum_squares(a), rtol=rtol)
    for i in (0, 20, 36):
        assert sum_squares(a[i : i + 1])[0] == squares[i]
    assert (sum_squares(2 * a) == 4 * squares).all()
    assert (sum_squares(np.tile(a, (999, 1)), n_threads=3) == np.tile(squares, 999)).all()
    a[5, -1] = np.inf
    a[6, 0] = np.nan
    squares = sum_squares(a)
    assert np.isinf(squares[5])
    assert np.isnan(squares[6])
    assert np.isfinite(np.delete(squares, [5, 6])).all()


def test_frobenius_bounds_hold_in_exact_arithmetic(rng):
    for a in adversarial(rng, N_ADVERSARIAL * 2 // 5):
        result = frobenius_norm(a)
        square = sum(Fraction(float(x)) ** 2 for x in a.ravel())
        assert Fraction(float(result.lower)) ** 2 <= square
        assert np.isinf(result.upper) or Fraction(float(result.upper)) ** 2 >= square
        assert result.lower_certain
        assert result.upper_certain
        assert result.converged


def test_bounds_of_the_smallest_and_of_the_condition_hold_against_long_arithmetic(rng):
    for a in adversarial(rng, N_ADVERSARIAL * 3 // 100):
        sigma = exact_singular_values(a)
        small, condition = smallest_singular_value(a), condition_number(a)
        tiny = mpmath.mpf(10) ** -600 * sigma[0]  # of the oracle, where the truth is zero
        assert float(small.lower) <= sigma[-1] + tiny
        assert np.isinf(small.upper) or float(small.upper) >= sigma[-1] - tiny
        if sigma[-1] > tiny:
            assert np.isinf(condition.upper) or float(condition.upper) >= sigma[0] / sigma[-1]
            assert float(condition.lower) <= sigma[0] / sigma[-1]
        else:
            assert small.value == 0
            assert np.isinf(condition.upper)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_agree_with_numpy_on_hard_spectra(dtype, shape, rng):
    named = hard_matrices(rng, shape)
    a = np.array(list(named.values())).astype(dtype)
    sigma = np.linalg.svd(a.astype(float), compute_uv=False)
    small, condition, length = smallest_singular_value(a), condition_number(a), frobenius_norm(a)
    assert small.value.dtype == condition.value.dtype == length.value.dtype == dtype
    slack = max(shape) * 1e-15 * sigma[:, 0]
    assert (small.lower <= sigma[:, -1] + slack).all()
    assert (small.upper >= sigma[:, -1] - slack).all()
    assert small.lower_certain.all()
    assert small.upper_certain.all()
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(small.value, sigma[:, -1], rtol=eps, atol=2 * slack.max())
    expected = np.linalg.norm(a.astype(float), axis=(1, 2))
    np.testing.assert_allclose(length.value, expected, rtol=math.prod(shape) * eps)
    is_regular = small.lower > 0
    wide = condition.lower.astype(float), condition.upper.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0/0 of the zero matrix
        kappa = sigma[:, 0] / sigma[:, -1]
    assert (wide[0][is_regular] <= kappa[is_regular] * (1 + 1e-6)).all()
    assert (wide[1][is_regular] >= kappa[is_regular] * (1 - 1e-6)).all()
    assert np.isinf(wide[1][~is_regular]).all()


@pytest.mark.parametrize("function", [smallest_singular_value, condition_number])
def test_inverse_and_factors_agree_at_any_condition(function, rng):
    # 1 / ||X|| and LAPACK's value are both off by some n u sigma_max at most
    for power in range(0, 17, 2):
        a = np.array(
            [with_singular_values(rng, np.geomspace(1, 10.0**-power, n), (9, 9)) for n in [9] * 20]
        )
        one, other = function(a), function(a, method="svd")
        assert (one.method, other.method) == ("inverse", "svd")
        assert (one.lower <= other.upper).all()
        assert (other.lower <= one.upper).all()
        assert (one.lower <= one.value).all()
        assert (one.value <= one.upper).all()
        if power <= 8:
            np.testing.assert_allclose(one.value, other.value, rtol=4 * 9 * 2.3e-16 * 10.0**power)
            assert one.converged.all()


def test_singular_neighbours_change_no_digit(rng):
    a = rng.standard_normal((9, 5, 5))
    clean = [function(a) for function in (smallest_singular_value, condition_number)]
    a[3], a[5, 2], a[7, 4] = 0, a[5, 1], np.nan  # no rank, less than full, none
    others = np.setdiff1d(np.arange(9), [3, 5, 7])
    for function, before in zip((smallest_singular_value, condition_number), clean, strict=True):
        after = function(a, check_finite=False)
        for name in ("lower", "value", "upper"):
            assert (getattr(after, name)[others] == getattr(before, name)[others]).all()


def test_frobenius_norms_do_not_depend_on_the_scale_of_neighbours(dtype, rng):
    a = rng.standard_normal((9, 5, 7)).astype(dtype)
    clean = frobenius_norm(a)
    a[3], a[5] = 0, np.finfo(dtype).max / 4
    mixed = frobenius_norm(a)
    others = np.setdiff1d(np.arange(9), [3, 5])
    assert (mixed.upper[others] == clean.upper[others]).all()
    assert (mixed.value[others] == clean.value[others]).all()
    assert mixed.upper[3] == 0
    assert 0 < mixed.lower[5] <= mixed.upper[5] == np.inf  # sqrt(35) / 4 of the largest number


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1.0, 1e160, 1e300])
def test_rank_deficiency_is_zero_and_infinity_at_any_scale(scale, rng):
    a = rng.standard_normal((5, 6, 4))
    a[:, :, 3] = a[:, :, 0] + a[:, :, 1]
    small, condition = smallest_singular_value(a * scale), condition_number(a * scale)
    assert (small.lower == 0).all()
    assert (small.value == 0).all()
    # rho: n + 4 + 2 x 64 units of ||A||_F ||V||_F, and as much again for the rest
    assert (small.upper <= 300 * 2.3e-16 * 2 * frobenius_norm(a * scale).value).all()
    assert np.isinf(condition.value).all()
    assert np.isinf(condition.upper).all()
    # sigma_max is at least ||A||_F / 2 of four columns, sigma_min at most the bound above
    assert (condition.lower >= 0.49 / (600 * 2.3e-16)).all()
    assert not condition.converged.any()
    a[:, :, 3] = 0
    assert (smallest_singular_value(a * scale).upper == 0).all()
    assert np.isinf(condition_number(a * scale).lower).all()


def test_scale_does_not_matter_bit_for_bit(rng):
    a = rng.standard_normal((4, 7, 5))
    for shift in (-900, 900):
        for function in (frobenius_norm, smallest_singular_value):
            one, other = function(a), function(np.ldexp(a, shift))
            assert (np.ldexp(one.value, shift) == other.value).all()
            assert (np.ldexp(one.upper, shift) == other.upper).all()
        assert (condition_number(np.ldexp(a, shift)).value == condition_number(a).value).all()


def test_entries_far_apart_give_bounds_that_hold():
    result = smallest_singular_value(np.diag([1e300, 1e-300]))
    assert result.lower <= 1e-300 <= result.upper
    assert result.lower_certain
    assert not result.converged
    assert condition_number(np.diag([1e300, 1e-300])).upper == np.inf


def test_hilbert_matrices_have_the_published_condition_numbers():
    # Todd, The condition of the finite segments of the Hilbert matrix, 1954
    for n, published in ((3, 524.0567775860608), (5, 476607.2502422621), (8, 1.525757553e10)):
        hilbert = 1 / (np.arange(n)[:, None] + np.arange(1, n + 1))
        result = condition_number(hilbert)
        # entries of 1/3 are rounded: a change of u n relative to sigma_max
        assert float(result) == pytest.approx(published, rel=1e-9 + n * 2.3e-16 * published)
        assert result.converged


def test_smallest_singular_values_of_gaussian_matrices_follow_edelmans_law(rng):
    # Edelman, Eigenvalues and condition numbers of random matrices, 1988: the density of
    # sigma_min^2 for n x n standard normal entries
    n = 5

    def density(t):
        factor = n / math.sqrt(2 * math.pi) * special.gamma((n + 1) / 2)
        return factor * np.exp(-n * t / 2) * special.hyperu((n - 1) / 2, -0.5, t / 2) / np.sqrt(t)

    def cdf(s):  # of sigma_min: t = s^2
        return integrate.quad(lambda x: 2 * x * density(x * x), 0, s, epsabs=1e-10)[0]

    assert cdf(10.0) == pytest.approx(1, abs=1e-8)
    drawn = np.sort(smallest_singular_value(rng.standard_normal((400, n, n))).value)
    assert stats.kstest(drawn, np.vectorize(cdf)).pvalue > FALSE_ALARM


def test_nan_is_named_or_given(rng):
    a = rng.standard_normal((2, 3, 4, 4))
    a[1, 0, 2, 3] = np.nan
    for function in (frobenius_norm, smallest_singular_value, condition_number):
        with pytest.raises(ValueError, match=r"a must be finite, got nan in item \(1, 0\), row 2"):
            function(a)
        result = function(a, check_finite=False)
        assert np.isnan(result.value[1, 0])
        assert np.isfinite(result.value[0]).all()


def test_batches_and_scalars_have_the_batch_shape():
    for function in (frobenius_norm, smallest_singular_value, condition_number):
        assert function(np.ones((0, 3, 3))).value.shape == (0,)
        assert function(np.ones((2, 0, 3, 3))).upper.shape == (2, 0)
        assert isinstance(function(np.eye(3)).value, np.float64)
    assert frobenius_norm(np.ones((2, 0, 3))).value.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"a": np.ones(3)}, ValueError, r"a must have shape \(..., m, n\), got \(3,\)"),
        ({"a": np.ones((2, 2), complex)}, TypeError, "a must have a real floating dtype"),
        ({"a": np.ones((2, 0, 3))}, ValueError, "a must have at least one row and column"),
        ({"rtol": 0.0}, ValueError, "rtol must lie in"),
        ({"failure_prob": 1.0}, ValueError, "failure_prob must lie in"),
        ({"method": "gram"}, ValueError, "method must be one of 'auto', 'svd'"),
        ({"max_iter": 0}, ValueError, "max_iter must be at least 1"),
    ],
)
def test_wrong_arguments_are_rejected_by_name(arguments, error, message):
    for function in (smallest_singular_value, condition_number):
        with pytest.raises(error, match=message):
            function(**{"a": np.eye(3), **arguments})
