"""chain_product, chain_jvp and chain_vjp against their oracles and against exact arithmetic."""

from fractions import Fraction
from itertools import pairwise

import mpmath
import numpy as np
import pytest

import jacometry as jm
from jacometry.ops.scaled import ScaledArray
from jacometry.reference import chain as reference

SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 24, 31, 32, 33, 64, 65]


def unit_roundoff(dtype):
    return np.finfo(dtype).eps / 2


def gaussian_layers(rng, widths, dtype, n_samples=None):
    """Matrices of unit gain, one per pair of widths."""
    batch = () if n_samples is None else (n_samples,)
    return [
        (rng.standard_normal((*batch, n_out, n_in)) / np.sqrt(n_in)).astype(dtype)
        for n_in, n_out in pairwise(widths)
    ]


def product_bound(weights, slopes, side, shortcut, dtype):
    """sum_k (n_k + 4) u  |F_{L-1}| ... |F_0| in the Frobenius norm, as (log bound)."""
    log_bound = 0.0
    for k, w in enumerate(weights):
        f = np.abs(w.astype(float))
        if slopes is not None and slopes[k] is not None:
            s = np.abs(np.asarray(slopes[k], float))
            f = s[:, None] * f if side == "output" else f * s
        if shortcut:
            f = f + abs(shortcut) * np.eye(len(f))
        log_bound += np.log(np.linalg.norm(f))
    n_terms = sum(w.shape[1] + 4 for w in weights)
    return log_bound + np.log(n_terms * unit_roundoff(dtype) + 4 * len(weights) * 2.0**-53)


def assert_product_close(got, expected, log_bound):
    """|got - expected| in the Frobenius norm, at the scale of the bound."""
    mantissa, exponent = expected
    scale = int(np.floor(log_bound / np.log(2)))
    difference = np.ldexp(got.mantissa.astype(float), int(got.exponent) - scale) - np.ldexp(
        mantissa, int(exponent) - scale
    )
    assert np.linalg.norm(difference) <= 2.0


@pytest.mark.parametrize("side", ["output", "input"])
@pytest.mark.parametrize("n", SIZES)
def test_chain_product_agrees_with_the_oracle(isa, dtype, rng, n, side):
    cases = [(1, True, 0.5), (5, False, 0.0), (6, True, 0.25), (5, True, 0.0)]
    for n_layers, with_slopes, shortcut in cases:
        weights = np.stack(gaussian_layers(rng, [n] * (n_layers + 1), dtype))
        slopes = rng.random((n_layers, n)).astype(dtype) if with_slopes else None
        got = jm.chain_product(weights, slopes=slopes, slope_side=side, shortcut=shortcut)
        assert got.dtype == dtype
        assert got.shape == (n, n)
        expected = reference.chain_product(weights, slopes, side, shortcut)
        assert_product_close(got, expected, product_bound(weights, slopes, side, shortcut, dtype))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_small_batched_chain_product_agrees_with_the_oracle_and_with_itself(isa, dtype, rng, n):
    """Samples that share vectors: 35 leave some over, and three fit no common window."""
    weights = (rng.standard_normal((35, 5, n, n)) / np.sqrt(n)).astype(dtype)
    weights[3] *= 2.0**30
    weights[9, 2] *= 2.0**-60
    weights[20] *= 2.0**-30
    together = jm.chain_product(weights)
    for i, own in enumerate(weights):
        alone = jm.chain_product(own)
        np.testing.assert_array_equal(together.mantissa[i], alone.mantissa)
        assert together.exponent[i] == alone.exponent
        expected = reference.chain_product(own)
        assert_product_close(alone, expected, product_bound(own, None, "output", 0, dtype))


