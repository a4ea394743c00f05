"""What `simulate` does with the signal between two weight matrices, at any scale of it."""

from __future__ import annotations

import math

import numpy as np

from ..activations import Activation
from ..ops._chain_factors import add_scaled
from ..ops.scaled import ScaledArray

# Beyond 2**+-100 an activation that is smooth (or kinked) at 0, or linear at infinity, is there
# linear on each side to all digits.  It is compared with itself at 2**+-300.
_EXPONENT = 100
_FAR_EXPONENT = 300
_AGREEMENT = 1e-12


class Hidden:
    """An activation on signals that carry exponents."""

    def __init__(self, phi: Activation) -> None:
        self.phi = phi
        self._near = self._lines(-1)
        self._far = self._lines(1)

    def __call__(self, z: ScaledArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mantissas and exponents of phi(z), not normalised, and phi'(z); z (nets, width)."""
        exponent = z.exponent
        is_near = (exponent < -_EXPONENT) if self._near else np.zeros(len(exponent), bool)
        is_far = (exponent > _EXPONENT) if self._far else np.zeros(len(exponent), bool)
        is_line = is_near | is_far
        scale = np.clip(np.where(is_line, 0, exponent), -(1 << 14), 1 << 14).astype(np.int32)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            x = _times_power(z.mantissa, scale)
            value, slope = self.phi.value(x), self.phi.slope(x)
        for chosen, lines in ((is_near, self._near), (is_far, self._far)):
            if lines and chosen.any():
                mantissa = z.mantissa[chosen]
                up, down = lines
                slope[chosen] = np.where(mantissa > 0, up, down)
                value[chosen] = slope[chosen] * mantissa
        return value, np.where(is_line, exponent, 0), slope

    def _lines(self, side: int) -> tuple[float, float] | None:
        """Slopes above and below 0, of the lines that phi is near 0 (-1) or far out (1), if any."""
        signs = np.array([1.0, -1.0])
        here, there = (signs * math.ldexp(1.0, side * e) for e in (_EXPONENT - 20, _FAR_EXPONENT))
        with np.errstate(all="ignore"):
            slopes = self.phi.value(there) / there
            change = np.abs(self.phi.value(here) / here - slopes)
        limit = math.ldexp(1.0, -_EXPONENT // 2)
        if not (change <= _AGREEMENT * np.abs(slopes) + limit).all():
            return None
        slopes[np.abs(slopes) < limit] = 0.0
        return (float(slopes[0]), float(slopes[1])) if slopes.any() else None


def _times_power(x: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Rows of x times 2**exponent, rounded once: by products, where all powers are normal."""
    info = np.finfo(x.dtype)
    if exponent.min() >= info.minexp and exponent.max() < info.maxexp:
        return x * np.ldexp(x.dtype.type(1), exponent)[:, None]
    return np.ldexp(x, exponent[:, None])


def combined(
    drawn: ScaledArray,
    z: ScaledArray,
    *,
    biases: np.ndarray | None,
    shortcut: float,
    branch_scale: float,
) -> ScaledArray:
    """``shortcut z + branch_scale (drawn + biases)``."""
    if biases is not None:
        drawn = add_scaled(drawn, ScaledArray.from_array(biases, item_ndim=1), 1.0)
    if branch_scale != 1.0:
        nothing = ScaledArray(np.zeros_like(drawn.mantissa), np.zeros_like(drawn.exponent))
        drawn = add_scaled(nothing, drawn, branch_scale)
    return add_scaled(drawn, z, shortcut) if shortcut else drawn
