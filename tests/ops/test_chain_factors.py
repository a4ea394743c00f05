"""chain_product, chain_jvp and chain_vjp on chains of every kind of factor."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator

import jacometry as jm
from jacometry import _backend
from jacometry.factors import Factor, Operator
from jacometry.ops._chain_arrays import read_chain
from jacometry.ops._chain_factors import layers_of
from jacometry.ops._chain_generic import ChainSegments, read_any

N, B = 6, 3


def kinds(rng, dtype=np.float64):
    """Square factors of every kind but those that couple the batch, shared and per sample."""

    def draw(*shape):
        return rng.standard_normal(shape).astype(dtype)

    return {
        "Dense": jm.Dense(draw(N, N)),
        "Diagonal": jm.Diagonal(draw(B, N)),
        "Dense per sample": jm.Dense(draw(B, N, N)),
        "Residual of one layer": jm.Residual([jm.Dense(draw(N, N)), jm.Diagonal(draw(B, N))], 0.5),
        "Conv1d": jm.Conv1d(draw(2, 2, 3), 3, padding=1, padding_mode="circular"),
        "Residual": jm.Residual(
            [jm.Dense(draw(4, N)), jm.Conv1d(draw(2, 2, 1), 2), jm.Dense(draw(N, 4))], -0.75
        ),
        "LayerNorm": jm.LayerNorm(draw(B, N), draw(N)),
        "sparse": Operator(scipy.sparse.csr_array(draw(N, N))),
        "BatchNorm": jm.BatchNorm(variance=rng.random(3).astype(dtype), input_shape=(2,)),
        "transposed": jm.Conv1d(draw(2, 2, 3), 3, padding="same").T,
    }


def matrix_of(factor, sample):
    """The matrix of a factor as one sample sees it, from its plain jvp, in float64."""
    columns = np.eye(factor.shape[1])
    if factor.n_samples is not None:
        columns = np.broadcast_to(columns, (factor.n_samples, *columns.shape))
        return factor.jvp(columns)[sample].astype(float).T
    return factor.jvp(columns).astype(float).T


def error_bound(matrices, vector, dtype):
    """Rounding of a push: n + 8 operations a factor, at the scale of the factors' norms."""
    growth = np.prod([np.linalg.norm(np.abs(m)) for m in matrices])
    n_terms = sum(4 * m.shape[1] + 16 for m in matrices)
    return n_terms * np.finfo(dtype).eps * growth * np.linalg.norm(vector)


@pytest.mark.parametrize("transposed", [False, True])
def test_vectors_through_every_kind_of_factor(isa, dtype, rng, transposed):
    factors = list(kinds(rng, dtype).values())
    chain = jm.Chain([*factors, *factors[::-1]])
    push = jm.chain_vjp if transposed else jm.chain_jvp
    for lead in [(), (B,), (B, 4)]:
        v = rng.standard_normal((*lead, N)).astype(dtype)
        trace = push(chain, v, keep="all")
        batch = lead or (B,)
        assert trace.log_norms.shape == (*batch, len(chain) + 1)
        assert trace.vector.dtype == dtype
        assert [x.shape[-1] for x in trace.vectors] == list(chain.widths)
        for index in np.ndindex(batch):
            matrices = [matrix_of(factor, index[0]) for factor in chain]
            steps = [m.T for m in matrices[::-1]] if transposed else matrices
            start = np.broadcast_to(v, (*batch, N))[index].astype(float)
            expected = [start]
            for m in steps:
                expected.append(m @ expected[-1])
            for k, vector in enumerate(expected):
                interface = len(chain) - k if transposed else k
                got = trace.vectors[interface][index].to_array().astype(float)
                bound = error_bound(steps[:k], start, dtype)
                assert np.linalg.norm(got - vector) <= bound
                slack = bound / np.linalg.norm(vector) + 8 * N * np.finfo(dtype).eps
                difference = trace.log_norms[(*index, interface)] - np.log(np.linalg.norm(vector))
                assert abs(difference) <= 1.01 * slack
        far = trace.vectors[0 if transposed else -1]
        np.testing.assert_array_equal(trace.vector.mantissa, far.mantissa)
        last_only = push(chain, v)
        np.testing.assert_array_equal(last_only.vector.mantissa, far.mantissa)
        np.testing.assert_array_equal(last_only.vector.exponent, far.exponent)
        np.testing.assert_array_equal(last_only.log_norms, trace.log_norms)


