"""Figures, drawn with matplotlib (the ``plot`` extra)."""

from ._activations import activation_curves
from ._ensembles import ensemble_trajectory
from ._field import correlation_cobweb, depth_scales, phase_plane
from ._reports import gradient_profile, layer_norms, signal_profile, unit_shares
from ._style import Palette, new_axes

__all__ = [
    "Palette",
    "activation_curves",
    "correlation_cobweb",
    "depth_scales",
    "ensemble_trajectory",
    "gradient_profile",
    "layer_norms",
    "new_axes",
    "phase_plane",
    "signal_profile",
    "unit_shares",
]
