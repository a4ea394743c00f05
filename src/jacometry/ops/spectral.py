"""Norms of matrices with bounds that hold, at any scale."""

import math

import numpy as np
from scipy import special

from .. import _backend, _kernels, _threads
from .._validate import as_array, choice, common_dtype, contiguous, count, real_scalar
from . import _spectral_operator
from ._direct_norms import GRAM_MAX_SIZE, NOT_CONVERGED, gram_bounds, sum_squares
from ._norm_bounds import EPS, LOWER, PROBABLE_UPPER, NormBounds, Scaled, raise_non_finite
from ._operator_products import is_operator, require_no_matvec_rtol
from .conditioning import condition_number as condition_number
from .conditioning import frobenius_norm as frobenius_norm
from .conditioning import smallest_singular_value as smallest_singular_value
from .conv_norm import conv_spectral_norm as conv_spectral_norm
from .joint_radius import JSRBounds as JSRBounds
from .joint_radius import joint_spectral_radius as joint_spectral_radius
from .radius import RadiusEstimate as RadiusEstimate
from .radius import spectral_radius as spectral_radius

METHODS = ("auto", "lanczos", "gram", "svd")

# Where the direct method gives way to Lanczos beside GRAM_MAX_SIZE: entries of one matrix.  Chosen
# by shape alone, so that no result depends on how a batch is cut.
GRAM_MAX_ENTRIES = 2**18

# Steps of Lanczos unless max_iter says otherwise; the basis of so many vectors is kept.
MAX_ITER = 500

FLOAT32_UNIT = 2.0**-24
# Entries of a float64 matrix from which Lanczos, if rtol allows, reads it rounded to float32: it
# does not fit a cache of 2 MB.
NARROW_ENTRIES = 2**18

# Failure probability below which the leading term of the incomplete beta function is exact to
# rounding.
LEADING_TERM = 1e-20

# |computed - exact| <= SVD_ERROR max(m, n) eps sigma_max: the form of the bound in the LAPACK
# Users' Guide (1999, section 4.9.1), whose constant LAPACK does not state.
SVD_ERROR = 4.0


