"""Weight matrices and kernels in the initialisations that deep learning uses.

Every initializer has one signature, ``f(shape, *, rng=None, dtype=float64, fan=..., gain=...)``,
with ``shape = (fan_out, fan_in, *kernel)``; a kernel's size multiplies both fans.  `gain` is
``sigma_w`` of the mean-field literature where ``fan="in"``: ``Var(W_ij) = gain**2 / fan``.
`initializer_table` says what each does to a signal and its gradient.
"""

from ._independent import (
    critical,
    gaussian,
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    lecun_normal,
)
from ._registry import get, names
from ._structured import delta_orthogonal, identity, orthogonal, zeros
from ._table import initializer_table

__all__ = [
    "critical",
    "delta_orthogonal",
    "gaussian",
    "get",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "identity",
    "initializer_table",
    "lecun_normal",
    "names",
    "orthogonal",
    "zeros",
]
