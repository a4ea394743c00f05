"""The spectral radius, and the norm that comes close to it."""

import math
from dataclasses import dataclass

import numpy as np

from .._validate import as_array, common_dtype, count, finite_scan, real_scalar
from ..factors import Chain
from .chain import chain_jvp, chain_product

EPS = float(np.finfo(np.float64).eps)

# Operators up to this size are written out as matrices.
DENSE_MAX_SIZE = 128

# Numbers in the matrices that LAPACK is given at once.
CHUNK_SIZE = 2**20

# Eigenvalues and vectors that Arnoldi's method looks for and works with.
N_WANTED = 4
N_VECTORS = 40

# Entries of one matrix that differ by more than this power of two are balanced first.
WIDE_RANGE = 500


@dataclass(frozen=True, slots=True)
class RadiusEstimate:
    """A spectral radius, and how good the eigenpair behind it is.  Arrays have the batch's shape.

    Attributes
    ----------
    value : ndarray or NumPy scalar
        The largest modulus of an eigenvalue.
    residual : ndarray of float64
        ``||A v - lambda v|| / (||A||_F ||v||)``: value is the modulus of an exact eigenvalue of a
        matrix that is so close to A, relatively.  For operators, with a lower bound of the norm.
    converged : ndarray of bool
        Whether the estimated error of `value` is at most ``rtol * value`` (see `spectral_radius`).
    log_value : ndarray of float64
        Its natural log, which holds even where `value` over- or underflows.
    """

    value: np.ndarray
    residual: np.ndarray
    converged: np.ndarray
    log_value: np.ndarray

    def __float__(self):
        return float(self.value)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.value, dtype=dtype, copy=copy)


def spectral_radius(a, *, rtol=1e-2, rng=None, max_iter=None, check_finite=True):
    """Largest modulus of the eigenvalues of each matrix.

    Parameters
    ----------
    a : array_like, shape (..., n, n), sparse matrix, LinearOperator or Chain
        The matrices; a chain with samples has one for each.
    rtol : float
        Error of the value at which it counts as converged, relative to it.
    rng : None, int, numpy.random.Generator or anything numpy.random.default_rng takes
        Draws the Gaussian start vector of Arnoldi's method, for operators of more than 128 rows.
    max_iter : int, optional
        Most restarts of Arnoldi's method; None is ``10 n``.
    check_finite : bool
        Raise for NaN and infinity in the input; False gives NaN for such items.

    Returns
    -------
    RadiusEstimate
        Fields of shape ``(...)``; value in float32 if `a` is float32 or float16, else float64,
        computed in float64.  A matrix without rows has radius 0.

    Raises
    ------
    ValueError
        If `a` is not square or an entry is not finite, naming the item; if an operator gives NaN or
        infinity; if `rtol` or `max_iter` is out of range.
    TypeError
        If `a` is not real.

    Notes
    -----
    The residual of LAPACK's dense solver is always of the size of rounding, but a defective
    eigenvalue of multiplicity m moves by the m-th root of it.  So for matrices the error is
    estimated, and decides `converged`: componentwise to first order, ``|y| (|A v - lambda v| + 8 n
    u |A| |v|) / |y v|`` with y the left eigenvector, or by Elsner's bound ``(2 ||A||)**(1 - 1/n)
    ||E||**(1/n)``, E the backward error, if that is less (Elsner, An optimal bound for the spectral
    variation of two matrices, 1985).  The diagonal of a triangular matrix is exact.  What is proved
    is in `joint_spectral_radius`, of one matrix as well.

    Operators and sparse matrices of more than 128 rows go to ARPACK (Lehoucq, Sorensen and Yang,
    ARPACK Users' Guide, 1998), which computes four eigenvalues; `converged` then means ``||A v -
    lambda v|| <= rtol |lambda|`` only, which says little where A is far from normal.  Smaller ones,
    and chains with samples, are written out.  Any scale is safe: matrices are scaled by powers of
    two, exactly, and balanced first where their entries differ by more than 2**500.

    Cost about ``25 n^3`` flops per matrix; memory a few copies of some 2**20 numbers.

    Examples
    --------
    A complex pair, and a nilpotent matrix:

    >>> from jacometry import spectral_radius
    >>> spectral_radius([[[0.0, -2.0], [2.0, 0.0]], [[0.0, 2.0], [0.0, 0.0]]]).value
    array([2., 0.])
    """
    rtol = real_scalar("rtol", rtol, low=0.0, open_low=True, open_high=True)
    max_iter = None if max_iter is None else count("max_iter", max_iter, low=1)
    if isinstance(a, Chain):
        return _of_chain(a, rtol, rng, max_iter, check_finite)
    if hasattr(a, "matvec") or hasattr(a, "tocsr"):
        return _of_operator(a, rtol, rng, max_iter, check_finite)

    array = as_array("a", a)
    if array.ndim < 2 or array.shape[-1] != array.shape[-2]:
        raise ValueError(f"a must have shape (..., n, n), got {array.shape}")
    if check_finite:
        finite_scan("a", array)
    batch, n = array.shape[:-2], array.shape[-1]
    items = array.reshape(-1, n, n) if array.size else np.empty((math.prod(batch), n, n))
    return _report(_dense(items, rtol), common_dtype(array), batch)


