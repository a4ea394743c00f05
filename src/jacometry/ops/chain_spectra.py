"""All singular values of a product of layer Jacobians, whatever their spread."""

from dataclasses import dataclass

import numpy as np

from .. import _backend, _kernels, _threads
from .._validate import count, finite_scan
from ._chain_arrays import read_chain


@dataclass(frozen=True, slots=True)
class LogSingularValues:
    """Singular values of a chain as natural logs.

    Attributes
    ----------
    values : ndarray of float64, shape (r,) or (B, r)
        Descending; -inf for zeros.
    error : ndarray of float64, the same shape
        Bound of ``|value - truth|``.  0 for zeros that follow from zero slopes, rows or columns of
        the factors, inf where not a digit is certain.
    """

    values: np.ndarray
    error: np.ndarray


def chain_log_svdvals(
    weights,
    *,
    slopes=None,
    slope_side="output",
    shortcut=0.0,
    k=None,
    n_threads=None,
    check_finite=True,
):
    """Logs of all singular values of a product of layer Jacobians, with a bound of their errors.

    The product in floating point keeps the largest singular value only: what lies below 1e-16 of
    it is rounding.  Here a value comes out with its own digits however far it lies from the others.

    Parameters
    ----------
    weights, slopes, slope_side, shortcut
        The chain, as in `chain_product`.
    k : int, optional
        Return the k largest only; at most ``min(n_0, n_L)``.  The cost is that of all.
    n_threads : int, optional
        As in `chain_product`.
    check_finite : bool
        As in `chain_product`; False gives NaN for the samples concerned.

    Returns
    -------
    LogSingularValues
        ``r = k`` or ``min(n_0, n_L)`` values per sample, without a B axis when nothing has one.
        float64, computed in float64 for float32 input too.

    Raises
    ------
    ValueError, TypeError
        As in `chain_product`, and if `k` is out of range.

    Notes
    -----
    The product is kept as ``Q diag(2**e) T`` by a column-pivoted QR of each factor times Q, the
    exponents in integers; one-sided Jacobi finishes (Demmel and Veselic, Jacobi's method is more
    accurate than QR, SIAM J. Matrix Anal. Appl. 13, 1992).

    The error is about ``c n u sum_k cond(F_k)`` after column scaling where the factors' leading
    directions meet, and more where a factor turns what grew before into what shrinks after.  For
    square chains up to 32 wide, whose factors have no zero rows or columns, are of ordinary size
    and not of doubtful rank, the bound is proved, a worst case of every rounding.  For others it
    follows the errors layer by layer to first order, rounding errors taken as independent.  Where
    it exceeds 0.05 it is given as inf.  It covers the arithmetic, not the rounding of the factors.

    Cost ``6 n^3`` flops per layer and some ``20 n^3`` at the end, n the largest width; memory
    beyond input and output per item in work, at any depth: some ten ``n x n`` blocks of float64,
    and up to 8 MB of layers for each lane of a vector.
    Results do not depend on `n_threads` or on the rest of the batch.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry import chain_log_svdvals
    >>> spectrum = chain_log_svdvals([np.diag([1e200, 1e-100])] * 5)
    >>> spectrum.values / np.log(10)
    array([1000., -500.])
    >>> bool((spectrum.error < 1e-9).all())
    True
    """
    chain = read_chain(weights, slopes, slope_side, shortcut)
    n_threads = _threads.resolve(n_threads)
    n_values = min(chain.n_in, chain.n_out)
    if k is not None and count("k", k) > n_values:
        raise ValueError(f"k must be at most min(n_0, n_L) = {n_values}, got {k}")

    n_items = 1 if chain.n_samples is None else chain.n_samples
    values = np.full((n_items, n_values), -np.inf)
    error = np.zeros((n_items, n_values))
    bad_item, bad_layer = -1, np.empty(n_items, np.intp)

    if chain.n_layers == 0:
        values[:] = 0.0
    elif chain.has_empty_width or not n_items:
        _scan(chain, check_finite)
    elif _backend.is_reference():
        _scan(chain, check_finite)
        reference = _backend.reference("chain_spectra")
        for i in range(n_items):
            values[i] = reference.chain_log_svdvals(**chain.sample(i))
    else:
        bad_item = _kernels.chain_log_svdvals(
            int(chain.dtype == np.float64), chain, n_items, values, error, bad_layer,
            (6.0 + 60.0 / chain.n_layers) * chain.max_width**3, n_threads,
        )  # fmt: skip

    if check_finite and bad_item >= 0:
        chain.raise_non_finite(bad_item, int(bad_layer[bad_item]))
    values, error = values[:, :k], error[:, :k]
    if chain.n_samples is None:
        return LogSingularValues(values[0], error[0])
    return LogSingularValues(values, error)


def _scan(chain, check_finite):
    """The scan for non-finite entries where no kernel looks at them."""
    for name in ("weights", "slopes") if check_finite else ():
        arrays = getattr(chain, name)
        if isinstance(arrays, list):
            for k, array in enumerate(arrays):
                if array is not None:
                    finite_scan(f"{name}[{k}]", array)
        elif arrays is not None:
            finite_scan(name, arrays)
