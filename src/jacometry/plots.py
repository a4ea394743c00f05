"""Figures of gradient-flow reports and ensembles, drawn with matplotlib (the ``plot`` extra)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._validate import choice

if TYPE_CHECKING:
    from .diagnostics import GradientFlowReport
    from .meanfield import Prediction, Simulation

__all__ = [
    "Palette",
    "ensemble_trajectory",
    "gradient_profile",
    "layer_norms",
    "new_axes",
    "signal_profile",
    "unit_shares",
]

_LN_10 = math.log(10.0)
_MARKED = 60  # more layers than this are drawn as plain lines
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Palette:
    """Colours by role.

    Parameters
    ----------
    series : sequence of str, optional
        Colours of measured curves, used in turn.
    theory : str, optional
        Colour of predictions.
    ink : str, optional
        Text and axes.
    grid : str, optional
        Grid lines.
    """

    def __init__(
        self,
        series: Sequence[str] = ("#2563eb", "#dc2626", "#059669", "#9333ea", "#b45309"),
        theory: str = "#d97706",
        ink: str = "#333333",
        grid: str = "#d4d4d8",
    ) -> None:
        self.series = tuple(series)
        self.theory = theory
        self.ink = ink
        self.grid = grid


def new_axes(width: float = 7.0, height: float = 3.6) -> Any:
    """Axes in a new pyplot figure.

    Parameters
    ----------
    width, height : float, optional
        Inches.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ImportError
        Without the ``plot`` extra, naming it.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "matplotlib is needed to draw figures: pip install 'jacometry[plot]'"
        ) from error
    return pyplot.subplots(figsize=(width, height), layout="constrained")[1]