def spectral_norm(
    a,
    *,
    rtol=1e-2,
    failure_prob=1e-9,
    rng=None,
    method="auto",
    max_iter=None,
    n_threads=None,
    check_finite=True,
    matvec_rtol=None,
    check_adjoint=True,
):
    """Largest singular value of each matrix, between bounds that hold.

    Parameters
    ----------
    a : array_like, shape (..., m, n), or operator
        The matrices.  Or one given by its products: a SciPy ``LinearOperator`` (anything with
        ``shape``, ``matvec`` and ``rmatvec``), sparse matrix, factor or `Chain` (one per sample).
    rtol : float
        Width asked for: ``upper / lower <= 1 + rtol``.  Whether it was reached is `converged`.
    failure_prob : float
        Probability, per item, that Lanczos' upper bound may fail; in (0, 1).
    rng : None, int, numpy.random.Generator or anything numpy.random.default_rng takes
        Where the Gaussian start vectors of Lanczos come from.  None draws from the operating
        system; a seed known to whoever makes the matrices voids the probability.
    method : {"auto", "lanczos", "gram", "svd"}
        "gram" is direct and certain on both sides.  "lanczos" is for large matrices: lower bound
        certain, upper bound probabilistic.  "svd" is NumPy's, with LAPACK's error bound.  "auto"
        takes "gram" where the short side is at most 64 and m n at most 2**18, else "lanczos".
    max_iter : int, optional
        Most steps of Lanczos; None is ``min(m, n, 500)``.
    n_threads : int, optional
        Threads over the items; None takes the smaller of OpenMP's limit and the CPU quota.  One
        matrix is worked on by one thread.
    check_finite : bool
        Raise for NaN and infinity in the input (found at no cost); False gives NaN for such items.
    matvec_rtol : float, optional
        Of an operator or Chain: its products' own error, ``||computed - A x|| <= matvec_rtol ||A||
        ||x||``.  None assumes that of a dense product, ``8 sqrt(max(m, n)) u``, for each factor of
        a Chain; products with a sparse matrix are bounded from its entries.
    check_adjoint : bool
        Test with one Gaussian vector on each side that an operator's ``rmatvec`` is the transpose
        of its ``matvec`` (of the factors of a Chain those that are not this package's).

    Returns
    -------
    NormBounds
        Fields of shape ``(...)``; float32 if `a` is float32 or float16, else float64.  A matrix of
        zeros, or without rows or columns, has the bounds (0, 0).

    Raises
    ------
    ValueError
        If `a` has fewer than two axes or an entry is not finite, naming the item; if `rtol`,
        `failure_prob`, `method` or `max_iter` is out of range; if an operator returns a wrong
        shape or NaN, or fails the test of its adjoint.
    TypeError
        If `a` is not an array of real numbers, or an operator is complex, returns what is not
        real or has no ``rmatvec``.

    Notes
    -----
    Matrices are scaled by powers of two, exactly, so any scale is safe and multiplying `a` by 2**k
    multiplies the bounds by 2**k, bit for bit.

    "gram" takes the largest eigenvalue of the Gram matrix of the shorter side by
    tridiagonalisation. Above, ``theta I - G = L D L^T`` is proved positive semidefinite by that
    factorisation and its rounding bound (Rump, Verification of positive definiteness, BIT 46,
    2006).  Below, with ``D^(1/2) L^T v = w``, the norm's square is at least ``theta - (||w|| /
    ||v||)^2`` less its rounding, for any w; the one taken comes from a step of inverse
    iteration, two in float32, whose start adapts to L, so that multiple singular values and
    symmetric vectors are no exception.  Relative width about ``u n^2`` in either direction at
    worst, u the unit roundoff; the value itself is good to a few u.  Cost ``m n^2 + 2 n^3`` flops,
    n the shorter side.

    "lanczos" iterates on ``A^T A`` with full reorthogonalisation.  Lower bound: a Rayleigh quotient
    less its rounding.  Upper bound: the root beyond the Ritz values of ``p_k(t) = 1 / delta``, p_k
    the Lanczos polynomial and ``P(|gamma| < delta) = failure_prob`` for one coordinate gamma of a
    random unit vector (Hochstenbach, Probabilistic upper bounds for the matrix two-norm, J. Sci.
    Comput. 57, 2013), plus the rounding of forming ``A^T A v``; at most the certain ``min(||A||_F,
    sqrt(||A||_1 ||A||_inf))``.  The probability is over the start vector; rounding in the
    recurrence is taken as a backward error.  Cost ``4 m n`` flops and one reading of A per step;
    memory ``max_iter * min(m, n)`` numbers per thread.

    float32 items whose rounding is too coarse for `rtol` are repeated in float64.  float64 matrices
    of 2**18 entries or more are first rounded to float32 where `rtol` allows (1e-2 up to n of some
    thousands), which halves what is read; both bounds are then moved by ``u ||A||_F``, u that of
    float32, so that they are those of A.

    "svd": the bound is ``4 max(m, n) eps`` relative, the form LAPACK documents without its
    constant, so neither side is marked certain.

    Operators: "auto" writes the matrix out where the short side is at most 64, "gram" and "svd" up
    to 2**24 entries; all else is Golub and Kahan's bidiagonalisation, two products per step, the
    basis of the shorter side kept orthogonal, ``max_iter * min(m, n)`` numbers at most, and the
    bounds of "lanczos" from it.  The lower bound, a Rayleigh quotient, is certain up to the
    operator's own error.  Sparse matrices and convolutions have the certain upper bound as well.
    Vectors of a Chain carry exponents, so that the logs of the bounds hold at any depth.

    Results do not depend on `n_threads`; those of "gram" not on the rest of the batch either.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry.ops.spectral import spectral_norm
    >>> b = spectral_norm([[3.0, 0.0], [0.0, 4.0]])
    >>> round(float(b), 12), bool(b.lower <= 4.0 <= b.upper), bool(b.upper_certain)
    (4.0, True, True)
    >>> spectral_norm(np.ones((2, 300, 400)), rng=0).value.round(6)
    array([346.410162, 346.410162])
    """
    rtol = real_scalar("rtol", rtol, low=0.0, open_low=True, open_high=True)
    failure_prob = real_scalar(
        "failure_prob", failure_prob, low=0.0, high=1.0, open_low=True, open_high=True
    )
    choice("method", method, METHODS)
    max_iter = MAX_ITER if max_iter is None else count("max_iter", max_iter, low=1)
    n_threads = _threads.resolve(n_threads)
    if is_operator(a):
        return _spectral_operator.spectral_norm(
            a, rtol=rtol, failure_prob=failure_prob, rng=rng, method=method, max_iter=max_iter,
            matvec_rtol=matvec_rtol, check_finite=check_finite, check_adjoint=check_adjoint,
        )  # fmt: skip
    require_no_matvec_rtol(matvec_rtol)
    array = as_array("a", a)
    if array.ndim < 2:
        raise ValueError(f"a must have shape (..., m, n), got {array.shape}")
    batch, (m, n) = array.shape[:-2], array.shape[-2:]
    size = min(m, n)
    if method == "auto":
        is_small = size <= GRAM_MAX_SIZE and m * n <= GRAM_MAX_ENTRIES
        method = "gram" if is_small else "lanczos"
    if rng is not None or method == "lanczos":  # not asked of the system for nothing
        rng = np.random.default_rng(rng)

    dtype = common_dtype(array)
    n_items = math.prod(batch)
    # for Lanczos a wide matrix is transposed: the norm is the same, the basis shorter
    tall = np.swapaxes(array, -1, -2) if m < n and method == "lanczos" else array
    items = contiguous(tall.reshape(n_items, *tall.shape[-2:]), dtype)

    inner_rtol = rtol
    if dtype == np.float32:  # room for rounding the bounds outward to float32
        inner_rtol = max(rtol / 2, rtol - 2 * float(np.finfo(dtype).eps))

    if not items.size:
        scaled = Scaled.zeros(n_items)
    elif method == "svd":
        scaled = _svd(items)
    elif method == "gram":
        scaled = gram_bounds(items, inner_rtol, n_threads)
    else:
        starts = rng.standard_normal((n_items, size))
        log_level = _log_level(size, failure_prob)
        scaled = _lanczos(items, starts, inner_rtol, log_level, min(max_iter, size), n_threads)

    if check_finite and (item := scaled.first_non_finite()) >= 0:
        raise_non_finite(array, batch, item)
    chance = failure_prob if method == "lanczos" else 0.0
    return NormBounds(
        scaled, dtype=dtype, batch=batch, method=method, rtol=rtol, failure_prob=chance
    )