@pytest.mark.parametrize("widths", [(N, N), (2, 5), (5, 2), (1, 1)])
def test_product_of_every_kind_of_factor(isa, dtype, rng, widths):
    ends = [rng.standard_normal(s).astype(dtype) for s in [(N, widths[0]), (widths[1], N)]]
    factors = [jm.Dense(ends[0]), *kinds(rng, dtype).values(), jm.Dense(ends[1])]
    chain = jm.Chain(factors)
    product = jm.chain_product(chain)
    assert product.shape == (B, widths[1], widths[0])
    assert product.dtype == dtype
    assert (
        (np.abs(product.mantissa).max((1, 2)) >= 0.5) & (product.mantissa < 1).all((1, 2))
    ).all()
    written_out = read_chain(chain, None, "output", 0.0)
    assert all(w is not None or s is not None for w, s in
               zip(written_out.weights, written_out.slopes, strict=True))  # fmt: skip
    for i in range(B):
        expected = np.eye(widths[0])
        matrices = [matrix_of(factor, i) for factor in chain]
        for m in matrices:
            expected = m @ expected
        bound = error_bound(matrices, np.ones(widths[0]), dtype)
        assert np.linalg.norm(product[i].to_array() - expected) <= bound
        again = np.eye(widths[0])
        for k in range(written_out.n_layers):
            w, slopes, shortcut = written_out.layer(k, i)
            slopes = np.ones(len(w)) if slopes is None else slopes
            w = slopes[:, None] * w if written_out.slope_side == 0 else w * slopes
            again = w @ again + (shortcut * again if shortcut else 0)
        assert np.linalg.norm(again - expected) <= bound


def test_a_product_of_any_factors_goes_where_out_says(rng):
    every = kinds(rng)
    for names in (list(every), ["Conv1d", "sparse"], ["Dense", "Diagonal"]):
        chain = jm.Chain([every[name] for name in names])
        expected = jm.chain_product(chain)
        room = jm.ScaledArray(np.empty(expected.shape), np.zeros(expected.exponent.shape, np.int64))
        assert jm.chain_product(chain, out=room) is room
        np.testing.assert_array_equal(room.mantissa, expected.mantissa)
        np.testing.assert_array_equal(room.exponent, expected.exponent)
        with pytest.raises(ValueError, match=r"out.mantissa must have shape"):
            jm.chain_product(chain, out=jm.ScaledArray(np.empty((2, 2)), np.int64(0)))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from([*kinds(np.random.default_rng(0)), "coupled"]),
             st.integers(1, 3)), min_size=1, max_size=6),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_vjp_is_the_adjoint_of_jvp_through_any_factors(names, seed):
    """<J u, v> = <u, J' v>, over the whole batch where its samples are coupled."""
    rng = np.random.default_rng(seed)
    factors = kinds(rng) | {"coupled": jm.BatchNorm(rng.standard_normal((B, N)))}
    chain = jm.Chain([jm.Chain([factors[name]]).repeat(times) for name, times in names])
    u, v = rng.standard_normal((2, B, N))
    forwards, backwards = jm.chain_jvp(chain, u).vector, jm.chain_vjp(chain, v).vector
    left = (forwards.to_array() * v).sum()
    right = (u * backwards.to_array()).sum()
    size = np.linalg.norm(u) * np.linalg.norm(v)
    for factor in chain:
        if factor.couples_samples:  # its norm is at most that of its slopes
            size *= 3 * np.linalg.norm(factor.slopes)
        else:
            norms = [np.linalg.norm(np.abs(matrix_of(factor, i))) for i in range(B)]
            size *= max(norms) + 1
    assert abs(left - right) <= 16 * (N + B) * len(chain) * 2.0**-52 * size


