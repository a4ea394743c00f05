"""Norms of what is given by its products: operators, sparse matrices, chains.

`spectral` hands them on to the functions of the same names here, its options checked.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from .._validate import real_scalar
from ._golub_kahan import Bidiagonalisation, probable_upper, shifted
from ._norm_bounds import NormBounds, outward, outward_log
from ._operator_products import PAIRWISE, UNIT, SparseProducts, gamma, read_operator

# A matrix of so few entries is written out where its short side is that of a direct method too, and
# by the direct methods at most so large a one.
DIRECT_SIZE = 64
DIRECT_ENTRIES = 2**18
LARGEST_DIRECT = 2**24

# Steps unless max_iter says otherwise; a basis of so many vectors is kept.
MAX_ITER = 500

# Roundings of orthogonalisation per step, in units of the norm; as in the dense kernel.
ORTHOGONALISATION = 16.0

# |computed - exact| <= SVD_ERROR max(m, n) eps sigma_max (LAPACK Users' Guide, 1999, section 4.9.1)
SVD_ERROR = 4.0
EPS = float(np.finfo(np.float64).eps)


@dataclass(slots=True)
class Interval:
    """Bounds of B items, ``lower * 2**exponent`` and so on."""

    lower: np.ndarray
    value: np.ndarray
    upper: np.ndarray
    exponent: np.ndarray
    n_iter: np.ndarray
    lower_certain: np.ndarray
    upper_certain: np.ndarray
    method: str

    @classmethod
    def of(cls, n_items, method, lower=0.0, value=0.0, upper=0.0, exponent=0, n_iter=0):
        """The same for all items, both sides certain."""
        return cls(
            lower=np.full(n_items, float(lower)),
            value=np.full(n_items, float(value)),
            upper=np.full(n_items, float(upper)),
            exponent=np.full(n_items, exponent, np.int64),
            n_iter=np.full(n_items, n_iter, np.int64),
            lower_certain=np.ones(n_items, bool),
            upper_certain=np.ones(n_items, bool),
            method=method,
        )

    def bounds(self, products, rtol, failure_prob):
        """The result to hand out."""
        dtype, batch = products.dtype, () if products.n_samples is None else (products.n_samples,)
        # at the scale of each bound, where the rounding to dtype does not over- or underflow
        lower, low = np.frexp(self.lower)
        upper, high = np.frexp(self.upper)
        if dtype == np.float32:
            lower = outward(lower, 0, dtype, -1).astype(np.float64)
            upper = outward(upper, 0, dtype, 1).astype(np.float64)
        low, high = low + self.exponent, high + self.exponent
        with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
            ratio = np.ldexp(upper / lower, np.clip(high - low, -(2**14), 2**14).astype(np.int32))
            reached = np.where(self.upper == 0, 0.0, ratio - 1 + EPS)
            converged = (self.upper == 0) | (ratio <= 1 + rtol)
            top = np.clip(self.exponent, -(2**30), 2**30).astype(np.int32)
            value = np.ldexp(self.value.astype(dtype), top)
        clip = (np.clip(e, -(2**14), 2**14) for e in (low, high))
        result_lower, result_upper = (
            outward(x, e, dtype, side)
            for x, e, side in zip((lower, upper), clip, (-1, 1), strict=True)
        )
        is_certain = self.lower_certain & self.upper_certain
        chance = np.where(is_certain | (self.method == "svd"), 0.0, failure_prob)
        return NormBounds.of_fields(
            **{
                name: field.reshape(batch)[()]
                for name, field in {
                    "lower": result_lower,
                    "value": np.clip(value, result_lower, result_upper),
                    "upper": result_upper,
                    "lower_certain": self.lower_certain,
                    "upper_certain": self.upper_certain,
                    "failure_prob": chance,
                    "rtol": reached,
                    "converged": converged,
                    "n_iter": self.n_iter,
                    "log_lower": outward_log(lower, low, -1),
                    "log_upper": outward_log(upper, high, 1),
                }.items()
            },
            method=self.method,
        )


def spectral_norm(
    a, *, rtol, failure_prob, rng, method, max_iter, matvec_rtol, check_finite, check_adjoint
):
    """`spectral.spectral_norm` of an operator, sparse matrix, Chain or factor."""
    rng = np.random.default_rng(rng)
    products = read(a, "a", matvec_rtol, check_finite, check_adjoint, rng)
    found = norm_interval(products, rtol, failure_prob, rng, method, max_iter)
    return found.bounds(products, rtol, failure_prob)


def norm_interval(products, rtol, failure_prob, rng, method="auto", max_iter=None):
    """Bounds on the 2-norm before they are handed out."""
    n_items = count_items(products)
    method = resolved(products, method)
    if 0 in products.shape:
        return Interval.of(n_items, method)
    if method != "lanczos":
        return _direct_norm(products, rtol, method)
    return lanczos_norm(products, rtol, failure_prob, rng, max_iter)[0]


def read(a, name, matvec_rtol, check_finite, check_adjoint, rng):
    if matvec_rtol is not None:
        matvec_rtol = real_scalar("matvec_rtol", matvec_rtol, low=0.0, high=1.0, open_high=True)
    return read_operator(
        a,
        name=name,
        matvec_rtol=matvec_rtol,
        check_finite=check_finite,
        check_adjoint=check_adjoint,
        rng=rng,
    )


def count_items(products):
    return 1 if products.n_samples is None else products.n_samples


def resolved(products, method):
    """The method that "auto" stands for; direct ones of matrices too large are refused."""
    m, n = products.shape
    if method == "auto":
        is_small = min(m, n) <= DIRECT_SIZE and m * n <= DIRECT_ENTRIES
        return "gram" if is_small else "lanczos"
    if method != "lanczos" and m * n > LARGEST_DIRECT:
        raise ValueError(
            f"method {method!r} writes out the matrix of an operator, at most {LARGEST_DIRECT} "
            f"entries, got shape {products.shape}: use 'lanczos'"
        )
    return method


def written_out(products):
    """The matrices (B, m, n) at scale one, their exponents, and what their entries are off in the
    2-norm: a part of the norm, and at the scale of each."""
    scaled = products.matrix()
    mantissa = np.asarray(scaled.mantissa, np.float64).reshape(-1, *products.shape)
    exponent = scaled.exponent.reshape(-1)
    lost = shifted(products.written, products.scale - exponent)
    return mantissa, exponent, np.sqrt(min(products.shape)) * products.matvec_rtol, lost


def _direct_norm(products, rtol, method):
    from .spectral import spectral_norm as norm_of_array  # which imports this module

    matrices, exponent, off, lost = written_out(products)
    found = norm_of_array(matrices, method=method, rtol=rtol, check_finite=False)
    interval = Interval.of(len(matrices), method)
    interval.lower = np.fmax(np.atleast_1d(found.lower) - lost, 0.0) / (1 + off) * (1 - 4 * EPS)
    interval.value = np.atleast_1d(found.value)
    interval.upper = (np.atleast_1d(found.upper) + lost) / (1 - min(off, 0.5)) * (1 + 4 * EPS)
    if off >= 0.5:
        interval.upper[:] = np.inf
    interval.exponent = exponent
    interval.lower_certain = np.atleast_1d(found.lower_certain)
    interval.upper_certain = np.atleast_1d(found.upper_certain)
    return interval


def lanczos_norm(products, rtol, failure_prob, rng, max_iter):
    """The same by bidiagonalisation, and the vector (of the shorter side) that was longest."""
    run = Run(products, rng, max_iter)
    n_items = count_items(products)
    upper = np.full(n_items, np.inf)  # the event is one for all steps: the least bound holds
    n_iter = np.zeros(n_items, np.int64)
    vectors = np.zeros((n_items, run.size))
    theta, is_open = np.zeros(n_items), np.ones(n_items, bool)
    for k, values in run.looks():
        slack, is_last = run.slack(k, values[:, 0]), run.is_exhausted(k)
        found = run.upper(k, values, failure_prob)
        stuck = found - values[:, 0] <= 2 * slack
        upper = np.where(is_open, np.fmin(upper, found), upper)
        lower = values[:, 0] - 2 * slack
        capped = np.minimum(upper, run.cap())
        closes = (capped <= lower * (1 + rtol)) | stuck | is_last | ~np.isfinite(values[:, 0])
        closes = is_open & (closes | (k == run.max_iter))
        if closes.any():
            vectors[closes] = run.right_vectors(0)[closes]
            theta[closes], n_iter[closes] = values[closes, 0], k
            is_open &= ~closes
        if not is_open.any():
            break

    interval = Interval.of(n_items, "lanczos")
    interval.exponent, interval.n_iter = run.lanczos.exponent, n_iter
    image, length = run.image(vectors)
    at_rest = upper == np.inf  # NaN throughout
    interval.lower = np.fmax(run.from_below(image, length), 0.0)
    cap = run.cap()
    interval.upper = np.maximum(np.minimum(upper, cap), interval.lower)
    interval.value = np.clip(theta, interval.lower, interval.upper)
    interval.upper_certain = (cap <= upper) | (cap == 0)
    for name in ("lower", "value", "upper"):
        getattr(interval, name)[at_rest] = np.nan
    return interval, vectors


class Run:
    """A bidiagonalisation of the side that has the shorter right vectors, and its rounding."""

    def __init__(self, products, rng, max_iter, *, keep_left=False):
        m, n = products.shape
        self.products = products
        sides = (products.forward, products.adjoint)
        self.forward, self.adjoint = sides if n <= m else sides[::-1]
        self.size = min(m, n)
        self.max_iter = min(self.size, MAX_ITER if max_iter is None else max_iter)
        self.in_norms = gamma(m + n)  # of a computed length, relative
        starts = rng.standard_normal((count_items(products), self.size))
        shape = (max(m, n), self.size)
        self.lanczos = Bidiagonalisation(
            self.forward, self.adjoint, shape, starts, keep_left=keep_left
        )

    def looks(self):
        """k and the singular values of B_k, every few steps."""
        next_look = 1
        for k in range(1, self.max_iter + 1):
            self.lanczos.step()
            if k < next_look and k < self.max_iter and not self.is_exhausted(k).any():
                continue
            next_look = k + 1 + k // 8
            matrices, is_finite = self._bidiagonals()
            values = np.linalg.svd(matrices, compute_uv=False)
            values[~is_finite] = np.nan
            yield k, values

    def _bidiagonals(self):
        matrices = self.lanczos.bidiagonals()
        is_finite = np.isfinite(matrices).all(axis=(1, 2))
        matrices[~is_finite] = 0
        return matrices, is_finite

    def right_vectors(self, which):
        """The vector of one singular value of B_k, in the operator's space."""
        return self.lanczos.right_vectors(np.linalg.svd(self._bidiagonals()[0])[2][:, which])

    def residual(self, which):
        """||A^T u - theta v|| for one singular value of B_k, whose A v = theta u."""
        left = np.linalg.svd(self._bidiagonals()[0])[0]
        return self.lanczos.betas[:, -1] * np.abs(left[:, -1, which])

    def upper(self, k, values, failure_prob):
        """The probable bound on the norm, rounding included."""
        from .spectral import _log_level  # which imports this module

        log_level = _log_level(self.size, failure_prob) + 2 * k * self.in_norms
        found = probable_upper(values, self.lanczos.alphas, self.lanczos.betas, log_level)
        found = np.where(self.is_exhausted(k), values[:, 0], found)
        return found * (1 + 2 * EPS) + self.slack(k, values[:, 0])

    def is_exhausted(self, k):
        """Where the right vectors span an invariant space, exactly."""
        return (self.lanczos.betas[:, -1] == 0) | (k == self.size)

    def rounding(self):
        """The absolute part of the rounding of a product, at the scale of the bidiagonal."""
        return shifted(self.products.rounding, self.products.scale - self.lanczos.exponent)

    def cap(self):
        """The certain upper bound, at the scale of the bidiagonal."""
        return shifted(self.products.cap, self.products.scale - self.lanczos.exponent)

    def slack(self, k, theta):
        """How far the computed recurrence may be from that of A: a backward error, modelled.

        Each of k columns of either product is off by its rounding; the root of their squares.  None
        where a product with a Gaussian vector is zero, as the matrix then is.
        """
        one = self.products.matvec_rtol * theta + np.where(theta == 0, 0.0, self.rounding())
        columns = 2 * np.sqrt(k) * one
        return columns + ORTHOGONALISATION * k * UNIT * theta

    def image(self, vectors):
        """||A x|| as computed, at the scale of the bidiagonal, and ||x||, of the rows x."""
        if self.products.dtype == np.float32:  # what the operator is given
            vectors = vectors.astype(np.float32).astype(np.float64)
        rows, top = self.forward(vectors)
        image = shifted(np.linalg.norm(rows, axis=1), top - self.lanczos.exponent)
        return image, np.linalg.norm(vectors, axis=1)

    def from_below(self, image, length):
        """A bound on ||A|| from ||A x|| and ||x||."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = image / length * (1 - 2 * self.in_norms) - self.rounding()
        return ratio / (1 + self.products.matvec_rtol) * (1 - 4 * EPS)


def frobenius_norm(
    a, *, rtol, failure_prob, rng, method, max_iter, matvec_rtol, check_finite, check_adjoint
):
    """`spectral.frobenius_norm` of an operator, sparse matrix, Chain or factor.

    Of a sparse matrix from its entries; else from all columns (or rows) where `max_iter` products
    are enough; else from so many Gaussian probes, ``||A||_F^2 = E ||A g||^2``, between quantiles of
    chi^2_r / r, which are right at rank one and safe elsewhere (see `chain_norm_profile`).
    """
    rng = np.random.default_rng(rng)
    products = read(a, "a", matvec_rtol, check_finite, check_adjoint, rng)
    n_items, size = count_items(products), min(products.shape)
    n_probes = MAX_ITER if max_iter is None else max_iter
    if not size:
        return Interval.of(n_items, "direct").bounds(products, rtol, failure_prob)
    if isinstance(products, SparseProducts):
        value = np.sqrt(np.add.reduce(np.square(products.entries.data)))
        off, exponent = PAIRWISE * UNIT, products.scale
        found = Interval.of(n_items, "direct", exponent=exponent)
        value = np.full(1, value)
    elif size <= n_probes or method in ("gram", "svd"):
        resolved(products, method)
        matrices, exponent, off, _ = written_out(products)
        found = Interval.of(n_items, "direct")
        found.exponent = exponent
        value = np.sqrt(np.add.reduce(np.square(matrices).reshape(n_items, -1), axis=1))
        off = off + PAIRWISE * UNIT
    else:
        return _probed(products, n_probes, failure_prob, rng).bounds(products, rtol, failure_prob)
    found.lower, found.value = value * (1 - 2 * off), value
    found.upper = value * (1 + 2 * off) if off < 0.25 else np.full(n_items, np.inf)
    return found.bounds(products, rtol, failure_prob)


def _probed(products, n_probes, failure_prob, rng):
    m, n = products.shape
    push, size = (products.forward, n) if n >= m else (products.adjoint, m)
    n_items = count_items(products)
    probes = rng.standard_normal((n_items, n_probes, size))
    logs = np.empty((n_items, n_probes))
    for j in range(n_probes):
        rows, top = push(probes[:, j])
        with np.errstate(divide="ignore"):
            logs[:, j] = np.log2(np.linalg.norm(rows, axis=1)) + top
    peak = np.max(logs, axis=1)
    exponent = np.where(np.isfinite(peak), np.floor(peak), 0)
    value = np.sqrt(np.mean(np.exp2(2 * (logs - exponent[:, None])), axis=1))
    shape, tail = n_probes / 2, failure_prob / 2
    ends = special.gammainccinv(shape, tail) / shape, special.gammaincinv(shape, tail) / shape
    found = Interval.of(n_items, "probes", n_iter=n_probes)
    off = products.matvec_rtol + gamma(m + n) + 4 * EPS
    found.lower = value / np.sqrt(ends[0]) * (1 - off)
    found.upper = value / np.sqrt(ends[1]) * (1 + off) / (1 - off)
    found.value, found.exponent = value, exponent.astype(np.int64)
    found.lower_certain[:] = found.upper_certain[:] = False
    return found
