"""Mean-field theory of wide random networks: what the signal and the gradient do on average.

Weights have ``Var(W_ij) = sigma_w**2 / fan_in``, biases ``Var(b) = sigma_b**2``, and widths are
taken to infinity (Poole et al., Exponential expressivity in deep neural networks through transient
chaos, 2016; Schoenholz et al., Deep information propagation, 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import activations as _activations
from .ops import moments as _moments

__all__ = ["Prediction", "predict"]

# Where a diverging q leaves the range of float64 it stays at this, far in the tails of every
# activation.
_LARGEST_Q = 1e300

_ActivationLike = str | _activations.Activation | Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What mean-field theory expects of one fully connected network, interface by interface.

    Attributes
    ----------
    q : ndarray, (L + 1,)
        Forward mean square per entry: ``q[0]`` of the input, ``q[l]`` of the pre-activations
        ``z_l``.
    chi : ndarray, (L,)
        Factor on the mean square of the gradient's norm from interface ``l + 1`` to ``l``:
        ``chi[0] = sigma_w[0]**2``, then ``chi[l] = sigma_w[l]**2 E[phi'(sqrt(q[l]) g)**2]``.
    log_gradient : ndarray, (L + 1,)
        ``ln sqrt(E||g_l||**2 / E||g_L||**2)`` of the gradient's 2-norm, relative to the output; the
        last entry is 0.
    log_gradient_entry : ndarray, (L + 1,)
        The same for the root mean square *entry* of the gradient: ``log_gradient - ln(n_l / n_L) /
        2``.
    """

    q: np.ndarray
    chi: np.ndarray
    log_gradient: np.ndarray
    log_gradient_entry: np.ndarray


def predict(
    widths: Sequence[int],
    activation: _ActivationLike | Sequence[_ActivationLike],
    *,
    sigma_w: npt.ArrayLike,
    sigma_b: npt.ArrayLike = 0.0,
    q0: float = 1.0,
) -> Prediction:
    """Mean square of signal and log-norm of gradient at each interface of a random network.

    The layers are ``z_l = W_l h_{l-1} + b_l``, ``h_l = phi(z_l)``, ``l = 1..L``, with ``h_0`` the
    input.

    Parameters
    ----------
    widths : sequence of int
        ``n_0, ..., n_L``: the sizes of the input and of each layer.
    activation : str, Activation, callable, or a sequence of L - 1 of them
        ``phi``; a sequence gives that of each hidden layer.  The output layer is linear.
    sigma_w : float or array_like (L,)
        ``Var(W_l) = sigma_w**2 / fan_in``; one number, or one per layer.
    sigma_b : float or array_like (L,), optional
        Standard deviation of the biases.
    q0 : float, optional
        Mean square of the input's entries.

    Returns
    -------
    Prediction
        ``.q``, ``.chi``, ``.log_gradient`` and ``.log_gradient_entry``.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it is and what was expected.

    Notes
    -----
    ``q[1] = sigma_w**2 q0 + sigma_b**2``; ``q[l+1] = sigma_w**2 E[phi(sqrt(q[l]) g)**2] +
    sigma_b**2``; ``E||g_l||**2 = sigma_w**2 E[phi'(sqrt(q[l]) g)**2] E||g_{l+1}||**2`` (norms scale
    with fan_in; entries with fan_out: ``Var(g_l) = fan_out Var(W) E[phi'**2] Var(g_{l+1})``, which
    is ``log_gradient_entry``).  Cost: two quadratures per layer.

    References
    ----------
    Poole et al. 2016, eq. 3; Schoenholz et al. 2017, eqs. 14 and 15.

    Examples
    --------
    He's initialisation keeps the gradient of a ReLU network, and a sigmoid loses it:

    >>> import numpy as np
    >>> relu = predict([50] * 11, "relu", sigma_w=np.sqrt(2))
    >>> float(np.abs(relu.log_gradient[1:]).max()) < 1e-12
    True
    >>> sigmoid = predict([50] * 31, "sigmoid", sigma_w=1.0)
    >>> round(float(sigmoid.chi[15]), 4)
    0.0557
    """
    sizes = _widths(widths)
    n_layers = len(sizes) - 1
    w = _per_layer(sigma_w, "sigma_w", n_layers)
    b = _per_layer(sigma_b, "sigma_b", n_layers)
    phis = _hidden_activations(activation, n_layers)
    q0 = float(q0)
    if not (math.isfinite(q0) and q0 >= 0):
        raise ValueError(f"q0 must be finite and at least 0, got {q0!r}")

    q = np.empty(n_layers + 1)
    chi = np.empty(n_layers)
    q[0], q[1], chi[0] = q0, w[0] ** 2 * q0 + b[0] ** 2, w[0] ** 2
    for layer in range(1, n_layers):
        phi = phis[layer - 1]
        variance = min(q[layer], _LARGEST_Q)
        moments = _moments.gaussian_moments(phi, variance)
        q[layer + 1] = _moments.variance_map(
            phi, variance, sigma_w=float(w[layer]), sigma_b=float(b[layer])
        )
        chi[layer] = w[layer] ** 2 * float(moments.dphi2)

    with np.errstate(divide="ignore"):
        log_gradient = np.append(np.cumsum(0.5 * np.log(chi[::-1]))[::-1], 0.0)
    entry = log_gradient - 0.5 * np.log(sizes / sizes[-1])
    return Prediction(q=q, chi=chi, log_gradient=log_gradient, log_gradient_entry=entry)


def _widths(widths: Sequence[int]) -> np.ndarray:
    sizes = np.asarray(widths)
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or len(sizes) < 2 or sizes.min() < 1:
        raise ValueError(
            f"widths must be at least two integers of at least 1, n_0 to n_L, got {widths!r}"
        )
    return sizes


def _per_layer(sigma: npt.ArrayLike, argument: str, n_layers: int) -> np.ndarray:
    values = np.asarray(sigma)
    if values.dtype.kind not in "biuf":
        raise TypeError(f"{argument} must hold real numbers, got dtype {values.dtype}")
    if values.shape not in ((), (n_layers,)):
        raise ValueError(
            f"{argument} must be a number or one per layer, ({n_layers},), got shape {values.shape}"
        )
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise ValueError(f"{argument} must be finite and at least 0, got {sigma!r}")
    return np.broadcast_to(values.astype(np.float64), (n_layers,))


def _hidden_activations(
    activation: _ActivationLike | Sequence[_ActivationLike], n_layers: int
) -> list[_activations.Activation]:
    if isinstance(activation, (list, tuple)):
        if len(activation) != n_layers - 1:
            raise ValueError(
                f"activation must be one, or one for each of the {n_layers - 1} hidden layers, "
                f"got {len(activation)}"
            )
        return [_activations.get(phi) for phi in activation]
    return [_activations.get(activation)] * (n_layers - 1)  # type: ignore[arg-type]