@pytest.mark.parametrize(
    "widths", [[3, 5, 2], [1, 7, 1], [17, 3, 40, 9], [64, 1, 33], [40, 60, 50, 3]]
)
def test_rectangular_mixed_chains_agree_with_the_oracle(isa, dtype, rng, widths):
    n_layers, n_samples = len(widths) - 1, 3
    weights = gaussian_layers(rng, widths, dtype)
    weights[0] = np.stack([weights[0]] * n_samples) * np.arange(1, 4, dtype=dtype)[:, None, None]
    slopes = [None] * n_layers
    slopes[-1] = rng.random((n_samples, widths[-1])).astype(dtype)
    got = jm.chain_product(weights, slopes=slopes)
    assert got.shape == (n_samples, widths[-1], widths[0])
    for i in range(n_samples):
        layers = [weights[0][i], *weights[1:]]
        own = [*slopes[:-1], slopes[-1][i]]
        expected = reference.chain_product(layers, own)
        assert_product_close(got[i], expected, product_bound(layers, own, "output", 0, dtype))


def test_integer_chains_are_exact(isa, rng):
    weights = rng.integers(-3, 4, (6, 5, 5))
    exact = np.eye(5, dtype=object)
    for w in weights.astype(object):
        exact = w @ exact
    np.testing.assert_array_equal(jm.chain_product(weights).to_array(), exact.astype(float))


@pytest.mark.parametrize("n", [129, 150, 230])
def test_matrices_wider_than_a_row_block_are_exact_for_integers(isa, dtype, rng, n):
    weights = rng.integers(-1, 2, (3, n, n))
    product = jm.chain_product(weights.astype(dtype))
    # No sum exceeds 230**2, so every one of them is exact in float32 too.
    assert np.array_equal(product.to_array(), weights[2] @ weights[1] @ weights[0])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16])
def test_chains_that_leave_the_window_half_way_keep_their_digits(isa, dtype, rng, n):
    weights = rng.standard_normal((2, 9, n, n)).astype(dtype)
    plain = jm.chain_product(weights)
    for step in (-9, 9, -60, 60):
        shifted = jm.chain_product(np.ldexp(weights, step))
        assert np.array_equal(shifted.mantissa, plain.mantissa)
        assert np.array_equal(shifted.exponent, plain.exponent + 9 * step)


@pytest.mark.parametrize("n", [2, 7, 16])
def test_chain_product_error_is_within_the_bound_of_exact_rationals(isa, dtype, rng, n):
    weights = np.stack(gaussian_layers(rng, [n] * 9, dtype))
    exact = np.eye(n, dtype=object)
    absolute = np.eye(n)
    for w in weights:
        exact = np.array([[Fraction(float(x)) for x in row] for row in w], dtype=object) @ exact
        absolute = np.abs(w.astype(float)) @ absolute
    got = jm.chain_product(weights)
    values = np.ldexp(got.mantissa.astype(float), int(got.exponent))
    error = np.array(
        [[float(Fraction(x) - y) for x, y in zip(a, b, strict=True)]
         for a, b in zip(values, exact, strict=True)]
    )  # fmt: skip
    assert (np.abs(error) <= 8 * (n + 2) * unit_roundoff(dtype) * absolute).all()


@pytest.mark.parametrize("log10_scale", [-30, 30])
def test_hundred_thousand_layers_keep_every_digit_of_the_log_norm(isa, rng, log10_scale):
    depth, n = 100_000, 4
    scale = 10.0**log10_scale
    weights = rng.standard_normal((depth, n, n))
    u = 2.0**-53
    with mpmath.workprec(200):
        growth = depth * mpmath.log(mpmath.mpf(scale))
        # Rounding W * scale moves every entry by u: at most the promise for exact input once more.
        bound = 2 * n * depth * u + 2 * u * abs(growth)
        scaled, plain = jm.chain_product(weights * scale), jm.chain_product(weights)
        assert abs(mpmath.mpf(float(scaled.log_norm())) - growth - float(plain.log_norm())) <= bound
        scaled = jm.chain_vjp(weights * scale, np.ones(n)).log_norms[0]
        plain = jm.chain_vjp(weights, np.ones(n)).log_norms[0]
        assert abs(mpmath.mpf(float(scaled)) - growth - float(plain)) <= bound