def test_shared_chains_have_no_batch(isa, rng):
    shared = [f for f in kinds(rng).values() if f.n_samples is None]
    chain = jm.Chain(shared)
    product = jm.chain_product(chain)
    assert product.shape == (N, N)
    assert product.exponent.shape == ()
    np.testing.assert_allclose(product.to_array(), chain @ np.eye(N), rtol=1e-10, atol=1e-12)
    trace = jm.chain_vjp(chain, np.ones(N))
    assert trace.log_norms.shape == (len(chain) + 1,)
    np.testing.assert_allclose(trace.vector.to_array(), chain.T @ np.ones(N), atol=1e-11)
    several = jm.chain_vjp(chain, np.ones((2, 5, N)))
    np.testing.assert_allclose(several.log_norms[1, 3], trace.log_norms, atol=1e-13)


# ---- how factors become layers -----------------------------------------------------------------


def n_layers_and_opaque(factors):
    side, runs = layers_of(jm.Chain(factors), fuse=True)
    layers = [layer for run in runs for layer in run.layers]
    return side, len(layers), sum(layer.opaque is not None for layer in layers)


def test_neighbours_are_fused_on_the_side_that_leaves_least(rng):
    w, d = jm.Dense(rng.standard_normal((N, N))), jm.Diagonal(rng.random(N))
    norm = jm.BatchNorm(variance=rng.random(N))
    assert n_layers_and_opaque([w, d, w, d]) == ("output", 2, 0)
    assert n_layers_and_opaque([d, w, d, w]) == ("input", 2, 0)
    assert n_layers_and_opaque([d, w, d, w, d]) == ("output", 3, 0)
    assert n_layers_and_opaque([w, norm, d, w]) == ("output", 3, 0)
    assert n_layers_and_opaque([jm.Residual([w, d]), jm.Residual(w, 0.5)]) == ("output", 2, 0)
    assert n_layers_and_opaque([jm.Residual([d, w]), w]) == ("input", 2, 0)
    assert n_layers_and_opaque([jm.Residual([d, w, d]), w]) == ("output", 2, 1)
    assert n_layers_and_opaque([jm.LayerNorm(rng.random(N)), w, d]) == ("output", 2, 1)


@pytest.mark.parametrize("slopes_first", [False, True])
def test_fused_chains_give_the_bits_of_their_arrays(isa, dtype, rng, slopes_first):
    weights = rng.standard_normal((4, N, N)).astype(dtype)
    slopes = rng.standard_normal((B, 4, N)).astype(dtype)
    layers = [jm.Dense(w) for w in weights]
    diagonals = [jm.Diagonal(slopes[:, k]) for k in range(4)]
    pairs = (
        zip(diagonals, layers, strict=True) if slopes_first else zip(layers, diagonals, strict=True)
    )
    pairs = [list(pair) for pair in pairs]
    side = "input" if slopes_first else "output"
    got = jm.chain_product(jm.Chain([f for pair in pairs for f in pair]))
    expected = jm.chain_product(list(weights), slopes=slopes, slope_side=side)
    np.testing.assert_array_equal(got.mantissa, expected.mantissa)
    np.testing.assert_array_equal(got.exponent, expected.exponent)
    got = jm.chain_product(jm.Chain([jm.Residual(pair) for pair in pairs]))
    expected = jm.chain_product(list(weights), slopes=slopes, slope_side=side, shortcut=1.0)
    np.testing.assert_array_equal(got.mantissa, expected.mantissa)
    halves = jm.chain_product(jm.Chain([jm.Residual(pair, 0.5) for pair in pairs]))
    expected = jm.chain_product(list(weights), slopes=slopes / 2, slope_side=side, shortcut=1.0)
    np.testing.assert_array_equal(halves.mantissa, expected.mantissa)


