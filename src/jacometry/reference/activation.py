"""Oracle of the activations: value, slope, curvature (functions of one float) and kinks."""

import math

SQRT_2PI = math.sqrt(2 * math.pi)


def identity():
    """x."""
    return lambda x: x, lambda x: 1.0, lambda x: 0.0, ()


def leaky_relu(negative_slope, slope_at_zero):
    """x above 0, negative_slope x below."""
    return (
        lambda x: x if x > 0 else negative_slope * x,
        lambda x: slope_at_zero if x == 0 else 1.0 if x > 0 else negative_slope,
        lambda x: 0.0,
        () if negative_slope == 1 else (0.0,),
    )


def tanh():
    """Hyperbolic tangent; cosh overflows beyond 710, where the derivatives are zero."""

    def sech(x):
        return 1 / math.cosh(x) if abs(x) < 700 else 0.0

    return (
        math.tanh,
        lambda x: sech(x) ** 2,
        lambda x: -2 * math.tanh(x) * sech(x) ** 2,
        (),
    )


def sigmoid():
    """1 / (1 + exp(-x))."""

    def value(x):
        return 1 / (1 + math.exp(-x)) if x > -700 else 0.0

    return (
        value,
        lambda x: value(x) * value(-x),
        lambda x: value(x) * value(-x) * (value(-x) - value(x)),
        (),
    )


def erf():
    """Error function."""
    return (
        math.erf,
        lambda x: 2 / math.sqrt(math.pi) * math.exp(-(x**2)),
        lambda x: -4 * x / math.sqrt(math.pi) * math.exp(-(x**2)),
        (),
    )


def gelu():
    """x P(Z <= x)."""

    def below(x):
        return math.erfc(-x / math.sqrt(2)) / 2

    def density(x):
        return math.exp(-(x**2) / 2) / SQRT_2PI

    return (
        lambda x: x * below(x),
        lambda x: below(x) + x * density(x),
        lambda x: (2 - x**2) * density(x),
        (),
    )


# By kernel id.
ACTIVATIONS = (identity, leaky_relu, tanh, sigmoid, erf, gelu)