@pytest.mark.parametrize("scale", [1e300, 1e-300, 1.7e308, 5e-324])
def test_extreme_factors_lose_nothing(isa, scale):
    weights = np.full((7, 3, 3), scale)
    slopes = np.full((7, 3), 1 / 1.7e308 if scale > 1 else 1.7e308)
    for side in ("output", "input"):
        got = jm.chain_product(weights, slopes=slopes, slope_side=side, shortcut=0.0)
        log_factor = np.log(scale) + np.log(slopes[0, 0]) + np.log(3)
        assert float(got.log_norm()) == pytest.approx(7 * log_factor, abs=1e-9)
        vector = jm.chain_vjp(weights, np.ones(3), slopes=slopes, slope_side=side)
        start = np.log(3) / 2
        np.testing.assert_allclose(
            vector.log_norms, start + log_factor * np.arange(7, -1, -1), atol=1e-9
        )


def test_sums_that_overflow_inside_a_step_are_rescued(isa):
    w = np.full((2, 4, 4), 1.7e308)
    w[:, :, ::2] *= -1
    w[0, 0] = 1.7e308
    exact = np.array([[Fraction(float(x)) for x in row] for row in w[1]], dtype=object) @ np.array(
        [[Fraction(float(x)) for x in row] for row in w[0]], dtype=object
    )
    got = jm.chain_product(w)
    for mine, truth in zip(got.mantissa.ravel(), exact.ravel(), strict=True):
        scaled = truth / Fraction(2) ** int(got.exponent)
        assert abs(float(scaled) - mine) <= 8 * 2.0**-53


def test_scaling_a_factor_by_a_power_of_two_changes_exponents_only(isa, dtype, rng):
    weights = np.stack(gaussian_layers(rng, [9] * 6, dtype))
    slopes = rng.random((5, 9)).astype(dtype)
    plain = jm.chain_product(weights, slopes=slopes)
    for k, power in [(0, 40), (2, -60), (4, 100)]:
        moved = weights.copy()
        moved[k] = np.ldexp(moved[k], power)
        scaled = jm.chain_product(moved, slopes=slopes)
        np.testing.assert_array_equal(scaled.mantissa, plain.mantissa)
        assert scaled.exponent == plain.exponent + power


@pytest.mark.parametrize("n", [3, 16, 33])
def test_chain_kernels_do_not_depend_on_threads_or_batch(isa, dtype, rng, n):
    weights = rng.standard_normal((23, 8, n, n)).astype(dtype)
    shared = weights[0]
    slopes = rng.random((23, 8, n)).astype(dtype)
    v = rng.standard_normal((23, n)).astype(dtype)
    for w in (weights, shared):
        one = jm.chain_product(w, slopes=slopes, n_threads=1)
        four = jm.chain_product(w, slopes=slopes, n_threads=4)
        np.testing.assert_array_equal(one.mantissa, four.mantissa)
        np.testing.assert_array_equal(one.exponent, four.exponent)
        for push in (jm.chain_vjp, jm.chain_jvp):
            a = push(w, v, slopes=slopes, n_threads=1)
            b = push(w, v, slopes=slopes, n_threads=4)
            np.testing.assert_array_equal(a.log_norms, b.log_norms)
            np.testing.assert_array_equal(a.vector.mantissa, b.vector.mantissa)
            part = push(w if w is shared else w[5:8], v[5:8], slopes=slopes[5:8])
            np.testing.assert_array_equal(part.log_norms, a.log_norms[5:8])
        np.testing.assert_array_equal(
            jm.chain_product(w if w is shared else w[5:8], slopes=slopes[5:8]).mantissa,
            one.mantissa[5:8],
        )


@pytest.mark.parametrize(
    ("call", "n", "fields"),
    [
        (jm.chain_product, 330, ["mantissa", "exponent"]),
        (jm.lyapunov_spectrum, 205, ["exponents", "stderr"]),
        (jm.chain_log_svdvals, 80, ["values", "error"]),
    ],
)
def test_one_layer_may_be_a_long_item_and_threads_more_than_items(isa, rng, call, n, fields):
    """Long items keep a workspace each, however few layers they have."""
    weights = rng.standard_normal((2, 1, n, n))
    options = {"rng": 1} if call is jm.lyapunov_spectrum else {}
    many, one = (call(weights, n_threads=n_threads, **options) for n_threads in (8, 1))
    for field in fields:
        np.testing.assert_array_equal(getattr(many, field), getattr(one, field))


