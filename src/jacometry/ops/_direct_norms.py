"""The compiled norms of batches of small matrices."""

import numpy as np

from .. import _backend, _kernels
from ._norm_bounds import Scaled

# The short side up to which "auto" takes the direct method.
GRAM_MAX_SIZE = 64

# JM_NOT_CONVERGED: the bounds of an item are wider than asked.
NOT_CONVERGED = 2


def gram_bounds(items, rtol, n_threads):
    """`Scaled` bounds on the 2-norms of contiguous items (B, m, n) from their Gram matrices.

    float32 items whose bounds are wider than `rtol` are repeated in float64.
    """
    if _backend.is_reference():
        reference = _backend.reference("spectral")
        found = [reference.spectral_norm_gram(item) for item in items]
        bounds, exponent = (np.array(field) for field in zip(*found, strict=True))
        return Scaled(bounds.T.copy(), exponent.astype(np.int64))
    n_items, dtype = len(items), items.dtype
    is_float64 = dtype == np.float64
    ends = np.empty((3, n_items), dtype)
    status = None if is_float64 else np.empty(n_items, np.intc)
    kernel, a_type = _kernels.spectral_norm_gram, int(is_float64)
    if kernel(a_type, items, rtol, None, ends, None, status, n_threads):
        # some bounds leave the range of the type: once more, with exponents
        bounds, exponent = np.empty((3, n_items)), np.empty(n_items, np.int64)
        kernel(a_type, items, rtol, bounds, ends, exponent, status, n_threads)
    else:
        bounds, exponent = ends, np.zeros(n_items, np.int64)
    scaled = Scaled(bounds, exponent, ends=ends)
    if status is not None and (again := np.flatnonzero(status == NOT_CONVERGED)).size:
        scaled.bounds = bounds.astype(np.float64)
        scaled.put(again, gram_bounds(items[again].astype(np.float64), rtol, n_threads))
    return scaled


def sum_squares(items, n_threads=1):
    """Sums of squares of contiguous items (B, ...), in float64, any range, without a warning."""
    squares = np.empty(len(items))
    if not items.size:
        squares[:] = 0.0
    elif _backend.is_reference():
        squares[:] = _backend.reference("spectral").sum_squares(items)
    else:
        is_float64 = int(items.dtype == np.float64)
        _kernels.sum_squares(is_float64, items.reshape(len(items), -1), squares, n_threads)
    return squares
