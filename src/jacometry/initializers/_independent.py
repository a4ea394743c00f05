"""Independent entries, normal or uniform."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import activations as _activations
from .._validate import real_scalar
from ._arguments import Rng, checked

__all__ = [
    "critical",
    "gaussian",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
]


def glorot_normal(
    shape: Sequence[int],
    *,
    rng: Rng = None,
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
    rng: Rng = None,
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
    rng: Rng = None,
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
    rng: Rng = None,
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
    rng: Rng = None,
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
    rng: Rng = None,
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


def critical(
    shape: Sequence[int],
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float64,
    fan: str = "in",
    gain: float = 1.0,
    activation: str | _activations.Activation | Callable[..., Any] = "tanh",
    sigma_b: float | None = None,
    q_star: float | None = None,
) -> np.ndarray:
    """Gaussian entries on the edge of chaos, where the gradient neither vanishes nor explodes.

    ``Var(W) = (gain sigma_w)**2 / fan`` with `sigma_w` from `jacometry.meanfield.critical_point`.

    Parameters
    ----------
    shape, rng, dtype, fan
        As for `glorot_normal`.
    gain : float, optional
        Factor on ``sigma_w``; 1 is the edge of chaos.
    activation : str, Activation or callable, optional
        What `jacometry.activations.get` takes.
    sigma_b : float, optional
        Standard deviation of the biases, which the caller draws.  None without `q_star`: 0.
    q_star : float, optional
        The fixed point of the pre-activations' variance, in place of `sigma_b`; the biases then
        need the ``sigma_b`` of ``critical_point(activation, q_star=q_star)``.

    Returns
    -------
    ndarray
        Of `shape`.

    Raises
    ------
    NoEdgeOfChaosError
        Where there is no such point.
    ValueError, TypeError
        As for `glorot_normal`, and as `critical_point`.

    References
    ----------
    Poole et al., Exponential expressivity in deep neural networks through transient chaos, 2016;
    Schoenholz et al., Deep information propagation, 2017.
    """
    checked(shape, dtype, fan, gain)
    if sigma_b is None and q_star is None:
        sigma_b = 0.0
    sigma_w = _critical_sigma_w(
        _activations.get(activation),
        None if sigma_b is None else real_scalar("sigma_b", sigma_b, low=0),
        None if q_star is None else real_scalar("q_star", q_star, low=0),
    )
    return _normal(shape, rng, dtype, fan, gain * sigma_w)


@lru_cache(maxsize=64)
def _critical_sigma_w(
    activation: _activations.Activation, sigma_b: float | None, q_star: float | None
) -> float:
    # Imported here: mean-field theory draws its ensembles with initializers.
    from ..meanfield import critical_point

    return critical_point(activation, sigma_b=sigma_b, q_star=q_star).sigma_w


def _normal(
    shape: Sequence[int], rng: Rng, dtype: npt.DTypeLike, fan: str, gain: float
) -> np.ndarray:
    sizes, kind, gain, divisor = checked(shape, dtype, fan, gain)
    draws = np.random.default_rng(rng).standard_normal(sizes, dtype=kind.type)
    return draws * kind.type(gain / math.sqrt(divisor))


def _uniform(
    shape: Sequence[int], rng: Rng, dtype: npt.DTypeLike, fan: str, gain: float
) -> np.ndarray:
    sizes, kind, gain, divisor = checked(shape, dtype, fan, gain)
    bound = abs(gain) * math.sqrt(3.0 / divisor)
    return np.random.default_rng(rng).uniform(-bound, bound, sizes).astype(kind)
