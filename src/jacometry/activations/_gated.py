"""Gated linear units, x times a sigmoid of x: GELU and its tanh form, SiLU, Mish."""

import math

import numpy as np

from ._activation import Activation, built_in
from ._exponentials import (
    EXP_END,
    GAUSSIAN_END,
    in_double,
    normal_density,
    normal_tail,
    scaled_exp,
    two_product,
)

__all__ = ["gelu", "gelu_tanh", "mish", "silu"]

# Least and largest slopes, to 17 digits: where phi'' = 0, which has no solution in closed form
# except for GELU, at sqrt(2).
_GELU_SLOPES = (-0.12890414518515479, 1.1289041451851548)
_GELU_TANH_SLOPES = (-0.12899306865877177, 1.1289930686587718)
_SILU_SLOPES = (-0.099839320128866917, 1.0998393201288669)
_MISH_SLOPES = (-0.11252612238946256, 1.0884981612517279)
# 2 sqrt(2 / pi) and 0.044715 times that, each as a float and the rest of it.
_GELU_LINEAR = (1.5957691216057308, -9.96930880911092e-17)
_GELU_CUBIC = (0.07135481627260025, -6.175149918155315e-19)
_SQRT_2 = math.sqrt(2.0)


def gelu() -> Activation:
    """``phi(x) = x P(Z <= x)``, Z standard normal: the exact form.

    Returns
    -------
    Activation
        Its Gaussian moments are computed in closed form.

    References
    ----------
    Hendrycks and Gimpel, Gaussian error linear units, 2016.
    """
    return built_in(
        "gelu",
        _gelu,
        _gelu_slope,
        _gelu_curvature,
        slope_range=_GELU_SLOPES,
    )


def gelu_tanh() -> Activation:
    """``phi(x) = x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))) / 2``: GELU's tanh form.

    Returns
    -------
    Activation

    References
    ----------
    Hendrycks and Gimpel 2016.
    """
    return built_in(
        "gelu_tanh",
        _gelu_tanh,
        _gelu_tanh_slope,
        _gelu_tanh_curvature,
        slope_range=_GELU_TANH_SLOPES,
    )


def silu() -> Activation:
    """``phi(x) = x / (1 + exp(-x))``, also called swish.

    Returns
    -------
    Activation

    References
    ----------
    Elfwing, Uchibe and Doya, Sigmoid-weighted linear units, 2018; Ramachandran, Zoph and Le,
    Searching for activation functions, 2017.
    """
    return built_in(
        "silu",
        _silu,
        _silu_slope,
        _silu_curvature,
        slope_range=_SILU_SLOPES,
    )


def mish() -> Activation:
    """``phi(x) = x tanh(log(1 + exp(x)))``.

    Returns
    -------
    Activation

    References
    ----------
    Misra, Mish: a self regularized non-monotonic activation function, 2020.
    """
    return built_in("mish", _mish, _mish_slope, _mish_curvature, slope_range=_MISH_SLOPES)


@in_double
def _gelu(x: np.ndarray) -> np.ndarray:
    size = np.minimum(np.abs(x), GAUSSIAN_END)
    lost = normal_tail(size, size)
    return np.where(x > 0, x - lost, -lost)


@in_double
def _gelu_slope(x: np.ndarray) -> np.ndarray:
    size = np.minimum(np.abs(x), GAUSSIAN_END)
    lost = normal_tail(size, np.ones_like(size)) - normal_density(size, size)
    return np.where(x > 0, 1 - lost, lost)


@in_double
def _gelu_curvature(x: np.ndarray) -> np.ndarray:
    near = np.clip(x, -GAUSSIAN_END, GAUSSIAN_END)
    return normal_density(near, (_SQRT_2 - near) * (_SQRT_2 + near))


# SiLU and GELU's tanh form are x logistic(w(x)) with an odd w.  With e = exp(-|w|):
# phi' is (1 + e + x w' e) / (1 + e)**2 above 0, and phi'(-x) = 1 - phi'(x); phi'' is even.


def _gated(x: np.ndarray, exponent: np.ndarray, rest: np.ndarray | float) -> np.ndarray:
    """``x logistic(w)`` for ``exponent + rest = -|w|``."""
    inverse = 1 / (1 + np.exp(exponent))
    return np.where(
        x > 0, x * inverse, scaled_exp(np.maximum(x, -EXP_END) * inverse, exponent, rest)
    )


