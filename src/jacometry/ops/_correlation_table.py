"""Tables of the two-point means of one activation at equal variances, built where asked for.

With ``c = +-(1 - r)``, ``s**2 = q r`` and ``t**2 = q (1 - r)``, the mean of the slopes ``K = E
phi'(u1) phi'(u2)`` and the decorrelation per variance ``S = E (phi(u1) - phi(u2))**2 / (2 q (1 -
c))`` are smooth functions that vary at the scales of the activation, of t, and of s.  They are
interpolated by Chebyshev polynomials on patches: where ``|c| <= 1/2``, an octave of sqrt(q) by c;
beyond, an octave of t by a piece of s.
"""

import functools
import math
import threading
import warnings
from collections import OrderedDict
from collections.abc import Hashable

import numpy as np

from .. import _backend, _kernels
from .._status import JacometryWarning
from . import _correlation_rule as rule

N = 20  # coefficients in either direction, stored in rows of
_ROW = 24
_N_HERMITE = 56
# Octaves of sqrt(q) and of t.  Below the lowest q nothing changes any more.
_LOW_OCTAVE, _N_OCTAVES = -61, 125
LOW_Q, HIGH_Q = 4.0 ** (_LOW_OCTAVE + 1), 4.0 ** (_LOW_OCTAVE + _N_OCTAVES) / 2
# The first piece of s ends at 2 to this power, or at the octave's lower end; the others double.  An
# activation that varies faster gets a lower one.
_FIRST_LOG2, _LEAST_FIRST_LOG2 = -1, -8
_MAX_HALVINGS = 3
_SETTLED = 1e-11


@functools.cache
def _chebyshev():
    """Nodes on [-1, 1] and the matrix that takes values there to coefficients."""
    angles = (np.arange(N) + 0.5) * (math.pi / N)
    matrix = np.cos(np.arange(N)[:, None] * angles) * (2 / N)
    matrix[0] /= 2
    return np.cos(angles), matrix


def _near_values(activation, low, s, resolution):
    """K+, S+, K-, S- at t in [1, 2] low and at each of s: (4, len(s), N)."""
    t = low * (1.5 + 0.5 * _chebyshev()[0])
    values = np.empty((4, len(s), N))
    for i, scale in enumerate(s):
        edges = rule.outer_edges(activation.kinks, low, 2 * low, scale, resolution)
        m, weights, halves = rule.panel_nodes(edges)
        g, v = _smoothed(activation, m.ravel(), scale, resolution)
        rise = rule.running_integral(g.reshape(m.shape), halves).ravel()
        rise = rise - rise[::-1]
        density = weights.ravel() * np.exp(-0.5 * (m.ravel() / t[:, None]) ** 2)
        density /= math.sqrt(2 * math.pi) * t[:, None]
        means = np.stack([g * g, v, g * g[::-1], rise**2]) @ density.T
        values[:3, i] = means[:3]
        # 2 q (1 + |c|) S- = 2 s**2 S+ + E (E_b phi(m + s b) - E_b phi(-m + s b))**2
        values[3, i] = (scale**2 * means[1] + 0.5 * means[3]) / (scale**2 + 2 * t * t)
    return values


