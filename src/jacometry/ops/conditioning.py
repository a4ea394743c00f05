"""Smallest singular values, condition numbers and Frobenius norms, between bounds."""

import math
from functools import partial

import numpy as np

from .._validate import as_array, choice, common_dtype, contiguous, count, real_scalar
from . import _operator_smallest, _spectral_operator
from ._direct_norms import sum_squares
from ._norm_bounds import NormBounds, Scaled, raise_non_finite
from ._operator_products import is_operator, require_no_matvec_rtol
from ._singular_values import OUTWARD, extremes, gamma, takes_inverses

METHODS = ("auto", "svd")
OPERATOR_METHODS = ("auto", "lanczos", "svd")
MAX_ITER = _spectral_operator.MAX_ITER
# Entries of a block worked on at a time: bounds the memory that is not input or output.
BLOCK_ENTRIES = 2**22
# Sums of squares that neither over- nor underflow has touched.
PLAIN_SQUARES = (2.0**-800, 2.0**800)
NOTHING = np.empty(0, np.intp)


def frobenius_norm(
    a, *, rtol=1e-2, failure_prob=1e-9, rng=None, max_iter=None, matvec_rtol=None,
    check_finite=True, check_adjoint=True,
):  # fmt: skip
    """Frobenius norm of each matrix, between bounds, at any scale.

    Parameters
    ----------
    a : array_like, shape (..., m, n), or operator
        The matrices; or a sparse matrix, `LinearOperator` or `Chain`, as for `spectral_norm`.
    rtol : float
        Width at which `converged` is True; the width does not depend on it.
    failure_prob, rng, max_iter
        Of an operator larger than `max_iter` (default 500) on its short side: the chance that the
        bounds do not hold, the source of the probes, and how many of them.
    matvec_rtol, check_adjoint
        Of an operator, as for `spectral_norm`.
    check_finite : bool
        Raise for NaN and infinity in the input; False gives NaN for such items.

    Returns
    -------
    NormBounds
        Fields of shape ``(...)``; float32 if `a` is float32 or float16, else float64.

    Raises
    ------
    ValueError
        If `a` has fewer than two axes or an entry is not finite, naming the item; if `rtol` is not
        positive.
    TypeError
        If `a` is neither an array of real numbers nor a real operator.

    Notes
    -----
    Bounds are certain for arrays and sparse matrices.  An operator's are those of all its columns,
    up to its own error, or of probes, where they hold with probability ``1 - failure_prob``.

    Squares are summed in float64, in any order: the relative error of the sum is at most ``(m n +
    1) u`` (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1).  Items whose
    squares leave its range are scaled by a power of two first.  Cost ``2 m n`` flops and one
    reading.  Memory: three numbers per item, and a copy of what is not contiguous or is out of
    range, 2**22 entries at a time, of one matrix at least.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry.ops.conditioning import frobenius_norm
    >>> b = frobenius_norm([[3e300, 0.0], [0.0, 4e300]])
    >>> bool(b.lower <= 5e300 <= b.upper), bool(b.upper_certain), float(b)
    (True, True, 5e+300)
    """
    rtol, failure_prob, max_iter = _options(rtol, failure_prob, max_iter)
    if is_operator(a):
        return _spectral_operator.frobenius_norm(
            a, rtol=rtol, failure_prob=failure_prob, rng=rng, method="auto", max_iter=max_iter,
            matvec_rtol=matvec_rtol, check_finite=check_finite, check_adjoint=check_adjoint,
        )  # fmt: skip
    array, dtype = _matrices(a, matvec_rtol)
    return _bounded(array, dtype, "direct", rtol, check_finite, _frobenius)


