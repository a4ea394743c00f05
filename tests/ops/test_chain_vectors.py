"""Properties of chain_jvp and chain_vjp, and what they cost in memory and in waiting for Ctrl-C."""

from itertools import pairwise

import numpy as np
import pytest
from common import bytes_grown, reads_peak, seconds_after_ctrl_c
from hypothesis import given, settings
from hypothesis import strategies as st

import jacometry as jm
from jacometry.reference import chain as reference

WIDTHS = st.lists(st.sampled_from([1, 2, 3, 5, 8, 9, 17, 33]), min_size=2, max_size=6)


def random_chain(rng, widths, n_samples, dtype, side):
    """Weights and slopes, each shared or per sample or (slopes) absent, as the draw decides."""
    weights, slopes = [], []
    for n_in, n_out in pairwise(widths):
        own = (n_samples,) if rng.random() < 0.5 else ()
        weights.append((rng.standard_normal((*own, n_out, n_in)) / np.sqrt(n_in)).astype(dtype))
        own = (n_samples,) if rng.random() < 0.5 else ()
        s = rng.standard_normal((*own, n_out if side == "output" else n_in)).astype(dtype)
        slopes.append(None if rng.random() < 0.3 else s)
    return weights, slopes


def of_sample(arrays, sample, core_ndim):
    return [a if a is None or a.ndim == core_ndim else a[sample] for a in arrays]


def magnitudes(weights, slopes, side, shortcuts):
    """|c| I + |diag(s)| |W| of every layer, in float64."""
    found = []
    for w, s, c in zip(weights, slopes, shortcuts, strict=True):
        f = np.abs(w.astype(float))
        if s is not None:
            s = np.abs(s.astype(float))
            f = s[:, None] * f if side == "output" else f * s
        found.append(f + abs(c) * np.eye(*f.shape))
    return found


