"""Two-point Gaussian means, item by item: Gauss-Legendre panels for two one-dimensional integrals.

With ``|c| = 1 - r`` and ``c >= 0`` the two inputs are ``u_i = t_i a + s_i b_i``, ``t_i = sqrt(q_i
|c|)``, ``s_i = sqrt(q_i r)``, for independent standard normal a, b_1, b_2 (where ``c < 0``, ``u_2 =
-t_2 a + s_2 b_2``).  So a two-point mean is the mean over a of a product of functions smoothed at
the scale s: ``g(m) = E_b f(m + s b)``.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

# Standard deviations on either side: what lies beyond weighs 2e-16.
REACH = 8.25
N_NODES = 12
N_AT_ONCE = 2**18  # nodes
_ROWS = 64


class Resolution(NamedTuple):
    """What sets the width of panels.

    Attributes
    ----------
    smooth : float
        On panels as wide as this, or as this times |x| / 2, the activation is taken to be smooth.
    n_panels : int
        Panels for a normal density; on 6 the rule's error is below 1e-15 of its mean.
    """

    smooth: float = 1.0
    n_panels: int = 6

    def width(self, x):
        return self.smooth * max(1.0, x / 2)


# Means this many s from 0 do not reach there.
_FAR = 30.0
# Inputs this close, relative to their size, are the same to the last digit.
_NEGLIGIBLE = 1e-17


_USUAL = Resolution()


@functools.cache
def _legendre():
    """Nodes and weights on [-1, 1], and the matrix of integrals from -1 to each node."""
    z, w = np.polynomial.legendre.leggauss(N_NODES)
    values = np.polynomial.legendre.legvander(z, N_NODES)
    orders = np.arange(1, N_NODES)
    integrals = np.empty((N_NODES, N_NODES))  # of the Legendre polynomials, from -1 to a node
    integrals[:, 0] = z + 1
    integrals[:, 1:] = (values[:, 2:] - values[:, :-2]) / (2 * orders + 1)
    expansion = values[:, :-1].T * w * (np.arange(N_NODES)[:, None] + 0.5)
    return z, w, integrals @ expansion


def _times(values, matrix):
    """``values @ matrix`` by small products, which BLAS gives to one thread: the same bits."""
    whole = len(values) // _ROWS * _ROWS
    out = np.empty((len(values), matrix.shape[1]))
    blocks = values[:whole].reshape(-1, _ROWS, values.shape[1])
    out[:whole] = (blocks @ matrix).reshape(whole, matrix.shape[1])
    out[whole:] = values[whole:] @ matrix
    return out


def evaluate(activation, order, x):
    """The derivative of that order at x, float64, or raise naming what is not finite."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        values = (activation.value, activation.slope, activation.curvature)[order](x)
    if not np.isfinite(values).all():
        bad = ~np.isfinite(values)
        raise ValueError(
            f"{('phi', 'dphi', 'd2phi')[order]} of activation {activation.name!r} must be finite "
            f"at the nodes of the quadrature, got {values[bad][0]} at x = {x[bad][0]:.6g}"
        )
    return values


def _growing(start, end, width):
    """Edges from `start` to `end`, each panel as wide as `width` says of where it begins."""
    edges = [start]
    while edges[-1] < end:
        edges.append(edges[-1] + width(edges[-1]))
    edges[-1] = end
    return edges


def smooth_edges(reach, resolution):
    """Edges on [-reach, reach] between which the activation is taken to be smooth."""
    positive = _growing(0.0, reach, resolution.width)
    return np.concatenate([np.negative(positive[:0:-1]), positive])


