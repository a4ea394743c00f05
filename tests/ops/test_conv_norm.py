"""conv_spectral_norm: against the operator's matrix, closed forms and measured networks."""

import itertools
import math

import numpy as np
import pytest

import jacometry as jm
from jacometry.ops import conv_norm
from jacometry.ops.conv_norm import conv_spectral_norm
from jacometry.ops.spectral import conv_spectral_norm as exported
from jacometry.reference import conv as reference

RING = [[[2.0, 7.0, -1.0]]]


def oracle(kernel, input_shape, padding=0, *, stride=1, dilation=1, **geometry):
    """The oracle, which takes one pair and one number per axis."""
    kernel = np.asarray(kernel, float)
    n_axes = kernel.ndim - 2
    sizes = np.broadcast_to(input_shape, n_axes).tolist()
    dilation = np.broadcast_to(dilation, n_axes).tolist()
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel.shape[2:], strict=True)]
        padding = [(t // 2, t - t // 2) for t in totals]
    elif np.ndim(padding) < 2:
        padding = [(p, p) for p in np.broadcast_to(padding, n_axes).tolist()]
    stride = np.broadcast_to(stride, n_axes).tolist()
    return reference.conv_spectral_norm(
        kernel, sizes, padding, stride=stride, dilation=dilation, **geometry
    )


def assert_encloses(found, exact, rtol=1e-2):
    slack = 1e-12 * exact  # of the oracle's SVD: 4 n eps for n up to 1000
    assert float(found.lower) <= exact + slack
    assert float(found.upper) >= exact - slack
    assert found.converged
    assert found.rtol <= rtol


def test_the_ring_of_three_taps_is_known_to_sixteen_digits():
    """|2 e^{-iw} + 7 - e^{iw}| over w = 2 pi j / 20: 8.0056..., and 6 at w = pi."""
    found = conv_spectral_norm(RING, 20, padding=1, padding_mode="circular")
    assert float(found) == pytest.approx(8.005633637867117, rel=4e-16)
    assert found.lower <= 8.005633637867117 <= found.upper
    assert found.lower_certain
    assert found.upper_certain
    assert found.failure_prob == 0
    assert found.rtol < 1e-11
    assert found.method == "fft"
    matrix = reference.conv_matrix(
        np.array(RING), [20], [(1, 1)], padding_mode="circular", stride=[1], dilation=[1]
    )
    values = np.linalg.svd(matrix, compute_uv=False)
    assert values[0] == pytest.approx(8.005633637867117, rel=1e-15)
    assert values[-1] == pytest.approx(6, rel=1e-15)
    operator = jm.Conv1d(RING, 20, padding=1, padding_mode="circular")
    assert jm.Chain([operator]) @ np.eye(20) == pytest.approx(matrix)


def test_the_oracle_is_the_definition():
    """A cross-correlation written out by hand: stride 2, dilation 2, uneven padding, two groups."""
    matrix = reference.conv_matrix(
        np.array([[[1.0, 2.0]], [[3.0, 4.0]]]), [3], [(1, 2)], stride=[2], dilation=[2], groups=2
    )
    one = [[0, 2, 0], [0, 1, 0]]  # x_padded = 0 x0 x1 x2 0 0: (0, x1), (x1, 0)
    expected = np.zeros((4, 6))
    expected[:2, :3], expected[2:, 3:] = one, [[0, 4, 0], [0, 3, 0]]
    np.testing.assert_array_equal(matrix, expected)
    ring = reference.conv_matrix(
        np.array([[[1.0, 2.0, 3.0]]]), [2], [(1, 1)], padding_mode="circular", stride=[1],
        dilation=[1],
    )  # fmt: skip
    np.testing.assert_array_equal(ring, [[2, 4], [4, 2]])


@pytest.mark.parametrize("method", ["auto", "lanczos", "gram", "svd"])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize(
    ("kernel_shape", "input_shape", "options"),
    [
        ((1, 1, 1), 1, {}),
        ((2, 3, 1), 7, {"stride": 2}),
        ((3, 2, 3), 9, {"padding": 1}),
        ((4, 1, 3), 8, {"padding": 1, "stride": 2, "groups": 2}),
        ((3, 2, 4), 9, {"padding": "same"}),
        ((3, 2, 3), 9, {"padding": [(0, 2)], "dilation": 2}),
        ((1, 1, 5), 3, {"padding": 2}),  # longer than the input
        ((2, 1, 3), 12, {"padding": [(2, 0)], "stride": 3}),
        ((2, 2, 3), 12, {"padding": 3, "dilation": 3, "stride": 4}),
        ((2, 2, 3, 3), (5, 4), {"padding": 1}),
        ((3, 2, 3, 2), (6, 4), {"padding": [(1, 1), (0, 1)], "stride": (2, 1)}),
        ((4, 1, 3, 3), (6, 8), {"padding": "same", "groups": 4}),
        ((4, 2, 2, 3), (8, 6), {"padding": (0, 1), "stride": 2, "groups": 2}),
        ((2, 2, 3, 3), (7, 5), {"padding": 2, "dilation": 2}),
        ((2, 1, 2, 2, 2), (3, 4, 2), {"padding": [(0, 1), (1, 0), (1, 1)]}),
    ],
)
def test_agrees_with_the_matrix_of_the_operator(
    kernel_shape, input_shape, options, mode, method, rng
):
    kernel = rng.standard_normal(kernel_shape)
    exact = oracle(kernel, input_shape, padding_mode=mode, **options)
    for rtol in (1e-2, 1e-6):
        found = conv_spectral_norm(
            kernel, input_shape, padding_mode=mode, method=method, rtol=rtol, rng=rng, **options
        )
        assert_encloses(found, exact, rtol)


def random_settings(rng, n_settings):
    for _ in range(n_settings):
        n_axes = int(rng.integers(1, 3))
        groups = int(rng.integers(1, 3))
        channels = groups * rng.integers(1, 4, 2)
        taps, stride, dilation = (rng.integers(1, high, n_axes) for high in (5, 4, 3))
        sizes = rng.integers(1, 8, n_axes)
        padding = rng.integers(0, 4, (n_axes, 2))
        padding[:, 1] += np.maximum(dilation * (taps - 1) + 1 - sizes - padding.sum(axis=1), 0)
        kernel = rng.standard_normal((channels[0], channels[1] // groups, *taps))
        yield (
            kernel,
            sizes.tolist(),
            {
                "padding": padding.tolist(),
                "padding_mode": ("zeros", "circular")[int(rng.integers(2))],
                "stride": stride.tolist(),
                "dilation": dilation.tolist(),
                "groups": groups,
            },
        )


def test_agrees_with_the_matrix_on_random_settings(rng):
    n_by_frequencies = 0
    for kernel, sizes, options in random_settings(rng, 150):
        exact = oracle(kernel, sizes, **options)
        for method in ("auto", "lanczos"):
            found = conv_spectral_norm(kernel, sizes, method=method, rng=rng, **options)
            assert_encloses(found, exact)
            n_by_frequencies += found.method == "fft"
    assert n_by_frequencies > 0


@pytest.mark.parametrize(
    ("size", "stride", "taps"), [*itertools.product((6, 12), (1, 2, 3), (1, 4))]
)
def test_periodic_strides_go_by_frequencies(size, stride, taps, rng):
    kernel = rng.standard_normal((3, 2, taps))
    before = (taps - 1) // 2
    padding = [(before, max(taps - stride - before, 0))]
    found = conv_spectral_norm(
        kernel, size, padding=padding, stride=stride, padding_mode="circular"
    )
    assert found.method == "fft"
    exact = oracle(kernel, size, padding, stride=stride, padding_mode="circular")
    assert float(found) == pytest.approx(exact, rel=1e-13)
    assert found.upper_certain


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_other_paddings_are_taken_as_operators(mode, rng):
    kernel = rng.standard_normal((2, 2, 3))
    found = conv_spectral_norm(kernel, 9, padding=1, padding_mode=mode)
    matrix = jm.Conv1d(kernel, 9, padding=1, padding_mode=mode).jvp(np.eye(18)).T
    assert_encloses(found, np.linalg.svd(matrix, compute_uv=False)[0])


def test_large_blocks_share_the_failure_probability(rng):
    kernel = rng.standard_normal((70, 66, 3))
    options = {"padding": 1, "padding_mode": "circular"}
    found = conv_spectral_norm(kernel, 16, rng=rng, **options)
    certain = conv_spectral_norm(kernel, 16, method="gram", **options)
    assert found.failure_prob == 1e-9
    assert found.lower_certain
    assert not found.upper_certain
    assert certain.upper_certain
    assert certain.rtol < 1e-9
    assert found.lower <= certain.upper
    assert found.upper >= certain.lower
    assert found.converged
    svd = conv_spectral_norm(kernel, 16, method="svd", **options)
    assert float(svd) == pytest.approx(float(certain), rel=1e-12)
    assert not svd.lower_certain


def test_the_flattened_kernel_is_another_norm():
    """Ones: flattened sqrt(k), the operator's up to k; and off the other way with a stride."""
    kernel = np.ones((1, 1, 9))
    flattened = np.linalg.norm(kernel.reshape(1, -1), 2)
    true = conv_spectral_norm(kernel, 100, padding=4, padding_mode="circular")
    assert flattened == 3
    assert float(true) == pytest.approx(9)
    two = np.zeros((2, 1, 3))
    two[0, 0, 0] = two[1, 0, 2] = 1  # rows of different places, same place in the input
    assert np.linalg.norm(two.reshape(2, -1), 2) == 1
    assert float(conv_spectral_norm(two, 9)) == pytest.approx(math.sqrt(2))


def test_circular_is_wrong_on_small_maps():
    """Ones on a 2 x 2 map: with zeros around, all see all once; a ring has 9 places for 4."""
    kernel = np.ones((1, 1, 3, 3))
    zero = conv_spectral_norm(kernel, (2, 2), padding=1)
    ring = conv_spectral_norm(kernel, (2, 2), padding=1, padding_mode="circular")
    assert float(zero) == pytest.approx(4)
    assert float(ring) == pytest.approx(9)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_any_scale(scale, mode, rng):
    kernel = rng.standard_normal((12, 12, 3))
    options = {"padding": 1, "padding_mode": mode}
    one = conv_spectral_norm(kernel, 10, rng=1, rtol=1e-6, **options)
    other = conv_spectral_norm(kernel * scale, 10, rng=1, rtol=1e-6, **options)
    assert other.converged
    assert other.log_lower <= one.log_upper + math.log(scale) + 1e-12
    assert other.log_upper >= one.log_lower + math.log(scale) - 1e-12


@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_zero_kernels_float32_and_integers(mode, rng):
    options = {"padding": 1, "padding_mode": mode}
    for size in (5, 500):
        found = conv_spectral_norm(np.zeros((2, 2, 3)), size, **options)
        assert found.upper == 0
        assert found.upper_certain
        assert found.failure_prob == 0
    kernel = rng.standard_normal((3, 3, 3)).astype(np.float32)
    found = conv_spectral_norm(kernel, 40, rng=rng, **options)
    assert found.value.dtype == np.float32
    assert_encloses(found, oracle(kernel, 40, **options))
    found = conv_spectral_norm([[[2, 7, -1]]], 20, **options)
    assert found.value.dtype == np.float64
    assert_encloses(found, oracle(RING, 20, **options))


def test_the_certain_bound_is_no_less_than_the_norm(rng):
    for kernel, sizes, options in random_settings(rng, 100):
        conv = {1: jm.Conv1d, 2: jm.Conv2d}[len(sizes)](kernel, sizes, **options)
        cap, _, _ = conv_norm._certain_cap(conv)
        assert cap >= oracle(kernel, sizes, **options) * (1 - 1e-13)
    for mode in ("reflect", "replicate"):
        for size, pads in itertools.product((1, 2, 5), ([(0, 0)], [(0, 1)], [(1, 1)], [(4, 2)])):
            if mode == "reflect" and max(pads[0]) >= size:
                continue
            kernel = np.ones((1, 1, 1))
            conv = jm.Conv1d(kernel, size, padding=pads, padding_mode=mode)
            cap, _, _ = conv_norm._certain_cap(conv)
            assert cap >= np.linalg.norm(conv.jvp(np.eye(size)), 2)


def test_threads_do_not_change_the_result(rng):
    kernel = rng.standard_normal((8, 8, 3, 3))
    options = {"padding": 1, "padding_mode": "circular"}
    one, two = (conv_spectral_norm(kernel, (16, 16), n_threads=n, **options) for n in (1, 2))
    assert (one.lower, one.value, one.upper) == (two.lower, two.value, two.upper)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"kernel": np.ones((2, 2))},
            ValueError,
            r"kernel must have shape \(out, in/groups",
        ),
        ({"kernel": None}, TypeError, "kernel must be an array, got None"),
        ({"kernel": np.ones((1, 1, 3), complex)}, TypeError, "kernel must have a real floating"),
        (
            {"kernel": [[[1, np.nan, 2]]]},
            ValueError,
            r"kernel must be finite, got nan .*0, 1\)",
        ),
        ({"kernel": np.ones((0, 1, 3))}, ValueError, "kernel must have 3 axes.*none of length 0"),
        ({"input_shape": (3, 3)}, ValueError, "input_shape must be an integer or 1 of them"),
        ({"input_shape": 0}, ValueError, "input_shape must be at least 1"),
        ({"input_shape": 2.5}, TypeError, "input_shape must hold integers"),
        ({"input_shape": 2}, ValueError, "kernel of shape .* does not fit into input_shape"),
        ({"padding": -1}, ValueError, "padding must be at least 0"),
        ({"padding": "valid"}, ValueError, "padding must be 'same' or made of integers"),
        ({"padding": "same", "stride": 2}, ValueError, "padding 'same' needs a stride of 1"),
        ({"padding": [(1, 1), (1, 1)]}, ValueError, "padding must hold 1 pairs"),
        ({"padding_mode": "wrap"}, ValueError, "padding_mode must be one of 'zeros', 'circular'"),
        ({"stride": 0}, ValueError, "stride must be at least 1"),
        ({"dilation": True}, TypeError, "dilation must hold integers, got a bool"),
        ({"groups": 2}, ValueError, "groups must divide the 1 output channels"),
        ({"rtol": 0}, ValueError, "rtol must lie in"),
        ({"failure_prob": 0.0}, ValueError, "failure_prob must lie in"),
        ({"method": "fft"}, ValueError, "method must be one of"),
        ({"max_iter": 0}, ValueError, "max_iter must be at least 1"),
        ({"n_threads": 0}, ValueError, "n_threads must be at least 1"),
    ],
)
def test_wrong_arguments_are_rejected_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        conv_spectral_norm(**{"kernel": RING, "input_shape": 9, **arguments})


def test_it_is_one_function_under_three_names():
    assert exported is conv_spectral_norm is jm.conv_spectral_norm