def test_interfaces_are_those_between_the_chains_own_factors(isa, rng):
    w, s = rng.standard_normal((2, N, N)), rng.standard_normal((2, B, N))
    chain = jm.Chain([jm.Dense(w[0]), jm.Diagonal(s[0]), jm.Dense(w[1]), jm.Diagonal(s[1])])
    v = rng.standard_normal((B, N))
    for push in (jm.chain_jvp, jm.chain_vjp):
        trace = push(chain, v, keep="all")
        layers = push(list(w), v, slopes=list(s), keep="all")
        assert trace.log_norms.shape == (B, 5)
        assert len(trace.vectors) == 5
        np.testing.assert_allclose(trace.log_norms[:, ::2], layers.log_norms, atol=1e-13)
        z = trace.vectors[1].to_array()
        np.testing.assert_allclose(trace.log_norms[:, 1], np.log(np.linalg.norm(z, axis=1)))
    np.testing.assert_allclose(trace.vectors[3].to_array(), s[1] * v)


def test_a_scale_that_would_lose_digits_is_not_folded(isa):
    chain = jm.Chain([jm.Residual([jm.Dense([[1e300]]), jm.Diagonal([1e-300])], 1e-20)])
    expected = 1 + 1e-20
    assert jm.chain_product(chain).to_array()[0, 0] == pytest.approx(expected, rel=1e-15)
    chain = jm.Chain([jm.Residual([jm.Dense([[1e200]]), jm.Diagonal([1e-300])], 1e100)])
    assert jm.chain_product(chain).to_array()[0, 0] == pytest.approx(2.0, rel=1e-14)


# ---- repeats -----------------------------------------------------------------------------------


def test_repeats_give_what_the_factors_written_out_give(isa, dtype, rng):
    compiled = [f for k, f in kinds(rng, dtype).items() if k in ("Dense", "Diagonal", "BatchNorm")]
    v = rng.standard_normal((B, 2, N)).astype(dtype)
    for body in (jm.Chain(compiled), jm.Chain(kinds(rng, dtype).values())):
        once = jm.Chain([jm.Dense(rng.standard_normal((N, N)).astype(dtype))])
        for chain in (body.repeat(5), jm.Chain([once, body.repeat(3), once.repeat(4)])[1:-1]):
            flat = jm.Chain(list(chain))
            assert len(flat.runs) == 1
            for push in (jm.chain_jvp, jm.chain_vjp):
                got, expected = push(chain, v, keep="all"), push(flat, v, keep="all")
                np.testing.assert_array_equal(got.log_norms, expected.log_norms)
                for a, b in zip(got.vectors, expected.vectors, strict=True):
                    np.testing.assert_array_equal(a.mantissa, b.mantissa)
                    np.testing.assert_array_equal(a.exponent, b.exponent)
            got, expected = jm.chain_product(chain), jm.chain_product(flat)
            np.testing.assert_array_equal(got.mantissa, expected.mantissa)
            np.testing.assert_array_equal(got.exponent, expected.exponent)


def test_a_million_repeats_are_one_period_to_the_kernels(isa, rng):
    angle = 0.25
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    depth = 10**6
    chain = jm.Chain([jm.Dense(turn), jm.Diagonal([0.5, 0.5])]).repeat(depth)
    tracemalloc.start()
    product = jm.chain_product(chain)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
    assert float(product.log_norm(2)) == pytest.approx(-depth * np.log(2), abs=1e-9)
    longer = jm.chain_jvp(jm.Chain([jm.Diagonal([1.0, 2.0]), chain[: 2 * 10**5]]), [1.0, 0.0])
    assert longer.log_norms.shape == (2 * 10**5 + 2,)
    np.testing.assert_allclose(longer.log_norms[-1], -(10**5) * np.log(2), atol=1e-9)


