"""Norms of matrices with bounds that hold, at any scale."""

from dataclasses import dataclass

import numpy as np
from scipy import special

from .. import _backend, _kernels, _threads
from .._validate import as_array, choice, common_dtype, contiguous, count, real_scalar
from . import _spectral_operator
from ._operator_products import is_operator, require_no_matvec_rtol
from .conv_norm import conv_spectral_norm as conv_spectral_norm
from .joint_radius import JSRBounds as JSRBounds
from .joint_radius import joint_spectral_radius as joint_spectral_radius
from .radius import RadiusEstimate as RadiusEstimate
from .radius import spectral_radius as spectral_radius

METHODS = ("auto", "lanczos", "gram", "svd")

# Where the direct method gives way to Lanczos: the short side, and entries of one matrix.  Chosen
# by shape alone, so that no result depends on how a batch is cut.
GRAM_MAX_SIZE = 64
GRAM_MAX_ENTRIES = 2**18

# Steps of Lanczos unless max_iter says otherwise; the basis of so many vectors is kept.
MAX_ITER = 500

# What csrc/kernels/spectral.inc.h calls JM_N_BOUNDS, in its order.
N_BOUNDS = 4
LOWER, VALUE, PROBABLE_UPPER, CERTAIN_UPPER = range(N_BOUNDS)

# Failure probability below which the leading term of the incomplete beta function is exact to
# rounding.
LEADING_TERM = 1e-20

# |computed - exact| <= SVD_ERROR max(m, n) eps sigma_max: the form of the bound in the LAPACK
# Users' Guide (1999, section 4.9.1), whose constant LAPACK does not state.
SVD_ERROR = 4.0

LOG_2 = float(np.log(2.0))
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class NormBounds:
    """An interval that contains a norm.  Every array has the batch's shape.

    Attributes
    ----------
    lower, value, upper : ndarray or NumPy scalar
        ``lower <= value <= upper``; value is the best estimate.  Rounded outward to the result's
        dtype: an upper bound beyond its range is inf, a lower one its largest number.
    lower_certain, upper_certain : ndarray of bool
        Whether that side is deterministic, rounding included.
    failure_prob : ndarray of float64
        Probability, per item, that a side which is not certain is wrong; 0 where both are certain,
        and for ``method="svd"``, whose error bound is no matter of chance (see `spectral_norm`).
    rtol : ndarray of float64
        ``upper / lower - 1`` as reached.
    converged : ndarray of bool
        Whether that is at most the rtol asked for.
    n_iter : ndarray of int64
        Steps of Lanczos; 0 for direct methods.
    method : str
        The method used.
    log_lower, log_upper : ndarray of float64
        Natural logs of the bounds, rounded outward; they hold even where `lower` and `upper` over-
        or underflow.
    """

    lower: np.ndarray
    value: np.ndarray
    upper: np.ndarray
    lower_certain: np.ndarray
    upper_certain: np.ndarray
    failure_prob: np.ndarray
    rtol: np.ndarray
    converged: np.ndarray
    n_iter: np.ndarray
    method: str
    log_lower: np.ndarray
    log_upper: np.ndarray

    def __float__(self):
        return float(self.value)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.value, dtype=dtype, copy=copy)


