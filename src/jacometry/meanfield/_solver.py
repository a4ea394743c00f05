"""Fixed points of the variance map and of the correlation map, for a flat list of layers."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from scipy.optimize import elementwise

from .. import activations
from ..ops import correlations
from ._layer_maps import Layers, Profile, profile

# Status bits.
DIVERGES, GROWS, SEVERAL, EVERY, SLOW = (1 << k for k in range(5))

# A drift below this, relative to q, cannot be told from 0: the rounding of the compiled moments,
# and what the quadrature of other activations settles to.
_ROUNDING = 1e-13
_QUADRATURE = 1e-11
# Points scanned at once, so that the scan stays in the cache.
_BLOCK = 512
_MAX_STEPS = 1024
_NEAR = 1e-9
# No c* is nearer to 1 than the square of this.
_TINY_ROOT = 1e-20
# |chi - 1| <= this is 1 to the accuracy of the moments.
CRITICAL = 1e-11
# A drift of this times q is rounding.
_KEPT = 1e-13
_TOLERANCES = {"xatol": 0.0, "xrtol": 4 * np.finfo(float).eps, "fatol": 0.0, "frtol": 0.0}


def variance_limit(layers: Layers, q0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where ``q -> layers.variance(q)`` goes from q0, infinite where it grows for ever, and status.

    Where the variance map increases, the iterates are monotone and end at the first fixed point on
    their way.  The drift ``V(q) - q`` is read at the nodes of the activation's profile; a pair of
    fixed points between two nodes has a stationary point of the drift between them, which is found
    where the tangents leave room for one.  A map that decreases somewhere is iterated first.
    """
    if layers.normalization is not None:
        return _normalized_limit(layers, q0)
    known = profile(layers.activation)
    q0 = _settled(layers, known, q0)
    q, low, high = q0.copy(), np.zeros_like(q0), np.zeros_like(q0)
    status = np.zeros(q.size, np.uint8)
    start = layers.drift(q0)
    for first in range(0, q.size, _BLOCK):
        items = slice(first, first + _BLOCK)
        _scan(layers[items], known, q0[items], start[items], q[items], low[items], high[items],
              status[items])  # fmt: skip
    between = np.flatnonzero(high > low)
    q[between] = _drift_root(layers[between], low[between], high[between])
    return q, status