def test_float32_chains_are_promoted_by_float64_vectors(isa, rng):
    chain = jm.Chain(kinds(rng, np.float32).values()).repeat(2)
    only_dense = jm.Chain([jm.Dense(rng.standard_normal((N, N)).astype(np.float32))] * 2).repeat(3)
    v = rng.standard_normal((B, N))
    for each in (chain, only_dense):
        trace = jm.chain_vjp(each, v)
        assert trace.vector.dtype == np.float64
        matrices = [matrix_of(factor, 1) for factor in each]
        expected = v[1]
        for m in matrices[::-1]:
            expected = m.T @ expected
        bound = error_bound(matrices, v[1], np.float64)
        # LayerNorm keeps its statistics, and Residual its folded slopes, in the chain's own dtype.
        assert np.linalg.norm(trace.vector[1].to_array() - expected) <= bound


# ---- scale -------------------------------------------------------------------------------------


def test_no_depth_and_no_scale_over_or_underflows(isa, dtype, rng):
    """Factors scaled by powers of two move exponents and log-norms, and not one digit."""
    far = 900 if dtype == np.float64 else 100
    w, kernel = (
        rng.standard_normal((N, N)).astype(dtype),
        rng.standard_normal((2, 2, 2)).astype(dtype),
    )
    x, gain = rng.standard_normal((B, N)).astype(dtype), rng.standard_normal(N).astype(dtype)

    def chain(power):
        return jm.Chain(
            [
                jm.Dense(np.ldexp(w, power)),
                jm.Conv1d(np.ldexp(kernel, power), 3, padding=((0, 1),)),
                jm.LayerNorm(x, np.ldexp(gain, power)),
                jm.BatchNorm(variance=np.ones(N, dtype), gain=np.ldexp(gain, power)),
            ]
        ).repeat(40)

    v = rng.standard_normal((B, N)).astype(dtype)
    plain = jm.chain_product(chain(0))
    for power in (far, -far):
        moved = jm.chain_product(chain(power))
        np.testing.assert_array_equal(moved.mantissa, plain.mantissa)
        np.testing.assert_array_equal(moved.exponent, plain.exponent + 160 * power)
        for push in (jm.chain_jvp, jm.chain_vjp):
            trace, still = push(chain(power), v), push(chain(0), v)
            np.testing.assert_array_equal(trace.vector.mantissa, still.vector.mantissa)
            steps = np.arange(161) if push is jm.chain_jvp else np.arange(160, -1, -1)
            shift = power * np.log(2) * steps
            tolerance = 8 * N * np.finfo(dtype).eps  # a norm is summed at the scale of the vector
            np.testing.assert_allclose(
                trace.log_norms, still.log_norms + shift, rtol=1e-15, atol=tolerance
            )


def test_sums_inside_a_convolution_do_not_overflow(isa):
    conv = jm.Conv1d(np.full((1, 4, 3), 1.7e308), 5, padding=1)
    trace = jm.chain_jvp(jm.Chain([conv]), np.ones(20))
    assert trace.log_norms[1] == pytest.approx(
        np.log(1.7e308) + np.log(np.linalg.norm([8, 12, 12, 12, 8])), abs=1e-12
    )


def test_a_residual_branch_may_pass_through_any_scale(isa):
    down, up = jm.Diagonal([1e-200] * 4), jm.Diagonal([1e200] * 4)
    conv = jm.Conv1d([[[2.0]]], 4)
    for branch in ([down, down, conv, up, up], [up, up, conv, down, down]):
        block = jm.Residual(branch, 0.5)
        chain = jm.Chain([block]).repeat(7)
        np.testing.assert_allclose(jm.chain_product(chain).to_array(), 128 * np.eye(4), rtol=1e-12)
        written_out = read_chain(chain, None, "output", 0.0)
        np.testing.assert_allclose(written_out.weights[0], 2 * np.eye(4), rtol=1e-12)
    huge = jm.Residual([up, up, up, conv])
    trace = jm.chain_jvp(jm.Chain([huge, huge]), [1.0, 0, 0, 0])
    np.testing.assert_allclose(
        trace.log_norms, np.arange(3) * (np.log(2) + 600 * np.log(10)), atol=1e-11
    )
    with pytest.raises(ValueError, match=r"factors\[0\] \(Residual\) is not finite as a matrix"):
        read_chain(jm.Chain([huge]), None, "output", 0.0)


