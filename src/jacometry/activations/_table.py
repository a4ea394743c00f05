"""The summary table of activations, computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ._activation import Activation
from ._registry import get, names

__all__ = ["activation_table"]

_FIELDS = (
    "slope_min", "slope_max", "lipschitz", "mean", "mean_square", "kappa", "gain", "forward_gain",
)  # fmt: skip


def activation_table(
    activations: Sequence[str | Activation | Callable[..., Any]] | None = None, *, q: float = 1.0
) -> np.ndarray:
    """What each activation does to a signal of variance q and to its gradient.

    Parameters
    ----------
    activations : sequence of what `get` takes, optional
        None: every built-in one, with its default parameters.
    q : float, optional
        Variance of the pre-activations ``z ~ N(0, q)``, > 0.

    Returns
    -------
    structured ndarray
        One row per activation (``pandas.DataFrame(table)`` shows it):

        - ``name``;
        - ``slope_min``, ``slope_max``, ``lipschitz``: infimum, supremum and largest size of phi';
        - ``mean``, ``mean_square``: ``E phi(z)`` and ``E phi(z)**2``;
        - ``kappa``: ``E phi'(z)**2``;
        - ``gain``: ``1 / sqrt(kappa)``, the ``sigma_w`` that preserves the gradient's mean square
          where the signal has variance q;
        - ``forward_gain``: ``sqrt(q / mean_square)``, the one that preserves the signal's, without
          biases;
        - ``levels_off``: whether phi' vanishes at both ends, so that units saturate;
        - ``kinked``: whether phi' jumps.

    Raises
    ------
    ValueError, TypeError
        As `get` and `jacometry.ops.moments.gaussian_moments`; if q is not finite and > 0.

    Notes
    -----
    Moments come from `jacometry.ops.moments.gaussian_moments`, with the errors stated there; a few
    milliseconds, once, for an activation without a closed form.

    Examples
    --------
    >>> table = activation_table(["relu", "tanh"])
    >>> table["kappa"].round(5).tolist()
    [0.5, 0.4644]
    >>> table["gain"].round(5).tolist()
    [1.41421, 1.46741]
    """
    from ..ops.moments import gaussian_moments

    if not 0 < float(q) < np.inf:
        raise ValueError(f"q must be finite and > 0, got {q!r}")
    if activations is None:
        rows = list(dict.fromkeys(get(name) for name in names()))
    elif isinstance(activations, str) or not isinstance(activations, Sequence):
        raise TypeError(f"activations must be a sequence of activations, got {activations!r}")
    else:
        rows = [get(activation) for activation in activations]
    columns = [("name", "U32"), *((field, np.float64) for field in _FIELDS)]
    table = np.empty(len(rows), np.dtype([*columns, ("levels_off", bool), ("kinked", bool)]))
    for row, activation in zip(table, rows, strict=True):
        moments = gaussian_moments(activation, float(q))
        row["name"] = activation.name
        row["slope_min"], row["slope_max"] = activation.slope_range
        row["lipschitz"] = activation.lipschitz
        row["mean"], row["mean_square"] = moments.phi, moments.phi2
        row["kappa"] = moments.dphi2
        with np.errstate(divide="ignore"):
            row["gain"] = 1 / np.sqrt(moments.dphi2)
            row["forward_gain"] = np.sqrt(q / moments.phi2)
        far = np.abs(activation.slope(np.array([-1e6, 1e6])))
        row["levels_off"] = (far < 1e-6 * min(activation.lipschitz, 1e6)).all()
        row["kinked"] = bool(activation.jumps)
    return table
