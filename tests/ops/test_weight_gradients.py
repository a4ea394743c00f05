"""weight_gradient_log_norms against exact rationals, and where the numbers do not fit."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest

import jacometry as jm
from jacometry.ops.scaled import ScaledArray

U = 2.0**-53


def exactly(array):
    """The entries as rationals."""
    return np.array([Fraction(float(x)) for x in np.ravel(array)], dtype=object).reshape(
        np.shape(array)
    )


def log_norm(entries):
    """Log of the Frobenius norm of rationals, in 100 digits."""
    square = sum((x * x for x in np.ravel(entries)), Fraction(0))
    if square == 0:
        return -np.inf
    with mpmath.workdps(100):
        root = mpmath.mpf(square.numerator) / mpmath.mpf(square.denominator)
        return float(mpmath.log(root) / 2)


def true_log_norms(h, delta):
    """Per sample, and of the mean, from exact outer products; with the mean's condition."""
    h, delta = exactly(h), exactly(delta)
    outer = [np.outer(d, x) for d, x in zip(delta, h, strict=True)]
    mean = sum(outer[1:], outer[0]) / Fraction(len(outer))
    each = [log_norm(g) for g in outer]
    of_mean = log_norm(mean)
    with np.errstate(over="ignore"):
        condition = float(np.mean(np.exp(np.array(each) - of_mean)))
    return each, of_mean, condition


@pytest.mark.parametrize(
    ("n_samples", "n_in", "n_out"), [(1, 1, 1), (1, 9, 8), (2, 20, 24), (7, 5, 3), (6, 1, 7)]
)
def test_norms_agree_with_exact_outer_products(dtype, rng, n_samples, n_in, n_out):
    h = rng.standard_normal((n_samples, n_in)).astype(dtype)
    delta = rng.standard_normal((n_samples, n_out)).astype(dtype)
    each, of_mean, condition = true_log_norms(h, delta)
    slack = 2 * U * (1 + np.abs([*each, of_mean]).max())
    got = jm.weight_gradient_log_norms([h], [delta])
    assert got.shape == (n_samples, 1)
    assert got.dtype == np.float64
    assert np.abs(got[:, 0] - each).max() <= (n_in + n_out + 4) * U + slack
    mean = jm.weight_gradient_log_norms([h], [delta], reduction="mean")
    assert mean.shape == (1,)
    bound = 8 * (n_samples + n_in + n_out) * U * condition
    assert abs(mean[0] - of_mean) <= bound + slack


@pytest.mark.parametrize("widths", [(4, 6), (40, 50)])
@pytest.mark.parametrize("leftover", [1e-3, 1e-7])
def test_gradients_that_cancel_lose_no_more_digits_than_the_sum_does(rng, widths, leftover):
    """(4, 6) takes the matrix, (40, 50) the QR factorization; a Gram matrix would lose all."""
    n_in, n_out = widths
    h = np.repeat(rng.standard_normal((1, n_in)), 2, axis=0)
    delta = np.repeat(rng.standard_normal((1, n_out)), 2, axis=0) * [[1.0], [-1.0]]
    delta[1, 0] += leftover
    _, of_mean, condition = true_log_norms(h, delta)
    assert condition > 0.1 / leftover
    got = jm.weight_gradient_log_norms([h], [delta], reduction="mean")[0]
    assert abs(got - of_mean) <= 8 * (2 + n_in + n_out) * U * condition
    assert condition**2 * U > 8 * (2 + n_in + n_out) * U * condition  # what Gram would cost


@pytest.mark.parametrize("scale_h", [5e-324, 1e-200, 1.0, 1e200, 1.7e308])
@pytest.mark.parametrize("scale_delta", [5e-324, 1e-300, 1.0, 1e300])
def test_no_scale_over_or_underflows(scale_h, scale_delta):
    h = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]) * scale_h
    delta = np.array([[1.0, 1.0], [1.0, 0.0]]) * scale_delta
    each, of_mean, _ = true_log_norms(h, delta)
    got = jm.weight_gradient_log_norms([h], [delta])[:, 0]
    np.testing.assert_allclose(got, each, rtol=4 * U, atol=16 * U)
    mean = jm.weight_gradient_log_norms([h], [delta], reduction="mean")
    np.testing.assert_allclose(mean, of_mean, rtol=4 * U, atol=64 * U)


