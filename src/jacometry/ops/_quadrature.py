"""Gaussian moments of any activation over an octave of q, by panelled Gauss-Legendre rules."""

import math
from functools import cache

import numpy as np

MOMENTS = ("phi", "phi2", "dphi", "dphi2", "d2phi2", "phi2_slope")
_D2PHI2, _SLOPE, _STEIN = 4, 5, 6

_SQRT_2PI = math.sqrt(2 * math.pi)
_N_NODES = 16
# Standard deviations that the panels span; the second where the first leaves a tail, relative to
# E |f|, that matters.
_REACHES = (16.0, 36.0)
_TAIL = 1e-15
# What two refinements may differ by, relative to E |f|: the aim, and where a warning is due.
_AIM = 1e-12
SETTLED = 1e-11
_MAX_REFINEMENTS = 6
# The curvature found by differences errs by so much more than the slope.
_PENALTY = 1e3
_LARGEST = np.finfo(np.float64).max


class Octave:
    """A rule for the moments at every q in [low, 2 low): the same nodes for each.

    The half-lines are folded onto each other, f(x) + f(-x), so that odd functions have mean 0.

    Attributes
    ----------
    unsettled : float
        What the last two refinements differ by relative to E |f|, where that is above `SETTLED`
        (infinite where a tail is left out); else 0.
    """

    def __init__(self, activation, low):
        self._jumps = [
            (kink, jump * float(activation.value(kink)))
            for kink, jump in slope_jumps(activation).items()
        ]
        has_curvature = activation.d2phi is not None
        trial = low * np.array([1.0, 1.5, np.nextafter(2.0, 0.0)])
        for reach in _REACHES:
            end = math.sqrt(2) * math.sqrt(low) * reach
            self._use(activation, low, end, 0)
            sums, sizes = self._sums(trial, self._x > 0)
            tail = self._sums(trial, self._x > 0.9 * end)[1][:_STEIN]  # kinks are not of the tail
            is_whole = _largest_ratio(tail, sizes[:_STEIN]) <= _TAIL
            if is_whole:
                break
        # E[x phi phi'] / q loses digits near 0 if phi(0) is not 0, and E[phi'^2 + phi phi''], the
        # same by Stein's lemma, far out if phi saturates: the one whose terms are smaller.
        by_slope, by_stein = sizes[_SLOPE, 1], sizes[_STEIN, 1] * trial[1]
        by_stein *= 0.9 if has_curvature else _PENALTY  # x phi phi' underflows earlier
        self._slope_row = _SLOPE if 0 < by_slope < by_stein else _STEIN
        # Differences of a slope are too noisy to settle.
        tested = [0, 1, 2, 3] + [_D2PHI2] * has_curvature
        tested += [self._slope_row] * (has_curvature or self._slope_row == _SLOPE)
        change = math.inf
        for refinement in range(1, _MAX_REFINEMENTS + 1):
            before = sums
            self._use(activation, low, end, refinement)
            sums, sizes = self._sums(trial, self._x > 0)
            change = _largest_ratio(np.abs(sums - before)[tested], sizes[tested])
            if change <= _AIM:
                break
        self.unsettled = 0.0 if change <= SETTLED else change
        if not is_whole:
            self.unsettled = math.inf

    def moments(self, q):
        """The moments (6, n) and the means of the absolute values they are sums of."""
        sums, sizes = self._sums(q, slice(None))
        for part in (sums, sizes):
            part[_SLOPE] = part[_SLOPE] / q if self._slope_row == _SLOPE else part[_STEIN]
        if self._jumps:
            sums[_D2PHI2] = math.inf
        return sums[:_STEIN], sizes[:_STEIN]

    def _use(self, activation, low, end, refinement):
        """The nodes, and there what is to be summed and its absolute value: (7, n) each."""
        self._x, self._weights = _nodes(math.sqrt(low), end, activation.kinks, refinement)
        with np.errstate(over="ignore", under="ignore"):
            sides = [
                (phi, phi * phi, dphi, dphi * dphi, d2phi * d2phi, x * phi * dphi,
                 dphi * dphi, phi * d2phi)
                for x in (self._x, -self._x)
                for phi, dphi, d2phi in [derivatives(activation, x)]
            ]  # fmt: skip
            folded = [right + left for right, left in zip(*sides, strict=True)]
            sizes = [np.abs(right) + np.abs(left) for right, left in zip(*sides, strict=True)]
            rows = [*folded[:_STEIN], folded[6] + folded[7], *sizes[:_STEIN], sizes[6] + sizes[7]]
        self._values = np.clip(rows, -_LARGEST, _LARGEST)  # times a density of 0, infinity is NaN

    def _sums(self, q, nodes):
        """Means over some of the nodes of the rows of `_use`: (7, n), and of their sizes."""
        root = np.sqrt(q)
        z = self._x[nodes] / root[:, None]
        with np.errstate(over="ignore", under="ignore"):
            density = np.exp(-0.5 * z * z) * (self._weights[nodes] / (_SQRT_2PI * root[:, None]))
            # Not by BLAS, whose bits depend on its threads.
            sums, sizes = np.split(np.einsum("mx,qx->mq", self._values[:, nodes], density), 2)
        for kink, strength in self._jumps:  # the curvature there is a point mass
            at_kink = np.exp(-0.5 * (kink / root) ** 2) / (_SQRT_2PI * root)
            sums[_STEIN] += strength * at_kink
            sizes[_STEIN] += abs(strength) * at_kink
        return sums, sizes