@dataclass(slots=True)
class _Scaled:
    """Bounds of B items before rounding to the result: ``bounds * 2**exponent``."""

    bounds: np.ndarray  # (B, 4) float64
    exponent: np.ndarray  # (B,) int64
    n_iter: np.ndarray  # (B,) int64
    is_finite: np.ndarray  # (B,) bool

    @classmethod
    def empty(cls, n_items):
        """Bounds of zero matrices."""
        return cls(
            np.zeros((n_items, N_BOUNDS)),
            np.zeros(n_items, np.int64),
            np.zeros(n_items, np.int64),
            np.ones(n_items, bool),
        )

    def put(self, items, other):
        """Replace the given items."""
        for name in ("bounds", "exponent", "n_iter", "is_finite"):
            getattr(self, name)[items] = getattr(other, name)

    @property
    def upper(self):
        return np.minimum(self.bounds[:, PROBABLE_UPPER], self.bounds[:, CERTAIN_UPPER])

    def has_converged(self, rtol):
        return self.upper <= self.bounds[:, LOWER] * (1 + rtol)


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
    tridiagonalisation. Above, ``theta I - G`` is proved positive semidefinite by Cholesky's
    factorisation and its rounding bound (Rump, Verification of positive definiteness, BIT 46,
    2006); below stands a Rayleigh quotient less its rounding.  Relative width about ``u n^2`` in
    either direction at worst, u the unit roundoff; the value itself is good to a few u.  Cost ``m
    n^2 + 2 n^3`` flops, n the shorter side.

    "lanczos" iterates on ``A^T A`` with full reorthogonalisation.  Lower bound: a Rayleigh quotient
    less its rounding.  Upper bound: the root beyond the Ritz values of ``p_k(t) = 1 / delta``, p_k
    the Lanczos polynomial and ``P(|gamma| < delta) = failure_prob`` for one coordinate gamma of a
    random unit vector (Hochstenbach, Probabilistic upper bounds for the matrix two-norm, J. Sci.
    Comput. 57, 2013), plus the rounding of forming ``A^T A v``; at most the certain ``min(||A||_F,
    sqrt(||A||_1 ||A||_inf))``.  The probability is over the start vector; rounding in the
    recurrence is taken as a backward error.  Cost ``4 m n`` flops and one reading of A per step;
    memory ``max_iter * min(m, n)`` numbers per thread.

    float32 items whose rounding is too coarse for `rtol` are repeated in float64.

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
    n_items = int(np.prod(batch, dtype=np.int64))
    # for Lanczos a wide matrix is transposed: the norm is the same, the basis shorter
    tall = np.swapaxes(array, -1, -2) if m < n and method == "lanczos" else array
    items = contiguous(tall.reshape(n_items, *tall.shape[-2:]), dtype)

    inner_rtol = rtol
    if dtype == np.float32:  # room for rounding the bounds outward to float32
        inner_rtol = max(rtol / 2, rtol - 2 * float(np.finfo(dtype).eps))

    if not items.size:
        scaled = _Scaled.empty(n_items)
    elif method == "svd":
        scaled = _svd(items)
    elif method == "gram":
        scaled = _with_promotion(items, inner_rtol, _gram, n_threads)
    else:
        starts = rng.standard_normal((n_items, size))
        log_level = _log_level(size, failure_prob)
        max_iter = min(max_iter, size)
        scaled = _with_promotion(
            items, inner_rtol, _lanczos, n_threads, starts, inner_rtol, log_level, max_iter
        )

    if check_finite and not scaled.is_finite.all():
        _raise_non_finite(array, batch, int(np.argmin(scaled.is_finite)))
    return _report(scaled, dtype, batch, method, rtol, failure_prob)


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


def _with_promotion(items, rtol, compute, n_threads, starts=None, *options):
    """Run a kernel, and again in float64 where float32's rounding kept it from rtol."""
    scaled = compute(items, n_threads, starts, *options)
    if items.dtype == np.float32:
        # a Lanczos run that used up its steps was not stopped by rounding
        limit = options[-1] if options and options[-1] < items.shape[-1] else np.inf
        again = np.flatnonzero(
            ~scaled.has_converged(rtol) & scaled.is_finite & (scaled.n_iter < limit)
        )
        if again.size:
            own = None if starts is None else contiguous(starts[again], np.float64)
            wide = items[again].astype(np.float64)
            scaled.put(again, compute(wide, n_threads, own, *options))
    return scaled


def _gram(items, n_threads, _starts=None):
    scaled = _Scaled.empty(len(items))
    if _backend.is_reference():
        reference = _backend.reference("spectral")
        for i, item in enumerate(items):
            scaled.bounds[i], scaled.exponent[i] = reference.spectral_norm_gram(item)
    else:
        status = np.zeros(len(items), np.intc)
        _kernels.spectral_norm_gram(
            int(items.dtype == np.float64), items, scaled.bounds, scaled.exponent, status, n_threads
        )
    scaled.is_finite = ~np.isnan(scaled.bounds[:, VALUE])
    return scaled


def _lanczos(items, n_threads, starts, rtol, log_level, max_iter):
    scaled = _Scaled.empty(len(items))
    if _backend.is_reference():
        reference = _backend.reference("spectral")
        for i, item in enumerate(items):
            found = reference.spectral_norm_lanczos(item, starts[i], rtol, log_level, max_iter)
            scaled.bounds[i], scaled.exponent[i], scaled.n_iter[i] = found
    else:
        status = np.zeros(len(items), np.intc)
        _kernels.spectral_norm_lanczos(
            int(items.dtype == np.float64), items, starts, rtol, log_level, max_iter,
            scaled.bounds, scaled.exponent, scaled.n_iter, status, n_threads,
        )  # fmt: skip
    scaled.is_finite = ~np.isnan(scaled.bounds[:, VALUE])
    return scaled


