"""Singular values of a wide random network's input-output Jacobian, by free probability."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from .. import activations as _activations
from .._validate import count, real_scalar
from ..ops.moments import gaussian_moments
from ._field import MeanField
from ._layers import ActivationLike

_REACH = 9.5  # standard deviations; beyond them lies 2e-21 of the Gaussian
_N_PANELS = 40
_N_HALVINGS = 40
_N_NODES = 16
# Moments at q = 0 are limits, so that a kink at 0 counts with both its sides.
_LEAST_Q = 1e-200


@dataclass(frozen=True, eq=False)
class JacobianSpectrumLaw:
    """Law of the squared singular values of a wide random network's Jacobian.

    Attributes
    ----------
    mean, variance : float
        Of the squared singular values.
    edge : float
        The largest of them in the limit of infinite width; NaN where the slope has no bound.
    q : float
        Variance of the pre-activations at which slopes are taken.
    """

    mean: float
    variance: float
    edge: float
    q: float


def jacobian_spectrum_law(
    activation: ActivationLike,
    depth: int,
    *,
    sigma_w: float,
    sigma_b: float = 0.0,
    orthogonal: bool = False,
) -> JacobianSpectrumLaw:
    """Mean, variance and upper edge of the squared singular values of ``J = D_L W_L ... D_1 W_1``.

    Parameters
    ----------
    activation : str, Activation or callable
        What `jacometry.activations.get` takes.
    depth : int
        L, at least 1.
    sigma_w, sigma_b : float
        ``Var(W_ij) = sigma_w**2 / n``, ``Var(b) = sigma_b**2``; with `orthogonal`, W is `sigma_w`
        times a Haar orthogonal matrix.
    orthogonal : bool, optional
        Orthogonal weights in place of Gaussian ones.

    Returns
    -------
    JacobianSpectrumLaw
        ``.mean``, ``.variance``, ``.edge`` and ``.q``.

    Raises
    ------
    ValueError
        If an argument is out of range, or the variance of the pre-activations reaches no fixed
        point from 1.
    TypeError
        If an argument has the wrong type.

    Notes
    -----
    Widths are equal and tend to infinity; ``D_l = diag(phi'(z_l))`` with ``z_l`` of variance q, the
    fixed point that ``q = 1`` leads to, 0 included (any q serves a rectifier without biases).  With
    ``mu_k = E phi'(z)**(2 k)`` and ``chi = sigma_w**2 mu_1``::

        mean = chi**L,   variance = chi**(2 L) L (mu_2 / mu_1**2 - 1 + s)

    with s = 1 for Gaussian and 0 for orthogonal weights.  By the multiplication law of
    S-transforms, with ``psi(w) = E[w d**2 / (1 - w d**2)]``, ``d = phi'(z)``, the edge is the least
    value over w in (0, 1 / sup d**2) of ``(1 + psi) / psi (sigma_w**2 psi / w)**L`` for Gaussian
    weights; for orthogonal ones the base has ``psi / (1 + psi)`` in place of psi.  Linear networks
    have the Fuss-Catalan edge ``(L + 1)**(L + 1) / L**L`` times ``sigma_w**(2 L)``, or all squared
    singular values equal to ``sigma_w**(2 L)``.  Mean and variance are accurate to 1e-10, the edge
    to about 1e-8.

    References
    ----------
    Pennington, Schoenholz and Ganguli, Resurrecting the sigmoid in deep learning through dynamical
    isometry, 2017; The emergence of spectral universality in deep networks, 2018.

    Examples
    --------
    >>> law = jacobian_spectrum_law("identity", 3, sigma_w=1.0)
    >>> law.mean, law.variance, round(law.edge, 5)
    (1.0, 3.0, 9.48148)
    """
    phi = _activations.get(activation)
    n_layers = count("depth", depth, low=1)
    w = real_scalar("sigma_w", sigma_w, low=0.0, high=math.inf, open_high=True)
    b = real_scalar("sigma_b", sigma_b, low=0.0, high=math.inf, open_high=True)
    q = _fixed_point(phi, w, b)
    near = max(q, _LEAST_Q)
    mu_1 = float(gaussian_moments(phi, near).dphi2)
    squared = _activations.Activation(
        lambda x: phi.slope(x) ** 2, np.zeros_like, kinks=phi.kinks, name=f"squared slope of {phi}"
    )
    mu_2 = float(gaussian_moments(squared, near).phi2)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(np.power(w * w * mu_1, n_layers))
        ratio = max(1.0, mu_2 / mu_1**2) if mu_1 else math.nan  # at least 1, but for rounding
        variance = mean * mean * n_layers * (ratio - (1.0 if orthogonal else 0.0))
    edge = _edge(phi, near, n_layers, w, bool(orthogonal))
    return JacobianSpectrumLaw(mean=mean, variance=variance, edge=edge, q=q)


def _fixed_point(phi: _activations.Activation, sigma_w: float, sigma_b: float) -> float:
    is_rectifier = phi.kernel_id == _activations.leaky_relu().kernel_id or phi.name == "identity"
    if is_rectifier and sigma_b == 0:
        return 1.0
    q = float(MeanField(phi, sigma_w, sigma_b).q_star)
    if not math.isfinite(q):
        raise ValueError(
            f"sigma_w must let the variance of the pre-activations settle, got {sigma_w:g} with "
            f"sigma_b {sigma_b:g}, at which that of {phi.name!r} does not from 1"
        )
    return q


def _edge(
    phi: _activations.Activation, q: float, n_layers: int, sigma_w: float, orthogonal: bool
) -> float:
    squares, weights, top = _squared_slopes(phi, q)
    if not (0 < top < math.inf):
        return 0.0 if top == 0 else math.nan
    u = squares / top

    def log_x(logit: float) -> float:
        """ln of x(w) / (sigma_w^2 top)^L at w = v / top, v = 1 / (1 + exp(-logit))."""
        v, rest = 1 / (1 + math.exp(-logit)), 1 / (1 + math.exp(logit))
        # 1 - v u = rest + v (1 - u), without cancellation
        psi = float(weights @ (v * u / (rest + v * (1 - u))))
        log_psi, log_above = math.log(psi), math.log1p(psi)
        base = log_psi - math.log(v) - (log_above if orthogonal else 0.0)
        return log_above - log_psi + n_layers * base

    grid = np.linspace(-30.0, 30.0, 241)
    values = [log_x(logit) for logit in grid]
    best = int(np.argmin(values))
    inside = optimize.minimize_scalar(
        log_x, bounds=(grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]),
        method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    least = min(float(inside.fun), values[best])
    with np.errstate(over="ignore", divide="ignore"):
        return float(np.exp(least + n_layers * (2 * np.log(sigma_w) + math.log(top))))


def _squared_slopes(phi: _activations.Activation, q: float) -> tuple[np.ndarray, np.ndarray, float]:
    """phi'^2 at the nodes of a rule for the Gaussian of variance q, the weights, the supremum.

    Panels shrink towards the steepest places, where ``1 / (1 - w phi'^2)`` is sharp, and the kinks.
    """
    root = math.sqrt(q)
    coarse = np.linspace(-_REACH, _REACH, 4001)
    steep = np.abs(phi.slope(coarse * root))
    peak = int(np.argmax(steep))
    found = optimize.minimize_scalar(
        lambda z: -abs(float(phi.slope(z * root))),
        bounds=(coarse[max(peak - 1, 0)], coarse[min(peak + 1, len(coarse) - 1)]),
        method="bounded",
        options={"xatol": 1e-12},
    )
    places = [float(found.x), -float(found.x), 0.0]
    places += [kink / root for kink in phi.kinks if abs(kink) < _REACH * root]
    halvings = _REACH * 2.0 ** -np.arange(_N_HALVINGS)
    ends = [np.linspace(-_REACH, _REACH, _N_PANELS + 1), np.array(places)]
    ends += [place + side * halvings for place in places for side in (-1, 1)]
    edges: np.ndarray = np.unique(np.concatenate(ends))
    edges = edges[np.abs(edges) <= _REACH]
    x, gauss = np.polynomial.legendre.leggauss(_N_NODES)
    half = np.diff(edges)[:, None] / 2
    z = (edges[:-1, None] + half * (1 + x)).ravel()
    weights = (half * gauss).ravel() * np.exp(-z * z / 2)
    squares = phi.slope(z * root) ** 2
    top = max(float(squares.max()), float(found.fun) ** 2)
    return squares, weights / weights.sum(), top