def slope_jumps(activation):
    """Each kink where the slope jumps, and the slope just right minus just left."""
    beside = np.nextafter(np.array(activation.jumps)[:, None], [-math.inf, math.inf])
    jumps = np.diff(activation.slope(beside))[:, 0]
    return dict(zip(activation.jumps, jumps.tolist(), strict=True))


def moments_at_zero(activation):
    """The six moments at q = 0: of the value at 0, and the limit of the slope."""
    phi, dphi, d2phi = (float(f[0]) for f in derivatives(activation, np.zeros(1)))
    beside = np.nextafter(0.0, [-1.0, 1.0])
    _, slopes, curvatures = derivatives(activation, beside)
    slope = float(np.mean(slopes * slopes + phi * curvatures))
    jump = slope_jumps(activation).get(0.0, 0.0)
    if jump * phi != 0:
        slope = math.copysign(math.inf, jump * phi)
    return [phi, phi**2, dphi, dphi**2, math.inf if jump else d2phi**2, slope]


def limits(activation):
    """The six moments as q grows without bound, from the values at both ends; NaN if unknown."""
    with np.errstate(all="ignore"):
        phi, dphi, d2phi = (
            np.asarray(f(np.array([-math.inf, math.inf])))
            for f in (activation.value, activation.slope, activation.curvature)
        )
        rows = [phi, phi * phi, dphi, dphi * dphi, d2phi * d2phi, dphi * dphi]
        means = np.mean(rows, axis=1)
    if slope_jumps(activation):
        means[_D2PHI2] = math.inf
    return means


def derivatives(activation, x):
    """phi, phi' and phi'' at x, which must be finite."""
    found = []
    for name, function in (
        ("phi", activation.value),
        ("dphi", activation.slope),
        ("d2phi", activation.curvature),
    ):
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            values = function(x)
        is_bad = ~np.isfinite(values)
        if is_bad.any():
            raise ValueError(
                f"{name} of activation {activation.name!r} must be finite at the nodes of the "
                f"quadrature, got {values[is_bad][0]} at x = {x[is_bad][0]:.6g}"
            )
        found.append(values)
    return found


def _largest_ratio(parts, wholes):
    """The largest part / whole, where 0 / 0 is 0."""
    counts = parts > 0
    with np.errstate(divide="ignore", over="ignore"):
        return float(np.max(parts[counts] / wholes[counts], initial=0.0))


@cache
def _gauss_legendre():
    return np.polynomial.legendre.leggauss(_N_NODES)


def _nodes(root, end, kinks, refinement):
    """Gauss-Legendre nodes and weights on (0, end): the panels that `gaussian_moments` states."""
    ends = [0.0]
    while ends[-1] < end:
        ends.append(ends[-1] + min(root, max(1.0, 0.5 * ends[-1])))
    ends[-1] = end
    edges = np.unique(np.concatenate([ends, [abs(kink) for kink in kinks if abs(kink) < end]]))
    parts = 2**refinement
    widths = np.diff(edges)[:, None] / parts
    starts = (edges[:-1, None] + widths * np.arange(parts)).reshape(-1, 1)
    halves = np.repeat(widths / 2, parts, axis=0)
    z, w = _gauss_legendre()
    return (starts + halves * (1 + z)).ravel(), (halves * w).ravel()
