"""The initializers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import _independent, _structured

__all__ = ["get", "names"]

_INITIALIZERS: dict[str, Callable[..., np.ndarray]] = {
    f.__name__: f
    for f in (
        _independent.glorot_normal,
        _independent.glorot_uniform,
        _independent.he_normal,
        _independent.he_uniform,
        _independent.lecun_normal,
        _independent.gaussian,
        _independent.critical,
        _structured.orthogonal,
        _structured.delta_orthogonal,
        _structured.identity,
        _structured.zeros,
    )
}


def names() -> tuple[str, ...]:
    """The names that `get` knows.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> "he_normal" in names()
    True
    """
    return tuple(_INITIALIZERS)


def get(initializer: str | Callable[..., np.ndarray]) -> Callable[..., Any]:
    """The initializer that a name stands for; a callable is returned as it is.

    Parameters
    ----------
    initializer : str or callable
        A name of `names()`, or a callable with the signature of `glorot_normal`
        (``functools.partial(gaussian, gain=1.5)`` sets a gain).

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        For an unknown name; the message lists the known ones.
    TypeError
        For anything else.
    """
    if callable(initializer):
        return initializer
    if not isinstance(initializer, str):
        raise TypeError(
            f"initializer must be a name or a callable, got {type(initializer).__name__}"
        )
    if initializer not in _INITIALIZERS:
        known = ", ".join(repr(name) for name in _INITIALIZERS)
        raise ValueError(f"initializer must be one of {known}, got {initializer!r}")
    return _INITIALIZERS[initializer]
