"""chain_log_svdvals against its oracle, python-flint and constructed spectra, within its bound."""

from itertools import pairwise

import numpy as np
import pytest
from common import bytes_grown, reads_peak, seconds_after_ctrl_c

import jacometry as jm
from jacometry.reference import chain_spectra as reference

SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17]


def orthogonal(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def assert_within_bound(got, truth):
    """|value - truth| <= error, -inf exactly where the truth is unless the error is inf."""
    values, error = got.values, got.error
    assert values.shape == error.shape == truth.shape
    assert (error >= 0).all()
    certain = np.isfinite(error)
    zero = certain & np.isinf(truth)
    np.testing.assert_array_equal(values[zero], -np.inf)
    rest = certain & ~zero
    assert (np.abs(values[rest] - truth[rest]) <= error[rest]).all()
    tight = rest & (error < 1e-9)
    assert (np.abs(values[tight] - truth[tight]) <= 1e-9).all()


@pytest.mark.parametrize("side", ["output", "input"])
@pytest.mark.parametrize("n", SIZES)
def test_chain_log_svdvals_agrees_with_the_oracle(isa, dtype, rng, n, side):
    for n_layers, has_slopes, shortcut in [(1, True, 0.5), (3, False, 0.0), (5, True, 0.25)]:
        weights = rng.standard_normal((n_layers, n, n)).astype(dtype)
        slopes = rng.random((n_layers, n)).astype(dtype) if has_slopes else None
        got = jm.chain_log_svdvals(weights, slopes=slopes, slope_side=side, shortcut=shortcut)
        assert got.values.dtype == np.float64
        truth = reference.chain_log_svdvals(weights, slopes, side, shortcut, digits=150)
        assert_within_bound(got, truth)
        assert np.isfinite(got.error).all()


@pytest.mark.parametrize(
    "widths", [[3, 5, 7, 2, 4], [9, 5, 9, 9, 6], [2, 8, 8, 8], [8, 8, 1, 8], [17, 3, 20], [1, 5, 1]]
)
def test_rectangular_chains_have_the_rank_of_the_narrowest_layer(isa, dtype, rng, widths):
    weights = [rng.standard_normal((b, a)).astype(dtype) for a, b in pairwise(widths)]
    got = jm.chain_log_svdvals(weights)
    rank = min(widths)
    truth = reference.chain_log_svdvals(weights, digits=150)
    truth[rank:] = -np.inf
    assert len(truth) == min(widths[0], widths[-1])
    assert_within_bound(got, truth)
    assert np.isfinite(got.error).all()
    assert np.isfinite(got.values[:rank]).all()


@pytest.mark.parametrize("side", ["output", "input"])
def test_a_shortcut_in_a_rectangular_chain_agrees_with_the_oracle(isa, dtype, rng, side):
    weights = [rng.standard_normal(shape).astype(dtype) for shape in [(7, 5), (7, 7), (6, 7)]]
    slopes = [None, rng.random(7).astype(dtype), None]
    shortcut = [0.0, 0.75, 0.0]
    got = jm.chain_log_svdvals(weights, slopes=slopes, slope_side=side, shortcut=shortcut)
    truth = reference.chain_log_svdvals(weights, slopes, side, shortcut, digits=150)
    assert_within_bound(got, truth)
    assert (got.error < 1e-9).all()


def test_constructed_spectrum_of_four_hundred_layers(isa, rng):
    """theory: J_k = Q_k diag(exp(linspace(-3, 3, 8))) Q_{k-1}^T."""
    bases = [orthogonal(rng, 8) for _ in range(401)]
    scale = np.exp(np.linspace(-3, 3, 8))
    weights = np.stack([bases[k + 1] @ (scale[:, None] * bases[k].T) for k in range(400)])
    got = jm.chain_log_svdvals(weights)
    truth = [1200, 857.142857142857, 514.285714285714, 171.428571428571]
    truth = np.array([*truth, *(-x for x in truth[::-1])])
    # Rounding the factors given moves a log by at most 400 e^6 of the roundings of two products.
    np.testing.assert_allclose(got.values, truth, rtol=0, atol=1e-9)
    assert (got.error < 1e-8).all()


@pytest.mark.parametrize("n", [64])
def test_constructed_spectrum_from_plus_to_minus_twelve_hundred(isa, rng, n):
    """J_k = Q_{k+1} diag(d) Q_k^T: forming J_k moves each log by about n u cond(J_k) = n u e^6."""
    log_scale = np.linspace(3, -3, n)
    bases = [np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(401)]
    weights = [bases[k + 1] * np.exp(log_scale) @ bases[k].T for k in range(400)]
    got = jm.chain_log_svdvals(weights)
    truth = 400 * log_scale
    assert np.isfinite(got.error).all()
    assert_within_bound(got, truth)
    # The promise.  Forming the factors may cost 400 n u e^6 = 1.1e-9 if every rounding conspires.
    np.testing.assert_allclose(got.values, truth, rtol=0, atol=1e-9)


def flint_log_svdvals(weights, digits):
    """All of them: the LR iteration on the Gram matrix of the product, with proved enclosures."""
    import flint

    before, flint.ctx.prec = flint.ctx.prec, int(digits * 3.33)
    try:
        product = flint.arb_mat(weights[0].tolist())
        for w in weights[1:]:
            product = flint.arb_mat(w.tolist()) * product
        gram = product * product.transpose()
        n = len(weights[0])
        for _ in range(4):
            lower = flint.arb_mat(n, n)
            for j in range(n):
                for i in range(j, n):
                    x = gram[i, j] - sum(
                        (lower[i, k] * lower[j, k] for k in range(j)), flint.arb(0)
                    )
                    lower[i, j] = x.sqrt() if i == j else x / lower[j, j]
            gram = lower.transpose() * lower
        logs = [lower[i, i].log() for i in range(n)]
        assert all(float(x.rad()) < 1e-30 for x in logs)
        return np.array(sorted((float(x.mid()) for x in logs), reverse=True))
    finally:
        flint.ctx.prec = before


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_all_values_of_a_thousand_gaussian_factors_agree_with_flint(isa, rng, n):
    """Every one within its bound, which is a worst case: 1000 layers times some 100 n u."""
    weights = rng.standard_normal((1000, n, n))
    got = jm.chain_log_svdvals(weights)
    # By then neighbours lie e^4 apart or more, and steps of the iteration square their quotient.
    truth = flint_log_svdvals(weights, 6000)
    assert_within_bound(got, truth)
    # The bound is a worst case over 1000 layers: some 1e-11, 1e-10, 1e-9 and 1e-8.
    assert (got.error < 1e-9 * {2: 1, 4: 10, 8: 100, 16: 100}[n]).all()
    np.testing.assert_allclose(got.values, truth, rtol=0, atol=1e-9)


@pytest.mark.parametrize("eps", [1e-3, 1e-6, 1e-9, 0.0])
def test_a_turn_of_what_grew_into_what_shrinks_is_seen_by_the_bound(isa, rng, eps):
    """diag(x, 1/x) R diag(x, 1/x) with R nearly a right angle: cond 1, and yet ill-posed."""
    grow = np.diag([10.0, 0.1])
    q = orthogonal(rng, 2)
    turn = np.array([[eps, -1.0], [1.0, eps]])
    weights = [grow] * 10 + [q @ turn] + [grow @ q.T] + [grow] * 10
    assert_within_bound(
        jm.chain_log_svdvals(weights), reference.chain_log_svdvals(weights, digits=200)
    )
    quarter = np.array([[np.cos(np.pi / 2), -1.0], [1.0, np.cos(np.pi / 2)]])
    weights = [np.diag([1e10, 1e-10]), quarter, np.diag([1e10, 1e-10])]
    assert_within_bound(
        jm.chain_log_svdvals(weights), reference.chain_log_svdvals(weights, digits=200)
    )


def test_the_bound_holds_on_hard_factors(isa, rng):
    q = [orthogonal(rng, 6) for _ in range(12)]
    decades = 10.0 ** np.arange(0, -60, -10)
    near = rng.standard_normal((6, 5)) @ rng.standard_normal((5, 6))
    hilbert = 1 / (np.arange(6)[:, None] + np.arange(6) + 1.0)
    chains = {
        "rows graded": [decades[:, None] * q[k] for k in range(4)],
        "columns graded": [q[k] * decades for k in range(4)],
        "nearly singular": [q[0], near, q[1]],
        "singular": [np.ones((4, 4)), rng.standard_normal((4, 4))],
        "hilbert": [hilbert] * 4,
        "orthogonal": q,
        "triangular": [np.triu(rng.standard_normal((6, 6))) for _ in range(5)],
        "an eigenvector": [q[0][:, 1:2]] + [q[0] @ np.diag([10.0, 1, 1, 1, 1, 1]) @ q[0].T] * 8,
    }
    for weights in chains.values():
        got = jm.chain_log_svdvals(weights)
        truth = reference.chain_log_svdvals(weights, digits=500)
        assert_within_bound(got, truth)
    assert np.isinf(jm.chain_log_svdvals(chains["singular"]).error[-1])


@pytest.mark.parametrize("side", ["output", "input"])
def test_dead_units_give_exactly_as_many_zeros(isa, dtype, rng, side):
    n, n_layers = 7, 9
    weights = rng.standard_normal((n_layers, n, n)).astype(dtype)
    mask = (rng.random((4, n_layers, n)) < 0.7).astype(dtype)
    got = jm.chain_log_svdvals(weights, slopes=mask, slope_side=side)
    for i in range(4):
        rank = int(mask[i].sum(-1).min())
        np.testing.assert_array_equal(got.values[i, rank:], -np.inf)
        np.testing.assert_array_equal(got.error[i, rank:], 0)
        assert np.isfinite(got.values[i, :rank]).all()
        truth = reference.chain_log_svdvals(weights, mask[i], side, digits=150)
        truth[rank:] = -np.inf
        assert_within_bound(jm.LogSingularValues(got.values[i], got.error[i]), truth)


def test_zero_rows_columns_and_products(isa, rng):
    w = rng.standard_normal((3, 5, 5))
    w[1, 2] = 0
    w[2, :, [0, 4]] = 0
    got = jm.chain_log_svdvals(w)
    # Column 2 of the last factor meets the zero row, columns 0 and 4 are zero: two are left.
    np.testing.assert_array_equal(np.isinf(got.values), [False] * 2 + [True] * 3)
    np.testing.assert_array_equal(got.error[2:], 0)
    w[0] = 0
    zero = jm.chain_log_svdvals(w)
    np.testing.assert_array_equal(zero.values, -np.inf)
    np.testing.assert_array_equal(zero.error, 0)


def test_diagonal_chains_of_any_range_are_right(isa):
    got = jm.chain_log_svdvals([np.diag([1e300, 1e-300])] * 3)
    np.testing.assert_allclose(got.values, 900 * np.log(10) * np.array([1, -1]), rtol=1e-15)
    assert (got.error < 1e-9).all()
    got = jm.chain_log_svdvals(np.full((4, 3, 3), 1.7e308) * np.eye(3))
    np.testing.assert_allclose(got.values, 4 * np.log(1.7e308), rtol=1e-15)


def test_short_products_agree_with_numpy(isa, dtype, rng):
    weights = rng.standard_normal((11, 2, 6, 6)).astype(dtype)
    got = jm.chain_log_svdvals(weights)
    product = weights[:, 1].astype(float) @ weights[:, 0].astype(float)
    s = np.linalg.svd(product, compute_uv=False)
    # LAPACK's own error is about n u sigma_1 in every value.
    slack = 6 * 2.0**-50 * s[:, :1] / s
    assert (np.abs(got.values - np.log(s)) <= got.error + slack).all()


def hard_chain(rng, n, n_layers):
    """A chain of factors of many kinds, few of them well conditioned."""
    kinds = []
    for _ in range(n_layers):
        q, g = orthogonal(rng, n), rng.standard_normal((n, n))
        spread = 10.0 ** rng.uniform(-rng.integers(1, 6), 0, n)
        kinds.append(
            [
                g,
                q,
                q * spread,
                spread[:, None] * q,
                np.triu(g),
                np.eye(n) + 0.1 * g,
                np.outer(g[0], g[1]) + 1e-5 * g,
                q * spread @ orthogonal(rng, n),
                np.diag(spread)[rng.permutation(n)],
            ][rng.integers(9)]
        )
    return kinds


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_the_bound_holds_on_random_hard_chains(isa, rng, n):
    n_finite = 0
    for n_layers in [2, 3, 5, 8, 13] * 3:
        weights = hard_chain(rng, n, n_layers)
        got = jm.chain_log_svdvals(weights)
        assert_within_bound(got, reference.chain_log_svdvals(weights, digits=600))
        n_finite += np.isfinite(got.error).sum()
    assert n_finite > 15 * n / 2


@pytest.mark.parametrize("n", [16, 24])
def test_a_thousand_layers_are_not_cut(isa, n):
    """In no instruction set: at the cuts the bound loses the digits."""
    got = jm.chain_log_svdvals(np.random.default_rng(n).standard_normal((1000, n, n)))
    assert (got.error < 1e-6).all()


@pytest.mark.parametrize("n", [16, 32])
def test_a_chain_longer_than_the_store_of_layers_is_within_its_bound(isa, rng, n):
    """Layers that meet, so that the truth is known, and Gaussian ones, in their sum."""
    depth = 1800 if n == 32 else 8000
    log_scale = np.linspace(0.5, -0.5, n)
    bases = np.linalg.qr(rng.standard_normal((depth + 1, n, n)))[0]
    met = bases[1:] * np.exp(log_scale) @ bases[:-1].swapaxes(1, 2)
    weights = np.stack([met, rng.standard_normal((depth, n, n))])
    got = jm.chain_log_svdvals(weights)
    assert np.isfinite(got.error[0]).all()
    # Forming the factors costs each log at most n u cond per layer.
    forming = depth * 2 * n * 2.0**-53 * np.e
    assert (np.abs(got.values[0] - depth * log_scale) <= got.error[0] + forming).all()
    assert (got.error[0] < 1e-5).all()
    log_det = np.linalg.slogdet(weights[1])[1].sum()
    # LAPACK's own error: n u times the condition of each factor, a few hundred.
    assert abs(got.values[1].sum() - log_det) <= got.error[1].sum() + 1e-8


def test_samples_that_do_not_go_in_lanes_do_not_disturb_their_neighbours(isa, rng):
    weights = rng.standard_normal((6, 5, 4, 4))
    plain = jm.chain_log_svdvals(weights)
    odd = weights.copy()
    odd[1, 2, 3] = 0  # a zero row
    odd[3, 1] *= 1e250
    odd[4, 0] = np.ones((4, 4))
    got = jm.chain_log_svdvals(odd)
    for i in (0, 2, 5):
        np.testing.assert_array_equal(got.values[i], plain.values[i])
        np.testing.assert_array_equal(got.error[i], plain.error[i])
    assert got.values[1, -1] == -np.inf
    assert got.error[1, -1] == 0
    expected = plain.values[3] + 250 * np.log(10)
    assert (np.abs(got.values[3] - expected) <= got.error[3] + plain.error[3] + 1e-12).all()
    for i in (1, 3, 4):
        lone = jm.chain_log_svdvals(odd[i])
        np.testing.assert_array_equal(got.values[i], lone.values)
        np.testing.assert_array_equal(got.error[i], lone.error)


def test_a_long_end_in_pieces_gives_what_lapack_gives(rng):
    """The rotations of wide factors are cut, so that Ctrl-C is heard in between."""
    weights = rng.standard_normal((2, 1, 150, 150))
    got = jm.chain_log_svdvals(weights)
    expected = np.log(np.linalg.svd(weights[:, 0], compute_uv=False))
    slack = 150 * 2.0**-50 * np.exp(expected[:, :1] - expected)
    assert (np.abs(got.values - expected) <= got.error + slack).all()
    np.testing.assert_array_equal(got.values[1], jm.chain_log_svdvals(weights[1]).values)


@pytest.mark.parametrize(
    "chain",
    [
        "np.broadcast_to(np.array([[1, 0.3], [0.2, 1]]), (10**7, 2, 2))",
        "np.broadcast_to(np.random.default_rng(1).standard_normal((24, 24)), (10**7, 24, 24))",
        "jm.Chain([jm.Dense(np.random.default_rng(1).standard_normal((3, 3)))]).repeat(10**7)",
        "np.random.default_rng(1).standard_normal((1, 400, 400))",
    ],
)
def test_long_calls_stop_soon_after_ctrl_c(chain):
    # The promise is 0.1 s; ten times that tells polling from waiting on a busy machine.
    assert seconds_after_ctrl_c(f"chain = {chain}", "jm.chain_log_svdvals(chain)") < 1.0


def test_scaling_a_factor_shifts_every_log(isa, dtype, rng):
    weights = rng.standard_normal((6, 9, 9)).astype(dtype)
    slopes = rng.random((6, 9)).astype(dtype)
    plain = jm.chain_log_svdvals(weights, slopes=slopes).values
    for layer, power in [(0, 40), (2, -60), (5, 90)]:
        moved = weights.copy()
        moved[layer] = np.ldexp(moved[layer], power)
        shifted = jm.chain_log_svdvals(moved, slopes=slopes).values
        expected = plain + power * np.log(2)
        assert (np.abs(shifted - expected) <= 4 * np.spacing(np.abs(expected) + abs(power))).all()


def test_orthogonal_factors_and_the_transpose_change_nothing(isa, rng):
    weights = list(rng.standard_normal((5, 7, 7)))
    plain = jm.chain_log_svdvals(weights)
    turned = jm.chain_log_svdvals([orthogonal(rng, 7), *weights, orthogonal(rng, 7)])
    transposed = jm.chain_log_svdvals([w.T for w in weights[::-1]])
    # The orthogonal factors are so up to n u.
    for other in (turned, transposed):
        slack = plain.error + other.error + 4 * 7 * 2.0**-53
        assert (np.abs(other.values - plain.values) <= slack).all()


@pytest.mark.parametrize("n", [3, 16, 33])
def test_chain_log_svdvals_does_not_depend_on_threads_or_batch(isa, dtype, rng, n):
    weights = rng.standard_normal((7, 6, n, n)).astype(dtype)
    slopes = rng.random((7, 6, n)).astype(dtype)
    for w in (weights, weights[0]):
        one = jm.chain_log_svdvals(w, slopes=slopes, n_threads=1)
        four = jm.chain_log_svdvals(w, slopes=slopes, n_threads=4)
        part = jm.chain_log_svdvals(w if w.ndim == 3 else w[2:5], slopes=slopes[2:5])
        lone = jm.chain_log_svdvals(w if w.ndim == 3 else w[4], slopes=slopes[4])
        np.testing.assert_array_equal(one.values, four.values)
        np.testing.assert_array_equal(one.error, four.error)
        np.testing.assert_array_equal(one.values[2:5], part.values)
        np.testing.assert_array_equal(one.values[4], lone.values)
        np.testing.assert_array_equal(one.error[4], lone.error)


def test_long_items_taken_in_layer_ranges_give_the_same_bits(isa, rng):
    """An item of more than about 3e7 flops is worked on in ranges; eight short ones in one go."""
    n = 12
    depth = int(3.2e7 / (6 * n**3)) + 3
    weights = rng.standard_normal((depth, n, n)) / np.sqrt(n)
    whole = jm.chain_log_svdvals(weights)
    halved = jm.chain_log_svdvals(np.concatenate([weights[: depth // 2]]))
    rest = jm.chain_log_svdvals(weights[depth // 2 :])
    # Log-determinants add up.
    total = halved.values.sum() + rest.values.sum()
    room = whole.error.sum() + halved.error.sum() + rest.error.sum()
    assert abs(whole.values.sum() - total) <= room


def test_shapes_k_and_empty_input(rng):
    weights = rng.standard_normal((4, 3, 5, 5))
    full = jm.chain_log_svdvals(weights)
    assert full.values.shape == full.error.shape == (4, 5)
    np.testing.assert_array_equal(jm.chain_log_svdvals(weights, k=2).values, full.values[:, :2])
    assert jm.chain_log_svdvals(weights[0]).values.shape == (5,)
    np.testing.assert_array_equal(jm.chain_log_svdvals(np.zeros((0, 3, 3))).values, np.zeros(3))
    assert jm.chain_log_svdvals(np.zeros((0, 3, 2, 2))).values.shape == (0, 2)
    assert jm.chain_log_svdvals([np.zeros((0, 2)), np.zeros((3, 0))]).values.tolist() == [
        -np.inf,
        -np.inf,
    ]
    with pytest.raises(ValueError, match=r"k must be at most min\(n_0, n_L\) = 5, got 6"):
        jm.chain_log_svdvals(weights, k=6)


def test_a_chain_object_gives_what_its_arrays_give(isa, rng):
    weights = [rng.standard_normal((5, 3)), rng.standard_normal((4, 5))]
    slopes = [rng.random(5), None]
    chain = jm.Chain([jm.Dense(weights[0]), jm.Diagonal(slopes[0]), jm.Dense(weights[1])])
    np.testing.assert_array_equal(
        jm.chain_log_svdvals(chain).values, jm.chain_log_svdvals(weights, slopes=slopes).values
    )
    lone = jm.Chain([jm.Diagonal([2.0, 3.0, 4.0]), jm.Dense(weights[0])])
    expected = np.log(np.linalg.svd(weights[0] * [2.0, 3.0, 4.0], compute_uv=False))
    np.testing.assert_allclose(jm.chain_log_svdvals(lone).values, expected, atol=1e-13)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_non_finite_entry_is_named_by_sample_and_layer(isa, dtype, rng, bad):
    weights = rng.standard_normal((3, 5, 4, 4)).astype(dtype)
    weights[1, 3, 2, 0] = bad
    with pytest.raises(ValueError, match=f"weights must be finite, got {bad} in sample 1, layer 3"):
        jm.chain_log_svdvals(weights)
    got = jm.chain_log_svdvals(weights, check_finite=False)
    assert np.isnan(got.values[1]).all()
    assert np.isnan(got.error[1]).all()
    assert np.isfinite(got.values[[0, 2]]).all()


@reads_peak
def test_memory_beyond_the_results_does_not_grow_with_batch_or_depth():
    """Shared weights and slopes that are a broadcast view: 32 MB if they were written out."""
    setup = """
B, L, n = 1_000, 250, 16
w = np.linalg.qr(np.random.default_rng(0).standard_normal((L, n, n)))[0]
s = np.broadcast_to(np.random.default_rng(1).uniform(0.5, 1, (L, n)), (B, L, n))
jm.chain_log_svdvals(w, slopes=s[:64], n_threads=1)
"""
    call = "jm.chain_log_svdvals(w, slopes=s, n_threads=1)"
    # The store of layers and the rest of the workspace were there before; 4 MB for the allocator.
    assert bytes_grown(setup, call, "found.values.nbytes + found.error.nbytes") < 4e6
