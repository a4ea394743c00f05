"""Conv1d and Conv2d against the matrix written out from the definition, and against torch."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jacometry.factors import Conv1d, Conv2d

NUMPY_MODE = {"zeros": "constant", "circular": "wrap", "reflect": "reflect", "replicate": "edge"}


def matrix_by_definition(kernel, sizes, padding, mode, stride, dilation, groups):
    """y[o, i] = sum over c, t of kernel[o, c, t] x_padded[c, stride i + dilation t]."""
    n_out, per_group, *taps = kernel.shape
    n_in = per_group * groups
    where = np.arange(n_in * np.prod(sizes)).reshape(n_in, *sizes)
    options = {"constant_values": -1} if mode == "zeros" else {}
    where = np.pad(where, [(0, 0), *padding], mode=NUMPY_MODE[mode], **options)
    out_sizes = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(where.shape[1:], taps, stride, dilation, strict=True)
    ]
    matrix = np.zeros((n_out, *out_sizes, n_in * np.prod(sizes)))
    for o in range(n_out):
        first = o // (n_out // groups) * per_group
        for i in itertools.product(*map(range, out_sizes)):
            for c, *t in itertools.product(range(per_group), *map(range, taps)):
                position = [
                    s * a + d * b for s, a, d, b in zip(stride, i, dilation, t, strict=True)
                ]
                source = where[(first + c, *position)]
                if source >= 0:
                    matrix[(o, *i, source)] += kernel[(o, c, *t)]
    return matrix.reshape(n_out * np.prod(out_sizes), -1)


def integers(rng, shape):
    """Small integers, so that every sum is exact in any order."""
    return rng.integers(-4, 5, shape).astype(float)


@st.composite
def convolutions(draw):
    """A convolution whose kernel fits, as (n_axes, arguments)."""
    n_axes = draw(st.sampled_from([1, 2]))
    groups = draw(st.integers(1, 3))
    axes = []
    mode = draw(st.sampled_from(list(NUMPY_MODE)))
    for _ in range(n_axes):
        size = draw(st.integers(1, 6))
        most = size - 1 if mode == "reflect" else 2 * size + 1
        before, after = draw(st.integers(0, most)), draw(st.integers(0, most))
        tap = draw(st.integers(1, 4))
        largest = (size + before + after - 1) // max(tap - 1, 1)
        if tap > 1 and largest < 1:
            tap = 1
        dilation = draw(st.integers(1, max(1, min(3, largest))))
        axes.append((size, (before, after), tap, draw(st.integers(1, 3)), dilation))
    sizes, padding, taps, stride, dilation = (tuple(a) for a in zip(*axes, strict=True))
    shape = (groups * draw(st.integers(1, 2)), draw(st.integers(1, 2)), *taps)
    return n_axes, shape, sizes, padding, mode, stride, dilation, groups


@settings(deadline=None, max_examples=150)
@given(convolutions(), st.integers(0, 2**32 - 1))
def test_conv_is_the_matrix_of_its_definition_and_vjp_its_transpose(parameters, seed):
    n_axes, shape, sizes, padding, mode, stride, dilation, groups = parameters
    rng = np.random.default_rng(seed)
    kernel = integers(rng, shape)
    conv = (Conv1d, Conv2d)[n_axes - 1](
        kernel, sizes, padding=padding, padding_mode=mode, stride=stride, dilation=dilation,
        groups=groups,
    )  # fmt: skip
    matrix = matrix_by_definition(kernel, sizes, padding, mode, stride, dilation, groups)
    assert conv.shape == matrix.shape
    np.testing.assert_array_equal(conv.jvp(np.eye(matrix.shape[1])).T, matrix)
    np.testing.assert_array_equal(conv.vjp(np.eye(matrix.shape[0])), matrix)
    tangent = integers(rng, (2, 3, matrix.shape[1]))
    np.testing.assert_array_equal(conv.jvp(tangent), tangent @ matrix.T)
    np.testing.assert_array_equal(conv.jvp(tangent[0, 0]), matrix @ tangent[0, 0])
    np.testing.assert_array_equal(conv.T.jvp(tangent @ matrix.T), tangent @ matrix.T @ matrix)


@pytest.mark.parametrize("mode", list(NUMPY_MODE))
@pytest.mark.parametrize("n_axes", [1, 2])
def test_conv_agrees_with_torch(rng, n_axes, mode):
    torch = pytest.importorskip("torch", reason="compared with torch where it is installed")
    functional = torch.nn.functional
    kernel = rng.standard_normal((6, 2, 3, 2)[: n_axes + 2])
    sizes, stride, dilation = (8, 7)[:n_axes], (2, 3)[:n_axes], (2, 1)[:n_axes]
    padding = ((3, 2), (1, 4))[:n_axes]
    conv = (Conv1d, Conv2d)[n_axes - 1](
        kernel, sizes, padding=padding, padding_mode=mode, stride=stride, dilation=dilation,
        groups=3,
    )  # fmt: skip
    x = rng.standard_normal((5, 6, *sizes))
    flat_pads = [p for pair in reversed(padding) for p in pair]
    padded = functional.pad(
        torch.tensor(x), flat_pads, mode="constant" if mode == "zeros" else mode
    )
    run = (functional.conv1d, functional.conv2d)[n_axes - 1]
    expected = run(padded, torch.tensor(kernel), stride=stride, dilation=dilation, groups=3)
    assert conv.output_shape == tuple(expected.shape[2:])
    # Sums of at most 12 products in either order: 12 u of the sum of magnitudes each.
    bound = 24 * 2.0**-53 * conv._with_kernel(np.abs(kernel)).jvp(np.abs(x).reshape(5, -1))
    assert (np.abs(conv.jvp(x.reshape(5, -1)) - expected.numpy().reshape(5, -1)) <= bound).all()


@pytest.mark.parametrize("taps", [(3, 4), (2, 1)])
def test_same_padding_keeps_the_size_and_adds_the_odd_entry_at_the_end(rng, taps):
    kernel = integers(rng, (2, 2, *taps))
    conv = Conv2d(kernel, (5, 6), padding="same", dilation=(1, 2))
    assert conv.output_shape == (5, 6)
    pads = tuple(((d * (k - 1)) // 2, d * (k - 1) - (d * (k - 1)) // 2)
                 for k, d in zip(taps, (1, 2), strict=True))  # fmt: skip
    matrix = matrix_by_definition(kernel, (5, 6), pads, "zeros", (1, 1), (1, 2), 1)
    np.testing.assert_array_equal(conv.jvp(np.eye(60)).T, matrix)


def test_the_circular_convolution_of_the_literature():
    """Kernel [2, 7, -1] on a circle of 20: extreme singular values as theory.md has them."""
    conv = Conv1d([[[2.0, 7.0, -1.0]]], 20, padding=1, padding_mode="circular")
    values = np.linalg.svd(conv.jvp(np.eye(20)).T, compute_uv=False)
    assert values[0] == pytest.approx(8.005633637867117, abs=1e-13)
    assert values[-1] == pytest.approx(6.0, abs=1e-13)


def test_conv_keeps_float32_and_takes_no_vectors(rng):
    conv = Conv1d(rng.standard_normal((2, 3, 3)).astype(np.float32), 7)
    assert conv.dtype == np.float32
    assert conv.jvp(np.ones((4, 21), np.float32)).dtype == np.float32
    assert conv.jvp(np.ones((4, 21))).dtype == np.float64
    assert conv.jvp(np.ones((0, 21))).shape == (0, 10)
    assert conv.vjp(np.ones((3, 0, 10))).shape == (3, 0, 21)
    assert not conv.kernel.flags.writeable


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((np.ones((2, 2)), 4), {}, ValueError, r"kernel must have 3 axes .* got shape \(2, 2\)"),
        ((np.ones((2, 2, 3)), (4, 4)), {}, ValueError, "input_shape must be an integer or 1 of"),
        ((np.ones((2, 2, 3)), 0), {}, ValueError, "input_shape must be at least 1, got 0"),
        ((np.ones((2, 2, 3)), 4.5), {}, TypeError, "input_shape must hold integers, got float"),
        ((np.ones((2, 2, 3)), 4), {"stride": 0}, ValueError, "stride must be at least 1, got 0"),
        ((np.ones((2, 2, 3)), 4), {"stride": True}, TypeError, "stride must hold integers"),
        ((np.ones((2, 2, 3)), 4), {"groups": 3}, ValueError, "groups must divide the 2 output"),
        ((np.ones((2, 2, 3)), 4), {"dilation": 2}, ValueError, "does not fit into input_shape"),
        ((np.ones((2, 2, 3)), 4), {"padding": -1}, ValueError, "padding must be at least 0"),
        ((np.ones((2, 2, 3)), 4), {"padding": "full"}, ValueError, "padding must be 'same'"),
        ((np.ones((2, 2, 3)), 4), {"padding": (1, 2)}, ValueError, "padding must be an integer or"),
        (
            (np.ones((2, 2, 3)), 4),
            {"padding": ((1, 2), (1, 1))},
            ValueError,
            r"padding must hold 1 pairs \(before, after\)",
        ),
        (
            (np.ones((2, 2, 3)), 4),
            {"padding": "same", "stride": 2},
            ValueError,
            "padding 'same' needs a stride of 1",
        ),
        (
            (np.ones((2, 2, 3)), 4),
            {"padding": 4, "padding_mode": "reflect"},
            ValueError,
            "padding of 4 must be less than the input's 4",
        ),
        ((np.ones((2, 2, 3)), 4), {"padding_mode": "wrap"}, ValueError, "padding_mode must be one"),
        ((np.ones((2, 2, 3), complex), 4), {}, TypeError, "kernel must have a real floating dtype"),
    ],
)
def test_bad_convolutions_are_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        Conv1d(*arguments, **options)