def test_long_items_taken_in_layer_ranges_give_the_same_bits(isa, dtype, rng):
    """An item of more than about 3e7 flops is worked on in ranges, a shorter one in one go."""
    n = 40
    depth = int(3.2e7 / (2 * n**3)) + 3
    weights = (rng.standard_normal((depth, n, n)) / np.sqrt(n)).astype(dtype)
    whole = jm.chain_product(weights)
    half = depth // 2
    product = jm.chain_product(weights[half:]) @ jm.chain_product(weights[:half])
    assert float(whole.log_norm()) == pytest.approx(
        float(product.log_norm()), abs=float(depth * n * unit_roundoff(dtype))
    )
    expected = reference.chain_product(weights)
    assert_product_close(whole, expected, product_bound(weights, None, "output", 0, dtype))


@pytest.mark.parametrize("side", ["output", "input"])
@pytest.mark.parametrize("n", [1, 2, 5, 8, 17, 40])
@pytest.mark.parametrize("transposed", [False, True])
def test_vectors_agree_with_the_oracle(isa, dtype, rng, n, side, transposed):
    n_samples, m, n_layers = 5, 3, 4
    push = jm.chain_vjp if transposed else jm.chain_jvp
    oracle = reference.chain_vjp if transposed else reference.chain_jvp
    own = rng.standard_normal((n_samples, n_layers, n, n)).astype(dtype) / dtype.type(np.sqrt(n))
    slopes = rng.random((n_samples, n_layers, n)).astype(dtype)
    v = rng.standard_normal((n_samples, m, n)).astype(dtype)
    for weights in (own, own[0]):
        trace = push(weights, v, slopes=slopes, slope_side=side, shortcut=0.5, keep="all")
        assert trace.log_norms.shape == (n_samples, m, n_layers + 1)
        for i in range(n_samples):
            w = weights[i] if weights.ndim == 4 else weights
            for j in range(m):
                expected = oracle(w, v[i, j], slopes[i], side, 0.5)
                growth = np.prod([np.linalg.norm(np.abs(f)) + 0.5 for f in w.astype(float)])
                bound = n_layers * (n + 4) * unit_roundoff(dtype) * growth * np.linalg.norm(v[i, j])
                for k, (mantissa, exponent) in enumerate(expected):
                    truth = np.ldexp(mantissa, exponent)
                    got = trace.vectors[k][i, j].to_array()
                    assert np.linalg.norm(got - truth) <= bound
                    norm = np.linalg.norm(truth)
                    slack = bound / norm + 8 * unit_roundoff(dtype) * n
                    assert abs(trace.log_norms[i, j, k] - np.log(norm)) <= 1.01 * slack


def test_vjp_is_the_adjoint_of_jvp(isa, dtype, rng):
    widths = [7, 12, 3, 9]
    weights = gaussian_layers(rng, widths, dtype)
    slopes = [rng.random(n).astype(dtype) for n in widths[1:]]
    u, v = rng.standard_normal(7).astype(dtype), rng.standard_normal(9).astype(dtype)
    left = v @ jm.chain_jvp(weights, u, slopes=slopes).vector.to_array()
    right = jm.chain_vjp(weights, v, slopes=slopes).vector.to_array() @ u
    size = np.linalg.norm(u) * np.linalg.norm(v) * np.prod([np.linalg.norm(w) for w in weights])
    assert abs(left - right) <= 2 * sum(n + 4 for n in widths) * unit_roundoff(dtype) * size


def test_vjp_of_the_identity_rows_is_the_product(isa, rng):
    weights = rng.standard_normal((4, 6, 6))
    rows = jm.chain_vjp(weights, np.eye(6)[None]).vector.to_array()[0]
    np.testing.assert_allclose(rows, jm.chain_product(weights).to_array(), rtol=1e-12, atol=1e-13)


def test_zero_products_and_zero_vectors_are_exactly_zero(isa):
    weights = np.array([[[0.0, 1.0], [0.0, 0.0]]] * 3)
    product = jm.chain_product(weights)
    np.testing.assert_array_equal(product.mantissa, 0)
    assert product.exponent == 0
    assert product.log_norm() == -np.inf
    trace = jm.chain_jvp(weights, [0.0, 1.0])
    np.testing.assert_array_equal(trace.log_norms, [0, 0, -np.inf, -np.inf])
    assert trace.vector.exponent == 0


