"""What every factor is, and the plain ones: matrix, diagonal, linear operator."""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from typing import Any

import numpy as np


def real_array(name: str, array: Any) -> np.ndarray:
    """A read-only view of `array`, which must be real."""
    if np.ma.is_masked(array):
        raise TypeError(f"{name} must not be masked")
    if getattr(array, "requires_grad", False):
        raise TypeError(f"{name} must not require grad; pass {name}.detach()")
    array = np.asarray(array)
    if array.dtype.kind not in "biuf" or array.dtype.char == "g":
        raise TypeError(f"{name} must have a real floating dtype up to float64, got {array.dtype}")
    view = array.view()
    view.flags.writeable = False
    return view


def read_only(name: str, array: Any, core_ndim: int) -> np.ndarray:
    """The same, of `core_ndim` axes, or one more with the samples first."""
    view = real_array(name, array)
    if view.ndim not in (core_ndim, core_ndim + 1):
        raise ValueError(
            f"{name} must have {core_ndim} axes, or {core_ndim + 1} with one matrix per sample, "
            f"got shape {view.shape}"
        )
    return view


def real_number(name: str, value: Any, low: float = -math.inf) -> float:
    """`value` as a finite float of at least `low`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {type(value).__name__}")
    number = float(value)
    if not (math.isfinite(number) and number >= low):
        expected = "finite" if low == -math.inf else f"finite and at least {low:g}"
        raise ValueError(f"{name} must be {expected}, got {number:g}")
    return number


def float_dtype(*dtypes: Any) -> np.dtype:
    """float32 if the floating ones are all float16 or float32, else float64."""
    sizes = [np.dtype(d).itemsize for d in dtypes if np.dtype(d).kind == "f"]
    return np.dtype(np.float32 if sizes and max(sizes) <= 4 else np.float64)


class Factor(ABC):
    """One factor of a chain: a linear map, shared by all samples or one for each.

    Subclass it for a layer of your own: set `shape`, `n_samples` and `dtype`, and define `jvp` and
    `vjp`.  A factor of one matrix for all samples takes tangents of any leading axes; one with a
    matrix per sample takes ``(B, n)`` or ``(B, m, n)``, the samples first.

    Attributes
    ----------
    shape : tuple of int
        (n_out, n_in).
    n_samples : int or None
        B, or None if the factor is shared.
    dtype : dtype
        Of its arrays.
    couples_samples : bool
        Whether a sample's output depends on the other samples, as in batch normalisation while
        training.  There is then no matrix per sample.
    """

    shape: tuple[int, int]
    n_samples: int | None = None
    dtype: np.dtype = np.dtype(np.float64)
    couples_samples: bool = False

    @abstractmethod
    def jvp(self, tangent: np.ndarray) -> np.ndarray:
        """The factor applied to tangents of shape (..., n_in)."""

    @abstractmethod
    def vjp(self, cotangent: np.ndarray) -> np.ndarray:
        """Its transpose applied to cotangents of shape (..., n_out)."""

    @property
    def T(self) -> Factor:
        """The transposed factor."""
        return Transposed(self)

    def scaled(self) -> tuple[Factor, int]:
        """The factor over 2**e with coefficients of about one, and e, so that no sum overflows."""
        return self, 0

    def __repr__(self) -> str:
        batch = "" if self.n_samples is None else f", n_samples={self.n_samples}"
        return f"{type(self).__name__}(shape={self.shape}{batch})"


def exponent_of(array: np.ndarray) -> int:
    """e such that the largest magnitude of `array` over 2**e lies in [0.5, 1); 0 without one."""
    largest = np.max(np.abs(array), initial=0.0)
    return int(np.frexp(largest)[1]) if np.isfinite(largest) else 0


def ldexp(array: np.ndarray, exponent: int) -> np.ndarray:
    """``array * 2**exponent``, rounded once, in a floating dtype."""
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(array, max(-(2**14), min(exponent, 2**14)))


class Transposed(Factor):
    """The transpose of a factor.

    Parameters
    ----------
    factor : Factor
        What is transposed.
    """

    def __init__(self, factor: Factor) -> None:
        self.factor = factor
        self.shape = (factor.shape[1], factor.shape[0])
        self.n_samples = factor.n_samples
        self.dtype = factor.dtype
        self.couples_samples = factor.couples_samples

    def jvp(self, tangent: np.ndarray) -> np.ndarray:
        """The factor's ``vjp``."""
        return self.factor.vjp(tangent)

    def vjp(self, cotangent: np.ndarray) -> np.ndarray:
        """The factor's ``jvp``."""
        return self.factor.jvp(cotangent)

    @property
    def T(self) -> Factor:
        """The factor itself."""
        return self.factor

    def scaled(self) -> tuple[Factor, int]:
        """See `Factor`."""
        factor, exponent = self.factor.scaled()
        return factor.T, exponent

    def __repr__(self) -> str:
        return f"{self.factor!r}.T"


