"""Axes, colours and frames of the figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["Palette", "decades", "finish_layers", "new_axes", "prepared", "tidy"]

_LN_10 = math.log(10.0)
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


def prepared(ax: Any, palette: Palette | None) -> tuple[Any, Palette]:
    """The axes to draw on and the colours, new ones where None is given."""
    return new_axes() if ax is None else ax, palette or Palette()


def tidy(ax: Any, palette: Palette) -> None:
    """Grid, frame and legend as all figures have them."""
    ax.grid(True, color=palette.grid, lw=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(colors=palette.ink, length=0)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(palette.grid)
    ax.legend(frameon=False, labelcolor=palette.ink, fontsize="small", loc="best")


def decades(logs: np.ndarray) -> np.ndarray:
    """Powers of ten, with gaps where there is no number to draw."""
    values = np.asarray(logs, dtype=float) / _LN_10
    return np.where(np.isfinite(values), values, np.nan)


def finish_layers(ax: Any, palette: Palette, *, is_decades: bool, least: float = 2.0) -> None:
    """Axis of layers, and decades on the other one, at least so many high."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.set_xlabel("layer  (input on the left, output on the right)", color=palette.ink)
    ax.xaxis.set_major_locator(
        MaxNLocator(nbins=14, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    )
    if is_decades:
        low, high = ax.get_ylim()
        if high - low < least:  # a level curve is to look level
            middle = (low + high) / 2
            ax.set_ylim(middle - least / 2, middle + least / 2)
        ax.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10], integer=True))
        ax.yaxis.set_major_formatter(FuncFormatter(_power_of_ten))
    tidy(ax, palette)


def _power_of_ten(value: float, _position: int | None = None) -> str:
    if abs(value - round(value)) > 1e-9:
        return ""
    return "1" if round(value) == 0 else "10" + str(round(value)).translate(_SUPERSCRIPTS)