class Smoother:
    """Means over b ~ N(0, 1) at ``m + s b`` for rows of m and s, by panels split at the kinks.

    The panels of all rows stand one after the other; those of a row are together.
    """

    def __init__(self, kinks, m, s, resolution):
        z, w, _ = _legendre()
        base = np.linspace(-REACH, REACH, resolution.n_panels + 1)
        places = np.asarray(kinks)
        if resolution.n_panels * resolution.smooth < 2 * REACH * s.max():
            reach = float((np.abs(m) + REACH * s).max())
            places = np.concatenate([places, smooth_edges(reach, resolution)])
        # Places are kept relative to 0 where s reaches there, since what is narrow beside s stands
        # near 0, else relative to m.
        offset = np.where(np.abs(m) < _FAR * s, m, 0.0)
        origin = m - offset
        low, high = (offset - REACH * s)[:, None], (offset + REACH * s)[:, None]
        cuts = np.clip(places - origin[:, None], low, high)
        edges = np.concatenate([offset[:, None] + s[:, None] * base, cuts], axis=1)
        edges.sort(axis=1)
        widths = np.diff(edges, axis=1)
        rows, columns = np.nonzero(widths > 0)
        self._places = rows, columns
        self._shape = widths.shape
        self._starts = np.searchsorted(rows, np.arange(m.size))
        halves = widths[rows, columns] / 2
        nodes = (edges[rows, columns] + halves)[:, None] + halves[:, None] * z
        self.x = origin[rows, None] + nodes
        self.b = (nodes - offset[rows, None]) / s[rows, None]
        self._halves = halves / s[rows]
        density = np.exp(-0.5 * self.b**2) / math.sqrt(2 * math.pi)
        self.weights = density * (self._halves[:, None] * w)

    def mean(self, values):
        """``E_b f`` for each row, from the values of f at ``x``."""
        return np.add.reduceat(np.einsum("ij,ij->i", values, self.weights), self._starts)

    def variance(self, slopes):
        """``Var_b phi(m + s b) / s**2`` for each row, from the values of phi' at ``x``.

        phi itself would cancel: it is integrated anew from the slope, from the first edge on.
        """
        _, w, integrals = _legendre()
        totals = self._halves * np.einsum("ij,j->i", slopes, w)
        rises_of_row = np.zeros(self._shape)
        rises_of_row[self._places] = totals
        before = np.cumsum(rises_of_row, axis=1)[self._places] - totals
        rises = before[:, None] + self._halves[:, None] * _times(slopes, integrals.T)
        rises -= self.mean(rises)[self._places[0], None]
        return self.mean(rises**2)


def outer_edges(kinks, t_low, t_high, s, resolution):
    """Edges in m of panels for means over ``m = t a``, t_low <= t <= t_high, symmetric about 0.

    Near a kink a smoothed function bends at the scale s.
    """
    reach = REACH * t_high
    widest = 2 * REACH / resolution.n_panels

    def width(x):
        return min(resolution.width(x), widest * max(t_low, x / REACH))

    positive = _growing(0.0, reach, width)
    bends = s * np.linspace(-REACH, REACH, resolution.n_panels + 1) if s else [0.0]
    near = [abs(kink) + bend for kink in kinks for bend in bends]
    positive = np.unique([*positive, *(x for x in map(abs, near) if x < reach)])
    return np.concatenate([-positive[:0:-1], positive])


def panel_nodes(edges):
    """Nodes and weights of Gauss-Legendre panels, and half the widths: (P, N), (P, N), (P,)."""
    z, w, _ = _legendre()
    halves = np.diff(edges) / 2
    nodes = (edges[:-1] + halves)[:, None] + halves[:, None] * z
    return nodes, halves[:, None] * w, halves


def running_integral(values, halves):
    """Integral from the first edge to each node: (P, N) from values (P, N) on panels."""
    _, w, integrals = _legendre()
    totals = halves * np.einsum("ij,j->i", values, w)
    return (np.cumsum(totals) - totals)[:, None] + halves[:, None] * _times(values, integrals.T)


class _Side:
    """One of the two inputs, ``t a + s b``, on nodes in a."""

    def __init__(self, activation, t, s, resolution):
        self._activation, self._t, self._s = activation, t, s
        # A kink is felt to first order in s / t.
        self._is_sharp = s <= _NEGLIGIBLE * t
        self._resolution = resolution
        self._kinks = activation.kinks

    def edges(self):
        """Edges in a between which the smoothed functions of this side are smooth."""
        return (
            outer_edges(
                self._kinks, self._t, self._t, 0.0 if self._is_sharp else self._s, self._resolution
            )
            / self._t
        )

    def _smoother(self, a):
        m = self._t * a
        return Smoother(self._kinks, m, np.full(m.shape, self._s), self._resolution)

    def mean(self, order, a):
        """``E_b`` of the derivative of that order at ``t a + s b``."""
        if self._is_sharp:
            return evaluate(self._activation, order, self._t * a)
        smoother = self._smoother(a)
        return smoother.mean(evaluate(self._activation, order, smoother.x))

    def variance(self, a):
        """``Var_b phi(t a + s b)``."""
        if self._is_sharp:
            return (self._s * evaluate(self._activation, 1, self._t * a)) ** 2
        smoother = self._smoother(a)
        return self._s**2 * smoother.variance(evaluate(self._activation, 1, smoother.x))


