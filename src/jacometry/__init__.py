"""Layer-Jacobian chains, spectra and variance propagation for deep stacks of layers."""

from importlib import import_module

from ._config import get_include, show_config
from ._status import (
    JacometryError,
    JacometryWarning,
    ModelFileError,
    NoEdgeOfChaosError,
    UnsupportedModelError,
)
from .factors import (
    BatchNorm,
    Chain,
    Conv1d,
    Conv2d,
    Dense,
    Diagonal,
    LayerNorm,
    Residual,
)
from .ops.chain import (
    ChainTrace,
    chain_jvp,
    chain_product,
    chain_vjp,
    weight_gradient_log_norms,
)
from .ops.chain_norms import (
    ChainNormBounds,
    ChainNormProfile,
    chain_norm_bounds,
    chain_norm_profile,
)
from .ops.chain_spectra import LogSingularValues, chain_log_svdvals
from .ops.conditioning import condition_number, frobenius_norm, smallest_singular_value
from .ops.correlations import correlation_map
from .ops.joint_radius import JSRBounds, joint_spectral_radius
from .ops.lyapunov import LyapunovSpectrum, lyapunov_spectrum, lyapunov_spectrum_map
from .ops.moments import GaussianMoments, gaussian_moments, variance_map
from .ops.radius import RadiusEstimate, spectral_radius
from .ops.scaled import ScaledArray
from .ops.spectral import NormBounds, conv_spectral_norm, spectral_norm

__version__ = "0.1.0"

# The analysis of networks, imported when first asked for.
_LAZY = {
    "CriticalPoint": "meanfield",
    "GradientFlowReport": "diagnostics",
    "MeanField": "meanfield",
    "Network": "network",
    "PhaseDiagram": "meanfield",
    "analyze": "diagnostics",
    "batchnorm_gradient_rate": "meanfield",
    "compare": "diagnostics",
    "critical_point": "meanfield",
    "gain": "meanfield",
    "jacobian_spectrum_law": "meanfield",
    "log_norm_law": "meanfield",
    "phase_diagram": "meanfield",
    "predict": "meanfield",
    "simulate": "meanfield",
}

__all__ = [
    "BatchNorm",
    "Chain",
    "ChainNormBounds",
    "ChainNormProfile",
    "ChainTrace",
    "Conv1d",
    "Conv2d",
    "CriticalPoint",
    "Dense",
    "Diagonal",
    "GaussianMoments",
    "GradientFlowReport",
    "JSRBounds",
    "JacometryError",
    "JacometryWarning",
    "LayerNorm",
    "LogSingularValues",
    "LyapunovSpectrum",
    "MeanField",
    "ModelFileError",
    "Network",
    "NoEdgeOfChaosError",
    "NormBounds",
    "PhaseDiagram",
    "RadiusEstimate",
    "Residual",
    "ScaledArray",
    "UnsupportedModelError",
    "analyze",
    "batchnorm_gradient_rate",
    "chain_jvp",
    "chain_log_svdvals",
    "chain_norm_bounds",
    "chain_norm_profile",
    "chain_product",
    "chain_vjp",
    "compare",
    "condition_number",
    "conv_spectral_norm",
    "correlation_map",
    "critical_point",
    "frobenius_norm",
    "gain",
    "gaussian_moments",
    "get_include",
    "jacobian_spectrum_law",
    "joint_spectral_radius",
    "log_norm_law",
    "lyapunov_spectrum",
    "lyapunov_spectrum_map",
    "phase_diagram",
    "predict",
    "show_config",
    "simulate",
    "smallest_singular_value",
    "spectral_norm",
    "spectral_radius",
    "variance_map",
    "weight_gradient_log_norms",
]


def __getattr__(name):
    if name in _LAZY:
        value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
