"""Figures of ensembles of random networks, drawn with matplotlib (the ``plot`` extra)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._validate import choice
from ._style import Palette, decades, finish_layers, prepared

if TYPE_CHECKING:
    from ..meanfield import Prediction, Simulation

__all__ = ["ensemble_trajectory"]


def ensemble_trajectory(
    simulation: Simulation,
    prediction: Prediction | None = None,
    *,
    quantity: str = "forward",
    ax: Any = None,
    palette: Palette | None = None,
) -> Any:
    """The signal or the gradient of an ensemble along its depth, beside mean-field theory.

    Parameters
    ----------
    simulation : Simulation
        What `jacometry.meanfield.simulate` found.
    prediction : Prediction, optional
        What `jacometry.meanfield.predict` expects of the same widths; drawn dashed.
    quantity : {"forward", "gradient"}, optional
        The root mean square entry of ``z_l``, or the norm of the gradient, output = 1.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a figure.
    palette : Palette, optional
        Colours.

    Returns
    -------
    matplotlib.axes.Axes

    Notes
    -----
    Theory speaks of the mean over nets (solid line), which a few nets carry in deep and narrow
    ones; the median and the band with 90 % of the nets show what one net does.  The band ends where
    more than 5 % of the nets are dead.
    """
    choice("quantity", quantity, ("forward", "gradient"))
    n = len(simulation.widths)
    if prediction is not None and len(prediction.q) != n:
        raise ValueError(
            f"prediction must be for the {n} interfaces of the simulation, got {len(prediction.q)}"
        )
    ax, palette = prepared(ax, palette)
    is_forward = quantity == "forward"
    found = simulation.forward if is_forward else simulation.gradient
    per_entry = 0.5 * np.log(simulation.widths) if is_forward else 0.0
    numbers, colour = np.arange(n), palette.series[0 if is_forward else 1]
    low, median, high = decades(found.quantile((0.05, 0.5, 0.95)) - per_entry)
    ax.fill_between(numbers, low, high, color=colour, alpha=0.18, lw=0, label="90 % of the nets")
    ax.plot(numbers, median, ":", color=colour, lw=1.6, label="median net")
    ax.plot(
        numbers, decades(found.log_mean_square / 2 - per_entry), color=colour, lw=2,
        label="root mean square over nets",
    )  # fmt: skip
    if prediction is not None:
        with np.errstate(divide="ignore"):
            theory = 0.5 * np.log(prediction.q) if is_forward else prediction.log_gradient
        ax.plot(
            numbers, decades(theory), "--", color=palette.theory, lw=1.6, label="mean-field theory"
        )
    ax.set_ylabel(
        "pre-activations (root mean square)" if is_forward else "gradient norm, output = 1",
        color=palette.ink,
    )
    finish_layers(ax, palette, is_decades=True)
    return ax