def adapted_norm(a, *, epsilon=1e-3):
    """A similarity T with ``||T A T^-1||_2 <= radius(A) + epsilon``, for one matrix A.

    Its norm shows that the powers of A vanish if its spectral radius is below 1.  It is made for A
    alone: another matrix may be as large in it as one likes, and then only
    `joint_spectral_radius`, whose `norm` it can be, decides about products of both.

    Parameters
    ----------
    a : array_like, shape (n, n)
        The matrix.
    epsilon : float
        What the norm may exceed the spectral radius by; positive.

    Returns
    -------
    ndarray of float64, shape (n, n)
        T.

    Raises
    ------
    ValueError
        If `a` is not a finite square matrix, or rounding keeps the norm from being that small:
        T grows like a power of ``norm(A) / epsilon``.
    TypeError
        If `a` does not hold real numbers.

    Notes
    -----
    The Schur construction: ``A = Q S Q^T`` with S block triangular; a diagonal D of powers of two
    makes its blocks of complex pairs nearly normal and shrinks what stands above them, ``T = D^-1
    Q^T`` (Horn and Johnson, Matrix Analysis, 2013, lemma 5.6.10).

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry.ops.radius import adapted_norm
    >>> a = np.array([[0.9, 50.0], [0.0, 0.9]])
    >>> t = adapted_norm(a, epsilon=1e-2)
    >>> bool(np.linalg.norm(t @ a @ np.linalg.inv(t), 2) <= 0.91)
    True
    """
    from scipy import linalg

    array = as_array("a", a)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not array.size:
        raise ValueError(f"a must have shape (n, n) with n at least 1, got {array.shape}")
    finite_scan("a", array)
    epsilon = real_scalar("epsilon", epsilon, low=0.0, open_low=True, open_high=True)
    s, q = linalg.schur(array.astype(np.float64), output="real")
    n = len(s)
    radius = np.abs(linalg.eigvals(s)).max()
    # A block [[x, b], [c, x]] with b c < 0 is normal once scaled to b = -c.
    weights, block = np.ones(n), np.arange(n)
    for i in np.flatnonzero(np.diag(s, -1)):
        weights[i + 1] = math.sqrt(abs(s[i + 1, i] / s[i, i + 1]))
        block[i + 1 :] -= 1
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for halvings in range(1000 // n + 1):
            d = weights * 2.0 ** (-halvings * block)
            if np.linalg.norm(s * d / d[:, None], 2) <= radius + 0.9 * epsilon:
                t = q.T / d[:, None]
                if np.linalg.norm(t @ array @ (q * d), 2) <= radius + epsilon:
                    return t
                break
    raise ValueError(f"epsilon = {epsilon:g} is too small for a of this norm")


@dataclass(slots=True)
class _Found:
    """Radii of B items as ``value * 2**exponent``, residuals, estimated relative errors."""

    value: np.ndarray
    exponent: np.ndarray
    residual: np.ndarray
    converged: np.ndarray


def _report(found, dtype, batch):
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        value = np.ldexp(found.value, np.clip(found.exponent, -4000, 4000)).astype(dtype)
        log_value = np.log(found.value) + found.exponent * math.log(2.0)

    def shaped(field):
        return field.reshape(batch)[()]

    return RadiusEstimate(
        shaped(value), shaped(found.residual), shaped(found.converged), shaped(log_value)
    )


def _dense(items, rtol, exponent=None):
    """Radii of items (B, n, n), times 2**exponent."""
    n_items, n = items.shape[:2]
    found = _Found(
        np.zeros(n_items), np.zeros(n_items, np.int64), np.zeros(n_items), np.ones(n_items, bool)
    )
    step = max(1, CHUNK_SIZE // max(1, n * n))
    for begin in range(0, n_items if n else 0, step):
        own = slice(begin, begin + step)
        _dense_chunk(items[own].astype(np.float64), rtol, found, np.arange(n_items)[own])
    if exponent is not None:
        found.exponent += np.where(found.value > 0, exponent, 0)
    return found


def _dense_chunk(items, rtol, found, where):
    n = items.shape[-1]
    peak = np.abs(items).max(axis=(1, 2))
    is_finite = np.isfinite(peak)
    shift = np.where(is_finite, np.frexp(peak)[1], 0)
    smallest = np.where(items == 0, np.inf, np.abs(items)).min(axis=(1, 2))
    wide = np.flatnonzero(is_finite & (shift - np.frexp(smallest)[1] > WIDE_RANGE) & (peak > 0))
    scaled = np.where(is_finite[:, None, None], items, 0.0)
    scaled = np.ldexp(scaled, -shift[:, None, None])
    for i in wide:
        scaled[i], shift[i] = _balanced(items[i])

    values, vectors = np.linalg.eig(scaled)
    at = np.abs(values).argmax(axis=1)
    rows = np.arange(len(items))
    value, v = values[rows, at], vectors[rows, :, at]
    radius = np.abs(value)
    rest = np.einsum("bij,bj->bi", scaled, v) - value[:, None] * v
    size = np.linalg.norm(scaled, axis=(1, 2))
    backward = np.linalg.norm(rest, axis=1) / np.linalg.norm(v, axis=1)
    residual = np.divide(backward, size, out=np.zeros(len(items)), where=size > 0)

    noise = 4 * n * EPS * np.einsum("bij,bj->bi", np.abs(scaled), np.abs(v))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        left = _left_vectors(vectors, at)
        first = np.sum(np.abs(left) * (np.abs(rest) + noise), axis=1)
        first = first / np.abs(np.sum(left * v, axis=1))
    elsner = (2 * size) ** (1 - 1 / n) * (backward + 4 * n * EPS * size) ** (1 / n)
    error = np.fmin(first, elsner)
    is_triangular = (np.triu(scaled) == scaled).all(axis=(1, 2))
    is_triangular |= (np.tril(scaled) == scaled).all(axis=(1, 2))
    found.value[where] = np.where(is_finite, radius, np.nan)
    found.exponent[where] = np.where(radius > 0, shift, 0)
    found.residual[where] = np.where(is_finite, residual, np.nan)
    found.converged[where] = is_finite & (is_triangular | (error <= rtol * radius))


def _left_vectors(vectors, at):
    """Rows ``at`` of the inverses of `vectors`; NaN where singular."""
    n = vectors.shape[-1]
    target = np.zeros((len(vectors), n, 1))
    target[np.arange(len(vectors)), at] = 1.0
    try:
        return np.linalg.solve(vectors.mT, target)[..., 0]
    except np.linalg.LinAlgError:  # one of them: each on its own
        left = np.full((len(vectors), n), np.nan, dtype=vectors.dtype)
        for i, (matrix, own) in enumerate(zip(vectors, target, strict=True)):
            try:
                left[i] = np.linalg.solve(matrix.T, own)[:, 0]
            except np.linalg.LinAlgError:
                continue
        return left


def _balanced(matrix):
    """``D^-1 A D 2**-shift`` with powers of two that even out rows and columns, and shift.

    Osborne's iteration on the exponents, so that entries of any range take part.
    """
    n = len(matrix)
    digits, exponent = np.frexp(matrix)
    is_zero = (digits == 0) | np.eye(n, dtype=bool)
    d = np.zeros(n, np.int64)
    for _ in range(100):
        moved = np.where(is_zero, -(2**30), exponent + d - d[:, None])
        row, column = moved.max(axis=1, initial=-(2**30)), moved.max(axis=0, initial=-(2**30))
        i = int(np.argmax(np.where(np.minimum(row, column) > -(2**29), np.abs(row - column), 0)))
        if min(row[i], column[i]) <= -(2**29) or abs(row[i] - column[i]) < 2:
            break
        d[i] += (row[i] - column[i]) // 2
    moved = exponent + d - d[:, None]
    shift = int(moved[digits != 0].max())
    return np.ldexp(digits, np.maximum(moved - shift, -2000)), shift


def _of_chain(chain, rtol, rng, max_iter, check_finite):
    n_out, n = chain.shape
    if n_out != n:
        raise ValueError(f"a must be square, got a chain of shape {chain.shape}")
    if chain.n_samples is None and n > DENSE_MAX_SIZE:

        def apply(v):
            moved = chain_jvp(chain, v, check_finite=check_finite).vector
            return moved.mantissa.astype(np.float64), int(moved.exponent)

        return _report(_arnoldi(apply, n, rtol, rng, max_iter), chain.dtype, ())
    product = chain_product(chain, check_finite=check_finite)
    batch = product.exponent.shape
    exponent = product.exponent.reshape(-1)
    found = _dense(product.mantissa.reshape(-1, n, n), rtol, exponent)
    return _report(found, product.mantissa.dtype, batch)


def _of_operator(a, rtol, rng, max_iter, check_finite):
    from scipy.sparse import issparse
    from scipy.sparse.linalg import aslinearoperator

    operator = aslinearoperator(a)
    dtype = np.dtype(np.float64 if operator.dtype is None else operator.dtype)
    if dtype.kind not in "biuf" or dtype.char == "g":
        raise TypeError(f"a must have a real floating dtype up to float64, got dtype {dtype}")
    n = operator.shape[1]
    if operator.shape[0] != n:
        raise ValueError(f"a must be square, got an operator of shape {operator.shape}")
    if issparse(a) and check_finite and not np.isfinite(a.tocsr().data).all():
        raise ValueError("a must be finite, got a sparse matrix with NaN or infinite entries")
    result_dtype = common_dtype(np.empty(0, dtype))

    def product(x):
        moved = np.asarray(operator.matmat(x))
        if moved.shape != x.shape or moved.dtype.kind not in "biuf":
            raise ValueError(
                f"a must map real arrays of shape {x.shape} to their like, got shape "
                f"{moved.shape}, dtype {moved.dtype}"
            )
        if check_finite and not np.isfinite(moved).all():
            raise ValueError("a must give finite products, got NaN or infinity")
        return moved.astype(np.float64)

    if n <= DENSE_MAX_SIZE:
        matrix = product(np.eye(n, dtype=result_dtype)) if n else np.empty((0, 0))
        return _report(_dense(matrix[None], rtol), result_dtype, ())

    def apply(v):
        moved = product(v[:, None])[:, 0]
        exponent = int(np.frexp(np.abs(moved).max())[1])
        return np.ldexp(moved, -exponent), exponent

    return _report(_arnoldi(apply, n, rtol, rng, max_iter), result_dtype, ())


def _arnoldi(apply, n, rtol, rng, max_iter):
    """The largest eigenvalue by ARPACK of an operator ``v -> mantissa, exponent``."""
    from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigs

    start = np.random.default_rng(rng).standard_normal(n)
    start /= np.linalg.norm(start)
    moved, unit = apply(start)  # the operator's scale; products are taken in units of it
    largest = 0.0

    def scaled(v):
        nonlocal largest
        length = np.linalg.norm(v)
        moved, exponent = apply(np.ravel(v))
        moved = np.ldexp(moved, np.clip(exponent - unit, -2000, 1000))
        if length > 0:
            largest = max(largest, float(np.linalg.norm(moved) / length))
        return moved

    def result(value, residual, converged):
        exponent = np.array([unit if value > 0 else 0], np.int64)
        return _Found(np.array([value]), exponent, np.array([residual]), np.array([converged]))

    if not moved.any():  # a random vector is not annihilated by chance
        return result(0.0, 0.0, True)
    if not np.isfinite(moved).all():
        return result(math.nan, math.nan, False)
    operator = LinearOperator((n, n), matvec=scaled, dtype=np.float64)
    try:
        values, vectors = eigs(
            operator, N_WANTED, which="LM", v0=start, ncv=min(n, N_VECTORS), maxiter=max_iter
        )
    except ArpackNoConvergence as stopped:
        values, vectors = stopped.eigenvalues, stopped.eigenvectors
    except ArpackError:  # no Krylov space to speak of, as of a nilpotent operator
        values, vectors = np.empty(0), np.empty((n, 0))
    if not len(values):
        return result(math.nan, math.nan, False)
    at = int(np.abs(values).argmax())
    value, v = values[at], vectors[:, at] / np.linalg.norm(vectors[:, at])
    real, imaginary = scaled(np.real(v).copy()), scaled(np.imag(v).copy())
    rest = float(np.linalg.norm(real + 1j * imaginary - value * v))
    radius = float(abs(value))
    return result(radius, rest / largest if largest else 0.0, rest <= rtol * radius)
