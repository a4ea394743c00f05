"""The edge of chaos of an activation, and its gains."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar, root_scalar

from .. import activations as _activations
from .._status import NoEdgeOfChaosError
from .._validate import as_array, choice, finite_scan, real_scalar, refuse
from . import _solver
from ._layer_maps import Layers, Profile, moments, phi2, profile
from ._layers import ActivationLike

# Relative to q: below this, sigma_b**2 at the edge is 0 for every q, and the edge a point.
_POINT = 1e-9


class CriticalPoint(NamedTuple):
    """A point of the edge of chaos: ``chi_1(q_star) = 1`` and ``q_star = V(q_star)``.

    Attributes
    ----------
    sigma_w, sigma_b : float
        Standard deviations of the weights (times sqrt(fan_in)) and of the biases.
    q_star : float
        The variance there; NaN where any will do.
    stable : bool
        Whether variances near q_star come to it; False where they leave it, so that a network
        initialised so ends elsewhere.
    """

    sigma_w: float
    sigma_b: float
    q_star: float
    stable: bool


def critical_point(
    activation: ActivationLike, *, sigma_b: float | None = None, q_star: float | None = None
) -> CriticalPoint:
    """Where a wide network of an activation keeps the gradient's mean square: the edge of chaos.

    Parameters
    ----------
    activation : str, Activation or callable
        What `jacometry.activations.get` takes.
    sigma_b : float, optional
        Standard deviation of the biases, >= 0: the point of the edge with this one.
    q_star : float, optional
        Variance, > 0: the point of the edge that has it as its fixed point.  Give one of the two;
        neither where the edge is a single point (ReLU, leaky ReLU, identity: ``sigma_b = 0``).

    Returns
    -------
    CriticalPoint
        ``(sigma_w, sigma_b, q_star, stable)``.

    Raises
    ------
    NoEdgeOfChaosError
        If there is no such point; softplus has none at all.
    ValueError
        If both are given, or neither where the edge is a line; if one is out of range.

    Notes
    -----
    The edge is a curve in q (Schoenholz et al., Deep information propagation, 2017)::

        sigma_w**2 = 1 / E phi'(sqrt(q) z)**2,   sigma_b**2 = q - sigma_w**2 E phi(sqrt(q) z)**2

    where the right side is not negative.  For erf: ``sigma_w**2 = pi sqrt(1 + 4 q) / 4``.  Given
    sigma_b, it is solved for q between 1e-14 and 1e14 (and at 0); of several solutions that with
    the least q is returned among those that attract, if any does.  q is as accurate as the moments,
    to about 1e-14 relative for activations with a kernel.

    Examples
    --------
    >>> point = critical_point("tanh", q_star=1.0)
    >>> round(point.sigma_w**2, 12), round(point.sigma_b**2, 12), point.stable
    (2.153302648903, 0.150964629379, True)
    >>> critical_point("relu")
    CriticalPoint(sigma_w=1.4142135623730951, sigma_b=0.0, q_star=nan, stable=True)
    >>> critical_point("gelu", sigma_b=0.2).stable
    False
    """
    phi = _activations.get(activation)
    if sigma_b is not None and q_star is not None:
        raise ValueError("give sigma_b or q_star, not both: each determines the other")
    if sigma_b is not None:
        sigma_b = real_scalar("sigma_b", sigma_b, low=0.0, high=math.inf, open_high=True)
    if q_star is not None:
        q_star = real_scalar("q_star", q_star, low=0.0, high=math.inf, open_high=True)
    known = profile(phi)
    if not (known.dphi2 > 0).any():
        raise NoEdgeOfChaosError(f"activation {phi.name!r} has no edge of chaos: it is constant")
    edge = _edge(known)
    inside = slice(1, -1)
    if (np.abs(edge[inside]) <= _POINT * known.q[inside]).all():
        return _isolated(phi, sigma_b, q_star)
    if q_star is not None:
        return _at_variance(phi, q_star)
    reached = edge[inside].max()
    if reached < 0:
        raise NoEdgeOfChaosError(
            f"activation {phi.name!r} has no edge of chaos: chi_1 = 1 needs a negative sigma_b**2 "
            "at every q"
        )
    if sigma_b is None:
        raise ValueError(
            f"the edge of chaos of activation {phi.name!r} is a line: give sigma_b or q_star"
        )
    return _at_bias(phi, known, edge, sigma_b)


def gain(activation: ActivationLike, *, mode: str = "backward", q: npt.ArrayLike = 1.0) -> Any:
    """The sigma_w with which one layer preserves a mean square: the gain of an activation.

    Parameters
    ----------
    activation : str, Activation or callable
        What `jacometry.activations.get` takes.
    mode : {"backward", "forward"}, optional
        What is preserved: the gradient's mean square, or the signal's.
    q : array_like, optional
        Variance of the pre-activations, > 0.

    Returns
    -------
    ndarray or float64
        Of the shape of `q`.

    Raises
    ------
    ValueError
        If `q` is not positive and finite, or the activation is constant.

    Notes
    -----
    Where the number comes from: the weights of a layer have ``Var(W_ij) = gain**2 / fan_in``, so
    that ::

        E||g_in||**2 = gain**2 E phi'(sqrt(q) z)**2 E||g_out||**2     (backward)
        q_out = gain**2 E phi(sqrt(q) z)**2                             (forward)

    and the gain makes the factor on the gradient 1, or q_out = q.  The two agree for ReLU, leaky
    ReLU and the identity, at every q, and nowhere else in general: for tanh at q = 1 they are
    1.4674 and 1.5925.

    torch.nn.init.calculate_gain has ``sqrt(2)`` for ReLU and ``sqrt(2 / (1 + a**2))`` for leaky
    ReLU, which is this; 1 for the sigmoid (here 4.7226 backward) and 5/3 for tanh, which no such
    equation gives at q = 1; 3/4 for SELU, chosen empirically (here 0.96603 backward and 1 forward);
    and nothing for GELU or SiLU.

    References
    ----------
    He, Zhang, Ren and Sun, Delving deep into rectifiers, 2015, eqs. 9 and 13.

    Examples
    --------
    >>> round(float(gain("relu")), 6), round(float(gain("tanh")), 6)
    (1.414214, 1.467414)
    >>> round(float(gain("gelu", mode="forward")), 6)
    1.53353
    """
    phi = _activations.get(activation)
    choice("mode", mode, ("backward", "forward"))
    variance = as_array("q", q).astype(np.float64)
    finite_scan("q", variance)
    refuse("q", variance, variance <= 0, "be > 0")
    found = moments(phi, variance, None)
    kept, received = (found.dphi2, 1.0) if mode == "backward" else (found.phi2, variance)
    if not (np.asarray(kept) > 0).all():
        raise ValueError(f"activation {phi.name!r} lets nothing through at q = {q!r}: no gain")
    return np.sqrt(received / kept)[()]


def _edge(known: Profile) -> np.ndarray:
    """sigma_b**2 of the edge at the nodes."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return known.q - known.phi2 / known.dphi2