def gradient_profile(
    reports: Sequence[GradientFlowReport], *, ax: Any = None, palette: Palette | None = None
) -> Any:
    """Norm of the gradient at each layer, measured, with mean-field theory beside it.

    Parameters
    ----------
    reports : sequence of GradientFlowReport
        One is drawn at its own scale, with the band of two standard deviations; several are drawn
        relative to their last layers.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a figure.
    palette : Palette, optional
        Colours.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax, palette = _prepared(ax, palette)
    alone = len(reports) == 1
    for k, report in enumerate(reports):
        colour = palette.series[k % len(palette.series)]
        measured = _decades(report.layers["gradient_log_norm"])
        theory = _decades(report.layers["theory_log_gradient"])
        origin = 0.0 if alone else measured[-1]
        numbers = np.arange(1, len(measured) + 1)
        theory_colour = palette.theory if alone else colour
        if alone:
            sd = report.layers["theory_sd"] / _LN_10
            centre = measured - np.nan_to_num(report.layers["z"]) * sd
            ax.fill_between(
                numbers, centre - 2 * sd, centre + 2 * sd, color=theory_colour, alpha=0.18, lw=0,
                label="95 % of random networks of these widths",
            )  # fmt: skip
        ax.plot(
            numbers, theory - origin, "--", color=theory_colour, lw=1.6,
            label="mean-field theory" if alone else None,
        )  # fmt: skip
        ax.plot(
            numbers, measured - origin, color=colour, lw=2, marker=_marker(numbers, "os^Dv"[k % 5]),
            ms=5, label="measured" if alone else report.title,
        )  # fmt: skip
    if not alone:
        ax.plot([], [], "--", color=palette.ink, lw=1.6, label="mean-field theory of each")
    ax.set_ylabel("gradient norm" if alone else "gradient norm, last layer = 1", color=palette.ink)
    _finish(ax, palette, decades=True, least=4.0)
    return ax


def signal_profile(
    report: GradientFlowReport, *, ax: Any = None, palette: Palette | None = None
) -> Any:
    """Size of the signal at each layer, and how much of it still depends on the input.

    Parameters
    ----------
    report : GradientFlowReport
        What to draw.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a figure.
    palette : Palette, optional
        Colours.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax, palette = _prepared(ax, palette)
    numbers = np.arange(1, len(report.layers) + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = _decades(0.5 * np.log(report.layers["forward_variance"]))
        spread = _decades(np.log(report.layers["spread"]))
    ax.plot(
        numbers, size, color=palette.series[0], lw=2, marker=_marker(numbers), ms=5,
        label="size of the signal (root mean square)",
    )  # fmt: skip
    ax.plot(
        numbers, spread, color=palette.series[2], lw=2, marker=_marker(numbers, "s"), ms=5,
        label="part that depends on the input",
    )  # fmt: skip
    ax.set_ylabel("pre-activations", color=palette.ink)
    _finish(ax, palette, decades=True)
    return ax


def unit_shares(
    report: GradientFlowReport, *, ax: Any = None, palette: Palette | None = None
) -> Any:
    """Part of each layer's units that is saturated, and that is dead.

    Parameters
    ----------
    report : GradientFlowReport
        What to draw.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a figure.
    palette : Palette, optional
        Colours.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax, palette = _prepared(ax, palette)
    numbers = np.arange(1, len(report.layers) + 1)
    for name, label, colour, shift in (
        ("saturation", "saturated", palette.series[4 % len(palette.series)], -0.2),
        ("dead", "dead", palette.series[1 % len(palette.series)], 0.2),
    ):
        percent = 100 * np.nan_to_num(report.layers[name])
        if len(numbers) <= _MARKED:
            ax.bar(numbers + shift, percent, 0.4, color=colour, label=label)
        else:
            ax.plot(numbers, percent, color=colour, lw=1.2, label=label)
    ax.set_ylim(0, 100)
    ax.set_ylabel("% of units", color=palette.ink)
    _finish(ax, palette, decades=False)
    return ax


def layer_norms(
    report: GradientFlowReport, *, ax: Any = None, palette: Palette | None = None
) -> Any:
    """The norm of the layers from each one to the output, beside the product of their single norms.

    Parameters
    ----------
    report : GradientFlowReport
        What to draw.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a figure.
    palette : Palette, optional
        Colours.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax, palette = _prepared(ax, palette)
    numbers = np.arange(1, len(report.layers) + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        single = np.log(report.layers["norm_upper"])
    last = report.layers["cumulative_log_norm"][-1]
    bound = np.append(np.cumsum(single[:0:-1])[::-1], 0.0) + last
    ax.plot(
        numbers, _decades(bound), ":", color=palette.theory, lw=2,
        label="product of the single layers' norms (upper bound)",
    )  # fmt: skip
    ax.plot(
        numbers, _decades(report.layers["cumulative_log_norm"]), color=palette.series[0], lw=2,
        marker=_marker(numbers), ms=5, label="norm of the product, layer to output",
    )  # fmt: skip
    ax.plot(
        numbers, _decades(single), color=palette.series[3 % len(palette.series)], lw=1.6,
        marker=_marker(numbers, "^"), ms=4, label="single layer",
    )  # fmt: skip
    ax.set_ylabel("spectral norm", color=palette.ink)
    _finish(ax, palette, decades=True)
    return ax


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
    ax, palette = _prepared(ax, palette)
    is_forward = quantity == "forward"
    found = simulation.forward if is_forward else simulation.gradient
    per_entry = 0.5 * np.log(simulation.widths) if is_forward else 0.0
    numbers, colour = np.arange(n), palette.series[0 if is_forward else 1]
    low, median, high = _decades(found.quantile((0.05, 0.5, 0.95)) - per_entry)
    ax.fill_between(numbers, low, high, color=colour, alpha=0.18, lw=0, label="90 % of the nets")
    ax.plot(numbers, median, ":", color=colour, lw=1.6, label="median net")
    ax.plot(
        numbers, _decades(found.log_mean_square / 2 - per_entry), color=colour, lw=2,
        label="root mean square over nets",
    )  # fmt: skip
    if prediction is not None:
        with np.errstate(divide="ignore"):
            theory = 0.5 * np.log(prediction.q) if is_forward else prediction.log_gradient
        ax.plot(
            numbers, _decades(theory), "--", color=palette.theory, lw=1.6, label="mean-field theory"
        )
    ax.set_ylabel(
        "pre-activations (root mean square)" if is_forward else "gradient norm, output = 1",
        color=palette.ink,
    )
    _finish(ax, palette, decades=True)
    return ax


def _prepared(ax: Any, palette: Palette | None) -> tuple[Any, Palette]:
    return new_axes() if ax is None else ax, palette or Palette()


def _decades(logs: np.ndarray) -> np.ndarray:
    """Powers of ten, with gaps where there is no number to draw."""
    values = np.asarray(logs, dtype=float) / _LN_10
    return np.where(np.isfinite(values), values, np.nan)


def _marker(numbers: np.ndarray, shape: str = "o") -> str:
    return shape if len(numbers) <= _MARKED else ""


def _finish(ax: Any, palette: Palette, *, decades: bool, least: float = 2.0) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.set_xlabel("layer  (input on the left, output on the right)", color=palette.ink)
    ax.xaxis.set_major_locator(
        MaxNLocator(nbins=14, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    )
    if decades:
        low, high = ax.get_ylim()
        if high - low < least:  # a level curve is to look level
            middle = (low + high) / 2
            ax.set_ylim(middle - least / 2, middle + least / 2)
        ax.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10], integer=True))
        ax.yaxis.set_major_formatter(FuncFormatter(_power_of_ten))
    ax.grid(True, color=palette.grid, lw=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(colors=palette.ink, length=0)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(palette.grid)
    ax.legend(frameon=False, labelcolor=palette.ink, fontsize="small", loc="best")


def _power_of_ten(value: float, _position: int | None = None) -> str:
    if abs(value - round(value)) > 1e-9:
        return ""
    return "1" if round(value) == 0 else "10" + str(round(value)).translate(_SUPERSCRIPTS)