class Dense(Factor):
    """A factor given by its matrix.

    Parameters
    ----------
    weights : array_like, shape (n_out, n_in) or (B, n_out, n_in)
        The matrix, shared or one per sample.  Kept as a read-only view, not copied.
    """

    def __init__(self, weights: Any) -> None:
        self.weights = read_only("weights", weights, 2)
        self.shape = self.weights.shape[-2:]
        self.n_samples = None if self.weights.ndim == 2 else self.weights.shape[0]
        self.dtype = self.weights.dtype

    def jvp(self, tangent: np.ndarray) -> np.ndarray:
        """``weights @ tangent`` for a tangent of shape (..., n_in)."""
        if self.n_samples is not None and np.ndim(tangent) == 3:
            return np.einsum("bij,bmj->bmi", self.weights, tangent)
        return np.einsum("...ij,...j->...i", self.weights, tangent)

    def vjp(self, cotangent: np.ndarray) -> np.ndarray:
        """``weights.T @ cotangent`` for a cotangent of shape (..., n_out)."""
        return self.T.jvp(cotangent)

    @property
    def T(self) -> Dense:
        """The transposed factor."""
        return Dense(np.swapaxes(self.weights, -1, -2))


class Diagonal(Factor):
    """A factor that multiplies every unit by its slope.

    Parameters
    ----------
    slopes : array_like, shape (n,) or (B, n)
        The diagonal, shared or one per sample.  Kept as a read-only view, not copied.
    """

    def __init__(self, slopes: Any) -> None:
        self.slopes = read_only("slopes", slopes, 1)
        self.shape = (self.slopes.shape[-1],) * 2
        self.n_samples = None if self.slopes.ndim == 1 else self.slopes.shape[0]
        self.dtype = self.slopes.dtype

    def jvp(self, tangent: np.ndarray) -> np.ndarray:
        """``slopes * tangent`` for a tangent of shape (..., n)."""
        if self.n_samples is not None and np.ndim(tangent) == 3:
            return self.slopes[:, None] * tangent
        return self.slopes * tangent

    def vjp(self, cotangent: np.ndarray) -> np.ndarray:
        """The same."""
        return self.jvp(cotangent)

    @property
    def T(self) -> Diagonal:
        """The factor itself."""
        return self


class Operator(Factor):
    """A factor given by its products: any linear operator, shared by all samples.

    Parameters
    ----------
    operator : LinearOperator, sparse matrix or array
        What ``scipy.sparse.linalg.aslinearoperator`` takes.  Real.
    """

    def __init__(self, operator: Any) -> None:
        # Imported here: a chain of arrays needs no sparse matrices.
        from scipy.sparse.linalg import aslinearoperator

        operator = aslinearoperator(operator)
        dtype = np.dtype(np.float64 if operator.dtype is None else operator.dtype)
        if dtype.kind not in "biuf" or dtype.char == "g":
            raise TypeError(
                f"operator must have a real floating dtype up to float64, got dtype {dtype}"
            )
        self.operator = operator
        self.shape = (int(operator.shape[0]), int(operator.shape[1]))
        self.dtype = dtype

    def jvp(self, tangent: np.ndarray) -> np.ndarray:
        """``operator @ tangent`` for a tangent of shape (..., n_in)."""
        return self._apply(self.operator.matmat, tangent, self.shape[0])

    def vjp(self, cotangent: np.ndarray) -> np.ndarray:
        """``operator.T @ cotangent`` for a cotangent of shape (..., n_out)."""
        return self._apply(self.operator.rmatmat, cotangent, self.shape[1])

    def _apply(self, product: Any, vectors: np.ndarray, n_out: int) -> np.ndarray:
        vectors = np.asarray(vectors)
        *lead, n_in = vectors.shape
        columns = vectors.reshape(math.prod(lead), n_in).T
        if not columns.size:
            return np.zeros((*lead, n_out), np.result_type(vectors, self.dtype))
        return np.asarray(product(columns)).T.reshape(*lead, n_out)
