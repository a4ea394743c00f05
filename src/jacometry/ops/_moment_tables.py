"""Moments of activations without a closed form: tables of polynomials, filled where they are asked.

What a table is: see jm_moment_table in types.h.
"""

import math
import threading
from functools import cache
from weakref import WeakKeyDictionary

import numpy as np

from ._quadrature import MOMENTS, SETTLED, Octave, limits, moments_at_zero

_N_TERMS = 16
_N_QUARTERS = 4
# Exponents e of the octaves [2^e, 2^(e+1)) of q that are tabulated: where both ends are normal.
_LEAST, _MOST = -1022, 1022
_BIAS = 1023
# What the last Chebyshev coefficients of a panel may come to, relative to E |f|.
_N_LAST = 3
_DECAYED = 1e-13

_tables: WeakKeyDictionary = WeakKeyDictionary()
_lock = threading.Lock()


class MomentTable:
    """The table of one activation.  It grows by whole octaves, each as if it were the only one.

    Attributes
    ----------
    arrays : tuple of ndarray
        Those of jm_moment_table.  They are replaced, never changed.
    """

    def __init__(self, activation):
        self.arrays = (
            np.full((1, len(MOMENTS), _N_TERMS), np.nan),
            np.zeros(_N_QUARTERS * 2048, np.int32),
            np.array([moments_at_zero(activation), limits(activation)]),
        )
        self._known: set[int] = set()
        self._unsettled: dict[int, float] = {}

    def extend(self, activation, exponents):
        """Add the octaves that are not there."""
        octaves = {}
        for exponent in sorted(set(exponents) - self._known):
            octave = Octave(activation, math.ldexp(1.0, exponent))
            octaves[exponent] = (
                octave.unsettled,
                [_panel(octave, exponent, quarter) for quarter in range(_N_QUARTERS)],
            )
        with _lock:  # not while the activation runs, which may come back here
            polynomials, panels, ends = self.arrays
            panels, parts, n_panels = panels.copy(), [polynomials], len(polynomials)
            for exponent, (unsettled, quarters) in octaves.items():
                if exponent in self._known:  # by another thread meanwhile
                    continue
                if unsettled:
                    self._unsettled[exponent] = unsettled
                for quarter, panel in enumerate(quarters):
                    if panel is not None:
                        panels[_N_QUARTERS * (exponent + _BIAS) + quarter] = n_panels
                        parts.append(panel[None])
                        n_panels += 1
            self.arrays = np.concatenate(parts), panels, ends
            self._known.update(octaves)

    def worst(self, q):
        """(unsettled, exponent) of the worst octave of q that has not settled, or None."""
        if not self._unsettled:
            return None
        return max(
            ((self._unsettled[e], e) for e in _exponents(q) if e in self._unsettled), default=None
        )


def fill(activation, q, run):
    """Let `run` find moments from the activation's table, filled as far as `q` asks.

    Parameters
    ----------
    activation : Activation
    q : ndarray
        One-dimensional, >= 0 or NaN.
    run : callable
        Takes the arrays of a table, returns whether an item found no panel in it.

    Returns
    -------
    items : ndarray of int
        The items for which there is none even now.
    moments : ndarray, (6, len(items))
        Their moments.
    complaint : str or None
        What to warn of.
    """
    table = _table_of(activation)
    items, moments, worst = np.empty(0, np.intp), np.empty((len(MOMENTS), 0)), None
    if run(table.arrays):
        table.extend(activation, [e for e in _exponents(q) if _LEAST <= e <= _MOST])
        if run(table.arrays):
            place = (q.astype(np.float64).view(np.int64) >> 50) & 8191  # no sign: 0 may be -0
            panel = table.arrays[1][place]
            items = np.flatnonzero((q > 0) & (q < math.inf) & (panel == 0))
            moments, worst = _one_by_one(activation, q[items].astype(np.float64))
    worst = max(filter(None, (worst, table.worst(q))), default=None)
    if worst is None:
        return items, moments, None
    unsettled, exponent = worst
    what = f"the moments of activation {activation.name!r} near q = {math.ldexp(1.0, exponent):.3g}"
    if math.isinf(unsettled):
        complaint = f"{what} leave out a tail: it grows too fast for a Gaussian mean"
    else:
        complaint = (
            f"{what} settled to {unsettled:.0e} only, not to {SETTLED:.0e}; declare its kinks in "
            "an Activation"
        )
    return items, moments, complaint


def _table_of(activation):
    table = _tables.get(activation)
    if table is None:
        table = MomentTable(activation)
        with _lock:
            table = _tables.setdefault(activation, table)
    return table


def _exponents(q):
    """The octaves of the finite entries of q above 0."""
    q = q[(q > 0) & (q < math.inf)]
    return (np.unique(np.frexp(q)[1]) - 1).tolist()


def _one_by_one(activation, q):
    """Moments by quadrature, and the worst (unsettled, exponent) or None."""
    moments, worst = np.empty((len(MOMENTS), len(q))), None
    exponents = np.frexp(q)[1] - 1
    for exponent in np.unique(exponents).tolist():
        octave = Octave(activation, math.ldexp(1.0, exponent))
        if octave.unsettled:
            worst = max(worst or (0.0, 0), (octave.unsettled, exponent))
        for item in np.flatnonzero(exponents == exponent):
            moments[:, item] = octave.moments(q[item : item + 1])[0][:, 0]
    return moments, worst


@cache
def _interpolation():
    """Nodes in (-1, 1); matrices from values there to Chebyshev and to power coefficients."""
    chebyshev = np.polynomial.chebyshev
    angles = (np.arange(_N_TERMS) + 0.5) * math.pi / _N_TERMS
    to_chebyshev = 2 / _N_TERMS * np.cos(np.arange(_N_TERMS)[:, None] * angles)
    to_chebyshev[0] /= 2
    to_powers = np.zeros((_N_TERMS, _N_TERMS))
    for k in range(_N_TERMS):
        to_powers[: k + 1, k] = chebyshev.cheb2poly(np.eye(_N_TERMS)[k, : k + 1])
    return np.cos(angles), to_chebyshev, to_powers


def _panel(octave, exponent, quarter):
    """The polynomials (6, 16) of a quarter of an octave, or None if that degree does not do."""
    t, to_chebyshev, to_powers = _interpolation()
    values, sizes = octave.moments(np.ldexp(1 + (quarter + (t + 1) / 2) / _N_QUARTERS, exponent))
    is_infinite = np.isinf(values).all(axis=1)
    # einsum as in Octave: the same bits whatever BLAS does.
    series = np.einsum("kt,mt->mk", to_chebyshev, np.where(is_infinite[:, None], 0.0, values))
    rest = np.abs(series[:, -_N_LAST:]).max(axis=1)
    if not (rest <= _DECAYED * sizes.min(axis=1)).all():
        return None
    powers = np.einsum("jk,mk->mj", to_powers, series)
    powers[is_infinite, 0] = math.inf
    return powers
