"""Two-point Gaussian means in closed form: identity, (leaky) ReLU, erf.

Cho and Saul, Kernel methods for deep learning (2009); Williams, Computing with infinite networks
(1997).  ``near`` is ``1 - |c|`` with the sign of c.
"""

import math

import numpy as np

# enum jm_activation_id
_IDENTITY, _LEAKY_RELU, _ERF = 0, 1, 2


def dual(activation, derivative, q1, q2, near):
    """``E f(u1) f(u2)``, f phi or (derivative 1) phi'; None for other activations."""
    c = np.copysign(1 - np.abs(near), near)
    missing = 0 * (q1 + q2)  # NaN where the result is
    if activation.kernel_id == _IDENTITY:
        return 1 + missing + 0 * c if derivative else np.sqrt(q1) * c * np.sqrt(q2)
    if activation.kernel_id == _LEAKY_RELU:
        a, at_zero = activation.parameters
        angle, sine = _angle(near)
        if derivative:
            either = (q1 == 0) | (q2 == 0)
            both = (q1 == 0) & (q2 == 0)
            one_zero = np.where(both, at_zero * at_zero, at_zero * (1 + a) / 2)
            means = a + (1 - a) ** 2 * (math.pi - angle) / (2 * math.pi)
            return np.where(either, one_zero, means) + missing
        arc = sine + (math.pi - angle) * c
        return np.sqrt(q1) * (a * c + (1 - a) ** 2 * arc / (2 * math.pi)) * np.sqrt(q2)
    if activation.kernel_id == _ERF:
        # (1 + 2 q1) (1 + 2 q2) - 4 q1 q2 c**2, of terms of one sign
        rest = np.abs(near) * (2 - np.abs(near))
        root = np.sqrt(1 + 2 * (q1 + q2) + 4 * q1 * q2 * rest)
        if derivative:
            return 4 / (math.pi * root)
        return 2 / math.pi * np.arctan(2 * np.sqrt(q1) * c * np.sqrt(q2) / root)
    return None


def same_variance(activation, q, near, is_spread):
    """``E phi'(u1) phi'(u2)``, or ``E (phi(u1) - phi(u2))**2 / (2 q (1 - c))``, at variance q."""
    if not is_spread:
        return dual(activation, 1, q, q, near)
    gap = np.where(np.signbit(near), 2 - np.abs(near), near)
    if activation.kernel_id == _IDENTITY:
        return 1 + 0 * (q + gap)
    if activation.kernel_id == _LEAKY_RELU:
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
        return a + (1 - a) ** 2 * (0.5 - ratio / (2 * math.pi)) + 0 * q
    if activation.kernel_id == _ERF:
        rest = np.abs(near) * (2 - np.abs(near))
        # asin x - asin y = 2 atan((x - y) / (sqrt(1 - x**2) + sqrt(1 - y**2))), over q (1 - c)
        roots = np.sqrt(1 + 4 * q) + np.sqrt(1 + 4 * q + 4 * q * q * rest)
        ratio = 2 * q * gap / roots
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.where(ratio > 0, np.arctan(ratio) / ratio, 1.0)
        return 8 / math.pi * mean / roots + 0 * ratio
    return None


def _angle(near):
    """The angle whose cosine is c, and its sine."""
    distance = np.abs(near)
    sharp = 2 * np.arcsin(np.sqrt(distance / 2))
    angle = np.where(np.signbit(near), math.pi - sharp, sharp)
    return angle, np.sqrt(distance * (2 - distance))
