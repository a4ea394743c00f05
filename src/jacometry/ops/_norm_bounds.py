"""Intervals that contain a number, at any scale: what the norm functions return."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

# Rows of `Scaled.bounds`.  Kernels whose upper bound is certain write three rows, of which the last
# is both upper bounds.
LOWER, VALUE, PROBABLE_UPPER, CERTAIN_UPPER = 0, 1, 2, -1

LOG_2 = float(np.log(2.0))
EPS = float(np.finfo(np.float64).eps)


@dataclass(slots=True)
class Scaled:
    """Bounds of B items before rounding to the result: ``bounds * 2**exponent``.

    Attributes
    ----------
    bounds : (3 or 4, B) float64, or float32 where that is exact
        Lower, value, probable upper and certain upper bounds; NaN for items that are not finite.
    exponent : (B,) int64
    n_iter : (B,) int64, optional
        None for direct methods.
    ends : (3, B) of the result's dtype, optional
        Lower, value and upper rounded outward, where a kernel has done that.
    is_proved : bool
        Whether lower and certain upper bounds are certain.
    """

    bounds: np.ndarray
    exponent: np.ndarray
    n_iter: np.ndarray | None = None
    ends: np.ndarray | None = None
    is_proved: bool = True

    @classmethod
    def zeros(cls, n_items):
        """Bounds of zero matrices."""
        return cls(np.zeros((3, n_items)), np.zeros(n_items, np.int64))

    def put(self, items, other):
        """Replace the given items."""
        self.bounds[:, items] = other.bounds
        self.exponent[items] = other.exponent
        self.ends = None
        if self.n_iter is not None:
            self.n_iter[items] = other.n_iter

    @property
    def upper(self):
        """The better of the upper bounds."""
        return np.minimum(self.bounds[PROBABLE_UPPER], self.bounds[CERTAIN_UPPER])

    def first_non_finite(self):
        """The first item with NaN, or -1."""
        value = self.bounds[VALUE]
        if not np.isnan(value.sum()):  # no infinities among them: these are scaled
            return -1
        return int(np.argmax(np.isnan(value)))


class NormBounds:
    """An interval that contains a norm.  Every field has the batch's shape.

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
        Steps of an iteration; 0 for direct methods.
    method : str
        The method used.
    log_lower, log_upper : ndarray of float64
        Natural logs of the bounds, rounded outward; they hold even where `lower` and `upper` over-
        or underflow.

    Notes
    -----
    All but `lower`, `value` and `upper` are worked out when first asked for.  ``float(b)`` and
    ``np.asarray(b)`` are the value.
    """

    def __init__(self, scaled, *, dtype, batch, method, rtol, failure_prob=0.0):
        self.method = method
        self._scaled, self._batch, self._rtol = scaled, batch, rtol
        self._dtype, self._failure_prob = np.dtype(dtype), failure_prob
        ends = scaled.ends if scaled.ends is not None else _ends(scaled, self._dtype)
        if len(batch) == 1:
            self.lower, self.value, self.upper = ends
        else:
            self.lower, self.value, self.upper = map(self._shaped, ends)

    @classmethod
    def of_fields(cls, **fields):
        """From all fields, as they are."""
        bounds = cls.__new__(cls)
        bounds.__dict__.update(fields)
        return bounds

    def _shaped(self, field):
        return field.reshape(self._batch)[()]

    @cached_property
    def _mantissas(self):
        """What the caller gets, before scaling: what rtol is measured on."""
        lower, upper = self._scaled.bounds[LOWER], self._scaled.upper
        if self._dtype == np.float32:
            lower = outward(lower, 0, self._dtype, -1).astype(np.float64)
            upper = outward(upper, 0, self._dtype, 1).astype(np.float64)
        return lower, upper

    @cached_property
    def _is_exact(self):
        """Both ends 0, or both infinite."""
        lower, upper = self._mantissas
        return (upper == 0) | (np.isinf(lower) & np.isinf(upper))

    @cached_property
    def _has_certain_upper(self):
        bounds = self._scaled.bounds
        certain = (bounds[CERTAIN_UPPER] <= bounds[PROBABLE_UPPER]) & self._scaled.is_proved
        return certain | self._is_exact

    @cached_property
    def lower_certain(self):
        """Whether the lower bound is deterministic."""
        certain = np.full(self._scaled.exponent.shape, self._scaled.is_proved)
        return self._shaped(certain | self._is_exact)

    @cached_property
    def upper_certain(self):
        """Whether the upper bound is deterministic."""
        return self._shaped(self._has_certain_upper)

    @cached_property
    def failure_prob(self):
        """Probability that a side which is not certain is wrong."""
        return self._shaped(np.where(self._has_certain_upper, 0.0, self._failure_prob))

    @cached_property
    def rtol(self):
        """Relative width reached."""
        lower, upper = self._mantissas
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._shaped(np.where(self._is_exact, 0.0, (upper / lower - 1) + EPS))

    @cached_property
    def converged(self):
        """Whether the width asked for was reached."""
        lower, upper = self._mantissas
        with np.errstate(invalid="ignore"):
            return self._shaped(self._is_exact | (upper <= lower * (1 + self._rtol)))

    @cached_property
    def n_iter(self):
        """Steps of an iteration."""
        steps = self._scaled.n_iter
        return self._shaped(
            np.zeros(self._scaled.exponent.shape, np.int64) if steps is None else steps
        )

    @cached_property
    def log_lower(self):
        """Natural log of the lower bound."""
        return self._shaped(outward_log(self._mantissas[0], self._scaled.exponent, -1))

    @cached_property
    def log_upper(self):
        """Natural log of the upper bound."""
        return self._shaped(outward_log(self._mantissas[1], self._scaled.exponent, 1))

    def __repr__(self):
        return (
            f"NormBounds(lower={self.lower!r}, value={self.value!r}, upper={self.upper!r}, "
            f"method={self.method!r})"
        )

    def __float__(self):
        return float(self.value)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.value, dtype=dtype, copy=copy)


def _ends(scaled, dtype):
    lower = outward(scaled.bounds[LOWER], 0, dtype, -1)
    upper = outward(scaled.upper, 0, dtype, 1)
    with np.errstate(over="ignore", under="ignore"):
        nearest = scaled.bounds[VALUE].astype(dtype, copy=False)
        if scaled.exponent.any():
            lower = outward(lower, scaled.exponent, dtype, -1)
            upper = outward(upper, scaled.exponent, dtype, 1)
            nearest = np.ldexp(nearest, scaled.exponent)
    return lower, np.minimum(np.maximum(nearest, lower), upper), upper


def outward(bounds, exponent, dtype, towards):
    """``bounds * 2**exponent`` in `dtype`, never rounded to the side of -`towards`."""
    dtype = np.dtype(dtype).type
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        narrow = bounds
        if dtype != bounds.dtype:
            narrow = bounds.astype(dtype)
            wrong = narrow < bounds if towards > 0 else narrow > bounds
            narrow = np.where(wrong, np.nextafter(narrow, dtype(towards * np.inf)), narrow)
        if isinstance(exponent, int) and exponent == 0:
            return narrow
        result = np.ldexp(narrow, exponent)
        back = np.ldexp(result, -exponent)  # differs where the result is subnormal or overflows
        wrong = back < narrow if towards > 0 else back > narrow
        return np.where(wrong, np.nextafter(result, dtype(towards * np.inf)), result)


def outward_log(bounds, exponent, towards):
    """Natural log of ``bounds * 2**exponent``, moved by more than its rounding."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log, shift = np.log(bounds), exponent * LOG_2
        slack = 2 * EPS * (np.abs(log) + 2 * np.abs(shift))
        return np.where(np.isinf(log), log, log + shift + towards * slack)


def raise_non_finite(array, batch, item):
    """Raise naming the first entry of an item that is not finite."""
    index = tuple(int(i) for i in np.unravel_index(item, batch)) if batch else ()
    entry = np.argwhere(~np.isfinite(array[index]))[0]
    where = f"item {index[0] if len(index) == 1 else index}, " if batch else ""
    raise ValueError(
        f"a must be finite, got {array[index][tuple(entry)]} in {where}row {entry[0]}, "
        f"column {entry[1]} (check_finite=False gives NaN)"
    )
