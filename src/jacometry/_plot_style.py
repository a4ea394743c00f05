"""Axes, colours and frames of the figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Palette", "new_axes", "prepared", "tidy"]


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