def test_a_branch_that_cancels_the_shortcut_gives_exact_zeros(isa):
    block = jm.Residual([jm.Conv1d([[[1.0]]], 3)], -1.0)
    trace = jm.chain_jvp(jm.Chain([block, block, jm.Dense(np.ones((2, 3)))]), np.ones(3))
    assert trace.log_norms[0] == pytest.approx(np.log(3) / 2, rel=1e-15)
    assert (trace.log_norms[1:] == -np.inf).all()
    assert trace.vector.exponent == 0
    product = jm.chain_product(jm.Chain([block]))
    assert product.exponent == 0
    assert not product.mantissa.any()
    half = jm.Residual([jm.Conv1d([[[1.0]]], 1)], -0.5)
    assert jm.chain_product(jm.Chain([half]).repeat(100)).to_array() == 0.5**100  # theory: 7.9e-31


# ---- batch normalisation while training --------------------------------------------------------


def coupled_chain(rng, n_samples=5):
    x = rng.standard_normal((2, n_samples, N))
    return jm.Chain(
        [
            jm.Dense(rng.standard_normal((N, N))),
            jm.BatchNorm(x[0], rng.standard_normal(N)),
            jm.Diagonal(rng.random((n_samples, N))),
            jm.Residual([jm.BatchNorm(x[1]), jm.Dense(rng.standard_normal((N, N)))], 0.5),
            jm.LayerNorm(x[0]),
        ]
    )


@pytest.mark.parametrize("transposed", [False, True])
def test_coupled_samples_are_pushed_jointly(isa, rng, transposed):
    chain = coupled_chain(rng)
    push = jm.chain_vjp if transposed else jm.chain_jvp
    joint = chain.over_batch() @ np.eye(5 * N)
    joint = joint.T if transposed else joint
    v = rng.standard_normal((5, 2, N))
    trace = push(chain, v)
    for m in range(2):
        expected = (joint @ v[:, m].ravel()).reshape(5, N)
        np.testing.assert_allclose(trace.vector[:, m].to_array(), expected, atol=1e-11)
        alone = push(chain, v[:, m])
        np.testing.assert_allclose(alone.log_norms, trace.log_norms[:, m], atol=1e-12)
    # One sample far larger than the others decides for all; the sum is still joint.
    far = v[:, 0] * np.array([1.0, 2.0**-400, 1e-300, 2.0**500, 0.0])[:, None]
    expected = joint @ (far / 2.0**500).ravel()
    got = push(chain, far).vector
    np.testing.assert_allclose(
        np.ldexp(got.mantissa, (got.exponent - 500)[:, None]).ravel(), expected, atol=1e-11
    )


def test_batch_norm_nets_explode_at_the_rate_of_the_theory(rng):
    """Linear layers and BN: the gradient's mean square grows by (B - 2) / (B - 3) per layer.

    Without the first and the last layer, whose batches are not centred yet.  A layer's growth is a
    mean over n features of 1 / chi^2_7 times chi^2_6, each over its mean: relative variance
    (5/3) (4/3) - 1 = 1.2.  Five standard errors of the mean over the layers are allowed.
    """
    n_samples, n, depth = 8, 1000, 8
    h = rng.standard_normal((n_samples, n))
    factors = []
    for _ in range(depth):
        w = rng.standard_normal((n, n)) / np.sqrt(n)
        z = h @ w.T
        factors += [jm.Dense(w), jm.BatchNorm(z, eps=0.0)]
        h = (z - z.mean(0)) / z.std(0)
    trace = jm.chain_vjp(jm.Chain(factors), rng.standard_normal((n_samples, n)))
    energy = np.log(np.exp(2 * trace.log_norms).sum(0))[2:-2:2]
    rate = (energy[0] - energy[-1]) / (depth - 2)
    assert abs(rate - np.log(6 / 5)) <= 5 * np.sqrt(1.2 / (n * (depth - 2)))


