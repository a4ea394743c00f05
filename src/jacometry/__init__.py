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
from .ops.scaled import ScaledArray

__version__ = "0.1.0"

__all__ = [
    "Chain",
    "ChainTrace",
    "Dense",
    "Diagonal",
    "JacometryError",
    "JacometryWarning",
    "ModelFileError",
    "NoEdgeOfChaosError",
    "ScaledArray",
    "UnsupportedModelError",
    "chain_jvp",
    "chain_product",
    "chain_vjp",
    "show_config",
]