def _gated_slope(
    x: np.ndarray, growth: np.ndarray, exponent: np.ndarray, rest: np.ndarray | float
) -> np.ndarray:
    """Its derivative, for ``growth = |x w'|``."""
    decay = np.exp(exponent)
    inverse = 1 / (1 + decay)
    return np.where(
        x > 0,
        inverse + growth * decay * inverse * inverse,
        scaled_exp((1 + decay - growth) * inverse * inverse, exponent, rest),
    )


@in_double
def _silu(x: np.ndarray) -> np.ndarray:
    return _gated(x, -np.minimum(np.abs(x), EXP_END), 0.0)


@in_double
def _silu_slope(x: np.ndarray) -> np.ndarray:
    size = np.minimum(np.abs(x), EXP_END)
    return _gated_slope(x, size, -size, 0.0)


@in_double
def _silu_curvature(x: np.ndarray) -> np.ndarray:
    size = np.minimum(np.abs(x), EXP_END)
    inverse = 1 / (1 + np.exp(-size))
    return scaled_exp((2 - size * np.tanh(size / 2)) * inverse * inverse, -size)


def _gelu_tanh_exponent(size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``-w(size)``, w(x) = 2 sqrt(2 / pi) (x + 0.044715 x**3), rounded, and the rest."""
    square, square_rest = two_product(size, size)
    cubic, cubic_rest = two_product(square, _GELU_CUBIC[0])
    cubic_rest += square_rest * _GELU_CUBIC[0] + square * _GELU_CUBIC[1]
    total = cubic + _GELU_LINEAR[0]
    share = total - cubic
    lost = (cubic - (total - share)) + (_GELU_LINEAR[0] - share)
    product, product_rest = two_product(total, size)
    return -product, -(product_rest + (lost + cubic_rest + _GELU_LINEAR[1]) * size)


@in_double
def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    return _gated(x, *_gelu_tanh_exponent(np.minimum(np.abs(x), GAUSSIAN_END)))


@in_double
def _gelu_tanh_slope(x: np.ndarray) -> np.ndarray:
    size = np.minimum(np.abs(x), GAUSSIAN_END)
    growth = size * (_GELU_LINEAR[0] + 3 * _GELU_CUBIC[0] * size * size)
    return _gated_slope(x, growth, *_gelu_tanh_exponent(size))


@in_double
def _gelu_tanh_curvature(x: np.ndarray) -> np.ndarray:
    size = np.minimum(np.abs(x), GAUSSIAN_END)
    cubic = _GELU_CUBIC[0] * size * size
    rate = _GELU_LINEAR[0] + 3 * cubic
    exponent, rest = _gelu_tanh_exponent(size)
    inverse = 1 / (1 + np.exp(exponent))
    bend = 2 * rate + 6 * cubic - size * rate * rate * np.tanh(-exponent / 2)
    return scaled_exp(bend * inverse * inverse, exponent, rest)


# Mish is x t(x), t = tanh(log(1 + u)) = (u**2 + 2 u) / (u**2 + 2 u + 2), u = exp(x).  Above 0 its
# terms are divided by the highest power of u.


def _mish_gate(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``-|x|``, exp of it, and the denominator of t."""
    exponent = -np.minimum(np.abs(x), EXP_END)
    decay = np.exp(exponent)
    return exponent, decay, np.where(x > 0, 1 + 2 * decay * (1 + decay), 2 + decay * (2 + decay))


@in_double
def _mish(x: np.ndarray) -> np.ndarray:
    exponent, decay, denominator = _mish_gate(x)
    below = np.clip(x, -EXP_END, 0.0) * ((2 + decay) / denominator)
    return np.where(x > 0, x * ((1 + 2 * decay) / denominator), scaled_exp(below, exponent))


@in_double
def _mish_slope(x: np.ndarray) -> np.ndarray:
    exponent, decay, denominator = _mish_gate(x)
    near = np.clip(x, -EXP_END, EXP_END)
    above = (1 + 2 * decay + 4 * near * decay * decay * (1 + decay) / denominator) / denominator
    below = (2 + decay + 4 * near * (1 + decay) / denominator) / denominator
    return np.where(x > 0, above, scaled_exp(below, exponent))


@in_double
def _mish_curvature(x: np.ndarray) -> np.ndarray:
    exponent, decay, denominator = _mish_gate(x)
    near = np.clip(x, -EXP_END, EXP_END)
    bend = np.where(
        x > 0,
        ((2 * decay + 2) * decay - 3) * decay - 2,
        2 + decay * (2 - decay * (3 + 2 * decay)),
    )
    factor = 4 * (2 * (1 + decay) + near * bend / denominator) / denominator**2
    return scaled_exp(factor, np.where(x > 0, 2 * exponent, exponent))
