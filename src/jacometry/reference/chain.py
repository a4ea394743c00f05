"""Oracles of the chain kernels, for one sample: plain loops with power-of-two scaling."""

import numpy as np


def _split(x):
    """x / 2**e with its largest magnitude in [0.5, 1), and e."""
    largest = np.max(np.abs(x), initial=0.0)
    e = int(np.frexp(largest)[1]) if np.isfinite(largest) else 0
    return np.ldexp(x, -e), e


def _factor(weights, slopes, slope_side, shortcut):
    """F = shortcut I + diag(s) W, or shortcut I + W diag(s), as (mantissa, exponent)."""
    w, e = _split(np.asarray(weights, dtype=np.float64))
    if slopes is not None:
        s, e_slopes = _split(np.asarray(slopes, dtype=np.float64))
        w = s[:, None] * w if slope_side == "output" else w * s
        e += e_slopes
    if shortcut != 0:
        c, e_shortcut = np.frexp(shortcut)
        top = max(e, int(e_shortcut)) if w.any() else int(e_shortcut)
        w = np.ldexp(w, e - top) + np.ldexp(c, int(e_shortcut) - top) * np.eye(len(w))
        e = top
    w, rest = _split(w)
    return w, e + rest


def _factors(weights, slopes, slope_side, shortcut):
    slopes = [None] * len(weights) if slopes is None else slopes
    shortcuts = np.broadcast_to(shortcut, len(weights))
    return [
        _factor(w, s, slope_side, float(c))
        for w, s, c in zip(weights, slopes, shortcuts, strict=True)
    ]


def chain_product(weights, slopes=None, slope_side="output", shortcut=0.0):
    """J = F_{L-1} ... F_0 as (mantissa, exponent)."""
    product, exponent = np.eye(np.shape(weights[0])[1]), 0
    for factor, e in _factors(weights, slopes, slope_side, shortcut):
        product, rest = _split(factor @ product)
        exponent += e + rest
    return (product, exponent) if product.any() else (product, 0)


def _push(matrices, vector):
    """Mantissas and exponents of a vector before and after each matrix."""
    mantissa, exponent = _split(np.asarray(vector, dtype=np.float64))
    trace = [(mantissa, exponent)]
    for matrix, e in matrices:
        mantissa, rest = _split(matrix @ mantissa)
        exponent += e + rest
        trace.append((mantissa, exponent))
    return trace


def chain_jvp(weights, tangent, slopes=None, slope_side="output", shortcut=0.0):
    """The tangent at every interface, as a list of (mantissa, exponent), the input's first."""
    return _push(_factors(weights, slopes, slope_side, shortcut), tangent)


def chain_vjp(weights, cotangent, slopes=None, slope_side="output", shortcut=0.0):
    """The cotangent at every interface, as a list of (mantissa, exponent), the input's first."""
    factors = _factors(weights, slopes, slope_side, shortcut)
    return _push([(f.T, e) for f, e in reversed(factors)], cotangent)[::-1]
