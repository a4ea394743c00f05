"""The products with a matrix and its transpose, of whatever is given by them, checked."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..factors import (
    BatchNorm,
    Chain,
    Conv1d,
    Conv2d,
    Dense,
    Diagonal,
    Factor,
    LayerNorm,
    Residual,
    Transposed,
)
from ._chain_factors import require_uncoupled
from .chain import chain_jvp, chain_product, chain_vjp
from .scaled import ScaledArray

UNIT = 2.0**-53

# np.add.reduce sums contiguous entries pairwise, blocks of at most 128 one after the other: fewer
# roundings of a term than this for any length of array.
PAIRWISE = 256

# Roundings of a product where matvec_rtol is not given: those of a dense one, 8 sqrt(n) u, u the
# unit roundoff; sqrt(n) by the central limit theorem (Higham and Mary, A new approach to
# probabilistic rounding error analysis, SIAM J. Sci. Comput. 41, 2019).
MATVEC_ROUNDINGS = 8.0

# The dot-product test fails a right adjoint by rounding only: y^T (A x) of Gaussian x and y is off
# by about matvec_rtol ||A||_F; of this factor, 10 allows ||A x|| and ||A^T y|| to be both so much
# smaller than ||A||_F, and 10 for tails of the errors.
ADJOINT_SLACK = 100.0

# Vectors go to an operator at unit length until its results leave this range.
LEAST_PLAIN, LARGEST_PLAIN = 2.0**-500, 2.0**500

# Factors of ours, whose adjoints need no test.
OWN_FACTORS = (BatchNorm, Conv1d, Conv2d, Dense, Diagonal, LayerNorm)


@dataclass(slots=True)
class Products(ABC):
    """A as its products with rows of vectors: values are ``rows * 2**exponent``, one per row.

    A chain of samples takes one vector per sample; everything else takes any number.
    """

    shape: tuple[int, int]
    dtype: np.dtype
    n_samples: int | None = None
    # |computed - exact| <= (matvec_rtol ||A|| + rounding 2**scale) ||x||
    matvec_rtol: float = 0.0
    rounding: float = 0.0
    # the same of the entries of `matrix`, in the 2-norm, where they are not products like others
    written: float = 0.0
    # a certain bound, cap * 2**scale, on the 2-norm
    cap: float = np.inf
    scale: int = 0

    @abstractmethod
    def forward(self, x):
        """The rows ``A x_i`` and their exponents."""

    @abstractmethod
    def adjoint(self, y):
        """The rows ``A^T y_i`` and their exponents."""

    def matrix(self) -> ScaledArray:
        """The matrix written out, (m, n) or (B, m, n), from its shorter side."""
        m, n = self.shape
        rows, exponent = self.adjoint(np.eye(m)) if m < n else self.forward(np.eye(n))
        top = int(exponent[np.any(rows, axis=1)].max(initial=-(2**30)))
        rows = np.ldexp(rows, np.maximum(exponent - top, -(2**14))[:, None])
        matrix = ScaledArray.from_array(rows if m < n else rows.T)
        moved = matrix.exponent + top if np.any(rows) else matrix.exponent
        return ScaledArray(matrix.mantissa, moved)


def is_operator(a):
    """Whether `a` is given by its products: an operator, sparse matrix, Chain or factor."""
    return isinstance(a, Factor) or hasattr(a, "matvec") or hasattr(a, "tocsr")


def require_no_matvec_rtol(matvec_rtol):
    """Raise where an array is given, whose rounding is known."""
    if matvec_rtol is not None:
        raise ValueError(
            "matvec_rtol declares the rounding of an operator, a Chain or a sparse matrix; "
            "leave it out for an array"
        )


def read_operator(a, *, name="a", matvec_rtol=None, check_finite=True, check_adjoint=True, rng):
    """The products of `a`, after a test of its adjoint where it is not ours."""
    if isinstance(a, Factor):
        a = Chain([a])
    products: Any
    if isinstance(a, Chain):
        products = _chain_products(name, a, matvec_rtol, check_finite)
        tested = list(_foreign(products, name, check_finite)) if check_adjoint else []
    elif hasattr(a, "tocsr"):
        products = _sparse_products(name, a, matvec_rtol, check_finite)
        tested = []
    else:
        products = _operator_products(name, a, matvec_rtol, check_finite)
        tested = [products] if check_adjoint else []
    for one in tested:
        if 0 not in one.shape:
            one.test_adjoint(rng)
    return products


def _real_dtype(name, dtype):
    """float32 or float64 for a real `dtype`, or raise."""
    dtype = np.dtype(dtype)
    if dtype.kind not in "biuf" or dtype.char == "g":
        raise TypeError(f"{name} must have a real floating dtype up to float64, got dtype {dtype}")
    return np.dtype(np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64)


def gamma(n):
    """Relative error of n roundings, certain."""
    return n * UNIT / (1 - n * UNIT)


@dataclass(slots=True)
class SparseProducts(Products):
    """A SciPy sparse matrix, its entries over 2**scale."""

    entries: Any = None

    def forward(self, x):
        """See `Products`."""
        return (self.entries @ x.T).T, np.full(len(x), self.scale)

    def adjoint(self, y):
        """See `Products`."""
        return (self.entries.T @ y.T).T, np.full(len(y), self.scale)


def _sparse_products(name, a, matvec_rtol, check_finite):
    if len(a.shape) != 2:
        raise ValueError(f"{name} must have shape (m, n), got {a.shape}")
    dtype = _real_dtype(name, a.dtype)
    entries = a.tocsr().astype(np.float64)  # a copy, unless it is one already
    entries = entries.copy() if entries is a else entries
    entries.sum_duplicates()
    peak = np.max(np.abs(entries.data), initial=0.0)
    if check_finite and not np.isfinite(peak):
        bad = int(np.flatnonzero(~np.isfinite(entries.data))[0])
        row = int(np.searchsorted(entries.indptr, bad, side="right")) - 1
        raise ValueError(
            f"{name} must be finite, got {entries.data[bad]} in row {row}, column "
            f"{int(entries.indices[bad])} (check_finite=False gives NaN)"
        )
    scale = int(np.frexp(peak)[1]) if np.isfinite(peak) else 0
    with np.errstate(under="ignore"):  # what is lost is below the last bit of the norm
        entries.data = np.ldexp(entries.data, -scale)

    per_row = int(np.max(np.diff(entries.indptr), initial=0))
    per_column = int(np.max(np.bincount(entries.indices, minlength=1), initial=0))
    size = abs(entries)
    rows = np.max(size @ np.ones(a.shape[1]), initial=0.0) * (1 + 2 * gamma(per_row))
    columns = np.max(size.T @ np.ones(a.shape[0]), initial=0.0) * (1 + 2 * gamma(per_column))
    frobenius = np.sqrt(np.add.reduce(np.square(entries.data))) * (1 + PAIRWISE * UNIT)
    cap = float(min(frobenius, np.sqrt(rows * columns)) * (1 + 8 * UNIT))
    return SparseProducts(
        shape=a.shape,
        dtype=dtype,
        matvec_rtol=matvec_rtol or 0.0,
        rounding=gamma(max(per_row, per_column)) * cap if matvec_rtol is None else 0.0,
        cap=cap,
        scale=scale,
        entries=entries,
    )


@dataclass(slots=True)
class ChainProducts(Products):
    """A Chain, through the kernels; its vectors carry their exponents."""

    chain: Any = None
    check_finite: bool = True

    def forward(self, x):
        """See `Products`."""
        end = chain_jvp(self.chain, x, check_finite=self.check_finite).vector
        return end.mantissa, end.exponent

    def adjoint(self, y):
        """See `Products`."""
        end = chain_vjp(self.chain, y, check_finite=self.check_finite).vector
        return end.mantissa, end.exponent

    def matrix(self):
        """See `Products`."""
        return chain_product(self.chain, check_finite=self.check_finite)


def _chain_products(name, chain, matvec_rtol, check_finite):
    require_uncoupled(chain)
    dtype = _real_dtype(name, chain.dtype)
    if matvec_rtol is None:  # each factor like a dense one
        roundings = sum(
            n * sum(MATVEC_ROUNDINGS * np.sqrt(max(factor.shape)) for factor in period)
            for period, n in chain.runs
        )
        matvec_rtol = float(roundings) * UNIT
    return ChainProducts(
        shape=chain.shape,
        dtype=dtype,
        n_samples=chain.n_samples,
        matvec_rtol=matvec_rtol,
        chain=chain,
        check_finite=check_finite,
    )


@dataclass(slots=True)
class OperatorProducts(Products):
    """Two functions of other people, each result of which is checked."""

    name: str = "a"
    names: tuple[str, str] = ("matvec", "rmatvec")
    calls: Any = None
    check_finite: bool = True
    shift: int = 0  # vectors are given to the operator times 2**shift

    def forward(self, x):
        """See `Products`."""
        return self._rows(0, x)

    def adjoint(self, y):
        """See `Products`."""
        return self._rows(1, y)

    def _rows(self, which, x):
        exponent = np.zeros(len(x), np.int64)
        result = np.empty((len(x), self.shape[which]))
        for i, row in enumerate(x):
            result[i], exponent[i] = self._scaled(which, row)
        return result, exponent

    def _scaled(self, which, row):
        """One product with its exponent, at a scale where neither side over- or underflows."""
        result, peak = self._product(which, np.ldexp(row, self.shift) if self.shift else row)
        if 0 < peak < LEAST_PLAIN or LARGEST_PLAIN < peak < np.inf:
            self.shift = max(-1000, min(self.shift - math.frexp(peak)[1], 1000))
            result, _ = self._product(which, np.ldexp(row, self.shift))
        return result, -self.shift

    def _product(self, which, x):
        name = f"{self.name}.{self.names[which]}"
        x = x.astype(self.dtype)
        given = f"on a vector of shape {x.shape} and dtype {x.dtype}"
        try:
            result = np.asarray(self.calls[which](x))
        except NotImplementedError as error:  # what SciPy raises for a missing rmatvec
            raise TypeError(f"{name} must be defined: the norm needs both products") from error
        except ValueError as error:  # SciPy's own complaint about the result's shape among them
            raise ValueError(f"{name} failed {given}: {error}") from error
        except Exception as error:
            error.add_note(f"raised by {name}, called by jacometry {given}")
            raise
        if result.dtype.kind not in "biuf":
            raise TypeError(f"{name} must return real numbers, got dtype {result.dtype}")
        if result.shape not in (expected := (self.shape[which],), (self.shape[which], 1)):
            raise ValueError(f"{name} must return shape {expected}, got {result.shape}")
        result = result.reshape(expected).astype(np.float64)
        peak = float(np.abs(result).max(initial=0.0))  # of NaN where there is one
        if self.check_finite and not math.isfinite(peak):
            bad = int(np.argmin(np.isfinite(result)))
            raise ValueError(
                f"{name} must return finite numbers, got {result[bad]} at index {bad} "
                "(check_finite=False gives NaN)"
            )
        return result, peak

    def test_adjoint(self, rng):
        """Raise unless ``y^T (A x)`` is ``(A^T y)^T x`` but for rounding, x and y Gaussian."""
        m, n = self.shape
        x, y = rng.standard_normal((1, n)), rng.standard_normal((1, m))
        image, top = self.forward(x)
        back, other = self.adjoint(y)
        with np.errstate(over="ignore"):
            back = np.ldexp(back, int(other[0]) - int(top[0]))
        with np.errstate(invalid="ignore"):
            one, two = float(np.sum(y * image)), float(np.sum(back * x))
            size = max(np.linalg.norm(image), np.linalg.norm(back))
            dots = np.linalg.norm(y) * np.linalg.norm(image)
            dots += np.linalg.norm(back) * np.linalg.norm(x)
            allowed = ADJOINT_SLACK * self.matvec_rtol * size + PAIRWISE * UNIT * dots
        if abs(one - two) > allowed:
            raise ValueError(
                f"{self.name}.{self.names[1]} must be the transpose of {self.names[0]}: "
                f"y^T (A x) and (A^T y)^T x differ by {abs(one - two) / size:.1e} of ||A x||, "
                f"rounding explains {allowed / size:.1e} (matvec_rtol declares more rounding, "
                "check_adjoint=False leaves the test out)"
            )


def default_matvec_rtol(shape, dtype):
    """What is assumed of an operator that does not declare its rounding."""
    return MATVEC_ROUNDINGS * float(np.sqrt(max(shape))) * float(np.finfo(dtype).eps) / 2


def _operator_products(name, a, matvec_rtol, check_finite):
    from scipy.sparse.linalg import aslinearoperator

    shape = tuple(getattr(a, "shape", ()))
    if len(shape) != 2:
        raise ValueError(f"{name} must have shape (m, n), got {shape}")
    operator = aslinearoperator(a)
    dtype = _real_dtype(name, np.float64 if operator.dtype is None else operator.dtype)
    shape = (int(shape[0]), int(shape[1]))
    return OperatorProducts(
        shape=shape,
        dtype=dtype,
        matvec_rtol=default_matvec_rtol(shape, dtype) if matvec_rtol is None else matvec_rtol,
        name=name,
        calls=(operator.matvec, operator.rmatvec),
        check_finite=check_finite,
    )


def _foreign(products, name, check_finite):
    """The factors of a chain that are not ours, each once, as products to be tested."""
    seen: set[int] = set()

    def walk(chain, path):
        position = 0
        for period, n_repeats in chain.runs:
            for k, factor in enumerate(period, position):
                where = f"{path}factors[{k}]"
                while isinstance(factor, Transposed):
                    factor = factor.factor
                if isinstance(factor, Residual):
                    yield from walk(factor.chain, f"{where}.chain.")
                elif not isinstance(factor, OWN_FACTORS) and id(factor) not in seen:
                    seen.add(id(factor))
                    yield _factor_products(factor, where, check_finite)
            position += n_repeats * len(period)

    return walk(products.chain, f"{name}.")


def _factor_products(factor, name, check_finite):
    dtype = _real_dtype(name, factor.dtype)
    n_samples = factor.n_samples

    def first_sample(push):
        def product(x):
            if n_samples is None:
                return push(x)
            rows = np.zeros((n_samples, x.size), x.dtype)
            rows[0] = x
            return np.asarray(push(rows))[0]

        return product

    return OperatorProducts(
        shape=factor.shape,
        dtype=dtype,
        matvec_rtol=default_matvec_rtol(factor.shape, dtype),
        name=name,
        names=("jvp", "vjp"),
        calls=(first_sample(factor.jvp), first_sample(factor.vjp)),
        check_finite=check_finite,
    )
