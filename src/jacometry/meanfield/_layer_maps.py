"""What one wide random layer does to a variance and to a correlation, on a flat list of layers.

A layer takes a stream ``x`` to ``shortcut x + branch_scale (W D phi(N(x)) + b)``: ``D`` is dropout
(kept entries divided by the keep rate), ``N`` the normalisation, if any.  ``q`` is the mean square
of the entries of ``x``; what enters ``phi`` has variance ``u``, which is ``q``, or 1 after a
normalisation.  All that mean-field theory needs of a layer is ::

    q' = carried q + spread E phi(sqrt(u) z)**2 + bias,   spread = branch_scale**2 sigma_w**2 / keep

with ``carried = shortcut**2``, ``bias = branch_scale**2 sigma_b**2``, ``keep = 1 - dropout``
(Yang and Schoenholz, Mean field residual networks, 2017; Schoenholz et al., Deep information
propagation, 2017, section 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..activations import Activation
from ..ops import correlations
from ..ops.moments import GaussianMoments, gaussian_moments

# Stands for 0 where the activation has a kink there, which counts with both its sides.
TINY_Q = 1e-300
# Where q has no bound, moments are taken here: their limits to every digit, and no overflow.
HUGE_Q = 1e100

_NODES_PER_DECADE = 4
_DECADES = 14


@dataclass(frozen=True, eq=False)
class Layers:
    """Layers of one activation, one per entry of the flat arrays."""

    activation: Activation
    normalization: str | None
    carried: np.ndarray
    weight: np.ndarray  # branch_scale**2 sigma_w**2
    bias: np.ndarray
    keep: np.ndarray
    n_threads: int | None = None

    @property
    def spread(self) -> np.ndarray:
        return self.weight / self.keep

    def __getitem__(self, items) -> Layers:
        return Layers(
            self.activation, self.normalization, self.carried[items], self.weight[items],
            self.bias[items], self.keep[items], self.n_threads,
        )  # fmt: skip

    def moments(self, q: np.ndarray) -> GaussianMoments:
        return moments(self.activation, q, self.n_threads)

    def variance(self, q: np.ndarray) -> np.ndarray:
        """The next q."""
        entering = q if self.normalization is None else np.ones_like(q)
        return self.carried * q + self.branch_variance(entering)

    def branch_variance(self, u: np.ndarray) -> np.ndarray:
        """What the branch adds to q where its activation sees the variance u."""
        return self.spread * phi2(self.activation, u, self.n_threads) + self.bias

    def drift(self, q: np.ndarray) -> np.ndarray:
        """Next q minus q, without normalisation; its sign is exact up to a few u q."""
        return (self.carried - 1) * q + self.branch_variance(q)

    def drift_slope(self, q: np.ndarray) -> np.ndarray:
        return self.carried - 1 + self.spread * self.moments(q).phi2_slope


def moments(activation: Activation, q: np.ndarray, n_threads: int | None) -> GaussianMoments:
    """The moments at q, at 0 as limits and at infinity far in the tails."""
    least = TINY_Q if 0.0 in activation.kinks else 0.0
    return gaussian_moments(activation, np.clip(q, least, HUGE_Q), n_threads=n_threads)


def phi2(activation: Activation, q: np.ndarray, n_threads: int | None) -> np.ndarray:
    """``E phi(sqrt(q) z)**2``, at 0 exactly ``phi(0)**2``."""
    found = moments(activation, q, n_threads).phi2
    return np.where(q < TINY_Q, float(activation.value(0.0)) ** 2, found)


@dataclass(frozen=True, eq=False)
class Profile:
    """Moments of an activation at nodes from 0 to far out; what lies between them is smooth."""

    q: np.ndarray
    phi2: np.ndarray
    phi2_slope: np.ndarray
    dphi2: np.ndarray


@lru_cache(maxsize=64)
def profile(activation: Activation) -> Profile:
    """The moments at 0, at 4 nodes a decade from 1e-14 to 1e14, and at `HUGE_Q`.

    An activation that overflows in the quadrature ends where it does.
    """
    # Off the round numbers, at which fixed points of round parameters would fall on a node.
    exponents = np.arange(-_DECADES * _NODES_PER_DECADE, _DECADES * _NODES_PER_DECADE) + 0.41
    nodes = np.concatenate([[0.0], 10.0 ** (exponents / _NODES_PER_DECADE), [HUGE_Q]])
    try:
        found = moments(activation, nodes, 1)
    except ValueError:
        nodes = _finite_nodes(activation, nodes)
        found = moments(activation, nodes, 1)
    return Profile(nodes, phi2(activation, nodes, 1), found.phi2_slope, found.dphi2)


def _finite_nodes(activation: Activation, nodes: np.ndarray) -> np.ndarray:
    low, high = 0, len(nodes)  # the first node is fit, or the error is the caller's
    moments(activation, nodes[:1], 1)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            moments(activation, nodes[middle : middle + 1], 1)
            low = middle
        except ValueError:
            high = middle
    return nodes[: low + 1]


def slopes(layers: Layers, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """V'(q) and chi_1."""
    if layers.normalization is None:
        top = profile(layers.activation).q[-1]
        known = layers.moments(np.minimum(q, top))
        slope = layers.carried + layers.spread * known.phi2_slope
        chi = layers.carried + layers.spread * known.dphi2
        faster = np.isinf(q) & (known.phi2_slope * top > 1.5 * known.phi2) & (layers.spread > 0)
        return np.where(faster, np.inf, slope), np.where(faster, np.inf, chi)
    known = layers.moments(np.ones_like(q))
    divisor = q
    if layers.normalization == "batch":
        apart = layers.spread * known.phi2 - layers.weight * known.phi**2
        with np.errstate(divide="ignore", invalid="ignore"):
            divisor = np.where(np.isinf(q), np.inf, apart / (1 - layers.carried))
    with np.errstate(divide="ignore", invalid="ignore"):
        branch = np.where(layers.spread > 0, layers.spread * known.dphi2 / divisor, 0.0)
    return layers.carried.copy(), layers.carried + branch


def iterate(layers: Layers, q, e, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Variance and 1 - c at every interface: two arrays (items, depth + 1)."""
    qs, es = np.empty((2, q.size, depth + 1))
    qs[:, 0], es[:, 0] = q, e
    batch = np.zeros_like(q)
    for layer in range(depth):
        qs[:, layer + 1], es[:, layer + 1], batch = _step(layers, qs[:, layer], es[:, layer], batch)
    return qs, es


def _step(layers: Layers, q, e, batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One layer on the variance, on 1 - c, and on the covariance within a batch."""
    entering = q if layers.normalization is None else np.ones_like(q)
    inside = e
    if layers.normalization == "batch":
        with np.errstate(invalid="ignore"):
            inside = np.where(q > 0, np.clip(q * e / (q - batch), 0.0, 2.0), e)
    known = layers.moments(entering)
    following = layers.variance(q)
    apart = inside * correlations.decorrelation(
        layers.activation, inside, entering, n_threads=layers.n_threads
    )
    parting = layers.carried * q * e + layers.weight * (
        apart + (1 / layers.keep - 1) * np.where(entering > 0, known.phi2, 0.0)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        e = np.where(following > 0, parting / following, e)
    batch = layers.carried * batch + layers.weight * known.phi**2 + layers.bias
    return following, e, batch
