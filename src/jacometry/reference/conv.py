"""Oracle of convolution norms: the operator's matrix, entry by entry from the definition."""

import itertools

import numpy as np


def conv_matrix(kernel, input_shape, padding, *, padding_mode="zeros", stride, dilation, groups=1):
    """The matrix (out * prod(output_shape), in * prod(input_shape)) of a cross-correlation.

    ``y[o, i] = sum_{c, t} kernel[o, c, t] x[c, stride i + dilation t - before]``, c over the
    channels of o's group; x is 0 outside ("zeros") or periodic ("circular").  padding is a list of
    (before, after), stride and dilation are lists, one entry per axis.
    """
    n_out, per_group, *taps = kernel.shape
    sizes = [
        (n + sum(p) - d * (k - 1) - 1) // s + 1
        for n, p, k, s, d in zip(input_shape, padding, taps, stride, dilation, strict=True)
    ]
    matrix = np.zeros((n_out, *sizes, per_group * groups, *input_shape))
    for o, c in itertools.product(range(n_out), range(per_group)):
        channel = o // (n_out // groups) * per_group + c
        for i in np.ndindex(*sizes):
            for t in np.ndindex(*taps):
                j = [
                    s * a + d * b - p[0]
                    for s, a, d, b, p in zip(stride, i, dilation, t, padding, strict=True)
                ]
                if padding_mode == "circular":
                    j = [a % n for a, n in zip(j, input_shape, strict=True)]
                if all(0 <= a < n for a, n in zip(j, input_shape, strict=True)):
                    matrix[(o, *i, channel, *j)] += kernel[(o, c, *t)]
    return matrix.reshape(n_out * int(np.prod(sizes)), -1)


def conv_spectral_norm(kernel, input_shape, padding, **geometry):
    """The largest singular value of `conv_matrix`."""
    return np.linalg.svd(conv_matrix(kernel, input_shape, padding, **geometry), compute_uv=False)[0]