def test_no_jacobian_per_sample_where_samples_are_coupled(rng):
    chain = coupled_chain(rng)
    message = r"factors\[1\] \(BatchNorm\) couples the samples .* use .*chain.over_batch\(\)"
    with pytest.raises(ValueError, match=message):
        jm.chain_product(chain)
    with pytest.raises(ValueError, match=message):
        read_chain(chain, None, "output", 0.0)
    with pytest.raises(ValueError, match=r"factors\[0\] \(Residual\) couples"):
        jm.chain_product(chain[3:4])
    whole = jm.chain_product(jm.Chain([chain.over_batch()])).to_array()
    np.testing.assert_allclose(whole, chain.over_batch() @ np.eye(5 * N), atol=1e-11)


# ---- the rest ----------------------------------------------------------------------------------


def test_results_do_not_depend_on_threads_or_the_rest_of_the_batch(isa, dtype, rng):
    factors = list(kinds(rng, dtype).values())
    v = rng.standard_normal((B, 4, N)).astype(dtype)
    chain = jm.Chain(factors)
    for push in (jm.chain_jvp, jm.chain_vjp):
        one, four = push(chain, v, n_threads=1), push(chain, v, n_threads=4)
        np.testing.assert_array_equal(one.log_norms, four.log_norms)
        np.testing.assert_array_equal(one.vector.mantissa, four.vector.mantissa)
        shared = jm.Chain([f for f in factors if f.n_samples is None and type(f) is not Operator])
        part, whole = push(shared, v[1:2]), push(shared, v)
        np.testing.assert_array_equal(part.log_norms, whole.log_norms[1:2])


def test_the_references_take_every_chain(rng, monkeypatch):
    v = rng.standard_normal((B, N))
    body = jm.Chain(kinds(rng).values()).repeat(2)
    dense = jm.Chain([jm.Dense(rng.standard_normal((N, N))), jm.Diagonal(v)]).repeat(3)
    for chain in (body, dense, jm.Chain([dense, body[:2]])):
        product, trace = jm.chain_product(chain), jm.chain_vjp(chain, v)
        with monkeypatch.context() as patch:
            patch.setattr(_backend, "name", "reference")
            again, trace_again = jm.chain_product(chain), jm.chain_vjp(chain, v)
        np.testing.assert_allclose(again.log_norm(), product.log_norm(), atol=1e-11)
        np.testing.assert_allclose(trace_again.log_norms, trace.log_norms, atol=1e-11)


def test_empty_batches_and_widths_pass_through(isa):
    chain = jm.Chain([jm.Conv1d(np.ones((2, 2, 1)), 3), jm.Dense(np.ones((4, 6)))])
    assert jm.chain_jvp(chain, np.zeros((0, 6))).log_norms.shape == (0, 3)
    assert jm.chain_vjp(chain, np.zeros((2, 0, 4))).vector.shape == (2, 0, 6)
    no_samples = jm.Chain([*chain, jm.Diagonal(np.ones((0, 4)))])
    assert jm.chain_product(no_samples).shape == (0, 4, 6)
    assert jm.chain_jvp(no_samples, np.ones(6)).log_norms.shape == (0, 4)
    hollow = jm.Chain([Operator(scipy.sparse.csr_array((0, 3))), jm.Dense(np.ones((2, 0)))])
    np.testing.assert_array_equal(jm.chain_product(hollow).to_array(), np.zeros((2, 3)))
    np.testing.assert_array_equal(jm.chain_vjp(hollow, np.ones(2)).vector.to_array(), np.zeros(3))


