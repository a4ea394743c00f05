"""Arrays that carry their own exponent."""

import warnings

import numpy as np

from .._status import JacometryWarning

# ln 2 in two parts, the first of 32 bits, so that its product with an exponent is exact.
LOG_2_HIGH = float.fromhex("0x1.62e42feep-1")
LOG_2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_new = object.__new__


class ScaledArray:
    """A batch of vectors or matrices, each with a power-of-two scale of its own.

    The value of an item is ``mantissa * 2**exponent``.  Products of any depth stay representable,
    and because scaling by a power of two is exact no digit is lost to it.

    Parameters
    ----------
    mantissa : ndarray, shape (*batch, n) or (*batch, m, n)
        The digits.  An item's largest magnitude lies in [0.5, 1).
    exponent : ndarray of int64, shape batch
        0 for items that are zero or hold a NaN or an infinity.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry.ops.chain import chain_product
    >>> product = chain_product(np.full((1000, 1, 1), 1e-30))
    >>> bool(np.isclose(product.log_norm(), 1000 * np.log(1e-30)))
    True
    """

    __slots__ = ("exponent", "mantissa")
    __array_ufunc__ = None

    def __init__(self, mantissa, exponent):
        self.mantissa = mantissa = np.asarray(mantissa)
        self.exponent = exponent = np.asarray(exponent, np.int64)
        shape, batch = mantissa.shape, exponent.shape
        n_batch_axes = len(batch)
        if shape[:n_batch_axes] != batch or len(shape) - n_batch_axes not in (1, 2):
            raise ValueError(
                f"exponent must have the batch shape of mantissa {shape} "
                f"(vectors or matrices), got {batch}"
            )

    @classmethod
    def _of(cls, mantissa, exponent):
        """From arrays that are known to fit."""
        scaled = _new(cls)
        scaled.mantissa = mantissa
        scaled.exponent = exponent
        return scaled

    @classmethod
    def from_array(cls, array, item_ndim=2):
        """Scale every item of `array` (finite or not) to the form the class promises."""
        array = np.asarray(array)
        return cls(array, np.zeros(array.shape[: array.ndim - item_ndim], np.int64))._normalized()

    def _normalized(self):
        axes = tuple(range(self.exponent.ndim, self.mantissa.ndim))
        largest = np.max(np.abs(self.mantissa), axis=axes, initial=0)
        shift = np.frexp(largest)[1].astype(np.int64)
        plain = ~np.isfinite(largest)
        shift = np.where(plain, -self.exponent, shift)
        exponent = np.where(plain | (largest == 0), 0, self.exponent + shift)
        return ScaledArray(_ldexp(self.mantissa, -self._align(shift)), exponent)

    def _align(self, per_item):
        """`per_item` with axes of length one added, to broadcast against the mantissa."""
        per_item = np.asarray(per_item)
        return per_item.reshape(per_item.shape + (1,) * (self.mantissa.ndim - self.exponent.ndim))

    @property
    def shape(self):
        """Shape of the mantissa."""
        return self.mantissa.shape

    @property
    def ndim(self):
        """Number of axes of the mantissa."""
        return self.mantissa.ndim

    @property
    def dtype(self):
        """dtype of the mantissa."""
        return self.mantissa.dtype

    @property
    def T(self):
        """The matrices transposed; vectors are returned as they are."""
        if self.mantissa.ndim == self.exponent.ndim + 1:
            return self
        return ScaledArray(np.swapaxes(self.mantissa, -1, -2), self.exponent)

    def to_array(self):
        """The values as a plain array, rounded once; infinite or zero where they do not fit."""
        return _ldexp(self.mantissa, self._align(self.exponent))

    def __array__(self, dtype=None, copy=None):
        if copy is False:
            raise ValueError("a ScaledArray is no array in memory; copy=False cannot be met")
        array = self.to_array()
        finite = np.isfinite(self.mantissa)
        smallest = np.finfo(array.dtype).tiny
        lost = (finite & ~np.isfinite(array)) | ((self.mantissa != 0) & (np.abs(array) < smallest))
        if lost.any():
            warnings.warn(
                f"{int(lost.sum())} entries over- or underflow in {array.dtype}; "
                "use log_norm, log_abs, or mantissa and exponent",
                JacometryWarning,
                stacklevel=2,
            )
        return array if dtype is None else array.astype(dtype)

    def log_norm(self, ord="fro"):
        """Natural log of a norm of each item.

        Parameters
        ----------
        ord : {"fro", 1, 2, inf}
            Frobenius (the 2-norm of a vector), or the operator norm as in ``numpy.linalg.norm``.

        Returns
        -------
        ndarray of float64, shape batch
            -inf for zero items.
        """
        item_ndim = self.mantissa.ndim - self.exponent.ndim
        if ord not in ("fro", 1, 2, np.inf):
            raise ValueError(f"ord must be 'fro', 1, 2 or inf, got {ord!r}")
        mantissa = self.mantissa.astype(np.float64, copy=False)
        batch = self.exponent.shape
        with np.errstate(divide="ignore"):
            if mantissa.size == 0:
                log = np.full(batch, -np.inf)
            elif ord == "fro" or (ord == 2 and item_ndim == 1):
                # One pass; the squares of a mantissa, below 1, can do no harm.
                entries = mantissa.reshape(*batch, -1)
                log = 0.5 * np.log(np.vecdot(entries, entries))
            else:
                log = np.log(np.linalg.norm(mantissa, ord, axis=tuple(range(-item_ndim, 0))))
        return _scaled_log(log, self.exponent)

    def log_abs(self):
        """Natural log of the absolute value of every entry, float64; -inf for zeros."""
        with np.errstate(divide="ignore"):
            logs = np.log(np.abs(self.mantissa), dtype=np.float64)
        return _scaled_log(logs, self._align(self.exponent))

    def __matmul__(self, other):
        other = _as_scaled("the right operand of @", other)
        left, right = self.mantissa, other.mantissa
        row, column = (a.mantissa.ndim == a.exponent.ndim + 1 for a in (self, other))
        if row and column:
            raise ValueError("@ needs a matrix, got two vectors")
        product = (left[..., None, :] if row else left) @ (right[..., None] if column else right)
        if row or column:
            product = product[..., 0, :] if row else product[..., 0]
        return ScaledArray(product, self.exponent + other.exponent)._normalized()

    def __rmatmul__(self, other):
        return _as_scaled("the left operand of @", other) @ self

    def __getitem__(self, index):
        index = index if isinstance(index, tuple) else (index,)
        n_batch_axes = sum(i is not None and i is not Ellipsis for i in index)
        if n_batch_axes > self.exponent.ndim:
            raise IndexError(
                f"a ScaledArray is indexed over its batch axes {self.exponent.shape}; "
                f"got {n_batch_axes} indices"
            )
        if Ellipsis in index:
            raise IndexError("a ScaledArray does not take an ellipsis")
        return ScaledArray(self.mantissa[index], self.exponent[index])

    def __len__(self):
        if not self.exponent.ndim:
            raise TypeError("a ScaledArray without a batch has no length")
        return len(self.exponent)

    def __repr__(self):
        return f"ScaledArray(shape={self.shape}, dtype={self.dtype}, batch={self.exponent.shape})"


def _as_scaled(name, value):
    if isinstance(value, ScaledArray):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.ndim < 1:
        raise TypeError(
            f"{name} must be a ScaledArray or a real matrix or vector, got {type(value).__name__}"
        )
    array = array.astype(np.result_type(array.dtype, np.float32), copy=False)
    return ScaledArray.from_array(array, item_ndim=min(array.ndim, 2))


def _ldexp(mantissa, exponent):
    """mantissa * 2**exponent, rounded once, for exponents of any size."""
    limit = 1 << 14
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(mantissa, np.clip(exponent, -limit, limit).astype(np.int32))


def _scaled_log(log, exponent):
    """Log of x * 2**exponent from log x, to about one rounding."""
    return LOG_2_HIGH * exponent + (LOG_2_LOW * exponent + log)
