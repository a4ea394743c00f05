"""How fast gradients grow in a batch-normalised network."""

from __future__ import annotations

import math

import numpy as np

from .. import activations as _activations
from .._validate import count
from ..ops.moments import gaussian_moments
from ._layers import ActivationLike

# Gauss-Legendre panels: of the radial variable y, whose density is exp(-y), and of the angle.
_RADIAL = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 45.0)
_N_ANGLES = 12
_N_NODES = 16


def batchnorm_gradient_rate(activation: ActivationLike, batch_size: int | None = None) -> float:
    """Factor on the gradient's mean square, per layer towards the input, of a wide batch-norm net.

    The layers are ``x -> W phi(BN(x))``, BN with gain 1 and no epsilon; sigma_w and biases do not
    matter.

    Parameters
    ----------
    activation : str, Activation or callable
        What `jacometry.activations.get` takes.
    batch_size : int, optional
        At least 4.  None: a large batch.

    Returns
    -------
    float
        Above 1 but for degenerate activations: without shortcuts gradients explode.

    Raises
    ------
    ValueError
        If `batch_size` is below 4: the mean does not exist.
    TypeError
        If an argument has the wrong type.

    Notes
    -----
    A large batch: ``E[phi'(z)**2] / Var phi(z)``, which is pi / (pi - 1) for ReLU.

    A batch of B, in the limit of infinite width and where the B inputs are treated alike (the fixed
    point at which all their correlations are equal, ``BSB1`` in the paper below): a normalised unit
    is ``sqrt(B)`` times a uniform direction among those orthogonal to 1, independent of its
    standard deviation s, and ``E 1/s**2 = B / ((B - 3) sigma_w**2 (p - r))``, ``p - r = E (phi(x_1)
    - phi(x_2))**2 / 2``.  Gradients that have come through one BN have a covariance proportional to
    ``P = I - 11^T/B``, so the rate is ``B E tr(Q D P D) / ((B - 1) (B - 3) (p - r))`` with ``D =
    diag(phi'(x))`` and ``Q = P - x x^T / B``.  Identity: ``(B - 2) / (B - 3)``.  The means over one
    and two entries of x are integrals over a disc, to 1e-9 for activations that are smooth away
    from 0, to about 1e-4 for others.

    References
    ----------
    Yang, Pennington, Rao, Sohl-Dickstein and Schoenholz, A mean field theory of batch
    normalization, 2019.

    Examples
    --------
    >>> round(batchnorm_gradient_rate("relu"), 12)
    1.466942206924
    >>> round(batchnorm_gradient_rate("identity", 8), 12)
    1.2
    """
    phi = _activations.get(activation)
    if batch_size is None:
        moments = gaussian_moments(phi, 1.0)
        return float(moments.dphi2 / (moments.phi2 - moments.phi**2))
    n = count("batch_size", batch_size, low=4)

    x, y, weights = _pairs(n)
    value, slope, other_value, other_slope = phi.value(x), phi.slope(x), phi.value(y), phi.slope(y)
    spread = weights @ (value - other_value) ** 2 / 2
    energy = weights @ slope**2
    along_ones = energy - weights @ (slope * other_slope)
    along_x = weights @ ((x * slope) ** 2 - x * slope * y * other_slope)
    trace = (n - 1) * energy - (1 - 1 / n) * (along_ones + along_x)
    return float(n * trace / ((n - 1) * (n - 3) * spread))


def _pairs(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes and weights for two entries of a normalised batch of n.

    They are projections of a uniform direction in n - 1 dimensions on a plane, where the squared
    radius is Beta(1, (n - 3) / 2), one minus an exponential variable's ``exp(-2 y / (n - 3))``.
    """
    y, y_weights = _panels(np.array(_RADIAL))
    radius = np.sqrt((n - 1) * -np.expm1(-2 * y / (n - 3)))
    between = math.acos(-1 / (n - 1))
    # Panels end where either entry changes sign.
    ends = np.concatenate(
        [
            np.arange(_N_ANGLES + 1) * (2 * math.pi / _N_ANGLES),
            np.mod([math.pi / 2 + between, between - math.pi / 2], 2 * math.pi),
        ]
    )
    angle, angle_weights = _panels(np.unique(ends))
    weights = np.outer(y_weights * np.exp(-y), angle_weights / (2 * math.pi))
    first, second = np.cos(angle), np.cos(angle - between)
    return (
        np.outer(radius, first).ravel(),
        np.outer(radius, second).ravel(),
        weights.ravel() / weights.sum(),
    )


def _panels(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    z, w = np.polynomial.legendre.leggauss(_N_NODES)
    half = np.diff(ends)[:, None] / 2
    return (ends[:-1, None] + half * (1 + z)).ravel(), (half * w).ravel()