def test_a_chain_object_gives_what_its_arrays_give(isa, rng):
    weights = [rng.standard_normal((5, 3)), rng.standard_normal((2, 5))]
    slopes = [rng.random((4, 5)), rng.random((4, 2))]
    chain = jm.Chain(
        [jm.Dense(weights[0]), jm.Diagonal(slopes[0]), jm.Dense(weights[1]), jm.Diagonal(slopes[1])]
    )
    np.testing.assert_array_equal(
        jm.chain_product(chain).mantissa, jm.chain_product(weights, slopes=slopes).mantissa
    )
    lone = jm.Chain([jm.Diagonal([2.0, 3.0, 4.0]), jm.Dense(weights[0])])
    np.testing.assert_allclose(jm.chain_product(lone).to_array(), weights[0] * [2.0, 3.0, 4.0])
    np.testing.assert_allclose(lone @ np.ones(3), weights[0] @ [2.0, 3.0, 4.0])
    np.testing.assert_allclose(lone.T @ np.ones(5), weights[0].sum(0) * [2.0, 3.0, 4.0])


def test_empty_shapes_give_empty_or_zero_results():
    assert jm.chain_product(np.zeros((0, 3, 2, 2))).shape == (0, 2, 2)
    np.testing.assert_array_equal(jm.chain_product(np.zeros((0, 3, 3))).to_array(), np.eye(3))
    np.testing.assert_array_equal(
        jm.chain_product([np.zeros((0, 2)), np.zeros((3, 0))]).to_array(), np.zeros((3, 2))
    )
    assert jm.chain_vjp(np.zeros((3, 2, 2)), np.zeros((0, 2))).log_norms.shape == (0, 4)
    assert jm.chain_vjp(np.zeros((3, 2, 2)), np.zeros((4, 0, 2))).vector.shape == (4, 0, 2)
    trace = jm.chain_jvp(np.zeros((0, 2, 2)), [3.0, 4.0])
    np.testing.assert_allclose(trace.log_norms, [np.log(5)])
    np.testing.assert_array_equal(trace.vector.to_array(), [3.0, 4.0])