def smallest_singular_value(
    a, *, rtol=1e-2, failure_prob=1e-9, rng=None, method="auto", max_iter=None, matvec_rtol=None,
    check_finite=True, check_adjoint=True, solve=None,
):  # fmt: skip
    """Smallest of the ``min(m, n)`` singular values of each matrix, between bounds.

    Parameters
    ----------
    a : array_like, shape (..., m, n), or operator
        The matrices, ``m, n >= 1``; or a sparse matrix, `LinearOperator` or `Chain`, as
        `spectral_norm` takes them.
    rtol : float
        Width at which `converged` is True; for arrays the width does not depend on it.
    failure_prob, rng, max_iter
        Of an operator, as for `spectral_norm`; not used for arrays, where both bounds are certain.
    method : {"auto", "lanczos", "svd"}
        "svd" writes an operator out; "lanczos" is for operators only.  "auto" takes approximate
        inverses of square arrays up to 64 rows, and "svd" where one is no good.
    matvec_rtol, check_adjoint
        Of an operator, as for `spectral_norm`.
    check_finite : bool
        Raise for NaN and infinity in the input; False gives NaN for such items.
    solve : LinearOperator, object with ``solve(b, trans)``, or pair of functions, optional
        The inverse of a square operator and of its transpose.  Without it products bound the
        smallest singular value of an operator that is not written out from above only: `lower` is
        0.

    Returns
    -------
    NormBounds
        Fields of shape ``(...)``.  A matrix that rounding cannot tell from one of lower rank has
        ``lower = value = 0`` and a small `upper`; one that lacks a nonzero row or column has
        ``upper = 0`` as well.  Of arrays, `method` says "inverse" (with "svd" for the items where
        one is no good) or "svd".

    Raises
    ------
    ValueError
        If `a` has fewer than two axes, or no rows or columns; if an entry is not finite, naming the
        item; if an option is out of range.
    TypeError
        If `a` is not an array of real numbers.

    Notes
    -----
    "auto": with X an approximate inverse and ``rho >= ||X A - I||_F``, rounding included,

    ``(1 - rho) / ||X|| <= sigma_n <= (1 + rho) / ||X||``,

    for ``||X A v|| >= 1 - rho`` at the last singular vector v and ``X = (I + R) A^-1``; ``||X||``
    lies between the bounds of `spectral_norm`.  rho is about ``n u`` times the condition number;
    from 2**-10 on, and for arrays that are not square or larger than 64, "svd" takes over.

    "svd": from LAPACK's ``A ~ U diag(s) V^T``, which is not trusted: with ``rho >= ||A V -
    U S||_F``, ``du >= ||U^T U - I||_F``, ``dv`` alike, all with the rounding of computing them,
    Weyl's and Ostrowski's inequalities (Horn and Johnson, Topics in Matrix Analysis, 1991, section
    3.3) give

    ``(s_k sqrt(1 - du) - rho) / sqrt(1 + dv) <= sigma_k``,
    ``sigma_k <= (s_k sqrt(1 + du) + rho) / sqrt(1 - dv)``

    for every k (Rump, Verified bounds for singular values, BIT 51, 2011).  rho is about ``n u
    ||A||_F``, so the relative width is that times the condition number.

    Cost of an inverse, a product and the Gram matrices' ``3 n^3`` flops; or of a full SVD and ``6 m
    n min(m, n)``.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry.ops.conditioning import smallest_singular_value
    >>> b = smallest_singular_value([[3.0, 0.0], [0.0, 4.0]])
    >>> bool(b.lower <= 3.0 <= b.upper), bool(b.lower_certain), round(float(b), 12)
    (True, True, 3.0)
    >>> float(smallest_singular_value(np.ones((3, 3))))
    0.0
    """
    rtol, failure_prob, max_iter = _options(rtol, failure_prob, max_iter)
    if is_operator(a):
        choice("method", method, OPERATOR_METHODS)
        return _operator_smallest.smallest_singular_value(
            a, rtol=rtol, failure_prob=failure_prob, rng=rng, method=method, max_iter=max_iter,
            matvec_rtol=matvec_rtol, check_finite=check_finite, check_adjoint=check_adjoint,
            solve=solve,
        )  # fmt: skip
    array, dtype = _matrices(a, matvec_rtol, method, solve)
    compute = partial(_smallest, method=method)
    return _bounded(array, dtype, _means(array, method), rtol, check_finite, compute)


