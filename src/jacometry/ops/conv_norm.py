"""Norms of convolutions as the linear maps they are."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _threads
from .._validate import as_array, choice, common_dtype, count, finite_scan, real_scalar
from ..factors._conv import _Conv
from ._operator_products import PAIRWISE, UNIT, Products, gamma
from ._spectral_operator import SVD_ERROR, Interval, norm_interval

__all__ = ["conv_spectral_norm"]

METHODS = ("auto", "lanczos", "gram", "svd")

# Relative error in the 2-norm of a transform of n terms: this many units of rounding for each of
# log2(n) + 3 factors of two.  Higham (Accuracy and Stability of Numerical Algorithms, 2002, theorem
# 24.2) has 8 for powers of two with weights correct to rounding; twice that for other radices, and
# three transforms of up to four times the length where the length has large prime factors.
FFT_ROUNDINGS = 48.0

# Blocks whose real form has a short side of at most this are bounded by the direct method.
GRAM_SIZE = 128


def conv_spectral_norm(
    kernel,
    input_shape,
    *,
    padding=0,
    padding_mode="zeros",
    stride=1,
    dilation=1,
    groups=1,
    rtol=1e-2,
    failure_prob=1e-9,
    rng=None,
    method="auto",
    max_iter=None,
    n_threads=None,
):
    """2-norm of a convolution, the linear map from signals to signals, between bounds that hold.

    ``y[o, i] = sum_{c, t} kernel[o, c, t] x[c, stride i + dilation t - before]``, the
    cross-correlation of deep-learning libraries.  It is not the norm of the kernel flattened to a
    matrix, which may be smaller or larger by the square root of the kernel's size.

    Parameters
    ----------
    kernel : array_like, shape (out, in / groups, *k)
        Any number of spatial axes, at least one.
    input_shape : int or sequence of int
        The spatial sizes of the input.
    padding : int, sequence of int, sequence of (before, after), or "same"
        Entries added at the ends of each axis, as in `Conv2d`.
    padding_mode : {"zeros", "circular", "reflect", "replicate"}
        What the added entries hold.
    stride, dilation : int or sequence of int
        Steps between outputs, and between the entries that one output sees.
    groups : int
        Blocks of channels that do not mix.
    rtol : float
        Width asked for: ``upper / lower <= 1 + rtol``.  Whether it was reached is `converged`.
    failure_prob : float
        Probability that an upper bound of Lanczos may fail; in (0, 1).
    rng : None, int, numpy.random.Generator or anything numpy.random.default_rng takes
        As in `spectral_norm`.
    method : {"auto", "lanczos", "gram", "svd"}
        "auto" goes by frequencies where the padding is circular and the output has ``input /
        stride`` positions along every axis, and else takes the method that `spectral_norm` takes
        for an operator.  "gram" and "svd" do the same with that method for the blocks of the
        frequencies or for the whole matrix, "lanczos" takes the map as an operator in any case.
    max_iter : int, optional
        Most steps of Lanczos; None is 500.
    n_threads : int, optional
        Threads over the frequencies, as in `spectral_norm`.

    Returns
    -------
    NormBounds
        float32 if `kernel` is float32 or float16, else float64; its `method` is "fft" where
        frequencies were used.

    Raises
    ------
    ValueError
        If shapes do not fit, an entry of `kernel` is not finite or an option is out of range.
    TypeError
        If `kernel` is not an array of real numbers.

    Notes
    -----
    Circular: the discrete Fourier transform turns the map into one matrix per frequency, of shape
    ``(out, in * prod(stride)) / groups``, whose norms' maximum is the norm (Sedghi, Gupta and Long,
    The singular values of convolutional layers, 2019; with a stride, of the polyphase components).
    Both bounds are certain where the method is "gram", which "auto" takes for blocks of up to 64
    channels on one side: those of `spectral_norm` and the rounding of the transform, ``96 u
    (log2(N) + 3)`` of the root of all blocks' squares, N the number of positions.  Larger blocks
    have Lanczos' bound with `failure_prob` shared among them.  Cost: N / 2 norms of that shape.

    Otherwise as `spectral_norm` of the operator: ``4 kernel.size * prod(output_shape)`` flops per
    step, a basis of max_iter vectors of the shorter side at most.

    Examples
    --------
    >>> from jacometry.ops.spectral import conv_spectral_norm
    >>> ring = conv_spectral_norm([[[2.0, 7.0, -1.0]]], 20, padding=1, padding_mode="circular")
    >>> round(float(ring), 12), bool(ring.upper_certain)
    (8.005633637867, True)
    >>> round(float(conv_spectral_norm([[[2.0, 7.0, -1.0]]], 20, padding=1)), 12)
    8.005669312253
    """
    rtol = real_scalar("rtol", rtol, low=0.0, open_low=True, open_high=True)
    failure_prob = real_scalar(
        "failure_prob", failure_prob, low=0.0, high=1.0, open_low=True, open_high=True
    )
    choice("method", method, METHODS)
    max_iter = None if max_iter is None else count("max_iter", max_iter, low=1)
    n_threads = _threads.resolve(n_threads)
    array = as_array("kernel", kernel)
    if array.ndim < 3:
        raise ValueError(f"kernel must have shape (out, in/groups, *k), got {array.shape}")
    finite_scan("kernel", array)
    conv = type("Conv", (_Conv,), {"n_axes": array.ndim - 2})(
        array, input_shape, padding=padding, padding_mode=padding_mode, stride=stride,
        dilation=dilation, groups=groups,
    )  # fmt: skip
    rng = np.random.default_rng(rng)

    products = _conv_products(conv, common_dtype(array))
    if method != "lanczos" and _is_periodic(conv):
        found = _by_frequencies(conv, rtol, failure_prob, rng, method, max_iter, n_threads)
    else:
        found = norm_interval(products, rtol, failure_prob, rng, method, max_iter)
    return found.bounds(products, rtol, failure_prob)


@dataclass(slots=True)
class _ConvProducts(Products):
    """A convolution, its kernel over 2**scale."""

    factor: Any = None

    def forward(self, x):
        """See `Products`."""
        return self.factor.jvp(x), np.full(len(x), self.scale)

    def adjoint(self, y):
        """See `Products`."""
        return self.factor.vjp(y), np.full(len(y), self.scale)


def _conv_products(conv, dtype):
    factor, scale = conv.scaled()
    cap, n_terms, copies = _certain_cap(factor)
    return _ConvProducts(
        shape=conv.shape,
        dtype=dtype,
        rounding=gamma(n_terms) * cap,
        written=gamma(copies - 1) * cap,  # entries that meet in one place
        cap=cap,
        scale=scale,
        factor=factor,
    )


def _is_periodic(conv):
    """Whether a shift of the input by `stride` shifts the output by one, around the ends too."""
    return conv.padding_mode == "circular" and all(
        n_out * s == n
        for n_out, s, n in zip(conv.output_shape, conv.stride, conv.input_shape, strict=True)
    )


def _certain_cap(conv):
    """No less than the norm, as ``sqrt(||T||_1 ||T||_inf)``; terms of a sum in a product; copies.

    A row of T holds the kernel of its output channel; a column part of that of its input channel,
    once for every copy of its entry in the padded input.
    """
    kernel = np.abs(conv.kernel.astype(np.float64))
    size = kernel.reshape(conv.groups, -1, *kernel.shape[1:])
    taps = tuple(range(3, size.ndim))
    rows, columns = size.sum(axis=(2, *taps)), size.sum(axis=(1, *taps))
    copies = math.prod(
        _copies(conv.padding_mode, n, *pads)
        for n, pads in zip(conv.input_shape, conv.padding, strict=True)
    )
    more = 1 if _is_periodic(conv) else copies  # a column then holds each entry once
    n_terms = size[0].size * copies
    cap = np.sqrt(np.max(rows) * np.max(columns) * more) * (1 + 2 * gamma(n_terms))
    return float(cap) * (1 + 8 * UNIT), n_terms, copies


def _copies(padding_mode, size, before, after):
    """How often an entry stands in the padded input at most, along one axis."""
    if padding_mode == "circular":
        return -(-(size + before + after) // size)
    if padding_mode == "reflect":
        return 1 + (before > 0) + (after > 0)
    return 1 if padding_mode == "zeros" else 1 + before + after


def _transfer_matrices(conv):
    """One complex matrix per group and frequency, (F, out / g, in / g * prod(stride)), over 2**e.

    The kernel is laid on the input's grid, wrapped around where it is longer.  Positions ``s q +
    r`` of the input are the phases r of the polyphase representation, and q is transformed.
    Padding shifts the input around its ends and changes no norm.  The kernel is real: half of the
    frequencies have the norms of all.
    """
    from scipy.fft import rfftn  # 40 ms, which an import of this package need not wait for

    sizes, axes = conv.input_shape, range(2, 2 + conv.n_axes)
    factor, exponent = conv.scaled()
    kernel = factor.kernel.astype(np.float64)
    grid = np.zeros((*kernel.shape[:2], *sizes))
    for tap in np.ndindex(*kernel.shape[2:]):
        at = (t * d % n for t, d, n in zip(tap, conv.dilation, sizes, strict=True))
        grid[(..., *at)] += kernel[(..., *tap)]
    split = (size for n, s in zip(sizes, conv.stride, strict=True) for size in (n // s, s))
    grid = grid.reshape(*grid.shape[:2], *split)
    positions = [2 * a - 2 for a in axes]
    phases = [p + 1 for p in positions]
    blocks = rfftn(grid, axes=positions)
    blocks = blocks.transpose(*positions, 0, 1, *phases)
    n_frequencies = math.prod(blocks.shape[: conv.n_axes])
    blocks = blocks.reshape(n_frequencies, conv.groups, conv.out_channels // conv.groups, -1)
    return blocks.reshape(-1, *blocks.shape[2:]), exponent


def _by_frequencies(conv, rtol, failure_prob, rng, method, max_iter, n_threads):
    from .spectral import spectral_norm  # which imports this module

    blocks, exponent = _transfer_matrices(conv)
    n_positions = math.prod(conv.output_shape)
    if method == "svd":
        value = np.linalg.svd(blocks, compute_uv=False)[:, 0]
        error = SVD_ERROR * max(blocks.shape[1:]) * 2 * UNIT
        lower, upper, certain, n_iter = value * (1 - error), value * (1 + error), False, 0
    else:
        # x + iy -> (x, y): real, of the same norm
        real, imag = blocks.real, blocks.imag
        both = np.concatenate(
            [np.concatenate([real, -imag], axis=2), np.concatenate([imag, real], axis=2)], axis=1
        )
        if method == "auto":
            method = "gram" if min(both.shape[1:]) <= GRAM_SIZE else "lanczos"
        found = spectral_norm(
            both, rtol=rtol, failure_prob=failure_prob / len(both), rng=rng, method=method,
            max_iter=max_iter, n_threads=n_threads,
        )  # fmt: skip
        lower, value, upper = found.lower, found.value, found.upper
        top = float(np.max(found.lower))
        certain = bool(np.all(found.upper_certain | (found.upper <= top)))
        n_iter = int(np.max(found.n_iter))
    size = np.linalg.norm(blocks) * (1 + PAIRWISE * UNIT)  # at least sqrt(N / 2) ||kernel||_F
    off = FFT_ROUNDINGS * UNIT * (np.log2(n_positions) + 3) * 2 * size
    result = Interval.of(1, "fft", exponent=exponent, n_iter=n_iter)
    result.lower[:] = max(float(np.max(lower)) - off, 0.0) * (1 - 2 * UNIT)
    result.value[:] = np.max(value)
    result.upper[:] = (float(np.max(upper)) + off) * (1 + 2 * UNIT)
    result.lower_certain[:] = method != "svd"
    result.upper_certain[:] = certain
    return result