def test_any_layout_of_the_input_gives_the_same_bits(rng):
    plain = rng.standard_normal((2, 3, 4, 4))
    expected = jm.chain_product(plain).mantissa
    layouts = {
        "fortran": np.asfortranarray(plain),
        "big endian": plain.astype(">f8"),
        "strided": np.repeat(plain, 2, axis=1)[:, ::2],
        "reversed": plain[:, ::-1][:, ::-1],
        "nested list": plain.tolist(),
    }
    for name, w in layouts.items():
        if name == "nested list":
            w = np.array(w)
        np.testing.assert_array_equal(jm.chain_product(w).mantissa, expected, err_msg=name)
    shared = np.broadcast_to(plain[0, 0], (1000, 4, 4))
    np.testing.assert_array_equal(
        jm.chain_product(shared).mantissa, jm.chain_product(shared.copy()).mantissa
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda w: jm.chain_product(w[0]), ValueError, r"weights must have shape .*\(3, 3\)"),
        (lambda w: jm.chain_product(None), TypeError, "weights must be an array, got None"),
        (lambda w: jm.chain_product(w + 1j), TypeError, "weights must have a real floating dtype"),
        (lambda w: jm.chain_product([]), ValueError, "weights must hold at least one factor"),
        (
            lambda w: jm.chain_product([np.ones((2, 3)), np.ones((4, 5))]),
            ValueError,
            r"weights\[1\] must have 2 columns, the rows of layer 0, got 5",
        ),
        (
            lambda w: jm.chain_product([np.ones((2, 3))], shortcut=1.0),
            ValueError,
            r"shortcut must be 0 where weights are not square, got 1 at layer 0",
        ),
        (
            lambda w: jm.chain_product(w, slopes=np.ones((2, 3))),
            ValueError,
            r"slopes must have shape \(4, 3\)",
        ),
        (
            lambda w: jm.chain_product(np.stack([w] * 2), slopes=np.ones((3, 4, 3))),
            ValueError,
            "slopes must hold 2 samples",
        ),
        (lambda w: jm.chain_product(w, slope_side="left"), ValueError, "slope_side must be one of"),
        (lambda w: jm.chain_product(w, n_threads=0), ValueError, "n_threads must be at least 1"),
        (lambda w: jm.chain_product(w, n_threads=1.5), TypeError, "n_threads must be a positive"),
        (lambda w: jm.chain_vjp(w, np.ones(2)), ValueError, r"cotangent must have shape \(3,\)"),
        (lambda w: jm.chain_jvp(w, np.ones(2)), ValueError, r"tangent must have shape \(3,\)"),
        (lambda w: jm.chain_jvp(w, [1, np.nan, 1]), ValueError, "tangent must be finite, got nan"),
        (lambda w: jm.chain_jvp(w, np.ones(3), keep="some"), ValueError, "keep must be one of"),
        (
            lambda w: jm.chain_product(np.ma.masked_less(w, 0)),
            TypeError,
            "weights must not be masked",
        ),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(rng, call, error, message):
    with pytest.raises(error, match=message):
        call(rng.standard_normal((4, 3, 3)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_entry_is_named_by_sample_and_layer(isa, dtype, rng, bad):
    weights = rng.standard_normal((3, 5, 4, 4)).astype(dtype)
    slopes = np.ones((3, 5, 4), dtype)
    for array, name in ((weights, "weights"), (slopes, "slopes")):
        broken = array.copy()
        broken[1, 3, 2] = bad
        arguments = {"weights": weights, "slopes": slopes, name: broken}
        match = f"{name} must be finite, got {bad} in sample 1, layer 3"
        w = arguments.pop("weights")
        with pytest.raises(ValueError, match=match):
            jm.chain_product(w, **arguments)
        with pytest.raises(ValueError, match=match):
            jm.chain_vjp(w, np.ones((3, 4)), **arguments)
        with pytest.raises(ValueError, match=match):
            jm.chain_jvp(w, np.ones((3, 4)), **arguments)
        product = jm.chain_product(w, check_finite=False, **arguments)
        assert not np.isfinite(product.to_array()[1]).all()
        assert np.isfinite(product.to_array()[[0, 2]]).all()
        assert product.exponent[1] == 0
        trace = jm.chain_vjp(w, np.ones((3, 4)), check_finite=False, **arguments)
        assert not np.isfinite(trace.vector.mantissa[1]).all()
        assert np.isfinite(trace.log_norms[[0, 2]]).all()


def test_scaled_array_warns_when_it_does_not_fit_and_rounds_as_ieee_says():
    scaled = ScaledArray(np.array([[0.5]]), np.int64(5000))
    assert scaled.to_array()[0, 0] == np.inf
    with pytest.warns(jm.JacometryWarning, match="over- or underflow"):
        np.asarray(scaled)
    tiny = ScaledArray(np.array([[0.75]]), np.int64(-1074))
    assert tiny.to_array()[0, 0] == 5e-324
    assert tiny.log_abs()[0, 0] == pytest.approx(np.log(0.75) - 1074 * np.log(2))


def test_scaled_arrays_multiply_and_transpose(rng):
    a, b = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 4, 5))
    left, right = ScaledArray.from_array(a), ScaledArray.from_array(b)
    np.testing.assert_allclose((left @ right).to_array(), a @ b)
    np.testing.assert_allclose((left @ b).to_array(), a @ b)
    np.testing.assert_allclose((a @ right).to_array(), a @ b)
    np.testing.assert_allclose(left.T.to_array(), np.swapaxes(a, 1, 2))
    for order in ("fro", 1, 2, np.inf):
        np.testing.assert_allclose(
            left.log_norm(order), np.log(np.linalg.norm(a, order, axis=(1, 2)))
        )
    assert (np.abs(left.mantissa).max((1, 2)) < 1).all()
    assert (np.abs(left.mantissa).max((1, 2)) >= 0.5).all()