def _log_level(n, failure_prob):
    """log(1 / delta) with P(|gamma| < delta) = failure_prob, gamma one coordinate of a random unit
    vector.

    gamma^2 of a uniform direction in n dimensions is Beta(1/2, (n - 1)/2).
    """
    if n == 1:
        return 0.0
    if failure_prob < LEADING_TERM:  # 2 delta / B(1/2, (n - 1)/2), for delta^2 may underflow
        return -float(np.log(failure_prob / 2) + special.betaln(0.5, (n - 1) / 2))
    return -0.5 * float(np.log(special.betaincinv(0.5, (n - 1) / 2, failure_prob)))


def _lanczos(items, starts, rtol, log_level, max_iter, n_threads):
    options = rtol, log_level, max_iter, n_threads
    if _backend.is_reference():
        reference, found = _backend.reference("spectral"), []
        for item, start in zip(items, starts, strict=True):
            found.append(reference.spectral_norm_lanczos(item, start, rtol, log_level, max_iter))
        bounds, exponent, n_iter = (np.array(field) for field in zip(*found, strict=True))
        return Scaled(bounds.T.copy(), exponent.astype(np.int64), n_iter.astype(np.int64))
    if items.dtype == np.float32:
        scaled, status = _run_lanczos(items, starts, *options)
        # a run that used up its steps was not stopped by rounding
        limit = max_iter if max_iter < items.shape[-1] else max_iter + 1
        again = np.flatnonzero((status == NOT_CONVERGED) & (scaled.n_iter < limit))
    elif items[0].size >= NARROW_ENTRIES and _narrow_width(*items.shape[1:]) <= rtol / 2:
        scaled, again = _lanczos_of_rounded(items, starts, *options)
    else:
        return _run_lanczos(items, starts, *options)[0]
    if again.size:
        wide = contiguous(items[again], np.float64)
        scaled.put(again, _run_lanczos(wide, contiguous(starts[again], np.float64), *options)[0])
    return scaled


