"""The built-in activations in mpmath: value, slope and curvature by their defining formulas."""

import mpmath as mp


def step(place, closed, left, right):
    """left(x) below `place`, and at it if `closed`; right(x) above."""
    return lambda x: left(x) if x < place or (closed and x == place) else right(x)


def constant(c):
    return lambda x: c() if callable(c) else mp.mpf(c)


def line(x):
    return x


ZERO, ONE = constant(0), constant(1)


def rectifier(negative_slope, slope_at_zero):
    slope_left = step(0, False, constant(negative_slope), constant(slope_at_zero))
    return (
        step(0, True, lambda x: negative_slope * x, line),
        step(0, True, slope_left, ONE),
        ZERO,
    )


def clipped(low, high, inner=line, slope=ONE):
    """inner(x) between `low` and `high`, what it is at the ends beyond them."""

    def between(left, middle, right):
        return step(low, True, left, step(high, False, middle, right))

    return (
        between(constant(inner(low)), inner, constant(inner(high))),
        between(ZERO, slope, ZERO),
        ZERO,
    )


def hard_swish():
    def between(left, middle, right):
        return step(-3, True, left, step(3, False, middle, right))

    return (
        between(ZERO, lambda x: x * (x + 3) / 6, line),
        between(ZERO, lambda x: (2 * x + 3) / 6, ONE),
        between(ZERO, lambda x: mp.mpf(1) / 3, ZERO),
    )


def exponential_linear(scales):
    """`scales` gives the slope above 0 and the one below."""
    return (
        step(0, True, lambda x: scales()[1] * mp.expm1(x), lambda x: scales()[0] * x),
        step(0, True, lambda x: scales()[1] * mp.exp(x), lambda x: scales()[0]),
        step(0, True, lambda x: scales()[1] * mp.exp(x), ZERO),
    )


def selu_scales():
    """Klambauer et al. 2017, eq. 14: scale and scale times alpha."""
    c = mp.erfc(1 / mp.sqrt(2)) * mp.sqrt(mp.e)
    alpha = mp.sqrt(2 / mp.pi) / (1 - c)
    square = 2 * mp.erfc(mp.sqrt(2)) * mp.e**2 + mp.pi * c**2 - 2 * (2 + mp.pi) * c + mp.pi + 2
    scale = (1 - c) * mp.sqrt(2 * mp.pi / square)
    return scale, scale * alpha


def celu(alpha):
    return (
        step(0, True, lambda x: alpha * mp.expm1(x / alpha), line),
        step(0, True, lambda x: mp.exp(x / alpha), ONE),
        step(0, True, lambda x: mp.exp(x / alpha) / alpha, ZERO),
    )


def logistic(x):
    return 1 / (1 + mp.exp(-x))


def spread(x):
    """Its derivative."""
    return logistic(x) * logistic(-x)


def log1p_exp(x):
    return max(x, mp.mpf(0)) + mp.log1p(mp.exp(-abs(x)))


def softplus(beta):
    return (
        lambda x: log1p_exp(beta * x) / beta,
        lambda x: logistic(beta * x),
        lambda x: beta * spread(beta * x),
    )


def softsign():
    return (
        lambda x: x / (1 + abs(x)),
        lambda x: 1 / (1 + abs(x)) ** 2,
        lambda x: -2 * mp.sign(x) / (1 + abs(x)) ** 3,
    )


def erf():
    def slope(x):
        return 2 / mp.sqrt(mp.pi) * mp.exp(-(x**2))

    return mp.erf, slope, lambda x: -2 * x * slope(x)


def gelu():
    def below(x):
        return mp.erfc(-x / mp.sqrt(2)) / 2 if abs(x) < 1e6 else mp.mpf(x > 0)

    def density(x):
        return mp.exp(-(x**2) / 2) / mp.sqrt(2 * mp.pi)

    return (
        lambda x: x * below(x),
        lambda x: below(x) + x * density(x),
        lambda x: (2 - x**2) * density(x),
    )


def gated(w, dw, d2w):
    """x logistic(w(x))."""

    def slope(x):
        return logistic(w(x)) + x * dw(x) * spread(w(x))

    def curvature(x):
        difference = logistic(-w(x)) - logistic(w(x))
        return spread(w(x)) * (2 * dw(x) + x * d2w(x) + x * dw(x) ** 2 * difference)

    return lambda x: x * logistic(w(x)), slope, curvature


def gelu_tanh():
    def c(k):
        return 2 * mp.sqrt(2 / mp.pi) * k

    def cubic():
        return mp.mpf(44715) / 1000000

    return gated(
        lambda x: c(x + cubic() * x**3),
        lambda x: c(1 + 3 * cubic() * x**2),
        lambda x: c(6 * cubic() * x),
    )


def mish():
    def t(x):
        return mp.tanh(log1p_exp(x))

    def dt(x):
        return mp.sech(log1p_exp(x)) ** 2 * logistic(x)

    def d2t(x):
        return dt(x) * (logistic(-x) - 2 * t(x) * logistic(x))

    return lambda x: x * t(x), lambda x: t(x) + x * dt(x), lambda x: 2 * dt(x) + x * d2t(x)


# By name: a function of the activation's parameters.
TRUTHS = {
    "identity": lambda: (line, ONE, ZERO),
    "relu": rectifier,
    "leaky_relu": rectifier,
    "prelu": rectifier,
    "abs": rectifier,
    "elu": lambda alpha: exponential_linear(lambda: (mp.mpf(1), mp.mpf(alpha))),
    "selu": lambda: exponential_linear(selu_scales),
    "celu": celu,
    "softplus": softplus,
    "sigmoid": lambda: (logistic, spread, lambda x: -mp.tanh(x / 2) * spread(x)),
    "tanh": lambda: (
        mp.tanh,
        lambda x: mp.sech(x) ** 2,
        lambda x: -2 * mp.tanh(x) * mp.sech(x) ** 2,
    ),
    "hard_tanh": lambda: clipped(-1, 1),
    "hard_sigmoid": lambda: clipped(-3, 3, lambda x: mp.mpf(x + 3) / 6, lambda x: mp.mpf(1) / 6),
    "relu6": lambda: clipped(0, 6),
    "hard_swish": hard_swish,
    "softsign": softsign,
    "erf": erf,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": lambda: gated(line, ONE, ZERO),
    "mish": mish,
    "sin": lambda: (mp.sin, mp.cos, lambda x: -mp.sin(x)),
    "quadratic": lambda: (lambda x: x**2, lambda x: 2 * x, constant(2)),
}