def _sides(activation, q1, q2, near, resolution):
    """The two inputs, the sign of c, and nodes and weights of a mean over a."""
    near, sign = abs(near), math.copysign(1.0, near)
    sides = []
    edges = [np.linspace(-REACH, REACH, resolution.n_panels + 1)]
    for q in (q1, q2):
        t, s = math.sqrt(q * (1 - near)), math.sqrt(q * near)
        sides.append(_Side(activation, t, s, resolution))
        if t > 0:
            edges.append(sides[-1].edges())
    a, weights, _ = panel_nodes(np.unique(np.concatenate(edges)))
    weights = weights * np.exp(-0.5 * a**2) / math.sqrt(2 * math.pi)
    return (*sides, sign, a.ravel(), weights.ravel())


def two_point_mean(activation, order, q1, q2, near, resolution=_USUAL):
    """``E f(u1) f(u2)`` of the derivative f of that order, c = +-(1 - |near|) with near's sign."""
    first, second, sign, a, weights = _sides(activation, q1, q2, near, resolution)
    return float(np.sum(weights * first.mean(order, a) * second.mean(order, sign * a)))


def two_point_distance(activation, q1, q2, near, scales, resolution=_USUAL):
    """``E (f1 phi(u1) - f2 phi(u2))**2`` for scales (f1, f2)."""
    first, second, sign, a, weights = _sides(activation, q1, q2, near, resolution)
    f1, f2 = scales
    gap = f1 * first.mean(0, a) - f2 * second.mean(0, sign * a)
    spread = f1 * f1 * first.variance(a) + f2 * f2 * second.variance(sign * a)
    return float(np.sum(weights * (gap * gap + spread)))


def jumps(activation):
    """The kinks where the slope jumps, and by how much."""
    kinks = np.array(activation.kinks)
    if not kinks.size:
        return kinks, kinks
    left, right = np.nextafter(kinks, -np.inf), np.nextafter(kinks, np.inf)
    rises = evaluate(activation, 1, right) - evaluate(activation, 1, left)
    # What a jump is and what rounding: a smooth slope changes by its curvature times an ulp.
    is_jump = np.abs(rises) > 1e-9 * np.maximum(1.0, np.abs(evaluate(activation, 1, right)))
    return kinks[is_jump], rises[is_jump]


def curvature_mean(activation, q1, q2, near, resolution=_USUAL):
    """``E phi''(u1) phi''(u2)``, a jump of the slope counting as a delta function."""
    kinks, rises = jumps(activation)
    mean = two_point_mean(activation, 2, q1, q2, near, resolution)
    if not kinks.size:
        return mean
    c = math.copysign(1 - abs(near), near)
    rest = abs(near) * (2 - abs(near))  # 1 - c**2
    if q1 == 0 or q2 == 0:
        return math.inf if 0.0 in kinks else mean
    for q, other in ((q1, q2), (q2, q1)):
        density = np.exp(-(kinks**2) / (2 * q)) / math.sqrt(2 * math.pi * q)
        side = _Side(activation, 1.0, math.sqrt(other * rest), resolution)
        smoothed = side.mean(2, c * math.sqrt(other / q) * kinks)
        mean += float(np.sum(rises * density * smoothed))
    one, two = kinks[:, None] / math.sqrt(q1), kinks / math.sqrt(q2)
    distance = (one - two) ** 2 + 2 * one * two * abs(near)
    if c < 0:
        distance = (one + two) ** 2 - 2 * one * two * abs(near)
    with np.errstate(divide="ignore", invalid="ignore"):
        density = (
            np.exp(-distance / (2 * rest)) / (2 * math.pi * math.sqrt(q1 * q2 * rest))
            if rest > 0
            else np.where(distance == 0, math.inf, 0.0)
        )
    return mean + float(np.sum(np.where(density == 0, 0.0, rises[:, None] * rises * density)))
