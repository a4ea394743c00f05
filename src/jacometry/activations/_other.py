"""Activations that neither level off nor resemble ReLU: sine and square."""

import math

import numpy as np

from ._activation import Activation, built_in
from ._exponentials import in_double

__all__ = ["quadratic", "sin"]


def sin() -> Activation:
    """``phi(x) = sin(x)``; NaN at infinity.

    Returns
    -------
    Activation
        Its Gaussian moments are computed in closed form.

    References
    ----------
    Sitzmann et al., Implicit neural representations with periodic activation functions, 2020.
    """
    return built_in("sin", _sin, _sin_slope, _sin_curvature, slope_range=(-1.0, 1.0))


def quadratic() -> Activation:
    """``phi(x) = x**2``, with slope ``2 x``: not Lipschitz.

    Returns
    -------
    Activation
        Its Gaussian moments are computed in closed form.
    """
    return built_in("quadratic", _square, _twice, _two, slope_range=(-math.inf, math.inf))


@in_double
def _sin(x: np.ndarray) -> np.ndarray:
    return np.sin(x)


@in_double
def _sin_slope(x: np.ndarray) -> np.ndarray:
    return np.cos(x)


@in_double
def _sin_curvature(x: np.ndarray) -> np.ndarray:
    return -np.sin(x)


@in_double
def _square(x: np.ndarray) -> np.ndarray:
    return x * x


@in_double
def _twice(x: np.ndarray) -> np.ndarray:
    return 2 * x


def _two(x: np.ndarray) -> np.ndarray:
    return np.full_like(x, 2)
