"""The activations by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from . import _gated, _linear_units, _other, _piecewise, _saturating
from ._activation import Activation, difference
from ._low_level import vectorised

__all__ = ["get", "names"]

# Every built-in activation: one line, its other names after it.
_FACTORIES: dict[str, Callable[[], Activation]] = {
    "identity": _piecewise.identity,
    "relu": _piecewise.relu,
    "leaky_relu": _piecewise.leaky_relu,
    "prelu": _piecewise.prelu,
    "elu": _linear_units.elu,
    "selu": _linear_units.selu,
    "celu": _linear_units.celu,
    "softplus": _linear_units.softplus,
    "sigmoid": _saturating.sigmoid,
    "logistic": _saturating.sigmoid,
    "tanh": _saturating.tanh,
    "hard_tanh": _piecewise.hard_tanh,
    "hard_sigmoid": _piecewise.hard_sigmoid,
    "softsign": _saturating.softsign,
    "erf": _saturating.erf,
    "gelu": _gated.gelu,
    "gelu_tanh": _gated.gelu_tanh,
    "silu": _gated.silu,
    "swish": _gated.silu,
    "hard_swish": _piecewise.hard_swish,
    "mish": _gated.mish,
    "sin": _other.sin,
    "abs": _piecewise.abs,
    "relu6": _piecewise.relu6,
    "quadratic": _other.quadratic,
}


def get(activation: str | Activation | Callable[..., Any]) -> Activation:
    """The `Activation` that a name, an `Activation` or a callable stands for.

    Parameters
    ----------
    activation : str, Activation or callable
        A name of `names()`, which means that factory's defaults; an `Activation`, returned as it
        is; one of the factories of this module; a vectorised callable: array in, array of that
        shape out; or a `scipy.LowLevelCallable`, as `Activation` takes it.

    Returns
    -------
    Activation
        A shared, immutable instance for a name.

    Raises
    ------
    ValueError
        For an unknown name; the message lists the known ones.
    TypeError
        For anything else.

    Notes
    -----
    A bare callable is taken to be smooth; give an `Activation` with `kinks` where it is not.  Its
    slope is the central difference of fourth order (Abramowitz and Stegun 1972, 25.3.6)::

        (8 (f(x + h) - f(x - h)) - (f(x + 2 h) - f(x - 2 h))) / (12 h),  h = 2**-10 max(1, sqrt|x|)

    (beyond ``|x| = 2**72``, ``h = 2**-46 |x|``), evaluated in float64, with an error of about
    ``h**4 |f'''''| / 30 + 2e-13 |f| / max(1, sqrt|x|)``.  Its curvature is the same difference of
    that slope.

    Examples
    --------
    >>> get("relu").slope([-1.0, 0.0, 2.0])
    array([0., 0., 1.])
    >>> import numpy as np
    >>> round(float(get(np.arctan).slope(1.0)), 12)
    0.5
    """
    if isinstance(activation, Activation):
        return activation
    if isinstance(activation, str):
        if activation not in _FACTORIES:
            known = ", ".join(repr(name) for name in names())
            raise ValueError(f"activation must be one of {known}, got {activation!r}")
        return _FACTORIES[activation]()
    activation = vectorised("activation", activation)
    if not callable(activation) or isinstance(activation, type):
        raise TypeError(
            f"activation must be a name, an Activation or a vectorised callable, got {activation!r}"
        )
    if activation in _FACTORIES.values():
        return activation()
    return Activation(activation, partial(difference, activation))


def names() -> tuple[str, ...]:
    """The names that `get` knows.

    Returns
    -------
    tuple of str
        Every name, aliases included.

    Examples
    --------
    >>> "gelu" in names()
    True
    """
    return tuple(_FACTORIES)
