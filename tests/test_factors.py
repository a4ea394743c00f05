"""The factors of a chain: their matrices, their adjoints, and chains as sequences of them."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, aslinearoperator, svds

import jacometry as jm
from jacometry.factors import (
    BatchNorm,
    Chain,
    Conv1d,
    Conv2d,
    Dense,
    Diagonal,
    Factor,
    LayerNorm,
    Operator,
    Residual,
)

N, B = 6, 3


def every_factor(rng):
    """One factor of every kind, N x N or of N columns, shared and per sample."""
    w, s = rng.standard_normal((B, N, N)), rng.standard_normal((B, N))
    return {
        "Dense": Dense(rng.standard_normal((4, N))),
        "Dense per sample": Dense(w),
        "Diagonal": Diagonal(s[0]),
        "Diagonal per sample": Diagonal(s),
        "Residual": Residual([Dense(w[0]), Diagonal(s[0])], 0.5),
        "Residual per sample": Residual(Chain([Diagonal(s), Dense(w[0]), LayerNorm(s)]), -2.0),
        "Conv1d": Conv1d(rng.standard_normal((4, 2, 2)), 3, padding=1, stride=2),
        "Conv2d": Conv2d(rng.standard_normal((2, 1, 2, 2)), (2, 3), padding="same"),
        "BatchNorm at inference": BatchNorm(
            variance=rng.random(3), gain=rng.standard_normal(3), input_shape=(2,)
        ),
        "BatchNorm in training": BatchNorm(
            rng.standard_normal((B, 3, 2)), rng.standard_normal(3), eps=0.1
        ),
        "LayerNorm": LayerNorm(s[0], rng.standard_normal(N)),
        "LayerNorm per sample": LayerNorm(s, rng.standard_normal(N), eps=0.1),
        "sparse matrix": Operator(scipy.sparse.csr_array(w[0] * (w[1] > 0))),
        "LinearOperator": Operator(aslinearoperator(rng.standard_normal((4, N)))),
        "transposed": Conv1d(rng.standard_normal((2, 2, 2)), 2, padding=1).T,
    }


KINDS = list(every_factor(np.random.default_rng(0)))


def matrices(factor):
    """The matrix of a factor, (B, n_out, n_in) where it has samples, from its jvp."""
    columns = np.eye(factor.shape[1])
    if factor.n_samples is not None:
        columns = np.broadcast_to(columns, (factor.n_samples, *columns.shape))
    return np.swapaxes(factor.jvp(columns), -1, -2)


def joint_matrix(factor):
    """The matrix (B n_out, B n_in) of a factor of B samples on the flattened batch."""
    columns = np.eye(B * factor.shape[1]).reshape(-1, B, factor.shape[1]).swapaxes(0, 1)
    return factor.jvp(columns).swapaxes(0, 1).reshape(columns.shape[1], -1).T


@pytest.mark.parametrize("kind", KINDS)
def test_vjp_is_the_adjoint_of_jvp(rng, kind):
    factor = every_factor(rng)[kind]
    n_out, n_in = factor.shape
    for lead in [(B,), (B, 5)] if factor.n_samples else [(), (7,), (B, 5)]:
        u, v = rng.standard_normal((*lead, n_in)), rng.standard_normal((*lead, n_out))
        forwards, backwards = factor.jvp(u), factor.vjp(v)
        assert forwards.shape == v.shape
        assert backwards.shape == u.shape
        np.testing.assert_allclose((forwards * v).sum(), (backwards * u).sum(), rtol=1e-11)
        np.testing.assert_array_equal(factor.T.jvp(v), backwards)
        np.testing.assert_array_equal(factor.T.T.vjp(v), backwards)
        assert factor.T.shape == (n_in, n_out)
    assert factor.jvp(np.zeros((B, 0, n_in))).shape == (B, 0, n_out)


@pytest.mark.parametrize("kind", KINDS)
def test_scaled_factors_are_the_factor_over_a_power_of_two(rng, kind):
    factor = every_factor(rng)[kind]
    scaled, exponent = factor.scaled()
    u = rng.standard_normal((B, factor.shape[1]))
    np.testing.assert_array_equal(np.ldexp(scaled.jvp(u), exponent), factor.jvp(u))


@pytest.mark.parametrize("kind", KINDS)
def test_the_arrays_of_a_factor_are_read_only(rng, kind):
    for value in vars(every_factor(rng)[kind]).values():
        if isinstance(value, np.ndarray):
            assert not value.flags.writeable


def central_difference(function, x, tangent, step=1e-5):
    return (function(x + step * tangent) - function(x - step * tangent)) / (2 * step)


def layer_norm(x, gain, eps):
    return gain * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)


def batch_norm(x, gain, eps):
    axes = (0, *range(2, x.ndim))
    shape = (1, -1) + (1,) * (x.ndim - 2)
    deviation = np.sqrt(x.var(axes, keepdims=True) + eps)
    return gain.reshape(shape) * (x - x.mean(axes, keepdims=True)) / deviation


@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.5])
def test_layer_norm_is_the_derivative_of_its_forward(rng, eps):
    x, gain, tangent = (rng.standard_normal(shape) for shape in [(B, N), (N,), (B, N)])
    expected = central_difference(lambda x: layer_norm(x, gain, eps), x, tangent)
    # A step of 1e-5 leaves errors of about step^2 and u / step.
    np.testing.assert_allclose(LayerNorm(x, gain, eps=eps).jvp(tangent), expected, atol=1e-8)
    one = LayerNorm(x[1], gain, eps=eps).jvp(tangent[1])
    np.testing.assert_allclose(one, expected[1], atol=1e-8)


@pytest.mark.parametrize("positions", [(), (4,), (2, 3)])
@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.5])
def test_batch_norm_in_training_is_the_derivative_of_its_forward(rng, eps, positions):
    x, tangent = rng.standard_normal((2, 5, 3, *positions))
    gain = rng.standard_normal(3)
    expected = central_difference(lambda x: batch_norm(x, gain, eps), x, tangent)
    norm = BatchNorm(x, gain, eps=eps)
    got = norm.jvp(tangent.reshape(5, -1))
    np.testing.assert_allclose(got, expected.reshape(5, -1), atol=1e-8)
    several = norm.jvp(np.stack([tangent.reshape(5, -1), 2 * tangent.reshape(5, -1)], axis=1))
    np.testing.assert_allclose(several, np.stack([got, 2 * got], axis=1), rtol=1e-13, atol=1e-14)


def test_batch_norm_has_the_jacobian_that_the_theory_says(rng):
    """(gain / s) (I - 1 1^T / B - xh xh^T / B) per feature, of rank B - 2 and norm gain / s."""
    n_samples, gain, eps = 7, 1.5, 0.25
    x = rng.standard_normal((n_samples, 1))
    norm = BatchNorm(x, [gain], eps=eps)
    jacobian = Chain([norm]).over_batch() @ np.eye(n_samples)
    s = np.sqrt(x.var() + eps)
    x_hat = (x - x.mean()) / s
    ones = np.ones((n_samples, n_samples))
    expected = gain / s * (np.eye(n_samples) - ones / n_samples - x_hat @ x_hat.T / n_samples)
    np.testing.assert_allclose(jacobian, expected, atol=1e-14)
    np.testing.assert_allclose(jacobian.sum(0), 0, atol=1e-14)
    values = np.linalg.svd(jacobian, compute_uv=False)
    # Not 1: all but two singular values are gain / s, and with eps = 0 those two vanish.
    np.testing.assert_allclose(values[:-2], gain / s, rtol=1e-13)
    assert values[-2] == pytest.approx(gain / s * eps / (x.var() + eps), rel=1e-12)


def test_batch_norm_at_inference_is_diagonal():
    norm = BatchNorm(variance=[3.0, 8.0], gain=[2.0, 3.0], eps=1.0, input_shape=(1, 2))
    np.testing.assert_allclose(matrices(norm), np.diag([1.0, 1.0, 1.0, 1.0]))
    assert norm.n_samples is None
    assert not norm.couples_samples


@pytest.mark.parametrize("power", [-900, -600, 600, 1000])
def test_normalisation_takes_inputs_of_any_scale(rng, power):
    x = rng.standard_normal((B, N))
    for make in (LayerNorm, BatchNorm):
        plain = make(x, eps=0.0)
        far = make(np.ldexp(x, power), eps=0.0)
        np.testing.assert_array_equal(far.x_hat, plain.x_hat)
        np.testing.assert_array_equal(far.slopes, np.ldexp(plain.slopes, -power))


def test_factors_keep_float32(rng):
    x = rng.standard_normal((B, N)).astype(np.float32)
    for factor in (LayerNorm(x), BatchNorm(x), Dense(x), Diagonal(x), Residual(LayerNorm(x), 0.1)):
        assert factor.dtype == np.float32
        assert Chain([factor]).dtype == np.float32
        assert factor.jvp(x).dtype == np.float32


# ---- chains ---------------------------------------------------------------------------------


def small_chain(rng):
    return Chain(
        [
            Dense(rng.standard_normal((4, N))),
            Diagonal(rng.standard_normal(4)),
            Conv1d(rng.standard_normal((3, 2, 1)), 2),
            Residual(Dense(rng.standard_normal((6, 6))), 0.5),
        ]
    )


def test_a_chain_is_a_linear_operator(rng):
    chain = small_chain(rng)
    matrix = np.eye(N)
    for factor in chain:
        matrix = matrices(factor) @ matrix
    assert isinstance(chain, LinearOperator)
    np.testing.assert_allclose(chain @ np.eye(N), matrix, atol=1e-13)
    np.testing.assert_allclose(chain.T @ np.eye(6), matrix.T, atol=1e-13)
    np.testing.assert_allclose(chain.H @ np.eye(6)[:, :1], matrix.T[:, :1], atol=1e-13)
    np.testing.assert_allclose(chain.rmatvec(np.ones(6)), matrix.T @ np.ones(6), atol=1e-13)
    np.testing.assert_allclose((2 * chain) @ np.ones((N, 1)), 2 * matrix @ np.ones((N, 1)))
    assert isinstance(chain.T, Chain)
    assert chain.widths == (N, 4, 4, 6, 6)
    assert chain.T.widths == chain.widths[::-1]
    values = svds(chain, k=2, return_singular_vectors=False, rng=rng)
    expected = np.linalg.svd(matrix, compute_uv=False)[:2]
    np.testing.assert_allclose(sorted(values), sorted(expected), rtol=1e-10)


def test_over_batch_is_the_joint_operator(rng):
    x = rng.standard_normal((B, N))
    per_sample = Dense(rng.standard_normal((B, 4, N)))
    chain = Chain([BatchNorm(x), Residual([BatchNorm(x[::-1]), LayerNorm(x)], 0.5), per_sample])
    operator = chain.over_batch()
    assert operator.shape == (B * 4, B * N)
    expected = np.eye(B * N)
    for factor in chain:
        expected = joint_matrix(factor) @ expected
    np.testing.assert_allclose(operator @ np.eye(B * N), expected, atol=1e-13)
    np.testing.assert_allclose(operator.T @ np.eye(B * 4), expected.T, atol=1e-13)
    np.testing.assert_allclose(operator @ np.ones(B * N), expected.sum(1), atol=1e-13)
    again = Chain([operator])
    assert again.n_samples is None
    np.testing.assert_allclose(again @ np.eye(B * N), expected, atol=1e-13)


def test_anything_that_scipy_takes_is_a_factor(rng):
    w = rng.standard_normal((N, N))
    for form in (scipy.sparse.csr_array(w), scipy.sparse.coo_matrix(w), aslinearoperator(w), w):
        chain = Chain([form, Diagonal(np.arange(N))])
        np.testing.assert_allclose(chain @ np.eye(N), np.arange(N)[:, None] * w)
    assert isinstance(Chain([w])[0], Dense)
    assert len(Chain(Diagonal([1.0]))) == 1
    assert Chain(Chain([Diagonal([1.0])]).repeat(10**9)).runs[0][1] == 10**9
    assert len(Chain(rng.standard_normal((5, N, N)))) == 5


def test_a_subclass_of_factor_is_a_factor(rng):
    class Reverse(Factor):
        shape = (N, N)

        def jvp(self, tangent):
            return tangent[..., ::-1]

        vjp = jvp

    v = rng.standard_normal(N)
    chain = Chain([Reverse(), Diagonal(np.arange(N))])
    np.testing.assert_array_equal(jm.chain_jvp(chain, v).vector.to_array(), np.arange(N) * v[::-1])


class Slot(Diagonal):
    """A factor known by its number."""

    def __init__(self, number):
        super().__init__(np.ones(1))
        self.number = number


@st.composite
def slot_chains(draw, depth=2):
    """A chain of numbered factors with nested repeats, and the numbers it should hold."""
    factors, numbers = [], []
    for _ in range(draw(st.integers(1, 3))):
        if depth and draw(st.booleans()):
            chain, inner = draw(slot_chains(depth=depth - 1))
            factors.append(chain)
            numbers += inner
        else:
            number = draw(st.integers(0, 99))
            factors.append(Slot(number))
            numbers.append(number)
    n_repeats = draw(st.integers(1, 3))
    return Chain(factors).repeat(n_repeats), numbers * n_repeats


@settings(deadline=None, max_examples=200)
@given(slot_chains(), st.data())
def test_a_repeated_chain_is_the_sequence_of_its_factors(given_chain, data):
    chain, numbers = given_chain
    size = len(numbers)
    assert len(chain) == size
    assert [f.number for f in chain] == numbers
    assert [f.number for f in reversed(chain)] == numbers[::-1]
    assert [f.number for f in chain.factors] == numbers
    assert len(chain.widths) == size + 1
    k = data.draw(st.integers(-size, size - 1))
    assert chain[k].number == numbers[k]
    bounds = st.one_of(st.none(), st.integers(-size - 1, size + 1))
    cut = slice(
        data.draw(bounds), data.draw(bounds), data.draw(st.sampled_from([None, 1, 2, -1, -3]))
    )
    if numbers[cut]:
        assert [f.number for f in chain[cut]] == numbers[cut]
    else:
        with pytest.raises(ValueError, match="at least one factor"):
            chain[cut]


def test_a_million_repeats_cost_no_memory(rng):
    body = Chain([Dense(rng.standard_normal((3, 3))), Diagonal([0.5, 0.25, 1.0])])
    tracemalloc.start()
    chain = body.repeat(10**12)
    part = Chain([body[1:], chain[3:-5]])
    assert len(part) == 1 + 2 * 10**12 - 8
    assert part[1] is body[1]
    assert part[2] is body[0]
    assert part.T[0] is not None
    assert tracemalloc.get_traced_memory()[1] < 20_000
    tracemalloc.stop()
    assert body.repeat(3).runs == ((body.factors, 3),)
    assert body.repeat(3).repeat(4).runs == ((body.factors, 12),)


def test_a_repeated_chain_is_its_power(rng):
    w = rng.standard_normal((4, 4))
    chain = Chain([Dense(w), Residual(Dense(w))]).repeat(3)
    expected = np.linalg.matrix_power((np.eye(4) + w) @ w, 3)
    np.testing.assert_allclose(chain @ np.eye(4), expected, rtol=1e-11)
    np.testing.assert_allclose(chain.T @ np.eye(4), expected.T, rtol=1e-11)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Chain([]), ValueError, "at least one factor"),
        (lambda: Chain([1.0]), TypeError, r"factors\[0\] must be a factor, .* got float"),
        (lambda: Chain([Dense(np.ones((2, 3))), np.ones(3)]), TypeError, r"factors\[1\] must be"),
        (
            lambda: Chain([Dense(np.ones((2, 3))), LayerNorm([1.0, 2, 3])]),
            ValueError,
            r"factors\[1\] must have 2 columns to follow factors\[0\], got shape \(3, 3\)",
        ),
        (
            lambda: Chain([Diagonal(np.ones((2, 3))), Dense(np.eye(3)), LayerNorm(np.eye(3))]),
            ValueError,
            r"factors\[2\] must hold 2 samples as the factors before it, got 3",
        ),
        (
            lambda: Chain([Diagonal(np.ones(3)).jvp(np.ones((2, 3)))]).repeat(2),
            ValueError,
            r"as wide at its output as at its input, got shape \(2, 3\)",
        ),
        (
            lambda: Chain([Chain([Dense(np.eye(2))]).repeat(5), Dense(np.ones((2, 3)))]),
            ValueError,
            r"factors\[5\] must have 2 columns to follow factors\[4\]",
        ),
        (lambda: Chain([Dense(np.eye(2))]).repeat(0), ValueError, "n_repeats must be at least 1"),
        (lambda: Chain([Dense(np.eye(2))])[1], IndexError, "factor 1 of a chain of 1"),
        (lambda: Chain([Dense(np.eye(2))]).over_batch(), ValueError, "the chain has no samples"),
        (
            lambda: Chain([Diagonal(np.ones((2, 3)))]) @ np.ones(3),
            ValueError,
            r"a chain of 2 samples is not one linear operator: use chain.over_batch\(\)",
        ),
        (lambda: Residual(Dense(np.ones((2, 3)))), ValueError, "chain must be as wide at its"),
        (lambda: Residual(Dense(np.eye(2)), np.inf), ValueError, "scale must be finite, got inf"),
        (lambda: Residual(Dense(np.eye(2)), "1"), TypeError, "scale must be a real number"),
        (lambda: Operator(aslinearoperator(np.eye(2) * 1j)), TypeError, "operator must have"),
        (lambda: Dense(np.ones(3)), ValueError, "weights must have 2 axes"),
        (lambda: Dense(np.ma.masked_equal(np.eye(2), 0)), TypeError, "weights must not be masked"),
        (lambda: LayerNorm(np.ones((2, 3, 4))), ValueError, "x must have shape"),
        (lambda: LayerNorm([1.0, np.nan]), ValueError, "x must be finite"),
        (lambda: LayerNorm([1.0, 1.0], eps=0), ValueError, "x must vary where eps is 0"),
        (lambda: LayerNorm([1.0, 2.0], [1.0]), ValueError, r"gain must have shape \(2,\)"),
        (lambda: LayerNorm([1.0, 2.0], eps=-1), ValueError, "eps must be finite and at least 0"),
        (lambda: BatchNorm(), ValueError, "give x .* or variance"),
        (lambda: BatchNorm(np.ones(3)), ValueError, r"x must have shape \(B, n\)"),
        (lambda: BatchNorm(variance=[-1.0]), ValueError, "variance must have shape"),
        (lambda: BatchNorm(variance=[0.0], eps=0), ValueError, "variance must be positive"),
        (lambda: BatchNorm(np.eye(2), input_shape=(3,)), ValueError, "input_shape must be left"),
        (
            lambda: BatchNorm(np.eye(2)).jvp(np.ones(2)),
            ValueError,
            r"takes \(2, n\) or \(2, m, n\), the whole batch at once",
        ),
    ],
)  # fmt: skip
def test_bad_factors_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