def test_samples_of_any_scale_are_averaged_with_their_own_exponents():
    mantissa = np.array([[0.5], [0.5], [0.75], [0.5]])
    h = ScaledArray(mantissa, [100_000, 0, 99_999, -100_000])
    delta = ScaledArray(mantissa, [100_000, 0, 100_000, -100_000])
    exponents = np.array([200_000, 0, 199_999, -200_000])
    expected = 2 * np.log(mantissa[:, 0]) + exponents * np.log(2)
    got = jm.weight_gradient_log_norms([h], [delta])[:, 0]
    np.testing.assert_allclose(got, expected, rtol=4 * U)
    mean = jm.weight_gradient_log_norms([h], [delta], reduction="mean")
    total = (0.25 + 0.5625 / 2) / 4  # in units of 2^200000
    np.testing.assert_allclose(mean, np.log(total) + 200_000 * np.log(2), rtol=4 * U)


def test_what_a_trace_keeps_serves_as_deltas_where_floats_underflow(rng):
    """A hundred layers of gain 1e-30: the first delta is near 1e-3000."""
    n_samples, depth, n = 3, 100, 5
    weights = rng.standard_normal((depth, n, n)) * 1e-30
    slopes = rng.random((n_samples, depth, n))
    cotangent = rng.standard_normal((n_samples, n))
    h = rng.standard_normal((depth, n_samples, n))
    trace = jm.chain_vjp(weights, cotangent, slopes=slopes, slope_side="input", keep="all")
    got = jm.weight_gradient_log_norms(list(h), trace.vectors[1:])
    expected = np.log(np.linalg.norm(h, axis=-1)).T + trace.log_norms[:, 1:]
    assert got.shape == (n_samples, depth)
    np.testing.assert_allclose(got, expected, rtol=4 * U, atol=8 * n * U)
    assert got.min() < -6000
    # One sample's mean is itself.
    mean = jm.weight_gradient_log_norms(
        [x[:1] for x in h], [d[:1] for d in trace.vectors[1:]], reduction="mean"
    )
    np.testing.assert_allclose(mean, expected[0], rtol=4 * U, atol=16 * n * U)


def test_gradients_of_a_network_are_those_of_finite_differences(rng):
    """tanh(W1 tanh(W0 x)) with the loss v . output; exact derivatives by central differences."""
    weights = [rng.standard_normal((4, 3)), rng.standard_normal((2, 4))]
    x, v = rng.standard_normal(3), rng.standard_normal(2)

    def loss(w0, w1):
        return v @ np.tanh(w1 @ np.tanh(w0 @ x))

    step, expected = 1e-6, []
    for k, w in enumerate(weights):
        gradient = np.empty_like(w)
        for index in np.ndindex(w.shape):
            moved = [[u.copy() for u in weights] for _ in range(2)]
            moved[0][k][index] += step
            moved[1][k][index] -= step
            gradient[index] = (loss(*moved[0]) - loss(*moved[1])) / (2 * step)
        expected.append(np.linalg.norm(gradient))
    h = np.tanh(weights[0] @ x)
    slopes = [None, 1 - h**2]
    delta = v * (1 - np.tanh(weights[1] @ h) ** 2)
    trace = jm.chain_vjp(weights, delta, slopes=slopes, slope_side="input", keep="all")
    got = jm.weight_gradient_log_norms([x, h], trace.vectors[1:])
    np.testing.assert_allclose(np.exp(got), expected, rtol=1e-8)