def _normalized_limit(layers: Layers, q0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    added = layers.branch_variance(np.ones_like(q0))
    with np.errstate(divide="ignore", invalid="ignore"):
        q = added / (1 - layers.carried)
    grows = (layers.carried >= 1) & ((added > 0) | (layers.carried > 1) & (q0 > 0))
    stays = (layers.carried >= 1) & ~grows
    q = np.where(grows, np.inf, np.where(stays, q0, q))
    status = np.where(layers.carried > 1, DIVERGES, GROWS) * grows + EVERY * stays
    return q, status.astype(np.uint8)


def _scan(layers, known, q0, start, q, low, high, status) -> None:
    """For one block: q, or the bracket (low, high) around it, and the status bits so far."""
    drift = _drift_at_nodes(layers, known)
    _find_brackets(noise(layers), known.q, drift, q0, start, q, low, high, status)
    # Near a saddle-node a cell may hide two fixed points.
    for row, node in _hidden_pairs(layers, known, drift):
        at = np.searchsorted(known.q, node)
        one = slice(row, row + 1)
        extended = np.insert(drift[row], at, layers[one].drift(np.array([node])))[None]
        _find_brackets(noise(layers), np.insert(known.q, at, node), extended, q0[one], start[one],
                       q[one], low[one], high[one], status[one])  # fmt: skip


def _drift_at_nodes(layers: Layers, known: Profile) -> np.ndarray:
    drift = layers.spread[:, None] * known.phi2
    drift += (layers.carried - 1)[:, None] * known.q
    drift += layers.bias[:, None]
    return drift


def _find_brackets(rounding, nodes, drift, q0, start, q, low, high, status) -> None:
    slack = rounding * nodes
    above, below = drift > slack, drift < -slack
    changes = (above[:, 1:] & below[:, :-1]) | (below[:, 1:] & above[:, :-1])
    n_roots = changes.sum(axis=1) + (drift[:, 0] == 0)
    every = ~(above | below).any(axis=1)
    status[:] = np.where(every, EVERY, 0) | np.where((n_roots > 1) & ~every, SEVERAL, 0)

    q[:] = q0
    low[:] = high[:] = 0.0
    rows = np.flatnonzero(start > rounding * q0)  # q grows
    crossed = below[rows] & (nodes > q0[rows, None])
    found = crossed.any(axis=1)
    q[rows[~found]] = np.inf
    rows, j = rows[found], crossed[found].argmax(axis=1)
    low[rows], high[rows] = np.maximum(nodes[j - 1], q0[rows]), nodes[j]

    rows = np.flatnonzero(start < -rounding * q0)  # q shrinks
    crossed = above[rows] & (nodes < q0[rows, None])
    found = crossed.any(axis=1)
    q[rows[~found]] = 0.0
    rows, j = rows[found], len(nodes) - 1 - crossed[found][:, ::-1].argmax(axis=1)
    low[rows], high[rows] = nodes[j], np.minimum(np.append(nodes, np.inf)[j + 1], q0[rows])


def _hidden_pairs(layers: Layers, known: Profile, drift: np.ndarray) -> list[tuple[int, float]]:
    """Rows, and stationary points of their drift whose sign is that of neither node beside them."""
    with np.errstate(divide="ignore", invalid="ignore"):
        level = (1 - layers.carried) / layers.spread
    rises = known.phi2_slope > level[:, None]
    turns = np.flatnonzero(rises[:, 1:] != rises[:, :-1])
    if not turns.size:
        return []
    row, j = np.divmod(turns, len(known.q) - 1)
    x, f = known.q, drift
    at_left, at_right = (
        layers.carried[row] - 1 + layers.spread[row] * known.phi2_slope[k] for k in (j, j + 1)
    )
    width = x[j + 1] - x[j]
    # The tangents at the nodes meet at this height.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        along = (f[row, j + 1] - f[row, j] - at_right * width) / (at_left - at_right)
        height = f[row, j] + at_left * along
    same = f[row, j] * f[row, j + 1] > 0
    # A drift that turns towards zero: f t < 0 at the left node.
    room = same & (f[row, j] * at_left < 0) & (height * f[row, j] < 0)
    row, j = row[room], j[room]
    if not row.size:
        return []
    chosen = layers[row]
    node = _root(
        lambda q, carried, spread: carried - 1 + spread * chosen.moments(q).phi2_slope,
        x[j], x[j + 1], (chosen.carried, chosen.spread),
    )  # fmt: skip
    crosses = chosen.drift(node) * f[row, j] < 0
    return list(zip(row[crosses].tolist(), node[crosses].tolist(), strict=True))


def noise(layers: Layers) -> float:
    """How far the computed drift may be from the true one, relative to q."""
    return _ROUNDING if layers.activation.kernel_id is not None else _QUADRATURE


def _root(function, low, high, arguments) -> np.ndarray:
    """Roots by Chandrupatla's method; where rounding leaves no change of sign, the better end."""
    found = elementwise.find_root(function, (low, high), args=arguments, tolerances=_TOLERANCES)
    root = np.array(found.x)
    failed = np.flatnonzero(~found.success)
    if failed.size:
        ends = low[failed], high[failed]
        given = [argument[failed] for argument in arguments]
        at_low, at_high = (np.abs(function(end, *given)) for end in ends)
        root[failed] = np.where(at_low <= at_high, *ends)
    return root


def _drift_root(layers: Layers, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    def drift(q, carried, weight, bias, keep):
        items = Layers(layers.activation, None, carried, weight, bias, keep, layers.n_threads)
        return items.drift(q)

    return _root(drift, low, high, (layers.carried, layers.weight, layers.bias, layers.keep))


def _settled(layers: Layers, known: Profile, q0: np.ndarray) -> np.ndarray:
    """q0, or where the variance map decreases somewhere an iterate near the limit.

    ``sqrt(q) E phi(sqrt(q) z)**2`` is the integral of ``phi(x)**2 exp(-x**2 / (2 q))`` over a
    constant, hence never falls with q.  So ``sqrt(q) V(q)`` does not fall either: V has no cycle of
    two values, all iterates converge or grow (Coppel 1955), and they alternate about a fixed point
    only if its slope is in [-1/2, 0), in which case 1024 steps are many times enough.  Where they
    are not, the iterates are near a fixed point of slope about 1 and monotone.
    """
    q = q0.copy()
    active = np.flatnonzero(layers.carried + layers.spread * known.phi2_slope.min() < 0)
    for _ in range(_MAX_STEPS):
        if not active.size:
            break
        before = q[active]
        q[active] = after = layers[active].variance(before)
        active = active[(np.abs(after - before) > _NEAR * after) & (after < known.q[-1])]
    return q


def correlation_limit(layers: Layers, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``1 - c*`` of two inputs of variance q, and the slope of the correlation map there.

    The covariance of the two streams grows by ``weight E[phi phi] + bias`` in a layer and the
    variance by `Layers.branch_variance`, so that ``e = 1 - c`` stays where ::

        weight D(u, e) + dropped / e = branch variance,   dropped = weight (1 / keep - 1) E phi**2

    with D of `correlations.decorrelation`; ``c = 1`` stays where nothing is dropped, and attracts
    where the left side at ``e = 0`` is no larger.
    """
    if layers.normalization == "batch":
        return _batch_correlation(layers, q)
    u = q if layers.normalization is None else np.ones_like(q)
    e, slope = np.full_like(q, np.nan), np.full_like(q, np.nan)
    inner = np.flatnonzero(np.isfinite(u))
    e[inner], slope[inner] = _inner_correlation(layers[inner], q[inner], u[inner])
    outer = np.flatnonzero(np.isinf(u))
    if outer.size:
        e[outer], slope[outer] = _outer_correlation(layers[outer])
    return e, slope


def _inner_correlation(layers: Layers, q, u) -> tuple[np.ndarray, np.ndarray]:
    """The same where the activation sees a finite variance u."""
    activation = layers.activation
    known = layers.moments(u)
    second = np.where(u > 0, known.phi2, 0.0)
    added = layers.branch_variance(u)
    dropped = layers.weight * (1 / layers.keep - 1) * second
    moves = layers.weight * u * known.dphi2 > added * (1 + CRITICAL)
    active = (moves | (dropped > 0)) & (u > 0)
    # Without biases an odd activation takes uncorrelated inputs to uncorrelated ones, exactly.
    odd = active & (layers.bias + layers.weight * known.phi**2 == 0)
    e = np.where(odd, 1.0, 0.0)
    items = np.flatnonzero(active & ~odd)
    if items.size:
        e[items] = _decorrelation_root(
            lambda e, u: correlations.decorrelation(activation, e, u, n_threads=layers.n_threads),
            u[items], layers.weight[items], added[items], dropped[items],
        )  # fmt: skip
    slopes = np.array(known.dphi2)
    items = np.flatnonzero(e > 0)
    slopes[items] = correlations.dual_activation(
        activation, e[items], u[items], derivative=1, complement=True, n_threads=layers.n_threads
    )
    if layers.normalization is None:
        return e, layers.carried + layers.weight * slopes
    with np.errstate(divide="ignore", invalid="ignore"):
        branch = np.where(layers.weight > 0, layers.weight * slopes / q, 0.0)
    # Where q grows for ever the branch counts for nothing in the end.
    return e, np.where(np.isinf(q), 1.0, layers.carried + branch)


def _outer_correlation(layers: Layers) -> tuple[np.ndarray, np.ndarray]:
    """The same where q grows for ever, from what the activation becomes far out.

    Beside a large enough scale it is a leaky ReLU times a constant, or a step between two limits;
    NaN for any other.  A step that is added to a stream which grows by a factor moves no
    correlation, so that c* depends on the start: NaN too.
    """
    far = 2.0 ** np.array([300, 301, 302])
    with np.errstate(all="ignore"):
        values = np.array([layers.activation.phi(far), layers.activation.phi(-far)], float)
        slopes, limits = values / (far * [[1], [-1]]), values
    unknown = np.full(layers.weight.size, np.nan)
    if (np.ptp(slopes, axis=1) <= 1e-12).all() and (np.abs(slopes) > 1e-12).any():
        steep, flat = sorted(slopes[:, 0], key=abs, reverse=True)
        leaky = activations.leaky_relu(flat / steep)
        weight = layers.weight * steep**2
        second = (1 + (flat / steep) ** 2) / 2
        added, dropped = weight * second / layers.keep, weight * second * (1 / layers.keep - 1)
        e = np.zeros_like(weight)
        items = np.flatnonzero(dropped > 0)
        if items.size:
            e[items] = _decorrelation_root(
                lambda e, u: correlations.decorrelation(leaky, e, u),
                np.ones(items.size), weight[items], added[items], dropped[items],
            )  # fmt: skip
        kept = correlations.dual_activation(
            leaky, e, np.ones_like(e), derivative=1, complement=True
        )
        return e, (layers.carried + weight * kept) / (layers.carried + added)
    if (np.ptp(limits, axis=1) <= 1e-12).all() and np.ptp(limits) > 0:
        up, down = limits[:, 0]
        added = layers.spread * (up**2 + down**2) / 2 + layers.bias
        dropped = layers.weight * (1 / layers.keep - 1) * (up**2 + down**2) / 2
        e = np.ones_like(added)
        items = np.flatnonzero(layers.bias + layers.weight * (up + down) ** 2 > 0)
        if items.size:
            # E phi phi = m**2 + h**2 (2 / pi) asin c, m the mean of the limits, h half their gap.
            e[items] = _decorrelation_root(
                lambda e, u: (up - down) ** 2 / (math.pi * e) * np.arcsin(np.sqrt(e / 2)),
                np.ones(items.size), layers.weight[items], added[items], dropped[items],
            )  # fmt: skip
        return np.where(layers.carried > 1, np.nan, e), np.ones_like(e)
    return unknown, unknown


def _decorrelation_root(decorrelation, u, weight, added, dropped) -> np.ndarray:
    def excess(root_e, u, weight, added, dropped):
        e = root_e * root_e
        apart = weight * decorrelation(e, u)
        return np.where(dropped > 0, (apart - added) * e + dropped, apart - added)

    # In sqrt(e), in which D is smooth at 0 for an activation with kinks too.
    low = np.full_like(u, _TINY_ROOT)
    return _root(excess, low, np.ones_like(u), (u, weight, added, dropped)) ** 2


def _batch_correlation(layers: Layers, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = layers.moments(np.ones_like(q))
    added = layers.branch_variance(np.ones_like(q))
    apart = layers.spread * known.phi2 - layers.weight * known.phi**2
    with np.errstate(divide="ignore", invalid="ignore"):
        e = np.where(added > 0, apart / added, 0.0)
        # Of the normalised correlation, in a stream whose centred variance is (q' - q) e.
        branch = layers.weight * known.dphi**2 / apart
        slope = np.where(
            layers.carried < 1,
            layers.carried + (1 - layers.carried) * branch,
            1.0,
        )
    return e, slope


def all_fixed_points(layer: Layers, q: float) -> np.ndarray:
    """Every fixed point of the variance map of one layer, ascending; q is the one reached."""
    if layer.normalization is not None:
        return np.array([q]) if np.isfinite(q) else np.empty(0)
    known = profile(layer.activation)
    hidden = [node for _, node in _hidden_pairs(layer, known, _drift_at_nodes(layer, known))]
    nodes = np.sort(np.append(known.q, hidden))
    layers = layer[np.zeros(nodes.size, int)]
    drift = layers.drift(nodes)
    drift[np.abs(drift) <= noise(layer) * nodes] = 0.0
    sure = np.flatnonzero((drift != 0) | (nodes == 0))
    ends = [(i, j) for i, j in pairwise(sure) if drift[i] * drift[j] < 0]
    low, high = nodes[np.array(ends, int).reshape(-1, 2).T]
    roots = _drift_root(layer[np.zeros(low.size, int)], low, high) if ends else np.empty(0)
    return np.append(0.0, roots) if drift[0] == 0 else roots


def attracts(layers: Layers, q: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Whether nearby variances come back to the fixed points q, where V has these slopes."""
    if layers.normalization is not None:
        return np.abs(slope) < 1
    above, below = np.where(q > 0, q * (1 + 1e-4), 1e-6), q * (1 - 1e-4)
    # What keeps its neighbours where they are, but for rounding, repels nothing: hard tanh's 0.
    both = (layers.drift(above) <= _KEPT * above) & (layers.drift(below) >= -_KEPT * below)
    return np.where(np.abs(slope - 1) <= CRITICAL, both, np.abs(slope) < 1)
