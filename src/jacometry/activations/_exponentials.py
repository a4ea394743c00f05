"""Exponentials that keep full relative accuracy where their argument is large.

``exp`` turns an absolute error of its argument into a relative one of its result, so an argument
such as ``-x**2 / 2`` is kept as a rounded number and the remainder of its rounding.  Every function
here takes and gives float64.
"""

import math
from collections.abc import Callable
from functools import wraps

import numpy as np
from scipy import special

# exp(-x) and exp(-x**2 / 2) are zero beyond.
EXP_END = 800.0
GAUSSIAN_END = 40.0
SQRT_2PI = math.sqrt(2.0 * math.pi)

_SQRT_HALF = math.sqrt(0.5)
_SPLITTER = 2.0**27 + 1.0
_NORMAL_END = -700.0
# A block and what is computed on the way to its results stay in the cache.
_BLOCK = 2**12


def in_double(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """`function`, evaluated in float64 without floating-point warnings and rounded once."""

    @wraps(function)
    def evaluated(x: np.ndarray, **parameters: float) -> np.ndarray:
        flat, result = x.reshape(-1), np.empty(x.shape, x.dtype)
        out = result.reshape(-1)
        with np.errstate(all="ignore"):
            for first in range(0, x.size, _BLOCK):
                block = slice(first, first + _BLOCK)
                out[block] = function(flat[block].astype(np.float64, copy=False), **parameters)
        return result

    return evaluated


def two_product(a: np.ndarray, b: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """``a b`` rounded, and the exact rest; for ``|a|, |b| < 2**996`` (Dekker 1971)."""
    product = a * b
    a_high, b_high = _SPLITTER * a, _SPLITTER * b
    a_high, b_high = a_high - (a_high - a), b_high - (b_high - b)
    a_low, b_low = a - a_high, b - b_high
    rest = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, rest


def scaled_exp(
    factor: np.ndarray | float, exponent: np.ndarray, rest: np.ndarray | float = 0.0
) -> np.ndarray:
    """``factor exp(exponent + rest)``, rounded to subnormals only once; for ``exponent <= 0``.

    `rest` is so small that its square does not count.
    """
    normal = np.maximum(exponent, _NORMAL_END)
    scaled = (factor * (1 + rest)) * np.exp(normal)
    beyond = exponent - normal
    return scaled * np.exp(beyond) if beyond.any() else scaled


def half_square(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``-x**2 / 2`` as exponent and rest, for ``|x| <= GAUSSIAN_END``."""
    square, rest = two_product(x, x)
    return -square / 2, -rest / 2


def normal_density(x: np.ndarray, factor: np.ndarray | float = 1.0) -> np.ndarray:
    """``factor exp(-x**2 / 2) / sqrt(2 pi)`` for ``|x| <= GAUSSIAN_END``."""
    return scaled_exp(factor / SQRT_2PI, *half_square(x))


def normal_tail(size: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """``factor P(Z > size)`` for arrays ``0 <= size <= GAUSSIAN_END``."""
    tail = factor * special.ndtr(-size)
    # Its relative error grows as size**2.
    is_far = size > 1.0
    far = size[is_far]
    scale = factor[is_far] * special.erfcx(far * _SQRT_HALF) / 2
    tail[is_far] = scaled_exp(scale, *half_square(far))
    return tail
