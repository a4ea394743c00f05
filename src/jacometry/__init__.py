"""Layer-Jacobian chains, spectra and variance propagation for deep stacks of layers."""

from ._config import show_config
from ._status import (
    JacometryError,
    JacometryWarning,
    ModelFileError,
    NoEdgeOfChaosError,
    UnsupportedModelError,
)
from .factors import Chain, Dense, Diagonal
from .ops.chain import ChainTrace, chain_jvp, chain_product, chain_vjp
from .ops.moments import GaussianMoments, gaussian_moments, variance_map
from .ops.scaled import ScaledArray
from .ops.spectral import NormBounds, spectral_norm

__version__ = "0.1.0"

__all__ = [
    "Chain",
    "ChainTrace",
    "Dense",
    "Diagonal",
    "GaussianMoments",
    "JacometryError",
    "JacometryWarning",
    "ModelFileError",
    "NoEdgeOfChaosError",
    "NormBounds",
    "ScaledArray",
    "UnsupportedModelError",
    "chain_jvp",
    "chain_product",
    "chain_vjp",
    "gaussian_moments",
    "show_config",
    "spectral_norm",
    "variance_map",
]