def _svd(items):
    scaled = _Scaled.empty(len(items))
    peak = np.abs(items).max(axis=(1, 2)).astype(np.float64)
    scaled.is_finite = np.isfinite(peak)
    scaled.exponent = np.where(scaled.is_finite, np.frexp(peak)[1], 0).astype(np.int64)
    usable = np.where(scaled.is_finite[:, None, None], items, 0).astype(np.float64)
    usable = np.ldexp(usable, -scaled.exponent[:, None, None])
    value = np.linalg.svd(usable, compute_uv=False)[:, 0]
    error = SVD_ERROR * max(items.shape[1:]) * EPS
    scaled.bounds[:] = value[:, None] * np.array([1 - error, 1.0, 1 + error, 1 + error])
    scaled.bounds[~scaled.is_finite] = np.nan
    return scaled


def _raise_non_finite(array, batch, item):
    index = tuple(int(i) for i in np.unravel_index(item, batch)) if batch else ()
    entry = np.argwhere(~np.isfinite(array[index]))[0]
    where = f"item {index[0] if len(index) == 1 else index}, " if batch else ""
    raise ValueError(
        f"a must be finite, got {array[index][tuple(entry)]} in {where}row {entry[0]}, "
        f"column {entry[1]} (check_finite=False gives NaN)"
    )


def _outward(bounds, exponent, dtype, towards):
    """``bounds * 2**exponent`` in `dtype`, never rounded to the side of -`towards`."""
    dtype = np.dtype(dtype).type
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        narrow = bounds
        if dtype != bounds.dtype:
            narrow = bounds.astype(dtype)
            wrong = narrow < bounds if towards > 0 else narrow > bounds
            narrow = np.where(wrong, np.nextafter(narrow, dtype(towards * np.inf)), narrow)
        result = np.ldexp(narrow, exponent)
        # bounds lie in [1/2, 2^64), so that far from the limits of the exponent nothing is rounded
        if np.max(np.abs(exponent), initial=0) < np.finfo(dtype).maxexp - 64:
            return result
        back = np.ldexp(result, -exponent)  # differs where the result is subnormal or overflows
        wrong = back < narrow if towards > 0 else back > narrow
        return np.where(wrong, np.nextafter(result, dtype(towards * np.inf)), result)


def _outward_log(bounds, exponent, towards):
    """Natural log of ``bounds * 2**exponent``, moved by more than its rounding."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log, shift = np.log(bounds), exponent * LOG_2
        slack = 2 * EPS * (np.abs(log) + 2 * np.abs(shift))
        return np.where(np.isinf(log), log, log + shift + towards * slack)


def _report(scaled, dtype, batch, method, rtol, failure_prob):
    """From scaled bounds to the result's fields."""
    exponent, upper = scaled.exponent, scaled.upper
    lower, value = scaled.bounds[:, LOWER], scaled.bounds[:, VALUE]
    if dtype == np.float32:  # what the caller gets is what rtol is measured on
        lower = _outward(lower, 0, dtype, -1).astype(np.float64)
        upper = _outward(upper, 0, dtype, 1).astype(np.float64)
    is_zero = upper == 0
    with np.errstate(invalid="ignore", divide="ignore"):
        reached = np.where(is_zero, 0.0, (upper / lower - 1) + EPS)
        converged = is_zero | (upper <= lower * (1 + rtol))
        converged &= scaled.is_finite
    is_proved = method != "svd"
    lower_certain = np.full(len(exponent), is_proved) | is_zero
    upper_certain = scaled.bounds[:, CERTAIN_UPPER] <= scaled.bounds[:, PROBABLE_UPPER]
    upper_certain = (upper_certain & is_proved) | is_zero
    chance = np.where(upper_certain | (method != "lanczos"), 0.0, failure_prob)
    with np.errstate(over="ignore", under="ignore"):
        nearest = np.ldexp(value.astype(dtype), exponent)
    result_lower = _outward(lower, exponent, dtype, -1)
    result_upper = _outward(upper, exponent, dtype, 1)

    def shaped(field):
        return field.reshape(batch)[()]

    return NormBounds(
        lower=shaped(result_lower),
        value=shaped(np.clip(nearest, result_lower, result_upper)),
        upper=shaped(result_upper),
        lower_certain=shaped(lower_certain),
        upper_certain=shaped(upper_certain),
        failure_prob=shaped(chance),
        rtol=shaped(reached),
        converged=shaped(converged),
        n_iter=shaped(scaled.n_iter),
        method=method,
        log_lower=shaped(_outward_log(lower, exponent, -1)),
        log_upper=shaped(_outward_log(upper, exponent, 1)),
    )
