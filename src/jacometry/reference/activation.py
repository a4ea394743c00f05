"""Oracle of the activations: value, slope, curvature (functions of one float) and kinks."""

import math

SQRT_2PI = math.sqrt(2 * math.pi)


def identity():
    """x."""
    return lambda x: x, lambda x: 1.0, lambda x: 0.0, ()


def leaky_relu(negative_slope, slope_at_zero):
    """x above 0, negative_slope x below; relu, prelu and abs are this with their parameters."""
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


def gelu_tanh():
    """x logistic(w(x)), w(x) = 2 sqrt(2 / pi) (x + 0.044715 x^3)."""
    c = 2 * math.sqrt(2 / math.pi)
    phi, dphi, d2phi, _ = sigmoid()

    def w(x):
        return c * (x + 0.044715 * x**3)

    def dw(x):
        return c * (1 + 0.134145 * x**2)

    return (
        lambda x: x * phi(w(x)),
        lambda x: phi(w(x)) + x * dphi(w(x)) * dw(x),
        lambda x: (
            2 * dphi(w(x)) * dw(x) + x * (d2phi(w(x)) * dw(x) ** 2 + dphi(w(x)) * c * 0.26829 * x)
        ),
        (),
    )


def silu():
    """x / (1 + exp(-x))."""
    phi, dphi, d2phi, _ = sigmoid()
    return (
        lambda x: x * phi(x),
        lambda x: phi(x) + x * dphi(x),
        lambda x: 2 * dphi(x) + x * d2phi(x),
        (),
    )


def softplus(beta=1.0):
    """log(1 + exp(beta x)) / beta."""
    phi, dphi, _, _ = sigmoid()

    def value(x):
        return max(x, 0.0) + math.log1p(math.exp(-beta * abs(x))) / beta

    return value, lambda x: phi(beta * x), lambda x: beta * dphi(beta * x), ()


def mish():
    """x tanh(log(1 + exp(x)))."""
    plus, dplus, d2plus, _ = softplus()
    t, dt, d2t, _ = tanh()

    def slope_of_gate(x):
        return dt(plus(x)) * dplus(x)

    def curvature_of_gate(x):
        return d2t(plus(x)) * dplus(x) ** 2 + dt(plus(x)) * d2plus(x)

    return (
        lambda x: x * t(plus(x)),
        lambda x: t(plus(x)) + x * slope_of_gate(x),
        lambda x: 2 * slope_of_gate(x) + x * curvature_of_gate(x),
        (),
    )


def elu(alpha=1.0, scale=1.0):
    """scale x above 0, scale alpha (exp(x) - 1) below."""
    return (
        lambda x: scale * (x if x > 0 else alpha * math.expm1(x)),
        lambda x: scale * (1.0 if x > 0 else alpha * math.exp(x)),
        lambda x: 0.0 if x > 0 else scale * alpha * math.exp(x),
        (0.0,),
    )


def selu():
    """ELU with E phi = 0 and E phi^2 = 1 at q = 1 (Klambauer et al. 2017)."""
    return elu(1.6732632423543772848, 1.0507009873554804934)


def celu(alpha=1.0):
    """x above 0, alpha (exp(x / alpha) - 1) below."""
    return (
        lambda x: x if x > 0 else alpha * math.expm1(x / alpha),
        lambda x: 1.0 if x > 0 else math.exp(x / alpha),
        lambda x: 0.0 if x > 0 else math.exp(x / alpha) / alpha,
        (0.0,),
    )


def softsign():
    """x / (1 + |x|)."""
    return (
        lambda x: x / (1 + abs(x)),
        lambda x: (1 + abs(x)) ** -2,
        lambda x: 0.0 if x == 0 else -2 * math.copysign(1, x) * (1 + abs(x)) ** -3,
        (0.0,),
    )


def clipped(low, high):
    """x, but `low` below that and `high` above that."""
    return (
        lambda x: min(max(x, low), high),
        lambda x: 1.0 if low < x < high else 0.0,
        lambda x: 0.0,
        (low, high),
    )


def hard_tanh():
    """x clipped to [-1, 1]."""
    return clipped(-1.0, 1.0)


def relu6():
    """x clipped to [0, 6]."""
    return clipped(0.0, 6.0)


def hard_sigmoid():
    """relu6(x + 3) / 6."""
    phi, dphi, d2phi, _ = relu6()
    return lambda x: phi(x + 3) / 6, lambda x: dphi(x + 3) / 6, d2phi, (-3.0, 3.0)


def hard_swish():
    """x relu6(x + 3) / 6."""
    phi, dphi, _, _ = hard_sigmoid()
    return (
        lambda x: x * phi(x),
        lambda x: phi(x) + x * dphi(x),
        lambda x: 2 * dphi(x),
        (-3.0, 3.0),
    )


def sin():
    """Sine."""
    return math.sin, math.cos, lambda x: -math.sin(x), ()


def quadratic():
    """x^2."""
    return lambda x: x * x, lambda x: 2 * x, lambda x: 2.0, ()


# By name.
BY_NAME = {
    f.__name__: f
    for f in (
        identity, leaky_relu, tanh, sigmoid, erf, gelu, gelu_tanh, silu, softplus, mish, elu, selu,
        celu, softsign, hard_tanh, relu6, hard_sigmoid, hard_swish, sin, quadratic,
    )
} | dict.fromkeys(("relu", "prelu", "abs"), leaky_relu)  # fmt: skip