def _smoothed(activation, m, s, resolution):
    """``E_b phi'(m + s b)`` and ``Var_b phi(m + s b) / s**2``, a few rows at a time."""
    step = max(1, rule.N_AT_ONCE // (64 * rule.N_NODES))
    g, v = np.empty_like(m), np.empty_like(m)
    for first in range(0, m.size, step):
        rows = slice(first, first + step)
        smoother = rule.Smoother(activation.kinks, m[rows], np.full(m[rows].size, s), resolution)
        slopes = rule.evaluate(activation, 1, smoother.x)
        g[rows], v[rows] = smoother.mean(slopes), smoother.variance(slopes)
    return g, v


def _middle_values(activation, low, resolution):
    """K+, S+, K-, S- at |c| in [0, 1/2] and sqrt(q) in [1, 2] low: (4, N, N).

    By the Hermite coefficients a_k of phi': ``K = sum a_k**2 c**k`` (Mehler) and, since those of
    phi are ``sqrt(q / k) a_(k-1)``, ``(1 - c) S = Var phi / q - sum a_(k-1)**2 c**k / k``.
    """
    root = low * (1.5 + 0.5 * _chebyshev()[0])
    smoother = rule.Smoother(activation.kinks, np.zeros(N), root, resolution)
    slopes = rule.evaluate(activation, 1, smoother.x)
    variance = smoother.variance(slopes)
    squares = np.empty((_N_HERMITE, N))
    before, term = np.zeros_like(slopes), slopes
    for k in range(_N_HERMITE):
        squares[k] = smoother.mean(term) ** 2
        before, term = term, (smoother.b * term - math.sqrt(k) * before) / math.sqrt(k + 1)
    orders = np.arange(_N_HERMITE)
    values = np.empty((4, N, N))
    for i, sign in enumerate((1, -1)):
        c = sign * 0.25 * (1 + _chebyshev()[0][:, None])
        powers = c**orders
        values[2 * i] = powers @ squares
        values[2 * i + 1] = (variance - (powers * c / (orders + 1)) @ squares) / (1 - c)
    return values


class Table:
    """The patches of one activation, found by a number and built when first asked for.

    The patches of `Table.number` are: for each octave the middle one, |c| <= 1/2; then for each
    octave its pieces of s.  A patch holds the Chebyshev coefficients of K and S for either sign of
    c: (4, N, N), the last axis that of t or sqrt(q).
    """

    def __init__(self, activation):
        self.activation = activation
        self._lock = threading.RLock()
        # Octaves of t are alike for the activation: the one from 1 on shows how fast it varies.
        for first_log2 in range(_FIRST_LOG2, _LEAST_FIRST_LOG2 - 1, -1):
            first_patch = _near_patch(activation, 1.0, 0.0, 2.0**first_log2)
            _, tail, change = first_patch
            if tail <= _SETTLED or change > _SETTLED:  # what shorter pieces do not help
                break
        self.first_log2 = first_log2
        n_pieces = 2 + np.maximum(0, _LOW_OCTAVE + np.arange(_N_OCTAVES) - first_log2)
        self.offsets = _N_OCTAVES + np.cumsum(n_pieces) - n_pieces
        patches = np.full(_N_OCTAVES + n_pieces.sum(), -1, np.int32)
        patches[self.offsets[-_LOW_OCTAVE]] = 0
        self._arrays = self._stored(*first_patch), patches

    def locate(self, q, r):
        """The patch and the place in it, x along t or sqrt(q) and y, of q and signed r."""
        q = np.clip(q, LOW_Q, HIGH_Q)
        is_middle = np.abs(r) >= 0.5
        near = np.abs(r)
        mantissa, octave = np.frexp(np.sqrt(np.where(is_middle, q, q * (1 - near))))
        octave -= 1
        x = 4 * mantissa - 3
        low_log2 = octave + np.minimum(0, self.first_log2 - octave)
        u = np.ldexp(np.sqrt(q * near), -low_log2)
        piece = np.maximum(np.frexp(u)[1], 0)
        start = np.where(piece > 0, np.ldexp(0.5, piece), 0)
        y = np.where(is_middle, 3 - 4 * near, 2 * (u - start) / np.maximum(start, 1) - 1)
        number = octave - _LOW_OCTAVE
        number = np.where(is_middle, number, self.offsets[number] + piece)
        return number, x, y

    def evaluate(self, q, near, is_spread, n_threads):
        """K, or S, of q and of near = 1 - |c| with the sign of c; both float64, finite."""
        out = np.empty(q.size)
        for _ in range(2):
            table = *self._arrays, _N_OCTAVES, _LOW_OCTAVE, self.first_log2
            if _backend.is_reference():
                reference = _backend.reference("correlations")
                for i in range(q.size):
                    value = reference.two_point_table(*table, q[i], near[i], int(is_spread))
                    out[i] = np.nan if value is None else value
                is_lacking = bool(np.isnan(out).any())
            else:
                is_lacking = _kernels.two_point_table(
                    1, *table, q, near, int(is_spread), out, n_threads
                )
            if not is_lacking:
                break
            self._extend(np.unique(self.locate(q, near)[0]))
        return out

    def _extend(self, numbers):
        """Build what is not there of these patches.  The arrays are replaced, never changed."""
        with self._lock:
            coefficients, patches = self._arrays
            new = [int(number) for number in numbers if patches[number] < 0]
            built = [self._stored(*self._build(number)) for number in new]
            patches = patches.copy()
            patches[new] = len(coefficients) + np.arange(len(new))
            self._arrays = np.concatenate([coefficients, *built]), patches

    def _build(self, number):
        place = int(np.searchsorted(self.offsets, number, side="right")) - 1
        if place < 0:
            return _middle_patch(self.activation, math.ldexp(1.0, number + _LOW_OCTAVE))
        octave, piece = place + _LOW_OCTAVE, number - int(self.offsets[place])
        first = math.ldexp(1.0, octave + min(0, self.first_log2 - octave))
        start = math.ldexp(first, piece - 1) if piece else 0.0
        return _near_patch(self.activation, math.ldexp(1.0, octave), start, max(start, first))

    def _stored(self, coefficients, tail, change):
        error = max(tail, change)
        if error > _SETTLED:
            warnings.warn(
                f"the two-point means of activation {self.activation.name!r} settled to "
                f"{error:.0e} only, not to {_SETTLED:.0e}; declare its kinks in an Activation",
                JacometryWarning,
                stacklevel=8,
            )
        return np.pad(coefficients, ((0, 0), (0, 0), (0, _ROW - N)))[None]


def _near_patch(activation, low, start, length):
    """Coefficients on t in [1, 2] low by s in [start, start + length].

    With them come the change when the panels are narrower, and the size of the last coefficients.
    """
    s = start + length * (0.5 + 0.5 * _chebyshev()[0])
    largest = s[:1]  # where most panels are those of the activation
    resolution, change = _settled(lambda r: _near_values(activation, low, largest, r), 6)
    return *_coefficients(_near_values(activation, low, s, resolution)), change


def _middle_patch(activation, low):
    """The same on sqrt(q) in [1, 2] low by |c| in [0, 1/2]."""
    resolution, change = _settled(lambda r: _middle_values(activation, low, r), 18)
    return *_coefficients(_middle_values(activation, low, resolution)), change


def _settled(values, n_panels):
    """The coarsest resolution at which narrower panels change no value, and the change."""
    for halving in range(_MAX_HALVINGS + 1):
        coarse = rule.Resolution(0.5**halving, n_panels)
        before, after = values(coarse), values(rule.Resolution(coarse.smooth / 2, n_panels + 2))
        change = _relative(after - before, after)
        if change <= _SETTLED:
            break
    return coarse, change


def _coefficients(values):
    """Chebyshev coefficients, and the size of the last two in either direction."""
    _, matrix = _chebyshev()
    coefficients = matrix @ values @ matrix.T
    tail = max(_relative(coefficients[:, -2:], values), _relative(coefficients[:, :, -2:], values))
    return coefficients, tail


def _relative(change, values):
    """The largest change, relative to the largest value of K and of S of c >= 0."""
    size = np.abs(values[:2]).max(axis=(1, 2))
    largest = np.abs(change).max(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        return float(np.max(np.where(largest > 0, largest / np.tile(size, 2), 0.0)))


_tables: OrderedDict = OrderedDict()
_tables_lock = threading.Lock()
_MAX_TABLES = 64


def table_of(activation):
    """The table of an activation, kept for the 64 activations used last."""
    key: Hashable = (_key(activation.phi), _key(activation.dphi), activation.kinks)
    try:
        hash(key)
    except TypeError:
        key = id(activation)  # which the table keeps alive
    with _tables_lock:
        if key not in _tables:
            _tables[key] = Table(activation)
            while len(_tables) > _MAX_TABLES:
                _tables.popitem(last=False)
        _tables.move_to_end(key)
        return _tables[key]


def _key(function):
    """What functions with the same values share: a partial of the same arguments is the same."""
    if isinstance(function, functools.partial):
        return function.func, function.args, tuple(sorted(function.keywords.items()))
    return function
