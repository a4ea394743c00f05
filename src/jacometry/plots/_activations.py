"""Figures of activations, drawn with matplotlib (the ``plot`` extra)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import activations as _activations
from ._style import Palette, prepared, tidy

__all__ = ["activation_curves"]

_N_POINTS = 801
_LABELS = ("value", "slope", "curvature")


def activation_curves(
    activations: Sequence[str | _activations.Activation | Callable[..., Any]],
    *,
    derivative: int = 0,
    x_range: tuple[float, float] = (-4.0, 4.0),
    ax: Any = None,
    palette: Palette | None = None,
) -> Any:
    """Activations, or their slopes or curvatures, over one interval.

    Parameters
    ----------
    activations : sequence of what `jacometry.activations.get` takes
        One curve each.
    derivative : {0, 1, 2}, optional
        0 draws phi, 1 its slope, 2 its curvature.
    x_range : tuple of float, optional
        Ends of the interval.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a figure.
    palette : Palette, optional
        Colours.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError, TypeError
        For an unknown activation, another derivative, or an interval that is not one.

    Notes
    -----
    A curve is interrupted where it jumps.

    Examples
    --------
    Activations beside their slopes::

        figure, (left, right) = pyplot.subplots(1, 2)
        activation_curves(["relu", "tanh", "gelu"], ax=left)
        activation_curves(["relu", "tanh", "gelu"], derivative=1, ax=right)
    """
    if derivative not in (0, 1, 2):
        raise ValueError(f"derivative must be 0, 1 or 2, got {derivative!r}")
    low, high = map(float, x_range)
    if not -np.inf < low < high < np.inf:
        raise ValueError(f"x_range must be two finite numbers, ascending, got {x_range!r}")
    if isinstance(activations, str) or not isinstance(activations, Sequence):
        raise TypeError(f"activations must be a sequence of activations, got {activations!r}")
    phis = [_activations.get(activation) for activation in activations]
    ax, palette = prepared(ax, palette)
    for k, phi in enumerate(phis):
        # Either side of a kink, and NaN between them where the curve jumps.
        kinks = [kink for kink in phi.kinks if low < kink < high] if derivative else []
        beside = [np.nextafter(kink, side) for kink in kinks for side in (low, high)]
        x = np.unique(np.concatenate([np.linspace(low, high, _N_POINTS), beside]))
        x = x[~np.isin(x, kinks)]
        y = (phi.value, phi.slope, phi.curvature)[derivative](x)
        places = np.searchsorted(x, kinks)
        ax.plot(
            np.insert(x, places, kinks),
            np.insert(y, places, np.nan),
            color=palette.series[k % len(palette.series)],
            ls=("-", "--", ":", "-.")[k // len(palette.series) % 4],
            lw=2,
            label=phi.name,
        )
    ax.set_xlim(low, high)
    ax.set_xlabel("pre-activation z", color=palette.ink)
    ax.set_ylabel(_LABELS[derivative], color=palette.ink)
    tidy(ax, palette)
    return ax
