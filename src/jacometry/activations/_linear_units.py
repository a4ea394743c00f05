"""Exponential linear units, straight above 0 and flat far below: ELU, SELU, CELU, softplus."""

from functools import partial

import numpy as np

from ._activation import Activation, built_in
from ._exponentials import EXP_END, in_double, scaled_exp, two_product

__all__ = ["celu", "elu", "selu", "softplus"]

# Klambauer et al. 2017, eq. 14, to 17 digits: E phi = 0 and E phi**2 = 1 at q = 1.
_SELU_SCALE = 1.0507009873554805
_SELU_SCALE_TIMES_ALPHA = 1.7580993408473768
# Keeps the exact products of arguments and parameters within range.
_PARAMETER_END = 1e100


def elu(alpha: float = 1.0) -> Activation:
    """``phi(x) = x`` above 0, ``alpha (exp(x) - 1)`` below; slope `alpha` at 0.

    Parameters
    ----------
    alpha : float, optional
        In [1e-100, 1e100].

    Returns
    -------
    Activation

    Notes
    -----
    At 0 the slope jumps unless ``alpha = 1``, and the curvature always.

    References
    ----------
    Clevert, Unterthiner and Hochreiter, Fast and accurate deep network learning by exponential
    linear units, 2016.
    """
    alpha = _positive("alpha", alpha)
    return _exponential_linear("elu", 1.0, alpha, parameters=(alpha,))


def selu() -> Activation:
    """``phi(x) = scale x`` above 0, ``scale alpha (exp(x) - 1)`` below, with a fixed point.

    Returns
    -------
    Activation

    Notes
    -----
    ``scale = 1.0507...`` and ``alpha = 1.6732...`` make ``E phi(z) = 0`` and ``E phi(z)**2 = 1``, z
    standard normal.  At 0 the slope is ``scale alpha = 1.7580...``, just above 0 it is `scale`.

    References
    ----------
    Klambauer, Unterthiner, Mayr and Hochreiter, Self-normalizing neural networks, 2017.
    """
    return _exponential_linear("selu", _SELU_SCALE, _SELU_SCALE_TIMES_ALPHA)


def celu(alpha: float = 1.0) -> Activation:
    """``phi(x) = x`` above 0, ``alpha (exp(x / alpha) - 1)`` below.

    Parameters
    ----------
    alpha : float, optional
        In [1e-100, 1e100].

    Returns
    -------
    Activation

    Notes
    -----
    The slope is continuous; the curvature jumps from ``1 / alpha``, its value at 0, to 0.

    References
    ----------
    Barron, Continuously differentiable exponential linear units, 2017.
    """
    alpha = _positive("alpha", alpha)
    return built_in(
        "celu",
        partial(_celu, alpha=alpha),
        partial(_celu_slope, alpha=alpha),
        partial(_celu_curvature, alpha=alpha),
        parameters=(alpha,),
        kinks=(0.0,),
        slope_range=(0.0, 1.0),
    )


def softplus(beta: float = 1.0) -> Activation:
    """``phi(x) = log(1 + exp(beta x)) / beta``.

    Parameters
    ----------
    beta : float, optional
        In [1e-100, 1e100].

    Returns
    -------
    Activation

    Notes
    -----
    PyTorch's, without its switch to ``x`` where ``beta x > 20``.
    """
    beta = _positive("beta", beta)
    return built_in(
        "softplus",
        partial(_softplus, beta=beta),
        partial(_softplus_slope, beta=beta),
        partial(_softplus_curvature, beta=beta),
        parameters=(beta,),
        slope_range=(0.0, 1.0),
    )


def _positive(argument: str, value: float) -> float:
    if not 1 / _PARAMETER_END <= value <= _PARAMETER_END:
        raise ValueError(f"{argument} must lie in [1e-100, 1e100], got {value!r}")
    return float(value)


def _exponential_linear(
    name: str, above: float, below: float, parameters: tuple[float, ...] = ()
) -> Activation:
    return built_in(
        name,
        partial(_elu, above=above, below=below),
        partial(_elu_slope, above=above, below=below),
        partial(_elu_curvature, below=below),
        parameters=parameters,
        kinks=(0.0,),
        slope_range=(0.0, max(above, below)),
    )


@in_double
def _elu(x: np.ndarray, *, above: float, below: float) -> np.ndarray:
    return np.where(x > 0, above * x, below * np.expm1(np.minimum(x, 0.0)))


@in_double
def _elu_slope(x: np.ndarray, *, above: float, below: float) -> np.ndarray:
    return np.where(x > 0, above, scaled_exp(below, np.clip(x, -EXP_END, 0.0)))


@in_double
def _elu_curvature(x: np.ndarray, *, below: float) -> np.ndarray:
    return np.where(x > 0, 0.0, scaled_exp(below, np.clip(x, -EXP_END, 0.0)))


@in_double
def _celu(x: np.ndarray, *, alpha: float) -> np.ndarray:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0) / alpha))


@in_double
def _celu_slope(x: np.ndarray, *, alpha: float) -> np.ndarray:
    return np.where(x > 0, 1.0, scaled_exp(1.0, *_quotient(x, alpha)))


@in_double
def _celu_curvature(x: np.ndarray, *, alpha: float) -> np.ndarray:
    return np.where(x > 0, 0.0, scaled_exp(1 / alpha, *_quotient(x, alpha)))


def _quotient(x: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """``min(x, 0) / alpha`` rounded, and the rest."""
    near = np.clip(x, -EXP_END * alpha, 0.0)
    quotient = near / alpha
    product, rest = two_product(quotient, alpha)
    return quotient, ((near - product) - rest) / alpha


def _decay(x: np.ndarray, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """``-beta |x|`` rounded, and the rest."""
    return two_product(np.minimum(np.abs(x), EXP_END / beta), -beta)


@in_double
def _softplus(x: np.ndarray, *, beta: float) -> np.ndarray:
    decay = scaled_exp(1.0, *_decay(x, beta))
    return np.maximum(x, 0.0) + np.log1p(decay) / beta


@in_double
def _softplus_slope(x: np.ndarray, *, beta: float) -> np.ndarray:
    decay = scaled_exp(1.0, *_decay(x, beta))
    return np.where(x < 0, decay, 1.0) / (1 + decay)


@in_double
def _softplus_curvature(x: np.ndarray, *, beta: float) -> np.ndarray:
    exponent, rest = _decay(x, beta)
    return scaled_exp(beta / (1 + np.exp(exponent)) ** 2, exponent, rest)