def _run_lanczos(items, starts, rtol, log_level, max_iter, n_threads):
    """The kernel's bounds, and its statuses."""
    n_items = len(items)
    bounds, status = np.empty((n_items, 4)), np.empty(n_items, np.intc)
    exponent, n_iter = np.empty((2, n_items), np.int64)
    _kernels.spectral_norm_lanczos(
        int(items.dtype == np.float64), items, starts, rtol, log_level, max_iter, bounds, exponent,
        n_iter, status, n_threads,
    )  # fmt: skip
    return Scaled(bounds.T, exponent, n_iter), status


def _narrow_width(m, n):
    """What forming products in float32 adds to the width of a usual matrix' bounds, or more.

    The squared norm is off by some ``(m / 64 + n / 16 + 96) u ||A||_F^2``; a Gaussian matrix has
    ``||A||_F^2 = n ||A||^2 / 4``.
    """
    return (m / 64 + n / 16 + 96) * FLOAT32_UNIT * n / 8


def _lanczos_of_rounded(items, starts, rtol, log_level, max_iter, n_threads):
    """Bounds of float64 items from Lanczos on their roundings to float32, half as much to read.

    Either bound moves by ``||A - fl(A)|| <= u ||A||_F``.  Also the items for which it did not do.
    """
    peak = np.maximum(items.max(axis=(1, 2)), -items.min(axis=(1, 2)))
    is_finite = np.isfinite(peak)
    exponent = np.where(is_finite, np.frexp(peak)[1], 0).astype(np.int64)
    narrow = np.empty(items.shape, np.float32)
    with np.errstate(under="ignore", over="ignore", invalid="ignore"):
        for item, e, to in zip(items, exponent, narrow, strict=True):
            np.ldexp(item, -e, out=to, casting="same_kind")
    scaled, _ = _run_lanczos(narrow, starts, rtol, log_level, max_iter, n_threads)
    bounds = np.ldexp(scaled.bounds, scaled.exponent)
    # entries that underflow in float32 are far below the spare part of this
    moved = FLOAT32_UNIT * (1 + 2.0**-20) * np.sqrt(sum_squares(narrow, n_threads))
    bounds[LOWER] = np.fmax(bounds[LOWER] - moved, 0.0) * (1 - 4 * EPS)
    bounds[PROBABLE_UPPER:] = (bounds[PROBABLE_UPPER:] + moved) * (1 + 4 * EPS)
    bounds[:, ~is_finite] = np.nan
    upper = bounds[PROBABLE_UPPER:].min(axis=0)
    again = np.flatnonzero(is_finite & ~(upper <= bounds[LOWER] * (1 + rtol)))
    return Scaled(bounds, exponent, scaled.n_iter), again


def _svd(items):
    peak = np.abs(items).max(axis=(1, 2)).astype(np.float64)
    is_finite = np.isfinite(peak)
    exponent = np.where(is_finite, np.frexp(peak)[1], 0).astype(np.int64)
    usable = np.where(is_finite[:, None, None], items, 0).astype(np.float64)
    usable = np.ldexp(usable, -exponent[:, None, None])
    value = np.linalg.svd(usable, compute_uv=False)[:, 0]
    error = SVD_ERROR * max(items.shape[1:]) * EPS
    bounds = np.array([[1 - error], [1.0], [1 + error]]) * value
    bounds[:, ~is_finite] = np.nan
    return Scaled(bounds, exponent, is_proved=False)