def with_a_bad_entry(where):
    """A chain of B samples and where in it the NaN is named."""
    w, s, kernel = np.ones((B, N, N)), np.ones((B, N)), np.ones((2, 2, 1))
    inner_w = np.ones((N, N))
    {"w": w, "s": s, "kernel": kernel, "inner": inner_w}[where].flat[-1] = np.nan
    branch = [jm.Conv1d(np.ones((2, 2, 1)), 3), jm.Dense(inner_w), jm.Diagonal(np.ones(N))]
    return jm.Chain([jm.Residual(branch), jm.Dense(w), jm.Diagonal(s), jm.Conv1d(kernel, 3)])


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("w", r"^factors\[1\] must be finite, got nan in sample 2"),
        ("s", r"^factors\[2\] must be finite, got nan in sample 2"),
        ("kernel", r"^factors\[3\] \(Conv1d\) must give finite vectors, got nan for sample 0"),
        ("inner", r"^factors\[0\]\.chain\.factors\[1\] must be finite, got nan"),
    ],
)
def test_a_non_finite_entry_is_named_by_factor_and_sample(isa, where, message):
    chain = with_a_bad_entry(where)
    repeated = jm.Chain([jm.Chain([jm.Diagonal(np.ones(N))]).repeat(10), chain.repeat(2)])
    later = message
    for k in range(3, -1, -1):
        later = later.replace(rf"^factors\[{k}\]", rf"^factors\[{k + 10}\]")
    for call in (
        lambda c, **o: jm.chain_product(c, **o),
        lambda c, **o: jm.chain_jvp(c, np.ones((B, N)), **o),
        lambda c, **o: jm.chain_vjp(c, np.ones((B, 2, N)), **o),
    ):
        with pytest.raises(ValueError, match=message):
            call(chain)
        with pytest.raises(ValueError, match=r"must .* finite"):
            call(repeated)
        result = call(chain, check_finite=False)
        values = result.mantissa if hasattr(result, "mantissa") else result.vector.mantissa
        assert np.isnan(values[2]).any()
        if where in ("w", "s"):
            assert np.isfinite(values[:2]).all()
    with pytest.raises(ValueError, match=later):
        jm.chain_jvp(repeated, np.ones((B, N)))


def test_fused_layers_name_the_factor_of_the_chain(isa):
    s = np.ones((B, N))
    s[1, 2] = np.inf
    eye = jm.Dense(np.eye(N))
    for factors, k in (([eye, jm.Diagonal(s), eye], 1), ([jm.Diagonal(s), eye], 0)):
        for chain in (jm.Chain(factors), jm.Chain([jm.Chain(factors), jm.Chain([eye]).repeat(3)])):
            with pytest.raises(
                ValueError, match=rf"factors\[{k}\] must be finite, got inf in samp"
            ):
                jm.chain_product(chain)
    good, late = jm.Diagonal(np.ones(N)), jm.Chain([eye, jm.Diagonal(s)])
    chain = jm.Chain([jm.Chain([eye, good]).repeat(6), late])
    with pytest.raises(ValueError, match=r"factors\[13\] must be finite, got inf in sample 1"):
        jm.chain_product(chain)


def test_a_factor_of_the_wrong_shape_is_named():
    class Wrong(Factor):
        shape = (4, 4)

        def jvp(self, tangent):
            return tangent[..., :2]

        vjp = jvp

    with pytest.raises(ValueError, match=r"factors\[1\] \(Wrong\) must map vectors .* got \(2,\)"):
        jm.chain_jvp(jm.Chain([jm.Dense(np.eye(4)), Wrong()]), np.ones(4))


def test_slopes_do_not_go_with_a_chain(rng):
    for chain in (jm.Chain([jm.Dense(np.eye(N))]), jm.Chain(kinds(rng).values())):
        with pytest.raises(ValueError, match="slopes must be left out where weights is a Chain"):
            jm.chain_product(chain, slopes=np.ones((1, N)))
        with pytest.raises(ValueError, match="shortcut must be left out"):
            jm.chain_jvp(chain, np.ones(N), shortcut=1.0)


def test_only_chains_with_unknown_factors_leave_the_kernels(rng):
    every = kinds(rng)
    known = [every[k] for k in ("Dense", "Diagonal", "Residual of one layer", "BatchNorm")]
    assert not isinstance(read_any(jm.Chain(known), None, "output", 0.0), ChainSegments)
    assert isinstance(read_any(jm.Chain(every.values()), None, "output", 0.0), ChainSegments)
    assert isinstance(jm.Chain(known), LinearOperator)
