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

from .activations import Activation
from .ops.moments import GaussianMoments, gaussian_moments

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
