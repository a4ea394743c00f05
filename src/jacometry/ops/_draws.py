"""Random numbers drawn for many items at once, each from a stream of its own."""

import numpy as np

from .. import _backend, _kernels, _threads


def gaussian_rows(keys, first, out, *, scale=1.0, n_threads=None):
    """Fill each row of `out` with normal numbers of mean 0 and standard deviation `scale`.

    Row i takes the numbers ``first, first + 1, ...`` of the stream of ``keys[i]``, two words: what
    it takes depends on nothing else.  `out` (B, n) is float32 or float64, contiguous along a row.
    """
    if not out.size:
        return
    if _backend.is_reference():
        fill = _backend.reference("gaussian").gaussian_fill
        for key, row in zip(keys.tolist(), out, strict=True):
            row[:] = fill(key, first, len(row), scale, row.dtype)
        return
    keys = np.ascontiguousarray(keys, np.uint64)
    _kernels.gaussian_fill(
        int(out.dtype == np.float64), keys, first, scale, out, _threads.resolve(n_threads)
    )