@settings(max_examples=60, deadline=None)
@given(
    widths=WIDTHS,
    side=st.sampled_from(["output", "input"]),
    is_float32=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_vjp_is_the_adjoint_of_jvp_whatever_the_chain(widths, side, is_float32, seed):
    """<J u, v> = <u, J^T v> within (n_k + 4) u a layer of the product of magnitudes, each way."""
    rng, n_samples, m = np.random.default_rng(seed), 3, 2
    dtype = np.dtype(np.float32 if is_float32 else np.float64)
    weights, slopes = random_chain(rng, widths, n_samples, dtype, side)
    is_square = [a == b for a, b in pairwise(widths)]
    shortcuts = np.where(is_square, rng.standard_normal(len(weights)), 0.0)
    shortcuts = shortcuts.astype(dtype).astype(float)  # kernels take them in their own dtype
    u = rng.standard_normal((n_samples, m, widths[0])).astype(dtype)
    v = rng.standard_normal((n_samples, m, widths[-1])).astype(dtype)
    options = {"slopes": slopes, "slope_side": side, "shortcut": shortcuts}
    ju = jm.chain_jvp(weights, u, **options).vector.to_array().astype(float)
    jtv = jm.chain_vjp(weights, v, **options).vector.to_array().astype(float)
    unit = np.finfo(dtype).eps / 2
    n_roundings = sum(n + 4 for n in widths)
    for i in range(n_samples):
        own = (of_sample(weights, i, 2), of_sample(slopes, i, 1))
        for j in range(m):
            size = np.abs(u[i, j].astype(float))
            for f in magnitudes(*own, side, shortcuts):
                size = f @ size
            bound = 2.02 * n_roundings * unit * (np.abs(v[i, j].astype(float)) @ size)
            left, right = v[i, j].astype(float) @ ju[i, j], u[i, j].astype(float) @ jtv[i, j]
            assert abs(left - right) <= bound + np.finfo(dtype).tiny


@settings(max_examples=30, deadline=None)
@given(
    widths=WIDTHS,
    side=st.sampled_from(["output", "input"]),
    transposed=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_interface_agrees_with_the_oracle_in_both_directions(widths, side, transposed, seed):
    rng, n_samples, m = np.random.default_rng(seed), 2, 3
    weights, slopes = random_chain(rng, widths, n_samples, np.dtype(float), side)
    push, oracle = (
        (jm.chain_vjp, reference.chain_vjp) if transposed else (jm.chain_jvp, reference.chain_jvp)
    )
    start = rng.standard_normal((n_samples, m, widths[-1 if transposed else 0]))
    trace = push(weights, start, slopes=slopes, slope_side=side, keep="all")
    assert trace.log_norms.shape == (n_samples, m, len(widths))
    assert [v.shape for v in trace.vectors] == [(n_samples, m, n) for n in widths]
    for i in range(n_samples):
        own = (of_sample(weights, i, 2), of_sample(slopes, i, 1))
        factors = magnitudes(*own, side, np.zeros(len(weights)))
        for j in range(m):
            expected = oracle(own[0], start[i, j], own[1], side)
            size = np.abs(start[i, j])
            order = range(len(widths))
            for passed, k in enumerate(reversed(order) if transposed else order):
                if passed:
                    size = factors[k].T @ size if transposed else factors[k - 1] @ size
                truth = np.ldexp(*expected[k])
                bound = 2.02 * (sum(widths) + 4 * len(widths)) * 2.0**-53 * np.linalg.norm(size)
                got = trace.vectors[k][i, j]
                assert np.linalg.norm(got.to_array() - truth) <= bound
                norm = np.linalg.norm(truth)
                if bound < 0.1 * norm:
                    slack = 1.1 * bound / norm + 2.0**-50 * (1 + abs(np.log(norm)))
                    assert abs(trace.log_norms[i, j, k] - np.log(norm)) <= slack
                    assert abs(trace.log_norms[i, j, k] - got.log_norm()) <= slack


@settings(max_examples=40, deadline=None)
@given(
    n=st.sampled_from([1, 2, 3, 5, 8, 9, 16, 17, 33]),
    layer=st.integers(0, 5),
    power=st.integers(-110, 110),
    what=st.sampled_from(["weights", "slopes"]),
    is_shared=st.booleans(),
    is_float32=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_scaling_a_factor_by_a_power_of_two_changes_exponents_only(
    n, layer, power, what, is_shared, is_float32, seed
):
    rng = np.random.default_rng(seed)
    dtype = np.dtype(np.float32 if is_float32 else np.float64)
    arrays = {
        "weights": rng.uniform(0.5, 1, (*(() if is_shared else (3,)), 6, n, n)).astype(dtype),
        "slopes": rng.uniform(0.5, 1, (3, 6, n)).astype(dtype),
    }
    moved = {name: array.copy() for name, array in arrays.items()}
    axis = -3 if what == "weights" else -2
    index = [slice(None)] * moved[what].ndim
    index[axis] = layer
    moved[what][tuple(index)] = np.ldexp(moved[what][tuple(index)], power)
    v = rng.standard_normal((3, n)).astype(dtype)
    for push, is_past in (
        (jm.chain_jvp, lambda k: k > layer),
        (jm.chain_vjp, lambda k: k <= layer),
    ):
        plain = push(arrays["weights"], v, slopes=arrays["slopes"], keep="all")
        scaled = push(moved["weights"], v, slopes=moved["slopes"], keep="all")
        for k, (a, b) in enumerate(zip(plain.vectors, scaled.vectors, strict=True)):
            np.testing.assert_array_equal(a.mantissa, b.mantissa)
            np.testing.assert_array_equal(b.exponent, a.exponent + (power if is_past(k) else 0))
        grown = plain.log_norms + [power * np.log(2) * is_past(k) for k in range(7)]
        np.testing.assert_allclose(scaled.log_norms, grown, rtol=0, atol=2.0**-44)


def test_a_vectors_bits_do_not_depend_on_how_many_there_are(isa, dtype, rng):
    """One, two, a tile and a part, a group and a part, several groups."""
    for n in (1, 2, 3, 7, 16, 33, 65):
        w = (rng.standard_normal((3, n, n)) / np.sqrt(n)).astype(dtype)
        s = rng.random((150, 3, n)).astype(dtype)
        v = rng.standard_normal((150, n)).astype(dtype)
        for push in (jm.chain_vjp, jm.chain_jvp):
            whole = push(w, v, slopes=s)
            for count in (1, 2, 3, 11, 65):
                part = push(w, v[-count:], slopes=s[-count:])
                np.testing.assert_array_equal(part.log_norms, whole.log_norms[-count:])
                np.testing.assert_array_equal(part.vector.mantissa, whole.vector.mantissa[-count:])
        own = np.broadcast_to(w, (4, *w.shape))
        many = np.ascontiguousarray(np.broadcast_to(v[:40], (4, 40, n)))
        for push in (jm.chain_vjp, jm.chain_jvp):
            whole = push(own, many)
            one = push(own, many[:, 7])
            np.testing.assert_array_equal(one.log_norms, whole.log_norms[:, 7])


@pytest.mark.parametrize("shape", [(5, 5), (8, 8), (3, 17), (4, 1), (1, 4)])
def test_samples_that_share_a_group_do_not_touch_each_other(isa, dtype, shape, rng):
    """One narrow layer with weights of each sample's own, some of them extreme, one not finite."""
    n_samples = 150
    w = rng.standard_normal((n_samples, *shape)).astype(dtype)
    v = rng.standard_normal((n_samples, 2, shape[1])).astype(dtype)
    slopes = rng.standard_normal((n_samples, shape[0])).astype(dtype)
    tiny = np.finfo(dtype).tiny
    for i, factor in ((20, tiny), (40, 1 / (8 * tiny)), (41, 0), (90, np.nan)):
        w[i] *= dtype.type(factor)
    options = {"check_finite": False, "n_threads": 2}
    together = jm.chain_jvp([w], v, slopes=[slopes], **options)
    for i in range(n_samples):
        part = slice(i, i + 1)
        alone = jm.chain_jvp([w[part]], v[part], slopes=[slopes[part]], **options)
        np.testing.assert_array_equal(together.log_norms[part], alone.log_norms)
        np.testing.assert_array_equal(together.vector.mantissa[part], alone.vector.mantissa)
        np.testing.assert_array_equal(together.vector.exponent[part], alone.vector.exponent)
    assert np.isnan(together.log_norms[90, :, 1]).all()
    with pytest.raises(ValueError, match="weights must be finite, got nan in sample 90, layer 0"):
        jm.chain_jvp([w], v, slopes=[slopes])
    w, v, slopes = (a.astype(float) for a in (w, v, slopes))
    exact = np.einsum("bij,bvj,bi->bvi", w, v, slopes)
    size = np.einsum("bij,bvj,bi->bvi", *map(np.abs, (w, v, slopes)))
    for i in (0, 19, 21, 89, 149):
        found = together.vector[i].mantissa * 2.0 ** together.vector[i].exponent[:, None]
        assert (np.abs(found - exact[i]) <= (shape[1] + 3) * np.finfo(dtype).eps * size[i]).all()


@pytest.mark.parametrize("name", ["tangent", "cotangent"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_start_vector_is_named_or_propagates(isa, name, bad, rng):
    push = jm.chain_jvp if name == "tangent" else jm.chain_vjp
    for weights in (rng.standard_normal((4, 5, 5)), rng.standard_normal((3, 4, 5, 5))):
        v = rng.standard_normal((3, 2, 5))
        v[1, 1, 4] = bad
        with pytest.raises(ValueError, match=rf"{name} must be finite, got {bad} at index \(1, 1"):
            push(weights, v)
        trace = push(weights, v, check_finite=False)
        assert not np.isfinite(trace.log_norms[1, 1]).any()
        assert np.isfinite(trace.log_norms[[0, 2]]).all()
        assert not np.isfinite(trace.vector.mantissa[1, 1]).all()


def test_integers_do_not_promote_and_wider_vectors_do():
    weights = np.ones((2, 3, 3), np.int32)
    for dtype in (np.float32, np.float64):
        assert jm.chain_vjp(weights, np.ones(3, dtype)).vector.dtype == dtype
        wide = jm.chain_jvp(np.ones((2, 3, 3), np.float32), np.ones(3, dtype))
        assert wide.vector.dtype == dtype


@reads_peak
def test_memory_beyond_the_results_does_not_grow_with_batch_or_depth():
    """B = 10^4, L = 10^3, n = 16, shared weights: 80 MB of log-norms, and a workspace."""
    setup = """
B, L, n = 10_000, 1_000, 16
w = np.linalg.qr(np.random.default_rng(0).standard_normal((L, n, n)))[0]
v = np.random.default_rng(1).standard_normal((B, n))
s = np.broadcast_to(np.random.default_rng(2).random((L, n)), (B, L, n))
jm.chain_vjp(w[:2], v[:2], slopes=s[:2, :2])
"""
    vector = "found.vector.mantissa.nbytes + found.vector.exponent.nbytes"
    # Per thread a few hundred kilobytes; 8 MB leave room for the allocator and thread stacks.
    grown = bytes_grown(setup, "jm.chain_vjp(w, v, slopes=s)", f"found.log_norms.nbytes + {vector}")
    assert grown <= 8e6


@pytest.mark.parametrize("call", ["chain_vjp(w, v)", "chain_jvp(w, v)", "chain_product(w)"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_ten_million_layers_stop_soon_after_ctrl_c(call, dtype):
    """With float32 weights and a float64 vector the weights are converted: of them, one matrix."""
    matrices = f'np.broadcast_to(np.eye(4, dtype="{dtype}"), (10**7, 4, 4))'
    # The promise is 0.1 s; ten times that tells polling from waiting on a busy machine.
    assert seconds_after_ctrl_c(f"w, v = {matrices}, np.ones(4)", f"jm.{call}") < 1.0
