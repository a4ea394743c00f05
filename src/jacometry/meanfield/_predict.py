"""Mean squares of signal and gradient, interface by interface."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._validate import choice
from ..ops import moments as _moments
from ._layers import ActivationLike, hidden_activations, per_layer, residual_shortcut, sizes_of

# Where a diverging q leaves the range of float64 it stays at this, far in the tails of every
# activation.
_LARGEST_Q = 1e300


@dataclass(frozen=True, eq=False)
class Prediction:
    """What mean-field theory expects of one fully connected network, interface by interface.

    Attributes
    ----------
    q : ndarray, (L + 1,)
        Forward mean square per entry: ``q[0]`` of the input, ``q[l]`` of the pre-activations
        ``z_l``.
    chi : ndarray, (L,)
        Factor on the mean square of the gradient's norm from interface ``l + 1`` to ``l``; in a
        plain network ``chi[0] = sigma_w[0]**2``, then ``chi[l] = sigma_w[l]**2 E[phi'(sqrt(q[l])
        g)**2]``.
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
    activation: ActivationLike | Sequence[ActivationLike],
    *,
    sigma_w: npt.ArrayLike,
    sigma_b: npt.ArrayLike = 0.0,
    q0: float = 1.0,
    shortcut: npt.ArrayLike = 0.0,
    branch_scale: npt.ArrayLike = 1.0,
    normalization: str | None = None,
) -> Prediction:
    """Mean square of signal and log-norm of gradient at each interface of a random network.

    The layers are ``z_{l+1} = shortcut_l z_l + branch_scale_l (W_l h_l + b_l)`` for l = 0..L-1,
    with ``h_0 = z_0`` the input and ``h_l = phi(N(z_l))``, N the normalisation, if any.

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
        Mean square of the input's entries; with batch normalisation, their variance over the batch.
    shortcut, branch_scale : float or array_like (L,), optional
        One number or one per layer, the input's first; a nonzero shortcut needs a square layer.
    normalization : {None, "batch", "layer"}, optional
        What is done to ``z_l`` before `phi`, in every layer but the first.

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
    With ``u_l`` the variance that enters `phi`, which is ``q[l]``, or 1 after a normalisation::

        q[l+1] = shortcut**2 q[l] + branch_scale**2 (sigma_w**2 E[phi(sqrt(u_l) g)**2] + sigma_b**2)
        chi[l] = shortcut**2 + branch_scale**2 sigma_w**2 E[phi'(sqrt(u_l) g)**2] u_l / s_l

    and the same with ``phi(x) = x`` for the input.  ``s_l`` is what the normalisation divides by:
    ``q[l]``, or with batch normalisation the variance over a large batch of independent inputs,
    ``s[l+1] = shortcut**2 s[l] + branch_scale**2 sigma_w**2 Var phi(g)``; so a batch-normalised net
    without shortcut has ``chi = E[phi'**2] / Var phi`` whatever sigma_w.  ``E||g_l||**2 = chi[l]
    E||g_{l+1}||**2`` (norms scale with fan_in; entries with fan_out: ``Var(g_l) = fan_out Var(W)
    E[phi'**2] Var(g_{l+1})``, which is ``log_gradient_entry``).  A convolution obeys the same
    equations with its fan_in (exactly so, orthogonal kernels aside, only with circular padding);
    so does a recurrent net at each step of time, as shared weights change nothing in the limit of
    infinite width (of one state; states at two times are correlated).

    Cost: two quadratures per layer.

    References
    ----------
    Poole et al. 2016, eq. 3; Schoenholz et al. 2017, eqs. 14 and 15; Yang and Schoenholz, Mean
    field residual networks: on the edge of chaos, 2017; Yang et al., A mean field theory of batch
    normalization, 2019; Xiao et al., Dynamical isometry and a mean field theory of CNNs, 2018.

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
    sizes = sizes_of(widths)
    n_layers = len(sizes) - 1
    w = per_layer(sigma_w, "sigma_w", n_layers)
    b = per_layer(sigma_b, "sigma_b", n_layers)
    carried = residual_shortcut(shortcut, sizes) ** 2
    scale = per_layer(branch_scale, "branch_scale", n_layers, least=-math.inf) ** 2
    phis = hidden_activations(activation, n_layers)
    q0 = float(q0)
    if not (math.isfinite(q0) and q0 >= 0):
        raise ValueError(f"q0 must be finite and at least 0, got {q0!r}")
    if normalization is not None:
        choice("normalization", normalization, ("batch", "layer"))

    q = np.empty(n_layers + 1)
    chi = np.empty(n_layers)
    weight = scale * w**2
    q[0], q[1] = q0, carried[0] * q0 + scale[0] * (w[0] ** 2 * q0 + b[0] ** 2)
    chi[0] = carried[0] + weight[0]
    spread = chi[0] * q0  # the variance over a batch
    for layer in range(1, n_layers):
        q[layer], spread = min(q[layer], _LARGEST_Q), min(spread, _LARGEST_Q)
        entering = q[layer] if normalization is None else 1.0
        moments = _moments.gaussian_moments(phis[layer - 1], entering)
        divisor = {None: 1.0, "layer": q[layer], "batch": spread}[normalization]
        with np.errstate(divide="ignore", over="ignore"):
            q[layer + 1] = carried[layer] * q[layer] + weight[layer] * moments.phi2
            q[layer + 1] += scale[layer] * b[layer] ** 2
            chi[layer] = carried[layer] + weight[layer] * moments.dphi2 / np.float64(divisor)
            spread = carried[layer] * spread + weight[layer] * (moments.phi2 - moments.phi**2)

    with np.errstate(divide="ignore"):
        log_gradient = np.append(np.cumsum(0.5 * np.log(chi[::-1]))[::-1], 0.0)
    entry = log_gradient - 0.5 * np.log(sizes / sizes[-1])
    return Prediction(q=q, chi=chi, log_gradient=log_gradient, log_gradient_entry=entry)
