"""Activations made of straight pieces, and hard swish, which is made of parabolas."""

import math
from functools import partial

import numpy as np

from ._activation import Activation, built_in
from ._exponentials import in_double

__all__ = [
    "abs",
    "hard_sigmoid",
    "hard_swish",
    "hard_tanh",
    "identity",
    "leaky_relu",
    "prelu",
    "relu",
    "relu6",
]


def identity() -> Activation:
    """``phi(x) = x``.

    Returns
    -------
    Activation
        Its Gaussian moments are computed in closed form.
    """
    return built_in("identity", _identity, np.ones_like, np.zeros_like, slope_range=(1.0, 1.0))


def relu(*, slope_at_zero: float = 0.0) -> Activation:
    """``phi(x) = max(x, 0)``.

    Parameters
    ----------
    slope_at_zero : float, optional
        ``phi'(0)``, in [0, 1].  It matters only for inputs that are exactly zero.

    Returns
    -------
    Activation
        Its Gaussian moments are computed in closed form.
    """
    if not 0.0 <= slope_at_zero <= 1.0:
        raise ValueError(f"slope_at_zero must lie in [0, 1], got {slope_at_zero!r}")
    return _rectifier("relu", 0.0, float(slope_at_zero))


def leaky_relu(negative_slope: float = 0.01) -> Activation:
    """``phi(x) = x`` above 0, ``negative_slope * x`` below; slope `negative_slope` at 0.

    Parameters
    ----------
    negative_slope : float, optional
        Any finite number: 1 gives the identity.

    Returns
    -------
    Activation
        Its Gaussian moments are computed in closed form.

    References
    ----------
    Maas, Hannun and Ng, Rectifier nonlinearities improve neural network acoustic models, 2013.
    """
    if not math.isfinite(negative_slope):
        raise ValueError(f"negative_slope must be finite, got {negative_slope!r}")
    return _rectifier("leaky_relu", float(negative_slope), float(negative_slope))


def prelu(negative_slope: float = 0.25) -> Activation:
    """`leaky_relu` whose slope below 0 is learned; the default is where learning starts.

    Parameters
    ----------
    negative_slope : float, optional
        Any finite number.

    Returns
    -------
    Activation
        Its Gaussian moments are computed in closed form.

    References
    ----------
    He, Zhang, Ren and Sun, Delving deep into rectifiers, 2015, section 2.1.
    """
    if not math.isfinite(negative_slope):
        raise ValueError(f"negative_slope must be finite, got {negative_slope!r}")
    return _rectifier("prelu", float(negative_slope), float(negative_slope))


def abs() -> Activation:
    """``phi(x) = |x|``; slope 0 at 0.

    Returns
    -------
    Activation
        Its Gaussian moments are computed in closed form.
    """
    return _rectifier("abs", -1.0, 0.0)


def relu6() -> Activation:
    """``phi(x) = min(max(x, 0), 6)``; slope 0 at 0 and 6.

    Returns
    -------
    Activation

    References
    ----------
    Krizhevsky, Convolutional deep belief networks on CIFAR-10, 2010.
    """
    return _clipped("relu6", 0.0, 6.0)


def hard_tanh() -> Activation:
    """``phi(x) = min(max(x, -1), 1)``; slope 0 at -1 and 1.

    Returns
    -------
    Activation

    References
    ----------
    Collobert, Large scale machine learning, 2004.
    """
    return _clipped("hard_tanh", -1.0, 1.0)


def hard_sigmoid() -> Activation:
    """``phi(x) = min(max(x + 3, 0), 6) / 6``; slope 0 at -3 and 3.

    Returns
    -------
    Activation

    Notes
    -----
    PyTorch's; Keras before version 3 has ``min(max(x / 5 + 1 / 2, 0), 1)``.
    """
    return built_in(
        "hard_sigmoid",
        _hard_sigmoid,
        partial(_slope_inside, low=-3.0, high=3.0, slope=1 / 6),
        np.zeros_like,
        kinks=(-3.0, 3.0),
        slope_range=(0.0, 1 / 6),
    )


def hard_swish() -> Activation:
    """``phi(x) = x min(max(x + 3, 0), 6) / 6``; slope 0 at -3 and 1 at 3.

    Returns
    -------
    Activation

    Notes
    -----
    The slope jumps at -3, from 0 to -1/2, and at 3, from 3/2 to 1.

    References
    ----------
    Howard et al., Searching for MobileNetV3, 2019.
    """
    return built_in(
        "hard_swish",
        _hard_swish,
        _hard_swish_slope,
        partial(_slope_inside, low=-3.0, high=3.0, slope=1 / 3),
        kinks=(-3.0, 3.0),
        slope_range=(-0.5, 1.5),
    )


def _rectifier(name: str, negative_slope: float, slope_at_zero: float) -> Activation:
    return built_in(
        name,
        np.abs if name == "abs" else partial(_leaky_relu, negative_slope=negative_slope),
        partial(_leaky_relu_slope, negative_slope=negative_slope, slope_at_zero=slope_at_zero),
        np.zeros_like,
        parameters=(negative_slope, slope_at_zero),
        kinks=() if negative_slope == 1.0 else (0.0,),
        slope_range=(min(negative_slope, 1.0), max(negative_slope, 1.0)),
    )


def _clipped(name: str, low: float, high: float) -> Activation:
    return built_in(
        name,
        partial(np.clip, a_min=low, a_max=high),
        partial(_slope_inside, low=low, high=high, slope=1.0),
        np.zeros_like,
        kinks=(low, high),
        slope_range=(0.0, 1.0),
    )


def _identity(x: np.ndarray) -> np.ndarray:
    return x.copy()


def _leaky_relu(x: np.ndarray, *, negative_slope: float) -> np.ndarray:
    if negative_slope == 0.0:
        return np.maximum(x, 0)
    with np.errstate(over="ignore", under="ignore"):
        return np.where(x > 0, x, x.dtype.type(negative_slope) * x)


def _leaky_relu_slope(x: np.ndarray, *, negative_slope: float, slope_at_zero: float) -> np.ndarray:
    if negative_slope == 0.0:
        slope = np.asarray(x > 0, x.dtype)
    else:
        slope = np.where(x > 0, x.dtype.type(1), x.dtype.type(negative_slope))
    if slope_at_zero != negative_slope:
        slope[x == 0] = slope_at_zero
    is_nan = np.isnan(x)
    if is_nan.any():
        slope[is_nan] = np.nan
    return slope


def _slope_inside(x: np.ndarray, *, low: float, high: float, slope: float) -> np.ndarray:
    outside = np.where(np.isnan(x), x, 0.0)
    return np.where((x > low) & (x < high), slope, outside)


@in_double
def _hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(x + 3.0, 0.0, 6.0) / 6.0


@in_double
def _hard_swish(x: np.ndarray) -> np.ndarray:
    return np.where(x > -3.0, x * (np.minimum(x + 3.0, 6.0) / 6.0), np.where(x <= -3.0, 0.0, x))


@in_double
def _hard_swish_slope(x: np.ndarray) -> np.ndarray:
    outside = np.where(x >= 3.0, 1.0, np.where(x <= -3.0, 0.0, x))
    return np.where((x > -3.0) & (x < 3.0), (2.0 * x + 3.0) / 6.0, outside)