def condition_number(
    a, *, rtol=1e-2, failure_prob=1e-9, rng=None, method="auto", max_iter=None, matvec_rtol=None,
    check_finite=True, check_adjoint=True, solve=None,
):  # fmt: skip
    """Largest over smallest of the ``min(m, n)`` singular values, between bounds.

    Parameters
    ----------
    a : array_like, shape (..., m, n), or operator
        The matrices, ``m, n >= 1``; or a sparse matrix, `LinearOperator` or `Chain`.
    rtol, failure_prob, rng, method, max_iter, matvec_rtol, check_finite, check_adjoint, solve
        As for `smallest_singular_value`; without `solve`, `upper` of an operator that is not
        written out is inf.

    Returns
    -------
    NormBounds
        Fields of shape ``(...)``.  A matrix that rounding cannot tell from one of lower rank has
        ``value = upper = inf`` and a certain `lower`.

    Raises
    ------
    ValueError, TypeError
        As `smallest_singular_value`.

    Notes
    -----
    The quotient of the enclosures of both singular values; the smallest as
    `smallest_singular_value` describes, the largest by "gram" of `spectral_norm` or the same SVD.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry.ops.conditioning import condition_number
    >>> b = condition_number([[1e-200, 0.0], [0.0, 4e-200]])
    >>> bool(b.lower <= 4.0 <= b.upper), float(condition_number(np.ones((3, 3))).upper)
    (True, inf)
    """
    rtol, failure_prob, max_iter = _options(rtol, failure_prob, max_iter)
    if is_operator(a):
        choice("method", method, OPERATOR_METHODS)
        return _operator_smallest.condition_number(
            a, rtol=rtol, failure_prob=failure_prob, rng=rng, method=method, max_iter=max_iter,
            matvec_rtol=matvec_rtol, check_finite=check_finite, check_adjoint=check_adjoint,
            solve=solve,
        )  # fmt: skip
    array, dtype = _matrices(a, matvec_rtol, method, solve)
    compute = partial(_condition, method=method)
    return _bounded(array, dtype, _means(array, method), rtol, check_finite, compute)


def _options(rtol, failure_prob, max_iter):
    rtol = real_scalar("rtol", rtol, low=0.0, open_low=True, open_high=True)
    failure_prob = real_scalar(
        "failure_prob", failure_prob, low=0.0, high=1.0, open_low=True, open_high=True
    )
    max_iter = MAX_ITER if max_iter is None else count("max_iter", max_iter, low=1)
    return rtol, failure_prob, max_iter


def _matrices(a, matvec_rtol, method=None, solve=None):
    """The array and the dtype of the result; a method is given where no matrix may be empty."""
    require_no_matvec_rtol(matvec_rtol)
    array = as_array("a", a)
    if array.ndim < 2:
        raise ValueError(f"a must have shape (..., m, n), got {array.shape}")
    if solve is not None:
        raise ValueError("solve is the inverse of an operator; leave it out for an array")
    if method is not None:
        choice("method", method, METHODS)
        if not (array.shape[-2] and array.shape[-1]):
            raise ValueError(f"a must have at least one row and column, got {array.shape}")
    return array, common_dtype(array)


def _means(array, method):
    m, n = array.shape[-2:]
    return "inverse" if takes_inverses(m, n, method) else "svd"


