"""Figures of mean-field theory, drawn with matplotlib (the ``plot`` extra)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._style import Palette, prepared

if TYPE_CHECKING:
    from ..meanfield._phase_diagram import PhaseDiagram

__all__ = ["correlation_cobweb", "depth_scales", "phase_plane"]

# Colours run over factors exp(-1) to e on the gradient's mean square.
_LOG_RANGE = 1.0
_LEGIBLE = {"facecolor": "white", "alpha": 0.8, "linewidth": 0}


def phase_plane(diagram: PhaseDiagram, *, ax: Any = None, palette: Palette | None = None) -> Any:
    """The factor on the gradient over sigma_w and sigma_b, and the line where it is 1.

    Parameters
    ----------
    diagram : PhaseDiagram
        What to draw, with two values of sigma_w and of sigma_b at least.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a figure.
    palette : Palette, optional
        Colours.

    Returns
    -------
    matplotlib.axes.Axes
    """
    if min(diagram.shape) < 2:
        raise ValueError(
            f"a phase diagram is drawn over a plane, got sigma_w and sigma_b of {diagram.shape}"
        )
    ax, palette = prepared(ax, palette)
    with np.errstate(divide="ignore"):
        log_chi = np.log(np.asarray(diagram.chi_1, float))
    diverges = diagram.phase == "divergent"
    shown = np.ma.array(np.clip(log_chi, -_LOG_RANGE, _LOG_RANGE), mask=diverges)
    mesh = ax.pcolormesh(
        diagram.sigma_w, diagram.sigma_b, shown.T, cmap="RdBu_r", vmin=-_LOG_RANGE,
        vmax=_LOG_RANGE, shading="nearest", rasterized=True,
    )  # fmt: skip
    bar = ax.figure.colorbar(mesh, ax=ax, extend="both", ticks=[-1, -0.5, 0, 0.5, 1])
    bar.ax.set_yticklabels(["1/e", "0.61", "1", "1.65", "e"])
    bar.set_label("factor on the gradient's mean square per layer", color=palette.ink)
    bar.outline.set_visible(False)
    line = np.ma.array(log_chi, mask=diverges)
    settled = line.compressed()
    if settled.size and settled.min() < 0 < settled.max():
        ax.contour(
            diagram.sigma_w, diagram.sigma_b, line.T, levels=[0.0], colors=palette.ink,
            linewidths=1.8,
        )  # fmt: skip
        ax.plot([], [], color=palette.ink, lw=1.8, label="critical line: the factor is 1")
    for phase in ("ordered", "chaotic"):
        where = np.argwhere(diagram.phase == phase)
        if len(where) > 0.02 * diverges.size:
            row = int(np.median(where[:, 0]))
            at = (diagram.sigma_w[row] - diagram.sigma_w[0]) / np.ptp(diagram.sigma_w)
            ax.text(at, 0.94, phase, transform=ax.transAxes, ha="center", va="top",
                    color=palette.ink, bbox=_LEGIBLE)  # fmt: skip
    if diverges.any():
        ax.contourf(
            diagram.sigma_w, diagram.sigma_b, diverges.T.astype(float), levels=[0.5, 1.5],
            colors=[palette.grid], hatches=["//"],
        )  # fmt: skip
        ax.fill_between([], [], color=palette.grid, hatch="//", label="the signal diverges")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(labelcolor=palette.ink, fontsize="small", loc="lower right", facecolor="white",
                  edgecolor="none", framealpha=0.8)  # fmt: skip
    ax.set_title(diagram.activation.name, color=palette.ink)
    _named(ax, palette, r"$\sigma_w$", r"$\sigma_b$")
    ax.set_xlim(diagram.sigma_w.min(), diagram.sigma_w.max())
    ax.set_ylim(diagram.sigma_b.min(), diagram.sigma_b.max())
    return ax


def depth_scales(
    diagram: PhaseDiagram, column: int, *, ax: Any = None, palette: Palette | None = None
) -> Any:
    """Depth scales over sigma_w at one sigma_b; the gradient's is dashed where it explodes.

    Parameters
    ----------
    diagram : PhaseDiagram
        What to draw.
    column : int
        Index into its sigma_b.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a figure.
    palette : Palette, optional
        Colours.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax, palette = prepared(ax, palette)
    for k, (name, label) in enumerate((("q", "variance"), ("c", "correlation"))):
        scale = _drawn(getattr(diagram, f"depth_scale_{name}")[:, column])
        ax.plot(diagram.sigma_w, scale, color=palette.series[k], lw=2, label=label)
    scale = np.asarray(diagram.depth_scale_grad[:, column], float)
    colour = palette.series[2 % len(palette.series)]
    ax.plot(diagram.sigma_w, _drawn(scale), color=colour, lw=1.6, label="gradient, vanishing")
    ax.plot(diagram.sigma_w, _drawn(-scale), "--", color=colour, lw=1.6,
            label="gradient, exploding")  # fmt: skip
    ax.set_yscale("log")
    ax.grid(True, color=palette.grid, lw=0.6)
    ax.set_axisbelow(True)
    ax.legend(frameon=False, labelcolor=palette.ink, fontsize="small", loc="best")
    title = rf"{diagram.activation.name}, $\sigma_b$ = {diagram.sigma_b[column]:g}"
    ax.set_title(title, color=palette.ink)
    _named(ax, palette, r"$\sigma_w$", "depth scale (layers)")
    return ax


def correlation_cobweb(
    c: np.ndarray,
    after: np.ndarray,
    way: np.ndarray,
    c_star: float,
    *,
    ax: Any = None,
    palette: Palette | None = None,
) -> Any:
    """A correlation map, and the way of one correlation to c* between map and diagonal.

    Parameters
    ----------
    c, after : ndarray (n,)
        Correlations, and what they are after one layer.
    way : ndarray (depth + 1,)
        One correlation, layer by layer.
    c_star : float
        Where it goes.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a figure.
    palette : Palette, optional
        Colours.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax, palette = prepared(ax, palette)
    ax.plot(c, c, color=palette.grid, lw=1.4)
    ax.plot(c, after, color=palette.series[0], lw=2, label="after one more layer")
    steps = np.repeat(way, 2)
    ax.plot(steps[:-2], steps[1:-1], color=palette.theory, lw=1.2, label="layer by layer")
    ax.plot(c_star, c_star, "o", color=palette.ink, ms=6, label=f"c* = {c_star:.4g}")
    ax.set_aspect("equal")
    ax.legend(frameon=False, labelcolor=palette.ink, fontsize="small", loc="best")
    _named(ax, palette, "correlation of two inputs", "after one more layer")
    return ax


def _drawn(scale: np.ndarray) -> np.ndarray:
    """Positive and finite, with gaps elsewhere."""
    scale = np.asarray(scale, float)
    return np.where(np.isfinite(scale) & (scale > 0), scale, np.nan)


def _named(ax: Any, palette: Palette, x: str, y: str) -> None:
    ax.set_xlabel(x, color=palette.ink)
    ax.set_ylabel(y, color=palette.ink)
    ax.tick_params(colors=palette.ink, length=0)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(palette.grid)
