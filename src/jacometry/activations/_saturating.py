"""Activations that level off on both sides: tanh, the sigmoid, erf, softsign."""

import math

import numpy as np
from scipy import special

from ._activation import Activation, built_in
from ._exponentials import EXP_END, GAUSSIAN_END, half_square, in_double, scaled_exp

__all__ = ["erf", "sigmoid", "softsign", "tanh"]

_TWO_OVER_SQRT_PI = 2.0 / math.sqrt(math.pi)
# 1 / (1 + |x|) is 1 / |x| from here on.
_FAR = 1e300


def tanh() -> Activation:
    """``phi(x) = tanh(x)``.

    Returns
    -------
    Activation
    """
    return built_in("tanh", np.tanh, _tanh_slope, _tanh_curvature, slope_range=(0.0, 1.0))


def sigmoid() -> Activation:
    """``phi(x) = 1 / (1 + exp(-x))``, scikit-learn's "logistic".

    Returns
    -------
    Activation
    """
    return built_in("sigmoid", logistic, logistic_slope, logistic_curvature, slope_range=(0, 0.25))


def erf() -> Activation:
    """``phi(x) = erf(x) = 2 / sqrt(pi) * integral from 0 to x of exp(-t**2)``.

    Returns
    -------
    Activation
        Its Gaussian moments are computed in closed form.
    """
    return built_in(
        "erf", special.erf, _erf_slope, _erf_curvature, slope_range=(0.0, _TWO_OVER_SQRT_PI)
    )


def softsign() -> Activation:
    """``phi(x) = x / (1 + |x|)``; its curvature jumps from 2 to -2 at 0, where it is given as 0.

    Returns
    -------
    Activation

    References
    ----------
    Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks,
    2010.
    """
    return built_in(
        "softsign",
        _softsign,
        _softsign_slope,
        _softsign_curvature,
        kinks=(0.0,),
        slope_range=(0.0, 1.0),
    )


@in_double
def _tanh_slope(x: np.ndarray) -> np.ndarray:
    # 1 - tanh(x)**2 would lose every digit at large |x|.
    exponent = -2 * np.minimum(np.abs(x), EXP_END / 2)
    return scaled_exp(4 / (1 + np.exp(exponent)) ** 2, exponent)


@in_double
def _tanh_curvature(x: np.ndarray) -> np.ndarray:
    exponent = -2 * np.minimum(np.abs(x), EXP_END / 2)
    return scaled_exp(-8 * np.tanh(x) / (1 + np.exp(exponent)) ** 2, exponent)


@in_double
def logistic(x: np.ndarray) -> np.ndarray:
    """``1 / (1 + exp(-x))``; `scipy.special.expit` is 0 where that is subnormal."""
    decay = np.exp(-np.abs(x))
    return np.where(x < 0, decay, 1.0) / (1 + decay)


@in_double
def logistic_slope(x: np.ndarray) -> np.ndarray:
    """Derivative of `logistic`."""
    decay = np.exp(-np.abs(x))
    return decay / (1 + decay) ** 2


@in_double
def logistic_curvature(x: np.ndarray) -> np.ndarray:
    """Second derivative of `logistic`."""
    return -np.tanh(x / 2) * logistic_slope(x)


@in_double
def _erf_slope(x: np.ndarray) -> np.ndarray:
    exponent, rest = half_square(np.clip(x, -GAUSSIAN_END, GAUSSIAN_END))
    return scaled_exp(_TWO_OVER_SQRT_PI, 2 * exponent, 2 * rest)


@in_double
def _erf_curvature(x: np.ndarray) -> np.ndarray:
    near = np.clip(x, -GAUSSIAN_END, GAUSSIAN_END)
    exponent, rest = half_square(near)
    return scaled_exp(-2 * _TWO_OVER_SQRT_PI * near, 2 * exponent, 2 * rest)


@in_double
def _softsign(x: np.ndarray) -> np.ndarray:
    near = np.clip(x, -_FAR, _FAR)
    return near / (1 + np.abs(near))


@in_double
def _softsign_slope(x: np.ndarray) -> np.ndarray:
    inverse = 1 / (1 + np.abs(x))
    return inverse * inverse


@in_double
def _softsign_curvature(x: np.ndarray) -> np.ndarray:
    inverse = 1 / (1 + np.abs(x))
    return -2 * np.sign(x) * inverse * inverse * inverse