def _bounded(array, dtype, method, rtol, check_finite, compute):
    """`compute` on blocks of scaled float64 items, tall: its (3, B) bounds, times 2**exponent."""
    batch, (m, n) = array.shape[:-2], array.shape[-2:]
    n_items = math.prod(batch)
    is_frobenius = compute is _frobenius
    tall = np.swapaxes(array, -1, -2) if m < n and not is_frobenius else array
    items = tall.reshape(n_items, *tall.shape[-2:])
    scaled = Scaled.zeros(n_items)
    step = max(1, BLOCK_ENTRIES // max(1, m * n))
    for begin in range(0, n_items if m * n else 0, step):
        block = items[begin : begin + step]
        index = slice(begin, begin + step)
        if is_frobenius:
            bounds, odd = _plain_frobenius(contiguous(block, dtype))
            if not odd.size and step >= n_items and dtype == np.float64:  # the usual case, at once
                scaled = Scaled(bounds, scaled.exponent, ends=bounds)
                break
            scaled.bounds[:, index] = bounds
            if not odd.size:
                continue
            block, index = block[odd], begin + odd
        block = contiguous(block, np.float64)
        peak = np.abs(block).reshape(len(block), m * n).max(axis=1)
        is_finite = np.isfinite(peak)
        exponent = np.where(is_finite, np.frexp(peak)[1], 0).astype(np.int64)
        usable = block if is_finite.all() else np.where(is_finite[:, None, None], block, 0.0)
        with np.errstate(under="ignore"):
            bounds, power = compute(np.ldexp(usable, -exponent[:, None, None]), _rank(usable))
        bounds[:, ~is_finite] = np.nan
        scaled.bounds[:, index] = bounds
        scaled.exponent[index] = power * exponent
    if check_finite and (item := scaled.first_non_finite()) >= 0:
        raise_non_finite(array, batch, item)
    return NormBounds(scaled, dtype=dtype, batch=batch, method=method, rtol=rtol)


def _rank(items):
    """The number of nonzero rows or columns, whichever is less: at least the rank."""
    if items.all():
        return np.full(len(items), min(items.shape[1:]))
    return np.minimum(*((items != 0).any(axis=i).sum(axis=1) for i in (1, 2)))


def _plain_frobenius(items):
    """(3, B) bounds without scaling, to the same digits, and the items out of that range."""
    square, odd = sum_squares(items), NOTHING
    if not (square.min() > PLAIN_SQUARES[0] and square.max() < PLAIN_SQUARES[1]):  # NaN is out too
        odd = np.flatnonzero(~((square > PLAIN_SQUARES[0]) & (square < PLAIN_SQUARES[1])))
        square[odd] = 1.0  # replaced by the caller
    return _widened(np.sqrt(square), math.prod(items.shape[1:])), odd


def _widened(value, n_entries):
    """(3, B) bounds around Frobenius norms of so many entries."""
    error = gamma(n_entries + 2)
    bounds = np.empty((3, len(value)))
    for row, factor in zip(bounds, (1 - error, 1.0, 1 + error), strict=True):
        np.multiply(value, factor, out=row)
    return bounds


def _frobenius(items, _rank):
    """(3, B) bounds and 1, the power of the scale that they carry."""
    value = np.sqrt(sum_squares(items))
    # what scaling and squaring lose to underflow is far below one rounding of a norm above 1/2
    return np.where(value > 0, _widened(value, math.prod(items.shape[1:])), 0.0), 1


def _smallest(items, rank, method):
    """(3, B) bounds and 1, the power of the scale that they carry."""
    return extremes(items, rank, method, is_largest_wanted=False)[1], 1


def _condition(items, rank, method):
    """(3, B) bounds and 0: the scale cancels."""
    largest, smallest = extremes(items, rank, method)
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds = np.array(
            [
                np.fmax(largest[0] / smallest[2] * (1 - OUTWARD), 1.0),
                largest[1] / smallest[1],
                largest[2] / smallest[0] * (1 + OUTWARD),
            ]
        )
    bounds = np.where(smallest[2] == 0, np.inf, bounds)
    bounds[1] = np.clip(bounds[1], bounds[0], bounds[2])
    return bounds, 0
