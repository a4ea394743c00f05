"""Descriptions of layer Jacobians: factors, and chains of them."""

from ._base import Dense, Diagonal, Factor, Operator, Transposed
from ._chain import Chain, Residual
from ._conv import Conv1d, Conv2d
from ._norm import BatchNorm, LayerNorm

__all__ = [
    "BatchNorm",
    "Chain",
    "Conv1d",
    "Conv2d",
    "Dense",
    "Diagonal",
    "Factor",
    "LayerNorm",
    "Operator",
    "Residual",
    "Transposed",
]
