"""The arguments that describe a fully connected network layer by layer, checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import activations as _activations

ActivationLike = str | _activations.Activation | Callable[..., Any]


def sizes_of(widths: Sequence[int]) -> np.ndarray:
    """`widths` as an array of n_0 to n_L, or raise."""
    sizes = np.asarray(widths)
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or len(sizes) < 2 or sizes.min() < 1:
        raise ValueError(
            f"widths must be at least two integers of at least 1, n_0 to n_L, got {widths!r}"
        )
    return sizes.astype(np.int64)


def per_layer(
    value: npt.ArrayLike, argument: str, n_layers: int, *, least: float = 0.0
) -> np.ndarray:
    """A number or one per layer as (L,) float64, finite and at least `least`, or raise."""
    values = np.asarray(value)
    if values.dtype.kind not in "biuf":
        raise TypeError(f"{argument} must hold real numbers, got dtype {values.dtype}")
    if values.shape not in ((), (n_layers,)):
        raise ValueError(
            f"{argument} must be a number or one per layer, ({n_layers},), got shape {values.shape}"
        )
    if not (np.isfinite(values).all() and (values >= least).all()):
        bound = "" if least == -np.inf else f" and at least {least:g}"
        raise ValueError(f"{argument} must be finite{bound}, got {value!r}")
    return np.broadcast_to(values.astype(np.float64), (n_layers,))


def hidden_activations(
    activation: ActivationLike | Sequence[ActivationLike], n_layers: int
) -> list[_activations.Activation]:
    """The activations of the L - 1 hidden layers."""
    if isinstance(activation, str) or not isinstance(activation, Sequence):
        return [_activations.get(activation)] * (n_layers - 1)
    if len(activation) != n_layers - 1:
        raise ValueError(
            f"activation must be one, or one for each of the {n_layers - 1} hidden layers, "
            f"got {len(activation)}"
        )
    return [_activations.get(phi) for phi in activation]


def residual_shortcut(shortcut: npt.ArrayLike, sizes: np.ndarray) -> np.ndarray:
    """`shortcut` as (L,) float64, zero wherever a layer is not square, or raise."""
    values = per_layer(shortcut, "shortcut", len(sizes) - 1, least=-np.inf)
    bad = np.flatnonzero((values != 0) & (sizes[1:] != sizes[:-1]))
    if bad.size:
        k = int(bad[0])
        raise ValueError(
            f"shortcut must be 0 where a layer is not square, got {values[k]:g} for layer {k} of "
            f"shape ({sizes[k + 1]}, {sizes[k]}); give one number per layer"
        )
    return values
