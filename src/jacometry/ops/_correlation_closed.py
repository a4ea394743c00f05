"""Two-point Gaussian means in closed form, of activations that have one.

Cho and Saul, Kernel methods for deep learning (2009), for the leaky ReLU; Williams, Computing with
infinite networks (1997), for erf; Gaussian integration by parts for GELU.  ``near`` is ``1 - |c|``
with the sign of c.
"""

import math

import numpy as np


def dual(activation, derivative, q1, q2, near):
    """``E f(u1) f(u2)``, f the derivative of that order of phi; None where no form is known."""
    if activation.kernel_id not in _MEANS:
        return None
    mean = _MEANS[activation.kernel_id](activation, derivative, q1, q2, near)
    return None if mean is None else mean + 0 * (q1 + q2 + near)  # NaN where one of them is


def same_variance(activation, q, near, is_spread):
    """``E phi'(u1) phi'(u2)``, or ``E (phi(u1) - phi(u2))**2 / (2 q (1 - c))``, at variance q."""
    if not is_spread:
        return dual(activation, 1, q, q, near)
    if activation.kernel_id not in _SPREADS:
        return None
    gap = np.where(np.signbit(near), 2 - np.abs(near), near)
    return _SPREADS[activation.kernel_id](activation, q, near, gap) + 0 * (q + gap)


def _identity_mean(_, derivative, q1, q2, near):
    return _covariance(q1, q2, near) if derivative == 0 else 2.0 - derivative


def _identity_spread(_, q, near, gap):
    return 1.0


def _leaky_relu_mean(activation, derivative, q1, q2, near):
    if derivative == 2:
        return None
    a, at_zero = activation.parameters
    angle, sine = _angle(near)
    if derivative == 1:
        either = (q1 == 0) | (q2 == 0)
        both = (q1 == 0) & (q2 == 0)
        one_zero = np.where(both, at_zero * at_zero, at_zero * (1 + a) / 2)
        means = a + (1 - a) ** 2 * (math.pi - angle) / (2 * math.pi)
        return np.where(either, one_zero, means)
    c = _correlation(near)
    arc = sine + (math.pi - angle) * c
    return np.sqrt(q1) * (a * c + (1 - a) ** 2 * arc / (2 * math.pi)) * np.sqrt(q2)


def _leaky_relu_spread(activation, q, near, gap):
    a, _ = activation.parameters
    angle, sine = _angle(near)
    # sin x - x cos x over 1 - cos x: its Taylor series where it cancels
    square = angle * angle
    series = angle * (
        1 / 3 - square * (1 / 30 - square * (1 / 840 - square * (1 / 45360 - square / 3991680)))
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(
            angle < 0.1,
            2 * series / np.square(np.sinc(angle / (2 * math.pi))),
            (sine - angle * (1 - gap)) / gap,
        )
    return a + (1 - a) ** 2 * (0.5 - ratio / (2 * math.pi))


def _erf_mean(_, derivative, q1, q2, near):
    if derivative == 2:
        return None
    cosine, sine, x, y = _smoothed(2 * q1, 2 * q2, near)
    if derivative == 1:
        return 4 / math.pi * np.sqrt(x) * np.sqrt(y) / sine
    return 2 / math.pi * np.arctan2(cosine, sine)


def _erf_spread(_, q, near, gap):
    rest = np.abs(near) * (2 - np.abs(near))
    # asin x - asin y = 2 atan((x - y) / (sqrt(1 - x**2) + sqrt(1 - y**2))), over q (1 - c)
    root = np.sqrt(1 + 4 * q)
    roots = root + np.hypot(root, 2 * q * np.sqrt(rest))
    ratio = 2 * q * gap / roots
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(ratio > 0, np.arctan(ratio) / ratio, 1.0)
    return 8 / math.pi * mean / roots


def _gelu_mean(_, derivative, q1, q2, near):
    if derivative == 2:
        return None
    cosine, sine, x, y = _smoothed(q1, q2, near)
    both = 0.25 + np.arctan2(cosine, sine) / (2 * math.pi)  # P(z1 < u1, z2 < u2)
    if derivative == 1:
        return both + cosine / (2 * math.pi * sine) * (x + y + x * y / sine**2)
    c = _correlation(near)
    rest = np.abs(near) * (2 - np.abs(near))
    root = np.sqrt(1 - x) * np.sqrt(1 - y)
    inner = c * both + root * (rest + c * c * (x + y)) / (2 * math.pi * sine)
    return np.sqrt(q1) * inner * np.sqrt(q2)


def _sin_mean(_, derivative, q1, q2, near):
    # E cos(u1 - u2) and E cos(u1 + u2), of which one is the larger
    covariance = np.sqrt(q1) * (1 - np.abs(near)) * np.sqrt(q2)
    apart = (np.sqrt(q1) - np.sqrt(q2)) ** 2 / 2 + np.sqrt(q1) * np.abs(near) * np.sqrt(q2)
    if derivative == 1:
        return np.exp(-apart) * (1 + np.exp(-2 * covariance)) / 2
    return np.copysign(np.exp(-apart) * -np.expm1(-2 * covariance) / 2, near)


def _sin_spread(_, q, near, gap):
    x = q * gap
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(x > 0, -np.expm1(-x) / x, 1.0)
    return mean * (1 + np.exp(-q * (2 - gap))) / 2


def _quadratic_mean(_, derivative, q1, q2, near):
    covariance = _covariance(q1, q2, near)
    return (q1 * q2 + 2 * covariance * covariance, 4 * covariance, 4.0)[derivative]


def _quadratic_spread(_, q, near, gap):
    return 2 * q * (2 - gap)


# enum jm_activation_id
_MEANS = {
    0: _identity_mean,
    1: _leaky_relu_mean,
    2: _erf_mean,
    3: _gelu_mean,
    4: _sin_mean,
    5: _quadratic_mean,
}
_SPREADS = {
    0: _identity_spread,
    1: _leaky_relu_spread,
    2: _erf_spread,
    4: _sin_spread,
    5: _quadratic_spread,
}


def _correlation(near):
    return np.copysign(1 - np.abs(near), near)


def _covariance(q1, q2, near):
    return np.sqrt(q1) * _correlation(near) * np.sqrt(q2)


def _angle(near):
    """The angle whose cosine is c, and its sine."""
    distance = np.abs(near)
    sharp = 2 * np.arcsin(np.sqrt(distance / 2))
    angle = np.where(np.signbit(near), math.pi - sharp, sharp)
    return angle, np.sqrt(distance * (2 - distance))


def _smoothed(q1, q2, near):
    """With unit variance added to either input: their correlation, ``sqrt(1 - it**2)``, x and y.

    ``x = 1 / (1 + q1)`` and ``y = 1 / (1 + q2)``.  Terms are of one sign and nothing overflows.
    """
    x, y = 1 / (1 + q1), 1 / (1 + q2)
    p, q = q1 * x, q2 * y
    rest = np.abs(near) * (2 - np.abs(near))
    sine = np.sqrt(y + q * (x + p * rest))
    return np.sqrt(p) * _correlation(near) * np.sqrt(q), sine, x, y