def _edge_at(phi: _activations.Activation, q: float) -> float:
    at = np.array([q])
    return float(q - phi2(phi, at, 1)[0] / moments(phi, at, 1).dphi2[0])


def _isolated(phi, sigma_b, q_star) -> CriticalPoint:
    if sigma_b:
        raise NoEdgeOfChaosError(
            f"activation {phi.name!r} is critical at sigma_b = 0 only, got sigma_b = {sigma_b:g}"
        )
    sigma_w = math.sqrt(1 / float(moments(phi, np.ones(1), 1).dphi2[0]))
    return CriticalPoint(sigma_w, 0.0, math.nan if q_star is None else q_star, True)


def _at_variance(phi, q_star) -> CriticalPoint:
    variance_b = _edge_at(phi, q_star)
    # Rounding must not forbid a sigma_b of 0.
    if abs(variance_b) <= 1e-13 * q_star:
        variance_b = 0.0
    if not variance_b >= 0:
        raise NoEdgeOfChaosError(
            f"activation {phi.name!r} is not critical at q_star = {q_star:g}: that needs "
            f"sigma_b**2 = {variance_b:.6g}"
        )
    return _point(phi, q_star, math.sqrt(variance_b))


def _at_bias(phi, known, edge, sigma_b) -> CriticalPoint:
    target = sigma_b**2
    nodes = list(zip(known.q[:-1], edge[:-1], strict=True))
    # Two solutions may lie between two nodes, about an extremum.
    rise = np.diff(edge[:-1])
    for j in np.flatnonzero(rise[:-1] * rise[1:] < 0):
        sign = 1.0 if rise[j] < 0 else -1.0
        found = minimize_scalar(
            lambda q, sign=sign: sign * _edge_at(phi, q),
            bounds=(known.q[j], known.q[j + 2]), method="bounded", options={"xatol": 0.0},
        )  # fmt: skip
        nodes.append((found.x, sign * found.fun))
    nodes = [(float(q), float(value) - target) for q, value in sorted(nodes) if np.isfinite(value)]
    roots = [q for q, value in nodes if value == 0]
    for (low, at_low), (high, at_high) in pairwise(nodes):
        if at_low * at_high < 0:
            solved = root_scalar(
                lambda q: _edge_at(phi, q) - target, bracket=(low, high), xtol=1e-300, rtol=1e-15
            )
            roots.append(solved.root)
    if not roots:
        raise NoEdgeOfChaosError(
            f"activation {phi.name!r} has no edge of chaos at sigma_b = {sigma_b:g}: with "
            f"chi_1 = 1, sigma_b**2 lies in [{max(0.0, min(v for _, v in nodes) + target):.6g}, "
            f"{max(v for _, v in nodes) + target:.6g}]"
        )
    points = [_point(phi, q, sigma_b) for q in sorted(roots)]
    return next((point for point in points if point.stable), points[0])


def _point(phi, q: float, sigma_b: float) -> CriticalPoint:
    at = np.array([q])
    sigma_w = math.sqrt(1 / float(moments(phi, at, 1).dphi2[0]))
    one = np.ones(1)
    layer = Layers(phi, None, 0 * one, one * sigma_w**2, one * sigma_b**2, one, 1)
    slope = sigma_w**2 * moments(phi, at, 1).phi2_slope
    return CriticalPoint(sigma_w, sigma_b, q, bool(_solver.attracts(layer, at, slope)[0]))
