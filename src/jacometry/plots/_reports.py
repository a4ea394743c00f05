"""Figures of gradient-flow reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._style import Palette, decades, finish_layers, prepared

if TYPE_CHECKING:
    from ..diagnostics import GradientFlowReport

__all__ = ["gradient_profile", "layer_norms", "signal_profile", "unit_shares"]

_MARKED = 60  # more layers than this are drawn as plain lines


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
    ax, palette = prepared(ax, palette)
    alone = len(reports) == 1
    for k, report in enumerate(reports):
        colour = palette.series[k % len(palette.series)]
        measured = decades(report.layers["gradient_log_norm"])
        theory = decades(report.layers["theory_log_gradient"])
        origin = 0.0 if alone else measured[-1]
        numbers = np.arange(1, len(measured) + 1)
        theory_colour = palette.theory if alone else colour
        if alone:
            sd = report.layers["theory_sd"] / math.log(10.0)
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
    finish_layers(ax, palette, is_decades=True, least=4.0)
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
    ax, palette = prepared(ax, palette)
    numbers = np.arange(1, len(report.layers) + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = decades(0.5 * np.log(report.layers["forward_variance"]))
        spread = decades(np.log(report.layers["spread"]))
    ax.plot(
        numbers, size, color=palette.series[0], lw=2, marker=_marker(numbers), ms=5,
        label="size of the signal (root mean square)",
    )  # fmt: skip
    ax.plot(
        numbers, spread, color=palette.series[2], lw=2, marker=_marker(numbers, "s"), ms=5,
        label="part that depends on the input",
    )  # fmt: skip
    ax.set_ylabel("pre-activations", color=palette.ink)
    finish_layers(ax, palette, is_decades=True)
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
    ax, palette = prepared(ax, palette)
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
    finish_layers(ax, palette, is_decades=False)
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
    ax, palette = prepared(ax, palette)
    numbers = np.arange(1, len(report.layers) + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        single = np.log(report.layers["norm_upper"])
    last = report.layers["cumulative_log_norm"][-1]
    bound = np.append(np.cumsum(single[:0:-1])[::-1], 0.0) + last
    ax.plot(
        numbers, decades(bound), ":", color=palette.theory, lw=2,
        label="product of the single layers' norms (upper bound)",
    )  # fmt: skip
    ax.plot(
        numbers, decades(report.layers["cumulative_log_norm"]), color=palette.series[0], lw=2,
        marker=_marker(numbers), ms=5, label="norm of the product, layer to output",
    )  # fmt: skip
    ax.plot(
        numbers, decades(single), color=palette.series[3 % len(palette.series)], lw=1.6,
        marker=_marker(numbers, "^"), ms=4, label="single layer",
    )  # fmt: skip
    ax.set_ylabel("spectral norm", color=palette.ink)
    finish_layers(ax, palette, is_decades=True)
    return ax


def _marker(numbers: np.ndarray, shape: str = "o") -> str:
    return shape if len(numbers) <= _MARKED else ""
