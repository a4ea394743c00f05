"""Random weight matrices and kernels in the initialisations that deep learning uses.

Every initializer has one signature, ``f(shape, *, rng=None, dtype=float64, fan=..., gain=...)``,
with ``shape = (fan_out, fan_in, *kernel)``; a kernel's size multiplies both fans.  `gain` is
``sigma_w`` of the mean-field literature where ``fan="in"``: ``Var(W_ij) = gain**2 / fan``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "gaussian",
    "get",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "names",
    "orthogonal",
    "zeros",
]

_Rng = np.random.Generator | int | None
_FANS = ("in", "out", "avg")


def glorot_normal(
    shape: Sequence[int],
    *,
    rng: _Rng = None,
    dtype: npt.DTypeLike = np.float64,
    fan: str = "avg",
    gain: float = 1.0,
) -> np.ndarray:
    """Xavier initialisation, normal: ``Var(W) = gain**2 / ((fan_in + fan_out) / 2)``.

    Parameters
    ----------
    shape : sequence of int
        ``(fan_out, fan_in, *kernel)``.
    rng : numpy.random.Generator, int or None, optional
        SPEC 7: a generator, a seed, or None for fresh entropy.
    dtype : dtype, optional
        float32 or float64.
    fan : {"in", "out", "avg"}, optional
        What the variance is divided by.
    gain : float, optional
        Scale of the standard deviation.

    Returns
    -------
    ndarray
        Of `shape`.

    References
    ----------
    Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks,
    2010.

    Examples
    --------
    >>> glorot_normal((30, 20), rng=0).shape
    (30, 20)
    """
    return _normal(shape, rng, dtype, fan, gain)


def glorot_uniform(
    shape: Sequence[int],
    *,
    rng: _Rng = None,
    dtype: npt.DTypeLike = np.float64,
    fan: str = "avg",
    gain: float = 1.0,
) -> np.ndarray:
    """Xavier initialisation, uniform on ``+-gain sqrt(3 / fan)``: variance ``gain**2 / fan``.

    Parameters
    ----------
    shape, rng, dtype, fan, gain
        As for `glorot_normal`.

    Returns
    -------
    ndarray
        Of `shape`.

    References
    ----------
    Glorot and Bengio 2010, eq. 16.
    """
    return _uniform(shape, rng, dtype, fan, gain)


def he_normal(
    shape: Sequence[int],
    *,
    rng: _Rng = None,
    dtype: npt.DTypeLike = np.float64,
    fan: str = "in",
    gain: float = math.sqrt(2.0),
) -> np.ndarray:
    """He initialisation, normal: ``Var(W) = 2 / fan_in``, which keeps ReLU's mean square.

    Parameters
    ----------
    shape, rng, dtype, fan, gain
        As for `glorot_normal`.

    Returns
    -------
    ndarray
        Of `shape`.

    References
    ----------
    He, Zhang, Ren and Sun, Delving deep into rectifiers, 2015, eq. 10.
    """
    return _normal(shape, rng, dtype, fan, gain)


def he_uniform(
    shape: Sequence[int],
    *,
    rng: _Rng = None,
    dtype: npt.DTypeLike = np.float64,
    fan: str = "in",
    gain: float = math.sqrt(2.0),
) -> np.ndarray:
    """He initialisation, uniform: on ``+-gain sqrt(3 / fan_in)``.

    Parameters
    ----------
    shape, rng, dtype, fan, gain
        As for `glorot_normal`.

    Returns
    -------
    ndarray
        Of `shape`.

    References
    ----------
    He, Zhang, Ren and Sun 2015.
    """
    return _uniform(shape, rng, dtype, fan, gain)


def lecun_normal(
    shape: Sequence[int],
    *,
    rng: _Rng = None,
    dtype: npt.DTypeLike = np.float64,
    fan: str = "in",
    gain: float = 1.0,
) -> np.ndarray:
    """LeCun initialisation: ``Var(W) = 1 / fan_in``.

    Parameters
    ----------
    shape, rng, dtype, fan, gain
        As for `glorot_normal`.

    Returns
    -------
    ndarray
        Of `shape`.

    References
    ----------
    LeCun, Bottou, Orr and Mueller, Efficient BackProp, 1998, section 4.6.
    """
    return _normal(shape, rng, dtype, fan, gain)


def gaussian(
    shape: Sequence[int],
    *,
    rng: _Rng = None,
    dtype: npt.DTypeLike = np.float64,
    fan: str = "in",
    gain: float = 1.0,
) -> np.ndarray:
    """Independent Gaussian entries, ``Var(W) = gain**2 / fan``: the ensemble of mean-field theory.

    Parameters
    ----------
    shape, rng, dtype, fan, gain
        As for `glorot_normal`; `gain` is ``sigma_w``.

    Returns
    -------
    ndarray
        Of `shape`.
    """
    return _normal(shape, rng, dtype, fan, gain)


def orthogonal(
    shape: Sequence[int],
    *,
    rng: _Rng = None,
    dtype: npt.DTypeLike = np.float64,
    fan: str = "in",
    gain: float = 1.0,
) -> np.ndarray:
    """A matrix whose singular values all equal `gain`, uniform (Haar) among those.

    Parameters
    ----------
    shape : sequence of int
        ``(fan_out, fan_in, *kernel)``; with a kernel, the matrix ``(fan_out, fan_in * kernel
        size)``.
    rng, dtype
        As for `glorot_normal`.
    fan : {"in", "out", "avg"}, optional
        Accepted so that initializers can be exchanged; it changes nothing.
    gain : float, optional
        The common singular value.

    Returns
    -------
    ndarray
        Of `shape`.

    References
    ----------
    Saxe, McClelland and Ganguli, Exact solutions to the nonlinear dynamics of learning, 2014;
    Mezzadri, How to generate random matrices from the classical compact groups, 2007 (the signs).
    """
    shape, dtype, gain, _ = _checked(shape, dtype, fan, gain)
    n_rows, n_columns = shape[0], math.prod(shape[1:])
    draws = np.random.default_rng(rng).standard_normal(
        (max(n_rows, n_columns), min(n_rows, n_columns))
    )
    q, r = np.linalg.qr(draws)
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return (gain * (q if n_rows >= n_columns else q.T)).reshape(shape).astype(dtype)


def zeros(
    shape: Sequence[int],
    *,
    rng: _Rng = None,
    dtype: npt.DTypeLike = np.float64,
    fan: str = "in",
    gain: float = 1.0,
) -> np.ndarray:
    """All zeros: every gradient but the last layer's bias is then zero, and stays so.

    Parameters
    ----------
    shape, rng, dtype, fan, gain
        As for `glorot_normal`; only `shape` and `dtype` matter.

    Returns
    -------
    ndarray
        Of `shape`.
    """
    shape, dtype, _, _ = _checked(shape, dtype, fan, gain)
    return np.zeros(shape, dtype)


_INITIALIZERS: dict[str, Callable[..., np.ndarray]] = {
    f.__name__: f
    for f in (
        glorot_normal,
        glorot_uniform,
        he_normal,
        he_uniform,
        lecun_normal,
        gaussian,
        orthogonal,
        zeros,
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


def _normal(
    shape: Sequence[int], rng: _Rng, dtype: npt.DTypeLike, fan: str, gain: float
) -> np.ndarray:
    sizes, kind, gain, divisor = _checked(shape, dtype, fan, gain)
    draws = np.random.default_rng(rng).standard_normal(sizes, dtype=kind.type)
    return draws * kind.type(gain / math.sqrt(divisor))


def _uniform(
    shape: Sequence[int], rng: _Rng, dtype: npt.DTypeLike, fan: str, gain: float
) -> np.ndarray:
    sizes, kind, gain, divisor = _checked(shape, dtype, fan, gain)
    bound = gain * math.sqrt(3.0 / divisor)
    return np.random.default_rng(rng).uniform(-bound, bound, sizes).astype(kind)


def _checked(
    shape: Sequence[int], dtype: npt.DTypeLike, fan: str, gain: float
) -> tuple[tuple[int, ...], np.dtype[Any], float, float]:
    """The validated shape, dtype and gain, and the chosen fan."""
    try:
        sizes = tuple(int(n) for n in np.asarray(shape, dtype=object).ravel())
        exact = np.ndim(shape) == 1 and all(n == m for n, m in zip(sizes, shape, strict=True))
    except (TypeError, ValueError):
        sizes, exact = (), False
    if not exact or len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(
            f"shape must be (fan_out, fan_in, *kernel), integers of at least 1, got {shape!r}"
        )
    kind = np.dtype(dtype)
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"dtype must be float32 or float64, got {kind}")
    if fan not in _FANS:
        raise ValueError(f"fan must be 'in', 'out' or 'avg', got {fan!r}")
    gain = float(gain)
    if not math.isfinite(gain):
        raise ValueError(f"gain must be a finite number, got {gain!r}")
    field = math.prod(sizes[2:])
    fans: dict[str, float] = {"out": sizes[0] * field, "in": sizes[1] * field}
    fans["avg"] = (fans["in"] + fans["out"]) / 2
    return sizes, kind, gain, fans[fan]