def test_an_array_without_a_batch_serves_every_sample(rng):
    h, delta = rng.standard_normal(4), rng.standard_normal((3, 2))
    for reduction in ("none", "mean"):
        got = jm.weight_gradient_log_norms([h], [delta], reduction=reduction)
        full = jm.weight_gradient_log_norms([np.tile(h, (3, 1))], [delta], reduction=reduction)
        np.testing.assert_array_equal(got, full)
    one = jm.weight_gradient_log_norms([h, h], [delta[0], delta[1]])
    assert one.shape == (2,)
    expected = np.log(np.linalg.norm(h) * np.linalg.norm(delta[:2], axis=1))
    np.testing.assert_allclose(one, expected, rtol=0, atol=16 * U)


def test_zero_gradients_are_minus_infinity_and_leave_the_mean_alone():
    h = np.array([[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]])
    delta = np.array([[0.0], [5.0], [2.0]])
    got = jm.weight_gradient_log_norms([h], [delta])[:, 0]
    np.testing.assert_array_equal(got[:2], -np.inf)
    assert got[2] == pytest.approx(np.log(10), abs=4 * U)
    mean = jm.weight_gradient_log_norms([h], [delta], reduction="mean")
    np.testing.assert_allclose(mean, np.log(10 / 3), atol=8 * U)
    for reduction in ("none", "mean"):
        got = jm.weight_gradient_log_norms([h], [0 * delta], reduction=reduction)
        np.testing.assert_array_equal(got, -np.inf)


def test_empty_batches_and_empty_widths():
    assert jm.weight_gradient_log_norms([np.zeros((0, 3))], [np.zeros((0, 2))]).shape == (0, 1)
    got = jm.weight_gradient_log_norms([np.zeros((2, 0))], [np.ones((2, 3))])
    np.testing.assert_array_equal(got, -np.inf)
    assert jm.weight_gradient_log_norms([], []).shape == (0,)


def test_non_finite_entries_are_named_or_propagate():
    h, bad = np.ones((2, 3)), np.array([[1.0], [np.nan]])
    with pytest.raises(ValueError, match=r"deltas\[1\] must be finite, got nan at index \(1, 0\)"):
        jm.weight_gradient_log_norms([h, h], [np.ones((2, 1)), bad])
    got = jm.weight_gradient_log_norms([h], [bad], check_finite=False)[:, 0]
    assert got[0] == pytest.approx(np.log(3) / 2)
    assert np.isnan(got[1])
    got = jm.weight_gradient_log_norms([h], [bad], reduction="mean", check_finite=False)
    assert np.isnan(got).all()


@pytest.mark.parametrize(
    ("h", "delta", "options", "error", "message"),
    [
        ([np.ones(3)], [], {}, ValueError, r"deltas must hold one entry per entry .* 1, got 0"),
        ([np.ones(3)], [np.ones(2)] * 2, {}, ValueError, r"pass vectors\[1:\]"),
        ([np.ones((2, 3))], [np.ones((4, 2))], {}, ValueError, r"deltas\[0\] must hold 2 samples"),
        ([np.ones((2, 3, 4))], [np.ones(2)], {}, ValueError, r"activations\[0\] must have shape"),
        ([1.0], [np.ones(2)], {}, ValueError, r"activations\[0\] must have shape .* got \(\)"),
        ([np.ones(3) * 1j], [np.ones(2)], {}, TypeError, r"activations\[0\] must have a real"),
        ([np.ones(3)], [None], {}, TypeError, r"deltas\[0\] must be an array, got None"),
        ([np.ones(3)], [np.ones(2)], {"reduction": "sum"}, ValueError, "reduction must be one of"),
        ([np.ones((0, 3))], [np.ones((0, 2))], {"reduction": "mean"}, ValueError, "at least one"),
        (
            [ScaledArray(np.ones((2, 2)), 0)],
            [np.ones(2)],
            {},
            ValueError,
            r"activations\[0\] must have shape",
        ),
    ],
)
def test_rejections_name_the_argument(h, delta, options, error, message):
    with pytest.raises(error, match=message):
        jm.weight_gradient_log_norms(h, delta, **options)
