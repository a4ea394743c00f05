"""Activation functions as descriptions: value, slope, curvature, kinks, kernel.

An `Activation` is what the rest of the package needs to know of a scalar nonlinearity ``phi``.  A
factory makes each of the built-in ones; `get` turns a name, an `Activation` or a plain vectorised
callable into one; `activation_table` says what they do to a signal and its gradient.

Built-in activations compute in float64, round once, raise no floating-point warning, and give NaN
for NaN.  Their values are right to a few units in the last place at any input, slopes and
curvatures too except beside their own zeros, where terms of the order of 1 cancel.
"""

from ._activation import Activation
from ._gated import gelu, gelu_tanh, mish, silu
from ._linear_units import celu, elu, selu, softplus
from ._other import quadratic, sin
from ._piecewise import (
    abs,
    hard_sigmoid,
    hard_swish,
    hard_tanh,
    identity,
    leaky_relu,
    prelu,
    relu,
    relu6,
)
from ._registry import get, names
from ._saturating import erf, sigmoid, softsign, tanh
from ._table import activation_table

__all__ = [
    "Activation",
    "abs",
    "activation_table",
    "celu",
    "elu",
    "erf",
    "gelu",
    "gelu_tanh",
    "get",
    "hard_sigmoid",
    "hard_swish",
    "hard_tanh",
    "identity",
    "leaky_relu",
    "mish",
    "names",
    "prelu",
    "quadratic",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "sin",
    "softplus",
    "softsign",
    "tanh",
]
